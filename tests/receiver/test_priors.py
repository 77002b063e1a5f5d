"""Priors: fetched early, waited for a while and no longer, never on the worklist."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE
from sqlalchemy import select

from tests.datasets import ct_slice
from tests.receiver.archives import dcmqrscp, orthanc_with, remote
from tests.receiver.conftest import StartReceiver, associate, receiver_settings, send
from tests.store.rows import add_model, received
from tests.tools import PROJECT, ManualClock, find_free_port, wait_until
from triage.core.completeness import QuietPeriods
from triage.core.priors import Comparable, SearchState
from triage.receiver.priors import PriorsRounds
from triage.receiver.retrieve.origin import ORDINARY_MOVE, PRIORS_MOVE
from triage.settings import PriorsSettings, RemoteSettings
from triage.store.clock import Clock, system_clock
from triage.store.contents import priors_of
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.prior_searches import (
    SearchLostError,
    ask_for_priors,
    claim_search,
    finish_search,
    put_back_searches,
    studies_to_search_for,
)
from triage.store.priors import ask_to_read, want_priors
from triage.store.runs import claim_most_urgent
from triage.store.studies import complete_quiet_studies, record_instance
from triage.store.tables import AnalysisRunRow, PriorRow, PriorSearchRow, StudyEventRow, StudyRow
from triage.worklist.queue import count_worklist, reading_list
from triage.worklist.reading import mark_as_read
from triage.worklist.study_view import study_view

NOW = "1.2.30"
QUIET = QuietPeriods(1.0, {})
Start = Callable[..., PriorsRounds]


def history(name: str, day: str, **attributes: object) -> list[Dataset]:
    """Return two slices of an earlier study."""
    return [
        ct_slice(
            name, n, StudyDate=day, StudyTime="100000", StudyDescription="CT head", **attributes
        )
        for n in (1, 2)
    ]


def present() -> Dataset:
    """Return a slice of the study that is to be read."""
    return ct_slice(NOW, StudyDate="20260301", StudyTime="100000", StudyDescription="CT head")


@pytest.fixture
def start_rounds(tmp_path: Path, files: InstanceFiles) -> Iterator[Start]:
    """A function that starts the fetching of priors; keywords are keys of `[priors]`."""
    started: list[PriorsRounds] = []

    def start(
        database: Database,
        pacs: RemoteSettings,
        *,
        clock: Clock = system_clock,
        running: bool = True,
        **rule: object,
    ) -> PriorsRounds:
        settings = receiver_settings(tmp_path / "data").model_copy(
            update={
                "remotes": (pacs,),
                "priors": PriorsSettings.model_validate(
                    {"remote": pacs.name, "retry_s": 0.1, "maximum_attempts": 2, **rule}
                ),
            }
        )
        one = PriorsRounds(settings, database, files, clock, "receiver")
        if running:
            one.start()
            started.append(one)
        return one

    yield start
    for one in started:
        one.stop()


def search_of(database: Database) -> PriorSearchRow | None:
    with database.reading() as session:
        return session.scalars(
            select(PriorSearchRow)
            .join(StudyRow, StudyRow.id == PriorSearchRow.study_id)
            .where(StudyRow.study_instance_uid == NOW)
        ).first()


def is_finished(database: Database) -> bool:
    search = search_of(database)
    return search is not None and search.state in (SearchState.DONE, SearchState.FAILED)


def study_id_of(database: Database, uid: str = NOW) -> int:
    with database.reading() as session:
        return session.scalars(select(StudyRow.id).where(StudyRow.study_instance_uid == uid)).one()


def texts(database: Database, kind: str = "priors") -> list[str]:
    with database.reading() as session:
        return list(session.scalars(select(StudyEventRow.text).where(StudyEventRow.kind == kind)))


def prior_studies(database: Database) -> list[str]:
    with database.reading() as session:
        found = priors_of(session, study_id_of(database))
        return [study.study_instance_uid for study in found]


@pytest.mark.parametrize("way", ["dicomweb", "c-get", "c-move"])
def test_the_last_relevant_priors_are_fetched_when_the_first_image_is_here(
    tmp_path: Path,
    sqlite_database: Database,
    start_receiver: StartReceiver,
    start_rounds: Start,
    way: str,
) -> None:
    port = find_free_port()
    receiver = start_receiver(sqlite_database, port=port, quiet_period_by_modality_s={"CT": 0.5})
    knee = history("1.2.7", "20250901", BodyPartExamined="KNEE")
    for one in knee:
        one.StudyDescription = "CT knee"
    archived = [
        *history("1.2.5", "20240101"),
        *history("1.2.6", "20250101"),
        *knee,
        *history("1.2.4", "20230101"),
        *history("1.2.8", "20250601", PatientID="P2"),
    ]
    with orthanc_with(tmp_path, *archived, move_to=port, dicomweb=way == "dicomweb") as (_, pacs):
        rounds = start_rounds(sqlite_database, pacs, count=2)
        if way == "c-move":
            only_move(rounds)
        send(receiver, present())
        wait_until(lambda: is_finished(sqlite_database), "the priors are fetched")
    assert prior_studies(sqlite_database) == ["1.2.6", "1.2.5"]
    with sqlite_database.reading() as session:
        assert [len(study.series[0].instances) for study in priors_of(session, 1)] == [2, 2]
        on_list = [e.study_instance_uid for e in reading_list(session, system_clock())]
        assert on_list == [NOW]
        assert count_worklist(session, system_clock()).total == 1
        marks = dict(session.execute(select(StudyRow.study_instance_uid, StudyRow.is_prior)).all())
    assert marks == {NOW: False, "1.2.6": True, "1.2.5": True}
    assert texts(sqlite_database)[-1] == "priors from pacs: 2025-01-01 CT, 2024-01-01 CT"


def only_move(rounds: PriorsRounds) -> None:
    """Let the archive be asked for C-MOVE alone."""
    archive = rounds._archive
    every = archive.ways
    archive.ways = lambda via, as_priors: every("c-move", as_priors=as_priors)  # type: ignore


def test_priors_come_from_dcmqrscp_which_describes_studies_sparsely(
    tmp_path: Path, sqlite_database: Database, start_receiver: StartReceiver, start_rounds: Start
) -> None:
    receiver = start_receiver(sqlite_database)
    knee = history("1.2.7", "20250901", BodyPartExamined="KNEE")
    for one in knee:
        one.StudyDescription = "CT knee"
    with dcmqrscp(tmp_path, *history("1.2.5", "20240101"), *knee) as pacs:
        start_rounds(sqlite_database, pacs)
        send(receiver, present())
        wait_until(lambda: is_finished(sqlite_database), "the priors are fetched")
    assert prior_studies(sqlite_database) == ["1.2.5"]


def test_priors_are_not_analysed(
    tmp_path: Path, sqlite_database: Database, start_receiver: StartReceiver, start_rounds: Start
) -> None:
    with sqlite_database.transaction() as session:
        add_model(session, system_clock())
    receiver = start_receiver(sqlite_database)
    with dcmqrscp(tmp_path, *history("1.2.5", "20240101")) as pacs:
        start_rounds(sqlite_database, pacs)
        send(receiver, present())

        def all_complete() -> bool:
            with sqlite_database.reading() as session:
                found = session.scalars(select(StudyRow.state)).all()
            return [str(state) for state in found] == ["complete", "complete"]

        wait_until(all_complete, "both studies are complete")
        wait_until(lambda: is_finished(sqlite_database), "the priors are fetched")
    with sqlite_database.reading() as session:
        runs = session.scalars(select(AnalysisRunRow.study_id)).all()
        assert runs == [study_id_of(sqlite_database)]
        prior = study_view(session, "1.2.5", system_clock())
        view = study_view(session, NOW, system_clock())
    assert prior is not None
    assert view is not None
    assert prior.status.text == "a prior, for comparison only"
    [shown] = view.priors
    assert (shown.study_date, shown.state, shown.is_in_store) == ("2024-01-01", "here", True)


def test_an_archive_that_is_away_is_said_and_keeps_nobody_waiting(
    sqlite_database: Database, start_receiver: StartReceiver, start_rounds: Start
) -> None:
    receiver = start_receiver(sqlite_database)
    start_rounds(sqlite_database, remote(find_free_port()))
    send(receiver, present())
    wait_until(lambda: is_finished(sqlite_database), "the search is given up")
    assert "cannot be reached" in texts(sqlite_database)[-1]
    search = search_of(sqlite_database)
    assert search is not None
    assert (search.state, search.attempts) == ("failed", 2)


def test_an_archive_that_hangs_delays_the_analysis_by_the_wait_and_no_more(
    sqlite_database: Database, start_receiver: StartReceiver, start_rounds: Start
) -> None:
    with sqlite_database.transaction() as session:
        add_model(session, system_clock())
    # Long enough for the search to be queued before the study is complete, also on a busy machine.
    receiver = start_receiver(sqlite_database, quiet_period_by_modality_s={"CT": 3.0})

    def claimed() -> bool:
        with sqlite_database.transaction() as session:
            lease = timedelta(seconds=60)
            run = claim_most_urgent(session, worker="w", lease=lease, now=system_clock())
        return run is not None

    with socket.create_server(("127.0.0.1", 0)) as silent:
        pacs = remote(silent.getsockname()[1], timeout_s=12.0)
        start_rounds(sqlite_database, pacs, wait_s=1.0, maximum_attempts=1)
        send(receiver, present())
        wait_until(claimed, "the run can be claimed")
        with sqlite_database.reading() as session:
            study = session.scalars(select(StudyRow)).one()
            run = session.scalars(select(AnalysisRunRow)).one()
        assert study.completed_at is not None
        assert run.started_at is not None
        assert run.available_at - study.completed_at == timedelta(seconds=1.0)
        assert run.started_at >= run.available_at
        assert not is_finished(sqlite_database)  # the archive is still being waited for
        wait_until(lambda: is_finished(sqlite_database), "the search is given up")
    assert "has begun without" in texts(sqlite_database)[-1]


def asked(database: Database, clock: ManualClock, *, wait_s: float = 30.0) -> int:
    """Receive a study and queue the search for its priors."""
    with database.transaction() as session:
        add_model(session, clock())
        record_instance(session, received(clock(), study=NOW))
    with database.transaction() as session:
        [study_id] = studies_to_search_for(session)
        ask_for_priors(session, study_id, remote="pacs", wait_s=wait_s, now=clock())
        assert studies_to_search_for(session) == []
    return study_id


def available_at(database: Database) -> object:
    with database.reading() as session:
        return session.scalars(select(AnalysisRunRow.available_at)).one()


def complete(database: Database, clock: ManualClock) -> None:
    with database.transaction() as session:
        assert complete_quiet_studies(session, QUIET, clock.advance(5))


def test_analysis_waits_for_the_priors_no_longer_than_the_rule_says(
    database: Database, clock: ManualClock
) -> None:
    asked(database, clock, wait_s=30.0)
    complete(database, clock)
    assert available_at(database) == clock() + timedelta(seconds=30)


def test_analysis_begins_as_soon_as_the_priors_are_here(
    database: Database, clock: ManualClock
) -> None:
    asked(database, clock)
    complete(database, clock)
    with database.transaction() as session:
        due = claim_search(session, claimer="r", lease=timedelta(seconds=60), now=clock())
        assert due is not None
        finish_search(session, due, SearchState.DONE, "no relevant priors", now=clock.advance(3))
    assert available_at(database) == clock()


def test_analysis_does_not_wait_where_the_search_has_ended(
    database: Database, clock: ManualClock
) -> None:
    asked(database, clock)
    with database.transaction() as session:
        due = claim_search(session, claimer="r", lease=timedelta(seconds=60), now=clock())
        assert due is not None
        finish_search(session, due, SearchState.FAILED, "no priors", now=clock())
    complete(database, clock)
    assert available_at(database) == clock()


def test_a_late_image_does_not_begin_the_wait_anew(database: Database, clock: ManualClock) -> None:
    asked(database, clock, wait_s=30.0)
    complete(database, clock)
    until = available_at(database)
    with database.transaction() as session:
        record_instance(session, received(clock.advance(5), study=NOW, number=2))
    complete(database, clock)
    with database.reading() as session:
        second = session.scalars(
            select(AnalysisRunRow.available_at).where(AnalysisRunRow.generation == 2)
        ).one()
    assert second == until


def test_priors_that_come_too_late_are_said_to_be_late(
    database: Database, clock: ManualClock
) -> None:
    asked(database, clock, wait_s=1.0)
    complete(database, clock)
    with database.transaction() as session:
        due = claim_search(session, claimer="r", lease=timedelta(seconds=60), now=clock())
        assert due is not None
        finish_search(session, due, SearchState.DONE, "priors", now=clock.advance(9))
    first, last = texts(database)
    assert first == "the analysis waits for them, 1 s at most"
    assert "has begun without" in last


def test_a_search_outlives_the_receiver_and_only_its_holder_can_end_it(
    database: Database, clock: ManualClock
) -> None:
    asked(database, clock)
    lease = timedelta(seconds=60)
    with database.transaction() as session:
        lost = claim_search(session, claimer="r", lease=lease, now=clock())
        assert claim_search(session, claimer="other", lease=lease, now=clock()) is None
    with database.transaction() as session:
        put_back_searches(session, claimer="r", now=clock())
        again = claim_search(session, claimer="r", lease=lease, now=clock())
    assert lost is not None
    assert again is not None
    assert again.attempt == 2
    with database.transaction() as session, pytest.raises(SearchLostError):
        finish_search(session, lost, SearchState.DONE, "late", now=clock())
    with database.transaction() as session:
        taken_over = claim_search(session, claimer="other", lease=lease, now=clock.advance(61))
    assert taken_over is not None


def fetched(database: Database, clock: ManualClock) -> None:
    """Receive a study, and fetch 1.2.5 as its prior; the study itself is read already."""
    study_id = asked(database, clock)
    with database.transaction() as session:
        want_priors(session, study_id, [Comparable("1.2.5")], now=clock())
    with database.transaction() as session:
        record_instance(session, received(clock(), study="1.2.5", is_prior=True))
        mark_as_read(session, NOW, now=clock())


def test_a_prior_that_is_sent_becomes_an_ordinary_study(
    database: Database, clock: ManualClock
) -> None:
    fetched(database, clock)
    complete(database, clock)
    with database.reading() as session:
        assert reading_list(session, clock()) == []
        assert len(session.scalars(select(AnalysisRunRow)).all()) == 1
    arrived = clock.advance(100)
    with database.transaction() as session:  # the very image that was fetched before
        again = record_instance(session, received(arrived, study="1.2.5"))
    assert again.is_duplicate
    with database.reading() as session:
        [entry] = reading_list(session, clock())
        assert entry.waiting_since == arrived
    complete(database, clock)
    with database.reading() as session:
        assert len(session.scalars(select(AnalysisRunRow)).all()) == 2


def test_what_no_study_wants_is_never_kept_off_the_worklist(
    database: Database, clock: ManualClock
) -> None:
    with database.transaction() as session:
        record_instance(session, received(clock(), study="1.2.5", is_prior=True))
    with database.reading() as session:
        assert len(reading_list(session, clock())) == 1


@pytest.mark.parametrize(
    ("originator", "message_id", "is_prior"),
    [
        ("TRIAGE", PRIORS_MOVE, True),
        ("TRIAGE", ORDINARY_MOVE, False),
        ("ANOTHER", PRIORS_MOVE, False),
        (None, None, False),
    ],
)
def test_only_our_own_move_for_priors_brings_priors(
    sqlite_database: Database,
    start_receiver: StartReceiver,
    originator: str | None,
    message_id: int | None,
    *,
    is_prior: bool,
) -> None:
    clock = ManualClock()
    study_id = asked(sqlite_database, clock)
    with sqlite_database.transaction() as session:
        want_priors(session, study_id, [Comparable("1.2.5")], now=clock())
    association = associate(start_receiver(sqlite_database), one := ct_slice("1.2.5"))
    status = association.send_c_store(one, originator_aet=originator, originator_id=message_id)
    association.release()
    assert status.Status == 0
    with sqlite_database.reading() as session:
        found = session.scalars(
            select(StudyRow.is_prior).where(StudyRow.study_instance_uid == "1.2.5")
        )
        assert found.one() is is_prior


def test_a_study_of_its_own_never_becomes_a_prior(database: Database, clock: ManualClock) -> None:
    with database.transaction() as session:
        record_instance(session, received(clock(), study="1.2.5"))
        record_instance(session, received(clock(), study="1.2.5", number=2, is_prior=True))
    with database.reading() as session:
        assert session.scalars(select(StudyRow.is_prior)).all() == [False]
        assert len(reading_list(session, clock())) == 1


def test_a_prior_that_a_person_pulls_is_to_be_read(database: Database, clock: ManualClock) -> None:
    fetched(database, clock)
    with database.transaction() as session:
        ask_to_read(session, "1.2.5", "pulled from pacs", clock())
    with database.reading() as session:
        assert len(reading_list(session, clock())) == 1
        assert texts(database, "reopened") == ["no longer only a prior: pulled from pacs"]


def test_what_was_wanted_before_is_not_forgotten_by_another_search(
    database: Database, clock: ManualClock
) -> None:
    study_id = asked(database, clock)
    one, two = Comparable("1.2.5"), Comparable("1.2.6")
    with database.transaction() as session:
        want_priors(session, study_id, [one], now=clock())
        want_priors(session, study_id, [two, one], now=clock())
    with database.reading() as session:
        found = session.execute(
            select(PriorRow.study_instance_uid).order_by(PriorRow.place)
        ).scalars()
        assert list(found) == ["1.2.6", "1.2.5"]


def test_a_killed_receiver_goes_on_with_the_search_when_it_starts_again(
    tmp_path: Path, sqlite_url: str, sqlite_database: Database
) -> None:
    port = find_free_port()
    with orthanc_with(tmp_path, *history("1.2.5", "20240101")) as (orthanc, pacs):
        orthanc.kill()
        lines = [
            f"{key} = {value!r}" for key, value in pacs.model_dump(exclude_defaults=True).items()
        ]
        (tmp_path / "triage.toml").write_text(
            "[[remotes]]\n" + "\n".join(lines) + "\n[priors]\nremote = 'pacs'\n"
            "maximum_attempts = 20\nretry_s = 0.2\n"
        )
        environment = {
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "TRIAGE_CONFIG": str(tmp_path / "triage.toml"),
            "TRIAGE_DATA_DIRECTORY": str(tmp_path / "data"),
            "TRIAGE_DATABASE__URL": sqlite_url,
            "TRIAGE_RECEIVER__PORT": str(port),
            "TRIAGE_RECEIVER__MINIMUM_FREE_MB": "0",
        }

        def run() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [sys.executable, "-m", "triage.cli", "receive"], env=environment, cwd=tmp_path
            )

        def was_tried() -> bool:
            search = search_of(sqlite_database)
            return search is not None and search.attempts > 0

        first = run()
        wait_until(lambda: accepts(port, present()), "the study is received", timeout_s=60)
        wait_until(was_tried, "the archive was asked in vain", timeout_s=60)
        first.kill()
        first.wait(10)
        orthanc.start()
        second = run()
        try:
            wait_until(lambda: is_finished(sqlite_database), "the priors are here", timeout_s=60)
        finally:
            second.terminate()
            second.wait(30)
    assert prior_studies(sqlite_database) == ["1.2.5"]


def accepts(port: int, dataset: Dataset) -> bool:
    """Send to the receiver at `port` and return whether it has taken the dataset."""
    entity = AE(ae_title="SENDER")
    entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title="TRIAGE")
    if not association.is_established:
        return False
    status = association.send_c_store(dataset)
    association.release()
    return bool(status.Status == 0)
