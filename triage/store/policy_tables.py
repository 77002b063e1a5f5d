"""The tables of the priority policy: its versions, and what was done with them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from triage.store.base import Key, Table, state_of


class PolicyVersionRow(Table):
    """A version of the priority policy, as a person wrote it. Rows are only ever added.

    `document` is a `triage.core.priority_policy.PriorityPolicy` as JSON.
    """

    __tablename__ = "policy_versions"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    document: Mapped[dict[str, Any]]
    who: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]


class PolicyAction(StrEnum):
    """What was done: a policy activated, AI prioritization switched off, or on again."""

    ACTIVATED = "activated"
    SWITCHED_OFF = "switched-off"
    SWITCHED_ON = "switched-on"


class PolicyEventRow(Table):
    """Something done with the policy. Rows are only ever added; the newest says what holds.

    `version_id` is the version that holds from then on, None for the shipped policy; `ai_counts`
    is whether what the AI asks for counts from then on. The `id` is what `StudyRow.ranked_by`
    names.
    """

    __tablename__ = "policy_events"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    action: Mapped[PolicyAction] = mapped_column(state_of(PolicyAction))
    version_id: Mapped[int | None] = mapped_column(ForeignKey("policy_versions.id"))
    ai_counts: Mapped[bool]
    who: Mapped[str] = mapped_column(String(128))
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]

    version: Mapped[PolicyVersionRow | None] = relationship(lazy="joined")
