"""What is known about the registered models: versions, health, history, evaluations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from triage.core.manifest import ModelManifest
from triage.core.runs import RunState
from triage.core.stages import Stage
from triage.models.stages import versions_of
from triage.store.code_approvals import waiting_digests
from triage.store.model_tables import (
    ModelAlertRow,
    ModelEvaluationRow,
    ModelEventRow,
    ModelRow,
)
from triage.store.tables import AnalysisRunRow

_COUNTED_FOR = timedelta(days=1)
_NEWEST_EVENTS = 200


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class ModelHealth(_View):
    """How a version does: its runs of the last day by state, and what is wrong with it."""

    runs: dict[str, int]
    is_parked: bool
    parked_reason: str
    alerts: tuple[str, ...]

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.is_parked or self.alerts or self.runs.get("failed"))


class ModelVersion(_View):
    """A registered version as a list shows it."""

    name: str
    version: str
    title: str
    notice: str
    stage: Stage
    share: float
    signed_by: str
    waits_for_approval: bool
    registered_at: datetime
    health: ModelHealth


class ModelEvent(_View):
    """What was done with a version: by whom, when and why."""

    at: datetime
    version: str
    who: str
    action: str
    from_stage: str
    to_stage: str
    share: float | None
    reason: str


class ModelEvaluation(_View):
    """An evaluation on a labelled set, with the figures as they were written."""

    evaluation_id: int
    version: str
    at: datetime
    who: str
    labels_name: str
    figures: dict[str, Any]


class Model(_View):
    """A model: its versions, newest first, what they say of themselves, and their past."""

    name: str
    title: str
    versions: tuple[ModelVersion, ...]
    manifests: dict[str, Any]
    in_words: dict[str, tuple[str, ...]]
    events: tuple[ModelEvent, ...]
    evaluations: tuple[ModelEvaluation, ...]


def list_models(session: Session, now: datetime) -> list[ModelVersion]:
    """Return all registered versions: by name, the newest first."""
    rows = session.scalars(select(ModelRow).order_by(ModelRow.name)).all()
    newest_first = sorted(rows, key=_number, reverse=True)
    return _version_views(session, sorted(newest_first, key=lambda row: row.name), now)


def show_model(session: Session, name: str, now: datetime) -> Model:
    """Return all that is known about a model.

    Raises:
        UnknownModelError: there is no model of that name.
    """
    rows = versions_of(session, name)
    version_of = {row.id: row.version for row in rows}
    manifests = {row.version: ModelManifest.model_validate(row.manifest) for row in rows}
    return Model(
        name=name,
        title=leading(rows).manifest["title"],
        versions=tuple(_version_views(session, rows, now)),
        manifests={row.version: row.manifest for row in rows},
        in_words={version: in_words(manifest) for version, manifest in manifests.items()},
        events=_events(session, version_of),
        evaluations=_evaluations(session, version_of),
    )


def in_words(manifest: ModelManifest) -> tuple[str, ...]:
    """Return what a manifest says, a sentence for each part."""
    accepts = manifest.accepts
    body = f" of {', '.join(p.lower() for p in accepts.body_parts)}" if accepts.body_parts else ""
    findings = "; ".join(
        f"{f.code.meaning} from confidence {f.threshold:g} on, priority {f.priority.label}"
        for f in manifest.findings
    )
    runner = manifest.runner
    return (
        manifest.intended_use,
        f"Accepts {', '.join(accepts.modalities)}{body}.",
        f"Looks for: {findings}.",
        f"Runs as {runner.kind}, at most {runner.time_limit_s:g} s a study.",
        f"Leaves {', '.join(manifest.results.objects)}. Licence {manifest.licence}.",
    )


def leading(rows: Sequence[ModelRow]) -> ModelRow:
    """Return the version that speaks for the model: the one in production, or the newest."""
    return next((row for row in rows if row.stage is Stage.PRODUCTION), rows[0])


def _number(row: ModelRow) -> tuple[int, ...]:
    return tuple(map(int, row.version.split(".")))


def _version_views(session: Session, rows: Sequence[ModelRow], now: datetime) -> list[ModelVersion]:
    runs = _runs_of_the_day(session, now)
    alerts = _alerts(session)
    waiting = waiting_digests(session)
    return [
        ModelVersion(
            name=row.name,
            version=row.version,
            title=str(row.manifest.get("title", "")),
            notice=str(row.manifest.get("notice", "")),
            stage=row.stage,
            share=row.share,
            signed_by=row.signed_by,
            waits_for_approval=row.package_sha256 in waiting,
            registered_at=row.registered_at,
            health=ModelHealth(
                runs={state.value: runs[row.id][state] for state in RunState},
                is_parked=row.parked_until is not None and row.parked_until > now,
                parked_reason=row.parked_reason,
                alerts=alerts.get(row.id, ()),
            ),
        )
        for row in rows
    ]


def _runs_of_the_day(session: Session, now: datetime) -> Mapping[int, Mapping[RunState, int]]:
    counted: dict[int, dict[RunState, int]] = defaultdict(lambda: defaultdict(int))
    for model_id, state, count in session.execute(
        select(AnalysisRunRow.model_id, AnalysisRunRow.state, func.count())
        .where(AnalysisRunRow.created_at >= now - _COUNTED_FOR)
        .group_by(AnalysisRunRow.model_id, AnalysisRunRow.state)
    ):
        counted[model_id][state] = count
    return counted


def _alerts(session: Session) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    for row in session.scalars(
        select(ModelAlertRow).where(ModelAlertRow.cleared_at.is_(None)).order_by(ModelAlertRow.id)
    ):
        found[row.model_id] = (*found.get(row.model_id, ()), row.text)
    return found


def _events(session: Session, version_of: Mapping[int, str]) -> tuple[ModelEvent, ...]:
    rows = session.scalars(
        select(ModelEventRow)
        .where(ModelEventRow.model_id.in_(version_of))
        .order_by(ModelEventRow.id.desc())
        .limit(_NEWEST_EVENTS)
    )
    return tuple(
        ModelEvent(
            at=row.at,
            version=version_of[row.model_id],
            who=row.who,
            action=row.action,
            from_stage=row.from_stage,
            to_stage=row.to_stage,
            share=row.share,
            reason=row.reason,
        )
        for row in rows
    )


def _evaluations(session: Session, version_of: Mapping[int, str]) -> tuple[ModelEvaluation, ...]:
    rows = session.scalars(
        select(ModelEvaluationRow)
        .where(ModelEvaluationRow.model_id.in_(version_of))
        .order_by(ModelEvaluationRow.id.desc())
    )
    return tuple(_evaluation(row, version_of[row.model_id]) for row in rows)


def _evaluation(row: ModelEvaluationRow, version: str) -> ModelEvaluation:
    return ModelEvaluation(
        evaluation_id=row.id,
        version=version,
        at=row.at,
        who=row.who,
        labels_name=row.labels_name,
        figures=row.figures,
    )


def add_evaluation(
    session: Session,
    model: ModelRow,
    figures: Mapping[str, Any],
    *,
    labels_name: str,
    who: str,
    at: datetime,
) -> ModelEvaluationRow:
    """Remember an evaluation of a version."""
    row = ModelEvaluationRow(
        model_id=model.id,
        at=at,
        who=who[:128],
        labels_name=labels_name[:256],
        figures=dict(figures),
    )
    session.add(row)
    session.flush()
    return row


def registered_with(session: Session, name: str, package_sha256: str) -> ModelRow | None:
    """Return the version of a model whose package has this digest, or None."""
    return session.scalar(
        select(ModelRow).where(ModelRow.name == name, ModelRow.package_sha256 == package_sha256)
    )
