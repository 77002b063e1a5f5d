"""Image files read into memory, and their pixels decoded, with a stated reason where that fails."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import wraps
from io import BytesIO
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gdcm  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, JPEGExtended12Bit, RLELossless

from triage.core.analysis import InputRefusedError
from triage.decoding.errors import DecodingError
from triage.decoding.files import check_file, check_frame
from triage.decoding.multi_frame import frame_value, number_of_frames

Source = tuple[str, Path]
"""A SOP Instance UID and its file."""

Reader = Callable[[Source], "ReadInstance"]
"""How an instance comes into memory: `read_instance`, or from what was decoded ahead."""

_VIDEO = ("MPEG", "HEVC", "SMPTE")
_PALETTE = "PALETTE COLOR"

# RecursionError: what lies in sequences of defined length is built only when it is asked for.
_READING_ERRORS = (InvalidDicomError, EOFError, ValueError, NotImplementedError, RecursionError)

_HEADER_ERRORS = (
    NotImplementedError,
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)

_Taken = ParamSpec("_Taken")
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True, slots=True)
class ReadInstance:
    """An instance that has been read: its identity, its file's digest, its dataset.

    `decoded` holds the stored values of frames, from 0 on, that were decoded before.
    """

    sop_instance_uid: str
    path: Path
    sha256: str
    dataset: Dataset
    decoded: Mapping[int, NDArray[Any]] = field(default_factory=dict)

    @property
    def is_image(self) -> bool:
        """Whether it is an image at all; what a study also holds (SR, DICOMDIR) is none."""
        return bool(self.dataset.get("Rows") and self.dataset.get("Columns"))

    @property
    def image_type(self) -> tuple[str, ...]:
        """Image Type (0008,0008) in upper case."""
        value = self.dataset.get("ImageType") or ()
        return tuple(str(v).upper() for v in ([value] if isinstance(value, str) else value))

    @property
    def number(self) -> int:
        """Instance Number (0020,0013); the highest there is where it is missing."""
        try:
            return int(self.dataset.InstanceNumber)
        except (AttributeError, TypeError, ValueError):
            return 2**31 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture: a single-frame image, or a frame of a multi-frame one.

    `index` counts from 0. `is_of_several` tells a frame from an image that has one only.
    """

    instance: ReadInstance
    index: int = 0
    is_of_several: bool = False

    @property
    def number(self) -> int | None:
        """What Referenced Frame Number (0008,1160) calls it; None for a single-frame image."""
        return self.index + 1 if self.is_of_several else None

    @property
    def name(self) -> str:
        """What messages call it."""
        uid = self.instance.sop_instance_uid
        return f"instance {uid}" + (f", frame {self.number}," if self.is_of_several else "")

    @property
    def rank(self) -> tuple[int, int, str]:
        """What decides between frames at one place: Instance Number, frame, UID."""
        return self.instance.number, self.index, self.instance.sop_instance_uid

    def value(self, keyword: str) -> Any:
        """Return an attribute of the frame, wherever it stands, or None."""
        return frame_value(self.instance.dataset, self.index, keyword)

    def floats(self, keyword: str, count: int) -> NDArray[np.float64] | None:
        """Return the `count` numbers of an attribute, or None where it does not have them."""
        try:
            numbers = np.atleast_1d(np.array(self.value(keyword), dtype=np.float64))
        except (TypeError, ValueError):
            return None
        return numbers if numbers.shape == (count,) and np.isfinite(numbers).all() else None


def frames_of(instance: ReadInstance) -> list[Frame]:
    """Return all frames of an image.

    Raises:
        InputRefusedError: what it says of its frames contradicts itself.
    """
    try:
        count = number_of_frames(instance.dataset)
    except DecodingError as error:
        raise InputRefusedError(f"instance {instance.sop_instance_uid}: {error}") from error
    is_multi_frame = count > 1 or "PerFrameFunctionalGroupsSequence" in instance.dataset
    return [Frame(instance, index, is_multi_frame) for index in range(count)]


