"""Retention: what goes, what never goes, and that a crash or a late image loses nothing."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from tests.store.rows import add_model, received
from tests.tools import ManualClock, archive_named
from triage.core.agreement import Verdict
from triage.core.missed import MissedFinding
from triage.core.priority import Priority
from triage.core.runs import DeliveryKind, DeliveryState, RunState, StudyState
from triage.settings import RetentionSettings
from triage.store import purge
from triage.store.contents import load_study
from triage.store.database import Database
from triage.store.feedback import feedback_on, record_feedback
from triage.store.files import InstanceFiles
from triage.store.missed import missed_of, report_missed
from triage.store.model_tables import ModelRow
from triage.store.outbox import NewResultObject, add_result_objects
from triage.store.purge import LeaseTakenError, Purger
from triage.store.retention import due_by_age
from triage.store.sign_offs import open_again, sign_off, sign_offs_of
from triage.store.studies import (
    FileIsGoneError,
    complete_study,
    hold_open,
    record_instance,
)
from triage.store.sweep import Sweep
from triage.store.tables import (
    AnalysisRunRow,
    DeliveryRow,
    FindingRow,
    InstanceRow,
    PatientRow,
    PriorityEventRow,
    ResultObjectRow,
    SeriesRow,
    StudyEventRow,
    StudyRow,
)

DAY_S = 86400.0


@dataclass
class Hospital:
    """Studies with real files, on one database and one clock."""

    database: Database
    files: InstanceFiles
    clock: ManualClock

    def receive(self, uid: str, number: int = 1, content: str = "pixels") -> Path:
        """Store one image as the receiver does, and return its file."""
        written = self.files.write(uid, f"{uid}.1.{number}", (f"{uid}{number}{content}".encode(),))
        image = received(
            self.clock(), study=uid, number=number, file=written, patient_name="Doe^Jane"
        )
        with self.database.transaction() as session:
            record_instance(session, image, self.files.exists)
        return self.files.absolute(written.path)

    def study(
        self,
        uid: str = "1.2.3",
        *,
        read: bool = True,
        routed: bool = True,
        run: RunState = RunState.COMPLETED,
        delivery: DeliveryState | None = DeliveryState.DELIVERED,
        complete: bool = True,
        associated: bool = False,
    ) -> list[Path]:
        """Make a study with two images and a result, and return the files."""
        sources = [self.receive(uid, number) for number in (1, 2)]
        with self.database.transaction() as session:
            row = session.scalars(select(StudyRow).where(StudyRow.study_instance_uid == uid)).one()
            if complete:
                complete_study(session, row, "quiet", self.clock())
            row.read_at = self.clock() if read else None
            if associated:
                hold_open(session, row.id, association="a", receiver="r", now=self.clock())
            result = self._run(session, row, run, delivery) if routed else []
        return sources + result

    def _run(
        self, session: Any, study: StudyRow, state: RunState, delivery: DeliveryState | None
    ) -> list[Path]:
        model = session.scalars(select(ModelRow)).first()
        series = session.scalars(select(SeriesRow).where(SeriesRow.study_id == study.id)).first()
        run = AnalysisRunRow(
            study_id=study.id,
            model_id=model.id,
            series_id=series.id,
            generation=study.generation,
            state=state,
            available_at=self.clock(),
            created_at=self.clock(),
        )
        session.add(run)
        session.flush()
        session.add(
            FindingRow(run_id=run.id, key="k", present=True, confidence=0.9, content={"a": 1})
        )
        if delivery is None:
            return []
        return [self._result(session, study, run, delivery)]

    def _result(
        self, session: Any, study: StudyRow, run: AnalysisRunRow, delivery: DeliveryState
    ) -> Path:
        uid = f"{study.study_instance_uid}.9.{run.id}"
        written = self.files.write(study.study_instance_uid, uid, (b"result",))
        result = ResultObjectRow(
            run_id=run.id,
            role="sr",
            sequence=0,
            sop_class_uid="1.2",
            sop_instance_uid=uid,
            series_instance_uid=f"{uid}.1",
            path=written.path,
            size_bytes=6,
            created_at=self.clock(),
        )
        series = SeriesRow(study_id=study.id, series_instance_uid=f"{uid}.1", is_result=True)
        session.add_all([result, series])
        session.flush()
        session.add(
            InstanceRow(
                series_id=series.id,
                sop_instance_uid=uid,
                sop_class_uid="1.2",
                transfer_syntax_uid="1.2.1",
                path=written.path,
                size_bytes=6,
                sha256=hashlib.sha256(uid.encode()).hexdigest(),
                headers={},
                received_at=self.clock(),
            )
        )
        session.add(
            DeliveryRow(
                kind=DeliveryKind.RESULT,
                subject=f"object:{uid}",
                lane=f"run:{run.id}",
                study_id=study.id,
                run_id=run.id,
                result_object_id=result.id,
                destination="pacs",
                state=delivery,
                next_attempt_at=self.clock(),
            )
        )
        return self.files.absolute(written.path)

    def purger(self, holder: str = "one", **retention: Any) -> Purger:
        """Return a purger with these keys of `[retention]`."""
        wanted = RetentionSettings(**retention)
        return Purger(self.database, self.files, wanted, self.clock, holder=holder)

    def purge(self, **retention: Any) -> list[str]:
        """Go one round and return the studies that were purged."""
        done = self.purger(**retention).go_round().studies
        return [one.study_instance_uid for one in done]

    def row(self, uid: str = "1.2.3") -> StudyRow:
        """Return the row of a study."""
        with self.database.reading() as session:
            return session.scalars(select(StudyRow).where(StudyRow.study_instance_uid == uid)).one()

    def kinds(self) -> list[str]:
        """Return the kinds of all lines of history."""
        with self.database.reading() as session:
            return list(session.scalars(select(StudyEventRow.kind).order_by(StudyEventRow.id)))


@pytest.fixture
def hospital(database: Database, files: InstanceFiles, clock: ManualClock) -> Hospital:
    """A hospital with one model, which routing does not choose by itself."""
    with database.transaction() as session:
        add_model(session, clock(), modalities=["US"])
    return Hospital(database, files, clock)


def test_images_go_after_their_days_and_everything_said_about_them_stays(
    hospital: Hospital,
) -> None:
    first, second, result = hospital.study()
    hospital.clock.advance(29 * DAY_S)
    assert hospital.purge(read_days=30) == []
    hospital.clock.advance(1 * DAY_S)
    assert hospital.purge(read_days=30) == ["1.2.3"]
    assert not first.exists()
    assert not second.exists()
    assert result.exists()
    study = hospital.row()
    assert study.purged_at == hospital.clock()
    assert study.purge_reason == "images of read studies are kept for 30 days"
    assert hospital.kinds()[-1] == "purged"
    with hospital.database.reading() as session:
        assert len(session.scalars(select(FindingRow)).all()) == 1
        assert len(session.scalars(select(PriorityEventRow)).all()) == 1
        assert load_study(session, study.id).series[0].instances == ()
        paths = session.scalars(select(InstanceRow.path).where(InstanceRow.purged_at.is_not(None)))
        assert set(paths) == {""}
    assert hospital.purge(read_days=30) == []


@pytest.mark.parametrize(
    ("retention", "read", "routed", "goes"),
    [
        ({}, True, True, False),
        ({"read_days": 1}, True, True, True),
        ({"read_days": 1}, False, True, False),
        ({"read_days": 1}, True, False, True),
        ({"unread_days": 1}, False, True, True),
        ({"unread_days": 1}, True, True, False),
        ({"read_days": 9, "not_routed_read_days": 1}, True, False, True),
        ({"read_days": 9, "not_routed_read_days": 1}, True, True, False),
        ({"not_routed_unread_days": 1}, False, False, True),
        ({"not_routed_unread_days": 1}, False, True, False),
    ],
)
def test_each_state_has_its_own_days(
    hospital: Hospital, retention: dict[str, Any], *, read: bool, routed: bool, goes: bool
) -> None:
    hospital.study(read=read, routed=routed)
    hospital.clock.advance(2 * DAY_S)
    assert (hospital.purge(**retention) == ["1.2.3"]) is goes


@pytest.mark.parametrize(
    "state",
    [
        {"delivery": DeliveryState.WAITING},
        {"delivery": DeliveryState.SENDING},
        {"delivery": DeliveryState.DEAD},
        {"run": RunState.PENDING},
        {"run": RunState.RUNNING},
        {"complete": False},
        {"associated": True},
    ],
)
def test_nothing_goes_while_something_is_still_to_come(
    hospital: Hospital, state: dict[str, Any]
) -> None:
    files = hospital.study(**state)
    hospital.clock.advance(1000 * DAY_S)
    everything = {
        "read_days": 0,
        "unread_days": 0,
        "start_below_free_mb": 10**12,
        "until_free_mb": 10**12,
        "space_takes_unread": True,
        "result_files": True,
    }
    assert hospital.purge(**everything) == []
    assert all(file.exists() for file in files)


def test_nothing_goes_before_it_is_committed_where_that_is_required(hospital: Hospital) -> None:
    hospital.study()
    hospital.clock.advance(DAY_S)
    space = {"start_below_free_mb": 10**12, "until_free_mb": 10**12}
    assert hospital.purge(read_days=0, require_commitment=True, **space) == []


def test_just_read_images_do_not_go_from_under_the_reader(hospital: Hospital) -> None:
    hospital.study(read=False)
    hospital.clock.advance(100 * DAY_S)
    with hospital.database.transaction() as session:
        session.scalars(select(StudyRow)).one().read_at = hospital.clock()
    assert hospital.purge(read_days=30) == []


def test_space_takes_the_oldest_read_study_first_until_there_is_room(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, read in enumerate((False, True, True, True)):
        hospital.study(f"1.2.{number}", read=read)
        hospital.clock.advance(DAY_S)
    mb = 1024 * 1024

    def free() -> int:
        left = sum(
            1 for file in hospital.files.root.rglob("*.dcm") if b"pixels" in file.read_bytes()
        )
        return (100 - left * 10) * mb

    monkeypatch.setattr(hospital.files, "free_bytes", free)
    limits = {"start_below_free_mb": 30, "until_free_mb": 60}
    assert [c.reason for c in hospital.purger(**limits).plan()] == ["the disk was filling up"] * 3
    assert hospital.purge(**limits) == ["1.2.1", "1.2.2"]
    assert free() == 60 * mb
    assert hospital.purge(**limits) == []
    limits = {"start_below_free_mb": 90, "until_free_mb": 100}
    assert hospital.purge(**limits) == ["1.2.3"]
    assert hospital.purge(**limits, space_takes_unread=True) == ["1.2.0"]


def test_dry_run_says_what_would_go_and_leaves_it(hospital: Hospital) -> None:
    files = hospital.study()
    hospital.clock.advance(DAY_S)
    (planned,) = hospital.purger(read_days=1).plan()
    assert planned.size_bytes == sum(file.stat().st_size for file in files[:2])
    assert all(file.exists() for file in files)
    assert hospital.row().purged_at is None


def test_results_go_too_where_wanted(hospital: Hospital) -> None:
    files = hospital.study()
    hospital.clock.advance(DAY_S)
    assert hospital.purge(read_days=1, result_files=True) == ["1.2.3"]
    assert not any(file.exists() for file in files)
    with hospital.database.reading() as session:
        assert session.scalars(select(ResultObjectRow.path)).all() == [""]


def test_two_processes_do_not_purge_at_the_same_time(hospital: Hospital) -> None:
    one, two = hospital.purger("one"), hospital.purger("two")
    with one._holding_lease():
        with pytest.raises(LeaseTakenError):
            two.go_round()
        hospital.clock.advance(301)  # the first one has died
        two.go_round()
    two.go_round()


class CutOffError(Exception):
    """The process ends here."""


@pytest.mark.parametrize("step", ["before the files", "in the middle of the files"])
def test_crash_leaves_no_row_without_its_file_and_is_finished_later(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    files = hospital.study()
    hospital.clock.advance(DAY_S)
    unlink = Purger._unlink

    def cut_off(purger: Purger, path: str) -> bool:
        if step == "in the middle of the files":
            unlink(purger, path)
        raise CutOffError

    with monkeypatch.context() as patched:
        patched.setattr(Purger, "_unlink", cut_off)
        with pytest.raises(CutOffError):
            hospital.purge(read_days=1)
    assert hospital.row().purged_at is not None
    with hospital.database.reading() as session:
        for row in session.scalars(select(InstanceRow)):
            assert row.purged_at is not None or hospital.files.exists(row.path)
    hospital.purge()
    assert not any(file.exists() for file in files[:2])


def test_many_files_are_deleted_in_several_transactions(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "_FILES_IN_ONE_GO", 2)
    for number in range(3, 10):
        hospital.receive("1.2.3", number)
    hospital.study()
    hospital.clock.advance(DAY_S)
    done = hospital.purger(read_days=1).go_round()
    assert done.files == 9


def test_images_that_come_again_are_stored_and_reopen_the_study(hospital: Hospital) -> None:
    first, second, _ = hospital.study()
    hospital.clock.advance(DAY_S)
    hospital.purge(read_days=1)
    assert hospital.receive("1.2.3", 1) == first
    assert first.exists()
    assert not second.exists()
    study = hospital.row()
    assert (study.state, study.purged_at, study.purge_reason) == (StudyState.RECEIVING, None, "")
    assert hospital.kinds()[-2:] == ["purged", "reopened"]
    with hospital.database.reading() as session:
        (series, *_) = load_study(session, study.id).series
        assert [i.sop_instance_uid for i in series.instances] == ["1.2.3.1.1"]
    hospital.purge(read_days=0)
    assert first.exists()


def test_other_content_takes_the_place_of_a_purged_image(hospital: Hospital) -> None:
    hospital.study()
    hospital.clock.advance(DAY_S)
    hospital.purge(read_days=1)
    hospital.receive("1.2.3", 1, content="others")
    with hospital.database.reading() as session:
        used = load_study(session, hospital.row().id).series[0].instances
        assert len(used) == 1
        assert hospital.files.exists(used[0].path)
    assert "conflict" in hospital.kinds()


def test_image_that_comes_while_its_file_is_deleted_is_not_answered_with_success(
    hospital: Hospital,
) -> None:
    """The order that could lose an image: written, then deleted as the old one, then indexed."""
    hospital.study()
    hospital.clock.advance(DAY_S)
    again = hospital.files.write("1.2.3", "1.2.3.1.1", (b"1.2.31pixels",))
    hospital.purge(read_days=1)
    late = received(hospital.clock(), study="1.2.3", number=1, file=again)

    def index() -> None:
        with hospital.database.transaction() as session:
            record_instance(session, late, hospital.files.exists)

    with pytest.raises(FileIsGoneError):
        index()
    assert hospital.row().purged_at is not None
    file = hospital.receive("1.2.3", 1)  # as the sender does after 0xA700
    assert file.exists()
    hospital.purge(read_days=0)
    assert file.exists()


def test_image_that_was_quicker_than_the_deletion_is_kept(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, _ = hospital.study()
    hospital.clock.advance(DAY_S)
    delete = Purger._delete_files_of

    def image_comes_first(purger: Purger, study_id: int) -> int:
        hospital.receive("1.2.3", 1)
        return delete(purger, study_id)

    monkeypatch.setattr(Purger, "_delete_files_of", image_comes_first)
    hospital.purge(read_days=1)
    assert first.exists()


def test_reopened_study_keeps_what_a_crash_kept_from_deletion(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = hospital.study()
    hospital.clock.advance(DAY_S)
    with monkeypatch.context() as patched:
        patched.setattr(Purger, "_unlink", lambda *_: (_ for _ in ()).throw(CutOffError()))
        with pytest.raises(CutOffError):
            hospital.purge(read_days=1)
    hospital.receive("1.2.3", 3)  # a late image
    hospital.clock.advance(301)
    assert hospital.purge(read_days=1) == []
    assert first.exists()
    assert second.exists()
    with hospital.database.reading() as session:
        (series, *_) = load_study(session, hospital.row().id).series
        assert len(series.instances) == 3


def test_result_that_is_made_again_after_it_was_purged_has_a_file(hospital: Hospital) -> None:
    hospital.study()
    hospital.clock.advance(DAY_S)
    hospital.purge(read_days=1, result_files=True)
    with hospital.database.reading() as session:
        known = session.scalars(select(ResultObjectRow)).one()
        study = hospital.row()
    written = hospital.files.write("1.2.3", known.sop_instance_uid, (b"result, made again",))
    again = NewResultObject(
        role="sr",
        file=written,
        sop_class_uid="1.2",
        sop_instance_uid=known.sop_instance_uid,
        series_instance_uid=known.series_instance_uid,
        transfer_syntax_uid="1.2.1",
        modality="SR",
    )
    with hospital.database.transaction() as session:
        add_result_objects(
            session,
            run_id=known.run_id,
            study_id=study.id,
            objects=[again],
            destinations=[archive_named("pacs")],
            now=hospital.clock(),
        )
    with hospital.database.reading() as session:
        assert session.scalars(select(ResultObjectRow.path)).one() == written.path
        instance = select(InstanceRow).where(InstanceRow.sop_instance_uid == known.sop_instance_uid)
        row = session.scalars(instance).one()
        assert (row.path, row.purged_at, row.sha256) == (written.path, None, written.sha256)


def test_patient_data_are_forgotten_later_and_come_back_with_the_images(
    hospital: Hospital,
) -> None:
    files = hospital.study()
    hospital.study("1.2.4")
    with hospital.database.transaction() as session:
        session.execute(update(DeliveryRow).values(last_error="no room for Doe^Jane"))
    hospital.clock.advance(DAY_S)
    retention = {"read_days": 1, "forget_patient_days": 5}
    hospital.purge(**retention)
    with hospital.database.transaction() as session:  # the other study of the same patient stays
        other = session.scalars(select(StudyRow).where(StudyRow.study_instance_uid == "1.2.4"))
        other.one().purged_at = None
    hospital.clock.advance(5 * DAY_S)
    unlimited = {**retention, "read_days": None}
    assert hospital.purger(**unlimited).go_round().forgotten == 1
    assert not any(file.exists() for file in files)
    with hospital.database.reading() as session:
        patients = {p.patient_id: p.name for p in session.scalars(select(PatientRow))}
        assert patients == {"P1": "Doe^Jane", "(none) 1.2.3": ""}
        headers = session.scalars(
            select(InstanceRow.headers)
            .join(SeriesRow)
            .where(SeriesRow.study_id == hospital.row().id)
        )
        assert all(not one for one in headers)
        said = select(DeliveryRow.last_error).where(DeliveryRow.study_id == hospital.row().id)
        assert set(session.scalars(said)) == {""}  # what a destination said may name the patient
        assert len(session.scalars(select(FindingRow)).all()) == 2
    hospital.receive("1.2.3", 1)
    assert hospital.row().patient.name == "Doe^Jane"
    assert hospital.row().forgotten_at is None


def test_free_words_of_radiologists_go_with_the_patient_data(hospital: Hospital) -> None:
    hospital.study()
    with hospital.database.transaction() as session:
        study = session.get_one(StudyRow, hospital.row().id)
        now = hospital.clock()
        finding = session.scalars(select(FindingRow.id)).first()
        assert finding is not None
        record_feedback(
            session, finding, who="ada", verdict=Verdict.DISAGREE, reason="Jane says no", now=now
        )
        missed = MissedFinding(words="seen by Doe", laterality="left")
        report_missed(session, study, missed, who="ada", now=now)
        sign_off(session, study.id, who="ada", now=now)
        session.flush()
        open_again(session, study.id, who="ada", reason="asked by Doe", now=now)
    hospital.purge(read_days=0, forget_patient_days=0)
    with hospital.database.reading() as session:
        study_id = hospital.row().id
        [said] = feedback_on(session, [finding])[finding]
        assert (said.verdict, said.reason) == (Verdict.DISAGREE, "")
        [kept] = missed_of(session, study_id)
        assert kept.finding.in_words() == "words deleted with the patient's data, left"
        assert [one.reopen_reason for one in sign_offs_of(session, study_id)] == [""]


def test_last_study_of_a_patient_takes_the_patient_along(hospital: Hospital) -> None:
    hospital.study()
    retention = {"read_days": 0, "forget_patient_days": 0}
    hospital.purge(**retention)
    with hospital.database.reading() as session:
        assert session.scalars(select(PatientRow.name)).all() == [""]


# What no setting relaxes, said a second time and independently of the query.
def may_go(state: dict[str, Any]) -> bool:
    """Return whether nothing is still to come of a study."""
    if not state["complete"] or state["associated"]:
        return False
    if not state["routed"]:
        return True
    over = state["run"] not in (RunState.PENDING, RunState.RUNNING)
    on_the_way = (DeliveryState.WAITING, DeliveryState.SENDING, DeliveryState.DEAD)
    arrived = state["delivery"] not in on_the_way
    return over and arrived


STATES = st.fixed_dictionaries(
    {
        "read": st.booleans(),
        "routed": st.booleans(),
        "run": st.sampled_from(RunState),
        "delivery": st.none() | st.sampled_from(DeliveryState),
        "complete": st.booleans(),
        "associated": st.booleans(),
    }
)
DAYS = st.none() | st.floats(0, 4)
RETENTION = st.fixed_dictionaries(
    {
        "read_days": DAYS,
        "unread_days": DAYS,
        "not_routed_read_days": DAYS,
        "not_routed_unread_days": DAYS,
        "start_below_free_mb": st.sampled_from([0, 10**12]),
        "until_free_mb": st.just(10**12),
        "space_takes_unread": st.booleans(),
        "result_files": st.booleans(),
        "require_commitment": st.booleans(),
        "forget_patient_days": DAYS,
    }
)
_runs = iter(range(10**9))


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(states=st.lists(STATES, min_size=1, max_size=4), retention=RETENTION, days=st.floats(0, 5))
def test_never_is_a_study_taken_that_is_not_eligible(
    hospital: Hospital, states: list[dict[str, Any]], retention: dict[str, Any], days: float
) -> None:
    made = {}
    for state in states:
        uid = f"1.9.{next(_runs)}"
        made[uid] = (state, hospital.study(uid, **state))
    hospital.clock.advance(days * DAY_S)
    hospital.purger(**retention).go_round()
    for uid, (state, files) in made.items():
        row = hospital.row(uid)
        is_allowed = (
            may_go(state)
            and not retention["require_commitment"]
            and (state["read"] or allows_unread(retention, state))
        )
        assert is_allowed or row.purged_at is None
        assert row.purged_at is not None or all(file.exists() for file in files)
        assert row.forgotten_at is None or (row.purged_at is not None and state["read"])


def allows_unread(retention: dict[str, Any], state: dict[str, Any]) -> bool:
    """Return whether the settings say of unread studies that they may go."""
    days = retention["unread_days"]
    if not state["routed"] and retention["not_routed_unread_days"] is not None:
        days = retention["not_routed_unread_days"]
    by_space = retention["start_below_free_mb"] > 0 and retention["space_takes_unread"]
    return days is not None or by_space


@pytest.fixture
def sweep(hospital: Hospital) -> Sweep:
    """A sweep of the hospital's folder."""
    return Sweep(
        hospital.database, hospital.files, hospital.clock, unindexed_after=timedelta(days=7)
    )


