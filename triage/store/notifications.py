"""Notifications to people: made with the flag, acknowledged, taken back.

Who is told when is decided afterwards, by `triage.store.notification_rounds`, so that a flag never
waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.errors import TriageError
from triage.core.findings import Finding
from triage.core.notifications import (
    MessageKind,
    MessageState,
    NotificationState,
    check_change,
)
from triage.settings.notifications import BROWSER, FoundIn, NotificationSettings
from triage.store.history import note
from triage.store.notification_tables import (
    NotificationEventRow,
    NotificationMessageRow,
    NotificationRow,
    NotificationSnoozeRow,
)
from triage.store.tables import AnalysisRunRow, FindingRow, StudyRow, WithdrawalRow

log = structlog.get_logger()

_LONGEST_NAME = 160
_UNSENT = (MessageState.WAITING, MessageState.HELD, MessageState.SENDING)
_NO_LONGER_SPEAKS = (NotificationState.WITHDRAWN, NotificationState.SUPPRESSED)


class NotificationError(TriageError):
    """Nothing was changed about a notification; the message says why."""


class UnknownNotificationError(NotificationError):
    """There is no notification of this number."""


def raise_notifications(
    session: Session,
    run_id: int,
    findings: Iterable[Finding],
    settings: NotificationSettings,
    *,
    now: datetime,
) -> None:
    """Make the notifications that the rules want of a run's findings, in the flag's transaction.

    The run must count: what a shadow model says is for nobody's ears. A fault of ours here takes
    back what was made here and nothing else, so that the flag stands; it is in the study's history.
    """
    if not settings.rules:
        return
    run = session.get_one(AnalysisRunRow, run_id)
    try:
        with session.begin_nested():
            _raise(session, run, findings, settings, now)
    except Exception as fault:  # noqa: BLE001 - telling people must never take back the flag
        log.error("notification.fault", run=run_id, error=type(fault).__name__)
        said = f"nobody could be notified: a fault of Triage ({type(fault).__name__}); report this"
        note(session, run.study_id, "not-notified", said, at=now, run_id=run_id)


def _raise(
    session: Session,
    run: AnalysisRunRow,
    findings: Iterable[Finding],
    settings: NotificationSettings,
    now: datetime,
) -> None:
    study = session.scalars(
        select(StudyRow)
        .where(StudyRow.id == run.study_id)
        .with_for_update(key_share=True, of=StudyRow)
    ).one()
    place = FoundIn(run.model.name, tuple(study.modalities.split("\\")), study.location)
    for finding in findings:
        rule = settings.rule_for(finding, place)
        if rule is not None and not _is_known(session, run, finding, now):
            row = _new_row(run, finding, rule.name, now)
            session.add(row)
            session.flush()
            add_event(session, row, "raised", f"{row.said}, {row.model}, rule {rule.name}", now)


def _new_row(run: AnalysisRunRow, finding: Finding, rule: str, now: datetime) -> NotificationRow:
    return NotificationRow(
        study_id=run.study_id,
        run_id=run.id,
        finding_key=finding.key,
        finding_class=finding_class(finding),
        title=finding.code.meaning,
        said=finding.in_words(),
        model=f"{run.model.name} {run.model.version}",
        priority=finding.priority,
        rule=rule,
        due_at=now,
        created_at=now,
    )


def finding_class(finding: Finding) -> str:
    """Return what counts as the same finding whichever model says it: its code."""
    return f"{finding.code.scheme} {finding.code.value}"


def _is_known(session: Session, run: AnalysisRunRow, finding: Finding, now: datetime) -> bool:
    """Return whether people were told, or this run was decided on; say so on the time line."""
    rows = session.scalars(
        select(NotificationRow)
        .where(
            NotificationRow.study_id == run.study_id,
            NotificationRow.finding_class == finding_class(finding),
        )
        .order_by(NotificationRow.id)
    ).all()
    speaking = [row for row in rows if row.state not in _NO_LONGER_SPEAKS]
    for row in speaking:
        if row.run_id != run.id:
            row.run_id, row.finding_key = run.id, finding.key
            said = f"{run.model.name} {run.model.version} says it too: not told again"
            add_event(session, row, "found-again", f"{finding.in_words()}; {said}", now)
    return bool(speaking) or any(row.run_id == run.id for row in rows)


def acknowledge(
    session: Session, number: int, *, who: str, via: str, now: datetime
) -> NotificationRow:
    """Note that a person has seen it; the first who says so counts, and nobody else is told.

    Saying it twice changes nothing, so that a repeated request does no harm.

    Raises:
        UnknownNotificationError: there is no such notification.
        NotificationError: it was taken back, or never told.
    """
    row = locked(session, number)
    if row.acknowledged_at is not None:
        return row
    if row.state in _NO_LONGER_SPEAKS:
        raise NotificationError(
            f"notification {number} is {row.state.value}: {row.reason or 'nobody was told'}; "
            "there is nothing to acknowledge"
        )
    change_state(row, NotificationState.ACKNOWLEDGED)
    row.acknowledged_at = row.closed_at = now
    row.acknowledged_by, row.acknowledged_via = who[:_LONGEST_NAME], via[:64]
    row.due_at = None
    row.reason = f"acknowledged by {row.acknowledged_by}"
    cancel_unsent(row)
    add_event(session, row, "acknowledged", f"by {row.acknowledged_by} ({via})", now, who=who)
    said = f"{row.title}: acknowledged by {row.acknowledged_by}"
    note(session, row.study_id, "acknowledged", said, at=now, run_id=row.run_id)
    return row


def take_back_of_run(session: Session, run_id: int, because: str, *, now: datetime) -> None:
    """Take back what people were told of a run whose result a person withdrew.

    Where the result of another model says the same and stands, it stays, as that one's.
    """
    rows = session.scalars(
        select(NotificationRow).where(
            NotificationRow.run_id == run_id,
            NotificationRow.state != NotificationState.WITHDRAWN,
        )
    ).all()
    for row in rows:
        other = _other_that_says_so(session, row)
        if other is None:
            _take_back(session, row, because, now)
        else:
            row.run_id, row.finding_key = other.run_id, other.key
            said = f"{because}; {other.run.model.name} says it too, so it stays"
            add_event(session, row, "found-again", said, now)


def take_back_of_finding(
    session: Session, run: AnalysisRunRow, key: str, because: str, *, now: datetime
) -> None:
    """Take back what people were told of a finding that a radiologist finds wrong."""
    rows = session.scalars(
        select(NotificationRow).where(
            NotificationRow.study_id == run.study_id,
            NotificationRow.state != NotificationState.WITHDRAWN,
        )
    ).all()
    if not rows:
        return
    found = session.scalars(
        select(FindingRow).where(FindingRow.run_id == run.id, FindingRow.key == key)
    ).one()
    wrong = finding_class(Finding.model_validate(found.content))
    for row in rows:
        if row.finding_class == wrong:
            _take_back(session, row, because, now)


def _other_that_says_so(session: Session, row: NotificationRow) -> FindingRow | None:
    of_model = session.get_one(AnalysisRunRow, row.run_id).model_id
    found = session.scalars(
        select(FindingRow)
        .join(AnalysisRunRow, AnalysisRunRow.id == FindingRow.run_id)
        .outerjoin(WithdrawalRow, WithdrawalRow.run_id == AnalysisRunRow.id)
        .where(
            AnalysisRunRow.study_id == row.study_id,
            AnalysisRunRow.model_id != of_model,
            FindingRow.present.is_(True),
            WithdrawalRow.id.is_(None),
        )
        .order_by(AnalysisRunRow.id.desc())
    ).all()
    for one in found:
        same = finding_class(Finding.model_validate(one.content)) == row.finding_class
        if same and one.run.stage.counts:
            return one
    return None


def _take_back(session: Session, row: NotificationRow, because: str, now: datetime) -> None:
    row = locked(session, row.id)
    change_state(row, NotificationState.WITHDRAWN)
    row.reason, row.due_at, row.closed_at = because, None, now
    reached = {(m.recipient, m.channel) for m in row.messages if _may_have_arrived(m)}
    cancel_unsent(row)
    for recipient, channel in sorted(reached):
        row.messages.append(
            NotificationMessageRow(
                kind=MessageKind.RETRACTION,
                step=row.steps,
                recipient=recipient,
                channel=channel,
                state=MessageState.SENT if channel == BROWSER else MessageState.WAITING,
                created_at=now,
                due_at=now,
                sent_at=now if channel == BROWSER else None,
            )
        )
    told = ", ".join(sorted({recipient for recipient, _ in reached})) or "nobody had been told"
    add_event(session, row, "withdrawn", f"{because}; told so: {told}", now)
    text = f"{row.title}: notification taken back"
    note(session, row.study_id, "withdrawn", text, at=now, run_id=row.run_id)


def _may_have_arrived(message: NotificationMessageRow) -> bool:
    return message.kind is MessageKind.ALERT and (
        message.state is MessageState.SENT or message.attempts > 0
    )


def cancel_unsent(row: NotificationRow) -> None:
    """Send nothing more of it; an attempt that is under way may still arrive."""
    for message in row.messages:
        if message.state in _UNSENT:
            message.state = MessageState.CANCELLED


def change_state(row: NotificationRow, following: NotificationState) -> None:
    """Let it be in another state.

    Raises:
        IllegalNotificationChangeError: that state cannot follow.
    """
    check_change(row.id, row.state, following)
    row.state = following


def locked(session: Session, number: int) -> NotificationRow:
    """Return a notification that nobody else changes in this transaction.

    Raises:
        UnknownNotificationError: there is none of this number.
    """
    row = session.scalars(
        select(NotificationRow)
        .where(NotificationRow.id == number)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).first()
    if row is None:
        raise UnknownNotificationError(f"there is no notification {number}")
    return row


def add_event(
    session: Session, row: NotificationRow, kind: str, text: str, at: datetime, *, who: str = ""
) -> None:
    """Add a line to its time line; `kind` is one of those that NotificationEventRow lists."""
    session.add(
        NotificationEventRow(
            notification_id=row.id, at=at, kind=kind, who=who[:_LONGEST_NAME], text=text
        )
    )


def snooze(session: Session, recipient: str, *, until: datetime, who: str, now: datetime) -> None:
    """Leave a person in peace until a moment; one that is past ends the snooze."""
    row = session.get(NotificationSnoozeRow, recipient)
    if row is None:
        row = NotificationSnoozeRow(recipient=recipient)
        session.add(row)
    row.until, row.at, row.who = until, now, who[:_LONGEST_NAME]


def snoozed_until(session: Session, recipients: Sequence[str]) -> dict[str, datetime]:
    """Return until when those who asked for it are left in peace; it may be past."""
    rows = session.scalars(
        select(NotificationSnoozeRow).where(NotificationSnoozeRow.recipient.in_(recipients))
    )
    return {row.recipient: row.until for row in rows}
