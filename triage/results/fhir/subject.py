"""The patient of a notice: named by identifier, referred to, or created where there is none."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fhir.resources.R4B.humanname import HumanName
from fhir.resources.R4B.identifier import Identifier
from fhir.resources.R4B.patient import Patient
from fhir.resources.R4B.reference import Reference
from pydicom.valuerep import PersonName

from triage.core.notices import NoticePatient
from triage.results.errors import DeliveryError
from triage.results.fhir.parts import (
    by_identifier,
    full_url,
    iso_date,
    logical,
    reference,
    typed_identifier,
)
from triage.settings import FhirDestination

_OID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
_GENDERS = {"M": "male", "F": "female", "O": "other"}


@dataclass(frozen=True)
class Subject:
    """How the bundle's resources refer to the patient, and the Patient to create, if any."""

    reference: Reference
    identifier: Identifier | None = None
    resource: Patient | None = None

    @property
    def full_url(self) -> str:
        """What the Patient is called in the bundle."""
        return str(self.reference.reference)


def subject_of(patient: NoticePatient, destination: FhirDestination) -> Subject:
    """Return how `destination` is to be told who the patient is.

    Raises:
        DeliveryError: it is to find or create the patient, and nothing says of which system the
            Patient ID is. Two systems may give one number to two people.
    """
    if not patient.patient_id:
        return Subject(Reference(display="A patient whose images have no Patient ID"))
    system = _system(patient, destination)
    identifier = typed_identifier(
        "MR", "Medical record number", system=system, value=patient.patient_id
    )
    if destination.patients == "identifier":
        if not system and patient.issuer:
            identifier.assigner = Reference(display=patient.issuer)
        return Subject(logical("Patient", identifier))
    if not system:
        raise DeliveryError(
            f"{destination.name}: nothing says of which system Patient IDs of the issuer "
            f"{patient.issuer!r} are; add it to patient_systems and resend",
            is_permanent=True,
        )
    if destination.patients == "reference":
        return Subject(Reference(reference=f"Patient?{by_identifier(identifier)}"))
    url = full_url(f"{system} {patient.patient_id}")
    return Subject(reference(url), identifier, _resource(patient, identifier))


def _system(patient: NoticePatient, destination: FhirDestination) -> str:
    if not patient.issuer:
        return destination.patient_system
    known = destination.patient_systems.get(patient.issuer, "")
    if not known and _OID.fullmatch(patient.issuer):
        return f"urn:oid:{patient.issuer}"
    return known


def _resource(patient: NoticePatient, identifier: Identifier) -> Patient:
    return Patient(
        identifier=[identifier],
        name=[_name(patient.name)] if patient.name.strip("^= ") else None,
        gender=_GENDERS.get(patient.sex),
        birthDate=iso_date(patient.birth_date),
    )


def _name(text: str) -> HumanName:
    """Return DICOM's PN (PS3.5 6.2.1) as a name: of several groups the first."""
    name = PersonName(text)
    given = [part for part in (name.given_name, *name.middle_name.split()) if part]
    return HumanName(
        use="usual",
        text=" ".join(part for part in (*given, name.family_name) if part),
        family=name.family_name or None,
        given=given or None,
        prefix=[name.name_prefix] if name.name_prefix else None,
        suffix=[name.name_suffix] if name.name_suffix else None,
    )
