"""What the audit trail's events say in plain words, for the auditor who knows no routes.

The trail itself and the messages of DICOM PS3.15 keep the route: it is exact, and what is written
once cannot be changed. A test holds this table against all routes, in both directions.
"""

from __future__ import annotations

from collections.abc import Mapping

from triage.core.audit import AuditEvent, AuditKind, Outcome

_WORKLIST = {
    "see the worklist": (
        "GET /",
        "GET /worklist/rows",
        "POST /worklist/rows",
        "GET /api/v1/worklist",
    ),
    "search the worklist": ("POST /api/v1/worklist/search",),
    "see what the worklist can be filtered by": ("GET /api/v1/worklist/choices",),
    "see what was read": ("GET /read",),
    "search what was read": ("POST /read", "POST /api/v1/worklist/read/search"),
    "ask for the next study": ("GET /next", "GET /api/v1/worklist/next"),
    "follow the changes of the worklist": ("GET /events",),
    "see their views of the worklist": ("GET /api/v1/worklist/views",),
    "save a view of the worklist": ("PUT /api/v1/worklist/views/{name}",),
    "delete a view of the worklist": ("DELETE /api/v1/worklist/views/{name}",),
    "see who reads the study": ("GET /api/v1/studies/{study_instance_uid}/claim",),
    "claim the study": ("PUT /api/v1/studies/{study_instance_uid}/claim",),
    "release the study": ("DELETE /api/v1/studies/{study_instance_uid}/claim",),
    "mark the study as read": (
        "POST /studies/{study_instance_uid}/read",
        "PUT /api/v1/studies/{study_instance_uid}/read",
    ),
    "put the study back on the worklist": (
        "POST /studies/{study_instance_uid}/unread",
        "DELETE /api/v1/studies/{study_instance_uid}/read",
    ),
    "see why the study is where it is on the worklist": (
        "GET /api/v1/studies/{study_instance_uid}/priority",
    ),
    "raise the study": (
        "POST /studies/{study_instance_uid}/raise",
        "PUT /api/v1/studies/{study_instance_uid}/raise",
    ),
    "take the raise of the study back": (
        "POST /studies/{study_instance_uid}/take-raise-back",
        "POST /api/v1/studies/{study_instance_uid}/take-raise-back",
    ),
}
_READING = {
    "open the study": (
        "GET /studies/{study_instance_uid}",
        "GET /api/v1/studies/{study_instance_uid}",
    ),
    "see a key image of the study": (
        "GET /studies/{study_instance_uid}/key-images/{sop_instance_uid}",
    ),
    "see images of the study": (
        "GET /studies/{study_instance_uid}/series/{series_instance_uid}"
        "/instances/{sop_instance_uid}/frames/{number}",
        "GET /studies/{study_instance_uid}/series/{series_instance_uid}"
        "/instances/{sop_instance_uid}/frames/{number}/picture",
    ),
    "see the outlines over the study's images": (
        "GET /studies/{study_instance_uid}/overlays",
        "GET /studies/{study_instance_uid}/overlays/{segmentation_uid}"
        "/images/{sop_instance_uid}/frames/{number}",
    ),
    "see the heat maps over the study's images": (
        "GET /studies/{study_instance_uid}/heat-maps",
        "GET /studies/{study_instance_uid}/heat-maps/{map_uid}"
        "/images/{sop_instance_uid}/frames/{number}",
    ),
    "open the viewer": ("GET /app-config.js", "GET /{path}", "HEAD /{path}"),
    "see the answers to the study's findings": (
        "GET /api/v1/studies/{study_instance_uid}/answers",
    ),
    "see which findings can be reported as missed": ("GET /api/v1/finding-codes",),
    "answer a finding": (
        "POST /findings/{finding_id}/feedback",
        "POST /api/v1/findings/{finding_id}/feedback",
        "PUT /api/v1/studies/{study_instance_uid}/answers/{finding_id}",
    ),
    "take an answer to a finding back": (
        "DELETE /api/v1/studies/{study_instance_uid}/answers/{finding_id}",
    ),
    "report a missed finding": ("POST /api/v1/studies/{study_instance_uid}/missed-findings",),
    "take the report of a missed finding back": (
        "DELETE /api/v1/studies/{study_instance_uid}/missed-findings/{report_id}",
    ),
    "sign the study off": ("POST /api/v1/studies/{study_instance_uid}/sign-off",),
    "open the answers of the signed study again": (
        "POST /api/v1/studies/{study_instance_uid}/addenda",
    ),
    "withdraw a result": ("POST /runs/{run_id}/withdraw", "POST /api/v1/runs/{run_id}/withdraw"),
}
_NOTIFICATIONS = {
    "see the notifications": ("GET /notifications", "GET /api/v1/notifications"),
    "see what waits for their acknowledgement": ("GET /api/v1/notifications/bell",),
    "open a notification": ("GET /notifications/{number}", "GET /api/v1/notifications/{number}"),
    "acknowledge a notification": (
        "POST /notifications/{number}/acknowledge",
        "POST /api/v1/notifications/{number}/acknowledge",
    ),
    "snooze notifications": ("POST /notifications/snooze", "POST /api/v1/notifications/snooze"),
    "see the figures of the notifications": ("GET /api/v1/notifications/figures",),
    "preview the notifications": ("GET /api/v1/notifications/preview",),
}
_OF_SERIES = "/dicom-web/studies/{study}/series/{series}"
_OF_INSTANCE = f"{_OF_SERIES}/instances/{{instance}}"
_DICOMWEB = {
    "search for studies": ("GET /dicom-web/studies",),
    "search for series": ("GET /dicom-web/series", "GET /dicom-web/studies/{study}/series"),
    "search for images": (
        "GET /dicom-web/instances",
        "GET /dicom-web/studies/{study}/instances",
        f"GET {_OF_SERIES}/instances",
    ),
    "retrieve what is said of the study's images": (
        "GET /dicom-web/studies/{study}/metadata",
        f"GET {_OF_SERIES}/metadata",
        f"GET {_OF_INSTANCE}/metadata",
        f"GET {_OF_INSTANCE}/bulkdata/{{path}}",
    ),
    "retrieve pictures of the study": (
        f"GET {_OF_INSTANCE}/rendered",
        f"GET {_OF_INSTANCE}/frames/{{number}}/rendered",
        "GET /dicom-web/studies/{study}/thumbnail",
        f"GET {_OF_SERIES}/thumbnail",
        f"GET {_OF_INSTANCE}/thumbnail",
        f"GET {_OF_INSTANCE}/frames/{{number}}/thumbnail",
    ),
    "retrieve images of the study": (
        "GET /dicom-web/studies/{study}",
        f"GET {_OF_SERIES}",
        f"GET {_OF_INSTANCE}",
        f"GET {_OF_INSTANCE}/frames/{{frames}}",
    ),
    "send images": ("POST /dicom-web/studies", "POST /dicom-web/studies/{study_instance_uid}"),
    "search for workitems": ("GET /dicom-web/workitems",),
    "open a workitem": ("GET /dicom-web/workitems/{uid}",),
    "create a workitem": ("POST /dicom-web/workitems",),
    "change a workitem": ("POST /dicom-web/workitems/{uid}",),
    "change the state of a workitem": ("PUT /dicom-web/workitems/{uid}/state",),
    "ask for the end of a workitem": ("POST /dicom-web/workitems/{uid}/cancelrequest",),
    "subscribe to workitems": ("POST /dicom-web/workitems/{uid}/subscribers/{ae_title}",),
    "end a subscription to workitems": (
        "DELETE /dicom-web/workitems/{uid}/subscribers/{ae_title}",
    ),
    "suspend a subscription to workitems": (
        "POST /dicom-web/workitems/{uid}/subscribers/{ae_title}/suspend",
    ),
    "follow the events of workitems": ("GET /dicom-web/subscribers/{ae_title}",),
}
_OPERATIONS = {
    "see what comes in, waits and runs": (
        "GET /status",
        "GET /api/v1/status",
        "GET /api/v1/operations",
    ),
    "see the figures of the whole": ("GET /metrics",),
    "open the search for studies": ("GET /find",),
    "search for a study": ("POST /find", "POST /api/v1/studies/search"),
    "see the life of the study": (
        "GET /studies/{study_instance_uid}/history",
        "GET /api/v1/studies/{study_instance_uid}/history",
    ),
    "declare the study complete": (
        "POST /studies/{study_instance_uid}/complete",
        "POST /api/v1/studies/{study_instance_uid}/complete",
    ),
    "have the study analysed again": (
        "POST /studies/{study_instance_uid}/rerun",
        "POST /api/v1/studies/{study_instance_uid}/rerun",
    ),
    "cancel an analysis": ("POST /runs/{run_id}/cancel", "POST /api/v1/runs/{run_id}/cancel"),
    "release an object from quarantine": (
        "POST /quarantine/{object_id}/release",
        "POST /api/v1/quarantine/{object_id}/release",
    ),
    "delete an object in quarantine": (
        "POST /quarantine/{object_id}/delete",
        "POST /api/v1/quarantine/{object_id}/delete",
    ),
    "see the deliveries": ("GET /deliveries", "GET /api/v1/deliveries"),
    "see the destinations": ("GET /api/v1/destinations",),
    "send a delivery again": (
        "POST /deliveries/{delivery_id}/resend",
        "POST /api/v1/deliveries/{delivery_id}/resend",
    ),
    "give a delivery up": (
        "POST /deliveries/{delivery_id}/give-up",
        "POST /api/v1/deliveries/{delivery_id}/give-up",
    ),
    "send all dead deliveries again": (
        "POST /deliveries/resend",
        "POST /api/v1/deliveries/resend",
    ),
    "pause a destination": (
        "POST /destinations/{name}/pause",
        "POST /api/v1/destinations/{name}/pause",
    ),
    "resume a destination": (
        "POST /destinations/{name}/resume",
        "POST /api/v1/destinations/{name}/resume",
    ),
    "send all dead deliveries of a destination again": (
        "POST /destinations/{name}/resend",
        "POST /api/v1/destinations/{name}/resend",
    ),
    "give all dead deliveries of a destination up": (
        "POST /destinations/{name}/give-up",
        "POST /api/v1/destinations/{name}/give-up",
    ),
    "see what was received over HL7": ("GET /hl7", "GET /api/v1/hl7/messages"),
    "process an HL7 message again": (
        "POST /hl7/{message_id}/again",
        "POST /api/v1/hl7/messages/{message_id}/again",
    ),
    "open the simulation": ("GET /simulation",),
    "simulate the reading room": ("POST /simulation", "POST /api/v1/simulations"),
    "see the figures of the last days for the simulation": ("GET /api/v1/simulations/history",),
    "see the policy": ("GET /policy", "GET /api/v1/policy"),
    "see what was done with the policy": ("GET /api/v1/policy/history",),
    "check a policy": ("POST /api/v1/policy/check",),
    "preview a policy": (
        "GET /policy/preview",
        "POST /policy/preview",
        "POST /api/v1/policy/preview",
    ),
    "change the policy": ("POST /policy", "PUT /api/v1/policy"),
    "bring an earlier policy back": ("POST /policy/rollback", "POST /api/v1/policy/rollback"),
    "switch what the AI asks for on or off": ("POST /policy/switch", "POST /api/v1/policy/switch"),
}
_VERSION = "/models/{name}/versions/{version}"
_MODELS = {
    "see the models": ("GET /models", "GET /api/v1/models"),
    "open a model": ("GET /models/{name}", "GET /api/v1/models/{name}"),
    "see how a model does": ("GET /models/{name}/watch",),
    "see the evaluations of a model": ("GET /api/v1/models/{name}/evaluations",),
    "compare two versions of a model": ("GET /api/v1/models/{name}/comparison",),
    "open a version of a model": (f"GET {_VERSION}",),
    "register a model": ("POST /models", "POST /api/v1/models"),
    "bring a version of a model to another stage": (
        f"POST {_VERSION}/stage",
        f"POST /api/v1{_VERSION}/promote",
    ),
    "retire a version of a model": (f"POST /api/v1{_VERSION}/retire",),
    "resume a parked version of a model": (
        f"POST {_VERSION}/resume",
        f"POST /api/v1{_VERSION}/resume",
    ),
    "bring the earlier version of a model back": (
        "POST /models/{name}/rollback",
        "POST /api/v1/models/{name}/rollback",
    ),
    "ask for a new model package": ("POST /model-jobs/init", "POST /api/v1/model-jobs/init"),
    "ask for a check of a model": (
        "POST /model-jobs/check",
        "POST /api/v1/model-jobs/check",
        f"POST {_VERSION}/check",
        f"POST /api/v1{_VERSION}/check",
    ),
    "ask for a trial of a model": (f"POST {_VERSION}/try", f"POST /api/v1{_VERSION}/try"),
    "ask for an evaluation of a model": (
        f"POST {_VERSION}/evaluate",
        f"POST /api/v1{_VERSION}/evaluate",
    ),
    "see the jobs": ("GET /model-jobs", "GET /api/v1/model-jobs"),
    "open a job": ("GET /model-jobs/{job_id}", "GET /api/v1/model-jobs/{job_id}"),
    "save the files of a job": (
        "GET /model-jobs/{job_id}/files",
        "GET /model-jobs/{job_id}/files/{file_name}",
        "GET /api/v1/model-jobs/{job_id}/files",
        "GET /api/v1/model-jobs/{job_id}/files/{file_name}",
    ),
    "cancel a job": (
        "POST /model-jobs/{job_id}/cancel",
        "POST /api/v1/model-jobs/{job_id}/cancel",
    ),
    "delete a job": ("POST /model-jobs/{job_id}/delete", "DELETE /api/v1/model-jobs/{job_id}"),
    "see which code is approved": ("GET /code-approvals", "GET /api/v1/code-approvals"),
    "approve the code of a model": (
        "POST /code-approvals/{package_sha256}",
        "POST /api/v1/code-approvals/{package_sha256}",
    ),
}
_PEOPLE = {
    "log in": ("log-in",),
    "log out": ("log-out",),
    "see their account": ("GET /account", "GET /api/v1/account"),
    "change their password": ("POST /account/password", "PUT /api/v1/account/password"),
    "end a session of their own": (
        "POST /account/sessions/{session_id}/end",
        "DELETE /api/v1/account/sessions/{session_id}",
    ),
    "make a token": ("POST /account/tokens", "POST /api/v1/account/tokens", "triage users token"),
    "revoke a token of their own": (
        "POST /account/tokens/{token_id}/revoke",
        "DELETE /api/v1/account/tokens/{token_id}",
    ),
    "see the accounts": ("GET /users", "GET /api/v1/users"),
    "make an account": ("POST /users", "POST /api/v1/users", "triage users add"),
    "change an account": ("POST /users/{user_id}/{change}",),
    "change the roles of an account": (
        "PUT /api/v1/users/{user_id}/roles",
        "triage users roles",
    ),
    "give an account another password": (
        "PUT /api/v1/users/{user_id}/password",
        "triage users password",
    ),
    "disable an account": ("POST /api/v1/users/{user_id}/disable", "triage users disable"),
    "enable an account": ("POST /api/v1/users/{user_id}/enable", "triage users enable"),
    "unlock an account": ("triage users unlock",),
    "see everybody's tokens": ("GET /api/v1/tokens",),
    "revoke a token": ("POST /tokens/{token_id}/revoke", "DELETE /api/v1/tokens/{token_id}"),
    "see the audit trail": ("GET /audit", "GET /api/v1/audit"),
    "export the audit trail": ("GET /api/v1/audit/export",),
}
_IRREGULAR = {
    "bring": "brought",
    "cancel": "cancelled",
    "give": "gave",
    "have": "had",
    "log": "logged",
    "make": "made",
    "put": "put",
    "see": "saw",
    "send": "sent",
    "take": "took",
    "withdraw": "withdrew",
}
_SENTENCES: Mapping[str, str] = {
    "application-start": "the pages began",
    "application-stop": "the pages ended",
    "locked-out": "was kept out after too many failed attempts",
    "audit-recording-stopped": "what happened before this is not recorded: the disk refused",
}
_DEEDS: Mapping[str, str] = {
    event_type: deed
    for part in (
        _WORKLIST,
        _READING,
        _NOTIFICATIONS,
        _DICOMWEB,
        _OPERATIONS,
        _MODELS,
        _PEOPLE,
    )
    for deed, types in part.items()
    for event_type in types
}
_BULK_DATA = "/bulkdata/"


