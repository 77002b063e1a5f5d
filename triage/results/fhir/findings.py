"""What an analysis found: the model as a Device, its findings and the report over them."""

from __future__ import annotations

from fhir.resources.R4B.annotation import Annotation
from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.device import Device, DeviceDeviceName, DeviceVersion
from fhir.resources.R4B.diagnosticreport import DiagnosticReport
from fhir.resources.R4B.observation import Observation, ObservationComponent
from fhir.resources.R4B.reference import Reference

from triage.core.findings import Finding
from triage.core.notices import NoticeRun, NoticeStudy
from triage.core.uids import derived_uid
from triage.results.context import ARTIFICIAL_INTELLIGENCE
from triage.results.fhir.parts import (
    concept,
    full_url,
    instant,
    iso_date,
    own_identifier,
    quantity,
    reference,
    term,
)
from triage.results.fhir.subject import Subject
from triage.results.report import ABSENT, CERTAINTY_OF_FINDING, PERCENT, PRESENT


def device_uid(run: NoticeRun) -> str:
    """Return the UID of the model's version as a device."""
    return derived_uid("fhir", "device", run.model, run.version)


def report_uid(study: NoticeStudy, run: NoticeRun) -> str:
    """Return the UID of the report over the run."""
    return _run_uid(study, run, "report")


def observation_uid(study: NoticeStudy, run: NoticeRun, finding: Finding) -> str:
    """Return the UID of what the run says about one finding."""
    return _run_uid(study, run, "observation", finding.key)


def _run_uid(study: NoticeStudy, run: NoticeRun, *parts: str) -> str:
    return derived_uid(
        "fhir", study.study_instance_uid, run.model, run.version, str(run.run_id), *parts
    )


def device(run: NoticeRun) -> Device:
    """Return the version of the model that the run used."""
    return Device(
        identifier=[own_identifier(device_uid(run))],
        status="active",
        deviceName=[DeviceDeviceName(name=run.model, type="model-name")],
        modelNumber=run.model,
        version=[DeviceVersion(value=run.version)],
        type=concept(ARTIFICIAL_INTELLIGENCE),
        note=[Annotation(text=run.notice)] if run.notice else None,
    )


def observation(
    study: NoticeStudy,
    run: NoticeRun,
    finding: Finding,
    subject: Subject,
    *,
    derived_from: Reference,
    is_withdrawn: bool,
) -> Observation:
    """Return whether the finding is there, how sure that is, and what was measured.

    R4 lets only people and organisations perform an Observation, so the model is its device.
    """
    confidence = ObservationComponent(
        code=concept(CERTAINTY_OF_FINDING),
        valueQuantity=quantity(100 * finding.confidence, PERCENT),
    )
    measured = [
        ObservationComponent(code=concept(m.concept), valueQuantity=quantity(m.value, m.unit))
        for m in finding.measurements
    ]
    return Observation(
        identifier=[own_identifier(observation_uid(study, run, finding))],
        status="entered-in-error" if is_withdrawn else "preliminary",
        category=[
            term("http://terminology.hl7.org/CodeSystem/observation-category", "imaging", "Imaging")
        ],
        code=concept(finding.code),
        subject=subject.reference,
        effectiveDateTime=iso_date(study.study_date),
        issued=instant(run.finished_at),
        valueCodeableConcept=concept(PRESENT if finding.present else ABSENT),
        bodySite=concept(finding.site) if finding.site else None,
        device=reference(full_url(device_uid(run))),
        derivedFrom=[derived_from],
        component=[confidence, *measured],
    )


def report(
    study: NoticeStudy,
    run: NoticeRun,
    subject: Subject,
    *,
    study_reference: Reference,
    based_on: list[Reference] | None,
    is_withdrawn: bool,
) -> DiagnosticReport:
    """Return the report over the run: preliminary, and interpreted by nobody.

    R4 allows no Device as performer of a DiagnosticReport: the model is the device of its
    Observations and the author in its Provenance.
    """
    said = "; ".join(finding.in_words() for finding in run.findings) or "Nothing was looked for"
    present = [finding for finding in run.findings if finding.present]
    return DiagnosticReport(
        identifier=[own_identifier(report_uid(study, run))],
        basedOn=based_on,
        status="entered-in-error" if is_withdrawn else "preliminary",
        category=[term("http://terminology.hl7.org/CodeSystem/v2-0074", "RAD", "Radiology")],
        code=CodeableConcept(
            coding=term("http://loinc.org", "18748-4", "Diagnostic imaging study").coding,
            text=f"Analysis by {run.identity}",
        ),
        subject=subject.reference,
        effectiveDateTime=iso_date(study.study_date),
        issued=instant(run.finished_at),
        result=[reference(full_url(observation_uid(study, run, f))) for f in run.findings] or None,
        imagingStudy=[study_reference],
        conclusion=f"{said}. {run.notice}".strip(),
        conclusionCode=[concept(finding.code) for finding in present] or None,
    )
