"""Several receiver processes on one port, as `triage receive` starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.association import Association
from sqlalchemy import select

from tests.datasets import ct_slice
from tests.tools import PROJECT, find_free_port, wait_until
from triage.store.database import Database
from triage.store.tables import InstanceRow, OpenAssociationRow, StudyRow

VERIFICATION = "1.2.840.10008.1.1"


class Receivers:
    """`triage receive` with three processes; `more` is added to their environment."""

    def __init__(self, folder: Path, **more: str) -> None:
        self.folder = folder
        self.port = find_free_port()
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("TRIAGE_")},
            "PYTHONPATH": str(PROJECT),
            "TRIAGE_DATA_DIRECTORY": str(folder / "data"),
            "TRIAGE_RECEIVER__PORT": str(self.port),
            "TRIAGE_RECEIVER__PROCESSES": "3",
            "TRIAGE_RECEIVER__QUIET_PERIOD_BY_MODALITY_S": '{"CT": 0.2}',
            **more,
        }
        self.database = Database(f"sqlite:///{folder}/data/triage.sqlite")
        self.database.migrate()
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start it and return once it answers."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "triage.cli", "receive"],
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        wait_until(self.answers, "the receiver answers", timeout_s=120)
        return process

    def associate(self) -> Association:
        """Open an association."""
        entity = AE(ae_title="SENDER")
        entity.add_requested_context(ct_slice().SOPClassUID, "1.2.840.10008.1.2.1")
        entity.add_requested_context(VERIFICATION)
        return entity.associate("127.0.0.1", self.port)

    def answers(self) -> bool:
        """Return whether C-ECHO is answered."""
        association = self.associate()
        if not association.is_established:
            return False
        answer = association.send_c_echo()
        association.release()
        return getattr(answer, "Status", None) == 0

    def children(self) -> list[int]:
        """Return the process ids of the processes that serve."""
        pid = self.process.pid
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def serving(self) -> set[str]:
        """Return the names of the processes that hold studies open."""
        with self.database.reading() as session:
            return set(session.scalars(select(OpenAssociationRow.receiver)))


@pytest.fixture
def receivers(tmp_path: Path) -> Iterator[Receivers]:
    """Three receiver processes on one port."""
    running = Receivers(tmp_path)
    yield running
    running.process.terminate()
    running.process.wait(timeout=30)
    running.database.close()


def test_connections_are_spread_and_one_study_may_come_over_all(receivers: Receivers) -> None:
    study = generate_uid()
    associations = [receivers.associate() for _ in range(3)]
    slices = [ct_slice(study, number) for number in range(30)]

    def send(place: int) -> list[int]:
        return [associations[place].send_c_store(s).Status for s in slices[place::3]]

    with ThreadPoolExecutor(3) as pool:
        statuses = [status for shares in pool.map(send, range(3)) for status in shares]
    assert statuses == [0] * 30
    assert len(receivers.serving()) == 3
    for association in associations:
        association.release()

    def complete() -> bool:
        with receivers.database.reading() as session:
            return session.scalars(select(StudyRow.state)).one() == "complete"

    wait_until(complete, "the study is complete")
    with receivers.database.reading() as session:
        assert len(session.scalars(select(InstanceRow)).all()) == 30
    assert receivers.serving() == set()


def test_a_process_that_dies_is_started_again_and_the_others_go_on(receivers: Receivers) -> None:
    associations = [receivers.associate() for _ in range(3)]
    before = set(receivers.children())
    os.kill(min(before), signal.SIGKILL)
    wait_until(
        lambda: sum(a.is_established for a in associations) == 2, "one association has ended"
    )
    living = [a for a in associations if a.is_established]
    assert [a.send_c_store(ct_slice()).Status for a in living] == [0, 0]
    wait_until(
        lambda: len(set(receivers.children()) - before) == 1 and len(receivers.children()) == 3,
        "the process was started again",
    )
    assert all(receivers.answers() for _ in range(6))
    for association in living:
        association.release()


def test_children_end_with_their_parent_and_free_the_port(receivers: Receivers) -> None:
    children = receivers.children()
    receivers.process.kill()
    receivers.process.wait()
    wait_until(
        lambda: not any(Path(f"/proc/{child}/exe").exists() for child in children),
        "the children have ended",
    )
    receivers.process = receivers.start()
    assert len(receivers.children()) == 3
