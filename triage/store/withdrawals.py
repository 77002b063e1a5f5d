"""Results that are taken back: who did it and why, what then counts, what archives are told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, exists, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from triage.core.errors import TriageError
from triage.core.places import Source
from triage.core.policy import ai_priority
from triage.core.runs import RunState
from triage.core.withdrawals import (
    WITHDRAWAL_ROLES,
    WithdrawalReason,
    WithdrawalState,
    rejection_for,
)
from triage.store.history import note
from triage.store.notifications import take_back_of_run
from triage.store.outbox import may_have_arrived, told_of_result, withdraw_unsent
from triage.store.policies import policy_in_force
from triage.store.prioritising import reprioritise, state_ai_anew
from triage.store.standing_findings import standing_findings
from triage.store.tables import (
    AnalysisRunRow,
    DeliveryRow,
    ResultObjectRow,
    StudyRow,
    WithdrawalRow,
)

LONGEST_TEXT = 1000
WITHDRAWABLE = (
    RunState.COMPLETED,
    RunState.FAILED,
    RunState.CANCELLED,
    RunState.SUPERSEDED,
)
"""The states in which what a run said can be taken back: it says nothing more."""
_UNFINISHED = (RunState.PENDING, RunState.RUNNING)


class WithdrawalRefusedError(TriageError):
    """The result cannot be withdrawn; the message says why."""


class UnknownRunError(WithdrawalRefusedError):
    """There is no run of this number."""


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A result that was taken back; `who` is empty where a newer analysis did it."""

    run_id: int
    who: str
    reason: WithdrawalReason
    text: str
    at: datetime
    state: WithdrawalState
    last_error: str = ""

    @property
    def is_by_person(self) -> bool:
        """Whether a person took it back, so that it counts no longer."""
        return bool(self.who)

    @property
    def why(self) -> str:
        """The reason and what else was said."""
        return rejection_for(self.reason).words + (f": {self.text}" if self.text else "")

    def in_words(self) -> str:
        """Return what readers are told: "withdrawn by …, because …"."""
        by = f" by {self.who}" if self.who else ""
        return f"withdrawn{by}, because {self.why}"


def record_withdrawal(
    session: Session,
    run_id: int,
    *,
    who: str,
    reason: WithdrawalReason,
    text: str = "",
    now: datetime,
) -> Withdrawal:
    """Take back the result of a run, as one transaction: the single place where that is done.

    What was not delivered yet is kept back. Where a person does it (`who`), the findings raise the
    priority no longer: the AI's priority becomes what the other findings ask for, and the study's
    never falls below its order's. A run that a newer one superseded (`who` empty) leaves the
    priority as it is, because the newer one may not have answered yet. What archives are told is
    built later from the row, see `claim_due_withdrawal`.

    Raises:
        UnknownRunError: there is no such run.
        WithdrawalRefusedError: the run is not over, has said nothing, or was withdrawn before.
    """
    run = session.scalars(
        select(AnalysisRunRow).where(AnalysisRunRow.id == run_id).with_for_update(of=AnalysisRunRow)
    ).first()
    if run is None:
        raise UnknownRunError(f"there is no analysis run {run_id}; open the study anew")
    row = session.scalars(select(WithdrawalRow).where(WithdrawalRow.run_id == run_id)).first()
    if who:
        _check_withdrawable(run, row)
    if row is None:
        row = WithdrawalRow(run_id=run_id, next_attempt_at=now)
        session.add(row)
    row.who, row.reason = who[:128], reason
    row.is_queued = False
    row.text, row.at = text.strip()[:LONGEST_TEXT], now
    withdraw_unsent(session, run_id)
    session.flush()
    withdrawal = withdrawal_of(row)
    if who:
        said = f"{run.model.name} {run.model.version}: {withdrawal.in_words()}"
        note(session, run.study_id, "withdrawn", said, at=now, run_id=run_id)
        _restate_priority(session, run, said, now)
        take_back_of_run(session, run_id, said, now=now)
    return withdrawal


def _check_withdrawable(run: AnalysisRunRow, row: WithdrawalRow | None) -> None:
    if row is not None and row.who:
        raise WithdrawalRefusedError(f"run {run.id} was {withdrawal_of(row).in_words()} already")
    if run.state not in WITHDRAWABLE or not run.findings:
        raise WithdrawalRefusedError(
            f"run {run.id} is {run.state.value} and has said nothing that could be withdrawn"
        )
    if not run.stage.counts:
        raise WithdrawalRefusedError(
            f"run {run.id} is of a {run.stage.value} model: nobody saw its result"
        )


def withdraw_superseded(
    session: Session, run: AnalysisRunRow, reason: str, *, now: datetime
) -> None:
    """Take back what a superseded run left, if it left or told anything; a person may have."""
    withdraw_unsent(session, run.id)
    known = session.scalar(select(WithdrawalRow.id).where(WithdrawalRow.run_id == run.id))
    left = session.scalar(select(ResultObjectRow.id).where(ResultObjectRow.run_id == run.id))
    if known is None and (left is not None or told_of_result(session, run.id)):
        record_withdrawal(
            session, run.id, who="", reason=WithdrawalReason.SUPERSEDED, text=reason, now=now
        )


