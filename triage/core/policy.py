"""From findings to what the AI asks for, with the reason in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from triage.core.findings import Finding
from triage.core.priority import Priority
from triage.core.priority_policy import SHIPPED_POLICY, PriorityPolicy


@dataclass(frozen=True, slots=True)
class AiPriority:
    """The priority that the AI asks for, and why; None where it asks for none.

    `points` are what it asks for within its class, in minutes of waiting, 0 or more.
    """

    priority: Priority | None
    reason: str
    points: int = 0


NOTHING_ASKED = AiPriority(None, "")


def ai_priority(
    findings: Iterable[tuple[str, Finding]], policy: PriorityPolicy = SHIPPED_POLICY
) -> AiPriority:
    """Return the highest priority, and the most points, that any present finding asks for.

    Args:
        findings: pairs of the model's identity ("head-ct-hemorrhage 1.0.0") and its finding, of
            models whose findings count only.
        policy: what findings are worth.

    The reason reads "Hemorrhage, 12 mL, confidence 0.97, head-ct-hemorrhage 1.0.0"; further
    findings of the same priority follow it, and that which brings the points if none of them does.
    """
    asked = [
        (*policy.asked_by(model.rpartition(" ")[0] or model, finding), model, finding)
        for model, finding in findings
        if finding.present
    ]
    asked = [one for one in asked if one[0] > Priority.ROUTINE or one[1] > 0]
    if not asked:
        return NOTHING_ASKED
    asked.sort(key=lambda one: (-one[0], -one[3].confidence, one[3].key))
    top, most = asked[0][0], max(points for _, points, _, _ in asked)
    named = [one for one in asked if one[0] == top]
    if all(one[1] < most for one in named):  # then another finding brings the points
        named.append(next(one for one in asked if one[1] == most))
    reasons = [f"{finding.in_words()}, {model}" for _, _, model, finding in named]
    return AiPriority(top if top > Priority.ROUTINE else None, "; ".join(reasons), most)
