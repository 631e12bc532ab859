"""DuckDB's tables, with a primary key only on request, and the file's commit lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ..sql.actions import Action, Reread
from ..sql.dialect.tables import Tables
from ..sql.identifiers import SEQUENCE, Naming, TableName
from ..sql.session import Session
from ..sql.tables import Column
from .session import DuckDBSession


class DuckDBTables(Tables):
    """A primary key's index must fit in memory completely, and slows loading down.

    So tables get one only if the setting asks for it. Keys are NOT NULL, and a merge keeps them unique. A table that
    another program created keeps its key.
    """

    def __init__(self, naming: Naming, *, has_primary_key: bool = False) -> None:
        super().__init__(naming)
        self._has_primary_key = has_primary_key

    def lock_creation(self, session: Session, name: TableName) -> None:
        """Take the file's commit lock, and see the tables that others have created."""
        cast("DuckDBSession", session).lock()

    def lock(self, name: TableName) -> Action:
        """There is nothing to lock (`Writes.begin_commit` did it), but the catalog must be read again."""
        return Reread()

    def has_schema(self, session: Session, schema: str) -> bool:
        """Look for the schema in the file."""
        sql = "select 1 from duckdb_schemas() where database_name = current_database() and schema_name = $1"
        return bool(session.query(sql, (schema,)))

    def create(
        self, name: TableName, columns: Sequence[Column], key: Sequence[str] = (), *, if_not_exists: bool = False
    ) -> str:
        """Write CREATE TABLE; the ledger always has a primary key."""
        key = key if if_not_exists or self._has_primary_key else ()
        return super().create(name, columns, key, if_not_exists=if_not_exists)

    def unique_index(self, name: TableName, columns: Sequence[str]) -> str:
        """Write an index only if tables get a primary key: it costs as much."""
        return super().unique_index(name, columns) if self._has_primary_key else ""

    def create_staging(self, name: TableName, columns: Sequence[Column], *, numbered: bool) -> str:
        """Write CREATE for a staging table; the session numbers the records."""
        numbers = [Column(name=SEQUENCE, type="BIGINT")] if numbered else []
        return self.create(name, [*columns, *numbers])


__all__ = ["DuckDBTables"]
