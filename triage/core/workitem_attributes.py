"""The attributes of unified procedure steps: what may be created and set, and what is reported.

Requirements are those of DICOM PS3.4 table CC.2.5-3; data sets are in the DICOM JSON model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Any

from triage.core.codes import Code
from triage.core.dicom_json import (
    Attributes,
    code_item,
    element,
    has_value,
    items_of,
    text_of,
)
from triage.core.priority import Priority
from triage.core.workitems import (
    UPS_PUSH,
    InputReadiness,
    StepPriority,
    StepState,
    UpsStatus,
    WorkitemError,
)

INTERPRETATION = Code(value="110005", scheme="DCM", meaning="Interpretation")
"""What is to be done with a study that is to be read (CID 9231)."""
DISCONTINUED = Code(
    value="110513", scheme="DCM", meaning="Discontinued for unspecified reason"
)  # CID 9300

SPECIFIC_CHARACTER_SET = "00080005"
SOP_CLASS_UID = "00080016"
SOP_INSTANCE_UID = "00080018"
TRANSACTION_UID = "00081195"
STUDY_INSTANCE_UID = "0020000D"
PATIENT_ID = "00100020"
COMMENTS = "00400400"
START = "00404005"
MODIFICATION = "00404010"
WORKITEM_CODES = "00404018"
INPUT_INFORMATION = "00404021"
STATION_NAMES = "00404025"
HUMAN_PERFORMERS = "00404034"
READINESS = "00404041"
STATE = "00741000"
PROGRESS = "00741002"
PRIORITY = "00741200"
WORKLIST_LABEL = "00741202"
LABEL = "00741204"
PERFORMED = "00741216"
REPLACED = "00741224"
REFERENCED_REQUESTS = "0040A370"
CANCELLATION_TIME = "00404052"
REASON_FOR_CANCELLATION = "00741238"
DISCONTINUATION_REASONS = "0074100E"
CONTACT_URI = "0074100A"
CONTACT_NAME = "0074100C"
REQUESTING_AE = "00741236"
RECEIVING_AE = "00741234"
DELETION_LOCK = "00741230"

NAMES = {
    PRIORITY: "Scheduled Procedure Step Priority (0074,1200)",
    LABEL: "Procedure Step Label (0074,1204)",
    START: "Scheduled Procedure Step Start DateTime (0040,4005)",
    READINESS: "Input Readiness State (0040,4041)",
    STATE: "Procedure Step State (0074,1000)",
    PROGRESS: "Procedure Step Progress Information Sequence (0074,1002)",
    PERFORMED: "Unified Procedure Step Performed Procedure Sequence (0074,1216)",
    TRANSACTION_UID: "Transaction UID (0008,1195)",
    WORKLIST_LABEL: "Worklist Label (0074,1202)",
}
_REQUIRED = (PRIORITY, LABEL, START, READINESS, STATE)
# May be empty; where a creation leaves one out, it is added.
_EXPECTED = {
    WORKLIST_LABEL: "LO",
    "00741210": "SQ",  # Scheduled Processing Parameters
    STATION_NAMES: "SQ",
    "00404026": "SQ",  # Scheduled Station Class Code
    "00404027": "SQ",  # Scheduled Station Geographic Location Code
    WORKITEM_CODES: "SQ",
    COMMENTS: "LT",
    INPUT_INFORMATION: "SQ",
    "00100010": "PN",
    PATIENT_ID: "LO",
    "00100030": "DA",
    "00100040": "CS",
    "00380010": "LO",  # Admission ID
    "00380014": "SQ",  # Issuer of Admission ID
    "00081080": "LO",  # Admitting Diagnoses Description
    "00081084": "SQ",  # Admitting Diagnoses Code
    REFERENCED_REQUESTS: "SQ",
    PROGRESS: "SQ",
    PERFORMED: "SQ",
}
_ENUMERATED: Mapping[str, type[StrEnum]] = {
    PRIORITY: StepPriority,
    READINESS: InputReadiness,
    STATE: StepState,
}
# What belongs to the patient, the visit and the request is set at creation only.
_NOT_TO_BE_SET = (
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
    REPLACED,
    "00100010",
    PATIENT_ID,
    "00100021",
    "00101002",
    "00100030",
    "00100040",
    "00380010",
    "00380014",
    "00081080",
    "00081084",
)
_PERFORMED_ATTRIBUTES = {
    "00404028": "Performed Station Name Code Sequence (0040,4028)",
    "00404050": "Performed Procedure Step Start DateTime (0040,4050)",
    "00404019": "Performed Workitem Code Sequence (0040,4019)",
    "00404051": "Performed Procedure Step End DateTime (0040,4051)",
}


def date_time(moment: datetime) -> str:
    """Return a DT value in UTC (DICOM PS3.5 6.2).

    >>> date_time(datetime(2026, 3, 1, 12, 0, tzinfo=UTC))
    '20260301120000.000000+0000'
    """
    return moment.astimezone(UTC).strftime("%Y%m%d%H%M%S.%f+0000")


def created(uid: str, given: Attributes, now: datetime) -> tuple[dict[str, Any], bool]:
    """Return the attributes of a workitem that another system creates, and whether any was added.

    Raises:
        WorkitemError: a required attribute is missing, empty or none of its values.
    """
    for tag in _REQUIRED:
        if tag not in given:
            raise WorkitemError(UpsStatus.MISSING_ATTRIBUTE, f"{NAMES[tag]} is missing")
        if not has_value(given, tag):
            raise WorkitemError(UpsStatus.MISSING_ATTRIBUTE_VALUE, f"{NAMES[tag]} is empty")
    if text_of(given, STATE) != StepState.SCHEDULED:
        raise WorkitemError(UpsStatus.NOT_CREATED_AS_SCHEDULED, f"{NAMES[STATE]} must be SCHEDULED")
    _check_enumerated(given)
    for tag in (TRANSACTION_UID, PROGRESS, PERFORMED):
        if has_value(given, tag):
            raise WorkitemError(
                UpsStatus.INVALID_ATTRIBUTE_VALUE, f"{NAMES[tag]} must be empty at creation"
            )
    kept = _without_own(given)
    missing = {tag: element(vr) for tag, vr in _EXPECTED.items() if tag not in kept}
    own = {
        SOP_CLASS_UID: element("UI", UPS_PUSH),
        SOP_INSTANCE_UID: element("UI", uid),
        MODIFICATION: element("DT", date_time(now)),
    }
    return {**kept, **missing, **own}, bool(missing)


def updated(attributes: Attributes, changes: Attributes, now: datetime) -> dict[str, Any]:
    """Return the attributes after an N-SET; `changes` replace whole attributes (CC.2.6.2).

    Raises:
        WorkitemError: one of them may not be set, or not to that value.
    """
    if STATE in changes:
        is_scheduled = text_of(changes, STATE) == StepState.SCHEDULED
        status = (
            UpsStatus.SCHEDULED_BY_CREATION_ONLY
            if is_scheduled
            else UpsStatus.INVALID_ATTRIBUTE_VALUE
        )
        raise WorkitemError(status, f"{NAMES[STATE]} is changed by N-ACTION only")
    for tag in _NOT_TO_BE_SET:
        if tag in changes and changes[tag] != attributes.get(tag):
            raise WorkitemError(
                UpsStatus.INVALID_ATTRIBUTE_VALUE,
                f"({tag[:4]},{tag[4:]}) is set at creation only",
            )
    for tag in _REQUIRED:
        if tag in changes and not has_value(changes, tag):
            raise WorkitemError(
                UpsStatus.MISSING_ATTRIBUTE_VALUE, f"{NAMES[tag]} cannot be made empty"
            )
    _check_enumerated(changes)
    return {
        **attributes,
        **_without_own(changes),
        MODIFICATION: element("DT", date_time(now)),
    }


def _check_enumerated(given: Attributes) -> None:
    for tag, enumerated in _ENUMERATED.items():
        if tag in given and text_of(given, tag) not in list(enumerated):
            words = ", ".join(enumerated)
            raise WorkitemError(
                UpsStatus.INVALID_ATTRIBUTE_VALUE, f"{NAMES[tag]} must be one of {words}"
            )


def _without_own(given: Attributes) -> dict[str, Any]:
    """Leave out command and file elements, the lock, and how the request's text was encoded."""
    return {
        tag: value
        for tag, value in given.items()
        if tag[:4] not in ("0000", "0002") and tag not in (TRANSACTION_UID, SPECIFIC_CHARACTER_SET)
    }


