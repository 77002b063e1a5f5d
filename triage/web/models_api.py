"""The JSON API of the models, version 1."""

from __future__ import annotations

import tempfile
from datetime import datetime, time
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi import Path as InPath
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from triage.core.days import Day
from triage.core.permissions import Permission
from triage.core.stages import Stage
from triage.models.archives import ARCHIVE_ENDINGS
from triage.models.compare import MOST_STUDIES, Comparison, recorded_comparison
from triage.models.overview import (
    Model,
    ModelEvaluation,
    ModelVersion,
    list_models,
    show_model,
)
from triage.models.registration import register_at
from triage.models.stages import Decision, promote, resume, retire, rollback
from triage.store.model_tables import ModelRow
from triage.web.access import may
from triage.web.context import Context, WebContext
from triage.web.people import deciding_person
from triage.web.refusals import REFUSALS, UPLOAD_REFUSALS, RefusedRequestError, saying_what_is_wrong
from triage.web.security import require_same_origin
from triage.web.uploads import ending_of, required_upload, save, text_in, upload_form

router = APIRouter(
    prefix="/api/v1/models", tags=["models"], dependencies=[Depends(may(Permission.SEE_MODELS))]
)

Name = Annotated[str, InPath(pattern=r"^[a-z][a-z0-9-]{1,62}$", description="A model's name")]
Version = Annotated[str, InPath(pattern=r"^\d+\.\d+\.\d+$", description="A version, such as 1.0.0")]
AnyVersion = Annotated[str, Query(pattern=r"^\d+\.\d+\.\d+$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Reason(_Body):
    """Who decides, and why; both stay in the model's history."""

    who: Annotated[str, Field(max_length=100)] = ""
    """Where `web.user_header` names the person, that name counts instead; else it is required."""
    reason: Annotated[str, Field(min_length=1, max_length=2000)]


class Promotion(Reason):
    """Where a version goes; of a canary, the part of the studies that it answers for."""

    to: Literal["shadow", "canary", "production"]
    share: float | None = None


class StagedVersion(BaseModel):
    """Where a version stands now."""

    name: str
    version: str
    stage: Stage
    share: float
    package_sha256: str

    @staticmethod
    def of(row: ModelRow) -> StagedVersion:
        """Return what a row of the registry says."""
        return StagedVersion(
            name=row.name,
            version=row.version,
            stage=row.stage,
            share=row.share,
            package_sha256=row.package_sha256,
        )


def decision_of(request: Request, context: WebContext, reason: Reason) -> Decision:
    """Return the decision of the person who asks."""
    return Decision(deciding_person(request, reason.who), context.now(), reason.reason)


def decision_in_form(request: Request, context: WebContext, who: str, reason: str) -> Decision:
    """Return the same of the fields of a form.

    Raises:
        RefusedRequestError: 422, it names the field.
    """
    person = deciding_person(request, who)
    try:
        said = Reason(who=who.strip(), reason=reason.strip())
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        raise RefusedRequestError(422, f"{field}: say it in a few words", field) from error
    return Decision(person, context.now(), said.reason)


@router.get("")
def models(context: Context) -> list[ModelVersion]:
    """Give all registered versions with their stage and their health."""
    with context.database.reading() as session:
        return list_models(session, context.now())


@router.get("/{name}", responses={404: REFUSALS[404]})
def model(name: Name, context: Context) -> Model:
    """Give all that is known about one model."""
    with saying_what_is_wrong(), context.database.reading() as session:
        return show_model(session, name, context.now())


@router.get("/{name}/evaluations", responses={404: REFUSALS[404]})
def evaluations(name: Name, context: Context) -> tuple[ModelEvaluation, ...]:
    """Give the evaluations of a model's versions, the newest first."""
    with saying_what_is_wrong(), context.database.reading() as session:
        return show_model(session, name, context.now()).evaluations


@router.get("/{name}/comparison", responses=REFUSALS)
def comparison(
    *,
    name: Name,
    context: Context,
    version_a: AnyVersion,
    version_b: AnyVersion,
    studies: Annotated[int, Query(ge=1, le=MOST_STUDIES)] = 200,
    since: Day | None = None,
) -> Comparison:
    """Compare two versions on the newest studies that both have analysed."""
    begin = datetime.combine(since, time.min, context.now().tzinfo) if since else None
    with saying_what_is_wrong(), context.database.reading() as session:
        return recorded_comparison(session, name, version_a, version_b, most=studies, since=begin)


@router.post(
    "/{name}/versions/{version}/promote",
    dependencies=[Depends(may(Permission.MANAGE_MODELS)), Depends(require_same_origin)],
    responses=REFUSALS,
)
def promote_version(
    request: Request, name: Name, version: Version, body: Promotion, context: Context
) -> StagedVersion:
    """Bring a version to shadow, canary or production."""
    with saying_what_is_wrong(), context.database.transaction() as session:
        decision = decision_of(request, context, body)
        row = promote(session, name, version, Stage(body.to), decision, share=body.share)
        return StagedVersion.of(row)


@router.post(
    "/{name}/versions/{version}/retire",
    dependencies=[Depends(may(Permission.MANAGE_MODELS)), Depends(require_same_origin)],
    responses=REFUSALS,
)
def retire_version(
    request: Request, name: Name, version: Version, body: Reason, context: Context
) -> StagedVersion:
    """Let a version be asked no more."""
    with saying_what_is_wrong(), context.database.transaction() as session:
        return StagedVersion.of(retire(session, name, version, decision_of(request, context, body)))


@router.post(
    "/{name}/versions/{version}/resume",
    dependencies=[Depends(may(Permission.MANAGE_MODELS)), Depends(require_same_origin)],
    responses=REFUSALS,
)
def resume_version(
    request: Request, name: Name, version: Version, body: Reason, context: Context
) -> StagedVersion:
    """Let the runs of a version, parked because it failed too often, go on at once."""
    with saying_what_is_wrong(), context.database.transaction() as session:
        return StagedVersion.of(resume(session, name, version, decision_of(request, context, body)))


@router.post(
    "/{name}/rollback",
    dependencies=[Depends(may(Permission.MANAGE_MODELS)), Depends(require_same_origin)],
    responses=REFUSALS,
)
def roll_back(request: Request, name: Name, body: Reason, context: Context) -> StagedVersion:
    """Bring back the version that was in production before the present one."""
    with saying_what_is_wrong(), context.database.transaction() as session:
        return StagedVersion.of(rollback(session, name, decision_of(request, context, body)))


_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["package", "reason"],
                    "properties": {
                        "package": {"type": "string", "format": "binary"},
                        "who": {
                            "type": "string",
                            "description": "required unless web.user_header names the person",
                        },
                        "reason": {"type": "string"},
                    },
                }
            }
        },
    }
}


