"""SQLite's tables and its one writer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ..sql.dialect.tables import Tables
from ..sql.identifiers import SEQUENCE, TableName
from ..sql.session import Session
from ..sql.tables import Column, Table
from .session import SQLiteSession


class SQLiteTables(Tables):
    """No key can be added to a table, so a replacement is made with its key."""

    def lock_creation(self, session: Session, name: TableName) -> None:
        """Become the one writer."""
        cast("SQLiteSession", session).write()

    def lock(self, name: TableName) -> str:
        """Nothing to lock, but the catalog must be read again: the first reading may be older than the lock."""
        return "select 1"

    def create_staging(self, name: TableName, columns: Sequence[Column], *, numbered: bool) -> str:
        """Write CREATE for a staging table; SQLite numbers the records as they come."""
        if not numbered:
            return self.create(name, columns)
        parts = [f"{self._quote(column.name)} {column.type}" for column in columns]
        return f"create table {self._table(name)} ({', '.join(parts)}, {self._quote(SEQUENCE)} integer primary key)"

    def create_replacement(self, name: TableName, columns: Sequence[Column], key: Sequence[str]) -> str:
        """Write CREATE with the primary key: SQLite cannot add one."""
        return self.create(name, columns, key)

    def swap(self, staging: TableName, target: Table | None, name: TableName, key: Sequence[str]) -> Sequence[str]:
        """Write the statements that put the staging table in the target's place; views find it by its name."""
        return super().swap(staging, target, name, ())


__all__ = ["SQLiteTables"]
