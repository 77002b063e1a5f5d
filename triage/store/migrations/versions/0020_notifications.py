"""Notifications of critical findings to people."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0020_notifications"
down_revision = "0019_answers"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_SPEAKS = sa.text("state NOT IN ('withdrawn', 'suppressed')")


def _moment(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _words(name: str, length: int) -> sa.Column[Any]:
    return sa.Column(name, sa.String(length=length), nullable=False)


def upgrade() -> None:
    _create_notifications()
    _create_messages()
    op.create_table(
        "notification_events",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("notification_id", _KEY, nullable=False),
        _moment("at"),
        _words("kind", 32),
        _words("who", 160),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["notification_id"],
            ["notifications.id"],
            name=op.f("fk_notification_events_notification_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notification_events")),
    )
    op.create_index(
        "ix_notification_events_notification_id", "notification_events", ["notification_id"]
    )
    op.create_table(
        "notification_snoozes",
        _words("recipient", 64),
        _moment("until"),
        _moment("at"),
        _words("who", 160),
        sa.PrimaryKeyConstraint("recipient", name=op.f("pk_notification_snoozes")),
    )


def _create_notifications() -> None:
    op.create_table(
        "notifications",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("study_id", _KEY, nullable=False),
        sa.Column("run_id", _KEY, nullable=False),
        _words("finding_key", 64),
        _words("finding_class", 96),
        _words("title", 64),
        sa.Column("said", sa.Text(), nullable=False),
        _words("model", 160),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        _words("rule", 64),
        _words("state", 16),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("steps", sa.Integer(), nullable=False),
        _moment("due_at", nullable=True),
        _moment("created_at"),
        _moment("told_at", nullable=True),
        _moment("acknowledged_at", nullable=True),
        _words("acknowledged_by", 160),
        _words("acknowledged_via", 64),
        _moment("closed_at", nullable=True),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_notifications_study_id")
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["analysis_runs.id"], name=op.f("fk_notifications_run_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notifications")),
    )
    op.create_index(
        "uq_notifications_study_id_finding_class",
        "notifications",
        ["study_id", "finding_class"],
        unique=True,
        sqlite_where=_SPEAKS,
        postgresql_where=_SPEAKS,
    )
    op.create_index("ix_notifications_due_at", "notifications", ["due_at"])
    op.create_index("ix_notifications_state", "notifications", ["state", "id"])
    op.create_index("ix_notifications_study_id", "notifications", ["study_id"])
    op.create_index("ix_notifications_run_id", "notifications", ["run_id"])


def _create_messages() -> None:
    op.create_table(
        "notification_messages",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("notification_id", _KEY, nullable=False),
        _words("kind", 16),
        sa.Column("step", sa.Integer(), nullable=False),
        _words("recipient", 64),
        _words("channel", 64),
        _words("state", 16),
        sa.Column("held", sa.Text(), nullable=False),
        _words("digest", 36),
        _moment("created_at"),
        _moment("due_at"),
        _moment("lease_until", nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=False),
        _moment("sent_at", nullable=True),
        sa.ForeignKeyConstraint(
            ["notification_id"],
            ["notifications.id"],
            name=op.f("fk_notification_messages_notification_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notification_messages")),
        sa.UniqueConstraint(
            "notification_id",
            "kind",
            "step",
            "recipient",
            "channel",
            name=op.f("uq_notification_messages_once"),
        ),
    )
    op.create_index(
        "ix_notification_messages_due", "notification_messages", ["channel", "state", "due_at"]
    )
    op.create_index(
        "ix_notification_messages_recipient", "notification_messages", ["recipient", "created_at"]
    )


def downgrade() -> None:
    op.drop_table("notification_snoozes")
    op.drop_table("notification_events")
    op.drop_table("notification_messages")
    op.drop_table("notifications")
