"""What remote models found; and who was told of results that were superseded long ago is not told.

Notices of superseded results are new: those of before are not sent afterwards.
"""

import sqlalchemy as sa
from alembic import op

revision = "0022_answers"
down_revision = "0021_operations"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("UPDATE withdrawals SET is_queued = TRUE WHERE who = ''")
    with op.batch_alter_table("remote_analyses") as batch_op:
        batch_op.add_column(sa.Column("findings", sa.JSON(), nullable=False, server_default="[]"))
        batch_op.add_column(
            sa.Column("counts", sa.Boolean(), nullable=False, server_default=sa.false())
        )


def downgrade() -> None:
    with op.batch_alter_table("remote_analyses") as batch_op:
        batch_op.drop_column("counts")
        batch_op.drop_column("findings")
