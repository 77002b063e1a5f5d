"""The history of model versions."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from triage.core.stages import Stage
from triage.store.model_tables import ModelEventRow, ModelRow

_LONGEST_NAME = 128


def record_event(
    session: Session,
    model: ModelRow,
    action: str,
    *,
    who: str,
    at: datetime,
    reason: str = "",
    before: Stage | None = None,
    after: Stage | None = None,
    share: float | None = None,
) -> None:
    """Add a line to a model's history: what was done with it, by whom, when and why."""
    session.add(
        ModelEventRow(
            model_id=model.id,
            at=at,
            who=who.strip()[:_LONGEST_NAME],
            action=action,
            from_stage=before or "",
            to_stage=after or "",
            share=share,
            reason=reason.strip(),
        )
    )
