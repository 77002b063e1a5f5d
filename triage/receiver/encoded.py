"""DICOM files as they come from folders and over HTTP (DICOM PS3.10 section 7)."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from triage.receiver.headers import Header, is_valid_uid, parse_header
from triage.receiver.refusals import RefusedInstanceError, StorageStatus

_PREAMBLE_BYTES = 128
_PREFIX = b"DICM"
_TRANSFER_SYNTAX_TAG = 0x00020010
# The groups that a data set without a file header may begin with.
_FIRST_GROUPS = (0x0004, 0x0008)


@dataclass(frozen=True, slots=True)
class EncodedInstance:
    """A data set in the bytes of its file, the transfer syntax of these bytes, and its header."""

    dataset: bytes
    transfer_syntax_uid: str
    header: Header


def read_instance(content: bytes) -> EncodedInstance:
    """Return the data set of a DICOM file, byte for byte.

    Preamble and File Meta Information may be missing, as in files of old programs; the transfer
    syntax is then told from the first element.

    Raises:
        RefusedInstanceError: 0xC000, the content is no DICOM file or cannot be parsed.
    """
    start = _PREAMBLE_BYTES + len(_PREFIX)
    if content[_PREAMBLE_BYTES:start] != _PREFIX:
        start = 0
    if content[start : start + 2] == b"\x02\x00":
        transfer_syntax_uid, start = _read_meta_information(content, start)
    else:
        transfer_syntax_uid = _guess_transfer_syntax(content[start : start + 8])
    dataset = content[start:] if start else content
    return EncodedInstance(dataset, transfer_syntax_uid, parse_header(dataset, transfer_syntax_uid))


def _read_meta_information(content: bytes, start: int) -> tuple[str, int]:
    """Return the Transfer Syntax UID (0002,0010) and where group 0002 ends."""
    file = io.BytesIO(content)
    file.seek(start)
    try:
        meta = read_dataset(
            file, is_implicit_VR=False, is_little_endian=True, stop_when=_is_past_group_2
        )
        uid = str(meta[_TRANSFER_SYNTAX_TAG].value).strip("\x00 ")
    except Exception as error:  # whatever hostile bytes make the parser raise
        raise RefusedInstanceError(
            StorageStatus.CANNOT_UNDERSTAND,
            "File Meta Information lacks a Transfer Syntax UID or is broken",
        ) from error
    if not is_valid_uid(uid):
        raise RefusedInstanceError(
            StorageStatus.CANNOT_UNDERSTAND, "Transfer Syntax UID is not a valid UID"
        )
    return uid, file.tell()


def _is_past_group_2(tag: BaseTag, vr: str | None, length: int) -> bool:
    del vr, length
    return tag.group != 2


def _guess_transfer_syntax(element: bytes) -> str:
    """Return the transfer syntax in which a data set begins with these eight bytes."""
    if len(element) == 8:
        vr = element[4:6]
        is_explicit = vr.isalpha() and vr.isupper()
        if struct.unpack_from("<H", element)[0] in _FIRST_GROUPS:
            return ExplicitVRLittleEndian if is_explicit else ImplicitVRLittleEndian
        if struct.unpack_from(">H", element)[0] in _FIRST_GROUPS and is_explicit:
            return ExplicitVRBigEndian
    raise RefusedInstanceError(StorageStatus.CANNOT_UNDERSTAND, "it is not a DICOM file")