def stating_reasons(load: Callable[_Taken, _Out]) -> Callable[_Taken, _Out]:
    """Make a loader of images refuse what its headers bring out in pydicom and NumPy.

    Elements are converted when they are asked for, so that any of them may raise: a VR that there
    is not, numbers that are none, a lookup table that contradicts itself.
    """

    @wraps(load)
    def loaded(*args: _Taken.args, **kwargs: _Taken.kwargs) -> _Out:
        try:
            return load(*args, **kwargs)
        except _HEADER_ERRORS as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputRefusedError(f"the images contradict the standard: {reason}") from error

    return loaded


def in_parallel(function: Callable[[_In], _Out], items: Iterable[_In]) -> list[_Out]:
    """Return `function` of each item, in order; decoders and digests release the GIL."""
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="decode") as threads:
        return list(threads.map(function, items))


def read_instance(source: Source) -> ReadInstance:
    """Read a DICOM file (PS3.10); the pixel data stay as they are.

    Raises:
        InputRefusedError: the file is gone or is no DICOM file.
    """
    uid, path = source
    try:
        check_file(path)
        content = path.read_bytes()
        dataset = dcmread(BytesIO(content))
    except (OSError, DecodingError, *_READING_ERRORS) as error:
        raise InputRefusedError(f"the file of instance {uid} cannot be read: {error}") from error
    return ReadInstance(uid, path, hashlib.sha256(content).hexdigest(), dataset)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def decode(instance: ReadInstance, index: int = 0) -> NDArray[Any]:
    """Return the stored values of a grayscale frame, (rows, columns), whatever its encoding.

    Bits beyond Bits Stored, such as overlays in the high bits, are taken away (PS3.5 8.1.1).

    Raises:
        InputRefusedError: names the instance, and says why its pixel data cannot be decoded.
    """
    if is_colour(instance):
        raise InputRefusedError(
            f"instance {instance.sop_instance_uid} is not grayscale: its Photometric "
            f"Interpretation is {instance.dataset.get('PhotometricInterpretation')}"
        )
    pixels = _decoded(instance, index)
    wanted = (int(instance.dataset.Rows), int(instance.dataset.Columns))
    if pixels.shape != wanted:
        raise InputRefusedError(
            f"instance {instance.sop_instance_uid} is not a single grayscale frame: its pixels "
            f"have the shape {pixels.shape}"
        )
    return pixels


def decode_colour(instance: ReadInstance, index: int = 0) -> NDArray[np.float32]:
    """Return a colour frame as float32 (rows, columns, 3), RGB from 0 to 1.

    Raises:
        InputRefusedError: its pixel data cannot be decoded.
    """
    pixels = _decoded(instance, index)
    dataset = instance.dataset
    if dataset.get("PhotometricInterpretation") == _PALETTE:
        pixels = apply_color_lut(pixels, dataset)
        return np.asarray(pixels[..., :3], np.float32) / float(np.iinfo(pixels.dtype).max)
    return np.asarray(pixels[..., :3], np.float32) / float((1 << int(dataset.BitsStored)) - 1)


def is_colour(instance: ReadInstance) -> bool:
    """Return whether the pixels are colours and not one value each."""
    dataset = instance.dataset
    return (
        int(dataset.get("SamplesPerPixel") or 1) > 1
        or dataset.get("PhotometricInterpretation") == _PALETTE
    )


def _decoded(instance: ReadInstance, index: int) -> NDArray[Any]:
    if index in instance.decoded:
        return instance.decoded[index]
    try:
        _check_syntax(instance)
        _check_frame(instance, index)
        if _is_12_bit_jpeg(instance):
            return _decode_12_bit_jpeg(instance, index)
        return _decode_any(instance, index)
    except Exception as error:
        # Each decoder has errors of its own kind, and a broken file brings out all of them.
        # What follows the dash is pydicom's advice to programmers.
        reason = " ".join(str(error).split()).partition(" - ")[0] or repr(error)
        raise InputRefusedError(
            f"pixel data of instance {instance.sop_instance_uid} cannot be decoded: {reason}"
        ) from error


def _check_syntax(instance: ReadInstance) -> None:
    syntax = UID(instance.dataset.file_meta.TransferSyntaxUID)
    if any(kind in syntax.name for kind in _VIDEO):
        raise DecodingError(f"it is a video ({syntax.name}), which no model takes")


def _check_frame(instance: ReadInstance, index: int) -> None:
    dataset = instance.dataset
    is_encapsulated = UID(dataset.file_meta.TransferSyntaxUID).is_encapsulated
    check_frame(dataset, dataset.PixelData if is_encapsulated else None, index)


