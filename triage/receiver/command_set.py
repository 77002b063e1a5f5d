"""The command set of a C-STORE, read and written without pydicom (DICOM PS3.7 6.3.1, 9.3.1).

Pynetdicom turns each command set into a pydicom data set and each answer back into bytes, which
takes longer than storing the instance. A command set is a dozen implicit little endian elements.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

C_STORE_RQ = 0x0001
C_STORE_RSP = 0x8001
NO_DATA_SET = 0x0101

_GROUP_LENGTH = 0x0000
_AFFECTED_SOP_CLASS_UID = 0x0002
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
_COMMAND_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE_UID = 0x1000
_MOVE_ORIGINATOR_AE_TITLE = 0x1030
_MOVE_ORIGINATOR_MESSAGE_ID = 0x1031

_ELEMENT_HEADER = struct.Struct("<HHI")
_UNSIGNED_SHORT = struct.Struct("<H")


class CommandSetError(ValueError):
    """The bytes are no command set."""


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """What a C-STORE-RQ says of the instance that follows it (DICOM PS3.7 table 9.3-1)."""

    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    has_data_set: bool
    move_originator_ae_title: str = ""
    move_originator_message_id: int | None = None


def parse_command_set(encoded: bytes | bytearray) -> dict[int, bytes]:
    """Return the values of the elements of group 0000 by element number.

    Raises:
        CommandSetError: an element is of another group or longer than what is there.
    """
    values: dict[int, bytes] = {}
    position, end = 0, len(encoded)
    while position < end:
        try:
            group, element, length = _ELEMENT_HEADER.unpack_from(encoded, position)
        except struct.error as error:
            raise CommandSetError("the command set ends within an element") from error
        position += _ELEMENT_HEADER.size
        if group != 0x0000 or length > end - position:
            raise CommandSetError("the command set has an element that cannot be there")
        values[element] = bytes(encoded[position : position + length])
        position += length
    return values


def command_field(values: dict[int, bytes]) -> int:
    """Return what kind of message it is: Command Field (0000,0100).

    Raises:
        CommandSetError: the element is missing or no number.
    """
    return _number(values, _COMMAND_FIELD)


def store_request(values: dict[int, bytes]) -> StoreRequest:
    """Return the C-STORE request that a command set makes.

    Raises:
        CommandSetError: it cannot be answered, because its Message ID or its Command Data Set Type
            is missing.
    """
    return StoreRequest(
        message_id=_number(values, _MESSAGE_ID),
        sop_class_uid=_text(values, _AFFECTED_SOP_CLASS_UID),
        sop_instance_uid=_text(values, _AFFECTED_SOP_INSTANCE_UID),
        has_data_set=_number(values, _COMMAND_DATA_SET_TYPE) != NO_DATA_SET,
        move_originator_ae_title=_text(values, _MOVE_ORIGINATOR_AE_TITLE),
        move_originator_message_id=(
            _number(values, _MOVE_ORIGINATOR_MESSAGE_ID)
            if _MOVE_ORIGINATOR_MESSAGE_ID in values
            else None
        ),
    )


def store_response(request: StoreRequest, status: int, comment: str = "") -> bytes:
    """Return the encoded command set of a C-STORE-RSP (DICOM PS3.7 table 9.3-2)."""
    elements = b"".join(
        (
            _element(_AFFECTED_SOP_CLASS_UID, _padded(request.sop_class_uid, b"\x00")),
            _element(_COMMAND_FIELD, _UNSIGNED_SHORT.pack(C_STORE_RSP)),
            _element(_MESSAGE_ID_BEING_RESPONDED_TO, _UNSIGNED_SHORT.pack(request.message_id)),
            _element(_COMMAND_DATA_SET_TYPE, _UNSIGNED_SHORT.pack(NO_DATA_SET)),
            _element(_STATUS, _UNSIGNED_SHORT.pack(status)),
            _element(_ERROR_COMMENT, _padded(comment, b" ")) if comment else b"",
            _element(_AFFECTED_SOP_INSTANCE_UID, _padded(request.sop_instance_uid, b"\x00")),
        )
    )
    return _element(_GROUP_LENGTH, struct.pack("<I", len(elements))) + elements


def _element(number: int, value: bytes) -> bytes:
    return _ELEMENT_HEADER.pack(0x0000, number, len(value)) + value


def _padded(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    return value + padding * (len(value) % 2)


def _number(values: dict[int, bytes], element: int) -> int:
    value = values.get(element, b"")
    if len(value) != _UNSIGNED_SHORT.size:
        raise CommandSetError(f"the command set lacks (0000,{element:04X}), or it is no number")
    return int(_UNSIGNED_SHORT.unpack(value)[0])


def _text(values: dict[int, bytes], element: int) -> str:
    return values.get(element, b"").decode("ascii", "replace").strip(" \x00")
