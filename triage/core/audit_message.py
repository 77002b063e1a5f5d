"""The audit message of DICOM PS3.15 A.5, as XML, and the syslog message that carries it (A.6)."""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree.ElementTree import Element, SubElement, tostring

from triage.core.audit import AuditEvent, AuditKind, Outcome

_EVENTS = {
    AuditKind.APPLICATION: ("110100", "Application Activity"),
    AuditKind.AUDIT_LOG_USED: ("110101", "Audit Log Used"),
    AuditKind.INSTANCES_ACCESSED: ("110103", "DICOM Instances Accessed"),
    AuditKind.TRANSFERRED: ("110104", "DICOM Instances Transferred"),
    AuditKind.EXPORT: ("110106", "Export"),
    AuditKind.QUERY: ("110112", "Query"),
    AuditKind.SECURITY_ALERT: ("110113", "Security Alert"),
    AuditKind.AUTHENTICATION: ("110114", "User Authentication"),
}
_TYPES = {
    "application-start": ("110120", "Application Start"),
    "application-stop": ("110121", "Application Stop"),
    "log-in": ("110122", "Login"),
    "log-out": ("110123", "Logout"),
    "audit-recording-stopped": ("110133", "Audit Recording Stopped"),
}
_RESTRICTED = ("110132", "Use of Restricted Function")
_USERS_CHANGED = ("110137", "User Security Attributes Changed")
_SOFTWARE = ("110131", "Software Configuration")
_APPLICATION = ("110150", "Application")
_DESTINATION = ("110152", "Destination Role ID")
_SOURCE = ("110153", "Source Role ID")
_STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
_OUR_TYPES = "99TRIAGE"
_PERSON, _SYSTEM_OBJECT = "1", "2"
_PATIENT, _REPORT, _SECURITY_RESOURCE = "1", "3", "13"
_FACILITY_SECURITY = 10
_NOTICE, _WARNING = 5, 4
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Source:
    """Who reports: AuditSourceID, AuditEnterpriseSiteID (may be empty), and the host's name."""

    source_id: str
    enterprise_site_id: str
    host: str


def audit_message(event: AuditEvent, patient_id: str, source: Source) -> bytes:
    """Return an event as the message of DICOM PS3.15 A.5.3, in UTF-8."""
    message = Element("AuditMessage")
    _identify_event(message, event)
    _add_participants(message, event, source)
    reporter = SubElement(message, "AuditSourceIdentification", AuditSourceID=source.source_id)
    if source.enterprise_site_id:
        reporter.set("AuditEnterpriseSiteID", source.enterprise_site_id)
    SubElement(reporter, "AuditSourceTypeCode", {"csd-code": "4"})  # an application server
    _add_objects(message, event, patient_id, source)
    encoded: bytes = tostring(message, encoding="utf-8", xml_declaration=True)
    return encoded


def _identify_event(message: Element, event: AuditEvent) -> None:
    identified = SubElement(
        message,
        "EventIdentification",
        EventActionCode=event.action,
        EventDateTime=event.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=str(int(event.outcome)),
    )
    _code(identified, "EventID", _EVENTS[event.kind])
    if (known := _known_type(event)) is not None:
        _code(identified, "EventTypeCode", known)
    _code(identified, "EventTypeCode", (event.type, event.type), _OUR_TYPES)
    if event.outcome is not Outcome.SUCCESS and event.detail:
        SubElement(identified, "EventOutcomeDescription").text = _printable(event.detail)


def _known_type(event: AuditEvent) -> tuple[str, str] | None:
    if event.type in _TYPES:
        return _TYPES[event.type]
    if event.kind is not AuditKind.SECURITY_ALERT:
        return None
    if event.outcome is not Outcome.SUCCESS:
        return _RESTRICTED
    is_of_users = any(word in event.type for word in ("users", "account", "tokens"))
    return _USERS_CHANGED if is_of_users else _SOFTWARE


def _code(parent: Element, name: str, code: tuple[str, str], scheme: str = "DCM") -> None:
    value, meaning = code
    SubElement(
        parent,
        name,
        {
            "csd-code": _printable(value),
            "codeSystemName": scheme,
            "originalText": _printable(meaning),
        },
    )


