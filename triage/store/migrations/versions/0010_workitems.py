"""Unified procedure steps: workitems, subscriptions, and the events for subscribers."""

import sqlalchemy as sa
from alembic import op

revision = "0010_workitems"
down_revision = "0009_model_jobs"
branch_labels = None
depends_on = None


def _key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "workitems",
        sa.Column("id", _key(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("study_id", _key(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("priority", sa.String(length=16), nullable=False),
        sa.Column("asked_priority", sa.String(length=16), nullable=True),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_workitems_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workitems")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_workitems_sop_instance_uid")),
    )
    op.create_index("ix_workitems_study_id", "workitems", ["study_id", "id"])
    op.create_index("ix_workitems_state", "workitems", ["state", "finished_at"])
    op.create_table(
        "workitem_subscriptions",
        sa.Column("id", _key(), nullable=False),
        sa.Column("workitem_id", _key(), nullable=False),
        sa.Column("ae_title", sa.String(length=16), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("has_deletion_lock", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["workitem_id"],
            ["workitems.id"],
            name=op.f("fk_workitem_subscriptions_workitem_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workitem_subscriptions")),
        sa.UniqueConstraint(
            "workitem_id",
            "ae_title",
            name=op.f("uq_workitem_subscriptions_workitem_id_ae_title"),
        ),
    )
    op.create_index(
        op.f("ix_workitem_subscriptions_ae_title"), "workitem_subscriptions", ["ae_title"]
    )
    op.create_table(
        "workitem_global_subscriptions",
        sa.Column("id", _key(), nullable=False),
        sa.Column("ae_title", sa.String(length=16), nullable=False),
        sa.Column("is_filtered", sa.Boolean(), nullable=False),
        sa.Column("filter_keys", sa.JSON(), nullable=False),
        sa.Column("worklist_label", sa.String(length=64), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("has_deletion_lock", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workitem_global_subscriptions")),
        sa.UniqueConstraint(
            "ae_title",
            "is_filtered",
            name=op.f("uq_workitem_global_subscriptions_ae_title_is_filtered"),
        ),
    )
    op.create_table(
        "workitem_events",
        sa.Column("id", _key(), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("ae_title", sa.String(length=16), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("event_type", sa.Integer(), nullable=False),
        sa.Column("information", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_by", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workitem_events")),
    )
    op.create_index(
        "ix_workitem_events_due", "workitem_events", ["state", "channel", "next_attempt_at"]
    )
    op.create_index("ix_workitem_events_ae_title", "workitem_events", ["ae_title", "state", "id"])


def downgrade() -> None:
    op.drop_table("workitem_events")
    op.drop_table("workitem_global_subscriptions")
    op.drop_table("workitem_subscriptions")
    op.drop_table("workitems")
