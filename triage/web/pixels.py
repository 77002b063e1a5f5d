"""One frame of a stored image, decoded and rescaled, as the viewer draws it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from triage.decoding.files import check_file, check_frame

_PERCENTILES = (0.5, 99.5)
_PIXEL_DATA = 0x7FE00010
_LENGTH_OF_ITS_HEAD = 12  # tag, VR OB, two reserved bytes and a length (DICOM PS3.5 A.4)


class PixelError(Exception):
    """The pixels cannot be shown; the message says why, for the person at the viewer."""


@dataclass(frozen=True, slots=True)
class Window:
    """A VOI window in rescaled units (DICOM PS3.3 C.11.2.1.2)."""

    center: float
    width: float


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame after the modality LUT (DICOM PS3.3 C.11.1), for CT in HU.

    Attributes:
        kind: how `data` is to be read: "uint8", "int16", "uint16" or "float32", little endian,
            row by row; with three `samples` interleaved RGB in uint8.
        photometric: Photometric Interpretation of what `data` holds: MONOCHROME1, MONOCHROME2
            or RGB. MONOCHROME1 is for the viewer to invert; the values are those of the image.
        frame_rate: frames a second at which a multi-frame image is to be played, 0 where it does
            not say (DICOM PS3.3 C.7.6.5).
    """

    rows: int
    columns: int
    samples: int
    kind: str
    photometric: str
    window: Window
    data: bytes
    frame_rate: float = 0.0

    def values(self) -> NDArray[Any]:
        """Return `data` as an array of rows by columns, of three samples each where it is RGB."""
        shape = (self.rows, self.columns, 3) if self.samples == 3 else (self.rows, self.columns)
        return np.frombuffer(self.data, np.dtype(self.kind).newbyteorder("<")).reshape(shape)


def read_frame(path: Path, number: int) -> Frame:
    """Return frame `number`, from 1 on, of the image at `path`.

    Raises:
        PixelError: the file has no such frame, or its pixels cannot be decoded.
    """
    try:
        check_file(path)
        header = dcmread(path, stop_before_pixels=True)
    except Exception as error:
        raise PixelError(f"the file cannot be read: {why(error)}") from error
    frames = _frames(header)
    if not 1 <= number <= frames:
        raise PixelError(f"there is no frame {number}; the image has {frames}")
    try:
        _check_frame(path, header, number)
        # One frame is read from the file, but a deflated file has no place to find it at.
        source = dcmread(path) if _is_deflated(header) else path
        stored = pixel_array(source, index=number - 1)
        if int(header.get("SamplesPerPixel", 1)) > 1 or _is_palette(header):
            frame = _colour(stored, header)
        else:
            frame = _greyscale(stored, header, number)
        return replace(frame, frame_rate=_frame_rate(header)) if frames > 1 else frame
    except Exception as error:
        raise PixelError(f"{_name_of_encoding(header)} cannot be decoded: {why(error)}") from error


def stated_window(path: Path) -> Window | None:
    """Return the window that a greyscale image of one frame states; its pixels are not read.

    None where it states none, and where each frame may have its own.

    Raises:
        PixelError: the file cannot be read.
    """
    try:
        check_file(path)
        header = dcmread(path, stop_before_pixels=True)
        is_grey = int(header.get("SamplesPerPixel", 1)) == 1 and not _is_palette(header)
        return _stated_window(header, 1) if is_grey and _frames(header) == 1 else None
    except Exception as error:
        raise PixelError(f"the file cannot be read: {why(error)}") from error


def _frames(header: Dataset) -> int:
    try:
        return int(header.get("NumberOfFrames") or 1)
    except (TypeError, ValueError) as error:
        raise PixelError("the Number of Frames of the image is no number") from error


def _frame_rate(header: Dataset) -> float:
    """Return frames a second: as recommended, as acquired, or by the time between two frames."""
    for keyword in ("RecommendedDisplayFrameRate", "CineRate"):
        rate = _first_number(header.get(keyword))
        if rate:
            return rate
    frame_time_ms = _first_number(header.get("FrameTime"))
    return 1000 / frame_time_ms if frame_time_ms and frame_time_ms > 0 else 0.0


def _check_frame(path: Path, header: Dataset, number: int) -> None:
    if not UID(header.file_meta.get("TransferSyntaxUID", "")).is_encapsulated:
        check_frame(header, None, number - 1)
        return
    with path.open("rb") as file:
        read_partial(file, stop_when=lambda tag, *_: tag == _PIXEL_DATA)
        file.seek(_LENGTH_OF_ITS_HEAD, 1)
        check_frame(header, file, number - 1)


def why(error: Exception) -> str:
    """Return the reason of a decoder's error as one plain sentence.

    pydicom strings together what each of its plugins said, which helps nobody at a viewer.
    """
    said, *of_plugins = str(error).splitlines() or [type(error).__name__]
    if "all available plugins" in said:
        for line in of_plugins:
            if "does not support " in line:
                return f"no decoder supports {line.split('does not support ', 1)[1].rstrip('.')}"
        return "no decoder could make sense of it; the file may be damaged"
    return said.rstrip(" :.")


def _is_deflated(header: Dataset) -> bool:
    return bool(header.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian)


