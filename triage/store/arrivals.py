"""What is known of the studies that are arriving, read for many of them at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, and_, case, exists, func, select
from sqlalchemy.orm import Session

from triage.core.completeness import (
    Announcement,
    Arrival,
    SeriesArrival,
    Source,
    Standing,
    Tally,
    waiting_for,
)
from triage.store.signals import SignalState
from triage.store.tables import (
    ArchiveCountRow,
    ArrivalSignalRow,
    ExpectedInstanceRow,
    InstanceRow,
    OpenAssociationRow,
    SeriesRow,
    StudyRow,
)

ASSOCIATION_IS_DEAD_AFTER = timedelta(seconds=120)

_STANDINGS = {
    SignalState.IN_PROGRESS: Standing.OPEN,
    SignalState.COMPLETED: Standing.FINAL,
    SignalState.DISCONTINUED: Standing.VOID,
    SignalState.AVAILABLE: Standing.FINAL,
}


def load_arrivals(
    session: Session, studies: Sequence[StudyRow], now: datetime
) -> dict[int, Arrival]:
    """Return what is known of each study at `now`, in a fixed number of queries."""
    ids = [study.id for study in studies]
    if not ids:
        return {}
    open_associations = _open_associations(session, ids, now)
    series = _series(session, ids)
    announcements = _announcements(session, studies, series)
    return {
        study.id: Arrival(
            modalities=frozenset(filter(None, study.modalities.split("\\"))),
            last_instance_at=study.last_instance_at,
            open_associations=open_associations.get(study.id, 0),
            calling_ae_titles=frozenset(
                s for one in series[study.id] for s in one.calling_ae_titles
            ),
            receiving_since=study.receiving_since or study.first_instance_at,
            series=series[study.id],
            announcements=announcements[study.id],
        )
        for study in studies
    }


def awaited_images(session: Session, studies: Sequence[StudyRow]) -> dict[int, str]:
    """Return for each study that waits for announced images how many have not come, in words."""
    if not studies:
        return {}
    series = _series(session, [study.id for study in studies])
    announcements = _announcements(session, studies, series)
    words = {}
    for study in studies:
        arrival = Arrival(
            modalities=frozenset(),
            last_instance_at=study.last_instance_at,
            open_associations=0,
            series=series[study.id],
            announcements=announcements[study.id],
        )
        words[study.id] = waiting_for(arrival) or ""
    return {study_id: text for study_id, text in words.items() if text}


def _open_associations(session: Session, ids: Sequence[int], now: datetime) -> dict[int, int]:
    rows = session.execute(
        select(OpenAssociationRow.study_id, func.count())
        .where(
            OpenAssociationRow.study_id.in_(ids),
            OpenAssociationRow.alive_at >= now - ASSOCIATION_IS_DEAD_AFTER,
        )
        .group_by(OpenAssociationRow.study_id)
    )
    return {row[0]: row[1] for row in rows.all()}


_SeriesOfStudies = Mapping[int, list[SeriesArrival]]


def _series(session: Session, ids: Sequence[int]) -> _SeriesOfStudies:
    rows = session.execute(
        select(
            SeriesRow.study_id,
            SeriesRow.series_instance_uid,
            SeriesRow.modality,
            InstanceRow.calling_ae_title,
            func.count(),
            func.max(InstanceRow.received_at),
        )
        .join(InstanceRow, InstanceRow.series_id == SeriesRow.id)
        .where(
            SeriesRow.study_id.in_(ids),
            SeriesRow.is_result.is_(False),
            InstanceRow.conflicts_with.is_(None),
        )
        .group_by(
            SeriesRow.study_id,
            SeriesRow.series_instance_uid,
            SeriesRow.modality,
            InstanceRow.calling_ae_title,
        )
        .order_by(SeriesRow.study_id, SeriesRow.series_instance_uid)
    )
    merged: dict[tuple[int, str], SeriesArrival] = {}
    for study_id, uid, modality, sender, count, last_at in rows:
        known = merged.get((study_id, uid))
        merged[study_id, uid] = SeriesArrival(
            series_instance_uid=uid,
            modality=modality,
            held=count + (known.held if known else 0),
            last_instance_at=max(last_at, known.last_instance_at) if known else last_at,
            calling_ae_titles=(known.calling_ae_titles if known else frozenset()) | {sender},
        )
    by_study: dict[int, list[SeriesArrival]] = defaultdict(list)
    for (study_id, _), one in merged.items():
        by_study[study_id].append(one)
    return by_study


def _announcements(
    session: Session, studies: Sequence[StudyRow], series: _SeriesOfStudies
) -> Mapping[int, list[Announcement]]:
    ids = [study.id for study in studies]
    found: dict[int, list[Announcement]] = defaultdict(list)
    for study_id, announcement in _signals(session, ids):
        found[study_id].append(announcement)
    for study_id, announcement in _acquisitions(session, ids):
        found[study_id].append(announcement)
    last_at = {study.id: study.last_instance_at for study in studies}
    held = {i: {one.series_instance_uid: one.held for one in series[i]} for i in ids}
    for study_id, announcement in _counts(session, last_at, held):
        found[study_id].append(announcement)
    return found


@dataclass(slots=True)
class _Signal:
    study_id: int
    source: Source
    state: SignalState
    series: dict[str, Tally]
    is_partly_away: bool = False


def _signals(session: Session, ids: Sequence[int]) -> Iterable[tuple[int, Announcement]]:
    rows = session.execute(_tallies_of_signals().where(StudyRow.id.in_(ids)))
    signals: dict[int, _Signal] = {}
    for study_id, signal_id, source, state, series_uid, is_available, expected, held in rows:
        signal = signals.setdefault(
            signal_id, _Signal(study_id, Source(source), SignalState(state), {})
        )
        if series_uid is None:
            continue
        if is_available:
            signal.series[series_uid] = Tally(expected, held)
        elif held < expected:  # what is held already need not be fetched from there
            signal.is_partly_away = True
    for signal in signals.values():
        standing = Standing.OPEN if signal.is_partly_away else _STANDINGS[signal.state]
        yield signal.study_id, Announcement(signal.source, standing, signal.series)


def _tallies_of_signals() -> Select[*tuple[Any, ...]]:
    is_held = exists(
        select(InstanceRow.id).where(
            InstanceRow.sop_instance_uid == ExpectedInstanceRow.sop_instance_uid
        )
    )
    by = (
        StudyRow.id,
        ArrivalSignalRow.id,
        ArrivalSignalRow.source,
        ArrivalSignalRow.state,
        ExpectedInstanceRow.series_instance_uid,
        ExpectedInstanceRow.is_available,
    )
    held = func.sum(case((is_held, 1), else_=0))
    return (
        select(*by, func.count(ExpectedInstanceRow.id), held)
        .select_from(ArrivalSignalRow)
        .join(StudyRow, StudyRow.study_instance_uid == ArrivalSignalRow.study_instance_uid)
        .outerjoin(ExpectedInstanceRow, ExpectedInstanceRow.signal_id == ArrivalSignalRow.id)
        .group_by(*by)
        .order_by(ArrivalSignalRow.id, ExpectedInstanceRow.series_instance_uid)
    )


def _acquisitions(session: Session, ids: Sequence[int]) -> Iterable[tuple[int, Announcement]]:
    """Give what Images in Acquisition (0020,1002) says of each series.

    An acquisition whose images lie in several series is whole when they are all there together.
    """
    rows = session.execute(
        select(
            SeriesRow.study_id,
            SeriesRow.series_instance_uid,
            InstanceRow.acquisition_number,
            func.max(InstanceRow.images_in_acquisition),
            func.count(),
        )
        .join(InstanceRow, InstanceRow.series_id == SeriesRow.id)
        .where(
            SeriesRow.study_id.in_(ids),
            SeriesRow.is_result.is_(False),
            InstanceRow.conflicts_with.is_(None),
            InstanceRow.images_in_acquisition > 0,
        )
        .group_by(SeriesRow.study_id, SeriesRow.series_instance_uid, InstanceRow.acquisition_number)
    ).all()
    in_study: dict[tuple[int, int | None], int] = defaultdict(int)
    for study_id, _, number, _, held in rows:
        in_study[study_id, number] += held
    tallies: dict[int, dict[str, Tally]] = defaultdict(dict)
    for study_id, series_uid, number, largest, held in rows:
        stated = largest or 0
        is_whole = held >= stated or in_study[study_id, number] >= stated
        before = tallies[study_id].get(series_uid, Tally(0, 0))
        tallies[study_id][series_uid] = Tally(
            before.expected + (held if is_whole else stated), before.held + held
        )
    for study_id, series in tallies.items():
        yield study_id, Announcement(Source.ACQUISITION, Standing.FINAL, series)


def _counts(
    session: Session, last_at: Mapping[int, datetime], held: Mapping[int, Mapping[str, int]]
) -> Iterable[tuple[int, Announcement]]:
    """Give what the archive counts. It is final once it was the same twice after the last image."""
    rows = session.scalars(
        select(ArchiveCountRow).where(
            ArchiveCountRow.study_id.in_(list(last_at)), ArchiveCountRow.answered_at.is_not(None)
        )
    ).all()
    ours = _result_series(session, [row.study_id for row in rows])
    for row in rows:
        here = held[row.study_id]
        series = {
            uid: Tally(int(count), here.get(uid, 0))
            for uid, count in row.series.items()
            if (row.study_id, uid) not in ours
        }
        is_final = (
            row.equal_since is not None
            and row.answered_at is not None
            and last_at[row.study_id] < row.equal_since < row.answered_at
        )
        whole = None
        if not series and row.instances is not None:
            whole = Tally(row.instances, sum(here.values()))
        standing = Standing.FINAL if is_final else Standing.OPEN
        if series or whole is not None:
            yield row.study_id, Announcement(Source.ARCHIVE, standing, series, whole)


def _result_series(session: Session, ids: Sequence[int]) -> set[tuple[int, str]]:
    rows = session.execute(
        select(SeriesRow.study_id, SeriesRow.series_instance_uid).where(
            and_(SeriesRow.study_id.in_(ids), SeriesRow.is_result.is_(True))
        )
    )
    return {(study_id, uid) for study_id, uid in rows}
