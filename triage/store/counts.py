"""The questions to the archive how many images a study has, and its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, exists, or_, select
from sqlalchemy.orm import Session, lazyload

from triage.core.runs import StudyState
from triage.store.arrivals import ASSOCIATION_IS_DEAD_AFTER
from triage.store.tables import ArchiveCountRow, OpenAssociationRow, StudyRow

_LONGEST_PAUSE = timedelta(seconds=30)
_MOST_DOUBLINGS = 5


@dataclass(frozen=True, slots=True)
class Question:
    """A study whose images the archive is to count."""

    study_id: int
    study_instance_uid: str


def has_question(session: Session, *, pause: timedelta, now: datetime) -> bool:
    """Return whether `claim_question` might find one; it reads without any lock."""
    return session.scalars(select(StudyRow.id).where(_is_due(pause, now)).limit(1)).first() is not (
        None
    )


def claim_question(
    session: Session, *, pause: timedelta, lease: timedelta, now: datetime
) -> Question | None:
    """Return the most urgent study to ask for, or None; nobody else asks for it during `lease`.

    It is one that is arriving, of which nothing came for `pause`, and that no association holds.
    """
    study = session.scalars(
        select(StudyRow)
        .where(_is_due(pause, now))
        .options(lazyload(StudyRow.patient))
        .order_by(StudyRow.priority.desc(), StudyRow.last_instance_at, StudyRow.id)
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True, of=StudyRow)
    ).first()
    if study is None:
        return None
    row = session.get(ArchiveCountRow, study.id)
    if row is None:
        row = ArchiveCountRow(study_id=study.id, next_question_at=now + lease, series={})
        session.add(row)
    row.next_question_at = now + lease
    return Question(study.id, study.study_instance_uid)


def record_count(
    session: Session,
    study_id: int,
    *,
    instances: int | None,
    series: Mapping[str, int],
    pause: timedelta,
    asked_at: datetime,
) -> None:
    """Keep an answer to what was asked at `asked_at`.

    The archive may be receiving too, so an answer is relied on only when another one, after
    another pause, is the same, and no image has come here since the first of the two.
    """
    row = session.scalars(select(ArchiveCountRow).where(ArchiveCountRow.study_id == study_id)).one()
    last_at = session.scalars(
        select(StudyRow.last_instance_at).where(StudyRow.id == study_id)
    ).one()
    is_same = (
        row.equal_since is not None
        and row.equal_since > last_at
        and row.instances == instances
        and row.series == dict(series)
    )
    if not is_same:
        row.equal_since = asked_at
        row.questions = 0
    row.instances = instances
    row.series = dict(series)
    row.answered_at = asked_at
    row.last_error = ""
    _ask_again(row, pause, asked_at)


def record_no_count(
    session: Session, study_id: int, error: str, *, pause: timedelta, asked_at: datetime
) -> None:
    """Keep why there was no answer; the study does not wait for one."""
    row = session.scalars(select(ArchiveCountRow).where(ArchiveCountRow.study_id == study_id)).one()
    row.last_error = error
    _ask_again(row, pause, asked_at)


def _ask_again(row: ArchiveCountRow, pause: timedelta, asked_at: datetime) -> None:
    wait = pause * 2 ** min(row.questions, _MOST_DOUBLINGS)
    row.next_question_at = asked_at + max(pause, min(wait, _LONGEST_PAUSE))
    row.questions += 1


def _is_due(pause: timedelta, now: datetime) -> ColumnElement[bool]:
    is_held_open = exists(
        select(OpenAssociationRow.id).where(
            OpenAssociationRow.study_id == StudyRow.id,
            OpenAssociationRow.alive_at >= now - ASSOCIATION_IS_DEAD_AFTER,
        )
    )
    known = ArchiveCountRow.study_id == StudyRow.id
    return and_(
        StudyRow.state == StudyState.RECEIVING,
        StudyRow.last_instance_at <= now - pause,
        ~is_held_open,
        or_(
            ~exists(select(ArchiveCountRow.study_id).where(known)),
            exists(
                select(ArchiveCountRow.study_id).where(
                    known, ArchiveCountRow.next_question_at <= now
                )
            ),
        ),
    )
