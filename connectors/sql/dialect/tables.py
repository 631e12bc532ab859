"""Tables of one SQL system: DDL and locks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from ...errors import FatalConnectorError
from ..actions import Action
from ..identifiers import Naming, TableName
from ..session import Session
from ..tables import Column, Table

#: Reason why a schema is not created.
NO_SCHEMA = "{} does not exist, and `create_schemas: false` forbids creating it"


class Tables(ABC):
    """Methods that return SQL have no effect; methods that take a session run inside its transaction."""

    def __init__(self, naming: Naming) -> None:
        self._naming = naming
        self._quote, self._table, self._names = naming.quote, naming.table, naming.names

    def lock_creation(self, session: Session, name: TableName) -> None:  # noqa: B027 -- most need nothing
        """Block other transactions that want to create the same table; default: nothing to do."""

    #: `create_schemas` of the config.
    creates_schemas = True

    def has_schema(self, session: Session, schema: str) -> bool:
        """Return whether a schema exists; the default is for systems that create no schemas."""
        return True

    def create_schema(self, session: Session, schema: str) -> None:
        """Create a schema only if it is missing: IF NOT EXISTS still demands the privilege to create.

        Raises:
            FatalConnectorError: the config forbids it.
        """
        if self.has_schema(session, schema):
            return
        if not self.creates_schemas:
            raise FatalConnectorError(NO_SCHEMA.format(f"{self._naming.schema_word} {schema!r}"))
        session.execute(self.new_schema(schema))

    def new_schema(self, schema: str) -> str:
        """Write CREATE for a schema that other processes may create at the same time."""
        return f"create schema if not exists {self._naming.schema(schema)}"

    def create(
        self, name: TableName, columns: Sequence[Column], key: Sequence[str] = (), *, if_not_exists: bool = False
    ) -> str:
        """Write CREATE TABLE; key columns are NOT NULL."""
        parts = [
            f"{self._quote(column.name)} {column.type}{'' if column.is_nullable else ' not null'}" for column in columns
        ]
        if key:
            parts.append(f"primary key ({self._names(key)})")
        clause = "if not exists " if if_not_exists else ""
        return f"create table {clause}{self._table(name)} ({', '.join(parts)})"

    def staging(self, target: TableName, name: str) -> TableName:
        """Return the schema of a staging table for a merge or an insert."""
        return TableName(target.schema, name)

    def create_unique(self, name: TableName, columns: Sequence[str]) -> str:
        """Write the statement with which a user adds a unique index to a table."""
        index = self._quote("_".join([name.name, *columns])[:60])
        return f"create unique index {index} on {self._table(name)} ({self._names(columns)})"

    def unique_index(self, name: TableName, columns: Sequence[str]) -> str:
        """Write the unique constraint over columns of a new table; empty: this system gets none."""
        return self.create_unique(name, columns)

    def index_staging(self, name: TableName, columns: Sequence[Column]) -> str:
        """Write the index by which a merge finds staged keys; default: none, the system needs none.

        Args:
            name: name of the staging table.
            columns: its key.
        """
        return ""

    @abstractmethod
    def create_staging(self, name: TableName, columns: Sequence[Column], *, numbered: bool) -> str:
        """Write CREATE for a staging table.

        Args:
            name: a name of `staging`.
            columns: all nullable.
            numbered: add a column `SEQUENCE` that counts records in order of arrival.
        """

    def create_working(self, name: TableName, columns: Sequence[Column], unique: str = "") -> str:
        """Write CREATE for a table with an intermediate result of a load, like `create_staging`.

        Args:
            name: a name of `staging`.
            columns: all nullable.
            unique: column with distinct numbers by which records are found; for systems that need an index for it.
        """
        return self.create_staging(name, columns, numbered=False)

    def drop(self, name: TableName) -> str:
        """Write DROP TABLE IF EXISTS; never with CASCADE."""
        return f"drop table if exists {self._table(name)}"

    def free(self, session: Session, name: TableName) -> None:  # noqa: B027 -- most need nothing
        """End our connections that hold locks on a dead run's staging table; default: nothing to do."""

    def add_column(self, name: TableName, column: Column) -> str:
        """Write ADD COLUMN."""
        return f"alter table {self._table(name)} add column {self._quote(column.name)} {column.type}"

    def alter_type(self, name: TableName, column: Column, values: str = "") -> Sequence[str]:
        """Write the change of an existing column to its new, wider type; its other properties stay.

        `values`: SQL of its values in the new type (see `Types.text_of`); empty: the system's own cast.
        """
        using = f" using {values}" if values else ""
        return [f"alter table {self._table(name)} alter column {self._quote(column.name)} type {column.type}{using}"]

    def relax(self, name: TableName, column: Column) -> Sequence[str]:
        """Write DROP NOT NULL for a column; its other properties stay."""
        return [f"alter table {self._table(name)} alter column {self._quote(column.name)} drop not null"]

    def lock(self, name: TableName) -> Action | None:
        """Return the action that locks out other writers until the commit; None: not needed."""
        return None

    def lock_late(self, name: TableName) -> Action | None:
        """Return the action that locks out other merges just before the target is written; None: `lock` did."""
        return None

    def create_replacement(self, name: TableName, columns: Sequence[Column], key: Sequence[str]) -> str:
        """Write CREATE for the table that will replace the target, with its primary key."""
        return self.create(name, columns, key)

    def swap(self, staging: TableName, target: Table | None, name: TableName, key: Sequence[str]) -> Sequence[Action]:
        """Write the statements that replace the target by a loaded staging table; views find it by its name."""
        renamed = f"alter table {self._table(staging)} rename to {self._quote(name.name)}"
        return [renamed] if target is None else [f"drop table {self._table(target.name)}", renamed, *target.regrant]

    def rekey(self, session: Session, table: Table, key: Sequence[str]) -> Sequence[str]:
        """Write the statements that change a table's primary key in place; none: the system has no primary keys.

        They run while the table is empty in this transaction; if DDL commits (`Facts.alters_at_once`), they run
        earlier, over existing records. Columns that leave the key become nullable (`freed`).

        Args:
            session: reads the catalog.
            table: the table with its present primary key.
            key: columns of the new key; empty: no key.
        """
        return ()


def freed(table: Table, key: Sequence[str]) -> list[str]:
    """Return the columns that are NOT NULL only because of the key that they leave."""
    columns = [table.column(name) for name in table.key if name not in key]
    return [column.name for column in columns if column and not (column.has_default or column.is_generated)]


__all__ = ["NO_SCHEMA", "Tables", "freed"]
