"""One delivery after another: claimed, sent, and its outcome written, whatever it is."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import timedelta

import structlog

from triage.core.backoff import pause_s
from triage.results.delivery.ways import send_notice, send_object
from triage.results.errors import DeliveryError
from triage.settings import (
    Destination,
    DicomDestination,
    NoticeDestination,
    ObjectDestination,
    ResultSettings,
    Settings,
)
from triage.store.clock import Clock
from triage.store.commitments import request_commitment_of_delivery
from triage.store.database import Database
from triage.store.files import InstanceFiles
from triage.store.notices import read_notice
from triage.store.outbox import (
    DueDelivery,
    claim_due_delivery,
    has_notices_to_queue,
    is_delivery_due,
    mark_delivered,
    mark_not_delivered,
    not_sent_with,
    queue_priority_notices,
    queue_withdrawal_notices,
)

log = structlog.get_logger()

Random = Callable[[], float]
"""Where jitter comes from: a number from 0 up to but not including 1, as `random.random`."""

_LEASE_MARGIN_S = 30.0
_LONGEST_REQUESTED_WAIT = timedelta(hours=1)
_WAITS_OF_ONE_ATTEMPT = 4  # connect, associate, store, release


def retry_after(
    attempt: int, settings: ResultSettings, random: Random, requested: timedelta | None = None
) -> timedelta:
    """Return how long to wait after the failed `attempt`, counted from 1.

    Doubles from `first_retry_s` up to `longest_retry_s`, then is scattered down to half of that, so
    that what failed together does not come again together. It is never less than the destination
    asks for (Retry-After, RFC 9110 10.2.3), of which up to an hour counts.

    >>> retry_after(3, ResultSettings(first_retry_s=2), random=lambda: 1.0)
    datetime.timedelta(seconds=8)
    >>> asked = timedelta(seconds=90)
    >>> retry_after(3, ResultSettings(first_retry_s=2), random=lambda: 1.0, requested=asked)
    datetime.timedelta(seconds=90)
    """
    longest = pause_s(attempt, first_s=settings.first_retry_s, longest_s=settings.longest_retry_s)
    wait_s = longest * (0.5 + 0.5 * random())
    return max(timedelta(seconds=wait_s), min(requested or timedelta(), _LONGEST_REQUESTED_WAIT))


def deliver_next(
    database: Database,
    settings: Settings,
    files: InstanceFiles,
    clock: Clock,
    random: Random,
    *,
    destination: str | None = None,
    other_than: Collection[str] = (),
) -> bool:
    """Send the delivery that is due and oldest; return whether there was one.

    The outcome is written whatever it is: delivered, waiting for its next attempt, or dead with a
    message for the person who can mend it. `destination` and `other_than` choose whose deliveries
    are looked at, see `triage.store.outbox.claim_due_delivery`.
    """
    with database.reading() as session:  # most rounds find nothing, and need no writer's lock
        if not is_delivery_due(
            session, now=clock(), destination=destination, other_than=other_than
        ):
            return False
    longest_wait_s = max((d.timeout_s for d in settings.destinations), default=0.0)
    lease = timedelta(seconds=_WAITS_OF_ONE_ATTEMPT * longest_wait_s + _LEASE_MARGIN_S)
    with database.transaction() as session:
        due = claim_due_delivery(
            session, lease=lease, now=clock(), destination=destination, other_than=other_than
        )
    if due is None:
        return False
    try:
        receiver = _destination_of(due, settings)
        _send(due, receiver, database, files, settings)
    except Exception as fault:  # noqa: BLE001 - a fault of ours must not go round for ever
        error = _as_delivery_error(fault, due)
        is_last = error.is_permanent or due.attempt >= settings.results.maximum_delivery_attempts
        pause = retry_after(due.attempt, settings.results, random, error.retry_after)
        wait = None if is_last else pause
        with database.transaction() as session:
            mark_not_delivered(session, due, str(error), retry_after=wait, now=clock())
        return True
    with database.transaction() as session:
        mark_delivered(session, due, now=clock())
        if isinstance(receiver, DicomDestination) and receiver.storage_commitment:
            request_commitment_of_delivery(session, due, now=clock())
    return True


def _as_delivery_error(fault: Exception, due: DueDelivery) -> DeliveryError:
    if isinstance(fault, DeliveryError):
        return fault
    # Only where it happened: the words of the fault may hold patient data.
    log.error("delivery.fault", delivery=due.delivery_id, error=type(fault).__name__)
    return DeliveryError(
        f"Triage failed while sending it ({type(fault).__name__}); report this", is_permanent=False
    )


def queue_notices(database: Database, settings: Settings, clock: Clock) -> None:
    """Put the notices of what has happened since the last call into the outbox."""
    with database.reading() as session:  # as in `deliver_next`
        if not has_notices_to_queue(session):
            return
    with database.transaction() as session:
        queue_priority_notices(session, settings.destinations, now=clock())
        queue_withdrawal_notices(session, settings.destinations, now=clock())


def _send(
    due: DueDelivery,
    destination: Destination,
    database: Database,
    files: InstanceFiles,
    settings: Settings,
) -> None:
    if due.is_object and isinstance(destination, ObjectDestination):
        absent: frozenset[str] = frozenset()
        if destination.deidentify != "none" and due.run_id is not None:
            with database.reading() as session:
                absent = not_sent_with(session, due.run_id, destination.name)
        send_object(due, destination, files, settings, absent)
        return
    if not due.is_object and isinstance(destination, NoticeDestination):
        with database.reading() as session:
            notice = read_notice(session, due)
        send_notice(notice, destination, settings)
        return
    what = "object" if due.is_object else "notice"
    raise DeliveryError(
        f"{destination.name} is now of kind {destination.kind}, which takes no {what}; give it "
        "another name and let this one be, or change its kind back and resend",
        is_permanent=True,
    )


def _destination_of(due: DueDelivery, settings: Settings) -> Destination:
    for destination in settings.destinations:
        if destination.name == due.destination:
            return destination
    raise DeliveryError(
        f"no destination named {due.destination!r} is configured any more; configure it again and "
        "resend, or leave it",
        is_permanent=True,
    )
