"""Which study a request is about whose address names something in it: for the audit trail."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Request

from triage.store.audit import study_of_finding, study_of_run
from triage.web.callers import note_studies
from triage.web.context import Context

Number = Annotated[int, Path(ge=1, le=2**63 - 1)]


def note_study_of_finding(request: Request, finding_id: Number, context: Context) -> None:
    """Note the study of the finding in the address, if there is one."""
    with context.database.reading() as session:
        study = study_of_finding(session, finding_id)
    note_studies(request, [study] if study else [])


def note_study_of_run(request: Request, run_id: Number, context: Context) -> None:
    """Note the study of the run in the address, if there is one."""
    with context.database.reading() as session:
        study = study_of_run(session, run_id)
    note_studies(request, [study] if study else [])
