"""Our short reading and writing of command sets against pynetdicom's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import dimse_messages
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

from triage.receiver.command_set import (
    C_STORE_RQ,
    CommandSetError,
    StoreRequest,
    command_field,
    parse_command_set,
    store_request,
    store_response,
)

REQUEST = StoreRequest(7, "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4", has_data_set=True)


def encoded_by_pynetdicom(primitive: C_STORE) -> bytes:
    """Return the command set of a C-STORE-RQ as pynetdicom sends it."""
    message = dimse_messages.C_STORE_RQ()
    message.primitive_to_message(primitive)
    first = next(iter(message.encode_msg(1, 16382)))
    return first.presentation_data_value_list[0][1][1:]


def decoded_by_pynetdicom(command_set: bytes) -> C_STORE:
    """Return the primitive that pynetdicom makes of a command set."""
    message = dimse_messages.DIMSEMessage()
    primitive = P_DATA()
    primitive.presentation_data_value_list = [[1, b"\x03" + command_set]]
    assert message.decode_msg(primitive)
    decoded = message.message_to_primitive()
    assert isinstance(decoded, C_STORE)
    return decoded


@given(
    message_id=st.integers(0, 65535),
    sop_instance_uid=st.from_regex(r"1\.2(\.[1-9][0-9]{0,8}){1,6}", fullmatch=True),
)
def test_a_request_of_pynetdicom_is_read(message_id: int, sop_instance_uid: str) -> None:
    primitive = C_STORE()
    primitive.MessageID = message_id
    primitive.AffectedSOPClassUID = REQUEST.sop_class_uid
    primitive.AffectedSOPInstanceUID = sop_instance_uid
    primitive.Priority = 0x0002
    values = parse_command_set(encoded_by_pynetdicom(primitive))
    assert command_field(values) == C_STORE_RQ
    assert store_request(values) == StoreRequest(
        message_id, REQUEST.sop_class_uid, sop_instance_uid, has_data_set=False
    )


@pytest.mark.parametrize("comment", ["", "disk is full", "odd"])
def test_our_response_is_read_by_pynetdicom(comment: str) -> None:
    answer = decoded_by_pynetdicom(store_response(REQUEST, 0xA700, comment))
    assert answer.MessageIDBeingRespondedTo == 7
    assert answer.Status == 0xA700
    assert answer.AffectedSOPClassUID == REQUEST.sop_class_uid
    assert answer.AffectedSOPInstanceUID == REQUEST.sop_instance_uid
    assert (answer.ErrorComment or "") == comment


@given(st.binary(max_size=64))
def test_any_bytes_give_values_or_a_command_set_error(encoded: bytes) -> None:
    try:
        values = parse_command_set(encoded)
    except CommandSetError:
        return
    assert sum(8 + len(value) for value in values.values()) <= len(encoded)


def test_a_request_without_message_id_cannot_be_answered() -> None:
    values = parse_command_set(store_response(REQUEST, 0))
    with pytest.raises(CommandSetError, match="0110"):
        store_request(values)
