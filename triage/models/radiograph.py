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
    Frame,
    Reader,
    ReadInstance,
    Source,
    decode,
    decode_colour,
    file_digest,
    frames_of,
    in_parallel,
    input_sha256,
    is_colour,
    padding_mask,
    read_instance,
    stating_reasons,
)

_PNG = b"\x89PNG\r\n\x1a\n"
_INVERTED = "MONOCHROME1"
_IMAGE_PIXEL_GROUP = 0x0028
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. ITU-R BT.601, as YBR_FULL has it
_PLAIN = ImageInput(kind="image", size=512)
_OF_A_FRAME = (
    "RescaleSlope",
    "RescaleIntercept",
    "WindowCenter",
    "WindowWidth",
)


@dataclass(frozen=True, slots=True, eq=False)
class Radiograph:
    """One image, as it is shown: bright where the body is dense.

    Attributes:
        display: float32 (rows, columns), after modality and VOI LUT, MONOCHROME1 inverted.
        greatest: what the greatest possible display value is, 0 being the least.
        frame: what it was read from.
        remarks: what was left out or is unusual, for people.
    """

    display: NDArray[np.float32]
    greatest: float
    frame: Frame
    remarks: tuple[str, ...] = ()

    @property
    def instance(self) -> ReadInstance:
        """The image that it is, or is a frame of."""
        return self.frame.instance

    @property
    def frame_numbers(self) -> tuple[int, ...]:
        """Its Referenced Frame Number; empty where it is an image of its own."""
        return () if self.frame.number is None else (self.frame.number,)

    @property
    def input_sha256(self) -> str:
        """Digest of the instance and frame."""
        return input_sha256([self.frame])


@stating_reasons
def load_radiograph(
    sources: Sequence[Source],
    accepts: InputSpec,
    wanted: ImageInput = _PLAIN,
    read: Reader = read_instance,
) -> Radiograph:
    """Return the image of a series that the model is made for; DICOM or PNG.

    Of several, it is the first by Instance Number whose View Position the model accepts. Of a
    multi-frame image it is the frame, and of a colour image the luminance, that `wanted` names.

    Raises:
        InputRefusedError: there is none, or its pixel data cannot be decoded.
    """
    if len(sources) == 1 and _is_png(sources[0][1]):
        return _load_png(sources[0])
    images = [i for i in in_parallel(read, sources) if i.is_image]
    fitting = [i for i in images if _has_accepted_view(i, accepts)]
    if not fitting:
        raise InputRefusedError(
            f"none of the {len(images)} images of the series has an accepted view"
            if images
            else "the series has no image"
        )
    chosen = min(fitting, key=lambda i: (i.number, i.sop_instance_uid))
    others = len(images) - 1
    remarks = [f"{others} further images of the series not analysed"] if others else []
    frame = _chosen_frame(chosen, wanted, remarks)
    if is_colour(chosen) and wanted.colour == "grey":
        display, greatest = decode_colour(chosen, frame.index) @ _LUMINANCE * 255, 255.0
        remarks.append("colour image turned to grey")
    else:
        display, greatest = _displayed(frame)
    return Radiograph(display, greatest, frame, tuple(remarks))


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


def _chosen_frame(image: ReadInstance, wanted: ImageInput, remarks: list[str]) -> Frame:
    frames = frames_of(image)
    if len(frames) == 1:
        return frames[0]
    if wanted.frame == "refuse":
        raise InputRefusedError(
            f"instance {image.sop_instance_uid} is not a single grayscale frame: its Number of "
            f"Frames is {len(frames)}"
        )
    index = 0 if wanted.frame == "first" else len(frames) // 2
    named = image.dataset.get("RepresentativeFrameNumber")
    if wanted.frame == "representative" and isinstance(named, int) and 1 <= named <= len(frames):
        index = named - 1
    remarks.append(f"frame {index + 1} of {len(frames)} analysed")
    return frames[index]


def _displayed(frame: Frame) -> tuple[NDArray[np.float32], float]:
    stored = decode(frame.instance, frame.index)
    dataset = _with_luts_of(frame)
    if stored.dtype.kind == "f":
        return _displayed_floats(frame, stored)
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    greatest = float((1 << bits) - 1)
    values = _through_luts(stored, dataset)
    if dataset.get("VOILUTSequence"):
        greatest = float((1 << int(dataset.VOILUTSequence[0].LUTDescriptor[2])) - 1)
    padding = padding_mask(frame.instance, stored)
    inside = values if padding is None or padding.all() else values[~padding]
    if dataset.get("PhotometricInterpretation") == _INVERTED:
        values = greatest - values
        inside = greatest - inside
    if padding is not None:
        values[padding] = inside.min()  # collimated or never exposed: as dark as it gets
    return values, greatest


def _displayed_floats(frame: Frame, stored: NDArray[Any]) -> tuple[NDArray[np.float32], float]:
    """Return float pixels (PS3.3 C.7.6.24) from 0 on; they have no greatest value but their own."""
    padding = padding_mask(frame.instance, stored)
    inside = stored if padding is None else stored[~padding]
    if not inside.size:
        raise InputRefusedError(f"{frame.name} is blank: it has no pixel that is not padding")
    least, greatest = float(inside.min()), float(inside.max())
    values = np.asarray(stored - least, np.float32)
    if frame.instance.dataset.get("PhotometricInterpretation") == _INVERTED:
        values = np.float32(greatest - least) - values
    if padding is not None:
        values[padding] = 0.0
    return values, max(greatest - least, 1.0)


def _with_luts_of(frame: Frame) -> Dataset:
    """Return the header with the rescale and window of the frame where pydicom looks for them."""
    dataset = frame.instance.dataset
    if not frame.is_of_several:
        return dataset
    own = Dataset()
    own.update(
        {tag: dataset[tag] for tag in list(dataset.keys()) if tag.group == _IMAGE_PIXEL_GROUP}
    )
    for keyword in _OF_A_FRAME:
        value = frame.value(keyword)
        if value is not None:
            setattr(own, keyword, value)
    return own


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
    return Radiograph(values, 65535.0 if deep else 255.0, Frame(instance))