def missing_for_final_state(attributes: Attributes, wanted: StepState) -> str:
    """Return which attribute the final state still needs, "" if none (CC.2.5.1.1).

    COMPLETED needs to know what was performed, where and when. What CANCELED needs, the provider
    adds (`canceled`), because a workitem may be cancelled with two N-ACTIONs and no N-SET.
    """
    if wanted is not StepState.COMPLETED:
        return ""
    performed = items_of(attributes, PERFORMED)
    if not performed:
        return NAMES[PERFORMED]
    for item in performed:
        for tag, name in _PERFORMED_ATTRIBUTES.items():
            if not has_value(item, tag):
                return name
    return ""


def in_state(
    attributes: Attributes, state: StepState, now: datetime, reason: Attributes | None = None
) -> dict[str, Any]:
    """Return the attributes in another state; a cancelled one says when and why.

    Args:
        attributes: before.
        state: the new one.
        now: the present moment.
        reason: Reason For Cancellation and the like, where a request brought them.
    """
    changed = {
        **attributes,
        STATE: element("CS", str(state)),
        MODIFICATION: element("DT", date_time(now)),
    }
    if state is not StepState.CANCELED:
        return changed
    found = items_of(attributes, PROGRESS)
    progress = dict(found[0]) if found else {}
    for tag in (REASON_FOR_CANCELLATION, DISCONTINUATION_REASONS):
        if reason and has_value(reason, tag) and not has_value(progress, tag):
            progress[tag] = reason[tag]
    if not has_value(progress, CANCELLATION_TIME):
        progress[CANCELLATION_TIME] = element("DT", date_time(now))
    if not has_value(progress, DISCONTINUATION_REASONS):
        progress[DISCONTINUATION_REASONS] = element("SQ", code_item(DISCONTINUED))
    return {**changed, PROGRESS: element("SQ", progress)}


