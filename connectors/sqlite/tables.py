"""SQLite's tables and its one writer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ..sql.actions import Action, Reread
from ..sql.dialect.tables import Tables
from ..sql.identifiers import SEQUENCE, TableName
from ..sql.session import Session
from ..sql.tables import Column
from .session import SQLiteSession

#: A column while it is copied.
_COPY = "_syncblocks_copy"


class SQLiteTables(Tables):
    """One connection at a time writes the file."""

    def lock_creation(self, session: Session, name: TableName) -> None:
        """Become the one writer."""
        cast("SQLiteSession", session).write()

    def lock(self, name: TableName) -> Action:
        """Nothing to lock, but the catalog must be read again: the first reading may be older than the lock."""
        return Reread()

    def alter_type(self, name: TableName, column: Column, values: str = "") -> Sequence[str]:
        """Write the copy of a column into one of the other type, the last one: SQLite alters no types."""
        table, old, new = self._table(name), self._quote(column.name), self._quote(_COPY)
        return [
            f"alter table {table} add column {new} {column.type}",
            f"update {table} set {new} = {values or old}",
            f"alter table {table} drop column {old}",
            f"alter table {table} rename column {new} to {old}",
        ]

    def relax(self, name: TableName, column: Column) -> Sequence[str]:
        """Write the copy of the column into one that takes NULL."""
        return self.alter_type(name, column)

    def create_staging(self, name: TableName, columns: Sequence[Column], *, numbered: bool) -> str:
        """Write CREATE for a staging table; SQLite numbers the records as they come."""
        if not numbered:
            return self.create(name, columns)
        parts = [f"{self._quote(column.name)} {column.type}" for column in columns]
        return f"create table {self._table(name)} ({', '.join(parts)}, {self._quote(SEQUENCE)} integer primary key)"


__all__ = ["SQLiteTables"]
