"""What is laid over images: which stored objects, and how their pixels are served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from fastapi import HTTPException
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from triage.core.runs import RunState
from triage.store.tables import AnalysisRunRow, InstanceRow, ResultObjectRow, SeriesRow, StudyRow
from triage.store.withdrawals import is_withdrawn_by_person
from triage.web.context import WebContext
from triage.web.pixels import PixelError
from triage.web.placing import Position

T = TypeVar("T")

# An instance's file never changes, and its digest is the tag; private, because it is a patient's.
_CACHE_CONTROL = "private, max-age=3600, immutable"


@dataclass(frozen=True, slots=True)
class StoredOverlay:
    """A stored object that is laid over images, and the model that made it."""

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    path: str
    sha256: str
    model: str
    notice: str
    purged_at: datetime | None


async def in_decoders(context: WebContext, work: Callable[[], T]) -> T:
    """Do `work` in the few threads that are for images, so that pages never wait for them."""
    try:
        return await asyncio.get_running_loop().run_in_executor(context.decoders, work)
    except PixelError as error:
        raise HTTPException(422, str(error)) from error


def require_file(purged_at: datetime | None) -> None:
    """Refuse what retention has deleted.

    Raises:
        HTTPException: 410.
    """
    if purged_at is not None:
        raise HTTPException(410, deleted(purged_at))


def deleted(at: datetime) -> str:
    """Return that an object is no longer here, in words."""
    return f"it was deleted on {at:%Y-%m-%d} after the time for which images are kept"


def caching(tag: str) -> dict[str, str]:
    """Return the headers by which a browser keeps what never changes, for itself."""
    return {"ETag": tag, "Cache-Control": _CACHE_CONTROL}


def stored_overlays(
    session: Session, study_uid: str, sop_class_uids: Collection[str], role: str = ""
) -> list[StoredOverlay]:
    """Return the objects of these classes that counting models left for the study's images.

    What was superseded or withdrawn is none of them. With a `role`, only results of that kind.
    """
    statement = (
        select(
            InstanceRow,
            SeriesRow.series_instance_uid,
            AnalysisRunRow,
            ResultObjectRow.remote_model,
        )
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .join(StudyRow, StudyRow.id == SeriesRow.study_id)
        .outerjoin(
            ResultObjectRow, ResultObjectRow.sop_instance_uid == InstanceRow.sop_instance_uid
        )
        .outerjoin(AnalysisRunRow, AnalysisRunRow.id == ResultObjectRow.run_id)
        .where(
            StudyRow.study_instance_uid == study_uid,
            SeriesRow.is_result.is_(True),
            InstanceRow.conflicts_with.is_(None),
            InstanceRow.sop_class_uid.in_(sop_class_uids),
        )
        # Made again in another form for some destination, it would be the same overlay once more.
        .where(or_(ResultObjectRow.id.is_(None), ResultObjectRow.variant == ""))
        .where(or_(AnalysisRunRow.id.is_(None), ~is_withdrawn_by_person(AnalysisRunRow.id)))
        .order_by(InstanceRow.id)
    )
    if role:
        statement = statement.where(ResultObjectRow.role == role)
    found = []
    for instance, series_uid, run, remote_model in session.execute(statement):
        if run is not None and (run.state is RunState.SUPERSEDED or not run.stage.counts):
            continue
        found.append(
            StoredOverlay(
                sop_instance_uid=instance.sop_instance_uid,
                sop_class_uid=instance.sop_class_uid,
                series_instance_uid=series_uid,
                path=instance.path,
                sha256=instance.sha256,
                model=f"{run.model.name} {run.model.version}" if run else remote_model or "",
                notice=str(run.model.manifest.get("notice", "")) if run is not None else "",
                purged_at=instance.purged_at,
            )
        )
    return found


def image_positions(session: Session, study_uid: str) -> dict[str, Position]:
    """Return Image Position (Patient) of the study's received images by SOP Instance UID."""
    rows = session.execute(
        select(InstanceRow.sop_instance_uid, InstanceRow.headers)
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .join(StudyRow, StudyRow.id == SeriesRow.study_id)
        .where(StudyRow.study_instance_uid == study_uid, SeriesRow.is_result.is_(False))
        .order_by(InstanceRow.id)
    )
    found: dict[str, Position] = {}
    for uid, headers in rows:
        value = headers.get("ImagePositionPatient")
        if isinstance(value, list) and len(value) == 3:
            x, y, z = map(float, value)
            found[uid] = (x, y, z)
    return found
