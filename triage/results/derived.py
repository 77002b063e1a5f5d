"""Images derived by highdicom from any source, with a place in the patient or without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom.pm import ParametricMap
from highdicom.seg import Segmentation

if TYPE_CHECKING:
    from highdicom.image import _Image as _Base
else:
    _Base = object


class _Mended(_Base):
    """Mends what highdicom 0.28.2 leaves undone for a projection or an ultrasound image.

    It does so where the library is about to read back what it made, and would fail.
    """

    def _build_luts(self) -> None:
        shared = self.SharedFunctionalGroupsSequence[0]
        if "PixelMeasuresSequence" in shared and not shared.PixelMeasuresSequence:
            del shared.PixelMeasuresSequence  # taken over from a source without measures
        for frame in self.PerFrameFunctionalGroupsSequence:
            content = frame.FrameContentSequence[0]
            if not content.get("DimensionIndexValues"):
                # Frame Label is the only dimension of a map that has no place.
                content.FrameLabel = "1"
                content.DimensionIndexValues = [1]
        super()._build_luts()


class DerivedSegmentation(_Mended, Segmentation):
    """A Segmentation of any source."""


class DerivedMap(_Mended, ParametricMap):
    """A Parametric Map of any source."""
