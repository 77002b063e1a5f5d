"""Where a study is now, what happens next by itself, and what a person has to do."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload

from triage.core.runs import DeliveryState, RunState, StudyState
from triage.core.stages import COUNTING_STAGES
from triage.store.arrivals import ASSOCIATION_IS_DEAD_AFTER, awaited_images
from triage.store.delivery_decisions import pauses
from triage.store.tables import (
    AnalysisRunRow,
    DeliveryRow,
    OpenAssociationRow,
    StudyRow,
)
from triage.store.workers import alive_workers
from triage.worklist.wording import without_series_uids

_NOT_DONE = (RunState.FAILED, RunState.REFUSED, RunState.CANCELLED)


class Whereabouts(BaseModel):
    """Where a study is: `now`, what is `next` by itself, and what a person is `to_do`, if anything.

    `stage` is one word of "receiving", "analysis", "delivery", "reading", "read", "prior",
    "purged".
    """

    model_config = ConfigDict(frozen=True)

    stage: str
    now: str
    next: str = ""
    to_do: str = ""


@dataclass(slots=True)
class _Facts:
    """What it depends on beside the study's own row."""

    open_associations: int = 0
    awaited: str = ""
    runs: list[AnalysisRunRow] = field(default_factory=list)
    deliveries: Counter[DeliveryState] = field(default_factory=Counter)
    dead: list[str] = field(default_factory=list)
    paused: list[str] = field(default_factory=list)
    workers: int = 0


def whereabouts_of(
    session: Session, studies: Sequence[StudyRow], now: datetime
) -> Mapping[int, Whereabouts]:
    """Return where each of the studies is, in a fixed number of queries."""
    facts = _facts(session, studies, now)
    return {study.id: _where(study, facts[study.id], now) for study in studies}


def _facts(session: Session, studies: Sequence[StudyRow], now: datetime) -> dict[int, _Facts]:
    facts: dict[int, _Facts] = defaultdict(_Facts)
    ids = [study.id for study in studies]
    workers = len(alive_workers(session, now))
    for study_id in ids:
        facts[study_id].workers = workers
    for study_id, count in session.execute(
        select(OpenAssociationRow.study_id, func.count())
        .where(
            OpenAssociationRow.study_id.in_(ids),
            OpenAssociationRow.alive_at >= now - ASSOCIATION_IS_DEAD_AFTER,
        )
        .group_by(OpenAssociationRow.study_id)
    ):
        facts[study_id].open_associations = count
    receiving = [study for study in studies if study.state is StudyState.RECEIVING]
    for study_id, said in awaited_images(session, receiving).items():
        facts[study_id].awaited = said
    for run in session.scalars(
        select(AnalysisRunRow)
        .join(StudyRow, StudyRow.id == AnalysisRunRow.study_id)
        .where(
            AnalysisRunRow.study_id.in_(ids),
            AnalysisRunRow.generation == StudyRow.generation,
            AnalysisRunRow.state != RunState.SUPERSEDED,
            AnalysisRunRow.stage.in_(COUNTING_STAGES),
        )
        .options(joinedload(AnalysisRunRow.model))
        .order_by(AnalysisRunRow.id)
    ):
        facts[run.study_id].runs.append(run)
    _add_deliveries(session, ids, facts)
    return facts


def _add_deliveries(session: Session, ids: Sequence[int], facts: Mapping[int, _Facts]) -> None:
    paused = set(pauses(session))
    counted = session.execute(
        select(DeliveryRow.study_id, DeliveryRow.state, DeliveryRow.destination, func.count())
        .where(DeliveryRow.study_id.in_(ids))
        .group_by(DeliveryRow.study_id, DeliveryRow.state, DeliveryRow.destination)
        .order_by(DeliveryRow.destination)
    )
    for study_id, state, destination, count in counted:
        one = facts[study_id]
        one.deliveries[state] += count
        if state is DeliveryState.DEAD:
            one.dead.append(destination)
        elif state is DeliveryState.WAITING and destination in paused:
            one.paused.append(destination)


def _where(study: StudyRow, facts: _Facts, now: datetime) -> Whereabouts:
    """Return the first station that the study has not left, with what is wrong at any of them."""
    where = _station(study, facts, now)
    trouble = _undelivered(facts) if where.stage != "delivery" else ""
    to_do = " ".join(filter(None, (where.to_do, trouble)))
    return where.model_copy(update={"to_do": to_do})


