"""Queries over what Triage holds, in pages, at the levels of the Query/Retrieve service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import dictionary_VM, dictionary_VR
from sqlalchemy import ColumnElement, Select, exists, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from triage.core.query import UNIQUE_KEYS, Level, Query, QueryError
from triage.core.studies import IMAGE_HEADER_KEYWORDS
from triage.store.database import Database
from triage.store.matching import matches
from triage.store.rejections import is_rejected
from triage.store.tables import STAND_IN_PREFIX, InstanceRow, PatientRow, SeriesRow, StudyRow

PAGE_SIZE = 200
MOST_INSTANCES = 65535
"""As many as the sub-operation counters of C-MOVE and C-GET can say (US)."""

_COLUMNS: dict[Level, dict[str, InstrumentedAttribute[Any]]] = {
    Level.PATIENT: {
        "PatientID": PatientRow.patient_id,
        "IssuerOfPatientID": PatientRow.issuer,
        "PatientName": PatientRow.name,
        "PatientBirthDate": PatientRow.birth_date,
        "PatientSex": PatientRow.sex,
    },
    Level.STUDY: {
        "StudyInstanceUID": StudyRow.study_instance_uid,
        "StudyDate": StudyRow.study_date,
        "StudyTime": StudyRow.study_time,
        "AccessionNumber": StudyRow.accession_number,
        "StudyDescription": StudyRow.description,
    },
    Level.SERIES: {
        "SeriesInstanceUID": SeriesRow.series_instance_uid,
        "Modality": SeriesRow.modality,
        "SeriesNumber": SeriesRow.number,
        "SeriesDescription": SeriesRow.description,
        "BodyPartExamined": SeriesRow.body_part,
    },
    Level.IMAGE: {
        "SOPInstanceUID": InstanceRow.sop_instance_uid,
        "SOPClassUID": InstanceRow.sop_class_uid,
        "InstanceNumber": InstanceRow.number,
        "AvailableTransferSyntaxUID": InstanceRow.transfer_syntax_uid,
    },
}
_STUDY_HEADERS = ("StudyID", "InstitutionName", "PatientAge")
_SERIES_HEADERS = (
    "ProtocolName",
    "Manufacturer",
    "ManufacturerModelName",
    "StationName",
    "Laterality",
)
_HEADERS: dict[Level, tuple[str, ...]] = {
    Level.PATIENT: (),
    Level.STUDY: _STUDY_HEADERS,
    Level.SERIES: (*_STUDY_HEADERS, *_SERIES_HEADERS),
    Level.IMAGE: IMAGE_HEADER_KEYWORDS,
}
_IDS: dict[Level, InstrumentedAttribute[int]] = {
    Level.PATIENT: PatientRow.id,
    Level.STUDY: StudyRow.id,
    Level.SERIES: SeriesRow.id,
    Level.IMAGE: InstanceRow.id,
}


@dataclass(frozen=True, slots=True)
class HeldInstance:
    """A stored SOP instance, as a retrieval needs it."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    path: str


class TooManyInstancesError(QueryError):
    """More instances match than one retrieval can carry."""


def find(
    database: Database, query: Query, *, skipped: int = 0, newest_first: bool = False
) -> Iterator[dict[str, Any]]:
    """Give the matches of `query`, read in pages: each the values of its keys, by keyword.

    Keys that are not supported at the level are left out (DICOM PS3.4 C.4.1.1.3.2). Results that
    Triage made are among the matches; conflicting duplicates and rejected ones are not.

    Args:
        database: what is asked.
        query: level and keys.
        skipped: how many of the first matches are left out.
        newest_first: give what came last first, instead of in the order of arrival.

    Raises:
        QueryError: a key has a value that no attribute of its VR can have.
    """
    after: int | None = None
    while True:
        place = _Place(after, skipped if after is None else 0, newest_first)
        with database.reading() as session:
            page = _page(session, query, place, is_sqlite=database.is_sqlite)
        for key, values in page:
            after = key
            yield values
        if len(page) < PAGE_SIZE:
            return


