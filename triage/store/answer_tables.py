"""The tables of what radiologists answer: sign-offs of studies, and findings that models missed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from triage.store.base import Key, Table


class SignOffRow(Table):
    """A person closed the answers to what was said of a study; an addendum may open them again.

    `generation` is that of the study: what is said after more images came is open to answers.
    """

    __tablename__ = "sign_offs"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    generation: Mapped[int]
    who: Mapped[str] = mapped_column(String(128))
    at: Mapped[datetime]
    reopened_by: Mapped[str] = mapped_column(String(128), default="")
    reopened_at: Mapped[datetime | None] = mapped_column(default=None)
    reopen_reason: Mapped[str] = mapped_column(Text, default="")


class MissedFindingRow(Table):
    """Something that a radiologist sees and no model said.

    `code` is a coded concept, or None where only `words` say what it is. `mark` is where it lies
    on the image, [column, row] of a point or [left, top, right, bottom] of a box, in pixels from
    the upper left corner of the first one (DICOM PS3.3 C.18.6.1.1).
    """

    __tablename__ = "missed_findings"
    __table_args__ = (Index("ix_missed_findings_study_id", "study_id"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    who: Mapped[str] = mapped_column(String(128))
    at: Mapped[datetime]
    code: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), default=None)
    words: Mapped[str] = mapped_column(Text, default="")
    laterality: Mapped[str] = mapped_column(String(8), default="")
    sop_instance_uid: Mapped[str] = mapped_column(String(64), default="")
    frame: Mapped[int | None] = mapped_column(default=None)
    mark: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True), default=None)
