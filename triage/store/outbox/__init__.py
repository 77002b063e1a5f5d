"""The outbox: what carries result objects and notices to their destinations.

`objects` indexes what runs left, `routing` says who gets what, `queueing` and `notices` queue it in
`rows`, `due` is what the worker claims, and `attempts` are those that failed.
"""

from triage.store.outbox.attempts import FailedAttempt, failed_attempts
from triage.store.outbox.due import (
    SAYING,
    DueDelivery,
    claim_due_delivery,
    is_delivery_due,
    label_of,
    mark_delivered,
    mark_not_delivered,
    release_all_sending,
    withdraw_unsent,
)
from triage.store.outbox.notices import (
    CORRECTION,
    has_notices_to_queue,
    queue_corrections,
    queue_priority_notices,
    queue_withdrawal_notices,
)
from triage.store.outbox.objects import NewResultObject
from triage.store.outbox.queueing import (
    add_result_objects,
    add_returned_object,
    add_withdrawal_objects,
)
from triage.store.outbox.rows import may_have_arrived, not_sent_with, told_of_result

__all__ = [
    "CORRECTION",
    "SAYING",
    "DueDelivery",
    "FailedAttempt",
    "NewResultObject",
    "add_result_objects",
    "add_returned_object",
    "add_withdrawal_objects",
    "claim_due_delivery",
    "failed_attempts",
    "has_notices_to_queue",
    "is_delivery_due",
    "label_of",
    "mark_delivered",
    "mark_not_delivered",
    "may_have_arrived",
    "not_sent_with",
    "queue_corrections",
    "queue_priority_notices",
    "queue_withdrawal_notices",
    "release_all_sending",
    "told_of_result",
    "withdraw_unsent",
]
