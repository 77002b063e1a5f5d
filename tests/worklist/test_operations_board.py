"""The board and a study's life are read from both databases alike."""

from __future__ import annotations

from datetime import timedelta

from tests.store.rows import add_model, received
from tests.tools import ManualClock
from triage.core.commitment import CommitmentState
from triage.core.devices import DeviceState
from triage.core.priority import Priority
from triage.core.priors import SearchState
from triage.core.runs import DeliveryKind, DeliveryState
from triage.core.visits import Ending, Way
from triage.store.database import Database
from triage.store.delivery_decisions import Decision
from triage.store.outbox import claim_due_delivery, mark_delivered, mark_not_delivered
from triage.store.prioritising import raise_ai_priority
from triage.store.runs import claim_most_urgent, complete_run
from triage.store.studies import hold_open, record_instance
from triage.store.study_actions import complete_now
from triage.store.tables import (
    ArchiveCountRow,
    ArrivalSignalRow,
    CommitmentRow,
    DeliveryRow,
    PriorSearchRow,
)
from triage.store.visits import (
    Caller,
    RefusedCaller,
    VisitPart,
    record_refused_callers,
    record_visit_parts,
)
from triage.store.workers import Heartbeat, beat
from triage.worklist.lifeline import StudyLife, study_life
from triage.worklist.operations_board import Reachability, board

AROUND = Reachability(
    version="0.1.0",
    prefect="",
    prefect_is_reached=True,
    free_bytes=10**12,
    minimum_free_bytes=10**9,
)


def visit(database: Database, clock: ManualClock, ended: Ending, study_id: int | None = 1) -> None:
    """Let CT1 send a gigabyte."""
    part = VisitPart(
        Caller("CT1", "192.0.2.1", Way.DICOM_TLS),
        study_id=study_id,
        is_first=True,
        instances=10,
        refused=1,
        size_bytes=10**9,
        began_at=clock(),
        last_at=clock.advance(10),
        ended=ended,
        last_error="0xA700 disk is full",
    )
    with database.transaction() as session:
        record_visit_parts(session, [part])


def life_of(database: Database, clock: ManualClock) -> StudyLife:
    with database.reading() as session:
        life = study_life(session, "1.2.3", clock())
    assert life is not None
    return life


def test_visit_is_open_as_long_as_its_receiver_says_so(
    database: Database, clock: ManualClock
) -> None:
    with database.transaction() as session:
        study_id = record_instance(session, received(clock())).study_id
        hold_open(session, study_id, association="a", receiver="r", now=clock())
    visit(database, clock, Ending.OPEN, study_id)
    said = "10 images, 1000.0 MB; 1 refused, the last with 0xA700 disk is full"
    assert life_of(database, clock).lanes[0].bars[0].text == f"{said}; still open"
    clock.advance(600)  # nobody has renewed it: the receiver was killed
    assert life_of(database, clock).lanes[0].bars[0].text == f"{said}; connection lost"


def test_life_has_a_line_for_all_that_happened(database: Database, clock: ManualClock) -> None:
    with database.transaction() as session:
        add_model(session, clock())
        study_id = record_instance(session, received(clock())).study_id
    visit(database, clock, Ending.RELEASED, study_id)
    with database.transaction() as session:
        session.add(
            ArrivalSignalRow(
                source="MPPS",
                sop_instance_uid="1.9",
                study_instance_uid="1.2.3",
                state="completed",
                created_at=clock(),
                updated_at=clock(),
            )
        )
        session.add(
            ArchiveCountRow(
                study_id=study_id,
                next_question_at=clock(),
                answered_at=clock(),
                instances=10,
            )
        )
        session.add(
            PriorSearchRow(
                study_id=study_id,
                remote="archive",
                state=SearchState.DONE,
                wait_s=5,
                next_attempt_at=clock(),
                said="1 of 2 priors came",
                created_at=clock(),
                finished_at=clock(),
            )
        )
        complete_now(session, "1.2.3", Decision("A. Grey", clock(), "no more come"))
        run = claim_most_urgent(session, worker="w", lease=timedelta(seconds=60), now=clock())
        assert run is not None
        raise_ai_priority(session, study_id, Priority.STAT, "a finding", at=clock())
        timings = {"decode": 1.0, "infer": 2.0, "interpret": 0.5, "results": 0.5}
        complete_run(session, run, "a finding", timings_s=timings, now=clock.advance(5))
        for state in (DeliveryState.DELIVERED, DeliveryState.DEAD):
            session.add(
                DeliveryRow(
                    kind=DeliveryKind.RESULT,
                    subject=f"result:{state}",
                    destination="ris",
                    lane=str(study_id),
                    study_id=study_id,
                    run_id=run.run_id,
                    state=state,
                    attempts=2,
                    next_attempt_at=clock(),
                    delivered_at=clock() if state is DeliveryState.DELIVERED else None,
                    last_error="away",
                )
            )
        session.add(
            CommitmentRow(
                study_id=study_id,
                archive="archive",
                sop_class_uid="1.2",
                sop_instance_uid="1.2.3.1.1",
                state=CommitmentState.COMMITTED,
                next_attempt_at=clock(),
                committed_at=clock(),
            )
        )
    life = life_of(database, clock)
    assert [(lane.group, lane.name) for lane in life.lanes] == [
        ("Arrival", "CT1, DICOM over TLS from 192.0.2.1"),
        ("Arrival", "until complete"),
        ("Arrival", "announced"),
        ("Arrival", "priors from archive"),
        ("Analysis", "head-ct 1.0.0"),
        ("Reading", "priority"),
        ("Delivery", "to ris"),
        ("Delivery", "commitment of archive"),
    ]
    run_bars = life.lanes[4].bars
    assert [bar.tone.value for bar in run_bars] == ["decode", "infer", "interpret", "results"]
    assert run_bars[-1].end - run_bars[0].start == timedelta(seconds=4)
    assert life.where.stage == "delivery"
    assert life.where.to_do == "Delivery to ris has failed for good: mend the cause and send again."


