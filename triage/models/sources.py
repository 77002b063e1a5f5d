"""Image files read into memory, and their pixels decoded, with a stated reason where that fails."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
from pydicom.uid import UID, JPEGExtended12Bit

from triage.core.analysis import InputRefusedError
from triage.decoding.errors import DecodingError
from triage.decoding.files import check_file, check_frame

Source = tuple[str, Path]
"""A SOP Instance UID and its file."""

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
    """An instance that has been read: its identity, its file's digest, its dataset."""

    sop_instance_uid: str
    path: Path
    sha256: str
    dataset: Dataset

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

    def floats(self, keyword: str, count: int) -> NDArray[np.float64] | None:
        """Return the `count` numbers of an attribute, or None where it does not have them."""
        value = self.dataset.get(keyword)
        try:
            numbers = np.atleast_1d(np.array(value, dtype=np.float64))
        except (TypeError, ValueError):
            return None
        return numbers if numbers.shape == (count,) and np.isfinite(numbers).all() else None


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


def decode(instance: ReadInstance) -> NDArray[Any]:
    """Return the stored values of a single-frame grayscale image, (rows, columns), any syntax.

    Raises:
        InputRefusedError: names the instance, and says why its pixel data cannot be decoded.
    """
    _check_is_single_frame(instance)
    try:
        _check_frame(instance)
        pixels = (
            _decode_12_bit_jpeg(instance) if _is_12_bit_jpeg(instance) else _decode_any(instance)
        )
    except Exception as error:
        # Each decoder has errors of its own kind, and a broken file brings out all of them.
        # What follows the dash is pydicom's advice to programmers.
        reason = " ".join(str(error).split()).partition(" - ")[0] or repr(error)
        raise InputRefusedError(
            f"pixel data of instance {instance.sop_instance_uid} cannot be decoded: {reason}"
        ) from error
    wanted = (int(instance.dataset.Rows), int(instance.dataset.Columns))
    if pixels.shape != wanted:
        raise InputRefusedError(
            f"instance {instance.sop_instance_uid} is not a single grayscale frame: its pixels "
            f"have the shape {pixels.shape}"
        )
    return pixels


def _check_is_single_frame(instance: ReadInstance) -> None:
    frames = instance.dataset.get("NumberOfFrames") or 1
    # Before they are decoded: all frames would be, one after the other, to be thrown away.
    if not isinstance(frames, int) or frames != 1:
        raise InputRefusedError(
            f"instance {instance.sop_instance_uid} is not a single grayscale frame: its Number of "
            f"Frames is {frames}"
        )


def _check_frame(instance: ReadInstance) -> None:
    dataset = instance.dataset
    is_encapsulated = UID(dataset.file_meta.TransferSyntaxUID).is_encapsulated
    check_frame(dataset, dataset.PixelData if is_encapsulated else None, 0)


def _decode_any(instance: ReadInstance) -> NDArray[Any]:
    return np.asarray(instance.dataset.pixel_array)


def _is_12_bit_jpeg(instance: ReadInstance) -> bool:
    dataset = instance.dataset
    return (
        dataset.file_meta.TransferSyntaxUID == JPEGExtended12Bit
        and int(dataset.BitsAllocated) == 16
        and int(dataset.BitsStored) > 8
    )


def _decode_12_bit_jpeg(instance: ReadInstance) -> NDArray[Any]:
    # pydicom has no decoder for these and does not ask GDCM, whose own reader can do it.
    reader = gdcm.ImageReader()
    reader.SetFileName(str(instance.path))
    if not reader.Read():
        raise ValueError("GDCM cannot read it")
    kind = np.int16 if int(instance.dataset.get("PixelRepresentation", 0)) else np.uint16
    # GDCM hands bytes over as a string with surrogates.
    content = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
    values = np.frombuffer(content, kind)
    return values.reshape(int(instance.dataset.Rows), int(instance.dataset.Columns))


def padding_mask(instance: ReadInstance, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Return where Pixel Padding Value or Range says there is no image (PS3.3 C.7.5.1.1.2)."""
    first = _as_stored(instance, instance.dataset.get("PixelPaddingValue"))
    if first is None:
        return None
    last = _as_stored(instance, instance.dataset.get("PixelPaddingRangeLimit"))
    if last is None:
        return np.asarray(stored == first)
    return np.asarray((stored >= min(first, last)) & (stored <= max(first, last)))


def _as_stored(instance: ReadInstance, value: Any) -> int | None:
    """Return a padding value with the sign of the pixels; writers often use the wrong VR."""
    if not isinstance(value, int):
        return None
    bits = int(instance.dataset.BitsAllocated)
    unsigned = int(value) % (1 << bits)
    is_signed = int(instance.dataset.get("PixelRepresentation", 0)) == 1
    return unsigned - (1 << bits) if is_signed and unsigned >> (bits - 1) else unsigned


def input_sha256(instances: Sequence[ReadInstance]) -> str:
    """Return the digest of what goes in: the SOP Instance UIDs and file digests, in order."""
    digest = hashlib.sha256()
    for instance in instances:
        digest.update(f"{instance.sop_instance_uid}\0{instance.sha256}\n".encode())
    return digest.hexdigest()