def aged(file: Path, clock: ManualClock, hours: float) -> Path:
    """Let the file be `hours` old."""
    at = clock().timestamp() - hours * 3600
    os.utime(file, (at, at))
    return file


def test_leftovers_go_and_what_is_indexed_or_fresh_stays(hospital: Hospital, sweep: Sweep) -> None:
    files = hospital.study()
    folder = files[0].parent
    clock = hospital.clock
    for file in files:
        aged(file, clock, 10_000)
    old_part, new_part = folder / ".a.1.part", folder / ".b.1.part"
    for file in (old_part, new_part):
        file.touch()
    aged(old_part, clock, 2)
    aged(new_part, clock, 0.5)
    old = aged(
        hospital.files.absolute(hospital.files.write("1.2.3", "9", (b"x",)).path), clock, 200
    )
    new = aged(hospital.files.absolute(hospital.files.write("1.2.3", "8", (b"x",)).path), clock, 2)

    swept = sweep.go_round()

    assert (swept.leftovers, swept.unindexed, swept.kept) == (1, 1, 1)
    assert [f.exists() for f in (*files, old_part, new_part, old, new)] == [
        True,
        True,
        True,
        False,
        True,
        False,
        True,
    ]


def test_sweep_that_was_cut_off_is_finished(hospital: Hospital, sweep: Sweep) -> None:
    first, _, _ = hospital.study()
    aside = first.rename(first.with_name(first.name + ".unindexed"))
    stray = first.with_name("0-0.dcm.unindexed")
    stray.touch()
    aged(stray, hospital.clock, 2)
    swept = sweep.go_round()
    assert (swept.put_back, swept.unindexed) == (1, 1)
    assert first.exists()
    assert not aside.exists()
    assert not stray.exists()


def test_image_that_comes_while_it_is_swept_stays(
    hospital: Hospital, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    stray = hospital.files.absolute(hospital.files.write("1.2.3", "1.2.3.1.1", (b"1",)).path)
    aged(stray, hospital.clock, 1000)
    rename = Path.rename

    def come_between(file: Path, target: Path) -> Path:
        hospital.files.write("1.2.3", "1.2.3.1.1", (b"1",))
        return rename(file, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", come_between)
        swept = sweep.go_round()
    assert swept.unindexed == 0
    assert stray.read_bytes() == b"1"


def test_due_is_nothing_without_settings(hospital: Hospital) -> None:
    hospital.study()
    hospital.clock.advance(10_000 * DAY_S)
    with hospital.database.reading() as session:
        assert list(due_by_age(session, RetentionSettings(), hospital.clock())) == []
    assert hospital.row().order_priority is Priority.ROUTINE
