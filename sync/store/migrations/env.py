"""Run by Alembic: uses the connection, transaction and lock that `migrations.upgrade` holds."""

from __future__ import annotations

from alembic import context

from sync.store import indexes  # noqa: F401  # adds them to the metadata
from sync.store.migrations import VERSION_TABLE
from sync.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
with context.begin_transaction():
    context.run_migrations()
