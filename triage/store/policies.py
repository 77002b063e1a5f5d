"""Which priority policy holds, who activated it and why, and whether the AI counts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import structlog
from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from triage.core.errors import TriageError
from triage.core.priority_policy import SHIPPED_POLICY, PriorityPolicy
from triage.store.policy_tables import PolicyAction, PolicyEventRow, PolicyVersionRow

log = structlog.get_logger()

SHIPPED_VERSION = 0
LONGEST_REASON = 1000


class PolicyChangeRefusedError(TriageError):
    """The policy cannot be changed so; the message says why."""


class UnknownPolicyVersionError(PolicyChangeRefusedError):
    """There is no version of this number."""


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """What decides the places of studies now.

    Attributes:
        version: the number of the policy, 0 for the shipped one.
        ai_counts: False while AI prioritization is switched off.
        epoch: the number of the newest event, 0 before the first.
        activation: the number of the newest event that activated a policy, 0 before the first.
        who, reason, at: of the newest event; empty and None before the first.
    """

    policy: PriorityPolicy
    version: int
    ai_counts: bool
    epoch: int
    activation: int
    who: str = ""
    reason: str = ""
    at: datetime | None = None


def policy_in_force(session: Session) -> PolicyInForce:
    """Return the policy that holds now."""
    event = session.scalars(
        select(PolicyEventRow).order_by(PolicyEventRow.id.desc()).limit(1)
    ).first()
    if event is None:
        return PolicyInForce(SHIPPED_POLICY, SHIPPED_VERSION, ai_counts=True, epoch=0, activation=0)
    activation = session.scalar(
        select(func.max(PolicyEventRow.id)).where(PolicyEventRow.action == PolicyAction.ACTIVATED)
    )
    return PolicyInForce(
        policy=_policy_of(event.version),
        version=event.version_id or SHIPPED_VERSION,
        ai_counts=event.ai_counts,
        epoch=event.id,
        activation=activation or 0,
        who=event.who,
        reason=event.reason,
        at=event.at,
    )


def _policy_of(row: PolicyVersionRow | None) -> PriorityPolicy:
    if row is None:
        return SHIPPED_POLICY
    try:
        return _parsed(json.dumps(row.document))
    except ValidationError:
        # Written by another version of Triage: no study waits or is lost for that.
        log.error("policy not understood, the shipped one holds", version=row.id)
        return SHIPPED_POLICY


@lru_cache(maxsize=64)
def _parsed(document: str) -> PriorityPolicy:
    return PriorityPolicy.model_validate_json(document)


def policy_version(session: Session, version: int) -> PriorityPolicy:
    """Return a version of the policy; 0 is the shipped one.

    Raises:
        UnknownPolicyVersionError: there is no such version.
    """
    if version == SHIPPED_VERSION:
        return SHIPPED_POLICY
    row = session.get(PolicyVersionRow, version)
    if row is None:
        raise UnknownPolicyVersionError(
            f"version: there is no policy {version}; `triage policy history` lists those there are"
        )
    return _policy_of(row)


def activate_policy(
    session: Session, policy: PriorityPolicy, *, who: str, reason: str, now: datetime
) -> PolicyInForce:
    """Keep `policy` as a new version and let it hold; the studies follow, see `prioritising`.

    Raises:
        PolicyChangeRefusedError: nobody said who or why, or it is what holds already.
    """
    said = _Said.of(who, reason, now)
    current = _locked(session)
    if policy == current.policy:
        raise PolicyChangeRefusedError(
            f"policy: it is the same as version {current.version}, which holds already"
        )
    version = PolicyVersionRow(
        document=policy.model_dump(mode="json"),
        who=said.who,
        reason=said.reason,
        at=now,
    )
    session.add(version)
    session.flush()
    return _add(session, PolicyAction.ACTIVATED, version.id, current.ai_counts, said)


def roll_back_to(
    session: Session, version: int, *, who: str, reason: str, now: datetime
) -> PolicyInForce:
    """Let an earlier version hold again.

    Raises:
        PolicyChangeRefusedError: there is no such version, it holds already, or nobody said who or
            why.
    """
    said = _Said.of(who, reason, now)
    current = _locked(session)
    policy_version(session, version)
    if version == current.version:
        raise PolicyChangeRefusedError(f"version: policy {version} holds already")
    number = None if version == SHIPPED_VERSION else version
    return _add(session, PolicyAction.ACTIVATED, number, current.ai_counts, said)


def switch_ai(
    session: Session, *, is_on: bool, who: str, reason: str, now: datetime
) -> PolicyInForce:
    """Let what the AI asks for count, or no longer count, for the places of all studies.

    Raises:
        PolicyChangeRefusedError: it is so already, or nobody said who or why.
    """
    said = _Said.of(who, reason, now)
    current = _locked(session)
    if current.ai_counts is is_on:
        raise PolicyChangeRefusedError(
            f"AI prioritization is switched {'on' if is_on else 'off'} already"
        )
    action = PolicyAction.SWITCHED_ON if is_on else PolicyAction.SWITCHED_OFF
    number = None if current.version == SHIPPED_VERSION else current.version
    return _add(session, action, number, is_on, said)


@dataclass(frozen=True, slots=True)
class _Said:
    who: str
    reason: str
    at: datetime

    @classmethod
    def of(cls, who: str, reason: str, at: datetime) -> _Said:
        if not who.strip():
            raise PolicyChangeRefusedError("who: say who decides this")
        if not reason.strip():
            raise PolicyChangeRefusedError("reason: say why, so that others understand it later")
        return cls(who.strip()[:128], reason.strip()[:LONGEST_REASON], at)


def _locked(session: Session) -> PolicyInForce:
    """Return what holds; on PostgreSQL with the newest event locked, so that two wait in turn."""
    session.scalars(
        select(PolicyEventRow.id).order_by(PolicyEventRow.id.desc()).limit(1).with_for_update()
    ).first()
    return policy_in_force(session)


def _add(
    session: Session,
    action: PolicyAction,
    version_id: int | None,
    ai_counts: bool,
    said: _Said,
) -> PolicyInForce:
    event = PolicyEventRow(
        action=action,
        version_id=version_id,
        ai_counts=ai_counts,
        who=said.who,
        reason=said.reason,
        at=said.at,
    )
    session.add(event)
    session.flush()
    return policy_in_force(session)


@dataclass(frozen=True, slots=True)
class PolicyEvent:
    """Something done with the policy: which version held from then on, who did it and why."""

    epoch: int
    action: PolicyAction
    version: int
    ai_counts: bool
    who: str
    reason: str
    at: datetime
    policy: PriorityPolicy


def policy_events(session: Session, limit: int = 100) -> Sequence[PolicyEvent]:
    """Return what was done with the policy, newest first."""
    rows = session.scalars(select(PolicyEventRow).order_by(PolicyEventRow.id.desc()).limit(limit))
    return [
        PolicyEvent(
            epoch=row.id,
            action=row.action,
            version=row.version_id or SHIPPED_VERSION,
            ai_counts=row.ai_counts,
            who=row.who,
            reason=row.reason,
            at=row.at,
            policy=_policy_of(row.version),
        )
        for row in rows.unique()
    ]
