"""The priority policy as people look at it: what holds, since when, who decided it, and why."""

from __future__ import annotations

import difflib
from datetime import datetime

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from triage.core.findings import Finding
from triage.core.manifest import ModelManifest
from triage.core.priority_policy import SHIPPED_POLICY, PriorityPolicy, policy_as_toml
from triage.core.stages import COUNTING_STAGES
from triage.store.model_tables import ModelRow
from triage.store.policies import SHIPPED_VERSION, PolicyEvent, policy_events, policy_in_force


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class PolicyView(_View):
    """The policy that holds, and the last that was done with it.

    `ai_counts` is false while AI prioritization is switched off. `who`, `reason` and `at` are of
    the newest event, empty for the shipped policy.
    """

    version: int
    policy: PriorityPolicy
    toml: str
    ai_counts: bool
    who: str
    reason: str
    at: datetime | None


class PolicyEventView(_View):
    """Something done with the policy; `version` held from then on.

    `diff` is what an activation changed against the version before, line by line as in a unified
    diff, empty for the switch.
    """

    action: str
    version: int
    name: str
    ai_counts: bool
    who: str
    reason: str
    at: datetime
    diff: tuple[str, ...]


def policy_view(session: Session) -> PolicyView:
    """Return the policy that holds."""
    now = policy_in_force(session)
    return PolicyView(
        version=now.version,
        policy=now.policy,
        toml=policy_as_toml(now.policy),
        ai_counts=now.ai_counts,
        who=now.who,
        reason=now.reason,
        at=now.at,
    )


def policy_history(session: Session, *, limit: int = 100) -> tuple[PolicyEventView, ...]:
    """Return what was done with the policy, newest first."""
    events = policy_events(session, limit + 1)
    shown = []
    for number, event in enumerate(events[:limit]):
        is_oldest = number + 1 == len(events)
        before = SHIPPED_POLICY if is_oldest else events[number + 1].policy
        older = SHIPPED_VERSION if is_oldest else events[number + 1].version
        shown.append(_view(event, policy_diff(before, event.policy, older, event.version)))
    return tuple(shown)


def _view(event: PolicyEvent, diff: tuple[str, ...]) -> PolicyEventView:
    return PolicyEventView(
        action=event.action.value,
        version=event.version,
        name=event.policy.name,
        ai_counts=event.ai_counts,
        who=event.who,
        reason=event.reason,
        at=event.at,
        diff=diff,
    )


def policy_diff(
    before: PriorityPolicy, after: PriorityPolicy, older: int | str, newer: int | str
) -> tuple[str, ...]:
    """Return what differs between two policies, as lines of a unified diff of their TOML."""
    return tuple(
        difflib.unified_diff(
            policy_as_toml(before).splitlines(),
            policy_as_toml(after).splitlines(),
            f"policy {older}",
            f"policy {newer}",
            lineterm="",
            n=2,
        )
    )


class AskedByModel(_View):
    """What a finding of a model that counts asks for, by the policy.

    `rules` say it in words, one for each rule that names the finding; without any it asks for what
    the model's manifest says, which is `otherwise`.
    """

    model: str
    finding: str
    rules: tuple[str, ...]
    otherwise: str


def asked_by_models(session: Session, policy: PriorityPolicy) -> tuple[AskedByModel, ...]:
    """Return what each finding of the models that count asks for."""
    rows = session.scalars(
        select(ModelRow).where(ModelRow.stage.in_(COUNTING_STAGES)).order_by(ModelRow.name)
    )
    found = []
    for row in rows:
        manifest = ModelManifest.model_validate(row.manifest)
        for spec in manifest.findings:
            finding = Finding(key=spec.key, code=spec.code, present=True, confidence=1.0)
            named = [rule for rule in policy.findings if rule.names(manifest.name, finding)]
            found.append(
                AskedByModel(
                    model=manifest.identity,
                    finding=spec.code.meaning,
                    rules=tuple(rule.in_words() for rule in named),
                    otherwise=spec.priority.label,
                )
            )
    return tuple(found)
