"""The short way into the index, for all but the first image of a series.

`triage.store.studies.record_instance` does everything that an instance may ask for: it makes
patient, study and series, reopens a study, keeps what conflicts. Nearly every instance asks for
none of that. Here such instances are recorded with two statements for what is committed
together; what asks for more is told apart, and goes the long way in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import Connection, Table, bindparam, exists, insert, select, update

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
    .where(_STUDIES.c.id == bindparam("study"), _STUDIES.c.state == StudyState.RECEIVING)
    .values(last_instance_at=bindparam("at"))
)
_LEFT_EMPTY = {"id", "conflicts_with", "purged_at"}
_COLUMNS = tuple(column for column in _INSTANCES.c if column.name not in _LEFT_EMPTY)
_INSERT_UNLESS_KNOWN = (
    insert(_INSTANCES)
    .execution_options(preserve_rowcount=True)
    .from_select(
        [column.name for column in _COLUMNS],
        select(*(bindparam(f"new_{column.name}", type_=column.type) for column in _COLUMNS)).where(
            ~exists().where(_INSTANCES.c.sop_instance_uid == bindparam("new_sop_instance_uid"))
        ),
    )
)


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
    return [
        known.study_id in open_studies and _insert(connection, received, known)
        for received, known in arrived
    ]


def _insert(connection: Connection, received: ReceivedInstance, known: KnownSeries) -> bool:
    values = instance_values(received, known.series_id, conflicts_with=None)
    del values["conflicts_with"]
    parameters = {f"new_{name}": value for name, value in values.items()}
    return connection.execute(_INSERT_UNLESS_KNOWN, parameters).rowcount == 1


def _touch_studies(
    connection: Connection, arrived: Sequence[tuple[ReceivedInstance, KnownSeries]]
) -> set[int]:
    newest: dict[int, datetime] = {}
    for received, known in arrived:
        at = newest.get(known.study_id, received.received_at)
        newest[known.study_id] = max(at, received.received_at)
    open_studies = set()
    for study_id in sorted(newest):
        touched = connection.execute(_TOUCH_STUDY, {"study": study_id, "at": newest[study_id]})
        if touched.rowcount == 1:
            open_studies.add(study_id)
    return open_studies
