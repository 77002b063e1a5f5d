"""The administrator's approval of code in packages, on a page and over the API."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Path, Request, Response
from fastapi.responses import RedirectResponse

from triage.core.permissions import Permission
from triage.models.approvals import ApprovalError, CodeApproval, approve, code_approvals
from triage.models.stages import Decision
from triage.web.access import may
from triage.web.callers import caller_of, is_open
from triage.web.context import Context, WebContext, web_context
from triage.web.loopback import is_for_this_machine_only
from triage.web.models_api import Reason, decision_in_form, decision_of
from triage.web.people import is_named, person_at
from triage.web.refusals import REFUSALS, Refusal, RefusedRequestError, saying_what_is_wrong
from triage.web.rendering import templates
from triage.web.security import require_same_origin

api_router = APIRouter(
    prefix="/api/v1/code-approvals",
    tags=["models"],
    dependencies=[Depends(may(Permission.SEE_MODELS))],
)
page_router = APIRouter(
    prefix="/code-approvals",
    include_in_schema=False,
    dependencies=[Depends(may(Permission.SEE_MODELS))],
)

Digest = Annotated[
    str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of a package, as its version says")
]
_LONGEST_CODE = 200
_SAME_ORIGIN = [Depends(may(Permission.APPROVE_CODE)), Depends(require_same_origin)]
_FORBIDDEN = {
    "model": Refusal,
    "description": "Who asks may not approve code; see trust.approvers.",
}


def why_not_an_approver(request: Request) -> str:
    """Return why who asks may not approve code, "" where they may.

    An approval lets foreign code run. Where nobody logs in and others than who sits at this machine
    reach the pages, a proxy has to say who somebody is, and `trust.approvers` who may. Those who
    are logged in need the permission, and to be one of `trust.approvers` where it names somebody.
    """
    settings = web_context(request).settings
    caller = caller_of(request)
    if not is_open(settings) and (
        caller is None or Permission.APPROVE_CODE not in caller.permissions
    ):
        return "only administrators may approve code"
    if settings.trust.approvers:
        person = person_at(request)
        if person in settings.trust.approvers:
            return ""
        return f"{person or 'nobody that is logged in'} may not approve code; trust.approvers does"
    if not is_open(settings):
        return ""
    if not is_named(request) and is_for_this_machine_only(settings.web):
        return ""
    return (
        "others than who sits at the machine reach these pages: name in trust.approvers who may "
        "approve code (with web.user_header), or run `triage models approve` on the machine"
    )


@api_router.get("")
def approvals(context: Context) -> list[CodeApproval]:
    """Give the code of all packages that hold some, what waits for approval first."""
    with context.database.reading() as session:
        return code_approvals(session)


@api_router.post(
    "/{package_sha256}", dependencies=_SAME_ORIGIN, responses={**REFUSALS, 403: _FORBIDDEN}
)
def approve_over_api(
    request: Request, package_sha256: Digest, body: Reason, context: Context
) -> CodeApproval:
    """Let the code in packages of this digest run."""
    _require_approver(request)
    return _approve(context, package_sha256, decision_of(request, context, body))


@page_router.get("")
def approvals_page(request: Request, context: Context) -> Response:
    """Show what waits for approval, and what was approved, by whom and when."""
    with context.database.reading() as session:
        shown = code_approvals(session)
    content = {
        "approvals": shown,
        "why_not": why_not_an_approver(request),
        "is_named": is_named(request),
        "most_places": _LONGEST_CODE,
        "now": context.now(),
    }
    return templates.TemplateResponse(request, "code_approvals.html", content)


@page_router.post("/{package_sha256}", dependencies=_SAME_ORIGIN)
def approve_on_page(
    request: Request,
    package_sha256: Digest,
    context: Context,
    who: Annotated[str, Form()] = "",
    reason: Annotated[str, Form()] = "",
) -> Response:
    """Let the code run, and go back to the page."""
    _require_approver(request)
    _approve(context, package_sha256, decision_in_form(request, context, who, reason))
    return RedirectResponse("/code-approvals", status_code=303)


def _require_approver(request: Request) -> None:
    if why_not := why_not_an_approver(request):
        raise RefusedRequestError(403, f"who: {why_not}", "who")


def _approve(context: WebContext, package_sha256: str, decision: Decision) -> CodeApproval:
    try:
        with saying_what_is_wrong(), context.database.transaction() as session:
            return approve(session, package_sha256, decision)
    except ApprovalError as error:
        raise RefusedRequestError(409, f"package_sha256: {error}", "package_sha256") from error
