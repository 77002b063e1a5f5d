"""A stored file's header without its pixels, and the place in the file where the pixels lie."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_partial
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from triage.decoding.errors import DecodingError
from triage.decoding.files import check_file, check_frame

PIXEL_DATA_TAGS = {0x7FE00008: "OF", 0x7FE00009: "OD", 0x7FE00010: "OW"}
"""Float, Double Float and Pixel Data, each with its VR where the file does not say it."""

_UNDEFINED = 0xFFFFFFFF
_PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class PixelData:
    """An element of pixel data in a file.

    Attributes:
        tag: (7FE0,0008), (7FE0,0009) or (7FE0,0010).
        at: where its value begins in the file.
        length: of the value, in bytes; None where it is encapsulated (DICOM PS3.5 A.4).
    """

    tag: int
    vr: str
    at: int
    length: int | None


@dataclass(frozen=True, slots=True)
class StoredHeader:
    """What stands before the pixels of a stored file, and where they are.

    Attributes:
        dataset: with its file meta information; of a deflated file with its pixels.
        pixels: None where the object has none, and of a deflated file: nothing has a place in it.
    """

    path: Path
    dataset: Dataset
    pixels: PixelData | None

    @property
    def transfer_syntax_uid(self) -> UID:
        """The transfer syntax of the file."""
        return UID(self.dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian))

    @property
    def is_deflated(self) -> bool:
        """Whether the data set is compressed as a whole (DICOM PS3.5 A.5)."""
        return self.transfer_syntax_uid == DeflatedExplicitVRLittleEndian

    @property
    def has_pixels(self) -> bool:
        """Whether there are pixels in it."""
        return self.pixels is not None or any(tag in self.dataset for tag in PIXEL_DATA_TAGS)

    @property
    def number_of_frames(self) -> int:
        """How many frames it says it has."""
        try:
            return max(1, int(self.dataset.get("NumberOfFrames") or 1))
        except (TypeError, ValueError) as error:
            raise DecodingError("its Number of Frames is no number") from error


def read_header(path: Path) -> StoredHeader:
    """Read a stored file up to its pixels.

    Raises:
        DecodingError: it cannot be read, or it is hostile.
        OSError: it cannot be opened.
    """
    check_file(path)
    try:
        with path.open("rb") as file:
            dataset = read_partial(file, stop_when=lambda tag, *_: int(tag) in PIXEL_DATA_TAGS)
            if dataset.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
                return StoredHeader(path, dcmread(path), None)
            return StoredHeader(path, dataset, _pixel_data_at(file, dataset))
    except DecodingError:
        raise
    except OSError:
        raise
    except Exception as error:  # whatever a malformed data set makes pydicom raise
        raise DecodingError(f"its header cannot be read ({type(error).__name__})") from error


def _pixel_data_at(file: IO[bytes], dataset: Dataset) -> PixelData | None:
    syntax = UID(dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian))
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    at = file.tell()
    head = file.read(12)
    if len(head) < 12:
        return None
    group, element = struct.unpack_from(f"{order}HH", head)
    tag = group << 16 | element
    if tag not in PIXEL_DATA_TAGS:
        return None
    vr = PIXEL_DATA_TAGS[tag]
    if head[4:6].isalpha() and head[4:6].isupper():  # explicit VR, whatever the file announces
        vr, length, at = head[4:6].decode(), struct.unpack_from(f"{order}L", head, 8)[0], at + 12
    else:
        length, at = struct.unpack_from(f"{order}L", head, 4)[0], at + 8
    return PixelData(tag, vr, at, None if length == _UNDEFINED else length)


def stored_frame(header: StoredHeader, index: int) -> bytes:
    """Return frame `index`, from 0 on, encoded as it is stored; only that frame is read.

    Uncompressed pixels come in little endian. A frame of single bits begins on a byte of its own.

    Raises:
        DecodingError: there is no such frame, or the file is damaged.
        OSError: the file cannot be read.
    """
    if not 0 <= index < header.number_of_frames:
        raise DecodingError(f"it has {header.number_of_frames} frames")
    if header.is_deflated:
        return _native_frame(header, bytes(_pixels_of(header.dataset)), 0, index)
    if header.pixels is None:
        raise DecodingError("it has no pixels")
    with header.path.open("rb") as file:
        if header.pixels.length is None:
            file.seek(header.pixels.at)
            return _encapsulated_frame(header, file, index)
        return _native_frame(header, file, header.pixels.at, index)


def _pixels_of(dataset: Dataset) -> bytes:
    for tag in PIXEL_DATA_TAGS:
        if tag in dataset:
            return bytes(dataset[tag].value)
    raise DecodingError("it has no pixels")


def _encapsulated_frame(header: StoredHeader, file: IO[bytes], index: int) -> bytes:
    check_frame(header.dataset, None, index)
    offsets = None
    if "ExtendedOffsetTable" in header.dataset and "ExtendedOffsetTableLengths" in header.dataset:
        table = header.dataset.ExtendedOffsetTable, header.dataset.ExtendedOffsetTableLengths
        offsets = table
    try:
        frame = get_frame(
            file, index, extended_offsets=offsets, number_of_frames=header.number_of_frames
        )
    except Exception as error:
        raise DecodingError("its frames cannot be found in it") from error
    return frame


def frame_bits(dataset: Dataset) -> int:
    """Return how many bits an uncompressed frame takes (DICOM PS3.5 8.1).

    Raises:
        DecodingError: the data set does not say it.
    """
    try:
        samples = int(dataset.get("SamplesPerPixel") or 1)
        pixels = int(dataset.Rows) * int(dataset.Columns)
        bits = int(dataset.BitsAllocated)
        # In 4:2:2 two pixels share their chroma (DICOM PS3.3 C.7.6.3.1.2).
        if dataset.get("PhotometricInterpretation") == "YBR_FULL_422":
            samples = 2
    except (AttributeError, TypeError, ValueError) as error:
        raise DecodingError("it does not say how large its frames are") from error
    return pixels * samples * bits


def _native_frame(header: StoredHeader, source: IO[bytes] | bytes, at: int, index: int) -> bytes:
    check_frame(header.dataset, None, index)
    bits = frame_bits(header.dataset)
    first, last = index * bits, (index + 1) * bits
    start, end = first // 8, -(-last // 8)
    if isinstance(source, bytes):
        content = source[at + start : at + end]
    else:
        length = header.pixels.length if header.pixels else None
        if length is None or end > length:
            raise DecodingError("its pixels end too early")
        source.seek(at + start)
        content = source.read(end - start)
    if len(content) != end - start:
        raise DecodingError("its pixels end too early")
    if first % 8 or last % 8:
        whole = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
        return np.packbits(whole[first % 8 : first % 8 + bits], bitorder="little").tobytes()
    if header.transfer_syntax_uid == ExplicitVRBigEndian:
        return _swapped(content, header)
    return content


def _swapped(content: bytes, header: StoredHeader) -> bytes:
    """Return big endian pixels in little endian; OW is of words also where a pixel is a byte."""
    bits = int(header.dataset.BitsAllocated)
    vr = header.pixels.vr if header.pixels else "OW"
    width = bits // 8 if bits > 8 else 2 if vr == "OW" else 1
    if width == 1 or len(content) % width:
        return content
    return np.frombuffer(content, f">u{width}").astype(f"<u{width}").tobytes()


def native_syntax(header: StoredHeader) -> UID:
    """Return the transfer syntax of what `stored_frame` gives."""
    syntax = header.transfer_syntax_uid
    return syntax if syntax.is_encapsulated else ExplicitVRLittleEndian


def pieces(path: Path, start: int, length: int) -> Iterator[bytes]:
    """Yield `length` bytes of a file from `start` on, in pieces of a megabyte.

    Raises:
        DecodingError: the file ends before.
    """
    with path.open("rb") as file:
        file.seek(start)
        while length:
            piece = file.read(min(length, _PIECE_BYTES))
            if not piece:
                raise DecodingError("the file ends too early")
            length -= len(piece)
            yield piece


def element_at(dataset: Dataset, path: list[int]) -> Any:
    """Return the element that a path of tags and item numbers, in turn and from 1 on, leads to.

    >>> from pydicom.dataset import Dataset
    >>> inner, outer = Dataset(), Dataset()
    >>> inner.WaveformData = b"ab"
    >>> outer.WaveformSequence = [inner]
    >>> element_at(outer, [0x54000100, 1, 0x54001010]).value
    b'ab'

    Raises:
        KeyError: it leads nowhere.
    """
    *parents, last = path
    for tag, item in zip(parents[::2], parents[1::2], strict=True):
        items = dataset[tag].value if dataset[tag].VR == "SQ" else []
        if not 1 <= item <= len(items):
            raise KeyError(item)
        dataset = items[item - 1]
    return dataset[last]
