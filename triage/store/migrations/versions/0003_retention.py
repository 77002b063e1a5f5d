"""Images that retention has purged, and who does the housekeeping."""

import sqlalchemy as sa
from alembic import op

revision = "0003_retention"
down_revision = "0002_completeness"
branch_labels = None
depends_on = None

_TO_DELETE = sa.text("purged_at IS NOT NULL AND path <> ''")


def upgrade() -> None:
    op.add_column("studies", sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "studies", sa.Column("purge_reason", sa.Text(), nullable=False, server_default="")
    )
    op.add_column("studies", sa.Column("forgotten_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("instances", sa.Column("purged_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_instances_to_delete",
        "instances",
        ["series_id"],
        sqlite_where=_TO_DELETE,
        postgresql_where=_TO_DELETE,
    )
    op.create_table(
        "maintenance",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("holder", sa.String(length=128), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_maintenance")),
    )


def downgrade() -> None:
    op.drop_table("maintenance")
    op.drop_index("ix_instances_to_delete", "instances")
    op.drop_column("instances", "purged_at")
    op.drop_column("studies", "forgotten_at")
    op.drop_column("studies", "purge_reason")
    op.drop_column("studies", "purged_at")
