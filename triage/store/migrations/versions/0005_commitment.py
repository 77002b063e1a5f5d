"""Storage commitment, given and asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0005_commitment"
down_revision = "0004_priors"
branch_labels = None
depends_on = None


def _key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "commitment_requests",
        sa.Column("id", _key(), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("referenced", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitment_requests")),
        sa.UniqueConstraint(
            "transaction_uid",
            "calling_ae_title",
            name=op.f("uq_commitment_requests_transaction_uid_calling_ae_title"),
        ),
    )
    op.create_index(
        "ix_commitment_requests_due", "commitment_requests", ["state", "next_attempt_at"]
    )
    op.create_table(
        "commitments",
        sa.Column("id", _key(), nullable=False),
        sa.Column("study_id", _key(), nullable=False),
        sa.Column("archive", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("is_result", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("committed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_commitments_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_commitments")),
        sa.UniqueConstraint(
            "sop_instance_uid", "archive", name=op.f("uq_commitments_sop_instance_uid_archive")
        ),
    )
    op.create_index("ix_commitments_due", "commitments", ["state", "next_attempt_at"])
    op.create_index(op.f("ix_commitments_study_id"), "commitments", ["study_id"])
    op.create_table(
        "commitment_transactions",
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("archive", sa.String(length=64), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("transaction_uid", name=op.f("pk_commitment_transactions")),
    )
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.add_column(sa.Column("committed_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.drop_column("committed_at")
    op.drop_table("commitment_transactions")
    op.drop_table("commitments")
    op.drop_table("commitment_requests")