@dataclass(frozen=True, slots=True)
class StudyToRead:
    """What the workitem of a study says of it; text values are those of the DICOM attributes.

    Attributes:
        patient_id: "" where the study has none.
        priority: the effective one.
        reason: why it has it.
        is_complete: whether all images are there, as far as Triage knows.
        arrived_at: its first image, from when on it may be read.
    """

    study_instance_uid: str
    accession_number: str
    description: str
    modalities: str
    patient_id: str
    issuer_of_patient_id: str
    patient_name: str
    patient_birth_date: str
    patient_sex: str
    priority: Priority
    reason: str
    is_complete: bool
    arrived_at: datetime


def reading_workitem(
    uid: str, study: StudyToRead, now: datetime, replaced_uid: str = ""
) -> dict[str, Any]:
    """Return the attributes of the workitem by which a study is to be read.

    What depends on the configuration (Worklist Label, where the images are) is added when it is
    given out.

    Args:
        uid: its SOP Instance UID.
        study: what is to be read.
        now: the present moment.
        replaced_uid: an ended workitem of the same study that it takes the place of.
    """
    attributes: dict[str, Any] = {
        **{tag: element(vr) for tag, vr in _EXPECTED.items()},
        SOP_CLASS_UID: element("UI", UPS_PUSH),
        SOP_INSTANCE_UID: element("UI", uid),
        STATE: element("CS", str(StepState.SCHEDULED)),
        START: element("DT", date_time(study.arrived_at)),
        WORKITEM_CODES: element("SQ", code_item(INTERPRETATION)),
    }
    if replaced_uid:
        replaced = {
            "00081150": element("UI", UPS_PUSH),
            "00081155": element("UI", replaced_uid),
        }
        attributes[REPLACED] = element("SQ", replaced)
    return refreshed(attributes, study, now)


def refreshed(
    attributes: Attributes,
    study: StudyToRead,
    now: datetime,
    asked_priority: StepPriority | None = None,
) -> dict[str, Any]:
    """Return the attributes of a study's workitem as the study is now.

    Args:
        attributes: before.
        study: what is to be read.
        now: the present moment.
        asked_priority: what another system asked for; it may raise the priority, never lower it.
    """
    priority = StepPriority.of(study.priority)
    if asked_priority is not None and asked_priority.rank > priority.rank:
        priority = asked_priority
    readiness = InputReadiness.READY if study.is_complete else InputReadiness.INCOMPLETE
    what = study.description or study.modalities.replace("\\", " ") or "study"
    request = {
        STUDY_INSTANCE_UID: element("UI", study.study_instance_uid),
        "00080050": element("SH", study.accession_number),
        "00401001": element("SH"),  # Requested Procedure ID
        "00321060": element("LO", study.description[:64]),
        "00321064": element("SQ"),
    }
    return {
        **attributes,
        PRIORITY: element("CS", str(priority)),
        LABEL: element("LO", f"Read {what}"[:64]),
        COMMENTS: element("LT", f"{study.priority.label}: {study.reason}"[:1024]),
        READINESS: element("CS", str(readiness)),
        MODIFICATION: element("DT", date_time(now)),
        STUDY_INSTANCE_UID: element("UI", study.study_instance_uid),
        PATIENT_ID: element("LO", study.patient_id),
        "00100021": element("LO", study.issuer_of_patient_id),
        "00100010": element("PN", study.patient_name),
        "00100030": element("DA", study.patient_birth_date),
        "00100040": element("CS", study.patient_sex),
        REFERENCED_REQUESTS: element("SQ", request),
    }