def known_types() -> frozenset[str]:
    """Return the types of events that there are words for."""
    return frozenset(_DEEDS) | frozenset(_SENTENCES)


def words_of(event: AuditEvent) -> str:
    """Return what an event says in plain words, to follow a person's name.

    "" where there are none: the trail may hold what an earlier version could do.

    >>> from datetime import UTC, datetime
    >>> at = datetime(2026, 7, 1, tzinfo=UTC)
    >>> words_of(AuditEvent("1", at, AuditKind.INSTANCES_ACCESSED, "POST /runs/{run_id}/withdraw"))
    'withdrew a result'
    """
    if event.type in _SENTENCES:
        return _SENTENCES[event.type]
    # What is asked for within a data set is a path of its own, as long as the data set is deep.
    element, mark, _ = event.type.partition(_BULK_DATA)
    deed = _DEEDS.get(f"{element}{mark}{{path}}" if mark else event.type, "")
    if not deed:
        return ""
    if event.outcome is Outcome.SUCCESS:
        return _past(deed)
    is_refused = event.kind is AuditKind.SECURITY_ALERT and event.action == "E"
    return f"was not allowed to {deed}" if is_refused else f"could not {deed}"


def _past(deed: str) -> str:
    verb, _, rest = deed.partition(" ")
    past = _IRREGULAR.get(verb) or verb + ("d" if verb.endswith("e") else "ed")
    return f"{past} {rest}"
