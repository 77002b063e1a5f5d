"""What FHIR resources are made of: concepts, identifiers, references, dates.

The models are those of FHIR R4B (4.3.0). Of the resources that are used here R4B has the same
elements as R4 (4.0.1), so what is built is valid in both.
"""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import quote

from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.coding import Coding
from fhir.resources.R4B.identifier import Identifier
from fhir.resources.R4B.meta import Meta
from fhir.resources.R4B.quantity import Quantity
from fhir.resources.R4B.reference import Reference
from pydicom.valuerep import DA

from triage.core.codes import Code
from triage.core.uids import derived_uid

DICOM_TERMS = "http://dicom.nema.org/resources/ontology/DCM"
_SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "LN": "http://loinc.org",
    "DCM": DICOM_TERMS,
    "UCUM": "http://unitsofmeasure.org",
    "RADLEX": "http://www.radlex.org",
    "FMA": "urn:oid:2.16.840.1.113883.6.119",
    "NCIt": "http://ncicb.nci.nih.gov/xml/owl/EVS/Thesaurus.owl",
}
"""The code systems of DICOM's coding schemes (PS3.16 section 8), as FHIR names them."""

_UIDS = "urn:ietf:rfc3986"  # the system of identifiers that are URIs themselves
_DICOM_UIDS = "urn:dicom:uid"  # of Study, Series and SOP Instance UIDs
_TAGS = f"urn:oid:{derived_uid('triage', 'fhir', 'notice')}"
_V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"


def concept(code: Code) -> CodeableConcept:
    """Return `code` as FHIR says it; one of a private scheme is said in words only."""
    system = _SYSTEMS.get(code.scheme)
    if system is None:
        return CodeableConcept(text=f"{code.meaning} ({code.value}, {code.scheme})")
    return CodeableConcept(
        coding=[Coding(system=system, code=code.value, display=code.meaning)], text=code.meaning
    )


def term(system: str, code: str, display: str) -> CodeableConcept:
    """Return a concept of one of FHIR's or HL7's own code systems."""
    return CodeableConcept(coding=[Coding(system=system, code=code, display=display)])


def quantity(value: float, unit: Code) -> Quantity:
    """Return a number with its UCUM unit."""
    return Quantity(
        value=round(value, 6), unit=unit.value, system=_SYSTEMS.get(unit.scheme), code=unit.value
    )


def own_identifier(uid: str) -> Identifier:
    """Return the identifier of a resource that Triage makes, from its derived UID."""
    return Identifier(system=_UIDS, value=f"urn:oid:{uid}")


def dicom_identifier(uid: str) -> Identifier:
    """Return a Study or Series Instance UID as FHIR's ImagingStudy has it (R4, 11.2.4)."""
    return Identifier(system=_DICOM_UIDS, value=f"urn:oid:{uid}")


def typed_identifier(code: str, display: str, *, system: str, value: str) -> Identifier:
    """Return an identifier whose type is in HL7's table 0203, such as MR or ACSN."""
    return Identifier(
        type=term(_V2_0203, code, display), system=system or None, value=value, use="usual"
    )


def full_url(uid: str) -> str:
    """Return what a resource is called inside the bundle, always the same for the same UID."""
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, uid)}"


def by_identifier(identifier: Identifier) -> str:
    """Return the search that finds the resource with `identifier`, percent-encoded."""
    return f"identifier={_token(identifier.system or '', identifier.value or '')}"


def tag(code: str) -> Meta:
    """Return the metadata of a resource that R4 gives no identifier: a tag of its notice."""
    return Meta(tag=[Coding(system=_TAGS, code=code)])


def by_tag(code: str) -> str:
    """Return the search that finds the resource with `tag(code)`."""
    return f"_tag={_token(_TAGS, code)}"


def _token(system: str, value: str) -> str:
    return quote(f"{_escaped(system)}|{_escaped(value)}", safe=":/.")


def _escaped(text: str) -> str:
    # FHIR R4 3.1.1.4.0.1: what separates values of search parameters is escaped in them.
    for character in "\\$,|":
        text = text.replace(character, "\\" + character)
    return text


def reference(url: str) -> Reference:
    """Return a reference to a resource of the same bundle."""
    return Reference(reference=url)


def logical(kind: str, identifier: Identifier) -> Reference:
    """Return a reference that names a resource of another system, wherever it is kept."""
    return Reference(type=kind, identifier=identifier)


def iso_date(value: str) -> date | None:
    """Return DICOM's DA as a date, or None where it is empty or wrong."""
    try:
        found: Any = DA(value)
    except ValueError:
        return None
    return date(found.year, found.month, found.day) if found else None


def instant(moment: datetime) -> datetime:
    """Return `moment` in UTC and whole milliseconds: finer ones do not survive every server."""
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
