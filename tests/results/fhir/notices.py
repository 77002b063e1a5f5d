"""Notices of a head CT with hemorrhage."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tests.results.scenes import BRAIN, FRACTURE, HEMORRHAGE, NOTICE, finding
from triage.core.notices import (
    Notice,
    NoticeObject,
    NoticePatient,
    NoticeRun,
    NoticeStudy,
    NoticeWithdrawal,
    PriorityChange,
)
from triage.core.priority import Priority
from triage.core.runs import DeliveryKind
from triage.settings import FhirDestination

AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
REASON = "Intracranial hemorrhage, 12.3 mL, confidence 0.97"
STUDY = NoticeStudy(
    study_id=7,
    study_instance_uid="1.2.826.0.1.3680043.8.498.7",
    accession_number="A-99",
    description="CT head without contrast",
    study_date="20260301",
    study_time="121500",
    modalities=("CT",),
    calling_ae_title="CT1",
    priority=Priority.STAT,
    order_priority=Priority.ROUTINE,
    reason=REASON,
    is_complete=True,
    is_read=False,
    first_instance_at=datetime(2026, 3, 1, 12, 20, tzinfo=UTC),
    patient=NoticePatient("P-17", "", "Muster^Anna^Maria^Dr.", "19500201", "F"),
    is_raised_by_ai=True,
)
RUN = NoticeRun(
    run_id=3,
    model="head-ct-hemorrhage",
    version="1.0.0",
    notice=NOTICE,
    stage="production",
    finished_at=AT,
    source_series_uid="1.2.826.0.1.3680043.8.498.7.2",
    findings=(
        finding("hemorrhage", HEMORRHAGE, volume_ml=12.345, site=BRAIN, priority=Priority.STAT),
        finding("fracture", FRACTURE, is_present=False),
    ),
    objects=(
        NoticeObject("seg", "1.2.840.10008.5.1.4.1.1.66.4", "2.25.11", "2.25.10"),
        NoticeObject("sr", "1.2.840.10008.5.1.4.1.1.88.34", "2.25.21", "2.25.20"),
    ),
    source_modality="CT",
)


def result(**changes: Any) -> Notice:
    """The notice of what the analysis found."""
    notice = Notice(
        notice_id="0d7c3ab4-2f0c-5f1b-9c0e-3f2f6f0f8a11",
        kind=DeliveryKind.RESULT,
        occurred_at=AT,
        attempt=1,
        study=STUDY,
        run=RUN,
    )
    return replace(notice, **changes)


def change_by_person() -> Notice:
    """The notice that a person has put the study down again."""
    return result(
        notice_id="7f0a1f9e-24c8-5b51-8f62-6a3c6d3f0b22",
        kind=DeliveryKind.PRIORITY,
        run=None,
        study=replace(STUDY, priority=Priority.ROUTINE, is_raised_by_ai=False),
        change=PriorityChange("person", Priority.STAT, Priority.ROUTINE, "known hemorrhage"),
    )


def withdrawal() -> Notice:
    """The notice that the result is taken back."""
    return result(
        notice_id="2b4d9c1e-6f11-5a0d-a5d3-8c1e0b9f7a33",
        kind=DeliveryKind.WITHDRAWAL,
        study=replace(STUDY, priority=Priority.ROUTINE, reason="", is_raised_by_ai=False),
        withdrawal=NoticeWithdrawal("dr.haus", "the images are of another patient"),
    )


def destination(url: str = "http://127.0.0.1:8081/fhir", **changes: Any) -> FhirDestination:
    """A FHIR server that creates patients whom it does not know."""
    values = {
        "kind": "fhir",
        "name": "record",
        "url": url,
        "timeout_s": 10,
        "patients": "create",
        "patient_system": "urn:oid:1.2.276.0.76.3.1.99.1",
        "accession_system": "urn:oid:1.2.276.0.76.3.1.99.2",
    }
    return FhirDestination.model_validate(values | changes)
