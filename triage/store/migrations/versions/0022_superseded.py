"""Results that were superseded before such notices existed are told to nobody afterwards."""

from alembic import op

revision = "0022_superseded"
down_revision = "0021_operations"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("UPDATE withdrawals SET is_queued = TRUE WHERE who = ''")


def downgrade() -> None:
    """Leave it: the version before tells nobody of superseded results."""
