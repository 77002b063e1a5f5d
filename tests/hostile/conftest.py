"""A receiver under attack, and the look at it afterwards that every case shares."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dul import DULServiceProvider
from sqlalchemy import select

from tests.hostile.wire import ECHO_CONTEXT, P_DATA, RawPeer, echo_command, p_data
from tests.receiver.conftest import port_of, receiver_settings
from tests.tools import wait_until
from triage.receiver import Receiver
from triage.settings import ReceiverSettings
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.tables import InstanceRow

SOP_INSTANCE = "1.2.826.0.1.3680043.9999.1.1.1000"
"""The SOP Instance UID of the data sets here."""

FAMILY_NAME = "Mustermann"
SECRET = f"{FAMILY_NAME}^Erika"
"""The name of the patient in every data set here: no log may have it."""

NETWORK_TIMEOUT_S = 2.0

# Those of the receiver's time limits that this version has.
_TIME_LIMITS = {
    key: NETWORK_TIMEOUT_S
    for key in ("network_timeout_s", "association_request_timeout_s", "message_timeout_s")
    if key in ReceiverSettings.model_fields
}

_NAME_OF_A_FILE = re.compile(r"[0-9a-f]{32}/[0-9a-f]{24}-[0-9a-f]{16}\.dcm")
_MOST_MEMORY_BYTES = 192 * 1024 * 1024


class Target:
    """A real receiver with short timeouts, which a module's cases attack one after the other."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.files = InstanceFiles(folder / "data")
        self.database = database
        settings = receiver_settings(folder / "data", **_TIME_LIMITS)
        self.receiver = Receiver(settings, database, self.files)
        self.port = port_of(self.receiver)
        self._known = 0
        self._cases = 1000

    def begin(self) -> None:
        """Forget the rows of the cases before."""
        self._cases += 1
        self._known = max((row.id for row in self._all_rows()), default=0)

    def peer(self) -> RawPeer:
        """Return a fresh connection."""
        return RawPeer(self.port)

    def store(
        self, encoded: bytes, *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str
    ) -> tuple[int, str]:
        """Send `encoded` as it is; return the status and the Error Comment of the answer."""
        association = self._associate(sop_class_uid, transfer_syntax)
        association._reactor_checkpoint.clear()
        wait_until(lambda: association._is_paused, "the association's own thread pauses")
        request = C_STORE()
        request.MessageID = 1
        request.Priority = 2
        request._affected_sop_class_uid = UID(sop_class_uid)
        # Past the setter, which would refuse what a hostile sender does not.
        request._affected_sop_instance_uid = UID(sop_instance_uid)
        request.DataSet = BytesIO(encoded)
        association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
        _, response = association.dimse.get_msg(block=True)
        association._reactor_checkpoint.set()
        association.release()
        assert isinstance(response, C_STORE), "the receiver did not answer"
        return int(response.Status or 0), str(response.ErrorComment or "")

    def _associate(self, sop_class_uid: str, transfer_syntax: str) -> Association:
        entity = AE(ae_title="HOSTILE")
        entity.dimse_timeout = entity.acse_timeout = entity.network_timeout = 120
        entity.add_requested_context(sop_class_uid, transfer_syntax)
        # On a busy machine our request may come later than the receiver waits for it.
        for _ in range(3):
            association = entity.associate("127.0.0.1", self.port)
            if association.is_established:
                return association
        pytest.fail("the receiver takes no association")

    def renewed(self, content: bytes) -> bytes:
        """Return `content` with another SOP Instance UID for each case.

        What is sent a second time would be a duplicate, accepted without a row.
        """
        fresh = f"{SOP_INSTANCE[:-4]}{self._cases}"
        return content.replace(SOP_INSTANCE.encode(), fresh.encode())

    def rows(self) -> list[InstanceRow]:
        """Return what this case added to the index."""
        return [row for row in self._all_rows() if row.id > self._known]

    def rows_of(self, sop_instance_uid: str) -> list[InstanceRow]:
        """Return the rows of an instance: its own, and those in conflict with it."""
        statement = select(InstanceRow).where(InstanceRow.sop_instance_uid == sop_instance_uid)
        with self.database.reading() as session:
            return list(session.scalars(statement))

    def _all_rows(self) -> list[InstanceRow]:
        with self.database.reading() as session:
            return list(session.scalars(select(InstanceRow).order_by(InstanceRow.id)))

    def answers_echo(self) -> bool:
        """Whether an association and a C-ECHO work as for everybody."""
        with self.peer() as peer:
            peer.associate()
            peer.send(p_data(ECHO_CONTEXT, 0x03, echo_command()))
            answer = peer.read()
            return answer is not None and answer.kind == P_DATA and answer.status == 0

    def check_store(self) -> None:
        """Fail unless the folder holds the files of the index and nothing else."""
        found = {str(p.relative_to(self.files.root)) for p in self.files.root.rglob("*.*")}
        assert all(_NAME_OF_A_FILE.fullmatch(name) for name in found), found
        assert found == {row.path for row in self._all_rows()}


@pytest.fixture(scope="module")
def attacked(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The receiver of a module."""
    folder = tmp_path_factory.mktemp("attacked")
    shutil.copyfile(migrated_sqlite, folder / "triage.sqlite")
    database = Database(f"sqlite:///{folder / 'triage.sqlite'}")
    one = Target(folder, database)
    one.receiver.start()
    yield one
    one.receiver.stop()
    database.close()


@pytest.fixture
def target(
    attacked: Target, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[Target]:
    """A receiver; after the test it must live, be as small as before, and have kept its secrets."""
    with structlog.testing.capture_logs() as logged:
        assert attacked.answers_echo()
        attacked.begin()
        beside = {*attacked.folder.iterdir(), attacked.folder / "triage.sqlite.writers"}
        with peak_memory() as peak:
            yield attacked
        assert attacked.answers_echo()
        attacked.check_store()
        assert set(attacked.folder.iterdir()) <= beside
        wait_until(
            lambda: not _association_threads(), "no association is held any more", timeout_s=15
        )
        assert peak() < _MOST_MEMORY_BYTES, f"{peak() // 1024**2} MiB were taken"
    output = capfd.readouterr()
    for text in (repr(logged), caplog.text, output.out, output.err):
        assert FAMILY_NAME not in text


def _association_threads() -> list[threading.Thread]:
    """Return the threads that serve the receiver's side of an association."""
    return [
        thread
        for thread in threading.enumerate()
        if isinstance(thread, DULServiceProvider | Association)
    ]


class peak_memory:  # noqa: N801 - used as a function
    """Measures by how many bytes the memory of this process grew at most within the block."""

    def __enter__(self) -> Callable[[], int]:
        Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far (proc(5))
        self._before = _memory("VmRSS")
        return lambda: _memory("VmHWM") - self._before

    def __exit__(self, *_: Any) -> None:
        pass


def _memory(key: str) -> int:
    content = Path("/proc/self/status").read_text()
    found = re.search(rf"{key}:\s+(\d+) kB", content)
    assert found is not None
    return int(found.group(1)) * 1024
