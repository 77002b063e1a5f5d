"""What a simulation begins with: counts and times of what came and was read."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from sqlalchemy import select

from tests.store.lived import add_runs, add_watched_model, every
from tests.tools import ManualClock
from triage.core.agreement import Verdict
from triage.core.priority import Priority
from triage.core.runs import RunState
from triage.core.workitems import StepPriority, StepState
from triage.simulation.history import ReadingHistory, fit_scenario
from triage.simulation.scenario import ScenarioError
from triage.store.database import Database
from triage.store.feedback import record_feedback
from triage.store.reading_history import reading_history
from triage.store.tables import AnalysisRunRow, FindingRow, StudyRow
from triage.store.workitem_tables import WorkitemRow

MINUTE = timedelta(minutes=1)
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def now(database: Database, clock: ManualClock) -> datetime:
    """A moment after ten days with 240 studies; each tenth is STAT, each 12th run failed."""
    now = clock()
    with database.transaction() as session:
        model = add_watched_model(session, now - timedelta(days=11))
        add_runs(
            session,
            model,
            every(now, 240, timedelta(hours=1)),
            rate=0.2,
            changes=lambda n: {"state": RunState.FAILED} if n % 12 == 0 else {},
        )
        for number, study in enumerate(session.scalars(select(StudyRow).order_by(StudyRow.id))):
            study.order_priority = Priority.STAT if number % 10 == 0 else Priority.ROUTINE
            study.first_instance_at -= 4 * MINUTE
    return now


def history(database: Database, now: datetime, minimum: int = 20) -> ReadingHistory:
    with database.reading() as session:
        return reading_history(session, 30, minimum_judged=minimum, now=now)


def read_in_a_row(database: Database, now: datetime, minutes: float) -> None:
    """Let all studies be read after they came, one every `minutes`."""
    with database.transaction() as session:
        for number, study in enumerate(session.scalars(select(StudyRow).order_by(StudyRow.id))):
            study.read_at = now + number * minutes * MINUTE


def claim(database: Database, now: datetime, count: int, minutes: int) -> None:
    """Let workitems of studies be completed, each after so many minutes."""
    with database.transaction() as session:
        studies = session.scalars(select(StudyRow).order_by(StudyRow.id).limit(count))
        for study in studies:
            performed = {
                "00404050": {"vr": "DT", "Value": [f"{now:%Y%m%d%H%M%S}"]},
                "00404051": {"vr": "DT", "Value": [f"{now + minutes * MINUTE:%Y%m%d%H%M%S}.5"]},
            }
            session.add(
                WorkitemRow(
                    sop_instance_uid=f"2.25.{study.id}",
                    study_id=study.id,
                    state=StepState.COMPLETED,
                    priority=StepPriority.MEDIUM,
                    attributes={"00741216": {"vr": "SQ", "Value": [performed]}},
                    created_at=now,
                    finished_at=now,
                )
            )


def judge(database: Database, now: datetime, *, wrong_flags: int, missed: int) -> None:
    """Let 30 flagged and 60 other statements be judged, some of either as wrong."""
    with database.transaction() as session:
        for present, count, wrong in ((True, 30, wrong_flags), (False, 60, missed)):
            rows = session.scalars(
                select(FindingRow.id)
                .join(AnalysisRunRow)
                .where(FindingRow.present.is_(present))
                .order_by(FindingRow.id)
                .limit(count)
            ).all()
            for number, finding in enumerate(rows):
                said = Verdict.DISAGREE if number < wrong else Verdict.AGREE
                record_feedback(
                    session, finding, who="Reader", verdict=said, reason="", now=now - MINUTE
                )


def test_arrivals_orders_and_the_models_turnaround_are_counted(
    database: Database, now: datetime
) -> None:
    seen = history(database, now)
    assert seen.studies == 240
    assert seen.days == pytest.approx(10, abs=0.1)
    assert max(seen.arrivals) - min(seen.arrivals) <= 2  # one an hour
    assert seen.orders == {Priority.STAT: 24, Priority.ROUTINE: 216}
    (model,) = seen.models
    assert (model.studies, model.answered) == (240, 220)
    assert model.turnaround_min == pytest.approx(4, abs=0.5)
    assert {one.key for one in model.findings} == {"hemorrhage"}


@ON_SQLITE
def test_reading_time_is_that_of_claims_before_that_of_marks(
    database: Database, now: datetime
) -> None:
    assert history(database, now).gaps_min == ()
    read_in_a_row(database, now, minutes=7)
    seen = history(database, now)
    assert len(seen.gaps_min) == 239
    fit = fit_scenario(seen)
    assert fit.scenario.studies[0].reading.mean_min == pytest.approx(7, abs=0.1)
    together = fit_scenario(seen, readers=2)
    assert together.scenario.studies[0].reading.mean_min == pytest.approx(14, abs=0.1)
    claim(database, now, count=25, minutes=5)
    fit = fit_scenario(history(database, now))
    assert fit.scenario.studies[0].reading.mean_min == pytest.approx(5, abs=0.1)
    assert "25 workitems" in " ".join(note.text for note in fit.notes if note.is_known)


@ON_SQLITE
def test_breaks_are_no_reading_times(database: Database, now: datetime) -> None:
    read_in_a_row(database, now, minutes=90)
    assert history(database, now).gaps_min == ()


@ON_SQLITE
def test_performance_is_that_of_feedback_where_there_is_enough(
    database: Database, now: datetime
) -> None:
    judge(database, now, wrong_flags=6, missed=3)
    seen = history(database, now)
    finding = seen.models[0].findings[0]
    fit = fit_scenario(seen)
    disease = fit.scenario.studies[0].diseases[0]
    right, missed = finding.flagged * 0.8, finding.not_flagged * 0.05
    assert disease.ai is not None
    assert disease.prevalence == pytest.approx((right + missed) / 220)
    assert disease.ai.sensitivity == pytest.approx(right / (right + missed))
    assert disease.ai.specificity == pytest.approx(
        finding.not_flagged * 0.95 / (finding.not_flagged * 0.95 + finding.flagged * 0.2)
    )
    assert disease.ai.answers == pytest.approx(220 / 240)
    assert any("Begg" in note.text for note in fit.notes if note.is_known)


@ON_SQLITE
def test_what_is_not_known_is_assumed_and_said(database: Database, now: datetime) -> None:
    judge(database, now, wrong_flags=6, missed=3)
    fit = fit_scenario(history(database, now, minimum=1000))
    assumed = {note.field for note in fit.notes if not note.is_known}
    assert assumed == {
        "studies.reading",
        "head-ct 1.0.0: hemorrhage",
        "readers",
        "interrupting_from",
    }
    told = fit_scenario(history(database, now), readers=3)
    assert told.scenario.readers == 3
    assert "readers" not in {note.field for note in told.notes if not note.is_known}


@ON_SQLITE
def test_priors_do_not_count_and_too_little_is_refused(database: Database, now: datetime) -> None:
    with database.transaction() as session:
        for study in session.scalars(select(StudyRow)):
            study.is_prior = True
    with pytest.raises(ScenarioError, match="0 studies came") as refused:
        fit_scenario(history(database, now))
    assert refused.value.field == "from_history"
