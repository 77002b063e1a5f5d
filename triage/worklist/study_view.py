"""Everything that a person can ask about one study: images, findings, runs, results, history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload, selectinload

from triage.core.findings import Finding
from triage.core.manifest import PriorityName
from triage.core.orders import patient_class_in_words
from triage.core.priority import Priority
from triage.core.priors import SearchState
from triage.core.runs import RunState
from triage.core.stages import COUNTING_STAGES, Stage
from triage.core.withdrawals import WITHDRAWAL_ROLES
from triage.store.claims import claims_on
from triage.store.feedback import Feedback, feedback_on
from triage.store.history import is_for_readers
from triage.store.priors import prior_rows
from triage.store.raises import raised_by
from triage.store.studies import find_study
from triage.store.tables import (
    AnalysisRunRow,
    DeliveryRow,
    FindingRow,
    PriorityEventRow,
    PriorSearchRow,
    ResultObjectRow,
    RunInputRow,
    SeriesRow,
    StudyEventRow,
    StudyRow,
)
from triage.store.withdrawals import WITHDRAWABLE, Withdrawal, withdrawals_of
from triage.worklist.answers import AnswersView, answers_view
from triage.worklist.comparisons import ComparisonView, comparisons
from triage.worklist.deliveries import DeliveryView, delivery_view
from triage.worklist.opening import OpeningView, opening_of
from triage.worklist.queue import analyses_of, is_flagged
from triage.worklist.stacks import SeriesView, series_view
from triage.worklist.status import StudyStatus, status_of
from triage.worklist.wording import (
    calendar_date,
    clock_time,
    patient_identifier,
    person_name,
    without_series_uids,
)

_NEWEST_EVENTS = 200
_SOURCES = {
    "ai": "the AI",
    "order": "the order",
    "withdrawal": "the withdrawal of a result",
    "person": "a person",
    "location": "where the patient is",
    "waiting": "its wait",
    "policy": "the priority policy",
    "switch": "the switch of AI prioritization",
}


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class PatientView(_View):
    """Who the patient is."""

    name: str
    patient_id: str
    birth_date: str
    sex: str


class FeedbackView(_View):
    """What a person says of a finding."""

    who: str
    verdict: str
    reason: str
    at: datetime


class FindingView(_View):
    """A finding as the study page states it."""

    finding_id: int
    run_id: int
    can_be_withdrawn: bool
    key: str
    title: str
    present: bool
    confidence: float
    measurements: tuple[str, ...]
    site: str
    priority: PriorityName
    model: str
    stage: Stage
    notice: str
    segment_number: int | None
    segmentation_uid: str
    key_image_uids: tuple[str, ...]
    key_image_frames: tuple[int, ...] = ()
    heat_map_series_uid: str
    withdrawn: str = ""
    feedback: tuple[FeedbackView, ...]


class ResultView(_View):
    """An object that a run left."""

    role: str
    sop_instance_uid: str
    series_instance_uid: str
    size_bytes: int
    created_at: datetime
    deliveries: tuple[DeliveryView, ...]


class RunView(_View):
    """One model's analysis, whatever became of it."""

    run_id: int
    model: str
    title: str
    stage: Stage
    notice: str
    state: str
    is_current: bool
    reason: str
    series: str
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    timings_s: dict[str, float]
    withdrawn: str = ""
    withdrawal_error: str = ""
    can_be_withdrawn: bool = False
    results: tuple[ResultView, ...]
    notices: tuple[DeliveryView, ...]


class PriorView(_View):
    """An earlier study to compare with, and what became of fetching it."""

    study_instance_uid: str
    study_date: str
    study_time: str
    modalities: tuple[str, ...]
    description: str
    state: str
    said: str
    is_in_store: bool


class EventView(_View):
    """A line of the study's history."""

    at: datetime
    kind: str
    text: str


