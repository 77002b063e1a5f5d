"""Where a canary does not answer, the version in production does."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.runs import RunState
from triage.core.stages import Stage
from triage.store.history import note
from triage.store.model_tables import ModelRow
from triage.store.studies import identity_of, live_runs, queue_run, want_of
from triage.store.tables import AnalysisRunRow, StudyRow


def ask_production_for_parked(session: Session, now: datetime) -> None:
    """Queue for production what waits for a canary that was parked after it was queued."""
    waiting = session.scalars(
        select(AnalysisRunRow)
        .join(ModelRow, ModelRow.id == AnalysisRunRow.model_id)
        .where(
            AnalysisRunRow.state == RunState.PENDING,
            AnalysisRunRow.stage == Stage.CANARY,
            ModelRow.parked_until.is_not(None),
        )
        .order_by(AnalysisRunRow.id)
        .with_for_update(skip_locked=True, of=AnalysisRunRow)
    ).all()
    for run in waiting:
        ask_production(session, run, now)


def ask_production(session: Session, run: AnalysisRunRow, now: datetime) -> None:
    """Queue the study of a canary's run, which failed or was refused, for production as well.

    A run of another stage, and a study that production was asked about already, are left alone.
    """
    if run.stage is not Stage.CANARY:
        return
    model = session.scalar(
        select(ModelRow).where(ModelRow.name == run.model.name, ModelRow.stage == Stage.PRODUCTION)
    )
    if model is None:
        return
    study = session.scalars(
        select(StudyRow)
        .where(StudyRow.id == run.study_id)
        .with_for_update(key_share=True, of=StudyRow)
        .execution_options(populate_existing=True)
    ).one()
    if model.id in live_runs(session, study.id):
        return
    want = want_of(session, study, model)
    identity = identity_of(model)
    if want.series is None:
        note(session, study.id, "not-routed", f"{identity}: {want.reason}", at=now)
        return
    text = f"queued for {identity}, because the canary {identity_of(run.model)} did not answer"
    queue_run(session, study, want, text, now)
