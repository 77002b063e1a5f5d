"""The routes of DICOMweb for reading, in the order in which addresses are tried."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from triage.core.audit import AuditKind
from triage.core.permissions import Permission
from triage.web.access import may
from triage.web.dicomweb import frames, instances, metadata, rendered, search


def reading_routes(dependencies: list[Any], retrieving: AuditKind) -> APIRouter:
    """Return QIDO-RS and WADO-RS at `/dicom-web`; each request passes `dependencies` first.

    `retrieving` is what the audit trail calls it when images are retrieved.
    """
    router = APIRouter(prefix="/dicom-web", dependencies=dependencies, include_in_schema=False)
    for part in (search, metadata, rendered, frames, instances):
        kind = AuditKind.QUERY if part is search else retrieving
        audited = [Depends(may(Permission.SEE_PATIENTS, kind=kind))]
        router.include_router(part.router, dependencies=audited)
    return router
