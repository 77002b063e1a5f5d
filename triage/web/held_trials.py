"""What engineers see of a trial on a study that Triage holds, where they may not see patients.

They may have a version run on it and read what it found: coded findings, figures and times. What
holds the patient's images or header values, or may quote them, is for those who may see patients.
"""

from __future__ import annotations

from fastapi import Request

from triage.core.audit import AuditKind
from triage.core.jobs import Tried, TryOrder
from triage.core.permissions import Permission
from triage.web.access import require
from triage.web.callers import NOBODY, access_of, caller_of, note_studies
from triage.web.jobs import JobView

_REASON = "only those who may see patients are told why: it may quote the images"


def shown_to_caller(request: Request, job: JobView) -> JobView:
    """Return the job as its reader may see it: without files, pictures and free text, or whole."""
    caller = caller_of(request) or NOBODY
    if not _held_study(job) or caller.may(Permission.SEE_PATIENTS):
        return job
    outcome = job.outcome
    if isinstance(outcome, Tried):
        outcome = outcome.model_copy(update={"pictures": (), "objects": (), "remarks": ()})
    reason = _REASON if job.reason else ""
    return job.model_copy(update={"files": (), "outcome": outcome, "reason": reason})


def require_sight_of_files(request: Request, job: JobView) -> None:
    """Refuse a trial's files to those who may not see patients; for others note it as a sight.

    Raises:
        HTTPException: 403.
    """
    if not (study := _held_study(job)):
        return
    require(request, Permission.SEE_PATIENTS)
    access_of(request).kind = AuditKind.INSTANCES_ACCESSED
    note_studies(request, [study])


def _held_study(job: JobView) -> str:
    return job.asked.study_instance_uid if isinstance(job.asked, TryOrder) else ""
