"""What announces a study's images: performed procedure steps, notifications, archives' counts."""

import sqlalchemy as sa
from alembic import op

revision = "0002_completeness"
down_revision = "0001"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("studies", sa.Column("receiving_since", sa.DateTime(timezone=True)))
    op.execute("UPDATE studies SET receiving_since = last_instance_at")
    op.add_column("instances", sa.Column("acquisition_number", sa.Integer()))
    op.add_column("instances", sa.Column("images_in_acquisition", sa.Integer()))
    op.add_column(
        "series",
        sa.Column("considered_images", sa.Integer(), nullable=False, server_default="0"),
    )
    op.add_column(
        "analysis_runs",
        sa.Column("instances_sha256", sa.String(64), nullable=False, server_default=""),
    )
    _create_signals()
    op.create_table(
        "archive_counts",
        sa.Column("study_id", _KEY, nullable=False),
        sa.Column("next_question_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("questions", sa.Integer(), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True)),
        sa.Column("equal_since", sa.DateTime(timezone=True)),
        sa.Column("instances", sa.Integer()),
        sa.Column("series", sa.JSON(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["studies.id"], name=op.f("fk_archive_counts_study_id")
        ),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_archive_counts")),
    )


def _create_signals() -> None:
    op.create_table(
        "arrival_signals",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("study_instance_uid", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("calling_ae_title", sa.String(16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_arrival_signals")),
        sa.UniqueConstraint(
            "source",
            "sop_instance_uid",
            "study_instance_uid",
            name=op.f("uq_arrival_signals_source_sop_instance_uid_study_instance_uid"),
        ),
    )
    op.create_index(
        op.f("ix_arrival_signals_study_instance_uid"), "arrival_signals", ["study_instance_uid"]
    )
    op.create_index(op.f("ix_arrival_signals_updated_at"), "arrival_signals", ["updated_at"])
    op.create_table(
        "expected_instances",
        sa.Column("id", _KEY, nullable=False),
        sa.Column("signal_id", _KEY, nullable=False),
        sa.Column("series_instance_uid", sa.String(64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(64), nullable=False),
        sa.Column("is_available", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["signal_id"], ["arrival_signals.id"], name=op.f("fk_expected_instances_signal_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_expected_instances")),
        sa.UniqueConstraint(
            "signal_id",
            "sop_instance_uid",
            name=op.f("uq_expected_instances_signal_id_sop_instance_uid"),
        ),
    )


def downgrade() -> None:
    op.drop_table("archive_counts")
    op.drop_table("expected_instances")
    op.drop_table("arrival_signals")
    op.drop_column("analysis_runs", "instances_sha256")
    op.drop_column("series", "considered_images")
    op.drop_column("instances", "images_in_acquisition")
    op.drop_column("instances", "acquisition_number")
    op.drop_column("studies", "receiving_since")
