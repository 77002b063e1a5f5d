"""The study as an ImagingStudy, and the task to read it, which says how urgent it is."""

from __future__ import annotations

from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.coding import Coding
from fhir.resources.R4B.imagingstudy import (
    ImagingStudy,
    ImagingStudySeries,
    ImagingStudySeriesInstance,
)
from fhir.resources.R4B.reference import Reference
from fhir.resources.R4B.task import Task

from triage.core.notices import Notice, NoticeRun, NoticeStudy
from triage.core.priority import Priority
from triage.core.runs import DeliveryKind
from triage.core.uids import derived_uid
from triage.results.fhir.findings import report_uid
from triage.results.fhir.parts import (
    DICOM_TERMS,
    dicom_identifier,
    full_url,
    instant,
    iso_date,
    logical,
    own_identifier,
    reference,
    term,
    typed_identifier,
)
from triage.results.fhir.subject import Subject

PRIORITIES = {
    Priority.STAT: "stat",
    Priority.HIGH: "asap",
    Priority.ROUTINE: "routine",
    Priority.LOW: "routine",
}
"""FHIR's words. HIGH is `asap`, as HL7 v2 says it; nothing is below `routine`."""

_MODALITIES = {"seg": "SEG", "sr": "SR", "key-objects": "KO", "presentation-state": "PR"} | {
    "rtstruct": "RTSTRUCT",
    "pdf": "DOC",
}


def study_url(study: NoticeStudy) -> str:
    """Return what the ImagingStudy is called in the bundle."""
    return full_url(study.study_instance_uid)


def order_of(study: NoticeStudy, accession_system: str) -> list[Reference] | None:
    """Return the order by its Accession Number, where there is one."""
    if not study.accession_number:
        return None
    identifier = typed_identifier(
        "ACSN", "Accession ID", system=accession_system, value=study.accession_number
    )
    return [logical("ServiceRequest", identifier)]


def imaging_study(notice: Notice, subject: Subject, accession_system: str) -> ImagingStudy:
    """Return the study, with the series that was analysed and those of the results."""
    study = notice.study
    return ImagingStudy(
        identifier=[dicom_identifier(study.study_instance_uid)],
        status="available",
        subject=subject.reference,
        basedOn=order_of(study, accession_system),
        started=iso_date(study.study_date),
        modality=[_modality(word) for word in study.modalities] or None,
        description=study.description.strip() or None,
        series=_series(study, notice.run) or None,
    )


def _modality(word: str) -> Coding:
    return Coding(system=DICOM_TERMS, code=word)


def _series(study: NoticeStudy, run: NoticeRun | None) -> list[ImagingStudySeries]:
    if run is None:
        return []
    found: dict[str, ImagingStudySeries] = {}
    # Modality is required; where a study has one, its source series has the same.
    modality = run.source_modality or (study.modalities[0] if len(study.modalities) == 1 else "OT")
    if run.source_series_uid:
        found[run.source_series_uid] = ImagingStudySeries(
            uid=run.source_series_uid, modality=_modality(modality)
        )
    for each in run.objects:
        series = found.setdefault(
            each.series_instance_uid,
            ImagingStudySeries(
                uid=each.series_instance_uid,
                modality=_modality(_MODALITIES.get(each.role, "OT")),
                instance=[],
            ),
        )
        series.instance = [
            *(series.instance or []),
            ImagingStudySeriesInstance(
                uid=each.sop_instance_uid,
                sopClass=Coding(system="urn:ietf:rfc3986", code=f"urn:oid:{each.sop_class_uid}"),
            ),
        ]
    return list(found.values())


def task_uid(study: NoticeStudy) -> str:
    """Return the UID of the task: there is one for each study."""
    return derived_uid("fhir", study.study_instance_uid, "task")


def reading_task(notice: Notice, subject: Subject, accession_system: str) -> Task:
    """Return the task to read the study, with the priority that it has now, and why."""
    study = notice.study
    report = None
    if (
        study.is_raised_by_ai
        and notice.run is not None
        and notice.kind is not DeliveryKind.WITHDRAWAL
    ):
        uid = report_uid(study, notice.run)
        report = logical("DiagnosticReport", own_identifier(uid))
    return Task(
        identifier=[own_identifier(task_uid(study))],
        basedOn=order_of(study, accession_system),
        status="completed" if study.is_read else "requested",
        intent="order",
        priority=PRIORITIES[study.priority],
        code=CodeableConcept(
            coding=term("http://hl7.org/fhir/CodeSystem/task-code", "fulfill", "Fulfill").coding,
            text="Read the imaging study",
        ),
        focus=reference(study_url(study)),
        for_fhir=subject.reference,
        authoredOn=instant(study.first_instance_at),
        reasonCode=CodeableConcept(text=study.reason)
        if study.is_raised_by_ai and study.reason
        else None,
        reasonReference=report,
    )
