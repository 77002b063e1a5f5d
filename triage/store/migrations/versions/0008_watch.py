"""The watch over live models: runs by model and time, and what a judged finding said."""

import sqlalchemy as sa
from alembic import op

revision = "0008_watch"
down_revision = "0006_model_life"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_analysis_runs_model_id_finished_at", "analysis_runs", ["model_id", "finished_at"]
    )
    op.drop_index("ix_analysis_runs_model_id", "analysis_runs")
    with op.batch_alter_table("feedback") as batch_op:
        batch_op.add_column(
            sa.Column("present", sa.Boolean(), nullable=False, server_default=sa.true())
        )
    op.execute(
        "UPDATE feedback SET present = "
        "(SELECT present FROM findings WHERE findings.id = feedback.finding_id)"
    )
    op.create_index("ix_feedback_at", "feedback", ["at"])


def downgrade() -> None:
    op.drop_index("ix_feedback_at", "feedback")
    with op.batch_alter_table("feedback") as batch_op:
        batch_op.drop_column("present")
    op.create_index("ix_analysis_runs_model_id", "analysis_runs", ["model_id"])
    op.drop_index("ix_analysis_runs_model_id_finished_at", "analysis_runs")
