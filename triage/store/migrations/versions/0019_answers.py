"""Answers of radiologists: sign-offs, and findings that models missed."""

import sqlalchemy as sa
from alembic import op

revision = "0019_answers"
down_revision = "0018_worklist"
branch_labels = None
depends_on = None


def _key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "sign_offs",
        sa.Column("id", _key(), nullable=False),
        sa.Column("study_id", _key(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reopened_by", sa.String(length=128), nullable=False),
        sa.Column("reopened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reopen_reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_sign_offs_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sign_offs")),
    )
    op.create_index("ix_sign_offs_study_id", "sign_offs", ["study_id"])
    op.create_table(
        "missed_findings",
        sa.Column("id", _key(), nullable=False),
        sa.Column("study_id", _key(), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("code", sa.JSON(), nullable=True),
        sa.Column("words", sa.Text(), nullable=False),
        sa.Column("laterality", sa.String(length=8), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("frame", sa.Integer(), nullable=True),
        sa.Column("mark", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_missed_findings_study_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_missed_findings")),
    )
    op.create_index("ix_missed_findings_study_id", "missed_findings", ["study_id"])
    with op.batch_alter_table("feedback") as batch_op:
        batch_op.add_column(sa.Column("missed_finding_id", _key(), nullable=True))
        batch_op.create_foreign_key(
            "fk_feedback_missed_finding_id",
            "missed_findings",
            ["missed_finding_id"],
            ["id"],
            ondelete="CASCADE",
        )


def downgrade() -> None:
    with op.batch_alter_table("feedback") as batch_op:
        batch_op.drop_constraint("fk_feedback_missed_finding_id", type_="foreignkey")
        batch_op.drop_column("missed_finding_id")
    op.drop_table("missed_findings")
    op.drop_table("sign_offs")
