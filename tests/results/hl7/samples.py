"""A notice of each kind about one study, and another library to read the messages with."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hl7apy.core import Message
from hl7apy.parser import parse_message

from triage.core.codes import HEMORRHAGE_MORPHOLOGY, MILLILITRE, VOLUME, Code
from triage.core.findings import Finding, Measurement
from triage.core.notices import (
    Notice,
    NoticeObject,
    NoticeOrder,
    NoticePatient,
    NoticeRun,
    NoticeStudy,
    NoticeWithdrawal,
    PriorityChange,
)
from triage.core.priority import Priority
from triage.core.runs import DeliveryKind
from triage.results.hl7 import OutgoingMessage
from triage.settings import Hl7Destination

AT = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
REASON = "Hemorrhage, 12.3 mL, confidence 0.97 (head-ct-hemorrhage 1.0.0)"

PATIENT = NoticePatient(
    patient_id="P1", issuer="HOSPITAL", name="Roe^Jane^^Dr", birth_date="19700102", sex="F"
)
STUDY = NoticeStudy(
    study_id=1,
    study_instance_uid="1.2.826.0.1.3680043.8.498.1",
    accession_number="A20260301",
    description="CT HEAD",
    study_date="20260301",
    study_time="115500.000",
    modalities=("CT",),
    calling_ae_title="CT1",
    priority=Priority.STAT,
    order_priority=Priority.ROUTINE,
    reason=REASON,
    is_complete=True,
    is_read=False,
    first_instance_at=AT,
    patient=PATIENT,
    order=NoticeOrder("PL1", "FI1", "CTHEAD", "CT head & neck", "L", "Headache"),
    location="ED-3-B",
    patient_class="E",
    is_raised_by_ai=True,
)
HEMORRHAGE = Finding(
    key="hemorrhage",
    code=HEMORRHAGE_MORPHOLOGY,
    site=Code(value="12738006", scheme="SCT", meaning="Brain"),
    present=True,
    confidence=0.974,
    measurements=(Measurement(concept=VOLUME, value=12.3, unit=MILLILITRE),),
    priority=Priority.STAT,
)
FRACTURE = Finding(
    key="fracture",
    code=Code(value="125605004", scheme="SCT", meaning="Fracture of bone"),
    present=False,
    confidence=0.031,
)
RUN = NoticeRun(
    run_id=1,
    model="head-ct-hemorrhage",
    version="1.0.0",
    notice="Trained on simulated lesions; not for clinical use",
    stage="production",
    finished_at=AT,
    source_series_uid="1.2.826.0.1.3680043.8.498.1.1",
    findings=(HEMORRHAGE, FRACTURE),
    objects=(
        NoticeObject("seg", "1.2.840.10008.5.1.4.1.1.66.4", "2.25.1", "2.25.10"),
        NoticeObject("sr", "1.2.840.10008.5.1.4.1.1.88.34", "2.25.2", "2.25.20"),
    ),
)
RESULT = Notice(
    notice_id="0f8fad5b-d9cb-569f-a165-70867728950e",
    kind=DeliveryKind.RESULT,
    occurred_at=AT,
    attempt=1,
    study=STUDY,
    run=RUN,
)
PRIORITY = replace(
    RESULT,
    notice_id="7c9e6679-7425-50de-944b-e07fc1f90ae7",
    kind=DeliveryKind.PRIORITY,
    change=PriorityChange("ai", Priority.ROUTINE, Priority.STAT, REASON),
)
CORRECTION = replace(RESULT, notice_id="16fd2706-8baf-533b-82eb-8c7fada847da", is_correction=True)
WITHDRAWAL = replace(
    RESULT,
    notice_id="886313e1-3b8a-5372-9b90-0c9aee199e5d",
    kind=DeliveryKind.WITHDRAWAL,
    withdrawal=NoticeWithdrawal("radiologist", "an artefact, no blood"),
)


def destination(**changes: Any) -> Hl7Destination:
    """Return a RIS that is told by HL7."""
    values: dict[str, Any] = {
        "kind": "hl7",
        "name": "ris",
        "host": "127.0.0.1",
        "port": 2575,
        "sending_facility": "RADIOLOGY",
        "receiving_application": "RIS",
        "receiving_facility": "HOSPITAL",
    }
    return Hl7Destination(**{**values, **changes})


def validated(message: OutgoingMessage) -> Message:
    """Return the message as hl7apy reads it, held against the structures of its version."""
    parsed = parse_message(message.content.decode(message.codec), find_groups=True)
    parsed.validate()
    return parsed
