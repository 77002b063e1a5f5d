"""From findings to the study's AI priority, with the reason in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from triage.core.findings import Finding
from triage.core.priority import Priority


@dataclass(frozen=True, slots=True)
class AiPriority:
    """The priority that the AI asks for, and why; None where it asks for nothing."""

    priority: Priority | None
    reason: str


def ai_priority(findings: Iterable[tuple[str, Finding]]) -> AiPriority:
    """Return the highest priority that any present finding asks for.

    Args:
        findings: pairs of the model's identity ("head-ct-hemorrhage 1.0.0") and its finding, of
            production models only.

    The reason reads "Hemorrhage, 12 mL, confidence 0.97, head-ct-hemorrhage 1.0.0"; further
    findings of the same priority follow it.
    """
    present = [(model, f) for model, f in findings if f.present and f.priority > Priority.ROUTINE]
    if not present:
        return AiPriority(None, "")
    present.sort(key=lambda pair: (-pair[1].priority, -pair[1].confidence, pair[1].key))
    top = present[0][1].priority
    reasons = [f"{f.in_words()}, {model}" for model, f in present if f.priority == top]
    return AiPriority(top, "; ".join(reasons))
