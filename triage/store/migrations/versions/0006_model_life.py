"""The life of model versions: stages, events, approvals, inputs, feedback, evaluations, alerts."""

import sqlalchemy as sa
from alembic import op

revision = "0006_model_life"
down_revision = "0005_commitment"
branch_labels = None
depends_on = None


def _key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    with op.batch_alter_table("models") as batch_op:
        batch_op.add_column(sa.Column("share", sa.Float(), nullable=False, server_default="0"))
        batch_op.add_column(
            sa.Column("signed_by", sa.String(length=128), nullable=False, server_default="")
        )
        batch_op.add_column(
            sa.Column("failures_in_a_row", sa.Integer(), nullable=False, server_default="0")
        )
        batch_op.add_column(sa.Column("parked_until", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(
            sa.Column("parked_reason", sa.Text(), nullable=False, server_default="")
        )
    with op.batch_alter_table("analysis_runs") as batch_op:
        batch_op.add_column(
            sa.Column("stage", sa.String(length=16), nullable=False, server_default="production")
        )
        batch_op.add_column(
            sa.Column("input_characteristics", sa.JSON(), nullable=False, server_default="{}")
        )
    # Until now a run counted as its model did.
    op.execute(
        "UPDATE analysis_runs SET stage = "
        "(SELECT stage FROM models WHERE models.id = analysis_runs.model_id)"
    )
    op.create_table(
        "model_events",
        sa.Column("id", _key(), nullable=False),
        sa.Column("model_id", _key(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("from_stage", sa.String(length=16), nullable=False),
        sa.Column("to_stage", sa.String(length=16), nullable=False),
        sa.Column("share", sa.Float(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_model_events_model_id"),
        sa.PrimaryKeyConstraint("id", name="pk_model_events"),
    )
    op.create_index("ix_model_events_model_id_at", "model_events", ["model_id", "at"])
    op.create_table(
        "code_approvals",
        sa.Column("package_sha256", sa.String(length=64), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("package_sha256", name="pk_code_approvals"),
    )
    op.create_table(
        "model_evaluations",
        sa.Column("id", _key(), nullable=False),
        sa.Column("model_id", _key(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("labels_name", sa.String(length=256), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_model_evaluations_model_id"),
        sa.PrimaryKeyConstraint("id", name="pk_model_evaluations"),
    )
    op.create_index("ix_model_evaluations_model_id", "model_evaluations", ["model_id"])
    op.create_table(
        "model_alerts",
        sa.Column("id", _key(), nullable=False),
        sa.Column("model_id", _key(), nullable=False),
        sa.Column("rule", sa.String(length=64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("raised_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cleared_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_model_alerts_model_id"),
        sa.PrimaryKeyConstraint("id", name="pk_model_alerts"),
    )
    op.create_index(
        "ix_model_alerts_model_id_cleared_at", "model_alerts", ["model_id", "cleared_at"]
    )
    op.create_table(
        "run_inputs",
        sa.Column("id", _key(), nullable=False),
        sa.Column("run_id", _key(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("series_id", _key(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["analysis_runs.id"], name="fk_run_inputs_run_id"),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name="fk_run_inputs_series_id"),
        sa.PrimaryKeyConstraint("id", name="pk_run_inputs"),
        sa.UniqueConstraint("run_id", "name", name="uq_run_inputs_run_id_name"),
    )
    op.create_table(
        "feedback",
        sa.Column("id", _key(), nullable=False),
        sa.Column("finding_id", _key(), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["finding_id"], ["findings.id"], name="fk_feedback_finding_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
        sa.UniqueConstraint("finding_id", "who", name="uq_feedback_finding_id_who"),
    )


def downgrade() -> None:
    for table in (
        "feedback",
        "run_inputs",
        "model_alerts",
        "model_evaluations",
        "code_approvals",
        "model_events",
    ):
        op.drop_table(table)
    with op.batch_alter_table("analysis_runs") as batch_op:
        batch_op.drop_column("input_characteristics")
        batch_op.drop_column("stage")
    with op.batch_alter_table("models") as batch_op:
        for column in ("parked_reason", "parked_until", "failures_in_a_row", "signed_by", "share"):
            batch_op.drop_column(column)
