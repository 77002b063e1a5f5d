"""The segments that all messages have: header, patient, visit, order (HL7 v2.5.1 chapters 2 to 4).

Fields that a later version took back (ORC-7, OBR-27) are sent where the message has no TQ1.
"""

from __future__ import annotations

from triage.core.notices import Notice, NoticePatient, NoticeStudy
from triage.core.priority import Priority
from triage.hl7.building import Value, header, segment
from triage.hl7.message import moment_in_digits
from triage.settings import Hl7Destination

OWN_CODES = "99TRIAGE"
_PRIORITIES = {  # table 0485
    Priority.STAT: ("S", "Stat"),
    Priority.HIGH: ("A", "ASAP"),
    Priority.ROUTINE: ("R", "Routine"),
    Priority.LOW: ("R", "Routine"),
}
_CONTROL_ID_LENGTH = 20  # of MSH-10


def control_id_of(notice: Notice) -> str:
    """Return MSH-10: the same whenever this notice is sent, so that a repetition is recognized."""
    return notice.notice_id.replace("-", "")[:_CONTROL_ID_LENGTH].upper()


def priority_code(priority: Priority) -> list[str]:
    """Return a priority as a coded value of table 0485."""
    return [*_PRIORITIES[priority], "HL70485"]


def quantity_timing(priority: Priority) -> list[str]:
    """Return a priority as TQ, the old field for it: its sixth component."""
    return ["", "", "", "", "", _PRIORITIES[priority][0]]


def msh(notice: Notice, destination: Hl7Destination, kind: tuple[str, str]) -> str:
    """Return MSH. Its time (MSH-7) is that of what the message tells, which repeats do not change.

    `kind` is message type and trigger event.
    """
    wants_accept = destination.acknowledgement == "accept"
    return header(
        {
            3: destination.sending_application,
            4: destination.sending_facility,
            5: destination.receiving_application,
            6: destination.receiving_facility,
            7: moment_in_digits(notice.occurred_at),
            9: [*kind, "_".join(kind)],
            10: control_id_of(notice),
            11: destination.processing_id,
            12: destination.version,
            15: "AL" if wants_accept else "",
            16: "NE" if wants_accept else "",
            18: "" if destination.character_set == "ASCII" else destination.character_set,
        }
    )


def pid(patient: NoticePatient, assigning_authority: str) -> str:
    """Return PID: identifier with who assigned it (CX), name (XPN), birth date and sex."""
    issuer = patient.issuer or assigning_authority
    identifier: Value = [patient.patient_id, "", "", issuer, "PI"] if patient.patient_id else ""
    return segment(
        "PID",
        {1: 1, 3: identifier, 5: _name(patient.name), 7: patient.birth_date, 8: patient.sex},
    )


def _name(name: str) -> Value:
    """Return DICOM's PN as XPN, where the suffix is before the prefix, and L is the legal name."""
    parts = [*name.split("=", maxsplit=1)[0].split("^"), "", "", "", "", ""][:5]
    family, given, middle, prefix, suffix = (part.strip() for part in parts)
    if not (family or given):
        return ""
    return [family, given, middle, suffix, prefix, "", "L"]


def pv1(study: NoticeStudy) -> str:
    """Return PV1 with class and location as orders told them; U is a class that is not known."""
    return segment("PV1", {1: 1, 2: study.patient_class or "U", 3: study.location})


def filler_number(study: NoticeStudy) -> str:
    """Return the filler order number; where no order was told, the accession number is it."""
    return study.order.filler_number or study.accession_number


def service(study: NoticeStudy) -> Value:
    """Return OBR-4: what was ordered, or else what the images say that they are."""
    order = study.order
    if order.procedure_code or order.procedure_text:
        scheme = order.procedure_scheme or ("L" if order.procedure_code else "")
        return [order.procedure_code, order.procedure_text, scheme]
    return ["", study.description or f"{'/'.join(study.modalities)} study".strip()]


def nte(number: int, text: str) -> str:
    """Return a note of the filler (L)."""
    return segment("NTE", {1: number, 2: "L", 3: text})


def tq1(priority: Priority) -> str:
    """Return TQ1 with the priority."""
    return segment("TQ1", {1: 1, 9: priority_code(priority)})


def performed_at(study: NoticeStudy) -> str:
    """Return DICOM's study date and time as TS."""
    return study.study_date + study.study_time.split(".")[0] if study.study_date else ""
