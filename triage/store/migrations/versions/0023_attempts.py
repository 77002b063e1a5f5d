"""Attempts to deliver that failed, each with its moment and its answer."""

import sqlalchemy as sa
from alembic import op

revision = "0023_attempts"
down_revision = "0022_answers"
branch_labels = None
depends_on = None


def _key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "failed_attempts",
        sa.Column("id", _key(), nullable=False),
        sa.Column("delivery_id", _key(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["deliveries.id"], name=op.f("fk_failed_attempts_delivery_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_failed_attempts")),
    )
    op.create_index(op.f("ix_failed_attempts_delivery_id"), "failed_attempts", ["delivery_id"])


def downgrade() -> None:
    op.drop_table("failed_attempts")
