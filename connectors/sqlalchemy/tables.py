"""Tables through SQLAlchemy: DDL that every system has."""

from __future__ import annotations

from collections.abc import Sequence

from ..sql.actions import Action, LockByRow
from ..sql.dialect.tables import Tables
from ..sql.identifiers import SEQUENCE, TableName
from ..sql.tables import Column
from ..struct_helpers import replace
from .naming import SQLAlchemyNaming
from .types import KEY_CHARACTERS, SQLAlchemyKind, ddl

#: Dialects that add a column without the word COLUMN.
_ADD = ("firebird", "firebird.firebird", "firebird.firebirdsql", "hana", "mssql", "oracle")

#: Systems without indexes that anybody could create.
_WITHOUT_INDEXES = (
    *("athena", "awsathena", "bigquery", "clickhouse", "clickhousedb", "databricks", "druid", "exa", "hive", "impala"),
    *("presto", "redshift", "snowflake", "spark", "trino", "vertica"),
)

#: Systems that take texts without a limit into an index.
_INDEXES_TEXTS = ("sqlite", "postgresql")


class SQLAlchemyTables(Tables):
    """Data is staged in plain tables.

    A table is replaced by emptying and refilling it: there is no general way to rename one, nor to find out what hangs
    on it (grants, views, triggers), which stays so.
    """

    def __init__(self, naming: SQLAlchemyNaming) -> None:
        super().__init__(naming)
        self._own = naming.engine.dialect

    def _native(self, column: Column) -> Column:
        """Return a column with its type as this system's DDL has it."""
        return replace(column, type=ddl(SQLAlchemyKind.parse(column.type), self._own))

    def create(
        self, name: TableName, columns: Sequence[Column], key: Sequence[str] = (), *, if_not_exists: bool = False
    ) -> str:
        """Write CREATE TABLE with the system's own types."""
        return super().create(name, [self._native(column) for column in columns], key)

    def create_staging(self, name: TableName, columns: Sequence[Column], *, numbered: bool) -> str:
        """Write CREATE for a staging table; the session numbers the records."""
        numbers = [Column(name=SEQUENCE, type="bigint")] if numbered else []
        return self.create(name, [*columns, *numbers])

    def index_staging(self, name: TableName, columns: Sequence[Column]) -> str:
        """Return CREATE INDEX for the merge key, or "" where the system has no indexes or may not index it.

        Without one, many systems read the whole table for each record of a merge.
        """
        if self._own.name in _WITHOUT_INDEXES:
            return ""
        kinds = [SQLAlchemyKind.parse(column.type) for column in columns]
        texts = [kind for kind in kinds if kind.is_text]
        are_short = sum(kind.size or KEY_CHARACTERS + 1 for kind in texts) <= KEY_CHARACTERS
        if not all(kind.is_text or kind.is_number_or_time for kind in kinds) or not (
            are_short or self._own.name in _INDEXES_TEXTS
        ):
            return ""
        index = self._quote(f"{name.name}_k")
        return f"create index {index} on {self._table(name)} ({self._names([column.name for column in columns])})"

    def create_replacement(self, name: TableName, columns: Sequence[Column], key: Sequence[str]) -> str:
        """Write CREATE for a staging table that the target is refilled from."""
        return self.create_staging(name, columns, numbered=True)

    def drop(self, name: TableName) -> str:
        """Write DROP TABLE; of one that is there."""
        return f"drop table {self._table(name)}"

    def add_column(self, name: TableName, column: Column) -> str:
        """Write ADD COLUMN."""
        word = "add" if self._own.name in _ADD else "add column"
        return f"alter table {self._table(name)} {word} {self._quote(column.name)} {self._native(column).type}"

    def alter_type(self, name: TableName, column: Column, values: str = "") -> Sequence[str]:
        """Write the change to a wider type."""
        native = ddl(SQLAlchemyKind.parse(column.type), self._own)
        how = {"mssql": "alter column {} {}", "oracle": "modify {} {}"}.get(self._own.name, "alter column {} type {}")
        return [f"alter table {self._table(name)} {how.format(self._quote(column.name), native)}"]

    def relax(self, name: TableName, column: Column) -> Sequence[str]:
        """Write that a column may hold NULL; SQL Server has this as part of a type."""
        if self._own.name != "mssql":
            return super().relax(name, column)
        native = ddl(SQLAlchemyKind.parse(column.type), self._own)
        return [f"alter table {self._table(name)} alter column {self._quote(column.name)} {native} null"]

    def lock_late(self, name: TableName) -> Action:
        """Lock a row of the ledger: no statement that locks a table is known to all systems."""
        return LockByRow(self._table(name))


__all__ = ["SQLAlchemyTables"]
