"""What other systems are told of a study, whatever language they are told it in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from triage.core.findings import Finding
from triage.core.priority import Priority
from triage.core.runs import DeliveryKind


@dataclass(frozen=True, slots=True)
class NoticePatient:
    """The patient, as the images and the orders name one; empty where they do not say.

    `name` is in the form of DICOM's PN, `birth_date` YYYYMMDD, `sex` M, F, O or empty.
    """

    patient_id: str
    issuer: str
    name: str
    birth_date: str
    sex: str


@dataclass(frozen=True, slots=True)
class NoticeOrder:
    """The order that the study was made for, as messages told it; empty where none did."""

    placer_number: str = ""
    filler_number: str = ""
    procedure_code: str = ""
    procedure_text: str = ""
    procedure_scheme: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class NoticeStudy:
    """The study, and how urgent it is now.

    `study_date` and `study_time` are DICOM's DA and TM. `reason` says why the AI asks
    for more than the order, `is_raised_by_ai` whether that is what counts.
    `location` and `patient_class` (HL7 table 0004) say where the patient is, if anybody told.
    """

    study_id: int
    study_instance_uid: str
    accession_number: str
    description: str
    study_date: str
    study_time: str
    modalities: tuple[str, ...]
    calling_ae_title: str
    priority: Priority
    order_priority: Priority
    reason: str
    is_complete: bool
    is_read: bool
    first_instance_at: datetime
    patient: NoticePatient
    order: NoticeOrder = NoticeOrder()
    location: str = ""
    patient_class: str = ""
    is_raised_by_ai: bool = False


@dataclass(frozen=True, slots=True)
class NoticeObject:
    """An object that the analysis left; `role` is a `triage.core.manifest.ResultKind`."""

    role: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, slots=True)
class NoticeRun:
    """The analysis: model, findings present and absent, and the objects of it.

    `notice` is what the model's manifest says that it may be used for. `source_series_uid` is the
    series that was analysed, `source_modality` its modality.
    """

    run_id: int
    model: str
    version: str
    notice: str
    stage: str
    finished_at: datetime
    source_series_uid: str
    findings: tuple[Finding, ...]
    objects: tuple[NoticeObject, ...]
    source_modality: str = ""

    @property
    def identity(self) -> str:
        """Name and version: "head-ct-hemorrhage 1.0.0"."""
        return f"{self.model} {self.version}"


@dataclass(frozen=True, slots=True)
class PriorityChange:
    """A change of the study's priority, with its reason in words; `source` is who changed it."""

    source: str
    before: Priority
    after: Priority
    reason: str


@dataclass(frozen=True, slots=True)
class NoticeWithdrawal:
    """A result that is taken back: by whom, and why in words.

    `is_superseded` says that no person did it: a newer analysis takes its place.
    """

    who: str
    reason: str
    is_superseded: bool = False


@dataclass(frozen=True, slots=True)
class Notice:
    """One message to one destination, with all that it may say.

    Attributes:
        notice_id: the same whenever this notice is sent to this destination, a UUID: who gets it
            twice can tell.
        kind: a result has `run`; a change of priority has `change`, and `run` where a model caused
            it; a withdrawal has `withdrawal` and `run`.
        is_correction: whether this result was told before, when something else was held true.
        occurred_at: when what it tells happened.
        attempt: how often it was sent, from 1.
    """

    notice_id: str
    kind: DeliveryKind
    occurred_at: datetime
    attempt: int
    study: NoticeStudy
    run: NoticeRun | None = None
    change: PriorityChange | None = None
    withdrawal: NoticeWithdrawal | None = None
    is_correction: bool = False
