"""Models that others run: what they are asked, and what they send back."""

import sqlalchemy as sa
from alembic import op

revision = "0014_remote_models"
down_revision = "0013_hl7"
branch_labels = None
depends_on = None


def _key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _at(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    with op.batch_alter_table("result_objects") as batch_op:
        batch_op.alter_column("run_id", existing_type=_key(), nullable=True)
        batch_op.add_column(
            sa.Column("remote_model", sa.String(length=64), nullable=False, server_default="")
        )
    op.create_table(
        "remote_analyses",
        sa.Column("id", _key(), nullable=False),
        sa.Column("remote_model", sa.String(length=64), nullable=False),
        sa.Column("study_id", _key(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("pseudonym", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("answers", sa.Integer(), nullable=False),
        _at("next_attempt_at"),
        _at("sent_at", nullable=True),
        _at("answered_at", nullable=True),
        sa.Column("said", sa.Text(), nullable=False),
        _at("created_at"),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_remote_analyses_study_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_remote_analyses")),
        sa.UniqueConstraint(
            "remote_model",
            "study_id",
            "generation",
            name=op.f("uq_remote_analyses_remote_model_study_id_generation"),
        ),
    )
    op.create_index("ix_remote_analyses_due", "remote_analyses", ["state", "next_attempt_at"])
    op.create_index("ix_remote_analyses_study_id", "remote_analyses", ["study_id"])
    op.create_index("ix_remote_analyses_pseudonym", "remote_analyses", ["pseudonym"])
    op.create_table(
        "returned_objects",
        sa.Column("id", _key(), nullable=False),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("path", sa.String(length=512), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("study_id", _key(), nullable=True),
        sa.Column("said", sa.Text(), nullable=False),
        _at("received_at"),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_returned_objects_study_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_returned_objects")),
        sa.UniqueConstraint(
            "sop_instance_uid", "sha256", name=op.f("uq_returned_objects_sop_instance_uid_sha256")
        ),
    )
    op.create_index("ix_returned_objects_path", "returned_objects", ["path"])
    op.create_index("ix_returned_objects_state", "returned_objects", ["state"])


def downgrade() -> None:
    op.drop_table("returned_objects")
    op.drop_table("remote_analyses")
    op.execute(
        "DELETE FROM deliveries WHERE result_object_id IN "
        "(SELECT id FROM result_objects WHERE run_id IS NULL)"
    )
    op.execute("DELETE FROM result_objects WHERE run_id IS NULL")
    with op.batch_alter_table("result_objects") as batch_op:
        batch_op.alter_column("run_id", existing_type=_key(), nullable=False)
        batch_op.drop_column("remote_model")
