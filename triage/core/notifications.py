"""The life of a notification to people, and when one may be told at once.

Telling people supports the worklist and replaces nothing of it: the study is moved up whether or
not anybody can be told. See docs/administrator.md, "Notifications to people".
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from triage.core.priority import Priority

AN_HOUR = timedelta(hours=1)


class NotificationState(StrEnum):
    """Where a notification of one finding class of one study stands.

    PENDING is made with the flag, and nobody was told yet. SENT has reached somebody of the first
    step, ESCALATED a later one. ACKNOWLEDGED has been seen by a person who said so. SUPPRESSED was
    told nobody, for a stated reason. EXPIRED needs nobody any more: the study was read, or nobody
    acknowledged in time. WITHDRAWN was taken back with the result that it was about.
    """

    PENDING = "pending"
    SENT = "sent"
    ACKNOWLEDGED = "acknowledged"
    ESCALATED = "escalated"
    SUPPRESSED = "suppressed"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"

    @property
    def is_open(self) -> bool:
        """Whether somebody is still to acknowledge it."""
        return self in OPEN_STATES


_S = NotificationState
OPEN_STATES = frozenset({_S.PENDING, _S.SENT, _S.ESCALATED})
_NEXT: dict[NotificationState, frozenset[NotificationState]] = {
    _S.PENDING: frozenset(
        {_S.SENT, _S.ESCALATED, _S.ACKNOWLEDGED, _S.SUPPRESSED, _S.EXPIRED, _S.WITHDRAWN}
    ),
    _S.SENT: frozenset({_S.ESCALATED, _S.ACKNOWLEDGED, _S.EXPIRED, _S.WITHDRAWN}),
    _S.ESCALATED: frozenset({_S.ESCALATED, _S.ACKNOWLEDGED, _S.EXPIRED, _S.WITHDRAWN}),
    _S.ACKNOWLEDGED: frozenset({_S.WITHDRAWN}),
    _S.SUPPRESSED: frozenset({_S.WITHDRAWN}),
    _S.EXPIRED: frozenset({_S.ACKNOWLEDGED, _S.WITHDRAWN}),  # somebody sees it late after all
    _S.WITHDRAWN: frozenset(),
}


class IllegalNotificationChangeError(Exception):
    """A notification was asked to change to a state that cannot follow its present one."""


def check_change(
    notification: object, current: NotificationState, following: NotificationState
) -> None:
    """Raise unless a notification in state `current` may become `following`.

    Raises:
        IllegalNotificationChangeError: names the notification and both states.
    """
    if following not in _NEXT[current]:
        raise IllegalNotificationChangeError(
            f"notification {notification} is {current}; it cannot become {following}"
        )


class MessageKind(StrEnum):
    """What a message to one person says: a finding, or that it is taken back."""

    ALERT = "alert"
    RETRACTION = "retraction"


class MessageState(StrEnum):
    """Where a message to one person over one channel stands.

    HELD waits for the person's digest. CANCELLED is not to be sent any more: somebody acknowledged,
    or the result was taken back. DEAD has failed for good.
    """

    WAITING = "waiting"
    HELD = "held"
    SENDING = "sending"
    SENT = "sent"
    CANCELLED = "cancelled"
    DEAD = "dead"


class HoldReason(StrEnum):
    """Why a message waits for the digest."""

    MODEL = "the model's positive predictive value is under the floor"
    QUIET_HOURS = "quiet hours"
    SNOOZED = "snoozed"
    LIMIT = "as many as one person is told in an hour"

    @property
    def delays_escalation(self) -> bool:
        """Whether the time to acknowledge begins with the digest.

        Whoever has had too many at once is no reason to let a patient wait: then it goes on.
        """
        return self is not HoldReason.LIMIT


@dataclass(frozen=True, slots=True)
class QuietRules:
    """How many messages a person gets, and which priorities know no quiet.

    Attributes:
        maximum_per_hour: notifications that a person is told at once within any hour.
        digest_after: how long what is over the limit waits for its digest.
        always_at_once: priorities for which neither limit, quiet hours nor snooze hold.
    """

    maximum_per_hour: int
    digest_after: timedelta
    always_at_once: Collection[Priority]


@dataclass(frozen=True, slots=True)
class Telling:
    """When a person is told: at once, or in a digest at `due_at` for a reason."""

    due_at: datetime
    held: HoldReason | None = None


@dataclass(frozen=True, slots=True)
class Reachable:
    """A person as the quiet rules look at one.

    Attributes:
        told_at: when they were told of other notifications, in any order.
        quiet_until: the end of their quiet hours, where it is in them now.
        snoozed_until: the end of their snooze, where they asked for one.
    """

    told_at: Sequence[datetime] = ()
    quiet_until: datetime | None = None
    snoozed_until: datetime | None = None


def telling(
    person: Reachable,
    priority: Priority,
    rules: QuietRules,
    *,
    is_model_trusted: bool,
    now: datetime,
) -> Telling:
    """Return when a person is told of a finding of `priority`, and why not at once.

    >>> from datetime import UTC
    >>> now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> rules = QuietRules(1, timedelta(hours=1), {Priority.STAT})
    >>> busy = Reachable(told_at=[now - timedelta(minutes=5)])
    >>> telling(busy, Priority.HIGH, rules, is_model_trusted=True, now=now).held.name
    'LIMIT'
    >>> telling(busy, Priority.STAT, rules, is_model_trusted=True, now=now).held is None
    True
    """
    if not is_model_trusted:
        return Telling(now + rules.digest_after, HoldReason.MODEL)
    if priority in rules.always_at_once:
        return Telling(now)
    if person.quiet_until is not None and person.quiet_until > now:
        return Telling(person.quiet_until, HoldReason.QUIET_HOURS)
    if person.snoozed_until is not None and person.snoozed_until > now:
        return Telling(person.snoozed_until, HoldReason.SNOOZED)
    if sum(at > now - AN_HOUR for at in person.told_at) >= rules.maximum_per_hour:
        return Telling(now + rules.digest_after, HoldReason.LIMIT)
    return Telling(now)


def wait_begins(tellings: Collection[Telling], now: datetime) -> datetime | None:
    """Return from when on the time to acknowledge a step counts; None: nothing escalates.

    It is None where the model is not trusted: then a digest is all that people get.
    """
    if any(one.held is HoldReason.MODEL for one in tellings):
        return None
    begins = [
        one.due_at if one.held is not None and one.held.delays_escalation else now
        for one in tellings
    ]
    return min(begins, default=now)