def returned_keywords(level: Level) -> frozenset[str]:
    """Return the keywords of the attributes that a match at `level` can have."""
    columns = {k for at in Level if at.depth <= level.depth for k in _COLUMNS[at]}
    collected = {keyword for keyword, (at, _) in _COLLECTED.items() if at is level}
    headers = {keyword for keyword in _HEADERS[level] if dictionary_VR(keyword) != "SQ"}
    return frozenset(columns | collected | headers)


def matched_keywords(level: Level) -> frozenset[str]:
    """Return the keywords of the attributes that may be given to be matched at `level`."""
    collected = set() if level is Level.PATIENT else {"ModalitiesInStudy", "SOPClassesInStudy"}
    columns = {k for at in Level if at.depth <= level.depth for k in _COLUMNS[at]}
    return frozenset(columns | collected | {k for k in _HEADERS[level] if _is_matched(k)})


def instances_to_retrieve(session: Session, query: Query) -> list[HeldInstance]:
    """Return the instances that a retrieval names by the unique keys of its identifier.

    What was rejected is given only to one who names it itself, and only if that was for reasons of
    quality, see `triage.store.rejections`.

    Raises:
        TooManyInstancesError: they are more than 65535.
    """
    columns = {key: column for level in Level for key, column in _COLUMNS[level].items()}
    statement = _held_images().with_only_columns(
        InstanceRow.sop_class_uid,
        InstanceRow.sop_instance_uid,
        InstanceRow.transfer_syntax_uid,
        InstanceRow.path,
    )
    is_named = bool(query.values(UNIQUE_KEYS[Level.IMAGE]))
    statement = statement.where(~is_rejected(barred_only=is_named))
    for keyword in UNIQUE_KEYS.values():
        values = query.values(keyword)
        if values:
            statement = statement.where(columns[keyword].in_(values))
    found = session.execute(statement.order_by(InstanceRow.id).limit(MOST_INSTANCES + 1)).all()
    if len(found) > MOST_INSTANCES:
        raise TooManyInstancesError(f"more than {MOST_INSTANCES} instances match")
    return [HeldInstance(*row) for row in found]


def recent_transfer_syntaxes(
    session: Session, sop_class_uids: Iterable[str]
) -> dict[str, set[str]]:
    """Return the transfer syntaxes of each SOP class among the newest thousands of instances."""
    newest = session.scalar(select(func.max(InstanceRow.id))) or 0
    found = session.execute(
        select(InstanceRow.sop_class_uid, InstanceRow.transfer_syntax_uid)
        .where(InstanceRow.id > newest - 5000, InstanceRow.sop_class_uid.in_(list(sop_class_uids)))
        .distinct()
    )
    syntaxes: dict[str, set[str]] = {}
    for sop_class_uid, transfer_syntax_uid in found:
        syntaxes.setdefault(sop_class_uid, set()).add(transfer_syntax_uid)
    return syntaxes


def _joined(level: Level) -> Select[Any]:
    statement: Select[Any] = select(_IDS[level].label("id"))
    if level is Level.PATIENT:
        return statement
    if level is Level.STUDY:
        return statement.join(PatientRow, PatientRow.id == StudyRow.patient_id).where(
            or_(StudyRow.purged_at.is_(None), _has_a_file())
        )
    if level is Level.IMAGE:
        return _held_images().where(~is_rejected())
    of_series = select(InstanceRow.id).where(
        InstanceRow.series_id == SeriesRow.id, InstanceRow.purged_at.is_(None), ~is_rejected()
    )
    return (
        statement.where(exists(of_series))
        .join(StudyRow, StudyRow.id == SeriesRow.study_id)
        .join(PatientRow, PatientRow.id == StudyRow.patient_id)
    )


def _held_images() -> Select[Any]:
    return (
        select(InstanceRow.id.label("id"))
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .where(InstanceRow.conflicts_with.is_(None), InstanceRow.purged_at.is_(None))
        .join(StudyRow, StudyRow.id == SeriesRow.study_id)
        .join(PatientRow, PatientRow.id == StudyRow.patient_id)
    )


