"""Versions of the run store: forward only. Alembic is imported only for a store of an older version."""

from __future__ import annotations

import threading
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ...errors import StateError

#: Every version there has been, oldest first; the last one is what this program reads and writes.
REVISIONS = ("0001", "0002", "0003")
VERSION_TABLE = "_syncblocks_version"

# Alembic hands its context to the scripts through module globals.
_one_at_a_time = threading.Lock()


def version(connection: Connection) -> str | None:
    """Return the version of the store; None if there is none yet."""
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one_or_none()


def is_outdated(found: str | None, url: str) -> bool:
    """Tell whether the store must be upgraded.

    Raises:
        StateError: it was written by a newer program, which may keep things that this one would break.
    """
    if found is not None and found not in REVISIONS:
        raise StateError(
            f"run store {url} has version {found}, this program knows up to {REVISIONS[-1]}: "
            "upgrade syncblocks (a store is never turned back)"
        )
    return found != REVISIONS[-1]


def create(connection: Connection) -> None:
    """Make a new store as the last version has it: what `upgrade` makes, without Alembic, in a third of the time."""
    from .. import indexes  # noqa: F401  # adds them to the metadata
    from ..tables import metadata

    metadata.create_all(connection, checkfirst=False)
    connection.execute(
        sa.text(
            f"CREATE TABLE {VERSION_TABLE} ( version_num VARCHAR(32) NOT NULL, "
            f"CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num) )"
        )
    )
    connection.execute(sa.text(f"INSERT INTO {VERSION_TABLE} VALUES (:version)"), {"version": REVISIONS[-1]})


def upgrade(connection: Connection) -> None:
    """Bring the store to the last version, within the caller's transaction and lock."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _one_at_a_time:
        command.upgrade(config, "head")
