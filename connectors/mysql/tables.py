"""MySQL's and MariaDB's tables: DDL commits, so staging tables are temporary, or renamed after the commit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import cast

from ..sql.actions import Action, SwapAfterCommit, TakeNamedLock
from ..sql.dialect.tables import Tables, freed
from ..sql.identifiers import SEQUENCE, Naming, TableName
from ..sql.session import Session
from ..sql.tables import Column, Table
from ..struct_helpers import replace
from . import catalog, swaps
from .kinds import UTC_SUFFIX, MySQLKind
from .server import Server
from .session import MySQLSession
from .types import is_unlimited, key_type


class MySQLTables(Tables):
    """Texts of a key get the longest type that an index takes."""

    def __init__(self, naming: Naming, server: Server, lock_timeout_s: int) -> None:
        super().__init__(naming)
        self._server = server
        self._lock_timeout_s = lock_timeout_s

    def lock_creation(self, session: Session, name: TableName) -> None:
        """Take the lock that each of our loads takes."""
        lock = self.lock(name)
        cast("MySQLSession", session).take_lock(lock.name, lock.timeout_s)

    def lock(self, name: TableName) -> TakeNamedLock:
        """Shut out our other loads: LOCK TABLES would commit. Foreign writers meet the records' own locks."""
        digest = hashlib.sha256(f"{name.schema}.{name.name}".encode()).hexdigest()[:40]
        return TakeNamedLock(f"syncblocks_{digest}", self._lock_timeout_s)

    def has_schema(self, session: Session, schema: str) -> bool:
        """Look for the database."""
        return bool(session.query("select 1 from information_schema.schemata where schema_name = $1", (schema,)))

    def new_schema(self, schema: str) -> str:
        """Write CREATE DATABASE."""
        return f"create database if not exists {self._quote(schema)} character set utf8mb4"

    def create(
        self, name: TableName, columns: Sequence[Column], key: Sequence[str] = (), *, if_not_exists: bool = False
    ) -> str:
        """Write CREATE TABLE; texts of a key get the longest type that an index takes."""
        texts = sum(column.name in key and is_unlimited(column.type) for column in columns)
        parts = []
        for column in columns:
            is_long_key = column.name in key and is_unlimited(column.type)
            parts.append(self._column(column, key_type(column.type, texts) if is_long_key else column.type))
        if key:
            parts.append(f"primary key ({self._names(key)})")
        return self._create(f"table {'if not exists ' if if_not_exists else ''}{self._table(name)}", parts)

    def _create(self, what: str, parts: Sequence[str]) -> str:
        return f"create {what} ({', '.join(parts)}) {swaps.OPTIONS} collate {self._server.collation}"

    def _column(self, column: Column, column_type: str) -> str:
        parts = [self._quote(column.name), declared := column_type.removesuffix(UTC_SUFFIX)]
        if column.collation and MySQLKind.parse(column_type).is_text:
            parts.append(f"collate {column.collation}")
        # Without NULL a timestamp would be NOT NULL on some servers.
        # A NOT NULL one of records that we make would get the current time where nothing comes, on some servers.
        is_timestamp = not column.attributes and not column.is_key and MySQLKind.parse(column_type).name == "timestamp"
        parts.append("null" if column.is_nullable or is_timestamp else "not null")
        if declared != column_type:  # moments, of which a default of their former type knows nothing
            parts.append(UTC_SUFFIX.strip())
        elif column.attributes:
            parts.append(catalog.fitted(column.attributes, column_type))
        return " ".join(parts)

    def create_staging(self, name: TableName, columns: Sequence[Column], *, numbered: bool) -> str:
        """Create it for this connection: that commits nothing, and leaves nothing when the connection ends."""
        parts = [self._column(column, column.type) for column in columns]
        if numbered:
            parts.append(f"{self._quote(SEQUENCE)} bigint unsigned not null auto_increment primary key")
        return self._create(f"temporary table {self._table(name)}", parts)

    def create_working(self, name: TableName, columns: Sequence[Column], unique: str = "") -> str:
        """Create it with its index: to add one later commits."""
        parts = [self._column(column, column.type) for column in columns]
        parts += [f"unique ({self._quote(unique)})"] if unique else []
        return self._create(f"temporary table {self._table(name)}", parts)

    def add_column(self, name: TableName, column: Column) -> str:
        """Write ADD COLUMN."""
        return f"alter table {self._table(name)} add column {self._column(column, column.type)}"

    def alter_type(self, name: TableName, column: Column, values: str = "") -> Sequence[str]:
        """Write the change to a wider type; what is not said of the column would be forgotten."""
        return [f"alter table {self._table(name)} modify column {self._column(column, column.type)}"]

    def relax(self, name: TableName, column: Column) -> Sequence[str]:
        """Write the column anew."""
        return self.alter_type(name, replace(column, is_nullable=True))

    def rekey(self, session: Session, table: Table, key: Sequence[str]) -> Sequence[str]:
        """Change the key on the records that are there: DDL commits, so that it cannot come after they are deleted."""
        texts = sum(is_unlimited(column.type) for column in table.columns if column.name in key)
        parts = ["drop primary key"]
        for column in table.columns:
            if column.name in key and is_unlimited(column.type):
                short = replace(column, type=key_type(column.type, texts), is_nullable=False)
                parts.append(f"modify column {self._column(short, short.type)}")
            elif column.name in freed(table, key):
                free = replace(column, is_nullable=True)
                parts.append(f"modify column {self._column(free, free.type)}")
        if key:
            parts.append(f"add primary key ({self._names(key)})")
        return [f"alter table {self._table(table.name)} {', '.join(parts)}"]

    def swap(self, staging: TableName, target: Table | None, name: TableName, key: Sequence[str]) -> Sequence[Action]:
        """Note that the staging table takes the target's place with the commit."""
        return [SwapAfterCommit(name.schema, staging.name, name.name)]


__all__ = ["MySQLTables"]
