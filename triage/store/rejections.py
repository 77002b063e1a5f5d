"""Which of the objects that Triage holds were rejected: a program that reads does not find them.

IHE RAD Imaging Object Change Management has an archive hide what a rejection note names (RAD-66,
RAD TF-3 4.66.4.1.3). Triage's own store does as it asks of others: from the moment a person takes a
result back, or, where a newer analysis took its place, from when the rejection note is there.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, exists, or_, select

from triage.core.withdrawals import BARRED_REASONS, WITHDRAWAL_ROLES, WithdrawalState
from triage.store.tables import InstanceRow, ResultObjectRow, WithdrawalRow


def rejects() -> ColumnElement[bool]:
    """Return the condition that a `WithdrawalRow` rejects a `ResultObjectRow`.

    What says that a result is withdrawn is of the same run, and not rejected with it.
    """
    return and_(
        WithdrawalRow.run_id == ResultObjectRow.run_id,
        ResultObjectRow.role.not_in(WITHDRAWAL_ROLES),
        or_(WithdrawalRow.who != "", WithdrawalRow.state == WithdrawalState.DONE),
    )


def is_rejected(instance: Any = InstanceRow, *, barred_only: bool = False) -> ColumnElement[bool]:
    """Return the condition that an instance was rejected.

    Args:
        instance: `InstanceRow`, or an alias of it.
        barred_only: only for a reason for which it is not given to one who names it, either.
    """
    rejected = (
        select(ResultObjectRow.id)
        .join(WithdrawalRow, rejects())
        .where(ResultObjectRow.sop_instance_uid == instance.sop_instance_uid)
    )
    if barred_only:
        rejected = rejected.where(WithdrawalRow.reason.in_(BARRED_REASONS))
    return exists(rejected)
