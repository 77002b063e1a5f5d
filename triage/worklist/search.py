"""Finding studies by the beginnings of a patient's name, a Patient ID or an accession number."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, exists, false, func, or_, select
from sqlalchemy.orm import Session

from triage.core.search_words import LONGEST_WORD, folded, words_sought, zero_padded
from triage.store.chunks import MOST_IN_A_STATEMENT, chunks
from triage.store.prefixes import begins_with
from triage.store.tables import PatientRow, StudyRow
from triage.store.worklist_tables import PatientWordRow

_MOST_PATIENTS = 2000
_MOST_STUDIES = 5000
_LONGEST_ACCESSION_NUMBER = 16  # SH, DICOM PS3.5 6.2


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
        conditions.append(StudyRow.id.in_(known) if known else false())
    return conditions


def is_of_patient_named(name: str) -> ColumnElement[bool]:
    """Return the condition that each word of `name` begins a word of the study's patient."""
    words = [
        StudyRow.patient_id.in_(
            select(PatientWordRow.patient_id).where(begins_with(PatientWordRow.word, word))
        )
        for word in words_sought(name)
    ]
    return and_(*words) if words else false()


def is_of_patient_numbered(patient_id: str) -> ColumnElement[bool]:
    """Return the condition that the Patient ID is this one but for case and leading zeros."""
    words = zero_padded(folded(patient_id), LONGEST_WORD)
    written = {*words, *zero_padded(patient_id.upper(), LONGEST_WORD)}
    return StudyRow.patient_id.in_(
        select(PatientRow.id)
        .join(PatientWordRow, PatientWordRow.patient_id == PatientRow.id)
        # The words narrow it down, and a word of the name is not the number.
        .where(
            PatientWordRow.word.in_(words), func.upper(PatientRow.patient_id).in_(sorted(written))
        )
    )


def has_accession_number(number: str) -> ColumnElement[bool]:
    """Return the condition that the number is this one but for case and leading zeros."""
    cases = (number, *_cases(number.upper()))
    written = {one for case in cases for one in zero_padded(case, _LONGEST_ACCESSION_NUMBER)}
    return StudyRow.accession_number.in_(sorted(written))


def _few_studies(
    session: Session, word: str, scope: Sequence[ColumnElement[bool]]
) -> list[int] | None:
    """Return the ids of the studies in `scope` that the word fits, or None if they are many."""
    patients = set(
        session.scalars(
            select(PatientWordRow.patient_id)
            .where(begins_with(PatientWordRow.word, word))
            .limit(_MOST_PATIENTS + 1)
        )
    )
    if len(patients) > _MOST_PATIENTS:
        return None
    # The scope is looked at afterwards: in one statement, SQLite would go through the scope.
    found: set[int] = set()
    for case in _cases(word):
        has_accession = begins_with(StudyRow.accession_number, case)
        found |= set(session.scalars(select(StudyRow.id).where(has_accession).limit(_MOST_STUDIES)))
    for some in chunks(sorted(patients)):
        found |= set(session.scalars(select(StudyRow.id).where(StudyRow.patient_id.in_(some))))
    if len(found) >= _MOST_STUDIES:
        return None
    in_scope = [
        key
        for some in chunks(sorted(found))
        for key in session.scalars(select(StudyRow.id).where(StudyRow.id.in_(some), *scope))
    ]
    return in_scope if len(in_scope) <= MOST_IN_A_STATEMENT else None


def _has_word(word: str) -> ColumnElement[bool]:
    of_patient = exists(
        select(PatientWordRow.word).where(
            PatientWordRow.patient_id == StudyRow.patient_id,
            begins_with(PatientWordRow.word, word),
        )
    )
    return or_(_has_accession(word), of_patient)


def _has_accession(word: str) -> ColumnElement[bool]:
    return or_(*(begins_with(StudyRow.accession_number, case) for case in _cases(word)))


def _cases(word: str) -> tuple[str, ...]:
    """Return how an accession number may be written: nearly always in capitals, if at all."""
    return tuple(dict.fromkeys((word, word.lower())))
