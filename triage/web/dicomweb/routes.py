"""The routes of DICOMweb for reading, in the order in which addresses are tried."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from triage.web.dicomweb import frames, instances, metadata, rendered, search


def reading_routes(dependencies: list[Any]) -> APIRouter:
    """Return QIDO-RS and WADO-RS at `/dicom-web`; each request passes `dependencies` first."""
    router = APIRouter(prefix="/dicom-web", dependencies=dependencies, include_in_schema=False)
    for part in (search, metadata, rendered, frames, instances):
        router.include_router(part.router)
    return router
