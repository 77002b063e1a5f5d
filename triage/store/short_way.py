"""The short way into the index, for all but the first image of a study.

`triage.store.studies.record_instance` does everything that an instance may ask for: it makes
patient and study, reopens a study, keeps what conflicts. Nearly every instance asks for none of
that. Here such instances are recorded with a few statements for what is committed together, on the
driver's own cursor: SQLAlchemy's part of such a statement is ten times the database's. What asks
for more is told apart, and goes the long way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    Dialect,
    Insert,
    Table,
    bindparam,
    case,
    exists,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.sql.compiler import SQLCompiler

from triage.core.runs import StudyState
from triage.store.clock import Clock
from triage.store.database import Database
from triage.store.studies import (
    ReceivedInstance,
    hold_values,
    instance_values,
    series_values,
    with_body_part,
    with_modality,
)
from triage.store.tables import InstanceRow, OpenAssociationRow, SeriesRow, StudyRow

_STUDIES = cast(Table, StudyRow.__table__)
_SERIES = cast(Table, SeriesRow.__table__)
_INSTANCES = cast(Table, InstanceRow.__table__)
_HOLDS = cast(Table, OpenAssociationRow.__table__)


def _insert_unless(found: ColumnElement[bool], table: Table, left_empty: set[str]) -> Insert:
    """Return a statement that adds a row of `new_…` values, unless something is found."""
    columns = [column for column in table.c if column.name not in left_empty]
    row = select(*(bindparam(f"new_{column.name}", type_=column.type) for column in columns))
    return insert(table).from_select([column.name for column in columns], row.where(~found))


# With its type: as a result of CASE, SQLAlchemy would not know it, and leave it to the driver.
_AT = bindparam("at", type_=_STUDIES.c.last_instance_at.type)
_LATEST = case((_STUDIES.c.last_instance_at < _AT, _AT), else_=_STUDIES.c.last_instance_at)
# A study is locked and seen to be open by one statement: an image may not slip into a study that
# is becoming complete at this moment.
_TOUCH_STUDY = (
    update(_STUDIES)
    .where(_STUDIES.c.id == bindparam("study"), _STUDIES.c.state == StudyState.RECEIVING)
    .values(last_instance_at=_LATEST)
)
_ENTER_STUDY = (
    update(_STUDIES)
    .where(
        _STUDIES.c.study_instance_uid == bindparam("uid"),
        _STUDIES.c.state == StudyState.RECEIVING,
        _STUDIES.c.forgotten_at.is_(None),
        or_(_STUDIES.c.is_prior.is_(False), bindparam("as_prior", type_=_STUDIES.c.is_prior.type)),
    )
    .values(last_instance_at=_LATEST)
    .returning(_STUDIES.c.id, _STUDIES.c.modalities, _STUDIES.c.body_parts)
)
_DESCRIBE_STUDY = (
    update(_STUDIES)
    .where(_STUDIES.c.id == bindparam("study"))
    .values(modalities=bindparam("all_modalities"), body_parts=bindparam("all_body_parts"))
)
_FIND_SERIES = select(_SERIES.c.id).where(
    _SERIES.c.study_id == bindparam("study"), _SERIES.c.series_instance_uid == bindparam("uid")
)
_ADD_SERIES = (
    insert(_SERIES)
    .values({c.name: bindparam(f"new_{c.name}") for c in _SERIES.c if c.name != "id"})
    .returning(_SERIES.c.id)
)
_HOLD_OPEN = _insert_unless(
    exists().where(
        _HOLDS.c.association == bindparam("new_association"),
        _HOLDS.c.study_id == bindparam("new_study_id"),
    ),
    _HOLDS,
    left_empty={"id"},
)
_ADD_INSTANCE = _insert_unless(
    exists().where(_INSTANCES.c.sop_instance_uid == bindparam("new_sop_instance_uid")),
    _INSTANCES,
    left_empty={"id", "conflicts_with", "purged_at"},
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance belongs."""

    study_id: int
    series_id: int


@dataclass(frozen=True, slots=True)
class Arrived:
    """An instance, the association that it came in, and its place if that is known.

    A place is known where an instance of the same series and modality was committed before, and
    the association is noted to hold the study open.
    """

    received: ReceivedInstance
    association: str
    place: Place | None


