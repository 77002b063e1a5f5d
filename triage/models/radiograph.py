"""A single image as a model's input, and what the model drew as a picture on its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.Image import DecompressionBombError
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from triage.core.analysis import InputRefusedError
from triage.core.manifest import ImageInput, InputSpec
from triage.models.sources import (
    ReadInstance,
    Source,
    decode,
    file_digest,
    in_parallel,
    input_sha256,
    padding_mask,
    read_instance,
    stating_reasons,
)

_PNG = b"\x89PNG\r\n\x1a\n"
_INVERTED = "MONOCHROME1"


@dataclass(frozen=True, slots=True, eq=False)
class Radiograph:
    """One image, as it is shown: bright where the body is dense.

    Attributes:
        display: float32 (rows, columns), after modality and VOI LUT, MONOCHROME1 inverted.
        greatest: what the greatest possible display value is, 0 being the least.
        instance: what it was read from.
        remarks: what was left out or is unusual, for people.
    """

    display: NDArray[np.float32]
    greatest: float
    instance: ReadInstance
    remarks: tuple[str, ...] = ()

    @property
    def input_sha256(self) -> str:
        """Digest of the instance."""
        return input_sha256([self.instance])


@stating_reasons
def load_radiograph(sources: Sequence[Source], accepts: InputSpec) -> Radiograph:
    """Return the image of a series that the model is made for; DICOM or PNG.

    Of several, it is the first by Instance Number whose View Position the model accepts.

    Raises:
        InputRefusedError: there is none, or its pixel data cannot be decoded.
    """
    if len(sources) == 1 and _is_png(sources[0][1]):
        return _load_png(sources[0])
    images = [i for i in in_parallel(read_instance, sources) if i.is_image]
    fitting = [i for i in images if _has_accepted_view(i, accepts)]
    if not fitting:
        raise InputRefusedError(
            f"none of the {len(images)} images of the series has an accepted view"
            if images
            else "the series has no image"
        )
    chosen = min(fitting, key=lambda i: (i.number, i.sop_instance_uid))
    display, greatest = _displayed(chosen)
    others = len(images) - 1
    remarks = (f"{others} further images of the series not analysed",) if others else ()
    return Radiograph(display, greatest, chosen, remarks)


def model_input(radiograph: Radiograph, wanted: ImageInput) -> NDArray[np.float32]:
    """Return the image as (1, 1, size, size), float32 from 0 to 1, stretched to a square.

    It is bilinear with antialiasing, so a detector's 3000 rows do not alias into 320.

    Raises:
        InputRefusedError: all pixels have the same value.
    """
    values = radiograph.display
    if wanted.scaling == "bits":
        low, high = 0.0, radiograph.greatest
    else:
        ends = (wanted.lower_percentile, wanted.upper_percentile)
        low, high = map(float, np.percentile(values, ends))
    if high <= low:
        raise InputRefusedError(
            f"instance {radiograph.instance.sop_instance_uid} is blank: all its pixels are alike"
        )
    scaled = np.clip((values - low) / (high - low), 0.0, 1.0).astype(np.float32)
    return np.clip(resized(scaled, (wanted.size, wanted.size)), 0.0, 1.0)[None, None]


def heat_map_on_source(
    heat_map: NDArray[np.float32], radiograph: Radiograph
) -> NDArray[np.float32]:
    """Return a heat map of any size as (rows, columns) of the image, values kept from 0 to 1.

    The way back of `model_input`: both stretch the whole image, so edges fall on edges.
    """
    rows, columns = radiograph.display.shape
    return np.clip(resized(heat_map, (rows, columns)), 0.0, 1.0)


def resized(values: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return an image (rows, columns) stretched to `shape`, with a triangle filter.

    It equals torch's `interpolate(mode="bilinear", antialias=True, align_corners=False)`, which
    recipes train with, without the import of torch in the worker.
    """
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    rows, columns = shape
    return np.asarray(image.resize((columns, rows), Image.Resampling.BILINEAR), np.float32)


def _has_accepted_view(instance: ReadInstance, accepts: InputSpec) -> bool:
    view = str(instance.dataset.get("ViewPosition") or "").upper()
    if not view:
        return "view_positions" not in accepts.must_state
    return not accepts.view_positions or view in accepts.view_positions


def _displayed(instance: ReadInstance) -> tuple[NDArray[np.float32], float]:
    stored = decode(instance)
    dataset = instance.dataset
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    greatest = float((1 << bits) - 1)
    values = _through_luts(stored, dataset)
    if dataset.get("VOILUTSequence"):
        greatest = float((1 << int(dataset.VOILUTSequence[0].LUTDescriptor[2])) - 1)
    padding = padding_mask(instance, stored)
    inside = values if padding is None or padding.all() else values[~padding]
    if dataset.get("PhotometricInterpretation") == _INVERTED:
        values = greatest - values
        inside = greatest - inside
    if padding is not None:
        values[padding] = inside.min()  # collimated or never exposed: as dark as it gets
    return values, greatest


def _through_luts(stored: NDArray[Any], dataset: Dataset) -> NDArray[np.float32]:
    """Return display values after the Modality LUT and the first VOI LUT (PS3.3 C.11.1, C.11.2).

    A window stretches its range over that of the stored bits.
    """
    values = apply_modality_lut(stored, dataset)
    if dataset.get("VOILUTSequence"):
        return np.asarray(apply_voi_lut(values.astype(np.int64), dataset), np.float32)
    if dataset.get("WindowCenter") is None or dataset.get("WindowWidth") in (None, 0):
        return np.asarray(values, np.float32)
    return np.asarray(apply_voi_lut(values, dataset), np.float32)


def _is_png(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_PNG)) == _PNG
    except OSError:
        return False  # reading it as DICOM states the reason


def _load_png(source: Source) -> Radiograph:
    uid, path = source
    try:
        with Image.open(path) as image:
            deep = image.mode.startswith("I")
            values = np.asarray(image if deep else image.convert("L"), np.float32)
    except (OSError, UnidentifiedImageError, ValueError, DecompressionBombError) as error:
        raise InputRefusedError(f"the image {path.name} cannot be decoded: {error}") from error
    instance = ReadInstance(uid, path, file_digest(path), Dataset())
    return Radiograph(values, 65535.0 if deep else 255.0, instance)
