"""Finding studies by the beginnings of a patient's name, a Patient ID or an accession number."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, exists, or_, select, union_all
from sqlalchemy.orm import Session

from triage.core.search_words import words_sought
from triage.store.chunks import MOST_IN_A_STATEMENT
from triage.store.prefixes import begins_with
from triage.store.tables import StudyRow
from triage.store.worklist_tables import PatientWordRow

_MOST_PATIENTS = 2000


def conditions_of_text(
    session: Session, text: str, scope: Sequence[ColumnElement[bool]]
) -> list[ColumnElement[bool]]:
    """Return what a study must fulfil to be found by `text`, every word of it.

    A rare word is looked up first, so that the list need not be gone through for it. A common one
    is compared study by study: enough of them are soon found.

    Args:
        session: to look the first word up.
        text: what a person typed.
        scope: what else the studies must fulfil.
    """
    words = words_sought(text)
    conditions = [_has_word(word) for word in words]
    known = _few_studies(session, words[0], scope) if words else None
    if known is not None:
        conditions.append(StudyRow.id.in_(known))
    return conditions


def _few_studies(
    session: Session, word: str, scope: Sequence[ColumnElement[bool]]
) -> list[int] | None:
    """Return the ids of the studies in `scope` that the word fits, or None if they are many."""
    patients = session.scalars(
        select(PatientWordRow.patient_id)
        .where(begins_with(PatientWordRow.word, word))
        .limit(_MOST_PATIENTS + 1)
    ).all()
    if len(patients) > _MOST_PATIENTS:
        return None
    of_patients = select(PatientWordRow.patient_id).where(begins_with(PatientWordRow.word, word))
    candidates = union_all(
        select(StudyRow.id).where(StudyRow.patient_id.in_(of_patients), *scope),
        select(StudyRow.id).where(_has_accession(word), *scope),
    ).limit(MOST_IN_A_STATEMENT + 1)
    found = session.scalars(candidates).all()
    return list(set(found)) if len(found) <= MOST_IN_A_STATEMENT else None


def _has_word(word: str) -> ColumnElement[bool]:
    of_patient = exists(
        select(PatientWordRow.word).where(
            PatientWordRow.patient_id == StudyRow.patient_id,
            begins_with(PatientWordRow.word, word),
        )
    )
    return or_(_has_accession(word), of_patient)


def _has_accession(word: str) -> ColumnElement[bool]:
    # Accession numbers are kept as they came: nearly always in capitals, if they have letters.
    cases = dict.fromkeys((word, word.lower()))
    return or_(*(begins_with(StudyRow.accession_number, case) for case in cases))
