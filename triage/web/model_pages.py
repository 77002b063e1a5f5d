"""The pages of the models: what runs, how it does, and who decided so."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from triage.core.permissions import Permission
from triage.core.stages import Stage
from triage.models.compare import Comparison, recorded_comparison
from triage.models.overview import Model, leading, list_models, show_model
from triage.models.stages import promote, resume, retire, rollback, versions_of
from triage.store.code_approvals import waiting_digests
from triage.web.access import may
from triage.web.context import Context
from triage.web.models_api import Name, Version, decision_in_form, register_upload
from triage.web.people import is_named
from triage.web.refusals import RefusedRequestError, saying_what_is_wrong
from triage.web.rendering import templates
from triage.web.security import require_same_origin
from triage.web.watch import model_watch_block

router = APIRouter(
    prefix="/models", include_in_schema=False, dependencies=[Depends(may(Permission.SEE_MODELS))]
)
_CHANGED_SHOWN = 20
_WATCHED_DAYS = 30


@router.get("")
def models(request: Request, context: Context) -> Response:
    """Show all models."""
    with context.database.reading() as session:
        versions = list_models(session, context.now())
        waiting = len(waiting_digests(session))
    groups = {v.name: [one for one in versions if one.name == v.name] for v in versions}
    content = {"groups": groups, "waiting": waiting}
    return templates.TemplateResponse(request, "models.html", content)


@router.post(
    "", dependencies=[Depends(may(Permission.MANAGE_MODELS)), Depends(require_same_origin)]
)
async def register(request: Request, context: Context) -> Response:
    """Register an uploaded package as a shadow, and go to its model's page."""
    row = await register_upload(request, context)
    return RedirectResponse(f"/models/{row.name}", status_code=303)


@router.get("/{name}")
def model(request: Request, name: Name, context: Context) -> Response:
    """Show one model."""
    with saying_what_is_wrong(), context.database.reading() as session:
        shown = show_model(session, name, context.now())
        comparisons = _against_production(session, shown)
        block = model_watch_block(
            session,
            leading(versions_of(session, name)),
            context.settings.watch,
            _WATCHED_DAYS,
            context.now(),
        )
    content: dict[str, Any] = {
        "model": shown,
        "comparisons": comparisons,
        "block": block,
        "changed_shown": _CHANGED_SHOWN,
        "now": context.now(),
        "is_named": is_named(request),
    }
    return templates.TemplateResponse(request, "model.html", content)


def _against_production(session: Session, model: Model) -> list[Comparison]:
    """Hold each shadow against the version in production, on the studies that both analysed."""
    present = [v.version for v in model.versions if v.stage is Stage.PRODUCTION]
    if not present:
        return []
    return [
        recorded_comparison(session, model.name, present[0], version.version)
        for version in model.versions
        if version.stage in (Stage.SHADOW, Stage.CANARY)
    ]


Text = Annotated[str, Form()]
_SAME_ORIGIN = [Depends(may(Permission.MANAGE_MODELS)), Depends(require_same_origin)]


@router.post("/{name}/versions/{version}/stage", dependencies=_SAME_ORIGIN)
def change_stage(
    request: Request,
    context: Context,
    *,
    name: Name,
    version: Version,
    to: Text,
    who: Text = "",
    reason: Text = "",
    share: Text = "",
) -> Response:
    """Bring a version to another stage, and go back to the model's page."""
    with saying_what_is_wrong(), context.database.transaction() as session:
        decision = decision_in_form(request, context, who, reason)
        if to == Stage.RETIRED:
            retire(session, name, version, decision)
        else:
            promote(session, name, version, _stage(to), decision, share=_share(to, share))
    return RedirectResponse(f"/models/{name}", status_code=303)


@router.post("/{name}/versions/{version}/resume", dependencies=_SAME_ORIGIN)
def resume_runs(
    request: Request,
    context: Context,
    *,
    name: Name,
    version: Version,
    who: Text = "",
    reason: Text = "",
) -> Response:
    """Let the runs of a parked version go on, and go back to the model's page."""
    with saying_what_is_wrong(), context.database.transaction() as session:
        resume(session, name, version, decision_in_form(request, context, who, reason))
    return RedirectResponse(f"/models/{name}", status_code=303)


@router.post("/{name}/rollback", dependencies=_SAME_ORIGIN)
def roll_back(
    request: Request, context: Context, *, name: Name, who: Text = "", reason: Text = ""
) -> Response:
    """Bring back the version that was in production before."""
    with saying_what_is_wrong(), context.database.transaction() as session:
        rollback(session, name, decision_in_form(request, context, who, reason))
    return RedirectResponse(f"/models/{name}", status_code=303)


def _stage(to: str) -> Stage:
    try:
        return Stage(to)
    except ValueError as error:
        raise RefusedRequestError(422, "to: there is no such stage", "to") from error


def _share(to: str, percent: str) -> float | None:
    """Return the share of a canary; the field of the form is in percent, and for canaries only."""
    if to != Stage.CANARY or not percent.strip():
        return None
    try:
        return float(percent) / 100
    except ValueError as error:
        raise RefusedRequestError(422, "share: give a number of percent", "share") from error
