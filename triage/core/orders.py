"""What an order, and the administration of its patient, say of a study, in whatever language."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from triage.core.priority import Priority

PATIENT_CLASSES = {
    "E": "Emergency",
    "I": "Inpatient",
    "O": "Outpatient",
    "P": "Preadmit",
    "R": "Recurring",
    "B": "Obstetrics",
}
"""HL7 table 0004, in words. What is not in it is shown as it came."""


def patient_class_in_words(code: str) -> str:
    """Return a patient class as people read it.

    >>> patient_class_in_words("E")
    'Emergency'
    """
    return PATIENT_CLASSES.get(code.strip().upper(), code.strip())


@dataclass(frozen=True, slots=True)
class PatientIdentifier:
    """A Patient ID with whoever assigned it; `issuer` is empty where nobody says."""

    value: str
    issuer: str = ""


@dataclass(frozen=True, slots=True)
class Visit:
    """Where the patient is: location in words, and class by HL7 table 0004 (E, I, O …)."""

    location: str = ""
    patient_class: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """An imaging order as a message states it; empty or None is what the message does not say.

    Attributes:
        source: who states it: "RIS" or "RIS of HOSPITAL".
        stated_at: when it was stated: of two statements of one source, the later counts.
        identifiers: the patient's.
        priority: as the order says; what is not said changes nothing.
        priority_code: the code that it was said by.
        procedure_code, procedure_text, procedure_scheme: what was ordered.
    """

    source: str
    stated_at: datetime
    accession_number: str = ""
    placer_number: str = ""
    filler_number: str = ""
    study_instance_uid: str = ""
    identifiers: tuple[PatientIdentifier, ...] = ()
    priority: Priority | None = None
    priority_code: str = ""
    visit: Visit = Visit()
    reason: str = ""
    procedure_code: str = ""
    procedure_text: str = ""
    procedure_scheme: str = ""
    ordered_at: datetime | None = None
    is_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class PatientUpdate:
    """What the administration says of a patient now; None is what it does not say.

    `name` is in the form of DICOM's PN, `birth_date` YYYYMMDD, `sex` M, F or O.
    """

    source: str
    identifiers: tuple[PatientIdentifier, ...]
    name: str | None = None
    birth_date: str | None = None
    sex: str | None = None
    visit: Visit = Visit()


@dataclass(frozen=True, slots=True)
class PatientMerge:
    """Two patients are one: `retired` identifiers are no longer used, `survivor`'s are."""

    survivor: PatientUpdate
    retired: tuple[PatientIdentifier, ...]
