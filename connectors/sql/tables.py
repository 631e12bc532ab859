"""Tables and staging tables: columns, types, and how values are transferred into them."""

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
    #: Type in the dialect's DDL (`numeric(12,2)`).
    type: str
    is_nullable: bool = True
    #: Type of the values, if `type` only restricts another type (a domain).
    base: str = ""
    #: Schema of the operator `=` for its values, if not the system's own; not part of equality.
    equality: str = field(default="", compare=False)
    #: Different texts may be equal here (case, accents): an updated record gets the arriving spelling.
    is_folded: bool = field(default=False, compare=False)
    #: Belongs to the key of the merge.
    is_key: bool = field(default=False, compare=False)
    #: NULL may come from now on: NOT NULL is dropped.
    is_relaxed: bool = field(default=False, compare=False)
    #: The table's column becomes text if its type does not hold the arriving values.
    becomes_text: bool = field(default=False, compare=False)
    #: The table's column is a text of only NULL that gets this type.
    first_values: bool = field(default=False, compare=False)
    #: Computed or numbered by the database: never written.
    is_generated: bool = False
    #: The database fills it if no value is written (a default, an identity).
    has_default: bool = False
    #: The database turns a written NULL into another value (a number, the current time).
    fills_nulls: bool = False
    #: Collation of its texts, on systems with one for each column.
    collation: str = ""
    #: DDL after the type (a default, a comment), on systems where altering the column would drop it.
    attributes: str = ""


class Wire(Struct, frozen=True, kw_only=True):
    """How values are transferred into a column: the type of the (staging) column and the Arrow type sent.

    If `type` is not the target column's own, SQL casts from staging to the target.
    """

    type: str
    arrow: pa.DataType


class Table(Struct, frozen=True, kw_only=True):
    """A table's description from the catalog."""

    name: TableName
    columns: tuple[Column, ...] = ()
    #: Primary key.
    key: tuple[str, ...] = ()
    #: Differs for a later table of the same name; empty if the system does not report it.
    identity: str = ""
    #: Column sets of all unique, complete (not partial) indexes, including the primary key.
    unique_keys: tuple[frozenset[str], ...] = ()
    is_table: bool = True
    #: Drop and rename would lose dependent objects (views, foreign keys, indexes, triggers, privileges of columns ...).
    has_dependents: bool = False
    #: Reason why it cannot be written, a text that follows its name; a new table may replace it.
    unfit: str = ""
    #: Write dispositions that cannot write it, with reasons as texts that follow its name.
    refuses: Mapping[WriteDisposition, str] = {}
    #: PostgreSQL: it has rules on UPDATE, so the server refuses ON CONFLICT.
    has_update_rules: bool = False
    #: Foreign keys of other tables refer to it: records may be updated, but not deleted and inserted again.
    is_referenced: bool = False
    #: Other tables that its foreign keys refer to.
    refers_to: frozenset[TableName] = frozenset()
    #: Deleting and inserting a record differs from updating it here (triggers, foreign keys, rules).
    has_triggers: bool = False
    #: Triggers that our statements fire, by name; `has_triggers` includes foreign keys and rules.
    triggers: tuple[Trigger, ...] = ()
    #: Estimated number of records, including deleted ones that still use space; None: unknown.
    records: int | None = None
    #: Statements that give a new table of this name the old table's owner and privileges.
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
        """Return the columns for which an inserted record must bring a value; a key is left to its owner."""
        fills = any(each.timing == "before" and "insert" in each.events for each in self.triggers)
        return [
            column
            for column in self.columns
            if not (column.is_nullable or column.has_default or column.is_generated or column.fills_nulls or fills)
            and column.name not in self.key
        ]

    def column(self, name: str) -> Column | None:
        """Find a column by its exact name (dialects that fold names reflect them in the stream's spelling)."""
        return next((column for column in self.columns if column.name == name), None)


class StagingTable(Struct, frozen=True, kw_only=True):
    """A staging table: holds records, keys or values of a load until they are written into the target."""

    name: TableName
    #: Column -> type in staging; every column that arrived so far.
    types: Mapping[str, str]
    #: Column -> its definition for the target.
    columns: Mapping[str, Column]
    #: Whether the column `SEQUENCE` numbers the records in order of arrival.
    is_numbered: bool = False
    #: Whether no two records have the same key; most of the keys are in the target then, and neighbours stand together.
    has_each_key_once: bool = False

    def own_columns(self) -> list[Column]:
        """Return the columns of the staging table."""
        return [Column(name=name, type=kind) for name, kind in self.types.items()]

    def target_columns(self) -> list[Column]:
        """Return the columns for a table that will become the target: NOT NULL as in the target."""
        return [replace(self.columns[name], type=kind) for name, kind in self.types.items()]

    def written_to(self, table: Table) -> list[Column]:
        """Return the columns of a table that this staging table writes."""
        return [column for column in table.columns if column.name in self.types and not column.is_generated]


class ColumnTest(Struct, frozen=True, kw_only=True):
    """Selects records of a table: with or without NULL in a column, or with one of some values."""

    column: Column
    is_null: bool = False
    #: Has the values, in a column of the same name; None: only `is_null` counts.
    values: StagingTable | None = None


__all__ = ["Column", "ColumnTest", "StagingTable", "Table", "Wire"]