def _has_a_file() -> ColumnElement[bool]:
    """Whether anything of a study is left that could be retrieved: results outlive images."""
    return exists(
        select(InstanceRow.id)
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .where(SeriesRow.study_id == StudyRow.id, InstanceRow.purged_at.is_(None), ~is_rejected())
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a page begins: behind the match with the id `after`, or `skipped` from the first."""

    after: int | None
    skipped: int
    newest_first: bool

    def page(self, statement: Select[Any], key: InstrumentedAttribute[int]) -> Select[Any]:
        """Cut the page out of the matches."""
        if self.after is not None:
            statement = statement.where(key < self.after if self.newest_first else key > self.after)
        order = key.desc() if self.newest_first else key
        return statement.order_by(order).offset(self.skipped).limit(PAGE_SIZE)


def _page(
    session: Session, query: Query, place: _Place, *, is_sqlite: bool
) -> list[tuple[int, dict[str, Any]]]:
    columns = {
        keyword: column
        for level in Level
        if level.depth <= query.level.depth
        for keyword, column in _COLUMNS[level].items()
        if keyword in query.keys
    }
    key = _IDS[query.level]
    statement = _joined(query.level).where(*_conditions(query, is_sqlite))
    statement = statement.add_columns(*(c.label(keyword) for keyword, c in columns.items()))
    rows = session.execute(place.page(statement, key)).mappings().all()
    page = {row["id"]: {keyword: row[keyword] for keyword in columns} for row in rows}
    for values in page.values():
        if str(values.get("PatientID", "")).startswith(STAND_IN_PREFIX):
            values["PatientID"] = ""
    _add_headers(session, query, page)
    _add_counts(session, query, page)
    return list(page.items())


def _conditions(query: Query, is_sqlite: bool) -> Iterator[ColumnElement[bool]]:
    for level in Level:
        if level.depth > query.level.depth:
            break
        for keyword, column in _COLUMNS[level].items():
            values = query.values(keyword)
            if values:
                vr = dictionary_VR(keyword)
                yield matches(column, vr, keyword, values, is_sqlite=is_sqlite)
    if query.level is not Level.PATIENT:
        yield from _conditions_on_series(query, is_sqlite)
    yield from _conditions_on_headers(query, is_sqlite)


def _conditions_on_series(query: Query, is_sqlite: bool) -> Iterator[ColumnElement[bool]]:
    # Aliases: at the lower levels the tables themselves are what is asked for.
    series, instance = aliased(SeriesRow), aliased(InstanceRow)
    modalities = query.values("ModalitiesInStudy")
    if modalities:
        is_one = matches(series.modality, "CS", "Modality", modalities, is_sqlite=is_sqlite)
        yield exists(
            select(series.id)
            .join(instance, instance.series_id == series.id)
            .where(series.study_id == StudyRow.id, is_one, ~is_rejected(instance))
        )
    classes = query.values("SOPClassesInStudy")
    if classes:
        yield exists(
            select(instance.id)
            .join(series, series.id == instance.series_id)
            .where(
                series.study_id == StudyRow.id,
                instance.sop_class_uid.in_(classes),
                ~is_rejected(instance),
            )
        )


def _is_matched(keyword: str) -> bool:
    """Return whether a value that is kept with an image can be matched, not only returned."""
    return dictionary_VM(keyword) == "1" and dictionary_VR(keyword) not in ("DS", "FD", "FL", "SQ")


def _header_keywords(query: Query) -> tuple[str, ...]:
    in_columns = {keyword for level in Level for keyword in _COLUMNS[level]}
    return tuple(
        keyword
        for keyword in _HEADERS[query.level]
        if keyword in query.keys and keyword not in in_columns
    )


def _conditions_on_headers(query: Query, is_sqlite: bool) -> Iterator[ColumnElement[bool]]:
    for keyword in _header_keywords(query):
        values, vr = query.values(keyword), dictionary_VR(keyword)
        if not values or not _is_matched(keyword):
            continue  # an optional key that is only returned
        held = InstanceRow.headers[keyword]
        column: Any = held.as_integer() if vr in ("IS", "US") else held.as_string()
        is_one = matches(column, vr, keyword, values, is_sqlite=is_sqlite)
        if query.level is Level.IMAGE:
            yield is_one
            continue
        below = select(InstanceRow.id).where(is_one)
        if query.level is Level.SERIES:
            yield exists(below.where(InstanceRow.series_id == SeriesRow.id))
            continue
        of_study = below.join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        yield exists(of_study.where(SeriesRow.study_id == StudyRow.id))


def _add_headers(session: Session, query: Query, page: dict[int, dict[str, Any]]) -> None:
    """Add what is kept of the first image of each match."""
    keywords = _header_keywords(query)
    if not keywords or not page:
        return
    owner = _owner(query.level)
    first: Select[Any] = (
        select(func.min(InstanceRow.id))
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .where(owner.in_(page), InstanceRow.conflicts_with.is_(None))
        .group_by(owner)
    )
    found = session.execute(
        select(owner, InstanceRow.headers)
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .where(InstanceRow.id.in_(first))
    )
    headers = {row[0]: row[1] for row in found}
    for key, values in page.items():
        values.update({keyword: headers.get(key, {}).get(keyword) for keyword in keywords})


def _owner(level: Level) -> InstrumentedAttribute[int]:
    """Return the id of the entity of `level`, seen from an instance joined with its series."""
    if level is Level.IMAGE:
        return InstanceRow.id
    return SeriesRow.id if level is Level.SERIES else SeriesRow.study_id


def _add_counts(session: Session, query: Query, page: dict[int, dict[str, Any]]) -> None:
    """Add the attributes that are counted or collected over what is below each match."""
    for keyword, (level, counted) in _COLLECTED.items():
        if level is not query.level or keyword not in query.keys or not page:
            continue
        owner = StudyRow.patient_id if level is Level.PATIENT else _owner(level)
        below = (
            select(owner)
            .select_from(InstanceRow)
            .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
            .join(StudyRow, StudyRow.id == SeriesRow.study_id)
            .where(
                owner.in_(page),
                InstanceRow.conflicts_with.is_(None),
                InstanceRow.purged_at.is_(None),
                ~is_rejected(),
            )
        )
        if keyword.startswith("NumberOf"):
            rows = session.execute(
                below.add_columns(func.count(counted.distinct())).group_by(owner)
            ).all()
            _set_all(page, keyword, {row[0]: row[1] for row in rows}, 0)
            continue
        collected: dict[int, list[str]] = {}
        for key, value in session.execute(below.add_columns(counted).distinct().order_by(counted)):
            collected.setdefault(key, []).append(value)
        _set_all(page, keyword, collected, [])


def _set_all(
    page: dict[int, dict[str, Any]], keyword: str, found: dict[int, Any], otherwise: Any
) -> None:
    for key, values in page.items():
        values[keyword] = found.get(key, otherwise)


_COLLECTED: dict[str, tuple[Level, InstrumentedAttribute[Any]]] = {
    "NumberOfPatientRelatedStudies": (Level.PATIENT, StudyRow.id),
    "NumberOfPatientRelatedSeries": (Level.PATIENT, SeriesRow.id),
    "NumberOfPatientRelatedInstances": (Level.PATIENT, InstanceRow.id),
    "ModalitiesInStudy": (Level.STUDY, SeriesRow.modality),
    "SOPClassesInStudy": (Level.STUDY, InstanceRow.sop_class_uid),
    "NumberOfStudyRelatedSeries": (Level.STUDY, SeriesRow.id),
    "NumberOfStudyRelatedInstances": (Level.STUDY, InstanceRow.id),
    "NumberOfSeriesRelatedInstances": (Level.SERIES, InstanceRow.id),
}
