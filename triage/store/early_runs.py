"""Urgent studies are analysed series by series, before they are complete.

The run that a series gets early is an ordinary one. When the study completes, it stands if the
model would get the very same instances, and is superseded otherwise; the priority that it raised
stays either way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session, lazyload

from triage.core.completeness import Bounds, QuietPeriods, series_is_enough
from triage.core.priority import Priority
from triage.core.runs import StudyState
from triage.store.arrivals import load_arrivals
from triage.store.studies import (
    WantedRun,
    identity_of,
    live_runs,
    lock_runs,
    lock_studies,
    queue_run,
    supersede_run,
    wanted_runs,
)
from triage.store.tables import SeriesRow, StudyRow

_MOST_AT_ONCE = 100
# Built once: a few times a second is often enough to count.
_URGENT = (
    select(StudyRow)
    .where(
        StudyRow.state == StudyState.RECEIVING,
        StudyRow.priority == Priority.STAT,
        StudyRow.is_prior.is_(False),
    )
    .options(lazyload(StudyRow.patient))
    .order_by(StudyRow.last_instance_at, StudyRow.id)
    .limit(_MOST_AT_ONCE)
)


def studies_with_enough(
    session: Session, quiet: QuietPeriods, now: datetime, bounds: Bounds | None = None
) -> list[int]:
    """Return the urgent studies with a series that is enough and was not yet considered so."""
    studies = session.scalars(_URGENT).all()
    if not studies:
        return []
    enough = _enough_series(session, studies, quiet, now, bounds)
    return [study.id for study in studies if enough[study.id]]


def queue_early_runs(
    session: Session, quiet: QuietPeriods, now: datetime, bounds: Bounds | None = None
) -> list[int]:
    """Queue a run for each model whose series of an urgent study is enough; return the studies."""
    locked = lock_studies(session, studies_with_enough(session, quiet, now, bounds))
    enough = _enough_series(session, locked, quiet, now, bounds)
    queued = []
    for study in locked:
        series = enough[study.id]
        if study.state is not StudyState.RECEIVING or not series:
            continue
        if lock_runs(session, study.id) and _queue(session, study, series, now):
            queued.append(study.id)
    return queued


def _enough_series(
    session: Session,
    studies: Sequence[StudyRow],
    quiet: QuietPeriods,
    now: datetime,
    bounds: Bounds | None,
) -> dict[int, dict[int, tuple[int, str]]]:
    """Return for each study the series that are enough: their images, and why."""
    arrivals = load_arrivals(session, studies, now)
    rows = session.execute(
        select(
            SeriesRow.study_id,
            SeriesRow.series_instance_uid,
            SeriesRow.id,
            SeriesRow.considered_images,
        ).where(SeriesRow.study_id.in_([study.id for study in studies]))
    )
    known = {(study_id, uid): (row_id, images) for study_id, uid, row_id, images in rows}
    enough: dict[int, dict[int, tuple[int, str]]] = {study.id: {} for study in studies}
    for study_id, arrival in arrivals.items():
        for one in arrival.series:
            row_id, considered = known[study_id, one.series_instance_uid]
            if one.held == considered:
                continue
            reason = series_is_enough(one, arrival, quiet, now, bounds)
            if reason is not None:
                enough[study_id][row_id] = (one.held, reason)
    return enough


def _queue(
    session: Session, study: StudyRow, enough: Mapping[int, tuple[int, str]], now: datetime
) -> bool:
    for series_id, (held, _) in enough.items():
        session.execute(
            update(SeriesRow).where(SeriesRow.id == series_id).values(considered_images=held)
        )
    live = live_runs(session, study.id)
    considered = _considered_images(session, study.id)
    due = []
    for want in wanted_runs(session, study):
        # One that failed on these images is tried again only when the study is complete.
        if _is_enough(want, enough, considered) and not want.is_on_input_of(
            live.get(want.model.id)
        ):
            due.append(want)
    if not due:
        return False
    study.generation += 1
    for want in due:
        earlier = live.pop(want.model.id, None)
        if earlier is not None:
            supersede_run(session, earlier, "more images of the study arrived", now)
    for run in live.values():  # what other models said still holds
        run.generation = study.generation
    for want in due:
        reason = next(enough[one.series_id][1] for one in want.inputs if one.series_id in enough)
        early = f"queued for {identity_of(want.model)} before the study is complete"
        text = f"{early}: {reason}; {want.reason}"
        queue_run(session, study, want, text, now)
    return True


def _considered_images(session: Session, study_id: int) -> dict[int, int]:
    rows = session.execute(
        select(SeriesRow.id, SeriesRow.considered_images).where(SeriesRow.study_id == study_id)
    )
    return {row.id: row.considered_images for row in rows}


def _is_enough(
    want: WantedRun, enough: Mapping[int, tuple[int, str]], considered: Mapping[int, int]
) -> bool:
    """Return whether a series that is enough now lets the model begin.

    Its other series must be enough too, now or before; the priors that are here are. While others
    may come, the run is left for the study's completion, which waits for them.
    """
    if want.waits_for_prior or not any(one.series_id in enough for one in want.inputs):
        return False
    return all(
        considered.get(one.series_id, len(one.series.instances)) >= len(one.series.instances)
        for one in want.inputs
    )
