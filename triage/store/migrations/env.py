"""How Alembic runs the migrations: on the connection that `Database.migrate` hands it."""

from alembic import context

import triage.store.tables  # noqa: F401 - so that all tables are known
from triage.store.base import Table

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Table.metadata,
    render_as_batch=True,
    transaction_per_migration=False,
)
context.run_migrations()
