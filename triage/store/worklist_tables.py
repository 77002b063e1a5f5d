"""The tables of the worklist: who reads what, how each person looks at it, and how it is found."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, ForeignKey, Index, String, UniqueConstraint, delete, insert
from sqlalchemy.orm import Mapped, mapped_column

from triage.core.search_words import LONGEST_WORD, words_of_patient
from triage.store.base import Key, Table


class ReadingClaimRow(Table):
    """Who is reading a study. A row whose `until` has passed counts no more.

    `until` is None where the performer of the study's workitem (DICOM PS3.4 CC) has claimed it: it
    holds until the workitem ends.
    """

    __tablename__ = "reading_claims"

    study_id: Mapped[int] = mapped_column(
        ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    who: Mapped[str] = mapped_column(String(128), index=True)
    since: Mapped[datetime]
    until: Mapped[datetime | None] = mapped_column(default=None)


class WorklistViewRow(Table):
    """A way of looking at the worklist that a person has saved: never a search for a patient.

    `content` is a `triage.worklist.filters.WorklistFilter` as JSON.
    """

    __tablename__ = "worklist_views"
    __table_args__ = (UniqueConstraint("who", "name"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    who: Mapped[str] = mapped_column(String(128))
    name: Mapped[str] = mapped_column(String(64))
    content: Mapped[dict[str, Any]]
    is_default: Mapped[bool] = mapped_column(default=False)


class PatientWordRow(Table):
    """A word by which a patient is found: of the name, or the Patient ID; folded."""

    __tablename__ = "patient_words"
    __table_args__ = (
        # Compared byte by byte, whatever the collation of the database is.
        Index(
            "ix_patient_words_word",
            "word",
            "patient_id",
            postgresql_ops={"word": "text_pattern_ops"},
        ),
    )

    patient_id: Mapped[int] = mapped_column(
        ForeignKey("patients.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    word: Mapped[str] = mapped_column(String(LONGEST_WORD), primary_key=True)


def write_words(connection: Connection, patient_key: int, name: str, patient_id: str) -> None:
    """Let a patient be found by this name and Patient ID, and by nothing else any more."""
    connection.execute(delete(PatientWordRow).where(PatientWordRow.patient_id == patient_key))
    words = sorted(words_of_patient(name, patient_id))
    if words:
        connection.execute(
            insert(PatientWordRow), [{"patient_id": patient_key, "word": word} for word in words]
        )
