"""The priority policy as JSON: what holds, what another would do, activation, the switch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from triage.core.permissions import Permission
from triage.core.priority_policy import (
    PolicyError,
    PriorityPolicy,
    parse_policy,
    policy_from_toml,
)
from triage.store.policies import (
    LONGEST_REASON,
    PolicyChangeRefusedError,
    UnknownPolicyVersionError,
    activate_policy,
    roll_back_to,
)
from triage.store.prioritising import rank_all, switch_ai_prioritization
from triage.web.access import may
from triage.web.context import Context, WebContext
from triage.web.people import deciding_person
from triage.web.refusals import Refusal, RefusedRequestError
from triage.web.security import require_same_origin
from triage.worklist.policy_preview import DAYS, PolicyPreview, preview_policy
from triage.worklist.policy_view import PolicyEventView, PolicyView, policy_history, policy_view

router = APIRouter(
    prefix="/api/v1/policy", tags=["policy"], dependencies=[Depends(may(Permission.SEE_MODELS))]
)

SAME_ORIGIN = [Depends(may(Permission.CHANGE_POLICY)), Depends(require_same_origin)]
LONGEST_POLICY = 200_000
RANKS_FOR_S = 2.0
"""How long a request ranks studies; the receiver's rounds do the rest."""
Why = Annotated[str, Field(min_length=1, max_length=LONGEST_REASON, pattern=r"\S")]
_WRONG: dict[int | str, dict[str, Any]] = {
    422: {"model": Refusal, "description": "A field is wrong; `field` names the first of them."}
}
_REFUSED: dict[int | str, dict[str, Any]] = {
    **_WRONG,
    404: {"model": Refusal, "description": "There is no such version."},
    409: {"model": Refusal, "description": "It is so already."},
}


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Proposal(_Asked):
    """A policy that may hold one day: as a JSON object, or as the text of a TOML document."""

    policy: dict[str, Any] | Annotated[str, Field(max_length=LONGEST_POLICY)]

    def read(self) -> PriorityPolicy:
        """Return it, or refuse the request with the fields that are wrong."""
        return read_policy(self.policy)


class WhoAndWhy(_Asked):
    """Who decides, and why; no patient data."""

    reason: Why
    who: Annotated[str, Field(max_length=128)] = ""
    """Where Triage knows who asks, that name counts instead."""


class Activation(WhoAndWhy, Proposal):
    """A policy that is to hold from now on."""


class Rollback(WhoAndWhy):
    """The version that is to hold again; 0 is the shipped policy."""

    version: Annotated[int, Field(ge=0, le=2**31, strict=True)]


class Switch(WhoAndWhy):
    """Whether what the AI asks for is to count."""

    is_on: Annotated[bool, Field(strict=True)]


@router.get("")
def get_policy(context: Context) -> PolicyView:
    """Give the policy that holds."""
    with context.database.reading() as session:
        return policy_view(session)


@router.get("/history")
def get_history(
    context: Context, limit: Annotated[int, Query(ge=1, le=500)] = 100
) -> list[PolicyEventView]:
    """Give what was done with the policy, newest first: who, why, and what changed."""
    with context.database.reading() as session:
        return list(policy_history(session, limit=limit))


@router.post("/check", responses=_WRONG, dependencies=SAME_ORIGIN)
def post_check(proposal: Proposal) -> PriorityPolicy:
    """Check a policy without keeping it, and give it with every field."""
    return proposal.read()


@router.post(
    "/preview",
    responses=_WRONG,
    dependencies=SAME_ORIGIN,
)
def post_preview(
    proposal: Proposal, context: Context, days: Annotated[int, Query(ge=1, le=31)] = DAYS
) -> PolicyPreview:
    """Say what a policy would have done to the last days, compared with the one that holds."""
    policy = proposal.read()
    with context.database.reading() as session:
        return preview_policy(session, policy, context.now(), days=days)


@router.put("", responses=_REFUSED, dependencies=SAME_ORIGIN)
def put_policy(wanted: Activation, request: Request, context: Context) -> PolicyView:
    """Let a policy hold from now on; the studies on the list follow."""
    policy = wanted.read()
    person = deciding_person(request, wanted.who)
    with deciding(), context.database.transaction() as session:
        activate_policy(session, policy, who=person, reason=wanted.reason, now=context.now())
    return _after(context)


@router.post(
    "/rollback",
    responses=_REFUSED,
    dependencies=SAME_ORIGIN,
)
def post_rollback(wanted: Rollback, request: Request, context: Context) -> PolicyView:
    """Let an earlier version hold again."""
    person = deciding_person(request, wanted.who)
    with deciding(), context.database.transaction() as session:
        roll_back_to(session, wanted.version, who=person, reason=wanted.reason, now=context.now())
    return _after(context)


@router.post(
    "/switch",
    responses=_REFUSED,
    dependencies=SAME_ORIGIN,
)
def post_switch(wanted: Switch, request: Request, context: Context) -> PolicyView:
    """Let what the AI asks for count, or no longer count; findings are shown all the same."""
    person = deciding_person(request, wanted.who)
    with deciding(), context.database.transaction() as session:
        switch_ai_prioritization(
            session, is_on=wanted.is_on, who=person, reason=wanted.reason, now=context.now()
        )
    return _after(context)


def read_policy(content: dict[str, Any] | str) -> PriorityPolicy:
    """Return the policy that a request holds, or refuse the request with what is wrong."""
    try:
        return policy_from_toml(content) if isinstance(content, str) else parse_policy(content)
    except PolicyError as error:
        raise RefusedRequestError(422, str(error), error.problems[0][0]) from error


@contextmanager
def deciding() -> Iterator[None]:
    """Turn what the store refuses into an answer."""
    try:
        yield
    except UnknownPolicyVersionError as error:
        raise RefusedRequestError(404, f"Not done: {error}.", "version") from error
    except PolicyChangeRefusedError as error:
        field, is_named, _ = str(error).partition(": ")
        raise RefusedRequestError(409, f"Not done: {error}.", field if is_named else "") from error


def _after(context: WebContext) -> PolicyView:
    rank_all(context.database, context.clock, at_most_s=RANKS_FOR_S)
    with context.database.reading() as session:
        return policy_view(session)