def _is_palette(header: Dataset) -> bool:
    return bool(header.get("PhotometricInterpretation") == "PALETTE COLOR")


def _name_of_encoding(header: Dataset) -> str:
    syntax = header.file_meta.get("TransferSyntaxUID", "")
    return f"pixel data in {UID(syntax).name}" if syntax else "pixel data in an unnamed encoding"


def _colour(stored: NDArray[Any], header: Dataset) -> Frame:
    if _is_palette(header):
        stored = apply_color_lut(stored, header)
    if stored.dtype != np.uint8:
        bits = int(header.get("BitsStored", 16)) if not _is_palette(header) else 16
        stored = (stored.astype(np.uint32) >> max(0, bits - 8)).clip(0, 255).astype(np.uint8)
    rows, columns, samples = stored.shape
    full = Window(127.5, 255.0)
    data = np.ascontiguousarray(stored[:, :, :3]).tobytes()
    return Frame(rows, columns, min(samples, 3), "uint8", "RGB", full, data)


def _greyscale(stored: NDArray[Any], header: Dataset, number: int) -> Frame:
    values = _rescaled(stored, header, number)
    kind = _smallest_exact_kind(values)
    rows, columns = values.shape
    return Frame(
        rows=rows,
        columns=columns,
        samples=1,
        kind=kind,
        photometric=str(header.get("PhotometricInterpretation", "MONOCHROME2")),
        window=_window(values, header, number),
        data=values.astype(np.dtype(kind).newbyteorder("<")).tobytes(),
    )


def _rescaled(stored: NDArray[Any], header: Dataset, number: int) -> NDArray[Any]:
    if header.get("ModalityLUTSequence"):
        return np.asarray(apply_modality_lut(stored, header))
    slope, intercept = 1.0, 0.0
    for item in _functional_groups(header, number, "PixelValueTransformationSequence"):
        if "RescaleSlope" in item and "RescaleIntercept" in item:
            slope, intercept = float(item.RescaleSlope), float(item.RescaleIntercept)
            break
    if slope.is_integer() and intercept.is_integer() and stored.dtype.kind in "iu":
        return stored.astype(np.int64) * int(slope) + int(intercept)
    return stored.astype(np.float64) * slope + intercept


def _functional_groups(header: Dataset, number: int, keyword: str) -> Iterator[Dataset]:
    """Yield where a value may stand: the frame's own group, the shared one, the image itself.

    DICOM PS3.3 C.7.6.16.1: Multi-frame Functional Groups.
    """
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    for group in [*per_frame[number - 1 : number], *shared[:1]]:
        yield from list(group.get(keyword) or [])[:1]
    yield header


def _smallest_exact_kind(values: NDArray[Any]) -> str:
    lowest, highest = (values.min(), values.max()) if values.size else (0, 0)
    is_whole = values.dtype.kind in "iu" or bool((values == np.rint(values)).all())
    if is_whole:
        for kind in ("uint8", "int16", "uint16"):
            limits = np.iinfo(kind)
            if lowest >= limits.min and highest <= limits.max:
                return kind
    return "float32"


def _window(values: NDArray[Any], header: Dataset, number: int) -> Window:
    return _stated_window(header, number) or _window_of_values(values, header)


def _stated_window(header: Dataset, number: int) -> Window | None:
    for item in _functional_groups(header, number, "FrameVOILUTSequence"):
        center = _first_number(item.get("WindowCenter"))
        width = _first_number(item.get("WindowWidth"))
        if center is not None and width is not None and width >= 1:
            return Window(center, width)
    return _window_of_voi_lut(header)


def _first_number(value: Any) -> float | None:
    try:
        number = float(
            value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value
        )
    except (TypeError, ValueError, IndexError):
        return None
    return number if np.isfinite(number) else None


def _window_of_voi_lut(header: Dataset) -> Window | None:
    """Return the window that comes nearest to the first VOI LUT (DICOM PS3.3 C.11.2.1.1).

    It spans the inputs whose outputs are between 1 and 99 % of the greatest.
    """
    items = header.get("VOILUTSequence") or []
    if not items or len(items[0].get("LUTDescriptor") or []) != 3:
        return None
    content = items[0].LUTData  # US or OW, DICOM PS3.3 C.11.2
    output = np.frombuffer(content, "<u2") if isinstance(content, bytes) else np.asarray(content)
    inside = np.flatnonzero((output > 0.01 * output.max()) & (output < 0.99 * output.max()))
    if inside.size < 2:
        return None
    first = float(items[0].LUTDescriptor[1])
    low, high = first + float(inside[0]), first + float(inside[-1])
    return Window((low + high) / 2, high - low + 1)


def _window_of_values(values: NDArray[Any], header: Dataset) -> Window:
    if values.dtype.kind in "iu" and int(header.get("BitsStored", 16)) <= 8:
        return Window(127.5, 255.0)
    padding = header.get("PixelPaddingValue")
    kept = values[values != padding] if isinstance(padding, int) else values
    if not kept.size:
        kept = values
    low, high = np.percentile(kept, _PERCENTILES)
    return Window(float(low + high) / 2, max(1.0, float(high - low)))
