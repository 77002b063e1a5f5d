"""Small pictures of the images that show a finding, for the rows of the worklist."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from triage.store.database import Database
from triage.store.tables import InstanceRow, SeriesRow, StudyRow
from triage.web.dicomweb.presentation import Presentation, picture
from triage.web.pixels import read_frame

SIDE = 96
"""Pixels of a picture's longer side: twice what it takes on the page, for dense displays."""

_HOW = Presentation(size=(SIDE, SIDE), quality=80)


@dataclass(frozen=True, slots=True)
class KeyImage:
    """Where an image's file is, and the tag under which its picture may be kept."""

    path: str
    tag: str


def find_key_image(database: Database, study_uid: str, sop_uid: str) -> KeyImage | None:
    """Return a received image of a study, None where its file is not here."""
    with database.reading() as session:
        row = session.execute(
            select(InstanceRow.path, InstanceRow.sha256)
            .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
            .join(StudyRow, StudyRow.id == SeriesRow.study_id)
            .where(
                InstanceRow.sop_instance_uid == sop_uid,
                InstanceRow.conflicts_with.is_(None),
                InstanceRow.purged_at.is_(None),
                StudyRow.study_instance_uid == study_uid,
            )
        ).first()
    return KeyImage(row.path, f"{row.sha256[:32]}-{SIDE}") if row is not None else None


def small_picture(path: Path) -> bytes:
    """Return the first frame of the image at `path` as a small JPEG, in its own window.

    Raises:
        PixelError: its pixels cannot be decoded.
    """
    return picture(read_frame(path, 1), _HOW, "image/jpeg")
