"""Mutated input on every entrance, the same each time; at length: `python -m tests.fuzz`."""

from __future__ import annotations

import pytest

from tests.fuzz.entrances import NoSuchEntranceError, Parser, Readers, Storage, Stow, Stream
from tests.fuzz.hl7 import Hl7Messages
from tests.fuzz.session import fuzz
from tests.hostile.conftest import Target, attacked, target
from triage.store.database import Database

__all__ = ["attacked", "target"]


def test_data_set_parser_refuses_or_gives_what_the_index_can_hold() -> None:
    outcomes = fuzz(Parser(), inputs=800)
    assert outcomes["parsed"] > 50
    assert outcomes["refused 0xC000"] > 50


def test_stored_file_is_decoded_or_refused_in_words() -> None:
    readers = Readers()
    outcomes = fuzz(readers, inputs=160)
    readers.close()
    assert outcomes["read by slice and image and viewer"] > 10


def test_c_store_is_answered_and_what_was_accepted_is_kept(target: Target) -> None:
    storage = Storage(target)
    outcomes = fuzz(storage, inputs=160)
    storage.close()
    assert outcomes["status 0x0000"] > 10
    assert outcomes["status 0xC000"] > 10


def test_pdu_stream_ends_and_the_receiver_goes_on(target: Target) -> None:
    stream = Stream(target)
    outcomes = fuzz(stream, inputs=60)
    stream.close()
    assert outcomes["answered with success"] > 5
    assert outcomes["aborted"] > 5


def test_stow_is_answered_without_a_server_error(target: Target) -> None:
    try:
        stow = Stow(target, target.database)
    except NoSuchEntranceError as error:
        pytest.skip(str(error))
    outcomes = fuzz(stow, inputs=100)
    stow.close()
    assert outcomes["status 200"] > 5


def test_hl7_messages_are_answered_and_kept(sqlite_database: Database) -> None:
    outcomes = fuzz(Hl7Messages(sqlite_database), inputs=60)
    assert outcomes["answered AA"] > 5
    assert outcomes["answered AR"] > 5
