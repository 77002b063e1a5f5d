"""What a webhook says, version 1: the schema that receivers may rely on.

Later versions of Triage add fields and never change or remove any without a new `version`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from triage.core.notices import Notice
from triage.core.priority import Priority
from triage.core.runs import DeliveryKind

VERSION: Literal[1] = 1


def _named(value: object) -> object:
    return value.name.lower() if isinstance(value, Priority) else value


PriorityWord = Annotated[Literal["low", "routine", "high", "stat"], BeforeValidator(_named)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True, use_attribute_docstrings=True)


class CodeMessage(_Part):
    """A concept by its code."""

    value: str
    scheme: str
    """Coding Scheme Designator (DICOM PS3.16 table 8-1): `SCT`, `DCM`, `UCUM`, …"""
    meaning: str


class MeasurementMessage(_Part):
    """A number of a finding."""

    concept: CodeMessage
    value: float
    unit: CodeMessage
    """In UCUM."""


class FindingMessage(_Part):
    """What the model says of one thing that it looked for, there or not."""

    key: str
    """Its name in the model's manifest."""
    code: CodeMessage
    site: CodeMessage | None
    present: bool
    confidence: float
    """From 0 to 1."""
    priority: PriorityWord
    """How urgent the study is where it is present."""
    measurements: tuple[MeasurementMessage, ...]
    key_image_uids: tuple[str, ...]
    """SOP Instance UIDs of the images that show it best."""


class ObjectMessage(_Part):
    """A DICOM object that the analysis left in the archive."""

    role: str
    """`seg`, `sr`, `heat-map` or another kind of result."""
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


class RunMessage(_Part):
    """The analysis."""

    run_id: int
    model: str
    version: str
    notice: str
    """What the model may be used for."""
    stage: str
    """`production` or `canary`."""
    finished_at: datetime
    source_series_uid: str
    findings: tuple[FindingMessage, ...]
    objects: tuple[ObjectMessage, ...]


class ChangeMessage(_Part):
    """A change of the study's priority."""

    source: str
    """`ai`, or who else changed it."""
    before: PriorityWord
    after: PriorityWord
    reason: str


class WithdrawalMessage(_Part):
    """A result that is taken back."""

    who: str
    """Empty where a newer analysis did it."""
    reason: str
    is_superseded: bool
    """Whether a newer analysis takes its place; otherwise a person took it back."""


class PatientMessage(_Part):
    """The patient; empty unless the destination has `patient_data = true`."""

    patient_id: str
    issuer: str
    name: str
    """In the form of DICOM's PN."""
    birth_date: str
    """YYYYMMDD."""
    sex: str


class StudyMessage(_Part):
    """The study, and how urgent it is now."""

    study_instance_uid: str
    accession_number: str
    """Empty unless the destination has `patient_data = true`."""
    description: str
    study_date: str
    """YYYYMMDD."""
    study_time: str
    modalities: tuple[str, ...]
    calling_ae_title: str
    """Who sent it."""
    priority: PriorityWord
    order_priority: PriorityWord
    reason: str
    """Why the AI raised it; empty where it did not."""
    is_complete: bool
    is_read: bool
    first_instance_at: datetime
    patient: PatientMessage


class Data(_Part):
    """What happened."""

    study: StudyMessage
    run: RunMessage | None
    """The analysis; none where a person changed a priority."""
    change: ChangeMessage | None
    """Of `priority` only."""
    withdrawal: WithdrawalMessage | None
    """Of `withdrawal` only."""
    link: str
    """The study's page; empty without `web.public_url`."""


class WebhookMessage(_Part):
    """The body of the request. The header `webhook-id` is the same in every attempt."""

    type: DeliveryKind
    """`result` of an analysis, change of `priority`, or `withdrawal` of a result."""
    timestamp: datetime
    """When it happened; the header `webhook-timestamp` is when it was sent."""
    version: Literal[1] = VERSION
    """The version of this schema."""
    data: Data


def message_of(notice: Notice, link: str) -> WebhookMessage:
    """Return what is sent of `notice`."""
    data = Data(
        study=StudyMessage.model_validate(notice.study),
        run=RunMessage.model_validate(notice.run) if notice.run else None,
        change=ChangeMessage.model_validate(notice.change) if notice.change else None,
        withdrawal=(
            WithdrawalMessage.model_validate(notice.withdrawal) if notice.withdrawal else None
        ),
        link=link,
    )
    return WebhookMessage(type=notice.kind, timestamp=notice.occurred_at, data=data)
