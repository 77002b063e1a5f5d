"""The short way into the index, for all but the first image of a series.

`triage.store.studies.record_instance` does everything that an instance may ask for: it makes
patient, study and series, reopens a study, keeps what conflicts. Nearly every instance asks for
none of that. Here such instances are recorded with three statements for all that are committed
together; what asks for more is told apart, and goes the long way in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import Connection, Table, bindparam, insert, select, update

from triage.core.runs import StudyState
from triage.store.studies import ReceivedInstance, instance_values
from triage.store.tables import InstanceRow, StudyRow

# Tables and a connection instead of mapped classes and a session: half the time of each statement.
_STUDIES = cast(Table, StudyRow.__table__)
_INSTANCES = cast(Table, InstanceRow.__table__)

# The study is locked and seen to be open by one statement: an image may not slip into a study that
# is becoming complete at this moment.
_TOUCH_STUDY = (
    update(_STUDIES)
    .where(_STUDIES.c.id == bindparam("study_id"), _STUDIES.c.state == StudyState.RECEIVING)
    .values(last_instance_at=bindparam("at"))
)
_SELECT_KNOWN = select(_INSTANCES.c.sop_instance_uid).where(
    _INSTANCES.c.sop_instance_uid.in_(bindparam("uids", expanding=True))
)
_INSERT = insert(_INSTANCES)


@dataclass(frozen=True, slots=True)
class KnownSeries:
    """Where the instances of a series that is in the index already belong."""

    study_id: int
    series_id: int


def record_in_known_series(
    connection: Connection, arrived: Sequence[tuple[ReceivedInstance, KnownSeries]]
) -> list[bool]:
    """Index instances of known series and return, for each, whether that was all it needed.

    False means that nothing was written of it: its study is not open any more, or its SOP Instance
    UID is there already (or twice in `arrived`). `record_instance` knows what to do then.
    """
    open_studies = _touch_studies(connection, arrived)
    seen = _known_uids(connection, arrived)
    rows = []
    outcomes = []
    for received, known in arrived:
        is_new = received.sop_instance_uid not in seen
        is_plain = is_new and known.study_id in open_studies
        if is_plain:
            seen.add(received.sop_instance_uid)
            rows.append(instance_values(received, known.series_id, conflicts_with=None))
        outcomes.append(is_plain)
    if rows:
        connection.execute(_INSERT, rows)
    return outcomes


def _touch_studies(
    connection: Connection, arrived: Sequence[tuple[ReceivedInstance, KnownSeries]]
) -> set[int]:
    newest: dict[int, datetime] = {}
    for received, known in arrived:
        at = newest.get(known.study_id, received.received_at)
        newest[known.study_id] = max(at, received.received_at)
    open_studies = set()
    for study_id in sorted(newest):
        touched = connection.execute(_TOUCH_STUDY, {"study_id": study_id, "at": newest[study_id]})
        if touched.rowcount == 1:
            open_studies.add(study_id)
    return open_studies


def _known_uids(
    connection: Connection, arrived: Sequence[tuple[ReceivedInstance, KnownSeries]]
) -> set[str]:
    uids = [received.sop_instance_uid for received, _ in arrived]
    return set(connection.scalars(_SELECT_KNOWN, {"uids": uids}))