def _restate_priority(session: Session, run: AnalysisRunRow, because: str, now: datetime) -> None:
    """Let the study's AI priority be what the findings ask for that were not withdrawn."""
    study = session.scalars(
        select(StudyRow)
        .where(StudyRow.id == run.study_id)
        .with_for_update(key_share=True, of=StudyRow)
    ).one()
    standing = standing_findings(session, [study.id])[study.id]
    state_ai_anew(study, ai_priority(standing, policy_in_force(session).policy))
    reprioritise(session, study, Source.WITHDRAWAL, because, now=now, run_id=run.id)


def is_withdrawn_by_person(
    run_id: ColumnElement[int] | InstrumentedAttribute[int],
) -> ColumnElement[bool]:
    """Return the condition that a person took back the result of the run."""
    return exists(
        select(WithdrawalRow.id).where(WithdrawalRow.run_id == run_id, WithdrawalRow.who != "")
    )


def withdrawals_of(session: Session, study_ids: Iterable[int]) -> dict[int, Withdrawal]:
    """Return the withdrawals of the studies' runs, by run."""
    rows = session.scalars(
        select(WithdrawalRow)
        .join(AnalysisRunRow, AnalysisRunRow.id == WithdrawalRow.run_id)
        .where(AnalysisRunRow.study_id.in_(list(study_ids)))
    )
    return {row.run_id: withdrawal_of(row) for row in rows}


def stuck_withdrawals(session: Session, limit: int) -> list[tuple[Withdrawal, str]]:
    """Return those that archives could not be told of yet, with the Study Instance UID."""
    rows = session.execute(
        select(WithdrawalRow, StudyRow.study_instance_uid)
        .join(AnalysisRunRow, AnalysisRunRow.id == WithdrawalRow.run_id)
        .join(StudyRow, StudyRow.id == AnalysisRunRow.study_id)
        .where(WithdrawalRow.state == WithdrawalState.WAITING, WithdrawalRow.last_error != "")
        .order_by(WithdrawalRow.id)
        .limit(limit)
    )
    return [(withdrawal_of(row), uid) for row, uid in rows]


def withdrawal_of(row: WithdrawalRow) -> Withdrawal:
    """Return what a row says."""
    return Withdrawal(
        run_id=row.run_id,
        who=row.who,
        reason=row.reason,
        text=row.text,
        at=row.at,
        state=row.state,
        last_error=row.last_error,
    )


@dataclass(frozen=True, slots=True)
class DocumentReference:
    """A result object as other objects refer to it; `path` is empty where its file is gone.

    `variant` is "" for the usual form, see `triage.store.tables.ResultObjectRow`.
    """

    role: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    path: str = ""
    variant: str = ""


@dataclass(frozen=True, slots=True)
class PatientAndStudy:
    """What our own objects say of patient and study, where no file is left to copy it from."""

    study_instance_uid: str
    patient_id: str
    patient_name: str
    patient_birth_date: str
    patient_sex: str
    accession_number: str
    study_date: str
    study_time: str


@dataclass(frozen=True, slots=True)
class DueWithdrawal:
    """A withdrawal that this worker holds, with all that its objects are built from.

    Attributes:
        objects: what the run left, in order of delivery.
        destinations: the names of those that have, or may have, any of it.
        has_successor: whether a newer run's report takes the place of the run's.
    """

    withdrawal: Withdrawal
    withdrawal_id: int
    attempt: int
    run_id: int
    study_id: int
    study: PatientAndStudy
    model_name: str
    model_version: str
    input_sha256: str
    objects: tuple[DocumentReference, ...]
    destinations: frozenset[str]
    has_successor: bool


def claim_due_withdrawal(
    session: Session, *, lease: timedelta, now: datetime
) -> DueWithdrawal | None:
    """Claim a withdrawal whose objects are to be built, or None.

    What a newer run superseded waits until that one is over, so that the archive is never without
    either; and nothing is rejected while it is still on its way.
    """
    row = session.scalars(
        _next_due(now).with_for_update(skip_locked=True, of=WithdrawalRow)
    ).first()
    if row is None:
        return None
    row.attempts += 1
    row.next_attempt_at = now + lease
    return _due(session, row)


def is_withdrawal_due(session: Session, now: datetime) -> bool:
    """Return whether there is one to claim; asking takes no writer's lock."""
    return session.scalars(_next_due(now)).first() is not None


def _next_due(now: datetime) -> Select[WithdrawalRow]:
    return (
        select(WithdrawalRow)
        .join(AnalysisRunRow, AnalysisRunRow.id == WithdrawalRow.run_id)
        .where(
            WithdrawalRow.state == WithdrawalState.WAITING,
            WithdrawalRow.next_attempt_at <= now,
            or_(WithdrawalRow.who != "", ~_newer_run(_UNFINISHED)),
            ~_is_on_its_way(now),
        )
        .order_by(WithdrawalRow.next_attempt_at, WithdrawalRow.id)
        .limit(1)
    )


