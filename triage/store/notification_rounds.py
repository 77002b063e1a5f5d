"""Who is told of a notification, and when: each step of its rule, exactly once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Select, exists, or_, select
from sqlalchemy.orm import Session

from triage.core.notifications import (
    AN_HOUR,
    OPEN_STATES,
    MessageKind,
    MessageState,
    NotificationState,
    Reachable,
    Telling,
    telling,
    wait_begins,
)
from triage.settings.notifications import (
    BROWSER,
    NotificationRuleSettings,
    NotificationSettings,
    RecipientSettings,
    StepSettings,
)
from triage.store.claims import claims_on
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.feedback import agreement_by_finding
from triage.store.history import note
from triage.store.leases import take_lease
from triage.store.notification_tables import NotificationMessageRow, NotificationRow
from triage.store.notifications import (
    add_event,
    cancel_unsent,
    change_state,
    locked,
    snoozed_until,
)
from triage.store.tables import AnalysisRunRow, StudyRow
from triage.store.watch import Window

log = structlog.get_logger()

_LEASE_NAME = "notifications"
_LEASE = timedelta(seconds=30)
_MOST_AT_ONCE = 50
_LOOK_AGAIN = timedelta(seconds=15)
NOBODY_IN_TIME = "nobody acknowledged in time"
"""Why a notification is over whose last step passed."""
_READ = "the study was read"
_BEING_READ = "somebody is reading the study"


def notify_round(
    database: Database, settings: NotificationSettings, clock: Clock, *, holder: str
) -> int:
    """Decide on what is due, unless another worker does; return how much was decided on.

    One worker at a time, so that two never count the same hour of a person at once. Each decision
    is a transaction: whoever dies in the middle has decided nothing.
    """
    with database.reading() as session:  # most rounds find nothing, and need no writer's lock
        if session.scalars(_due(clock()).limit(1)).first() is None:
            return 0
    with database.transaction() as session:
        if not take_lease(session, _LEASE_NAME, holder, lease=_LEASE, now=clock()):
            return 0
        due = session.scalars(_due(clock()).limit(_MOST_AT_ONCE)).all()
    for number in due:
        _decide_safely(database, number, settings, clock)
    return len(due)


def _due(now: datetime) -> Select[int]:
    """Return the query of the notifications to be looked at, the most urgent first."""
    is_read = exists(
        select(StudyRow.id).where(
            StudyRow.id == NotificationRow.study_id, StudyRow.read_at.is_not(None)
        )
    )
    has_digest_due = exists(
        select(NotificationMessageRow.id).where(
            NotificationMessageRow.notification_id == NotificationRow.id,
            NotificationMessageRow.channel == BROWSER,
            NotificationMessageRow.state == MessageState.HELD,
            NotificationMessageRow.due_at <= now,
        )
    )
    return (
        select(NotificationRow.id)
        .where(
            or_(
                NotificationRow.state.in_(OPEN_STATES)
                & or_(NotificationRow.due_at <= now, is_read),
                has_digest_due,
            )
        )
        .order_by(NotificationRow.priority.desc(), NotificationRow.id)
    )


def _decide_safely(
    database: Database, number: int, settings: NotificationSettings, clock: Clock
) -> None:
    """Decide on one; a fault of ours with it holds up no other, and is tried again."""
    try:
        with database.transaction() as session:
            _Decision(session, locked(session, number), settings, clock()).make()
    except Exception as fault:  # noqa: BLE001 - the next one must be told
        log.error("notification.fault", notification=number, error=type(fault).__name__)
        with database.transaction() as session:
            row = locked(session, number)
            if row.state.is_open:
                row.due_at = clock() + _LOOK_AGAIN
                said = f"a fault of Triage ({type(fault).__name__}); it is tried again"
                add_event(session, row, "fault", said, clock())


@dataclass(frozen=True, slots=True)
class _Decision:
    """What becomes of one notification now."""

    session: Session
    row: NotificationRow
    settings: NotificationSettings
    now: datetime

    def make(self) -> None:
        """Close it, let it wait, or tell the next step, whichever it is time for."""
        study = self.session.get_one(StudyRow, self.row.study_id)
        if self.row.state.is_open and study.read_at is not None:
            cancel_unsent(self.row)
            self._close(_READ)
            return
        self._show_digests()
        if not self.row.state.is_open or self.row.due_at is None or self.row.due_at > self.now:
            return
        rule = self.settings.rule(self.row.rule)
        if rule is None:
            self._close(f"the rule {self.row.rule} is not configured any more")
        elif self.row.steps >= len(rule.steps):
            self._close(NOBODY_IN_TIME)
        elif self._is_being_read():
            self._wait_for_reader()
        else:
            self._tell(rule, rule.steps[self.row.steps])

    def _close(self, reason: str) -> None:
        """End it: suppressed where nobody is or will be told, else expired.

        What waits for a mail server that is away goes on waiting: it is late, and not lost.
        """
        row = self.row
        is_told = any(m.attempts or m.state is not MessageState.CANCELLED for m in row.messages)
        is_suppressed = row.state is NotificationState.PENDING and not is_told
        following = NotificationState.SUPPRESSED if is_suppressed else NotificationState.EXPIRED
        change_state(row, following)
        row.reason, row.due_at, row.closed_at = reason, None, self.now
        add_event(self.session, row, following.value, reason, self.now)
        kind, said = ("not-notified", "nobody") if is_suppressed else ("notified", "nobody else")
        self._note(kind, f"{row.title}: {said} is told, {reason}")

    def _is_being_read(self) -> bool:
        return bool(claims_on(self.session, [self.row.study_id], self.now))

    def _wait_for_reader(self) -> None:
        """Tell nobody while somebody reads; who gives the study back has not seen it."""
        self.row.due_at = self.now + _LOOK_AGAIN
        if self.row.reason != _BEING_READ:
            self.row.reason = _BEING_READ
            said = f"nobody is told now: {_BEING_READ}"
            add_event(self.session, self.row, "waits", said, self.now)

    def _show_digests(self) -> None:
        for message in self.row.messages:
            is_due = message.state is MessageState.HELD and message.due_at <= self.now
            if is_due and message.channel == BROWSER:
                message.state, message.sent_at = MessageState.SENT, self.now
                mark_told(self.session, self.row, message, self.now)
                self._note("notified", f"{self.row.title}: {message.recipient} told in a digest")

    def _tell(self, rule: NotificationRuleSettings, step: StepSettings) -> None:
        people = self.settings.people_of(step.to, self.now)
        why_not = model_distrust(self.session, self.row, self.settings, self.now)
        tellings = self._tellings(people, is_model_trusted=not why_not)
        number = self.row.steps + 1
        for person, when in tellings:
            for channel in step.channels:
                self._add_message(person.name, channel, number, when)
        begins = wait_begins([when for _, when in tellings], self.now)
        latest = max(when.due_at for _, when in tellings)
        wait = timedelta(seconds=step.escalate_after_s)
        # Without trust in the model there is no next step: it is over when the digest had its time.
        self.row.steps = number if begins is not None else len(rule.steps)
        self.row.due_at = (latest if begins is None else begins) + wait
        self.row.reason = why_not
        if number > 1:
            change_state(self.row, NotificationState.ESCALATED)
        self._say(number, tellings, why_not)
        self._note_browser_told()

    def _tellings(
        self, people: Sequence[RecipientSettings], *, is_model_trusted: bool
    ) -> list[tuple[RecipientSettings, Telling]]:
        names = [person.name for person in people]
        told = told_within_the_hour(self.session, names, self.now)
        snoozes = snoozed_until(self.session, names)
        return [
            (
                person,
                telling(
                    Reachable(
                        told.get(person.name, ()),
                        person.quiet_until(self.now, self.settings.time_zone),
                        snoozes.get(person.name),
                    ),
                    self.row.priority,
                    self.settings.quiet_rules,
                    is_model_trusted=is_model_trusted,
                    now=self.now,
                ),
            )
            for person in people
        ]

    def _add_message(self, recipient: str, channel: str, step: int, when: Telling) -> None:
        is_shown = channel == BROWSER and when.held is None
        at_once = MessageState.SENT if is_shown else MessageState.WAITING
        self.row.messages.append(
            NotificationMessageRow(
                kind=MessageKind.ALERT,
                step=step,
                recipient=recipient,
                channel=channel,
                state=at_once if when.held is None else MessageState.HELD,
                held=when.held.value if when.held else "",
                created_at=self.now,
                due_at=when.due_at,
                sent_at=self.now if is_shown else None,
            )
        )

    def _say(
        self, number: int, tellings: Iterable[tuple[RecipientSettings, Telling]], why_not: str
    ) -> None:
        told = [person.name for person, when in tellings if when.held is None]
        if told:
            said = f"step {number}: {', '.join(told)}"
            add_event(self.session, self.row, "told", said, self.now)
            escalated = "escalated to " if number > 1 else "told "
            self._note("notified", f"{self.row.title}: {escalated}{', '.join(told)}")
        for person, when in tellings:
            if when.held is not None:
                why = why_not or when.held.value
                said = f"step {number}: {person.name} in a digest, {why}"
                add_event(self.session, self.row, "held", said, self.now)
        if not told:
            self._note("not-notified", f"{self.row.title}: told in digests only for now")

    def _note_browser_told(self) -> None:
        for message in self.row.messages:
            if message.state is MessageState.SENT and message.sent_at == self.now:
                mark_told(self.session, self.row, message, self.now)
                return

    def _note(self, kind: str, text: str) -> None:
        note(self.session, self.row.study_id, kind, text, at=self.now, run_id=self.row.run_id)


def mark_told(
    session: Session, row: NotificationRow, message: NotificationMessageRow, now: datetime
) -> None:
    """Note that somebody has been reached."""
    if message.kind is not MessageKind.ALERT:
        return
    row.told_at = row.told_at or now
    if row.state is NotificationState.PENDING:
        change_state(row, NotificationState.SENT)
    if message.channel != BROWSER:
        add_event(session, row, "sent", f"to {message.recipient} by {message.channel}", now)


def told_within_the_hour(
    session: Session, recipients: Sequence[str], now: datetime
) -> dict[str, list[datetime]]:
    """Return when each was told at once, within the last hour: once for each step of each."""
    rows = session.execute(
        select(
            NotificationMessageRow.recipient,
            NotificationMessageRow.notification_id,
            NotificationMessageRow.step,
            NotificationMessageRow.created_at,
        )
        .where(
            NotificationMessageRow.recipient.in_(recipients),
            NotificationMessageRow.created_at > now - AN_HOUR,
            NotificationMessageRow.kind == MessageKind.ALERT,
            NotificationMessageRow.held == "",
        )
        .distinct()
    )
    told: dict[str, list[datetime]] = defaultdict(list)
    for recipient, _, _, at in rows:
        told[recipient].append(at)
    return dict(told)


def model_distrust(
    session: Session, row: NotificationRow, settings: NotificationSettings, now: datetime
) -> str:
    """Return why the model's word is not told at once, by what radiologists said of it; else ""."""
    floor = settings.predictive_value_floor
    if not floor:
        return ""
    model_id = session.get_one(AnalysisRunRow, row.run_id).model_id
    since = now - timedelta(days=settings.predictive_value_days)
    # Up to and with this moment: feedback that was given just now counts.
    window = Window(model_id, since, now + timedelta(microseconds=1))
    agreements = agreement_by_finding(session, window, {}, minimum=1)
    agreement = agreements.get(row.finding_key)
    if agreement is None or agreement.judged.flagged < settings.predictive_value_minimum:
        return ""
    right, flagged = agreement.judged.true_positives, agreement.judged.flagged
    if right / flagged >= floor:
        return ""
    return (
        f"{right} of {flagged} judged positives of {row.model} were right, under the floor of "
        f"{floor:.0%}"
    )
