"""The audit finds what it is there to find."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from sqlalchemy import delete

from tests.chaos.audit import Audit, audit
from tests.chaos.plan import SENDERS, Plan
from tests.receiver.conftest import receiver_settings
from tests.tools import ManualClock
from triage.core.completeness import QuietPeriods
from triage.receiver.indexer import Indexer
from triage.receiver.intake import IncomingInstance, Intake
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.studies import complete_quiet_studies, release_association
from triage.store.tables import InstanceRow, StudyEventRow

PLAN = Plan(seed=3, instances=20)


class Round:
    """A round without processes: stored as a receiver does, with ledgers as the senders'."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.database = database
        self.data = folder / "data"
        self.ledgers = [folder / f"{sender}.ledger" for sender in SENDERS]
        files = InstanceFiles(receiver_settings(self.data).data_directory)
        clock = ManualClock()
        intake = Intake(files, Indexer(database, "receiver", clock), clock)
        for ledger in self.ledgers:
            ledger.write_text("".join(self._sent(intake, ledger.stem)))
        with database.transaction() as session:
            release_association(session, "association")
            complete_quiet_studies(session, QuietPeriods(), clock.advance(60))

    def _sent(self, intake: Intake, sender: str) -> list[str]:
        lines = []
        for study in PLAN.studies:
            for instance in PLAN.instances_of(study, sender) if sender in study.parts else ():
                intake.store(
                    IncomingInstance(
                        dataset=instance.encoded,
                        transfer_syntax_uid="1.2.840.10008.1.2.1",
                        sop_class_uid=instance.sop_class_uid,
                        sop_instance_uid=instance.sop_instance_uid,
                        calling_ae_title=sender,
                        association="association",
                    )
                )
                digest = hashlib.sha256(instance.encoded).hexdigest()
                lines.append(
                    f"{instance.study_instance_uid} {instance.sop_instance_uid} {digest}\n"
                )
        return lines

    def audit(self) -> Audit:
        """Return what the audit says."""
        return audit(PLAN, self.ledgers, self.database, self.data)

    @property
    def file(self) -> Path:
        """One of the stored files."""
        return next((self.data / "instances").rglob("*.dcm"))


@pytest.fixture
def sound(tmp_path: Path, sqlite_database: Database) -> Round:
    """A round in which nothing went wrong."""
    folder = tmp_path / "round"
    folder.mkdir()
    return Round(folder, sqlite_database)


def test_sound_round_has_no_breach(sound: Round) -> None:
    found = sound.audit()
    assert found.breaches == []
    assert found.acknowledged >= 20


def test_lost_changed_and_cut_off_files_are_found(sound: Round) -> None:
    whole = sound.file.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        sound.file.write_bytes(damaged)
        assert "not whole" in sound.audit().breaches[0]
    sound.file.unlink()
    assert "has no file" in sound.audit().breaches[0]


def test_lost_rows_and_what_follows_of_them_are_found(sound: Round) -> None:
    with sound.database.transaction() as session:
        session.execute(delete(InstanceRow).where(InstanceRow.id == 1))
    breaches = " ".join(sound.audit().breaches)
    assert "without a row" in breaches
    assert "another number of instances" in breaches


def test_what_was_left_and_what_is_strange_is_found(sound: Round) -> None:
    (sound.file.parent / ".1.2.3.part").write_bytes(b"x")
    (sound.data.parent / "outside").write_bytes(b"x")
    breaches = " ".join(sound.audit().breaches)
    assert "unfinished files left" in breaches
    assert "things outside the store" in breaches


def test_study_that_was_completed_twice_is_found(sound: Round) -> None:
    with sound.database.transaction() as session:
        event = session.query(StudyEventRow).filter_by(kind="complete").first()
        assert event is not None
        session.add(
            StudyEventRow(study_id=event.study_id, at=event.at, kind="complete", text="again")
        )
    assert "did not become complete once" in sound.audit().breaches[0]
