"""Results that are taken back, and what archives are still to be told of it."""

import sqlalchemy as sa
from alembic import op

revision = "0012_withdrawals"
down_revision = "0011_outbox"
branch_labels = None
depends_on = None

_NOT_QUEUED = sa.text("NOT is_queued")


def _key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "withdrawals",
        sa.Column("id", _key(), nullable=False),
        sa.Column("run_id", _key(), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("is_queued", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.ForeignKeyConstraint(
            ["run_id"], ["analysis_runs.id"], name=op.f("fk_withdrawals_run_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_withdrawals")),
        sa.UniqueConstraint("run_id", name=op.f("uq_withdrawals_run_id")),
    )
    op.create_index("ix_withdrawals_due", "withdrawals", ["state", "next_attempt_at"])
    op.create_index(
        "ix_withdrawals_to_queue",
        "withdrawals",
        ["id"],
        sqlite_where=_NOT_QUEUED,
        postgresql_where=_NOT_QUEUED,
    )


def downgrade() -> None:
    op.drop_table("withdrawals")