def _add_participants(message: Element, event: AuditEvent, source: Source) -> None:
    """Add who asked and ourselves; of transfers and queries also which way they went."""
    sends = event.kind is AuditKind.TRANSFERRED and event.action == "R"
    theirs, ours = {
        AuditKind.TRANSFERRED: (_DESTINATION, _SOURCE) if sends else (_SOURCE, _DESTINATION),
        AuditKind.QUERY: (_SOURCE, _DESTINATION),
    }.get(event.kind, (None, _APPLICATION))
    if event.kind is not AuditKind.APPLICATION:
        _participant(message, event.who or "unknown", event.address, theirs, is_requestor=True)
    _participant(message, source.source_id, source.host, ours, is_requestor=False)


def _participant(
    message: Element,
    user_id: str,
    address: str,
    role: tuple[str, str] | None,
    *,
    is_requestor: bool,
) -> None:
    participant = SubElement(
        message,
        "ActiveParticipant",
        UserID=_printable(user_id),
        UserIsRequestor="true" if is_requestor else "false",
    )
    if address:
        participant.set("NetworkAccessPointID", _printable(address))
        participant.set("NetworkAccessPointTypeCode", "2" if _is_address(address) else "1")
    if role is not None:
        _code(participant, "RoleIDCode", role)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _add_objects(message: Element, event: AuditEvent, patient_id: str, source: Source) -> None:
    if event.kind is AuditKind.AUDIT_LOG_USED:
        log = _object(message, source.source_id, _SYSTEM_OBJECT, _SECURITY_RESOURCE)
        _code(log, "ParticipantObjectIDTypeCode", ("12", "URI"), "RFC-3881")
        SubElement(log, "ParticipantObjectName").text = "Security Audit Log"
    if event.kind is AuditKind.SECURITY_ALERT:
        _add_alert(message, event, source)
    if event.kind is AuditKind.QUERY:
        _add_query(message, event)
    for uid in filter(None, (event.study_instance_uid, *event.studies)):
        study = _object(message, uid, _SYSTEM_OBJECT, _REPORT)
        _code(study, "ParticipantObjectIDTypeCode", ("110180", "Study Instance UID"))
        SubElement(study, "ParticipantObjectName").text = "Study"
    if patient_id:
        patient = _object(message, patient_id, _PERSON, _PATIENT)
        _code(patient, "ParticipantObjectIDTypeCode", ("2", "Patient Number"), "RFC-3881")
        # The name is not in the trail: the number says whose record it is, and no more is needed.
        SubElement(patient, "ParticipantObjectName").text = _printable(patient_id)


def _add_alert(message: Element, event: AuditEvent, source: Source) -> None:
    """Add what the alert is about and its Alert Description (DICOM PS3.15 A.5.3.11)."""
    subject = _object(message, source.source_id, _SYSTEM_OBJECT, _SECURITY_RESOURCE)
    _code(subject, "ParticipantObjectIDTypeCode", ("110182", "Node ID"))
    SubElement(subject, "ParticipantObjectName").text = _printable(event.type)
    description = event.detail or event.type
    SubElement(
        subject, "ParticipantObjectDetail", type="Alert Description", value=_base64(description)
    )


def _add_query(message: Element, event: AuditEvent) -> None:
    """Add what was asked for (DICOM PS3.15 A.5.3.10)."""
    query = _object(message, _STUDY_ROOT_FIND, _SYSTEM_OBJECT, _REPORT)
    _code(query, "ParticipantObjectIDTypeCode", ("110181", "SOP Class UID"))
    asked = SubElement(query, "ParticipantObjectQuery")
    asked.text = _base64(event.detail or event.type)


def _object(message: Element, object_id: str, type_code: str, role: str) -> Element:
    return SubElement(
        message,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_printable(object_id),
        ParticipantObjectTypeCode=type_code,
        ParticipantObjectTypeCodeRole=role,
    )


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _printable(text: str) -> str:
    """Return a text without what XML 1.0 cannot hold (section 2.2)."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def syslog_message(message: bytes, event: AuditEvent, host: str, process_id: int) -> bytes:
    """Return an audit message in a syslog message (RFC 5424 section 6, DICOM PS3.15 A.6)."""
    severity = _NOTICE if event.outcome is Outcome.SUCCESS else _WARNING
    priority = _FACILITY_SECURITY * 8 + severity
    at = _timestamp(event.at)
    name = "".join(c for c in host if "!" <= c <= "~")[:255] or "-"
    header = f"<{priority}>1 {at} {name} triage {process_id} DICOM+RFC3881 - "
    return header.encode("ascii") + _BYTE_ORDER_MARK + message


def _timestamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"
