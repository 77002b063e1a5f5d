"""Who sent what and from where, and what workers say of themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0021_operations"
down_revision = "0020_notifications"
branch_labels = None
depends_on = None


def _key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "visits",
        sa.Column("id", _key(), nullable=False),
        sa.Column("study_id", _key(), nullable=True),
        sa.Column("way", sa.String(length=16), nullable=False),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("associations", sa.Integer(), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended", sa.String(length=16), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name=op.f("fk_visits_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_visits")),
    )
    op.create_index("ix_visits_study_id_last_at", "visits", ["study_id", "last_at"])
    op.create_index("ix_visits_last_at", "visits", ["last_at"])
    op.create_table(
        "refused_callers",
        sa.Column("id", _key(), nullable=False),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(length=128), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refused_callers")),
        sa.UniqueConstraint(
            "calling_ae_title",
            "address",
            "reason",
            name=op.f("uq_refused_callers_calling_ae_title_address_reason"),
        ),
    )
    op.create_index("ix_refused_callers_last_at", "refused_callers", ["last_at"])
    with op.batch_alter_table("workers") as batch_op:
        batch_op.add_column(
            sa.Column("version", sa.String(length=32), nullable=False, server_default="")
        )
        batch_op.add_column(sa.Column("devices", sa.JSON(), nullable=False, server_default="[]"))
        batch_op.add_column(sa.Column("doing", sa.JSON(), nullable=False, server_default="{}"))
        batch_op.add_column(
            sa.Column("clock_ahead_s", sa.Float(), nullable=False, server_default="0")
        )


def downgrade() -> None:
    # The state is not known to the version before: a failed run is the nearest.
    op.execute("UPDATE analysis_runs SET state = 'failed' WHERE state = 'cancelled'")
    with op.batch_alter_table("workers") as batch_op:
        batch_op.drop_column("clock_ahead_s")
        batch_op.drop_column("doing")
        batch_op.drop_column("devices")
        batch_op.drop_column("version")
    op.drop_table("refused_callers")
    op.drop_table("visits")
