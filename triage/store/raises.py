"""What puts a study above its order."""

from __future__ import annotations

from triage.store.tables import StudyRow

AI = "AI"
POLICY = "policy"


def is_raised_by_ai(study: StudyRow) -> bool:
    """Return whether a study is in a more urgent class than without the AI."""
    without = study.priority_without_ai
    return study.priority > (study.order_priority if without is None else without)


def raised_by(study: StudyRow) -> str:
    """Return what puts a study above its order: a person's name, "AI", "policy", or "".

    Where several do, a person comes first.
    """
    if study.priority <= study.order_priority:
        return ""
    if study.raised_to is not None and study.raised_to >= study.priority:
        return study.raised_by
    return AI if is_raised_by_ai(study) else POLICY


def reason_of_priority(study: StudyRow) -> str:
    """Return why a study has its class, in words."""
    by = raised_by(study)
    if not by:
        return "as ordered"
    if by == AI:
        return study.ai_reason
    if by == POLICY:
        return "by the priority policy"
    return f"raised by {by}: {study.raised_reason}"