class StudyView(_View):
    """All of it."""

    study_instance_uid: str
    patient: PatientView
    accession_number: str
    description: str
    study_date: str
    study_time: str
    modalities: tuple[str, ...]
    calling_ae_title: str
    state: str
    completion_reason: str
    status: StudyStatus
    is_flagged: bool
    priority: PriorityName
    order_priority: PriorityName
    ai_priority: PriorityName | None
    reason: str
    notices: tuple[str, ...]
    first_instance_at: datetime
    last_instance_at: datetime
    completed_at: datetime | None
    read_at: datetime | None
    purged_at: datetime | None = None
    purge_reason: str = ""
    priority_notices: tuple[DeliveryView, ...] = ()
    waiting_s: float
    claimed_by: str = ""
    location: str = ""
    patient_class: str = ""
    order_reason: str = ""
    raised_by: str = ""
    series: tuple[SeriesView, ...]
    opening: OpeningView | None = None
    findings: tuple[FindingView, ...]
    runs: tuple[RunView, ...]
    is_prior: bool
    priors: tuple[PriorView, ...]
    priors_search: str
    comparisons: tuple[ComparisonView, ...] = ()
    answers: AnswersView
    history: tuple[EventView, ...]


def study_view(session: Session, study_instance_uid: str, now: datetime) -> StudyView | None:
    """Return all that a radiologist may see of the study, or None if Triage holds no such study.

    What shadow models do is not part of it.
    """
    study = find_study(session, study_instance_uid)
    if study is None:
        return None
    runs = _runs(session, study)
    withdrawn = withdrawals_of(session, [study.id])
    analyses = analyses_of(session, [study])[study.id]
    notices = _notices(session, study)
    claim = claims_on(session, [study.id], now).get(study.id)
    series = _series(session, study, runs, withdrawn)
    findings = _findings(session, runs, study, withdrawn)
    return StudyView(
        study_instance_uid=study.study_instance_uid,
        patient=_patient(study),
        accession_number=study.accession_number,
        description=study.description,
        study_date=calendar_date(study.study_date),
        study_time=clock_time(study.study_time),
        modalities=tuple(filter(None, study.modalities.split("\\"))),
        calling_ae_title=study.calling_ae_title,
        state=study.state.value,
        completion_reason=study.completion_reason,
        status=status_of(analyses.facts),
        is_flagged=is_flagged(study),
        priority=study.priority,
        order_priority=study.order_priority,
        ai_priority=study.ai_priority,
        reason=study.ai_reason,
        notices=analyses.notices,
        first_instance_at=study.first_instance_at,
        last_instance_at=study.last_instance_at,
        completed_at=study.completed_at,
        read_at=study.read_at,
        purged_at=study.purged_at,
        purge_reason=study.purge_reason,
        waiting_s=max(0.0, ((study.read_at or now) - study.first_instance_at).total_seconds()),
        claimed_by=claim.who if claim else "",
        location=study.location,
        patient_class=patient_class_in_words(study.patient_class),
        raised_by=raised_by(study),
        order_reason=study.order.reason if study.order else "",
        series=series,
        opening=opening_of(series, findings),
        findings=findings,
        runs=tuple(
            _run_view(run, study, withdrawn.get(run.id), notices.get(run.id, ())) for run in runs
        ),
        priority_notices=tuple(notices.get(None, ())),
        is_prior=study.is_prior,
        priors=_priors(session, study),
        priors_search=_priors_search(session, study),
        comparisons=comparisons(session, study),
        answers=answers_view(session, study),
        history=_history(session, study),
    )


def _patient(study: StudyRow) -> PatientView:
    return PatientView(
        name=person_name(study.patient.name),
        patient_id=patient_identifier(study.patient.patient_id),
        birth_date=calendar_date(study.patient.birth_date),
        sex=study.patient.sex,
    )


def _runs(session: Session, study: StudyRow) -> Sequence[AnalysisRunRow]:
    return session.scalars(
        select(AnalysisRunRow)
        .where(AnalysisRunRow.study_id == study.id, AnalysisRunRow.stage.in_(COUNTING_STAGES))
        .options(
            joinedload(AnalysisRunRow.model),
            joinedload(AnalysisRunRow.series),
            selectinload(AnalysisRunRow.inputs).joinedload(RunInputRow.series),
            selectinload(AnalysisRunRow.findings),
            selectinload(AnalysisRunRow.result_objects).selectinload(ResultObjectRow.deliveries),
        )
        .order_by(AnalysisRunRow.generation.desc(), AnalysisRunRow.id)
    ).all()


