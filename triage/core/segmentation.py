"""How a segmentation is written: the same voxels in a form that an archive shows or keeps well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SegmentationType = Literal["BINARY", "FRACTIONAL", "LABELMAP"]
"""Segmentation Type (0062,0001), DICOM PS3.3 C.8.20.2.3."""


@dataclass(frozen=True, slots=True)
class SegmentationForm:
    """A Segmentation Type, losslessly compressed or not.

    Attributes:
        type: the Segmentation Type.
        compressed: RLE Lossless of FRACTIONAL and LABELMAP. A BINARY one packs eight voxels in a
            byte, which RLE Lossless does not allow (PS3.5 8.2.2); its data set is deflated.
    """

    type: SegmentationType = "BINARY"
    compressed: bool = False

    @classmethod
    def of(cls, kind: SegmentationType, compressed: bool | None) -> SegmentationForm:
        """Return the form; `compressed` None is as archives expect the type.

        >>> SegmentationForm.of("LABELMAP", None).name, SegmentationForm.of("BINARY", None).name
        ('labelmap-compressed', 'binary')
        """
        return cls(kind, kind != "BINARY" if compressed is None else compressed)

    @property
    def name(self) -> str:
        """A stable name: "binary", "labelmap", "fractional-compressed" and so on."""
        return self.type.lower() + ("-compressed" if self.compressed else "")
