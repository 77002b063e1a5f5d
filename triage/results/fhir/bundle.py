"""One transaction for each notice, which may be sent again without changing anything.

What is Triage's own is updated where it is and created where it is not (conditional update, FHIR
R4 3.1.0.4.3). What others may own as well, the patient and the study, is created only where it is
not (conditional create, 3.1.0.5.1), and never written over.
"""

from __future__ import annotations

from fhir.resources.R4B.bundle import Bundle, BundleEntry, BundleEntryRequest
from fhir.resources.R4B.identifier import Identifier
from fhir.resources.R4B.reference import Reference
from fhir.resources.R4B.resource import Resource

from triage.core.notices import Notice, NoticeRun
from triage.core.runs import DeliveryKind
from triage.results.fhir.findings import (
    device,
    device_uid,
    observation,
    observation_uid,
    report,
    report_uid,
)
from triage.results.fhir.parts import (
    by_identifier,
    by_tag,
    dicom_identifier,
    full_url,
    own_identifier,
    reference,
)
from triage.results.fhir.study import imaging_study, order_of, reading_task, study_url, task_uid
from triage.results.fhir.subject import Subject, subject_of
from triage.results.fhir.trail import audit_event, provenance
from triage.settings import FhirDestination


def bundle_of(notice: Notice, destination: FhirDestination) -> Bundle:
    """Return the transaction that tells `destination` what `notice` says.

    Raises:
        DeliveryError: the patient cannot be named as the destination wants it.
    """
    subject = subject_of(notice.study.patient, destination)
    entries = _patient(subject)
    if notice.run is not None:
        model = own_identifier(device_uid(notice.run))
        entries.append(_created(device(notice.run), full_url(device_uid(notice.run)), model))
    study = imaging_study(notice, subject, destination.accession_system)
    identifier = dicom_identifier(notice.study.study_instance_uid)
    entries.append(_created(study, study_url(notice.study), identifier))
    about: list[Reference] = []
    if notice.run is not None and notice.kind is not DeliveryKind.PRIORITY:
        said = _findings(notice, notice.run, subject, destination)
        entries += said
        about = [reference(str(entry.fullUrl)) for entry in said]
    task = _updated(
        reading_task(notice, subject, destination.accession_system), task_uid(notice.study)
    )
    entries.append(task)
    about.append(reference(str(task.fullUrl)))
    entries.append(_tagged(provenance(notice, about), notice))
    entries.append(_tagged(audit_event(notice, [subject.reference, *about]), notice))
    return Bundle(type="transaction", entry=entries)


def _patient(subject: Subject) -> list[BundleEntry]:
    if subject.resource is None or subject.identifier is None:
        return []
    return [_created(subject.resource, subject.full_url, subject.identifier)]


def _findings(
    notice: Notice, run: NoticeRun, subject: Subject, destination: FhirDestination
) -> list[BundleEntry]:
    study = notice.study
    is_withdrawn = notice.kind is DeliveryKind.WITHDRAWAL
    images = reference(study_url(study))
    observations = [
        _updated(
            observation(
                study, run, finding, subject, derived_from=images, is_withdrawn=is_withdrawn
            ),
            observation_uid(study, run, finding),
        )
        for finding in run.findings
    ]
    over_all = report(
        study,
        run,
        subject,
        study_reference=images,
        based_on=order_of(study, destination.accession_system),
        is_withdrawn=is_withdrawn,
    )
    return [*observations, _updated(over_all, report_uid(study, run))]


def _created(resource: Resource, url: str, identifier: Identifier) -> BundleEntry:
    """Return the entry that creates `resource` unless one with `identifier` is there."""
    request = BundleEntryRequest(
        method="POST", url=resource.get_resource_type(), ifNoneExist=by_identifier(identifier)
    )
    return BundleEntry(fullUrl=url, resource=resource, request=request)


def _updated(resource: Resource, uid: str) -> BundleEntry:
    """Return the entry that writes Triage's own `resource` over what is there of it."""
    query = by_identifier(own_identifier(uid))
    request = BundleEntryRequest(method="PUT", url=f"{resource.get_resource_type()}?{query}")
    return BundleEntry(fullUrl=full_url(uid), resource=resource, request=request)


def _tagged(resource: Resource, notice: Notice) -> BundleEntry:
    """Return the entry that creates what has no identifier, once for each notice."""
    kind = resource.get_resource_type()
    request = BundleEntryRequest(method="POST", url=kind, ifNoneExist=by_tag(notice.notice_id))
    return BundleEntry(
        fullUrl=full_url(f"{notice.notice_id} {kind}"), resource=resource, request=request
    )
