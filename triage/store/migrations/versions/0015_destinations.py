"""What persons decide about destinations and deliveries."""

import sqlalchemy as sa
from alembic import op

revision = "0015_destinations"
down_revision = "0014_remote_models"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "destination_events",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            nullable=False,
        ),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=16), nullable=False),
        sa.Column("who", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_destination_events")),
    )
    op.create_index("ix_destination_events_destination", "destination_events", ["destination"])
    with op.batch_alter_table("deliveries") as batch_op:
        batch_op.add_column(
            sa.Column("given_up_by", sa.String(length=128), nullable=False, server_default="")
        )
        batch_op.add_column(
            sa.Column("given_up_reason", sa.Text(), nullable=False, server_default="")
        )


def downgrade() -> None:
    # The state is not known to the version before: a dead delivery is the nearest.
    op.execute("UPDATE deliveries SET state = 'dead' WHERE state = 'given-up'")
    with op.batch_alter_table("deliveries") as batch_op:
        batch_op.drop_column("given_up_reason")
        batch_op.drop_column("given_up_by")
    op.drop_index("ix_destination_events_destination", "destination_events")
    op.drop_table("destination_events")