def _station(study: StudyRow, facts: _Facts, now: datetime) -> Whereabouts:
    if study.is_prior:
        return Whereabouts(stage="prior", now="Kept for comparison with a later study only.")
    if study.purged_at is not None and study.state is StudyState.COMPLETE:
        return Whereabouts(
            stage="purged",
            now=f"Its images were deleted: {study.purge_reason or 'by retention'}.",
            next="Sent again, it is analysed again.",
        )
    if study.state is StudyState.RECEIVING:
        return _receiving(facts)
    unfinished = [r for r in facts.runs if r.state in (RunState.PENDING, RunState.RUNNING)]
    if unfinished:
        return _in_analysis(unfinished, facts, now)
    waiting = facts.deliveries[DeliveryState.WAITING] + facts.deliveries[DeliveryState.SENDING]
    if waiting or facts.dead:
        return _in_delivery(waiting, facts)
    if study.read_at is not None:
        return Whereabouts(stage="read", now="Read.", next="Kept until [retention] deletes it.")
    return _to_be_read(study, facts)


def _receiving(facts: _Facts) -> Whereabouts:
    if facts.open_associations:
        now = f"Images are arriving; {_number(facts.open_associations, 'association')} open."
    else:
        now = f"Images have arrived{f'; {facts.awaited}' if facts.awaited else ''}."
    return Whereabouts(
        stage="receiving",
        now=now,
        next="Analysed as soon as it is complete, at the latest after receiver.maximum_age_s.",
        to_do="If the missing images never come, mark it complete." if facts.awaited else "",
    )


def _in_analysis(unfinished: Sequence[AnalysisRunRow], facts: _Facts, now: datetime) -> Whereabouts:
    running = [r for r in unfinished if r.state is RunState.RUNNING]
    if running:
        said = ", ".join(f"{_model(r)} on {r.claimed_by or 'a worker'}" for r in running)
        return Whereabouts(
            stage="analysis",
            now=f"Being analysed: {said}.",
            next="The flag is raised as soon as the model has spoken.",
        )
    waits = ", ".join(_model(r) for r in unfinished)
    until = max(r.available_at for r in unfinished)
    parked = [r for r in unfinished if r.model.parked_until is not None]
    to_do = ""
    if not facts.workers:
        to_do = "No worker is alive: start one with triage work."
    elif parked:
        names = ", ".join(_model(r) for r in parked)
        to_do = f"{names} is parked after failures: see Operations, Parked models."
    wait = " for its priors or its next attempt" if until > now else ""
    return Whereabouts(
        stage="analysis",
        now=f"Waiting{wait}: {waits}.",
        next="The most urgent run is taken first.",
        to_do=to_do,
    )


def _in_delivery(waiting: int, facts: _Facts) -> Whereabouts:
    arrived = facts.deliveries[DeliveryState.DELIVERED]
    still = _number(waiting + facts.deliveries[DeliveryState.DEAD], "delivery", "deliveries")
    return Whereabouts(
        stage="delivery",
        now=f"Analysed; {still} not arrived, {arrived} arrived.",
        next="What waits is tried again by itself." if waiting else "",
        to_do=_undelivered(facts),
    )


def _undelivered(facts: _Facts) -> str:
    said = []
    if facts.dead:
        names = ", ".join(sorted(set(facts.dead)))
        said.append(f"Delivery to {names} has failed for good: mend the cause and send again.")
    if facts.paused:
        names = ", ".join(sorted(set(facts.paused)))
        said.append(f"{names} is paused: resume it.")
    return " ".join(said)


def _to_be_read(study: StudyRow, facts: _Facts) -> Whereabouts:
    missed = [r for r in facts.runs if r.state in _NOT_DONE]
    if not facts.runs:
        now, to_do = "On the worklist; no model was asked.", ""
    elif missed:
        said = "; ".join(f"{_model(r)}: {without_series_uids(r.reason)}" for r in missed)
        now = f"On the worklist; not analysed by {said}."
        failed = any(r.state is RunState.FAILED for r in missed)
        to_do = "Mend the cause and run it again." if failed else ""
    else:
        done = "Analysed, results delivered" if facts.deliveries else "Analysed"
        now, to_do = f"{done}; on the worklist.", ""
    return Whereabouts(
        stage="reading",
        now=now,
        next=f"It is read as {study.priority.label}.",
        to_do=to_do,
    )


def _model(run: AnalysisRunRow) -> str:
    return f"{run.model.name} {run.model.version}"


def _number(count: int, one: str, several: str = "") -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"
