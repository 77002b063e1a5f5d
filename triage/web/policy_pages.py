"""The page of the priority policy: in plain words, a preview before it holds, who changed it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, HTTPException, Request, Response, UploadFile
from fastapi.responses import RedirectResponse

from triage.core.permissions import Permission
from triage.core.priority import Priority
from triage.core.priority_policy import PolicyError, PriorityPolicy, policy_from_toml
from triage.store.policies import LONGEST_REASON, activate_policy, roll_back_to
from triage.store.prioritising import rank_all, switch_ai_prioritization
from triage.web.access import may
from triage.web.context import Context, WebContext
from triage.web.people import deciding_person, is_named
from triage.web.policy_api import (
    LONGEST_POLICY,
    RANKS_FOR_S,
    SAME_ORIGIN,
    deciding,
    read_policy,
)
from triage.web.rendering import templates
from triage.worklist.policy_preview import PolicyPreview, preview_policy
from triage.worklist.policy_view import (
    asked_by_models,
    policy_diff,
    policy_history,
    policy_view,
)

router = APIRouter(include_in_schema=False, dependencies=[Depends(may(Permission.SEE_MODELS))])
Reason = Annotated[str, Form(min_length=1, max_length=LONGEST_REASON, pattern=r"\S")]
Who = Annotated[str, Form(max_length=128)]
Document = Annotated[str, Form(max_length=LONGEST_POLICY)]


@router.get("/policy")
def policy_page(request: Request, context: Context) -> Response:
    """Show the policy that holds, and who changed it."""
    return _page(request, context)


@router.get("/policy/preview")
def no_preview() -> Response:
    """Lead back whoever loads a preview anew: it is the answer to a form."""
    return RedirectResponse("/policy", status_code=303)


@router.post("/policy/preview", dependencies=SAME_ORIGIN)
def preview(
    request: Request,
    context: Context,
    document: Document = "",
    file: Annotated[UploadFile | None, File()] = None,
) -> Response:
    """Show what a policy says, what it changes and what it would have done, or what is wrong."""
    text = _uploaded(file) or document
    try:
        policy = policy_from_toml(text)
    except PolicyError as error:
        return _page(request, context, draft=text, problems=error.problems)
    with context.database.reading() as session:
        found = preview_policy(session, policy, context.now())
    return _page(request, context, draft=text, proposed=policy, found=found)


@router.post("/policy", dependencies=SAME_ORIGIN)
def activate(
    request: Request, context: Context, document: Document, reason: Reason, said: Who = ""
) -> Response:
    """Let a policy hold from now on."""
    policy = read_policy(document)
    person = deciding_person(request, said)
    with deciding(), context.database.transaction() as session:
        activate_policy(session, policy, who=person, reason=reason, now=context.now())
    return _done(context)


@router.post("/policy/rollback", dependencies=SAME_ORIGIN)
def rollback(
    request: Request,
    context: Context,
    version: Annotated[int, Form(ge=0, le=2**31)],
    reason: Reason,
    said: Who = "",
) -> Response:
    """Let an earlier version hold again."""
    person = deciding_person(request, said)
    with deciding(), context.database.transaction() as session:
        roll_back_to(session, version, who=person, reason=reason, now=context.now())
    return _done(context)


@router.post("/policy/switch", dependencies=SAME_ORIGIN)
def switch(
    request: Request,
    context: Context,
    is_on: Annotated[bool, Form()],
    reason: Reason,
    said: Who = "",
) -> Response:
    """Let what the AI asks for count, or no longer count."""
    person = deciding_person(request, said)
    with deciding(), context.database.transaction() as session:
        switch_ai_prioritization(session, is_on=is_on, who=person, reason=reason, now=context.now())
    return _done(context)


def _uploaded(file: UploadFile | None) -> str:
    if file is None or not file.filename:
        return ""
    content = file.file.read(LONGEST_POLICY + 1)
    if len(content) > LONGEST_POLICY:
        raise HTTPException(413, f"A policy has {LONGEST_POLICY // 1000} kB at most.")
    return content.decode("utf-8", errors="replace")


def _page(
    request: Request,
    context: WebContext,
    *,
    draft: str = "",
    problems: list[tuple[str, str]] | None = None,
    proposed: PriorityPolicy | None = None,
    found: PolicyPreview | None = None,
) -> Response:
    with context.database.reading() as session:
        holding = policy_view(session)
        content: dict[str, Any] = {
            "holding": holding,
            "asked": asked_by_models(session, holding.policy),
            "history": policy_history(session),
        }
    diff = () if proposed is None else policy_diff(holding.policy, proposed, "now", "new")
    content |= {
        "draft": draft or holding.toml,
        "is_draft": bool(draft),
        "problems": problems or [],
        "proposed": proposed,
        "diff": diff,
        "found": found,
        "classes": list(reversed(Priority)),
        "is_named": is_named(request),
        "now": context.now(),
    }
    return templates.TemplateResponse(
        request, "policy.html", content, status_code=422 if problems else 200
    )


def _done(context: WebContext) -> Response:
    rank_all(context.database, context.clock, at_most_s=RANKS_FOR_S)
    return RedirectResponse("/policy", status_code=303)
