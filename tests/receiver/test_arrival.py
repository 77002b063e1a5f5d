"""From the last image to the complete study, and what a crash leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydicom.uid import generate_uid
from sqlalchemy import select, update

from tests.datasets import ct_slice
from tests.receiver.conftest import (
    StartReceiver,
    associate,
    port_of,
    receiver_settings,
    send,
)
from tests.store.rows import add_model, received
from tests.tools import PROJECT, ManualClock, find_free_port, wait_until
from triage.core.completeness import QuietPeriods
from triage.core.visits import Way
from triage.receiver.completeness import CompletenessRounds, OpenAssociations
from triage.receiver.indexer import Indexer
from triage.receiver.rounds import Rounds
from triage.receiver.visits import VisitTally
from triage.store.clock import system_clock
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.studies import hold_open, record_instance
from triage.store.tables import (
    AnalysisRunRow,
    InstanceRow,
    OpenAssociationRow,
    PatientRow,
    SeriesRow,
    StudyEventRow,
    StudyRow,
)


def states(database: Database) -> list[str]:
    """Return the states of all studies."""
    with database.reading() as session:
        return [str(state) for state in session.scalars(select(StudyRow.state))]


def kinds(database: Database) -> list[str]:
    """Return the kinds of all lines of history."""
    with database.reading() as session:
        return list(session.scalars(select(StudyEventRow.kind).order_by(StudyEventRow.id)))


def held(database: Database) -> list[str]:
    """Return the associations that hold studies open."""
    with database.reading() as session:
        return list(session.scalars(select(OpenAssociationRow.association)))


def test_study_is_incomplete_while_its_association_is_open(
    database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(database)
    one = ct_slice()
    association = associate(receiver, one)
    assert association.send_c_store(one).Status == 0
    assert len(held(database)) == 1
    time.sleep(0.8)
    assert states(database) == ["receiving"]
    association.release()
    wait_until(lambda: states(database) == ["complete"], "the study is complete")
    assert held(database) == []


@pytest.mark.parametrize("how", ["abort", "broken connection"])
def test_study_of_a_lost_association_becomes_complete(
    sqlite_database: Database, start_receiver: StartReceiver, how: str
) -> None:
    receiver = start_receiver(sqlite_database)
    one = ct_slice()
    association = associate(receiver, one)
    association.send_c_store(one)
    if how == "abort":
        association.abort()
    else:
        association.dul.socket.socket.shutdown(2)
    wait_until(lambda: states(sqlite_database) == ["complete"], "the study is complete")
    assert held(sqlite_database) == []


def test_silent_association_is_ended_by_the_network_timeout(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database, network_timeout_s=0.5)
    one = ct_slice()
    association = associate(receiver, one)
    association.send_c_store(one)
    wait_until(lambda: states(sqlite_database) == ["complete"], "the study is complete")
    assert association.is_aborted


def test_late_instance_reopens_the_study(database: Database, start_receiver: StartReceiver) -> None:
    with database.transaction() as session:
        add_model(session, system_clock())
    receiver = start_receiver(database)
    first = ct_slice()
    send(receiver, first)
    wait_until(lambda: states(database) == ["complete"], "the study is complete")
    send(receiver, ct_slice(first.StudyInstanceUID, number=2))
    wait_until(lambda: kinds(database).count("complete") == 2, "the study is complete again")
    assert "reopened" in kinds(database)
    with database.reading() as session:
        found = session.scalars(select(AnalysisRunRow).order_by(AnalysisRunRow.id)).all()
    assert [(run.generation, run.state) for run in found] == [(1, "superseded"), (2, "pending")]


def test_series_of_an_urgent_study_is_queued_while_its_association_is_open(
    database: Database, start_receiver: StartReceiver
) -> None:
    with database.transaction() as session:
        add_model(session, system_clock())
    receiver = start_receiver(database, quiet_period_s=600, quiet_period_by_modality_s={})
    study = generate_uid()
    urgent = {
        "ImagesInAcquisition": 3,
        "AcquisitionNumber": 1,
        "RequestedProcedurePriority": "STAT",
    }
    slices = [ct_slice(study, number=n, **urgent) for n in range(1, 4)]
    association = associate(receiver, *slices)
    for one in slices[:2]:
        association.send_c_store(one)

    def routed() -> list[str]:
        with database.reading() as session:
            rows = select(StudyEventRow.text).where(StudyEventRow.kind == "routed")
            return list(session.scalars(rows))

    assert routed() == []
    association.send_c_store(slices[2])
    wait_until(routed, "a run is queued")
    (said,) = routed()
    assert said.startswith(
        "queued for head-ct 1.0.0 before the study is complete: "
        "all 3 images of the series are here (Images in Acquisition); series "
    )
    assert states(database) == ["receiving"]
    association.release()


def test_quiet_period_of_a_sender_goes_before_that_of_its_modality(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(
        sqlite_database,
        quiet_period_by_modality_s={"CT": 600},
        quiet_period_by_calling_ae_title_s={"FAST-CT": 0.2},
    )
    send(receiver, ct_slice(), calling="FAST-CT")
    wait_until(lambda: states(sqlite_database) == ["complete"], "the study is complete")


def test_study_whose_sender_never_ends_is_complete_at_its_maximum_age(
    sqlite_database: Database, start_receiver: StartReceiver
) -> None:
    receiver = start_receiver(sqlite_database, maximum_age_s=0.5)
    one = ct_slice()
    association = associate(receiver, one)
    association.send_c_store(one)
    wait_until(lambda: states(sqlite_database) == ["complete"], "the study is complete")
    assert association.is_established
    with sqlite_database.reading() as session:
        reason = session.scalars(select(StudyRow.completion_reason)).one()
    assert reason == "still arriving after 0.5 s, the maximum age of a study"
    association.release()


def test_two_senders_of_one_study(database: Database, start_receiver: StartReceiver) -> None:
    receiver = start_receiver(database)
    study = generate_uid()
    halves = [[ct_slice(study, number=n) for n in range(half, 20, 2)] for half in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        statuses = list(pool.map(lambda half: send(receiver, *half), halves))
    assert {s.Status for half in statuses for s in half} == {0}
    wait_until(lambda: states(database) == ["complete"], "the study is complete")
    assert kinds(database) == ["received", "complete"]
    with database.reading() as session:
        assert len(session.scalars(select(InstanceRow)).all()) == 20
        assert len(session.scalars(select(SeriesRow)).all()) == 1
        assert len(session.scalars(select(PatientRow)).all()) == 1


def test_receivers_of_one_database_meet_on_new_studies_without_an_error(
    files: InstanceFiles,
    database_url: str,
) -> None:
    # Each receiver has connections of its own, as processes on two machines have.
    databases = [Database(database_url) for _ in range(3)]
    indexers = [Indexer(d, files, f"r{n}", system_clock) for n, d in enumerate(databases)]
    together = threading.Barrier(6)

    def record(worker: int) -> None:
        together.wait()
        for n in range(30):
            # All workers send the same studies of the same patients, each an image of its own.
            one = received(system_clock(), study=f"1.2.{n}", number=worker, patient_id=f"P{n % 5}")
            indexers[worker % 3].record(one, f"association-{worker}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(record, range(6)))
    with databases[0].reading() as session:
        assert len(session.scalars(select(InstanceRow)).all()) == 180
        assert len(session.scalars(select(StudyRow)).all()) == 30
        assert len(session.scalars(select(PatientRow)).all()) == 5
        assert len(session.scalars(select(OpenAssociationRow)).all()) == 180
    for database in databases:
        database.close()


def test_one_instance_that_cannot_be_indexed_does_not_harm_its_batch(
    files: InstanceFiles, sqlite_database: Database, clock: ManualClock
) -> None:
    indexer = Indexer(sqlite_database, files, "r", clock)
    good = [received(clock(), number=n) for n in range(3)]
    bad = received(clock(), number=9, headers={"Rows": object()})
    with ThreadPoolExecutor(4) as pool:
        with indexer._committing:
            outcomes = [pool.submit(indexer.record, one, "a") for one in (good[0], bad, *good[1:])]
            time.sleep(0.2)  # all four wait together
        errors = [outcome.exception() for outcome in outcomes]
    assert [error is None for error in errors] == [True, False, True, True]
    with sqlite_database.reading() as session:
        assert len(session.scalars(select(InstanceRow)).all()) == 3


@pytest.mark.parametrize("change", ["", "content", "state", "modality"])
def test_short_way_into_the_index_is_left_when_an_instance_asks_for_more(
    files: InstanceFiles, database: Database, clock: ManualClock, change: str
) -> None:
    indexer = Indexer(database, files, "r", clock)
    first = indexer.record(received(clock(), number=1), "a")
    assert indexer.record(received(clock.advance(1), number=2), "a") == first
    again = indexer.record(received(clock.advance(1), number=2), "a")
    assert again.is_duplicate
    if change == "content":
        assert indexer.record(received(clock(), number=2, content="other"), "a").is_conflict
    if change == "state":
        with database.transaction() as session:
            session.execute(update(StudyRow).values(state="complete"))
        indexer.record(received(clock(), number=3), "a")
        assert kinds(database) == ["received", "reopened"]
    if change == "modality":
        indexer.record(received(clock(), number=3, modality="SR"), "a")
    with database.reading() as session:
        study = session.scalars(select(StudyRow)).one()
        count = len(session.scalars(select(InstanceRow)).all())
    assert study.state == "receiving"
    assert study.last_instance_at == clock() if change in {"state", "modality"} else True
    assert study.modalities == ("CT\\SR" if change == "modality" else "CT")
    assert count == (2 if change == "" else 3)


def test_waiting_instances_share_a_commit(
    files: InstanceFiles, sqlite_database: Database, clock: ManualClock
) -> None:
    from sqlalchemy import event

    commits: list[object] = []
    event.listen(sqlite_database.engine, "commit", commits.append)
    indexer = Indexer(sqlite_database, files, "r", clock)
    with ThreadPoolExecutor(10) as pool, indexer._committing:
        for n in range(10):
            pool.submit(indexer.record, received(clock(), number=n), "a")
        time.sleep(0.3)
    assert len(commits) == 1


def test_rounds_go_on_after_the_database_was_away(
    sqlite_database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sqlite_database.transaction() as session:
        record_instance(session, received(clock()))
    clock.advance(60)
    rounds = CompletenessRounds(sqlite_database, "r", QuietPeriods(), OpenAssociations(), clock)
    was_asked = threading.Event()

    def away() -> None:
        was_asked.set()
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_database, "reading", away)
        rounds.start()
        assert was_asked.wait(5)
    wait_until(lambda: states(sqlite_database) == ["complete"], "the study is complete")
    rounds.stop()


def test_rounds_keep_open_associations_alive_and_release_ended_ones(
    sqlite_database: Database, clock: ManualClock
) -> None:
    associations = OpenAssociations()
    rounds = CompletenessRounds(sqlite_database, "r", QuietPeriods(), associations, clock)
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    associations.add("a", thread, VisitTally(Way.DICOM, "192.0.2.1", clock))
    with sqlite_database.transaction() as session:
        study_id = record_instance(session, received(clock())).study_id
        hold_open(session, study_id, association="a", receiver="r", now=clock())
    for _ in range(5):
        clock.advance(60)
        assert rounds.go_round() == []
    end.set()
    thread.join()
    assert rounds.go_round() == [study_id]
    assert len(associations) == 0


def test_rounds_ask_without_a_commit_only_while_a_study_is_arriving(
    sqlite_database: Database, clock: ManualClock
) -> None:
    associations = OpenAssociations()
    rounds = CompletenessRounds(sqlite_database, "r", QuietPeriods(), associations, clock)
    rounds.go_round()
    assert not rounds._is_pressing()
    over = threading.Thread(target=lambda: None)
    associations.add("a", over, VisitTally(Way.DICOM, "192.0.2.1", clock))
    assert rounds._is_pressing()  # it is released at once, whoever writes meanwhile
    rounds.go_round()
    assert not rounds._is_pressing()
    with sqlite_database.transaction() as session:
        study_id = record_instance(session, received(clock())).study_id
    assert rounds.go_round() == []
    assert rounds._is_pressing()
    clock.advance(60)
    assert rounds.go_round() == [study_id]
    rounds.go_round()
    assert not rounds._is_pressing()


def test_rounds_that_are_pressing_wait_for_no_commit(sqlite_database: Database) -> None:
    many = 60  # with a commit of nobody, these would take a minute
    begun = threading.Semaphore(0)
    rounds = Rounds(
        "often",
        begun.release,
        pause_s=0.001,
        commits_to=sqlite_database,
        is_pressing=lambda: True,
    )
    rounds.start()
    deadline = time.monotonic() + 30
    assert all(begun.acquire(timeout=deadline - time.monotonic()) for _ in range(many))
    rounds.end()
    rounds.join()


RUN_RECEIVER = """
import sys
from triage.receiver import run_receiver
from triage.settings import load_settings
run_receiver(load_settings())
"""


def start_process(tmp_path: Path, url: str, port: int) -> subprocess.Popen[bytes]:
    """Start `run_receiver` as a process of its own and return once it listens."""
    settings = {
        "TRIAGE_DATA_DIRECTORY": str(tmp_path / "data"),
        "TRIAGE_DATABASE__URL": url,
        "TRIAGE_RECEIVER__PORT": str(port),
        "TRIAGE_RECEIVER__MINIMUM_FREE_MB": "0",
        "TRIAGE_RECEIVER__QUIET_PERIOD_BY_MODALITY_S": '{"CT": 0.2}',
    }
    path = os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", RUN_RECEIVER],
        env={**os.environ, **settings, "PYTHONPATH": path},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if b"receiver listens" in line:
            return process
    raise AssertionError(f"the receiver ended with {process.wait()}")


def stops_gracefully(process: subprocess.Popen[bytes], number: int) -> bool:
    """Send the signal `number` and return whether the receiver says that it ended by it."""
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    return process.returncode == 0 and b"receiver stopped" in output


def test_process_stops_gracefully_at_control_c(sqlite_url: str, tmp_path: Path) -> None:
    process = start_process(tmp_path, sqlite_url, find_free_port())
    assert stops_gracefully(process, signal.SIGINT)


def test_killed_receiver_loses_nothing_that_it_acknowledged_and_the_next_one_stops_gracefully(
    database_url: str, tmp_path: Path
) -> None:
    from pynetdicom import AE

    port = find_free_port()
    process = start_process(tmp_path, database_url, port)
    slices = [ct_slice("1.2.3.4", number=n) for n in range(200)]
    entity = AE()
    entity.add_requested_context(slices[0].SOPClassUID, slices[0].file_meta.TransferSyntaxUID)
    entity.dimse_timeout = 2  # pynetdicom waits this long for the answer of the killed one
    association = entity.associate("127.0.0.1", port)
    acknowledged: list[str] = []
    for n, one in enumerate(slices):
        if n == 60:
            threading.Timer(0.05, process.kill).start()
        try:
            status = association.send_c_store(one)
        except (RuntimeError, ValueError):
            break
        if status and status.Status == 0:
            acknowledged.append(one.SOPInstanceUID)
    process.communicate()
    assert 60 <= len(acknowledged) < 200
    database = Database(database_url)
    files = InstanceFiles(tmp_path / "data")
    with database.reading() as session:
        kept = {i.sop_instance_uid: i for i in session.scalars(select(InstanceRow))}
    assert set(acknowledged) <= kept.keys()
    for uid in acknowledged:
        assert files.absolute(kept[uid].path).stat().st_size == kept[uid].size_bytes
    # The restarted receiver frees the study that the killed one held open.
    assert states(database) == ["receiving"]
    again = start_process(tmp_path, database_url, port)
    wait_until(lambda: states(database) == ["complete"], "the study is complete")
    assert stops_gracefully(again, signal.SIGTERM)
    database.close()


def test_receiver_can_be_stopped_while_an_association_is_open(
    sqlite_database: Database, tmp_path: Path, files: InstanceFiles
) -> None:
    from triage.receiver import Receiver

    receiver = Receiver(receiver_settings(tmp_path / "data"), sqlite_database, files)
    receiver.start()
    one = ct_slice()
    association = associate(receiver, one)
    assert association.send_c_store(one).Status == 0
    begun = time.monotonic()
    receiver.stop()
    assert time.monotonic() - begun < 8
    wait_until(lambda: association.is_aborted, "the association is aborted")
    assert held(sqlite_database) == []
    assert port_of(receiver) > 0