def _series(
    session: Session,
    study: StudyRow,
    runs: Sequence[AnalysisRunRow],
    withdrawn: Mapping[int, Withdrawal],
) -> tuple[SeriesView, ...]:
    rows = session.scalars(
        select(SeriesRow)
        .where(SeriesRow.study_id == study.id)
        .options(selectinload(SeriesRow.instances))
        .order_by(SeriesRow.is_result, SeriesRow.number, SeriesRow.id)
    ).all()
    # What says that a result is withdrawn stands, whatever became of the run.
    made_by = {
        o.series_instance_uid: run
        for run in runs
        for o in run.result_objects
        if o.role not in WITHDRAWAL_ROLES
    }
    taken_back = {uid for uid, run in made_by.items() if _says_withdrawn(withdrawn.get(run.id))}
    return tuple(
        series_view(
            row,
            made_by.get(row.series_instance_uid),
            is_withdrawn=row.series_instance_uid in taken_back,
        )
        for row in rows
    )


def _says_withdrawn(withdrawal: Withdrawal | None) -> str:
    """Return by whom and why a person took it back, "" where none did."""
    return withdrawal.in_words() if withdrawal is not None and withdrawal.is_by_person else ""


def _findings(
    session: Session,
    runs: Sequence[AnalysisRunRow],
    study: StudyRow,
    withdrawn: Mapping[int, Withdrawal],
) -> tuple[FindingView, ...]:
    rows = [
        (row, run)
        for run in runs
        if run.generation == study.generation and run.state is not RunState.SUPERSEDED
        for row in run.findings
    ]
    said = feedback_on(session, (row.id for row, _ in rows))
    views = [
        _finding_view(row, run, said.get(row.id, ()), _says_withdrawn(withdrawn.get(run.id)))
        for row, run in rows
    ]
    urgency = {p.name.lower(): p for p in Priority}
    ordered = sorted(
        views,
        key=lambda f: (
            bool(f.withdrawn),
            not f.present,
            -urgency[f.priority.name.lower()],
            -f.confidence,
        ),
    )
    return tuple(_with_own_heat_map(ordered))


def _with_own_heat_map(by_urgency: Sequence[FindingView]) -> Iterator[FindingView]:
    """Yield the findings, of each run only the most urgent with the heat map: it shows no other."""
    seen: set[int] = set()
    for view in by_urgency:
        is_first = view.present and view.run_id not in seen
        seen.update({view.run_id} if is_first else ())
        yield view if is_first else view.model_copy(update={"heat_map_series_uid": ""})


def _finding_view(
    row: FindingRow, run: AnalysisRunRow, feedback: Sequence[Feedback], withdrawn: str
) -> FindingView:
    finding = Finding.model_validate(row.content)
    # Of several objects of a kind the first counts; what is made in another form comes last.
    usual_first = list(reversed(run.result_objects))
    series_of = {o.role: o.series_instance_uid for o in usual_first}
    uid_of = {o.role: o.sop_instance_uid for o in usual_first}
    return FindingView(
        finding_id=row.id,
        run_id=run.id,
        can_be_withdrawn=_can_be_withdrawn(run, withdrawn),
        key=finding.key,
        title=finding.code.meaning,
        present=finding.present,
        confidence=finding.confidence,
        measurements=tuple(
            f"{m.concept.meaning} {m.value:.3g} {m.unit.value}" for m in finding.measurements
        ),
        site=finding.site.meaning if finding.site else "",
        priority=finding.priority,
        model=_identity(run),
        stage=run.stage,
        notice=_notice(run),
        segment_number=finding.segment_number,
        segmentation_uid=uid_of.get("seg", ""),
        key_image_uids=finding.key_image_uids,
        key_image_frames=finding.key_image_frames,
        heat_map_series_uid=series_of.get("heat-map", "") if finding.present else "",
        withdrawn=withdrawn,
        feedback=tuple(
            FeedbackView(who=one.who, verdict=one.verdict.value, reason=one.reason, at=one.at)
            for one in feedback
            if one.present is finding.present
        ),
    )


def _notices(session: Session, study: StudyRow) -> dict[int | None, list[DeliveryView]]:
    """Return the notices by the run that they tell of; None is what a person has changed."""
    rows = session.scalars(
        select(DeliveryRow)
        .where(DeliveryRow.study_id == study.id, DeliveryRow.result_object_id.is_(None))
        .order_by(DeliveryRow.id)
    ).all()
    notices: dict[int | None, list[DeliveryView]] = {}
    for row in rows:
        notices.setdefault(row.run_id, []).append(delivery_view(row))
    return notices


