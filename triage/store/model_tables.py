"""The tables of the model registry: versions, what became of them, and how they do."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Float, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from triage.core.jobs import JobKind, JobState
from triage.core.stages import Stage
from triage.store.base import Key, Table, state_of


class ModelRow(Table):
    """A registered model version with its whole manifest.

    `share` is the part of the studies that a canary answers for, from 0 to 1. `failures_in_a_row`,
    `parked_until` and `parked_reason` are the circuit breaker's: a model that fails again and
    again is parked and tried anew after a while.
    """

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("name", "version"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(32))
    stage: Mapped[Stage] = mapped_column(state_of(Stage), default=Stage.PRODUCTION)
    share: Mapped[float] = mapped_column(Float, default=0.0)
    manifest: Mapped[dict[str, Any]]
    package_path: Mapped[str] = mapped_column(String(512))
    package_sha256: Mapped[str] = mapped_column(String(64))
    signed_by: Mapped[str] = mapped_column(String(128), default="")
    registered_at: Mapped[datetime]
    failures_in_a_row: Mapped[int] = mapped_column(default=0)
    parked_until: Mapped[datetime | None] = mapped_column(default=None)
    parked_reason: Mapped[str] = mapped_column(Text, default="")


class ModelEventRow(Table):
    """Something that was done with a model version: by whom, when and why.

    `action` is a word such as "registered", "promoted", "retired", "rolled-back", "approved" or
    "parked"; the stages are empty where it changed none.
    """

    __tablename__ = "model_events"
    __table_args__ = (Index("ix_model_events_model_id_at", "model_id", "at"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    at: Mapped[datetime]
    who: Mapped[str] = mapped_column(String(128))
    action: Mapped[str] = mapped_column(String(32))
    from_stage: Mapped[str] = mapped_column(String(16), default="")
    to_stage: Mapped[str] = mapped_column(String(16), default="")
    share: Mapped[float | None] = mapped_column(Float, default=None)
    reason: Mapped[str] = mapped_column(Text, default="")


class CodeApprovalRow(Table):
    """An administrator's word that the code inside packages of this digest may be run.

    The row is made when such a package is registered. As long as `who` is empty nobody has
    approved the code, and no model of this digest is run.
    """

    __tablename__ = "code_approvals"

    package_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    who: Mapped[str] = mapped_column(String(128))
    at: Mapped[datetime]
    reason: Mapped[str] = mapped_column(Text, default="")


class ModelEvaluationRow(Table):
    """An evaluation of a model version on a labelled set; `figures` as the evaluation gave them."""

    __tablename__ = "model_evaluations"

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), index=True)
    at: Mapped[datetime]
    who: Mapped[str] = mapped_column(String(128))
    labels_name: Mapped[str] = mapped_column(String(256))
    figures: Mapped[dict[str, Any]]


class ModelAlertRow(Table):
    """A rule about a live model that was broken, until `cleared_at`."""

    __tablename__ = "model_alerts"
    __table_args__ = (Index("ix_model_alerts_model_id_cleared_at", "model_id", "cleared_at"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    rule: Mapped[str] = mapped_column(String(64))
    text: Mapped[str] = mapped_column(Text)
    raised_at: Mapped[datetime]
    cleared_at: Mapped[datetime | None] = mapped_column(default=None)


class ModelJobRow(Table):
    """Something that an engineer asked for, and that a worker does in a process of its own.

    `order` and `outcome` are a `JobOrder` and a `JobOutcome` of `triage.core.jobs`. `folder` is
    the name of the folder with its files. `claim` grows with each claim, so that a worker that lost
    its lease writes nothing. `delete_after` is when row and files go; without it they are kept
    until a person deletes them.
    """

    __tablename__ = "model_jobs"
    __table_args__ = (Index("ix_model_jobs_state", "state", "id"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    kind: Mapped[JobKind] = mapped_column(state_of(JobKind))
    model_id: Mapped[int | None] = mapped_column(ForeignKey("models.id"), index=True, default=None)
    order: Mapped[dict[str, Any]]
    who: Mapped[str] = mapped_column(String(128))
    state: Mapped[JobState] = mapped_column(state_of(JobState), default=JobState.WAITING)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None] = mapped_column(default=None)
    finished_at: Mapped[datetime | None] = mapped_column(default=None)
    attempts: Mapped[int] = mapped_column(default=0)
    claim: Mapped[int] = mapped_column(default=0)
    claimed_by: Mapped[str] = mapped_column(String(128), default="")
    lease_until: Mapped[datetime | None] = mapped_column(default=None)
    cancelled_by: Mapped[str] = mapped_column(String(128), default="")
    progress: Mapped[str] = mapped_column(String(200), default="")
    reason: Mapped[str] = mapped_column(Text, default="")
    outcome: Mapped[dict[str, Any] | None] = mapped_column(JSON, default=None)
    folder: Mapped[str] = mapped_column(String(64))
    is_kept: Mapped[bool] = mapped_column(default=False)
    delete_after: Mapped[datetime | None] = mapped_column(default=None)

    model: Mapped[ModelRow | None] = relationship(lazy="joined")
