"""The short way into the index, for all but the first image of a series.

`triage.store.studies.record_instance` does everything that an instance may ask for: it makes
patient, study and series, reopens a study, keeps what conflicts. Nearly every instance asks for
none of that. Here such instances are recorded with two statements for what is committed together,
on the driver's own cursor: SQLAlchemy's part of such a statement is ten times the database's. What
asks for more is told apart, and goes the long way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import ClauseElement, Dialect, Table, bindparam, exists, insert, select, update
from sqlalchemy.sql.compiler import SQLCompiler

from triage.core.runs import StudyState
from triage.store.database import Database
from triage.store.studies import ReceivedInstance, instance_values
from triage.store.tables import InstanceRow, StudyRow

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
_INSERT_UNLESS_KNOWN = insert(_INSTANCES).from_select(
    [column.name for column in _COLUMNS],
    select(*(bindparam(f"new_{column.name}", type_=column.type) for column in _COLUMNS)).where(
        ~exists().where(_INSTANCES.c.sop_instance_uid == bindparam("new_sop_instance_uid"))
    ),
)


@dataclass(frozen=True, slots=True)
class KnownSeries:
    """Where the instances of a series that is in the index already belong."""

    study_id: int
    series_id: int


class ShortWay:
    """Records instances of known series on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        dialect = database.engine.dialect
        self._touch_study = _Statement(_TOUCH_STUDY, dialect)
        self._insert = _Statement(_INSERT_UNLESS_KNOWN, dialect)

    def record(
        self, arrived: Sequence[tuple[ReceivedInstance, KnownSeries]], *, is_durable: bool
    ) -> bool:
        """Index and commit instances of known series; return whether that was all they needed.

        False means that nothing was written: a study is not open any more, or a SOP Instance UID
        is there already (or twice in `arrived`). `record_instance` knows what to do then.

        Raises:
            Exception: what the driver raises; nothing was written either.
        """
        with self._database.cursor(is_durable=is_durable) as cursor:
            for study_id, at in sorted(_newest(arrived).items()):
                cursor.execute(*self._touch_study.with_values({"study": study_id, "at": at}))
                if cursor.rowcount != 1:
                    cursor.connection.rollback()
                    return False
            rows = [self._insert.parameters(_values(*one)) for one in arrived]
            cursor.executemany(self._insert.text, rows)
            if cursor.rowcount != len(rows):
                cursor.connection.rollback()
                return False
        return True


class _Statement:
    """A statement in the words of a driver, and its values in the driver's types."""

    def __init__(self, statement: ClauseElement, dialect: Dialect) -> None:
        compiled = cast(SQLCompiler, statement.compile(dialect=dialect))
        self.text = str(compiled)
        self._constants = compiled.params
        self._order = compiled.positiontup
        self._processors = {
            name: processor
            for bind, name in compiled.bind_names.items()
            if (processor := bind.type.dialect_impl(dialect).bind_processor(dialect)) is not None
        }

    def with_values(self, values: Mapping[str, Any]) -> tuple[str, Any]:
        """Return text and parameters, as `execute` takes them."""
        return self.text, self.parameters(values)

    def parameters(self, values: Mapping[str, Any]) -> Any:
        """Return `values` as the driver wants them: in order, or by name."""
        bound = {**self._constants, **values}
        for name, processor in self._processors.items():
            bound[name] = processor(bound[name])
        return bound if self._order is None else [bound[name] for name in self._order]


def _values(received: ReceivedInstance, known: KnownSeries) -> dict[str, Any]:
    values = instance_values(received, known.series_id, conflicts_with=None)
    del values["conflicts_with"]
    return {f"new_{name}": value for name, value in values.items()}


def _newest(arrived: Sequence[tuple[ReceivedInstance, KnownSeries]]) -> dict[int, datetime]:
    newest: dict[int, datetime] = {}
    for received, known in arrived:
        at = newest.get(known.study_id, received.received_at)
        newest[known.study_id] = max(at, received.received_at)
    return newest