def _newer_run(states: Iterable[RunState]) -> ColumnElement[bool]:
    newer = aliased(AnalysisRunRow)
    return exists(
        select(newer.id).where(
            newer.study_id == AnalysisRunRow.study_id,
            newer.model_id == AnalysisRunRow.model_id,
            newer.id > AnalysisRunRow.id,
            newer.state.in_(list(states)),
        )
    )


def _is_on_its_way(now: datetime) -> ColumnElement[bool]:
    return exists(
        select(DeliveryRow.id)
        .join(ResultObjectRow, ResultObjectRow.id == DeliveryRow.result_object_id)
        .where(ResultObjectRow.run_id == WithdrawalRow.run_id, DeliveryRow.lease_until >= now)
    )


def _due(session: Session, row: WithdrawalRow) -> DueWithdrawal:
    run, study = row.run, row.run.study
    objects = [o for o in run.result_objects if o.role not in WITHDRAWAL_ROLES]
    return DueWithdrawal(
        withdrawal=withdrawal_of(row),
        withdrawal_id=row.id,
        attempt=row.attempts,
        run_id=run.id,
        study_id=study.id,
        study=PatientAndStudy(
            study_instance_uid=study.study_instance_uid,
            patient_id=study.patient.patient_id,
            patient_name=study.patient.name,
            patient_birth_date=study.patient.birth_date,
            patient_sex=study.patient.sex,
            accession_number=study.accession_number,
            study_date=study.study_date,
            study_time=study.study_time,
        ),
        model_name=run.model.name,
        model_version=run.model.version,
        input_sha256=run.input_sha256,
        objects=tuple(map(_reference, objects)),
        destinations=frozenset(
            delivery.destination
            for each in objects
            for delivery in each.deliveries
            if may_have_arrived(delivery)
        ),
        has_successor=_successor_report(session, run) is not None,
    )


def _reference(row: ResultObjectRow) -> DocumentReference:
    return DocumentReference(
        role=row.role,
        sop_class_uid=row.sop_class_uid,
        sop_instance_uid=row.sop_instance_uid,
        series_instance_uid=row.series_instance_uid,
        path=row.path,
        variant=row.variant,
    )


def _successor_report(session: Session, run: AnalysisRunRow) -> int | None:
    return session.scalar(
        select(ResultObjectRow.id)
        .join(AnalysisRunRow, AnalysisRunRow.id == ResultObjectRow.run_id)
        .where(
            AnalysisRunRow.study_id == run.study_id,
            AnalysisRunRow.model_id == run.model_id,
            AnalysisRunRow.id > run.id,
            ResultObjectRow.role == "sr",
        )
        .limit(1)
    )


def predecessor_reports(session: Session, run_id: int) -> tuple[DocumentReference, ...]:
    """Return the report that the run's takes the place of, in each variant that was made of it.

    It is of the newest of its superseded runs, or what says that this one was withdrawn. Empty
    where there is none, and where both would be the same object: the same model on the same
    images.
    """
    run = session.get_one(AnalysisRunRow, run_id)
    rows = session.scalars(
        select(ResultObjectRow)
        .join(AnalysisRunRow, AnalysisRunRow.id == ResultObjectRow.run_id)
        .where(
            AnalysisRunRow.study_id == run.study_id,
            AnalysisRunRow.model_id == run.model_id,
            AnalysisRunRow.id < run.id,
            AnalysisRunRow.state == RunState.SUPERSEDED,
            AnalysisRunRow.input_sha256 != run.input_sha256,
            ResultObjectRow.role.in_(("sr", "withdrawal-sr")),
        )
        .order_by(ResultObjectRow.id.desc())
    ).all()
    if rows and rows[0].role == "withdrawal-sr":
        return (_reference(rows[0]),)
    return tuple(_reference(row) for row in rows if row.run_id == rows[0].run_id)


def mark_withdrawal_done(session: Session, due: DueWithdrawal, said: str, *, now: datetime) -> bool:
    """Note that what archives are told is in the outbox; False: another worker was quicker."""
    row = _held(session, due)
    if row is None:
        return False
    row.state = WithdrawalState.DONE
    row.done_at = now
    row.last_error = ""
    note(session, due.study_id, "rejected", said, at=now, run_id=due.run_id)
    return True


def mark_withdrawal_failed(
    session: Session, due: DueWithdrawal, error: str, *, retry_after: timedelta, now: datetime
) -> None:
    """Note why it could not be built, and when it is tried again."""
    row = _held(session, due)
    if row is not None:
        row.last_error = error
        row.next_attempt_at = now + retry_after


def _held(session: Session, due: DueWithdrawal) -> WithdrawalRow | None:
    row = session.scalars(
        select(WithdrawalRow).where(WithdrawalRow.id == due.withdrawal_id).with_for_update()
    ).one()
    is_held = row.state is WithdrawalState.WAITING and row.attempts == due.attempt
    return row if is_held else None
