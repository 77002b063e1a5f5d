"""The image at which a study opens, as its page shows it before a script of it has run.

The browser draws it where the canvas will, with what stands around it; the viewer takes it away
when it has drawn the same.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.directions import Directions, opposite
from triage.store.files import InstanceFiles
from triage.store.tables import InstanceRow, SeriesRow
from triage.web.dicomweb.presentation import Presentation, windowed
from triage.web.pixels import Frame, PixelError, Window, stated_window
from triage.worklist.opening import OpeningView
from triage.worklist.stacks import ImageView, SeriesView
from triage.worklist.study_view import StudyView

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2
_FASTEST = 1  # of zlib: for what is drawn once


@dataclass(frozen=True, slots=True)
class StoredOpening:
    """What is stored of the image at which a study opens."""

    path: str
    headers: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FirstPicture:
    """The picture and what stands in the corners and at the edges, in the words of the viewer.

    Attributes:
        height: in widths of a column, where pixels need not be square.
        place: of the image among the `count` of its series, from 1 on.
        window: empty where only the pixels say which one it is.
        edges: which side of the patient is at "top", "right", "bottom" and "left".
    """

    address: str
    columns: int
    height: float
    label: str
    series: str
    modality: str
    place: int
    count: int
    window: str
    edges: Mapping[str, str]


def stored_opening(session: Session, opening: OpeningView) -> StoredOpening | None:
    """Return where the image at which a study opens is stored."""
    row = session.execute(
        select(InstanceRow.path, InstanceRow.headers)
        .join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
        .where(
            InstanceRow.sop_instance_uid == opening.sop_instance_uid,
            InstanceRow.conflicts_with.is_(None),
            SeriesRow.series_instance_uid == opening.series_instance_uid,
        )
    ).first()
    return StoredOpening(row.path, row.headers) if row is not None else None


def first_picture(
    study: StudyView, stored: StoredOpening, files: InstanceFiles
) -> FirstPicture | None:
    """Return the picture of the image at which `study` opens, None where its size is not known."""
    opening = study.opening
    size = _size(stored.headers)
    if opening is None or size is None:
        return None
    rows, columns = size
    series, image, place = _find(study, opening)
    count = sum(one.frames for one in series.images)
    row_mm, column_mm = image.pixel_spacing_mm or (1.0, 1.0)
    name = series.description or "Series"
    return FirstPicture(
        address=f"/studies/{study.study_instance_uid}/series/{opening.series_instance_uid}"
        f"/instances/{opening.sop_instance_uid}/frames/{opening.frame}/picture",
        columns=columns,
        height=rows * row_mm / column_mm,
        label=f"{name}, image {place} of {count}",
        series=f"{series.modality} {name}",
        modality=series.modality,
        place=place,
        count=count,
        window=_stated(files.absolute(stored.path)) if image.frames == 1 else "",
        edges=_edges(image.directions),
    )


def picture_of(frame: Frame) -> bytes:
    """Return a frame through its window as a PNG (ISO/IEC 15948), quickly rather than small.

    Unlike Pillow's, its compression lets other threads run: a mammogram takes 0.2 s.
    """
    values = frame.values()
    shown = values if frame.samples == 3 else windowed(values, frame, Presentation())
    lines = np.zeros((frame.rows, 1 + frame.columns * frame.samples), np.uint8)  # 0: no filter
    lines[:, 1:] = shown.reshape(frame.rows, -1)
    colour = _RGB if frame.samples == 3 else _GREY
    header = struct.pack(">IIBBBBB", frame.columns, frame.rows, 8, colour, 0, 0, 0)
    pixels = zlib.compress(lines.tobytes(), _FASTEST)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def _size(headers: Mapping[str, Any]) -> tuple[int, int] | None:
    try:
        rows, columns = int(headers["Rows"]), int(headers["Columns"])
    except (KeyError, TypeError, ValueError):
        return None
    return (rows, columns) if rows > 0 and columns > 0 else None


def _find(study: StudyView, opening: OpeningView) -> tuple[SeriesView, ImageView, int]:
    """Return the series and the image at which the study opens, and the number of its frame."""
    series = next(
        one for one in study.series if one.series_instance_uid == opening.series_instance_uid
    )
    before = 0
    for image in series.images:
        if image.sop_instance_uid == opening.sop_instance_uid:
            break
        before += image.frames
    return series, image, before + opening.frame


def _edges(directions: Directions | None) -> Mapping[str, str]:
    if directions is None:
        return {}
    right, bottom = directions
    return {"top": opposite(bottom), "right": right, "bottom": bottom, "left": opposite(right)}


def _stated(path: Path) -> str:
    try:
        window = stated_window(path)
    except PixelError:
        return ""  # who asks for the pixels is told why
    return _in_words(window) if window is not None else ""


def _in_words(window: Window) -> str:
    """Return the window as the viewer writes it.

    >>> _in_words(Window(40.0, 80.0)), _in_words(Window(-0.06, 0.123456))
    ('W 80 L 40', 'W 0.123 L -0.06')
    """
    return f"W {_number(window.width)} L {_number(window.center)}"


def _number(value: float) -> str:
    is_whole = abs(value) >= 10 or value.is_integer()
    return str(int(np.floor(value + 0.5))) if is_whole else f"{value:.3g}"
