"""What a notice says, read when it is sent, so that it says what is true then."""

from __future__ import annotations

import uuid
from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.findings import Finding
from triage.core.manifest import ModelManifest
from triage.core.notices import (
    Notice,
    NoticeObject,
    NoticeOrder,
    NoticePatient,
    NoticeRun,
    NoticeStudy,
    NoticeWithdrawal,
    PriorityChange,
)
from triage.core.runs import DeliveryKind, RunState, StudyState
from triage.store.order_tables import OrderRow
from triage.store.outbox import CORRECTION, DueDelivery
from triage.store.raises import is_raised_by_ai
from triage.store.tables import (
    STAND_IN_PREFIX,
    AnalysisRunRow,
    DeliveryRow,
    PatientRow,
    PriorityEventRow,
    StudyRow,
    WithdrawalRow,
)
from triage.store.withdrawals import Withdrawal, withdrawal_of

_NAMESPACE = uuid.UUID("4f1d7a8e-52c5-5c0c-9c93-0a9b3a4f8f65")


def read_notice(session: Session, due: DueDelivery) -> Notice:
    """Return all that the notice `due` may say."""
    row = session.scalars(select(DeliveryRow).where(DeliveryRow.id == due.delivery_id)).one()
    run = row.run
    event = _event(session, due)
    withdrawal = _withdrawal(session, due)
    happened = event or withdrawal
    occurred_at = happened.at if happened else (run.finished_at if run else None)
    return Notice(
        notice_id=_notice_id(due.destination, due.subject),
        kind=due.kind,
        occurred_at=occurred_at or row.study.last_instance_at,
        attempt=due.attempt,
        study=notice_study(row.study),
        run=_run(run) if run else None,
        change=_change(event) if event else None,
        withdrawal=_taken_back(withdrawal) if withdrawal else None,
        is_correction=due.subject.startswith(CORRECTION),
    )


def previewed_notices(session: Session, study_instance_uid: str, destination: str) -> list[Notice]:
    """Return what a destination would be told of a study as it stands: results, then the priority.

    Empty where Triage holds no such study, or has found nothing out about it yet.
    """
    study = session.scalar(
        select(StudyRow).where(StudyRow.study_instance_uid == study_instance_uid)
    )
    if study is None:
        return []
    runs = session.scalars(
        select(AnalysisRunRow)
        .where(AnalysisRunRow.study_id == study.id, AnalysisRunRow.state == RunState.COMPLETED)
        .order_by(AnalysisRunRow.id)
    ).all()
    general = Notice(
        notice_id="",
        kind=DeliveryKind.RESULT,
        occurred_at=study.last_instance_at,
        attempt=1,
        study=notice_study(study),
    )
    found = [
        replace(
            general,
            notice_id=_notice_id(destination, f"result:{run.id}"),
            occurred_at=run.finished_at or run.created_at,
            run=_run(run),
        )
        for run in runs
        if run.stage.counts
    ]
    event = session.scalar(
        select(PriorityEventRow)
        .where(
            PriorityEventRow.study_id == study.id,
            PriorityEventRow.source != "order",
            PriorityEventRow.before != PriorityEventRow.after,
        )
        .order_by(PriorityEventRow.id.desc())
        .limit(1)
    )
    if event is not None:
        change = replace(
            general,
            notice_id=_notice_id(destination, f"priority:{event.id}"),
            kind=DeliveryKind.PRIORITY,
            occurred_at=event.at,
            change=_change(event),
        )
        found.append(change)
    return found


def _notice_id(destination: str, subject: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{destination} {subject}"))


def _event(session: Session, due: DueDelivery) -> PriorityEventRow | None:
    if due.kind is not DeliveryKind.PRIORITY:
        return None
    number = int(due.subject.rpartition(":")[2])
    return session.scalars(select(PriorityEventRow).where(PriorityEventRow.id == number)).one()


def _withdrawal(session: Session, due: DueDelivery) -> Withdrawal | None:
    if due.kind is not DeliveryKind.WITHDRAWAL:
        return None
    number = int(due.subject.rpartition(":")[2])
    return withdrawal_of(session.get_one(WithdrawalRow, number))


def _taken_back(withdrawal: Withdrawal) -> NoticeWithdrawal:
    return NoticeWithdrawal(
        withdrawal.who, withdrawal.why, is_superseded=not withdrawal.is_by_person
    )


def _change(event: PriorityEventRow) -> PriorityChange:
    return PriorityChange(event.source, event.before, event.after, event.reason)


def notice_study(row: StudyRow) -> NoticeStudy:
    """Return what other systems and people are told of a study."""
    return NoticeStudy(
        study_id=row.id,
        study_instance_uid=row.study_instance_uid,
        accession_number=row.accession_number,
        description=row.description,
        study_date=row.study_date,
        study_time=row.study_time,
        modalities=tuple(filter(None, row.modalities.split("\\"))),
        calling_ae_title=row.calling_ae_title,
        priority=row.priority,
        order_priority=row.order_priority,
        reason=row.ai_reason,
        is_complete=row.state is StudyState.COMPLETE,
        is_read=row.read_at is not None,
        first_instance_at=row.first_instance_at,
        patient=_patient(row.patient),
        order=_order(row.order) if row.order else NoticeOrder(),
        location=row.location,
        patient_class=row.patient_class,
        is_raised_by_ai=is_raised_by_ai(row),
    )


def _order(row: OrderRow) -> NoticeOrder:
    return NoticeOrder(
        placer_number=row.placer_number,
        filler_number=row.filler_number,
        procedure_code=row.procedure_code,
        procedure_text=row.procedure_text,
        procedure_scheme=row.procedure_scheme,
        reason=row.reason,
    )


def _patient(row: PatientRow) -> NoticePatient:
    is_stand_in = row.patient_id.startswith(STAND_IN_PREFIX)
    return NoticePatient(
        patient_id="" if is_stand_in else row.patient_id,
        issuer=row.issuer,
        name=row.name,
        birth_date=row.birth_date,
        sex=row.sex,
    )


def _run(row: AnalysisRunRow) -> NoticeRun:
    manifest = ModelManifest.model_validate(row.model.manifest)
    return NoticeRun(
        run_id=row.id,
        model=row.model.name,
        version=row.model.version,
        notice=manifest.notice,
        stage=row.stage.value,
        finished_at=row.finished_at or row.created_at,
        source_series_uid=row.series.series_instance_uid if row.series else "",
        findings=tuple(Finding.model_validate(finding.content) for finding in row.findings),
        objects=tuple(
            NoticeObject(o.role, o.sop_class_uid, o.sop_instance_uid, o.series_instance_uid)
            for o in row.result_objects
        ),
        source_modality=row.series.modality if row.series else "",
    )
