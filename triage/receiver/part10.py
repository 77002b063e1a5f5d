"""The DICOM file format around a data set (DICOM PS3.10 section 7.1)."""

from __future__ import annotations

import struct
from functools import lru_cache

IMPLEMENTATION_CLASS_UID = "2.25.214563104265227862517542521598399669276"
"""Implementation Class UID (0002,0012) of the files that Triage writes; a UUID-derived UID."""

_PREAMBLE = bytes(128) + b"DICM"
_VERSION = struct.pack("<HH2sHI", 0x0002, 0x0001, b"OB", 0, 2) + b"\x00\x01"


def file_header(*, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Return preamble, prefix and File Meta Information for a data set that follows as sent.

    The optional attributes (implementation version, source AE title) are left out: the digest of
    the whole file tells a duplicate from a conflict, so the same data set must give the same file
    whoever sends it and whichever version of Triage receives it.
    """
    elements = _VERSION + b"".join(
        _uid_element(number, uid)
        for number, uid in (
            (0x0002, sop_class_uid),
            (0x0003, sop_instance_uid),
            (0x0010, transfer_syntax_uid),
            (0x0012, IMPLEMENTATION_CLASS_UID),
        )
    )
    group_length = struct.pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, len(elements))
    return _PREAMBLE + group_length + elements


# But for the SOP Instance UID they are the same for image after image.
@lru_cache(maxsize=256)
def _uid_element(number: int, uid: str) -> bytes:
    value = uid.encode("ascii")
    value += b"\x00" * (len(value) % 2)
    return struct.pack("<HH2sH", 0x0002, number, b"UI", len(value)) + value
