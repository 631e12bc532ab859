"""Tables and staging tables: their columns, the types, and how values travel into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
from msgspec import Struct

from ..stream import Trigger
from ..struct_helpers import replace
from ..write_spec import WriteDisposition
from .identifiers import TableName


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table."""

    name: str
    #: Type as the dialect writes it in DDL (`numeric(12,2)`).
    type: str
    is_nullable: bool = True
    #: Type of the values, where `type` only limits another one (a domain).
    base: str = ""
    #: Schema of the operator `=` of its values, where the system's own is not used; two columns are equal without it.
    equality: str = field(default="", compare=False)
    #: Texts that differ may be equal here (by case, by accents): a record that is updated gets the one that arrives.
    is_folded: bool = field(default=False, compare=False)
    #: Belongs to the key by which the stream's records are merged.
    is_key: bool = field(default=False, compare=False)
    #: NULL may come from now on: a NOT NULL of the table is dropped.
    is_relaxed: bool = field(default=False, compare=False)
    #: The table's column becomes text if its type does not hold what comes.
    becomes_text: bool = field(default=False, compare=False)
    #: Computed or numbered by the database: never written.
    is_generated: bool = False
    #: Filled by the database where nothing is written (a default, an identity).
    has_default: bool = False
    #: A NULL that is written becomes a value of the database's own (a number, the current time).
    fills_nulls: bool = False
    #: Collation of its texts, where each column has its own.
    collation: str = ""
    #: DDL behind the type (a default, a comment), on systems where altering the column would drop it.
    attributes: str = ""


class Wire(Struct, frozen=True, kw_only=True):
    """How a column's values travel into a table: the type of the (staging) column and the Arrow type put in.

    Where `type` is not the target column's own, SQL casts on the way from staging to the target.
    """

    type: str
    arrow: pa.DataType


class Table(Struct, frozen=True, kw_only=True):
    """What the catalog says about a table."""

    name: TableName
    columns: tuple[Column, ...] = ()
    #: Primary key.
    key: tuple[str, ...] = ()
    #: Differs for another table that is made under the same name; empty where the system does not tell.
    identity: str = ""
    #: Column sets of all unique, complete (not partial) indexes, the primary key's as well.
    unique_keys: tuple[frozenset[str], ...] = ()
    is_table: bool = True
    #: Something (views, foreign keys, indexes, triggers, privileges of columns ...) would be lost by drop and rename.
    has_dependents: bool = False
    #: Why it cannot be written, as text behind its name; another table may replace it.
    unfit: str = ""
    #: Which write dispositions cannot write it, and why, as text behind its name.
    refuses: Mapping[WriteDisposition, str] = {}
    #: Of PostgreSQL: it has rules on UPDATE, so that the server takes no ON CONFLICT.
    has_update_rules: bool = False
    #: Foreign keys of other tables refer to it: records may be updated, but not deleted and inserted again.
    is_referenced: bool = False
    #: Other tables that its foreign keys refer to.
    refers_to: frozenset[TableName] = frozenset()
    #: Deleting and inserting a record is not the same as updating it here (triggers, foreign keys, rules).
    has_triggers: bool = False
    #: Triggers that fire on our statements, by name; `has_triggers` covers foreign keys and rules as well.
    triggers: tuple[Trigger, ...] = ()
    #: About how many records there are, deleted ones that still take room among them; None: not known.
    records: int | None = None
    #: Statements that give a new table of this name the old one's owner and privileges.
    regrant: tuple[str, ...] = ()

    def fires(self, disposition: WriteDisposition) -> tuple[Trigger, ...]:
        """Return the triggers that fire on the statements of a write disposition."""
        events = {"insert"}
        if disposition in (WriteDisposition.MERGE, WriteDisposition.HISTORY) or (
            disposition is WriteDisposition.REPLACE and self.is_referenced
        ):
            events.add("update")
        if disposition in (WriteDisposition.REPLACE, WriteDisposition.REPLACE_RANGE):
            events.add("delete")
        return tuple(trigger for trigger in self.triggers if events.intersection(trigger.events))

    def needed(self) -> list[Column]:
        """Return the columns for which each record that is inserted must bring a value; a key is its owner's affair."""
        fills = any(each.timing == "before" and "insert" in each.events for each in self.triggers)
        return [
            column
            for column in self.columns
            if not (column.is_nullable or column.has_default or column.is_generated or column.fills_nulls or fills)
            and column.name not in self.key
        ]

    def column(self, name: str) -> Column | None:
        """Find a column by its exact name (dialects that fold names reflect them as the stream has them)."""
        return next((column for column in self.columns if column.name == name), None)


class StagingTable(Struct, frozen=True, kw_only=True):
    """A table that holds records of a load, or keys and values of it, until they are brought into the target."""

    name: TableName
    #: Column -> type in staging; every column that arrived so far.
    types: Mapping[str, str]
    #: Column -> as the target should have it.
    columns: Mapping[str, Column]
    #: Whether the column `SEQUENCE` numbers the records in order of arrival.
    is_numbered: bool = False

    def own_columns(self) -> list[Column]:
        """Return the columns of the staging table itself."""
        return [Column(name=name, type=kind) for name, kind in self.types.items()]

    def target_columns(self) -> list[Column]:
        """Return the same for a table that will be the target: NULL is refused where the target should refuse it."""
        return [replace(self.columns[name], type=kind) for name, kind in self.types.items()]

    def written_to(self, table: Table) -> list[Column]:
        """Return the columns of a table that are written from here."""
        return [column for column in table.columns if column.name in self.types and not column.is_generated]


class ColumnTest(Struct, frozen=True, kw_only=True):
    """Which records of a table are meant: those with, or without, NULL in a column, or with one of some values."""

    column: Column
    is_null: bool = False
    #: Has the values, in a column of the same name; None: `is_null` says it all.
    values: StagingTable | None = None


__all__ = ["Column", "ColumnTest", "StagingTable", "Table", "Wire"]