def _decode_any(instance: ReadInstance, index: int) -> NDArray[Any]:
    dataset = instance.dataset
    high_bit = dataset.get("HighBit")
    bits = int(dataset.get("BitsStored") or 0)
    syntax = UID(dataset.file_meta.TransferSyntaxUID)
    is_packed = not syntax.is_encapsulated or syntax == RLELossless
    if not is_packed or high_bit is None or int(high_bit) == bits - 1 or not bits:
        return np.asarray(pixel_array(dataset, index=index))
    stored = pixel_array(dataset, index=index, correct_unused_bits=False)
    return _between_bits(stored, int(high_bit), bits)


def _between_bits(stored: NDArray[Any], high_bit: int, bits: int) -> NDArray[Any]:
    """Return what lies in the `bits` bits up to `high_bit`, with its sign (PS3.5 8.1.1)."""
    width = stored.dtype.itemsize * 8
    if not bits <= high_bit + 1 <= width:
        raise DecodingError(f"its High Bit is {high_bit}, of {bits} bits stored in {width}")
    # Shifted to the left end and back, signed values keep their sign.
    return np.asarray(np.right_shift(np.left_shift(stored, width - 1 - high_bit), width - bits))


def _is_12_bit_jpeg(instance: ReadInstance) -> bool:
    dataset = instance.dataset
    return (
        dataset.file_meta.TransferSyntaxUID == JPEGExtended12Bit
        and int(dataset.BitsAllocated) == 16
        and int(dataset.BitsStored) > 8
    )


def _decode_12_bit_jpeg(instance: ReadInstance, index: int) -> NDArray[Any]:
    # pydicom has no decoder for these and does not ask GDCM, whose own reader can do it.
    reader = gdcm.ImageReader()
    reader.SetFileName(str(instance.path))
    if not reader.Read():
        raise ValueError("GDCM cannot read it")
    kind = np.int16 if int(instance.dataset.get("PixelRepresentation", 0)) else np.uint16
    # GDCM hands bytes over as a string with surrogates.
    content = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
    values = np.frombuffer(content, kind)
    frames = values.reshape(-1, int(instance.dataset.Rows), int(instance.dataset.Columns))
    return np.asarray(frames[index])


def padding_mask(instance: ReadInstance, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Return where Pixel Padding Value or Range says there is no image (PS3.3 C.7.5.1.1.2).

    Of float pixels, what is no number is no image either.
    """
    if stored.dtype.kind == "f":
        first, last = _float_padding(instance.dataset)
        nothing = np.asarray(~np.isfinite(stored))
    else:
        first = _as_stored(instance, instance.dataset.get("PixelPaddingValue"))
        last = _as_stored(instance, instance.dataset.get("PixelPaddingRangeLimit"))
        nothing = None
    if first is None:
        return nothing
    last = first if last is None else last
    padding: NDArray[np.bool_] = np.asarray(
        (stored >= min(first, last)) & (stored <= max(first, last))
    )
    return padding if nothing is None else np.asarray(padding | nothing)


def _float_padding(dataset: Dataset) -> tuple[float | None, float | None]:
    for kind in ("Float", "DoubleFloat"):
        value = dataset.get(f"{kind}PixelPaddingValue")
        if value is not None:
            return float(value), dataset.get(f"{kind}PixelPaddingRangeLimit")
    return None, None


def _as_stored(instance: ReadInstance, value: Any) -> int | None:
    """Return a padding value with the sign of the pixels; writers often use the wrong VR."""
    if not isinstance(value, int):
        return None
    bits = int(instance.dataset.BitsAllocated)
    unsigned = int(value) % (1 << bits)
    is_signed = int(instance.dataset.get("PixelRepresentation", 0)) == 1
    return unsigned - (1 << bits) if is_signed and unsigned >> (bits - 1) else unsigned


def input_sha256(frames: Sequence[Frame]) -> str:
    """Return the digest of what goes in: SOP Instance UIDs, file digests and frames, in order."""
    digest = hashlib.sha256()
    for frame in frames:
        instance = frame.instance
        which = f"\0{frame.number}" if frame.is_of_several else ""
        digest.update(f"{instance.sop_instance_uid}\0{instance.sha256}{which}\n".encode())
    return digest.hexdigest()