class ShortWay:
    """Records instances of studies that are arriving, on one database."""

    def __init__(self, database: Database, receiver_name: str, clock: Clock) -> None:
        """Prepare; `receiver_name` is who holds studies open."""
        self._database = database
        self._receiver_name = receiver_name
        self._clock = clock
        dialect = database.engine.dialect
        self._touch_study = _Statement(_TOUCH_STUDY, dialect)
        self._enter_study = _Statement(_ENTER_STUDY, dialect)
        self._describe_study = _Statement(_DESCRIBE_STUDY, dialect)
        self._find_series = _Statement(_FIND_SERIES, dialect)
        self._add_series = _Statement(_ADD_SERIES, dialect)
        self._hold_open = _Statement(_HOLD_OPEN, dialect)
        self._add_instance = _Statement(_ADD_INSTANCE, dialect)

    def record(self, arrived: Sequence[Arrived], *, is_durable: bool) -> list[Place | None]:
        """Index and commit what asks for nothing special; return the place of each instance.

        None is the place of an instance of which nothing was written, for `record_instance` to do
        what it asks for: its study is new, or not open any more. All are None if one of them has a
        SOP Instance UID that is there already (or twice in `arrived`).

        Args:
            arrived: the instances, those of a study side by side. Studies are locked in the order
                in which they come.
            is_durable: whether the commit waits for the disk.

        Raises:
            Exception: what the driver raises; nothing was written then.
        """
        places: list[Place | None] = []
        with self._database.cursor(is_durable=is_durable) as cursor:
            for _, of_study in groupby(arrived, key=_study_instance_uid):
                places += self._places(cursor, list(of_study))
            rows = [
                self._add_instance.parameters(_instance(one.received, place.series_id))
                for one, place in zip(arrived, places, strict=True)
                if place is not None
            ]
            if rows:
                cursor.executemany(self._add_instance.text, rows)
                if cursor.rowcount != len(rows):
                    cursor.connection.rollback()
                    return [None] * len(arrived)
        return places

    def _places(self, cursor: Any, arrived: Sequence[Arrived]) -> Sequence[Place | None]:
        """Lock the study that `arrived` are of, if it is open, and return their places."""
        places = [one.place for one in arrived if one.place is not None]
        if len(places) < len(arrived):
            return self._new_places(cursor, arrived)
        values = {"study": places[0].study_id, "at": _latest(arrived)}
        cursor.execute(*self._touch_study.with_values(values))
        return places if cursor.rowcount == 1 else [None] * len(arrived)

    def _new_places(self, cursor: Any, arrived: Sequence[Arrived]) -> Sequence[Place | None]:
        """Do so where not all places are known: find or make the series, and hold the study."""
        values = {
            "uid": arrived[0].received.study_instance_uid,
            "at": _latest(arrived),
            "as_prior": all(one.received.is_prior for one in arrived),
        }
        cursor.execute(*self._enter_study.with_values(values))
        found = cursor.fetchall()
        if not found:
            return [None] * len(arrived)
        ((study_id, *before),) = found
        modalities, body_parts = before
        series: dict[str, int] = {}
        for received in (one.received for one in arrived):
            modalities = with_modality(modalities, received.modality)
            if received.series_instance_uid not in series:
                series_id, is_new = self._series(cursor, study_id, received)
                series[received.series_instance_uid] = series_id
                if is_new:
                    body_parts = with_body_part(body_parts, received.body_part)
        if [modalities, body_parts] != before:
            described = {
                "study": study_id,
                "all_modalities": modalities,
                "all_body_parts": body_parts,
            }
            cursor.execute(*self._describe_study.with_values(described))
        for association in dict.fromkeys(one.association for one in arrived):
            hold = hold_values(study_id, association, self._receiver_name, self._clock())
            cursor.execute(*self._hold_open.with_values(_new(hold)))
        return [Place(study_id, series[one.received.series_instance_uid]) for one in arrived]

    def _series(self, cursor: Any, study_id: int, received: ReceivedInstance) -> tuple[int, bool]:
        """Return the row of the instance's series, and whether it was made just now."""
        sought = {"study": study_id, "uid": received.series_instance_uid}
        cursor.execute(*self._find_series.with_values(sought))
        known = cursor.fetchall()
        if not known:
            values = series_values(received, study_id)
            cursor.execute(*self._add_series.with_values(_new(values)))
            return cursor.fetchall()[0][0], True
        return known[0][0], False


class _Statement:
    """A statement in the words of a driver, and its values in the driver's types."""

    def __init__(self, statement: ClauseElement, dialect: Dialect) -> None:
        compiled = cast(SQLCompiler, statement.compile(dialect=dialect))
        self.text = str(compiled)
        self._order = compiled.positiontup
        self._constants: dict[str, Any] = {}
        self._processors: list[tuple[str, Callable[[Any], Any]]] = []
        for bind, name in compiled.bind_names.items():
            processor = bind.type.dialect_impl(dialect).bind_processor(dialect)
            if not bind.required:
                value = bind.effective_value
                self._constants[name] = value if processor is None else processor(value)
            elif processor is not None:
                self._processors.append((name, processor))

    def with_values(self, values: Mapping[str, Any]) -> tuple[str, Any]:
        """Return text and parameters, as `execute` takes them."""
        return self.text, self.parameters(values)

    def parameters(self, values: Mapping[str, Any]) -> Any:
        """Return `values` as the driver wants them: in order, or by name."""
        bound = {**self._constants, **values}
        for name, processor in self._processors:
            bound[name] = processor(bound[name])
        return bound if self._order is None else [bound[name] for name in self._order]


def _study_instance_uid(arrived: Arrived) -> str:
    return arrived.received.study_instance_uid


def _latest(arrived: Sequence[Arrived]) -> Any:
    return max(one.received.received_at for one in arrived)


def _instance(received: ReceivedInstance, series_id: int) -> dict[str, Any]:
    return _new(instance_values(received, series_id, conflicts_with=None))


def _new(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"new_{name}": value for name, value in values.items()}