def test_life_shows_each_attempt_to_deliver_with_its_answer(
    database: Database, clock: ManualClock
) -> None:
    with database.transaction() as session:
        row = DeliveryRow(
            kind=DeliveryKind.RESULT,
            subject="result:1",
            destination="ris",
            lane="1",
            study_id=record_instance(session, received(clock())).study_id,
            next_attempt_at=clock(),
        )
        session.add(row)
    begun = clock()
    for answer in ("no answer", "HTTP 503", ""):
        with database.transaction() as session:
            due = claim_due_delivery(session, lease=timedelta(seconds=60), now=clock.advance(600))
            assert due is not None
            if answer:
                wait = timedelta(seconds=60)
                mark_not_delivered(session, due, answer, retry_after=wait, now=clock())
            else:
                mark_delivered(session, due, now=clock())
    life = life_of(database, clock)
    said = [(event.at - begun, event.text) for event in life.events if "ris" in event.text]
    assert said == [
        (timedelta(minutes=10), "Result notice to ris, attempt 1: no answer"),
        (timedelta(minutes=20), "Result notice to ris, attempt 2: HTTP 503"),
        (timedelta(minutes=30), "Result notice delivered to ris, attempt 3"),
    ]
    (lane,) = [lane for lane in life.lanes if lane.group == "Delivery"]
    assert [(bar.start - begun, bar.tone.value) for bar in lane.bars] == [
        (timedelta(minutes=30), "done"),
        (timedelta(minutes=10), "failed"),
        (timedelta(minutes=20), "failed"),
    ]


def test_board_of_a_quiet_and_of_a_busy_installation(
    database: Database, clock: ManualClock
) -> None:
    with database.reading() as session:
        quiet = board(session, clock(), AROUND)
    assert (quiet.intake.senders, quiet.running, quiet.workers) == ((), (), ())
    assert quiet.disk.text == "nothing came in the last week"
    visit(database, clock, Ending.ABORTED, None)
    with database.transaction() as session:
        add_model(session, clock())
        record_instance(session, received(clock()))
        complete_now(session, "1.2.3", Decision("A. Grey", clock(), "no more come"))
        device = DeviceState(name="cpu", busy=0.5)
        beat(session, "w", Heartbeat("cpu", "a 1, b 2", devices=[device]), now=clock())
        record_refused_callers(session, [RefusedCaller("X", "192.0.2.8", "unknown", 3, clock())])
        beat(session, "late", Heartbeat("cpu", ""), now=clock() - timedelta(seconds=90))
    with database.reading() as session:
        busy = board(session, clock(), AROUND)
    (sender,) = busy.intake.senders
    assert (sender.today, sender.last_hour, sender.refused, sender.broken) == (10, 10, 1, 1)
    assert busy.disk.days_left == 999
    assert [(w.is_alive, w.warm_models) for w in busy.workers] == [
        (True, ("a 1", "b 2")),
        (False, ()),
    ]
    assert busy.workers[0].devices[0].busy == 0.5
    runs = next(queue for queue in busy.queues if queue.name == "runs waiting")
    assert (runs.length, runs.text) == (1, "no run was completed in the last day to measure by")
    with database.transaction() as session:
        assert claim_most_urgent(session, worker="w", lease=timedelta(seconds=60), now=clock())
    with database.reading() as session:
        (running,) = board(session, clock(), AROUND).running
    assert (running.worker, running.attempt) == ("w", 1)
