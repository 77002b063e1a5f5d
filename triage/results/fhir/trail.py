"""Who said it, from what, and that it was sent: Provenance and AuditEvent.

R4 gives neither an identifier, so each carries its notice as a tag, and is created only where
none with that tag is.
"""

from __future__ import annotations

from fhir.resources.R4B.auditevent import (
    AuditEvent,
    AuditEventAgent,
    AuditEventEntity,
    AuditEventSource,
)
from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.coding import Coding
from fhir.resources.R4B.provenance import Provenance, ProvenanceAgent, ProvenanceEntity
from fhir.resources.R4B.reference import Reference

from triage.core.notices import Notice
from triage.core.runs import DeliveryKind
from triage.results.fhir.findings import device_uid
from triage.results.fhir.parts import (
    dicom_identifier,
    full_url,
    instant,
    reference,
    tag,
    term,
)

_OPERATIONS = {
    DeliveryKind.RESULT: ("CREATE", "create", "C"),
    DeliveryKind.PRIORITY: ("UPDATE", "revise", "U"),
    DeliveryKind.WITHDRAWAL: ("NULLIFY", "nullify", "U"),
}


def provenance(notice: Notice, targets: list[Reference]) -> Provenance:
    """Return who made, changed or took back `targets`, and from which images."""
    code, display, _ = _OPERATIONS[notice.kind]
    run = notice.run
    sources = None
    if run is not None and run.source_series_uid:
        series = Reference(
            identifier=dicom_identifier(run.source_series_uid), display="The analysed series"
        )
        sources = [ProvenanceEntity(role="source", what=series)]
    why = _why(notice)
    return Provenance(
        meta=tag(notice.notice_id),
        target=targets,
        occurredDateTime=instant(notice.occurred_at),
        recorded=instant(notice.occurred_at),
        reason=[CodeableConcept(text=why)] if why else None,
        activity=term("http://terminology.hl7.org/CodeSystem/v3-DataOperation", code, display),
        agent=[
            ProvenanceAgent(
                type=term(
                    "http://terminology.hl7.org/CodeSystem/provenance-participant-type",
                    "author",
                    "Author",
                ),
                who=_who(notice),
            )
        ],
        entity=sources,
    )


def audit_event(notice: Notice, told: list[Reference]) -> AuditEvent:
    """Return that Triage told the server about `told` (IHE ITI TF-2 3.20)."""
    return AuditEvent(
        meta=tag(notice.notice_id),
        type=Coding(
            system="http://terminology.hl7.org/CodeSystem/audit-event-type",
            code="rest",
            display="RESTful Operation",
        ),
        subtype=[
            Coding(
                system="http://hl7.org/fhir/restful-interaction",
                code="transaction",
                display="transaction",
            )
        ],
        action=_OPERATIONS[notice.kind][2],
        recorded=instant(notice.occurred_at),
        outcome="0",
        agent=[AuditEventAgent(who=_who(notice), requestor=True)],
        source=AuditEventSource(
            observer=Reference(display="Triage"),
            type=[
                Coding(
                    system="http://terminology.hl7.org/CodeSystem/security-source-type",
                    code="4",
                    display="Application Server",
                )
            ],
        ),
        entity=[AuditEventEntity(what=each) for each in told],
    )


def _who(notice: Notice) -> Reference:
    if notice.withdrawal is not None and not notice.withdrawal.is_superseded:
        return Reference(display=notice.withdrawal.who or "A person")
    if notice.run is not None:
        return reference(full_url(device_uid(notice.run)))
    return Reference(display="A person at the reading worklist")


def _why(notice: Notice) -> str:
    if notice.withdrawal is not None:
        return notice.withdrawal.reason
    return notice.change.reason if notice.change is not None else ""
