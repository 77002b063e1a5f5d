"""Priors: the mark on studies, the searches for them, and what became of each."""

import sqlalchemy as sa
from alembic import op

revision = "0004_priors"
down_revision = "0003_retention"
branch_labels = None
depends_on = None


def _key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    with op.batch_alter_table("studies") as batch_op:
        batch_op.add_column(
            sa.Column("is_prior", sa.Boolean(), server_default=sa.false(), nullable=False)
        )
    op.create_table(
        "prior_searches",
        sa.Column("study_id", _key(), nullable=False),
        sa.Column("remote", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("wait_s", sa.Float(), nullable=False),
        sa.Column("wait_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_by", sa.String(length=128), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("said", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_prior_searches_study_id")
        ),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_prior_searches")),
    )
    op.create_index("ix_prior_searches_due", "prior_searches", ["state", "next_attempt_at"])
    op.create_table(
        "priors",
        sa.Column("id", _key(), nullable=False),
        sa.Column("study_id", _key(), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("study_date", sa.String(length=10), nullable=False),
        sa.Column("study_time", sa.String(length=16), nullable=False),
        sa.Column("modalities", sa.String(length=128), nullable=False),
        sa.Column("description", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("said", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_priors_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_priors")),
        sa.UniqueConstraint(
            "study_id", "study_instance_uid", name=op.f("uq_priors_study_id_study_instance_uid")
        ),
    )
    op.create_index(op.f("ix_priors_study_id"), "priors", ["study_id"])
    op.create_index(op.f("ix_priors_study_instance_uid"), "priors", ["study_instance_uid"])


def downgrade() -> None:
    op.drop_table("priors")
    op.drop_table("prior_searches")
    with op.batch_alter_table("studies") as batch_op:
        batch_op.drop_column("is_prior")