class EventType(IntEnum):
    """What is reported to subscribers (DICOM PS3.4 table CC.2.4-1)."""

    STATE_REPORT = 1
    CANCEL_REQUESTED = 2
    PROGRESS_REPORT = 3
    SCP_STATUS_CHANGE = 4
    ASSIGNED = 5


@dataclass(frozen=True, slots=True)
class UpsEvent:
    """An event and its information."""

    event_type: EventType
    information: dict[str, Any]


def state_report(attributes: Attributes) -> UpsEvent:
    """Return what a subscriber is told of the present state.

    The priority is with it, beyond what the standard asks for: it has no event for a priority that
    changed, and a workstation should not have to ask for it.
    """
    told = {tag: attributes[tag] for tag in (STATE, READINESS, PRIORITY) if tag in attributes}
    if text_of(attributes, STATE) == StepState.CANCELED:
        for item in items_of(attributes, PROGRESS)[:1]:
            for tag in (REASON_FOR_CANCELLATION, DISCONTINUATION_REASONS):
                if has_value(item, tag):
                    told[tag] = item[tag]
    return UpsEvent(EventType.STATE_REPORT, told)


def assigned_report(attributes: Attributes) -> UpsEvent:
    """Return to whom the workitem is assigned: a station, a person."""
    told = {}
    if has_value(attributes, STATION_NAMES):
        told[STATION_NAMES] = attributes[STATION_NAMES]
    for performer in items_of(attributes, HUMAN_PERFORMERS)[:1]:
        for tag in ("00404009", "00404036"):  # Human Performer Code, Organization
            if has_value(performer, tag):
                told[tag] = performer[tag]
    return UpsEvent(EventType.ASSIGNED, told)


def cancel_report(requesting_ae_title: str, information: Attributes) -> UpsEvent:
    """Return what the performer is told when another system asks to cancel."""
    given = (REASON_FOR_CANCELLATION, DISCONTINUATION_REASONS, CONTACT_URI, CONTACT_NAME)
    told = {tag: information[tag] for tag in given if has_value(information, tag)}
    told[REQUESTING_AE] = element("AE", requesting_ae_title)
    return UpsEvent(EventType.CANCEL_REQUESTED, told)


def restart_report() -> UpsEvent:
    """Return what subscribers are told when we are back: both lists are in the database."""
    return UpsEvent(
        EventType.SCP_STATUS_CHANGE,
        {
            "00741242": element("CS", "RESTARTED"),
            "00741244": element("CS", "WARM START"),
            "00741246": element("CS", "WARM START"),
        },
    )


def going_down_report() -> UpsEvent:
    """Return what subscribers are told when we stop."""
    return UpsEvent(EventType.SCP_STATUS_CHANGE, {"00741242": element("CS", "GOING DOWN")})


def reports_of_creation(attributes: Attributes) -> list[UpsEvent]:
    """Return what those are told who are subscribed to all new workitems (CC.2.4.3)."""
    events = [state_report(attributes)]
    if has_value(attributes, STATION_NAMES) or has_value(attributes, HUMAN_PERFORMERS):
        events.append(assigned_report(attributes))
    return events


def reports_of_change(before: Attributes, after: Attributes) -> list[UpsEvent]:
    """Return what subscribers are told of a change of the attributes (CC.2.4.3)."""
    events = []
    if any(before.get(tag) != after.get(tag) for tag in (STATE, READINESS, PRIORITY)):
        events.append(state_report(after))
    progress = _reported_progress(after)
    if progress != _reported_progress(before) and "Value" in progress:
        events.append(UpsEvent(EventType.PROGRESS_REPORT, {PROGRESS: progress}))
    if any(before.get(tag) != after.get(tag) for tag in (STATION_NAMES, HUMAN_PERFORMERS)):
        events.append(assigned_report(after))
    return events


def _reported_progress(attributes: Attributes) -> dict[str, Any]:
    reported = ("00741004", "00741006", "00741007", "00741008")
    items = [
        {tag: value for tag, value in item.items() if tag in reported}
        for item in items_of(attributes, PROGRESS)
    ]
    return element("SQ", *(item for item in items if item))


RETURNED_BY_DEFAULT = frozenset(
    (
        *_REQUIRED,
        *_EXPECTED,
        SOP_CLASS_UID,
        SOP_INSTANCE_UID,
        STUDY_INSTANCE_UID,
        MODIFICATION,
        REPLACED,
        "00100021",
    )
)
"""What a search by UPS-RS gives without being asked (return keys of type 1 and 2)."""