def _run_view(
    run: AnalysisRunRow,
    study: StudyRow,
    withdrawal: Withdrawal | None,
    notices: Sequence[DeliveryView],
) -> RunView:
    by_person = _says_withdrawn(withdrawal)
    return RunView(
        run_id=run.id,
        model=_identity(run),
        title=str(run.model.manifest.get("title", "")),
        stage=run.stage,
        notice=_notice(run),
        state=run.state.value,
        is_current=run.generation == study.generation,
        reason=run.reason,
        series=" + ".join(_series_name(row) for row in (run.series, *_further_series(run))),
        attempts=run.attempts,
        created_at=run.created_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
        timings_s=_numbers(run.timings_s),
        withdrawn=by_person,
        withdrawal_error=withdrawal.last_error if withdrawal is not None else "",
        can_be_withdrawn=_can_be_withdrawn(run, by_person),
        results=tuple(_result_view(row) for row in run.result_objects),
        notices=tuple(notices),
    )


def _can_be_withdrawn(run: AnalysisRunRow, withdrawn_by: str) -> bool:
    return not withdrawn_by and run.state in WITHDRAWABLE and bool(run.findings)


def _further_series(run: AnalysisRunRow) -> list[SeriesRow]:
    return [one.series for one in run.inputs]


def _series_name(row: SeriesRow) -> str:
    return row.description or f"series {row.number or ''}".strip()


def _result_view(row: ResultObjectRow) -> ResultView:
    return ResultView(
        role=row.role,
        sop_instance_uid=row.sop_instance_uid,
        series_instance_uid=row.series_instance_uid,
        size_bytes=row.size_bytes,
        created_at=row.created_at,
        deliveries=tuple(delivery_view(delivery) for delivery in row.deliveries),
    )


def _priors(session: Session, study: StudyRow) -> tuple[PriorView, ...]:
    rows = prior_rows(session, study.id)
    uids = [row.study_instance_uid for row in rows]
    held = set(
        session.scalars(
            select(StudyRow.study_instance_uid).where(StudyRow.study_instance_uid.in_(uids))
        )
    )
    return tuple(
        PriorView(
            study_instance_uid=row.study_instance_uid,
            study_date=calendar_date(row.study_date),
            study_time=clock_time(row.study_time),
            modalities=tuple(filter(None, row.modalities.split("\\"))),
            description=row.description,
            state=row.state.value,
            said=row.said,
            is_in_store=row.study_instance_uid in held,
        )
        for row in rows
    )


def _priors_search(session: Session, study: StudyRow) -> str:
    """Return where the search for priors stands, "" where nobody has asked for any."""
    search = session.get(PriorSearchRow, study.id)
    if search is None:
        return ""
    if search.state in (SearchState.DONE, SearchState.FAILED):
        return search.said
    tried = f"; the last attempt: {search.said}" if search.said else ""
    return f"being fetched from {search.remote}{tried}"


def _identity(run: AnalysisRunRow) -> str:
    return f"{run.model.name} {run.model.version}"


def _notice(run: AnalysisRunRow) -> str:
    return str(run.model.manifest.get("notice", ""))


def _numbers(timings: Mapping[str, object]) -> dict[str, float]:
    return {k: float(v) for k, v in timings.items() if isinstance(v, (int, float))}


def _history(session: Session, study: StudyRow) -> tuple[EventView, ...]:
    """Return the newest lines of the history, oldest first, with the order's own priority."""
    rows = session.scalars(
        select(StudyEventRow)
        .where(StudyEventRow.study_id == study.id, is_for_readers())
        .order_by(StudyEventRow.id.desc())
        .limit(_NEWEST_EVENTS)
    ).all()
    changes = session.scalars(
        select(PriorityEventRow)
        .where(PriorityEventRow.study_id == study.id)
        .order_by(PriorityEventRow.id)
    ).all()
    lines = [
        EventView(at=row.at, kind=row.kind, text=without_series_uids(row.text))
        for row in reversed(rows)
    ]
    lines += [
        EventView(
            at=row.at,
            kind="priority",
            text=f"{row.before.label} to {row.after.label}, by "
            f"{_SOURCES.get(row.source, row.source)}" + (f" ({row.place})" if row.place else ""),
        )
        for row in changes
        if row.before is not row.after
    ]
    return tuple(sorted(lines, key=lambda line: line.at))
