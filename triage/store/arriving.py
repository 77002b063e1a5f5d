"""Images of studies that are not complete yet, of series that a model may get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from triage.core.conditions import refusal_of
from triage.core.manifest import InputSpec, ModelManifest, Range
from triage.core.runs import RunState, StudyState
from triage.core.studies import Instance, Series
from triage.store.code_approvals import runnable_models
from triage.store.tables import AnalysisRunRow, InstanceRow, SeriesRow, StudyRow

_UNFINISHED = (RunState.PENDING, RunState.RUNNING)


@dataclass(frozen=True, slots=True)
class ArrivingImage:
    """A stored image of a study that still arrives; `path` is as `InstanceRow.path`."""

    study_id: int
    sop_instance_uid: str
    path: str


def newest_instance(session: Session) -> int:
    """Return the number of the newest index row, 0 where there is none."""
    return session.scalars(select(func.max(InstanceRow.id))).one() or 0


def arriving_images(
    session: Session, *, after: int, limit: int
) -> tuple[Sequence[ArrivingImage], int]:
    """Return images indexed after row `after` that a model may get, and how far was looked.

    Several receivers commit their rows in an order of their own, so one may be passed over.
    Whether a model would take the series in the end is not known before it is whole; asked is
    what each image says for itself.
    """
    newest = newest_instance(session)
    if newest == after:
        return (), after
    rows = session.execute(
        select(InstanceRow, SeriesRow.study_id, SeriesRow.modality)
        .join(SeriesRow, InstanceRow.series_id == SeriesRow.id)
        .join(StudyRow, SeriesRow.study_id == StudyRow.id)
        .where(
            InstanceRow.id > after,
            InstanceRow.id <= newest,
            InstanceRow.conflicts_with.is_(None),
            InstanceRow.purged_at.is_(None),
            SeriesRow.is_result.is_(False),
            StudyRow.state == StudyState.RECEIVING,
            StudyRow.is_prior.is_(False),
        )
        .order_by(InstanceRow.id)
        .limit(limit)
    ).all()
    looked_at = rows[-1][0].id if len(rows) == limit else newest
    accepting = _accepted(session) if rows else []
    images = [
        ArrivingImage(study_id, row.sop_instance_uid, row.path)
        for row, study_id, modality in rows
        if _is_wanted(row, modality, accepting)
    ]
    return images, looked_at


def settled_studies(session: Session, study_ids: frozenset[int]) -> frozenset[int]:
    """Return those of `study_ids` that are complete and have no run that is still to be done."""
    unfinished = exists().where(
        AnalysisRunRow.study_id == StudyRow.id, AnalysisRunRow.state.in_(_UNFINISHED)
    )
    active = session.scalars(
        select(StudyRow.id).where(
            StudyRow.id.in_(study_ids),
            (StudyRow.state == StudyState.RECEIVING) | unfinished,
        )
    )
    return study_ids - set(active)


def _accepted(session: Session) -> list[InputSpec]:
    return [
        # Of a series that still arrives, its count, its gaps and expressions over it say nothing.
        one.accepts.model_copy(
            update={"images": Range(), "slice_spacing_mm": Range(), "when": None, "must_state": ()}
        )
        for model in runnable_models(session)
        for one in ModelManifest.model_validate(model.manifest).inputs
        if one.source == "study"
    ]


def _is_wanted(row: InstanceRow, modality: str, accepting: Sequence[InputSpec]) -> bool:
    image = Instance(
        sop_instance_uid=row.sop_instance_uid,
        sop_class_uid=row.sop_class_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        path=row.path,
        headers=row.headers,
    )
    series = Series("", modality, (image,))
    try:
        return any(refusal_of(series, accepts) is None for accepts in accepting)
    except (ValueError, TypeError, ArithmeticError, LookupError):
        return False  # routing states the reason when the study is complete
