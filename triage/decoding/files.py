"""Stored DICOM files, checked before pydicom builds a data set or a decoder makes room for pixels.

What a sender sent is kept as it was, so a file may be anything that is called DICOM. Each reader of
a file from outside comes through here first.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.filebase import ReadableBuffer
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from triage.decoding.codestream import CodestreamSize, codestream_sizes
from triage.decoding.elements import Encoded, check_elements
from triage.decoding.errors import DecodingError
from triage.decoding.high_throughput import teach_pydicom
from triage.decoding.inflation import LARGEST_INFLATED_BYTES, inflated_start

teach_pydicom()

LARGEST_FRAME_BYTES = 512 * 1024 * 1024
"""What a decoded frame may take: 16384 x 16384 pixels of two bytes."""


def check_file(path: Path) -> None:
    """Make sure that `path` can be read as a whole, pixel data apart.

    Raises:
        DecodingError: it is no DICOM file or a hostile one.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        try:
            read_preamble(file, force=False)
            meta = _read_file_meta_info(file)
            at = file.tell()
        except (InvalidDicomError, EOFError, ValueError, AttributeError, KeyError) as error:
            raise DecodingError("it is no DICOM file (PS3.10)") from error
        if file.seek(0, os.SEEK_END) <= at:
            raise DecodingError("it has no data set")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _check_data_set(content, at, _transfer_syntax(meta))


def _transfer_syntax(meta: Dataset) -> str:
    return str(meta.get("TransferSyntaxUID", ImplicitVRLittleEndian))


def _check_data_set(content: Encoded, at: int, transfer_syntax_uid: str) -> None:
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        deflated = content[at:]
        inflated_start(deflated, 0)  # a bomb is found before any of it is kept
        content, at = inflated_start(deflated, LARGEST_INFLATED_BYTES), 0
    check_elements(
        content,
        at,
        is_implicit_vr=transfer_syntax_uid == ImplicitVRLittleEndian,
        is_little_endian=transfer_syntax_uid != ExplicitVRBigEndian,
    )


def check_frame(header: Dataset, pixel_data: bytes | ReadableBuffer | None, index: int) -> None:
    """Make sure that decoding frame `index`, from 0 on, takes no more than the data set says.

    Args:
        header: the data set, with its file meta information.
        pixel_data: the encapsulated value of Pixel Data, or a file that stands at its beginning;
            None where the transfer syntax is not encapsulated.
        index: which frame.

    Raises:
        DecodingError: the frame would be larger than LARGEST_FRAME_BYTES, or its codestream
            announces more than Rows, Columns and Samples per Pixel say.
    """
    said = CodestreamSize(
        _count(header, "Rows"), _count(header, "Columns"), _count(header, "SamplesPerPixel", 1)
    )
    bits = _count(header, "BitsAllocated", 16)
    size = said.rows * said.columns * said.components * bits // 8
    if size > LARGEST_FRAME_BYTES:
        raise DecodingError(
            f"a frame of {said.rows} x {said.columns} pixels would take {size // 1024**2} MiB, "
            f"more than the {LARGEST_FRAME_BYTES // 1024**2} that are allowed"
        )
    if pixel_data is not None and UID(_transfer_syntax(header.file_meta)).is_encapsulated:
        _check_codestreams(header, pixel_data, index, said)


def _check_codestreams(
    header: Dataset, pixel_data: bytes | ReadableBuffer, index: int, said: CodestreamSize
) -> None:
    frame = get_frame(pixel_data, index, number_of_frames=_count(header, "NumberOfFrames", 1) or 1)
    for found in codestream_sizes(frame):
        if (
            found.rows > said.rows
            or found.columns > said.columns
            or found.components > said.components
        ):
            raise DecodingError(
                f"its codestream announces {found.rows} x {found.columns} pixels of "
                f"{found.components} components, the data set {said.rows} x {said.columns} of "
                f"{said.components}"
            )


def _count(header: Dataset, keyword: str, default: int = 0) -> int:
    try:
        return int(header.get(keyword) or default)
    except (TypeError, ValueError) as error:
        raise DecodingError(f"its {keyword} is no number") from error
