"""Patients as their administration corrects and merges them (HL7 ADT^A08, ADT^A40)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from triage.core.orders import PatientIdentifier, PatientMerge, PatientUpdate
from triage.store.history import note
from triage.store.merges import survivor_of
from triage.store.order_tables import PatientMergeRow
from triage.store.orders import place
from triage.store.outbox import queue_corrections
from triage.store.study_workitems import follow_study
from triage.store.tables import PatientRow, StudyRow

_CORRECTED = {"name": "name", "birth_date": "date of birth", "sex": "sex"}


def update_patient(
    session: Session, update: PatientUpdate, *, assigning_authority: str, now: datetime
) -> str:
    """Correct a patient who is known here, and say what was done.

    Args:
        session: a transaction.
        update: what is so now.
        assigning_authority: whose the Patient IDs are that images give without an issuer; empty
            is anybody's.
        now: the moment.
    """
    identifiers = [survivor_of(session, one) for one in update.identifiers]
    patients = _patients(session, identifiers, assigning_authority)
    if not patients:
        return "nothing to do: no study of this patient is here"
    changed: set[str] = set()
    for patient in patients:
        for study in _studies(session, patient, lock=True):
            if study.read_at is None:
                place(session, study, update.visit, update.source, now=now)
        changed |= _correct(session, patient, update, now)
    if not changed:
        return "nothing to correct: the patient is known so already"
    return "corrected: " + ", ".join(sorted(changed))


def _correct(
    session: Session, patient: PatientRow, update: PatientUpdate, now: datetime
) -> set[str]:
    changed = set()
    for field, words in _CORRECTED.items():
        value = getattr(update, field)
        if value is not None and value != getattr(patient, field):
            setattr(patient, field, value)
            changed.add(words)
    if changed:
        text = f"{update.source} corrected the patient's {', '.join(sorted(changed))}"
        for study in _studies(session, patient):
            note(session, study.id, "patient", text, at=now)
            follow_study(session, study, now)
    return changed


def merge_patients(
    session: Session,
    merge: PatientMerge,
    *,
    assigning_authority: str,
    corrected_at: Collection[str],
    now: datetime,
) -> str:
    """Give the studies of the retired identifiers to the survivor, and say what was done.

    The retired identifiers are remembered for good: images under them may still come. Results that
    had been told under them are told again, as corrections.

    Args:
        session: a transaction.
        merge: who is who.
        assigning_authority: as for `update_patient`.
        corrected_at: names of the destinations that are told corrections.
        now: the moment.
    """
    known = [
        p
        for p in _patients(session, merge.retired, assigning_authority, lock=True)
        if not _is_survivor(p, merge, assigning_authority)
    ]
    moved: list[StudyRow] = []
    for patient in known:
        survivor = _survivor(session, merge, like=patient, authority=assigning_authority)
        used = PatientIdentifier(survivor.patient_id, survivor.issuer)
        retired = PatientIdentifier(patient.patient_id, patient.issuer)
        _remember(session, retired, used, merge, now)
        studies = _studies(session, patient, lock=True)
        for study in studies:
            study.patient = survivor
            text = f"{merge.survivor.source} merged the patient with another (A40)"
            note(session, study.id, "patient", text, at=now)
            follow_study(session, study, now)
        session.flush()
        patient.name = patient.birth_date = patient.sex = ""
        queue_corrections(session, [s.id for s in studies], corrected_at, now=now)
        moved += studies
    if not known:
        _remember_unknown(session, merge, now)
    update_patient(session, merge.survivor, assigning_authority=assigning_authority, now=now)
    if not moved:
        return "kept for images that come: no study of the retired Patient ID is here"
    return f"moved {len(moved)} stud{'y' if len(moved) == 1 else 'ies'} to the surviving patient"


def _is_survivor(patient: PatientRow, merge: PatientMerge, authority: str) -> bool:
    return any(
        patient.patient_id == one.value and _agree(patient.issuer, one.issuer, authority)
        for one in merge.survivor.identifiers
    )


def _survivor(
    session: Session, merge: PatientMerge, *, like: PatientRow, authority: str
) -> PatientRow:
    """Return the surviving patient's row; a new one names an issuer only where images do here."""
    found = _patients(session, merge.survivor.identifiers, authority)
    if found:
        return found[0]
    identifier = merge.survivor.identifiers[0]
    row = PatientRow(
        patient_id=identifier.value[:128],
        issuer=identifier.issuer[:128] if like.issuer else "",
        name=like.name,
        birth_date=like.birth_date,
        sex=like.sex,
    )
    session.add(row)
    session.flush()
    return row


def _remember(
    session: Session,
    retired: PatientIdentifier,
    survivor: PatientIdentifier,
    merge: PatientMerge,
    now: datetime,
) -> None:
    row = PatientMergeRow(
        retired_id=retired.value[:128],
        retired_issuer=retired.issuer[:128],
        survivor_id=survivor.value[:128],
        survivor_issuer=survivor.issuer[:128],
        source=merge.survivor.source[:128],
        at=now,
    )
    for patient_id, issuer in (
        (row.retired_id, row.retired_issuer),  # merged again, into another
        (row.survivor_id, row.survivor_issuer),  # once retired, and in use again
    ):
        session.execute(
            delete(PatientMergeRow).where(
                PatientMergeRow.retired_id == patient_id,
                PatientMergeRow.retired_issuer == issuer,
            )
        )
    session.add(row)
    session.flush()


def _remember_unknown(session: Session, merge: PatientMerge, now: datetime) -> None:
    """Remember it with the issuer and without: whether images will name one is not known."""
    survivor = merge.survivor.identifiers[0]
    for one in merge.retired:
        for issuer, of_survivor in {(one.issuer, survivor.issuer), ("", "")}:
            if (one.value, issuer) != (survivor.value, of_survivor):
                to = PatientIdentifier(survivor.value, of_survivor)
                _remember(session, PatientIdentifier(one.value, issuer), to, merge, now)


def _patients(
    session: Session,
    identifiers: Sequence[PatientIdentifier],
    authority: str,
    *,
    lock: bool = False,
) -> list[PatientRow]:
    """Return the rows of a patient; one is kept for each issuer that images name."""
    if not identifiers:
        return []
    wanted = (
        select(PatientRow)
        .where(or_(*(PatientRow.patient_id == one.value[:128] for one in identifiers)))
        .order_by(PatientRow.id)
    )
    rows = session.scalars(wanted.with_for_update() if lock else wanted)
    return [
        row
        for row in rows
        if any(
            row.patient_id == one.value and _agree(row.issuer, one.issuer, authority)
            for one in identifiers
        )
    ]


def _agree(of_images: str, of_message: str, authority: str) -> bool:
    """Return whether two issuers may be one: images often name none, and then it is `authority`."""
    if of_images == of_message or not of_message:
        return True
    return not of_images and authority in ("", of_message)


def _studies(session: Session, patient: PatientRow, *, lock: bool = False) -> Sequence[StudyRow]:
    wanted = select(StudyRow).where(StudyRow.patient_id == patient.id).order_by(StudyRow.id)
    if lock:
        wanted = wanted.with_for_update(key_share=True, of=StudyRow)
    return session.scalars(wanted).all()
