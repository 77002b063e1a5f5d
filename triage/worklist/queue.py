"""The reading list: the studies to be read, in the order in which they should be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from triage.core.findings import Finding
from triage.core.manifest import PriorityName
from triage.core.orders import patient_class_in_words
from triage.core.priority import Priority
from triage.core.runs import RunState, StudyState
from triage.core.stages import COUNTING_STAGES
from triage.store.arrivals import awaited_images
from triage.store.chunks import chunks
from triage.store.claims import Claim, claims_on, studies_claimed
from triage.store.model_tables import ModelRow
from triage.store.raises import raised_by
from triage.store.tables import AnalysisRunRow, FindingRow, StudyEventRow, StudyRow
from triage.store.withdrawals import withdrawals_of
from triage.store.worklist_tables import ReadingClaimRow
from triage.worklist.filters import (
    TO_READ,
    WAS_READ,
    WorklistFilter,
    conditions_of,
)
from triage.worklist.search import conditions_of_text
from triage.worklist.status import RunFacts, StudyFacts, StudyStatus, status_of
from triage.worklist.tally import Tally, WorklistCounts, tally_worklist
from triage.worklist.viewer import Viewer
from triage.worklist.wording import calendar_date, patient_identifier, person_name

PAGE_SIZE = 100
COUNTED_TO = 1000
"""How far studies are counted that no index can count."""
EVERYTHING = WorklistFilter()
READING_ORDER = (StudyRow.priority.desc(), StudyRow.ranked_at, StudyRow.id)
_CHANGES_ARE_SHOWN_FOR = timedelta(days=2)


class FindingChip(BaseModel):
    """A finding that is present, as a line of the list shows it; `said` is it in words."""

    model_config = ConfigDict(frozen=True)

    title: str
    said: str
    priority: PriorityName
    model: str


class WorklistEntry(BaseModel):
    """A line of the reading list.

    `raised_by` is what puts it above its order: "AI", a person's name, "policy", or "". `due_at`
    is when it should be read by, `claimed_until` when a claim runs out, which is None for the
    performer of its workitem. `key_image_uid` is the SOP Instance UID of the image that shows its
    most urgent finding best.
    """

    model_config = ConfigDict(frozen=True)

    place: int
    study_instance_uid: str
    priority: PriorityName
    order_priority: PriorityName
    is_flagged: bool
    reason: str
    notices: tuple[str, ...]
    waiting_since: datetime
    waiting_s: float
    patient_name: str
    patient_id: str
    birth_date: str
    sex: str
    modalities: tuple[str, ...]
    description: str
    study_date: str
    accession_number: str
    status: StudyStatus
    read_at: datetime | None = None
    changed_after_reading: str = ""
    completion_reason: str = ""
    location: str = ""
    patient_class: str = ""
    raised_by: str = ""
    due_at: datetime | None = None
    findings: tuple[FindingChip, ...] = ()
    key_image_uid: str = ""
    claimed_by: str = ""
    claimed_since: datetime | None = None
    claimed_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class StudyAnalyses:
    """The production runs of a study's present generation, and the notices of their models.

    `findings` are those that are present and not withdrawn, the most urgent first, each with the
    model that made it.
    """

    facts: StudyFacts
    notices: tuple[str, ...]
    findings: tuple[tuple[str, Finding], ...] = ()


def reading_list(
    session: Session,
    now: datetime,
    *,
    wanted: WorklistFilter = EVERYTHING,
    who: str = "",
    limit: int = PAGE_SIZE,
    offset: int = 0,
) -> list[WorklistEntry]:
    """Return the studies to be read: most urgent class first, and within it by wait and points.

    A study is on the list from its first image on, whatever any model does or does not do. Only
    what was fetched for comparison is not: priors were read long ago.

    Args:
        session: a session.
        now: the moment, for waiting times and claims.
        wanted: which of them, all by default; a search for a patient too.
        who: the person who looks, for what is assigned to "me".
        limit: how many at most.
        offset: how many places to leave out.
    """
    conditions = _conditions(session, wanted, Viewer(now, who), TO_READ)
    ids = session.scalars(
        select(StudyRow.id).where(*conditions).order_by(*READING_ORDER).limit(limit).offset(offset)
    ).all()
    return _entries(session, _in_order(session, ids), now, first_place=offset + 1)


def next_to_read(session: Session, now: datetime, *, who: str, after: str = "") -> str:
    """Return the UID of the study that `who` should read next, "" where none is left.

    What others are reading is not offered, nor the study `after`, which was just looked at.
    """
    conditions = (
        TO_READ,
        StudyRow.study_instance_uid != after,
        StudyRow.id.not_in(studies_claimed(now, ReadingClaimRow.who != who)),
    )
    found = session.scalar(
        select(StudyRow.study_instance_uid).where(*conditions).order_by(*READING_ORDER).limit(1)
    )
    return found or ""


def count_filtered(
    session: Session, tally: Tally, wanted: WorklistFilter, now: datetime, who: str
) -> int:
    """Return how many studies a filter leaves; from `COUNTED_TO` on it is not counted further."""
    if wanted.is_by_list:
        return tally.number_of(wanted)
    conditions = _conditions(session, wanted, Viewer(now, who), TO_READ)
    some = select(StudyRow.id).where(*conditions).limit(COUNTED_TO).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0


def recently_read(
    session: Session,
    now: datetime,
    *,
    wanted: WorklistFilter = EVERYTHING,
    limit: int = PAGE_SIZE,
    offset: int = 0,
) -> list[WorklistEntry]:
    """Return the studies that were read, newest first, those that changed since on top."""
    changed = changes_after_reading(session, now)
    conditions = _conditions(session, wanted, Viewer(now), WAS_READ)
    newest_first = (StudyRow.read_at.desc(), StudyRow.id.desc())
    ids: list[int] = []
    if changed and offset == 0:
        on_top = select(StudyRow.id).where(*conditions, StudyRow.id.in_(list(changed)))
        ids += session.scalars(on_top.order_by(*newest_first))
    if changed:
        conditions = [*conditions, StudyRow.id.not_in(list(changed))]
    ids += session.scalars(
        select(StudyRow.id).where(*conditions).order_by(*newest_first).limit(limit).offset(offset)
    )
    studies = _in_order(session, ids)
    return _entries(session, studies, now, first_place=offset + 1, changed=changed)


def take_tally(session: Session, now: datetime) -> Tally:
    """Count what is to be read, and what changed after it was."""
    return tally_worklist(session, now, len(changes_after_reading(session, now)))


def count_worklist(session: Session, now: datetime) -> WorklistCounts:
    """Return the counts that stand above the list."""
    return take_tally(session, now).counts()


def _conditions(
    session: Session, wanted: WorklistFilter, viewer: Viewer, scope: ColumnElement[bool]
) -> list[ColumnElement[bool]]:
    conditions = [scope, *conditions_of(wanted, viewer)]
    if wanted.sought:
        conditions += conditions_of_text(session, wanted.sought, [scope])
    return conditions


def _in_order(session: Session, ids: Sequence[int]) -> list[StudyRow]:
    """Return the studies in the order of their ids here: an index gave it, without their rows."""
    found = {
        row.id: row
        for some in chunks(ids)
        for row in session.scalars(select(StudyRow).where(StudyRow.id.in_(some)))
    }
    return [found[key] for key in ids if key in found]


def changes_after_reading(session: Session, now: datetime) -> Mapping[int, str]:
    """Return what happened to studies after they were read: images that nobody has looked at.

    The list shows what is to be read, so that what comes after the reading must be said apart.
    """
    has_images = StudyRow.last_instance_at > StudyRow.read_at
    is_flagged_since, is_withdrawn_since = (
        select(StudyEventRow.id)
        .where(
            StudyEventRow.study_id == StudyRow.id,
            StudyEventRow.kind == kind,
            StudyEventRow.at > StudyRow.read_at,
        )
        .exists()
        for kind in ("flagged", "withdrawn")
    )
    # Put in order here: asked to do it, SQLite goes through all studies instead of the index.
    rows = session.execute(
        select(StudyRow.id, has_images, is_withdrawn_since).where(
            StudyRow.read_at >= now - _CHANGES_ARE_SHOWN_FOR,
            or_(has_images, is_flagged_since, is_withdrawn_since),
        )
    )
    return {
        study_id: "images arrived after it was read"
        if images
        else "an AI result was withdrawn after it was read"
        if withdrawn
        else "flagged after it was read"
        for study_id, images, withdrawn in sorted(map(tuple, rows))
    }


def _entries(
    session: Session,
    studies: Sequence[StudyRow],
    now: datetime,
    *,
    first_place: int,
    changed: Mapping[int, str] | None = None,
) -> list[WorklistEntry]:
    analyses = analyses_of(session, studies)
    claims = claims_on(session, [study.id for study in studies], now)
    entries = [
        _entry(study, analyses[study.id], now, place, claims.get(study.id))
        for place, study in enumerate(studies, start=first_place)
    ]
    if not changed:
        return entries
    return [
        entry.model_copy(update={"changed_after_reading": changed.get(study.id, "")})
        for entry, study in zip(entries, studies, strict=True)
    ]


def _entry(
    study: StudyRow, analyses: StudyAnalyses, now: datetime, place: int, claim: Claim | None
) -> WorklistEntry:
    return WorklistEntry(
        place=place,
        study_instance_uid=study.study_instance_uid,
        priority=study.priority,
        order_priority=study.order_priority,
        is_flagged=analyses.facts.is_flagged,
        reason=study.ai_reason,
        notices=analyses.notices,
        waiting_since=study.first_instance_at,
        waiting_s=max(0.0, (now - study.first_instance_at).total_seconds()),
        patient_name=person_name(study.patient.name),
        patient_id=patient_identifier(study.patient.patient_id),
        birth_date=calendar_date(study.patient.birth_date),
        sex=study.patient.sex,
        modalities=tuple(filter(None, study.modalities.split("\\"))),
        description=study.description,
        study_date=calendar_date(study.study_date),
        accession_number=study.accession_number,
        status=status_of(analyses.facts),
        read_at=study.read_at,
        completion_reason=study.completion_reason if study.state is StudyState.COMPLETE else "",
        location=study.location,
        patient_class=patient_class_in_words(study.patient_class),
        raised_by=raised_by(study),
        due_at=study.due_at,
        findings=tuple(
            FindingChip(
                title=finding.code.meaning,
                said=finding.in_words(),
                priority=finding.priority,
                model=model,
            )
            for model, finding in analyses.findings
        ),
        key_image_uid=next(
            (f.key_image_uids[0] for _, f in analyses.findings if f.key_image_uids), ""
        ),
        claimed_by=claim.who if claim else "",
        claimed_since=claim.since if claim else None,
        claimed_until=claim.until if claim else None,
    )


def is_flagged(study: StudyRow) -> bool:
    """Return whether the AI asks for the study to be read earlier than the usual."""
    return study.ai_priority is not None and study.ai_priority > Priority.ROUTINE


def analyses_of(session: Session, studies: Sequence[StudyRow]) -> dict[int, StudyAnalyses]:
    """Return for each study what its status depends on, in a fixed number of queries."""
    if not studies:
        return {}
    ids = [study.id for study in studies]
    runs = session.execute(
        select(
            AnalysisRunRow.study_id,
            AnalysisRunRow.id,
            AnalysisRunRow.model_id,
            AnalysisRunRow.generation,
            AnalysisRunRow.state,
            AnalysisRunRow.reason,
        )
        .where(AnalysisRunRow.study_id.in_(ids), AnalysisRunRow.stage.in_(COUNTING_STAGES))
        .order_by(AnalysisRunRow.id)
    )
    by_study: dict[int, list[_Run]] = defaultdict(list)
    for study_id, run_id, model_id, generation, state, reason in runs:
        by_study[study_id].append(_Run(run_id, model_id, generation, state, reason))
    models = _models(session, {r.model_id for rs in by_study.values() for r in rs})
    withdrawn = {
        run_id: each.in_words()
        for run_id, each in withdrawals_of(session, ids).items()
        if each.is_by_person
    }
    present = _present_findings(session, ids)
    refusals = _refusals(session, [s for s in studies if not by_study[s.id]])
    awaited = awaited_images(session, [s for s in studies if s.state is StudyState.RECEIVING])
    return {
        study.id: _analyses(
            study,
            by_study[study.id],
            models,
            present,
            _Words(refusals[study.id], awaited.get(study.id, ""), withdrawn),
        )
        for study in studies
    }


@dataclass(frozen=True, slots=True)
class _Run:
    run_id: int
    model_id: int
    generation: int
    state: RunState
    reason: str


@dataclass(frozen=True, slots=True)
class _Words:
    refusals: Sequence[str]
    awaited: str
    withdrawn: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class _Model:
    identity: str
    notice: str
    unavailable: str


def _analyses(
    study: StudyRow,
    runs: Sequence[_Run],
    models: Mapping[int, _Model],
    present: Mapping[int, tuple[Finding, ...]],
    words: _Words,
) -> StudyAnalyses:
    current = [run for run in runs if run.generation == study.generation]
    spoke = {
        run.model_id
        for run in current
        if run.state is RunState.COMPLETED and run.run_id not in words.withdrawn
    }
    if is_flagged(study):
        # The model that raised the flag may have done so on an earlier generation.
        spoke |= {r.model_id for r in runs if models[r.model_id].identity in study.ai_reason}
    facts = StudyFacts(
        state=study.state,
        is_flagged=is_flagged(study),
        is_prior=study.is_prior,
        runs=[
            RunFacts(
                r.run_id,
                models[r.model_id].identity,
                r.state,
                r.reason,
                tuple(finding.in_words() for finding in present.get(r.run_id, ())),
                models[r.model_id].unavailable,
                words.withdrawn.get(r.run_id, ""),
            )
            for r in current
        ],
        refusals=words.refusals,
        awaited=words.awaited,
    )
    notices = dict.fromkeys(models[model].notice for model in sorted(spoke))
    findings = [
        (models[run.model_id].identity, finding)
        for run in current
        if run.state is RunState.COMPLETED and run.run_id not in words.withdrawn
        for finding in present.get(run.run_id, ())
    ]
    findings.sort(key=lambda found: (-found[1].priority, -found[1].confidence))
    return StudyAnalyses(facts, tuple(filter(None, notices)), tuple(findings))


def _models(session: Session, ids: Iterable[int]) -> dict[int, _Model]:
    rows = session.scalars(select(ModelRow).where(ModelRow.id.in_(list(ids))))
    return {
        row.id: _Model(
            f"{row.name} {row.version}", str(row.manifest.get("notice", "")), row.parked_reason
        )
        for row in rows
    }


def _present_findings(session: Session, study_ids: Sequence[int]) -> dict[int, tuple[Finding, ...]]:
    rows = session.execute(
        select(FindingRow.run_id, FindingRow.content)
        .join(AnalysisRunRow, AnalysisRunRow.id == FindingRow.run_id)
        .where(AnalysisRunRow.study_id.in_(study_ids), FindingRow.present.is_(True))
        .order_by(FindingRow.id)
    )
    found: dict[int, list[Finding]] = defaultdict(list)
    for run_id, content in rows:
        found[run_id].append(Finding.model_validate(content))
    return {run_id: tuple(findings) for run_id, findings in found.items()}


def _refusals(session: Session, studies: Sequence[StudyRow]) -> dict[int, list[str]]:
    refusals: dict[int, list[str]] = defaultdict(list)
    completed_at = {s.id: s.completed_at for s in studies if s.completed_at is not None}
    if not completed_at:
        return refusals
    rows = session.execute(
        select(StudyEventRow.study_id, StudyEventRow.text, StudyEventRow.at)
        .where(StudyEventRow.study_id.in_(list(completed_at)), StudyEventRow.kind == "not-routed")
        .order_by(StudyEventRow.id)
    )
    for study_id, text, at in rows:
        if at >= completed_at[study_id]:  # those of earlier generations no longer hold
            refusals[study_id].append(text)
    return refusals
