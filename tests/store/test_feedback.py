"""What radiologists say of findings, kept whatever becomes of the run."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from tests.store.lived import add_runs, add_watched_model, every
from tests.store.test_runs import FINDING, LEASE, queue_runs
from tests.tools import ManualClock
from triage.core.agreement import Verdict
from triage.core.runs import RunState
from triage.store.database import Database
from triage.store.feedback import (
    UnknownFindingError,
    agreement_by_finding,
    agreement_by_week,
    feedback_on,
    record_feedback,
)
from triage.store.runs import claim_most_urgent, record_findings, recover_expired_leases
from triage.store.tables import AnalysisRunRow, FindingRow, StudyEventRow
from triage.store.watch import Scores, Window

DAY = timedelta(days=1)


def judged_model(database: Database, clock: ManualClock) -> tuple[int, list[int]]:
    """Return a model and its findings: ten, five of which are present."""
    with database.transaction() as session:
        model = add_watched_model(session, clock() - 30 * DAY)
        add_runs(session, model, every(clock(), 10, timedelta(hours=1)))
        findings = session.scalars(select(FindingRow).order_by(FindingRow.id)).all()
        for number, finding in enumerate(findings):
            finding.present = number < 5
    return model.id, [finding.id for finding in findings]


def say(
    database: Database, clock: ManualClock, finding: int, verdict: str, who: str = "reader 1"
) -> None:
    with database.transaction() as session:
        record_feedback(
            session, finding, who=who, verdict=Verdict(verdict), reason=" because ", now=clock()
        )


def test_the_newest_word_of_each_person_counts(database: Database, clock: ManualClock) -> None:
    _, (finding, *_) = judged_model(database, clock)
    say(database, clock, finding, "agree")
    clock.advance(60)
    say(database, clock, finding, "disagree")
    say(database, clock, finding, "unsure", who="reader 2")
    with database.reading() as session:
        said = feedback_on(session, [finding])[finding]
        history = session.scalars(
            select(StudyEventRow.text).where(StudyEventRow.kind == "feedback")
        ).all()
    assert [(one.who, one.verdict, one.at) for one in said] == [
        ("reader 1", Verdict.DISAGREE, clock()),
        ("reader 2", Verdict.UNSURE, clock()),
    ]
    assert said[0].reason == "because"
    assert history[0] == "head-ct 1.0.0, hemorrhage: reader 1 says agree"
    assert len(history) == 3  # what was said before stays in the study's history


def test_feedback_on_nothing_is_refused(sqlite_database: Database, clock: ManualClock) -> None:
    with pytest.raises(UnknownFindingError, match="no finding 99"):
        say(sqlite_database, clock, 99, "agree")


def test_verdicts_become_counts_of_what_was_right(database: Database, clock: ManualClock) -> None:
    model_id, findings = judged_model(database, clock)
    for finding, verdict in zip(
        findings,
        ["agree", "agree", "disagree", "unsure", "agree", "agree", "disagree"],
        strict=False,
    ):
        say(database, clock, finding, verdict)
    say(database, clock, findings[4], "disagree", who="reader 2")
    window = Window(model_id, clock() - DAY, clock() + DAY)
    with database.reading() as session:
        scores = {"hemorrhage": Scores(runs=10, positives=5)}
        said = agreement_by_finding(session, window, scores, minimum=1)["hemorrhage"]
        weeks = agreement_by_week(session, window)["hemorrhage"]
    judged = said.judged
    assert (judged.true_positives, judged.false_positives) == (2, 1)
    assert (judged.true_negatives, judged.false_negatives) == (1, 1)
    assert judged.undecided == 2
    assert (said.flagged, said.not_flagged) == (5, 5)
    assert said.sensitivity is not None
    monday = clock() - timedelta(days=clock().weekday())
    assert weeks == {f"{monday:%Y-%m-%d}": judged}


def test_feedback_on_a_superseded_run_still_counts(
    sqlite_database: Database, clock: ManualClock
) -> None:
    model_id, (finding, *_) = judged_model(sqlite_database, clock)
    say(sqlite_database, clock, finding, "disagree")
    with sqlite_database.transaction() as session:
        for run in session.scalars(select(AnalysisRunRow)):
            run.state = RunState.SUPERSEDED
    with sqlite_database.reading() as session:
        window = Window(model_id, clock() - DAY, clock() + DAY)
        said = agreement_by_finding(session, window, {}, minimum=1)["hemorrhage"]
    assert said.judged.false_positives == 1


def test_feedback_given_before_a_worker_died_outlives_the_next_attempt(
    database: Database, clock: ManualClock
) -> None:
    queue_runs(database, clock, "ROUTINE")

    def attempt(present: bool) -> None:
        with database.transaction() as session:
            run = claim_most_urgent(session, worker="w", lease=LEASE, now=clock())
            assert run is not None
            found = FINDING.model_copy(update={"present": present})
            record_findings(session, run, [found], input_sha256="0" * 64)

    attempt(present=True)
    with database.reading() as session:
        finding = session.scalars(select(FindingRow.id)).one()
    say(database, clock, finding, "agree")
    clock.advance(LEASE.total_seconds() + 1)
    with database.transaction() as session:
        recover_expired_leases(session, maximum_attempts=3, now=clock())
    attempt(present=False)
    with database.reading() as session:
        row = session.scalars(select(FindingRow)).one()
        said = feedback_on(session, [row.id])[finding]
        model_id = session.scalars(select(AnalysisRunRow.model_id)).one()
        window = Window(model_id, clock() - DAY, clock() + DAY)
        judged = agreement_by_finding(session, window, {}, minimum=1)["hemorrhage"].judged
    assert not row.present
    assert said[0].present  # what it said to the person who agreed
    assert judged.true_positives == 1
