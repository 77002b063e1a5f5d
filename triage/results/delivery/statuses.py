"""What archives say of an object, by C-STORE (DICOM PS3.4 B.2.3) and STOW-RS (PS3.18 I.2.2)."""

from __future__ import annotations

_DUPLICATE_SOP_INSTANCE = 0x0111
_PERMANENT = {
    0x0117: "the object's UID is invalid to it",
    0x0122: "it does not support the SOP class",
    0x0212: "it cannot read the message",
    0xC122: "it does not support the transfer syntax",
}
_PASSING = {
    0x0110: "processing failed",
    0x0124: "this AE title is not authorised",
    0x0210: "duplicate message",
    0x0211: "it does not know C-STORE",
}


def is_stored(status: int) -> bool:
    """Return whether the object is kept: success, a warning, or a duplicate of what it has.

    A duplicate means that it was stored before, with the answer lost: our UIDs derive from what
    went in, so the same UID is the same object.
    """
    is_warning = status & 0xF000 == 0xB000
    return status == 0x0000 or is_warning or status == _DUPLICATE_SOP_INSTANCE


def in_words(status: int) -> tuple[str, bool]:
    """Return what a failure means, and whether the object would be refused whenever it is sent."""
    if status in _PERMANENT:
        return _PERMANENT[status], True
    if status & 0xFF00 == 0xA700:
        return "it is out of resources", False
    if status & 0xFF00 == 0xA900:
        return "the object does not match its SOP class, it says", True
    if status & 0xF000 == 0xC000:
        return "it cannot understand the object", True
    return _PASSING.get(status, "failure"), False
