"""Jobs: what an engineer asks of models on the pages, done by a worker."""

import sqlalchemy as sa
from alembic import op

revision = "0009_model_jobs"
down_revision = "0008_watch"
branch_labels = None
depends_on = None


def _key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "model_jobs",
        sa.Column("id", _key(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("model_id", _key(), nullable=True),
        sa.Column("order", sa.JSON(), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("claim", sa.Integer(), nullable=False),
        sa.Column("claimed_by", sa.String(length=128), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancelled_by", sa.String(length=128), nullable=False),
        sa.Column("progress", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("outcome", sa.JSON(), nullable=True),
        sa.Column("folder", sa.String(length=64), nullable=False),
        sa.Column("is_kept", sa.Boolean(), nullable=False),
        sa.Column("delete_after", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_model_jobs_model_id"),
        sa.PrimaryKeyConstraint("id", name="pk_model_jobs"),
    )
    op.create_index("ix_model_jobs_model_id", "model_jobs", ["model_id"])
    op.create_index("ix_model_jobs_state", "model_jobs", ["state", "id"])


def downgrade() -> None:
    op.drop_table("model_jobs")
