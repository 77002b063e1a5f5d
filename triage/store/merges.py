"""Which Patient ID took the place of which."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.orders import PatientIdentifier
from triage.store.order_tables import PatientMergeRow

_LONGEST_CHAIN = 20


def survivor_of(session: Session, identifier: PatientIdentifier) -> PatientIdentifier:
    """Return the identifier that is used now; `identifier` itself where nothing was merged."""
    current, seen = identifier, {identifier}
    for _ in range(_LONGEST_CHAIN):
        merge = session.scalar(
            select(PatientMergeRow).where(
                PatientMergeRow.retired_id == current.value[:128],
                PatientMergeRow.retired_issuer == current.issuer[:128],
            )
        )
        if merge is None:
            break
        following = PatientIdentifier(merge.survivor_id, merge.survivor_issuer)
        if following in seen:
            break
        seen.add(following)
        current = following
    return current
