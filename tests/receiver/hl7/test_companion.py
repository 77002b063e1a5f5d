"""The listener beside the receiver, as `triage receive` starts it."""

from __future__ import annotations

from tests.hl7.messages import Sender, orm
from triage.hl7.acknowledgement import read_acknowledgement
from triage.receiver.companions import companions
from triage.receiver.hl7 import Hl7Listener
from triage.settings import Settings
from triage.store.clock import system_clock
from triage.store.database import Database
from triage.store.files import InstanceFiles


def test_the_receiver_listens_for_messages_where_a_port_is_set(
    sqlite_database: Database, files: InstanceFiles, free_port: int
) -> None:
    settings = Settings(hl7={"port": free_port})
    [listener] = listeners(settings, sqlite_database, files, "receiver")
    listener.start()
    try:
        with Sender(free_port) as sender:
            assert read_acknowledgement(sender.ask(orm())).code == "AA"
            assert listeners(settings, sqlite_database, files, "other") == []
    finally:
        listener.stop()


def test_without_a_port_nobody_listens(sqlite_database: Database, files: InstanceFiles) -> None:
    assert listeners(Settings(), sqlite_database, files, "receiver") == []


def listeners(
    settings: Settings, database: Database, files: InstanceFiles, name: str
) -> list[Hl7Listener]:
    duties = companions(settings, database, files, system_clock, name)
    return [duty for duty in duties if isinstance(duty, Hl7Listener)]