@router.post(
    "",
    status_code=201,
    dependencies=[Depends(may(Permission.MANAGE_MODELS)), Depends(require_same_origin)],
    responses=UPLOAD_REFUSALS,
    openapi_extra=_UPLOAD,
)
async def register(request: Request, context: Context) -> StagedVersion:
    """Register a package as a shadow: an archive (.zip, .tar.gz) in the field `package`."""
    return await register_upload(request, context)


async def register_upload(request: Request, context: WebContext) -> StagedVersion:
    """Register the package in a form, and return where its version stands.

    Raises:
        RefusedRequestError: it names the field.
    """
    async with upload_form(request, context, files=["package"], fields=2) as form:
        archive = required_upload(form, "package", ARCHIVE_ENDINGS)
        decision = decision_in_form(request, context, text_in(form, "who"), text_in(form, "reason"))
        row = await run_in_threadpool(_register, context, archive, decision)
    return StagedVersion.of(row)


def _register(context: WebContext, upload: UploadFile, decision: Decision) -> ModelRow:
    data = context.settings.data_directory.absolute()
    (data / "spool").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data / "spool") as folder:
        archive = Path(folder) / f"package{ending_of(upload, ARCHIVE_ENDINGS)}"
        save(upload, archive)
        with saying_what_is_wrong():
            return register_at(
                context.database,
                archive,
                context.settings,
                who=decision.who,
                reason=decision.reason,
                now=decision.at,
            )
