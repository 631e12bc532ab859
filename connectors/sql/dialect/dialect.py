"""What differs from one SQL system to the next: types, catalog and a few statements. One subclass a system."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ...stream import ConflictMethod
from ..actions import Action, Reread
from ..identifiers import RANK, SEQUENCE, Naming, TableName
from ..keys import Rekeying
from ..session import Session
from ..tables import Column, Table, Wire


class Dialect(Naming, Rekeying):
    """One SQL system. Methods that return SQL touch nothing; those that take a session run inside its transaction."""

    #: Type and default expression of times in the ledger.
    timestamp_type: str = "timestamp with time zone"
    now: str = "current_timestamp"
    text_type: str = "text"
    bigint_type: str = "bigint"
    #: An append goes into the target itself if it fits; False: it is staged, and inserted after `settle`.
    appends_directly: bool = True
    #: An append's staging table may become the new target itself.
    adopts_staging: bool = True
    #: A table that is replaced keeps its spelling of names, so it is looked at before its replacement is made.
    keeps_spelling: bool = True
    #: What a statement did can be undone within the transaction.
    has_savepoints: bool = False
    #: Statements can read a range of a numbered staging table (`slice`); False: it is copied into one of its own.
    slices: bool = False
    #: Makes constraints that are checked at the commit be checked at once; empty: there are none.
    check_now: str = ""
    #: Column that every table has and that grows with its records, for those whose replacements may repeat a key.
    arrival: str = ""
    #: A replacement gets the key as its primary key before the commit.
    keys_replacements: bool = True
    #: A table takes another one's name; without, replace empties and refills the target.
    renames: bool = True
    #: Up to so many bytes replace a table of so many records by deleting these, if it looks the same: cheaper than
    #: another table, where readers see neither before the commit. 0: the system is not like that.
    refill_bytes: int = 0
    refill_records: int = 10_000
    #: One round trip may carry several statements.
    joins_statements: bool = False
    #: Outside of a transaction that was begun, each statement is one.
    commits_alone: bool = False
    #: ALTER TABLE takes effect at once and stays, whatever becomes of the transaction.
    alters_at_once: bool = False
    #: `differs` tells records apart by what they hold.
    compares: bool = False
    #: Intervals hold nanoseconds; False: microseconds.
    keeps_nanoseconds: bool = False
    #: Dates and timestamps may be infinite, by the numbers that DuckDB takes for that.
    keeps_infinite: bool = False

    #: Adds a condition to what `_update` writes.
    _and_if: str = "and"

    # ------------------------------------------------------------------ types
    @abstractmethod
    def column_type(self, column: pa.Field) -> str:
        """Return the DDL type for a column made for this field (`native_type` metadata of its own kin counts).

        Raises:
            FatalConnectorError: the system has no type for it.
        """

    @abstractmethod
    def wire(self, column_type: str, arrow: pa.DataType) -> Wire:
        """Say how values of an Arrow type travel into a column of a type (of `column_type`, or out of the catalog)."""

    def key_type(self, column_type: str, texts: int) -> str:
        """Return the type of a key's column, of several if `texts` says so; default: no index asks for another one."""
        return column_type

    @abstractmethod
    def arrow_type(self, column: Column) -> pa.DataType:
        """Return the Arrow type in which the column is read."""

    def kept_as(self, column_type: str, arriving: pa.DataType) -> tuple[pa.DataType, bool]:
        """Say what values of an Arrow type are in a column of a type, and whether the system stores them as text.

        Default: what the column is read in. Differs where columns are read in another type than they have.
        """
        return self.arrow_type(Column(name="", type=column_type)), False

    def widen(self, before: str, after: str) -> str | None:
        """Return the type that holds both the table's values and the stream's; None: a person must decide.

        `before` where the column holds every value of `after` already (then nothing is altered).
        """
        return before if before == after else None

    def cast(self, expression: str, column_type: str, staged_type: str) -> str:
        """Turn a staged expression into the column's type."""
        return expression if column_type == staged_type else f"cast({expression} as {column_type})"

    # ---------------------------------------------------------------- catalog
    @abstractmethod
    def reflect(self, session: Session, tables: Sequence[TableName]) -> Mapping[TableName, Table]:
        """Read the catalog for tables and views that exist; the others are not in the result."""

    def exists(self, session: Session, name: TableName) -> bool:
        """Tell whether there is a table (or view) of that name."""
        return name in self.reflect(session, [name])

    def keeps_types(self, session: Session, name: TableName, types: Mapping[str, str]) -> bool:
        """Keep a table from being altered, and tell whether its columns are of these types; asked behind `lock_table`.

        Default: True, for systems that take values and not bytes.
        """
        return True

    def lock_shape(self, session: Session, name: TableName) -> bool:
        """Keep others from altering an existing table until the commit; True: read its catalog entry again."""
        return False

    @abstractmethod
    def list_staging(self, session: Session) -> Sequence[TableName]:
        """Return every table whose name begins with `STAGING_PREFIX`."""

    def free(self, session: Session, name: TableName) -> None:  # most need nothing
        """End the connections of ours that hold a dead run's staging table; default: nothing to do."""

    # ------------------------------------------------------------- savepoints
    def mark(self, session: Session) -> None:
        """Begin what may have to be taken back; of dialects with savepoints."""
        session.execute("savepoint _syncblocks_batch")

    def take_back(self, session: Session) -> None:
        """Undo what was done since `mark`."""
        session.execute("rollback to savepoint _syncblocks_batch")
        session.execute("release savepoint _syncblocks_batch")

    def keep(self, session: Session) -> None:
        """Leave what was done since `mark` as it is."""
        session.execute("release savepoint _syncblocks_batch")

    # -------------------------------------------------------------------- DDL
    def lock_creation(self, session: Session, name: TableName) -> None:  # most need nothing
        """Make others that want to create the same table wait for this transaction; default: nothing to do."""

    def settle(self, session: Session, staging: TableName | None) -> None:  # most need nothing
        """Get ready to write target and ledger: all data of a commit has arrived, in `staging` if anywhere."""

    def create_schema(self, session: Session, schema: str) -> None:  # most need nothing
        """Create a schema if it is missing; default: systems without schemas."""

    def create_table(
        self, name: TableName, columns: Sequence[Column], key: Sequence[str] = (), *, if_not_exists: bool = False
    ) -> str:
        """Write CREATE TABLE; columns of the key are not nullable."""
        parts = [
            f"{self.quote(column.name)} {column.type}{'' if column.is_nullable else ' not null'}" for column in columns
        ]
        if key:
            parts.append(f"primary key ({self.names(key)})")
        clause = "if not exists " if if_not_exists else ""
        return f"create table {clause}{self.table(name)} ({', '.join(parts)})"

    def staging(self, target: TableName, name: str) -> TableName:
        """Say where a staging table that is merged or inserted from stands."""
        return TableName(target.schema, name)

    def index_staging(self, name: TableName, columns: Sequence[Column]) -> str:
        """Write the index by which a merge finds staged keys; default: none, the system finds them without one.

        Args:
            name: of the staging table.
            columns: its key.
        """
        return ""

    @abstractmethod
    def create_staging(self, name: TableName, columns: Sequence[Column], *, numbered: bool) -> str:
        """Write CREATE for a staging table.

        Args:
            name: a name of `staging`.
            columns: all nullable.
            numbered: with a column `SEQUENCE` that counts records in order of arrival.
        """

    def drop_table(self, name: TableName) -> str:
        """Write DROP TABLE IF EXISTS; never with CASCADE."""
        return f"drop table if exists {self.table(name)}"

    def add_column(self, name: TableName, column: Column) -> str:
        """Write ADD COLUMN."""
        return f"alter table {self.table(name)} add column {self.quote(column.name)} {column.type}"

    def alter_type(self, name: TableName, column: Column) -> str:
        """Write the change of a column that is there to the wider type that it has now; all else stays as it is."""
        return f"alter table {self.table(name)} alter column {self.quote(column.name)} type {column.type}"

    def lock_table(self, name: TableName) -> Action | None:
        """Return the action that shuts out other writers until the commit; None: not needed."""
        return None

    def lock_late(self, name: TableName) -> Action | None:
        """Return the action that shuts out other merges, just before the target is written; None: `lock_table` did."""
        return None

    def perform(self, session: Session, action: Action) -> None:
        """Run one action of a load plan; a system with actions of its own runs these."""
        match action:
            case str():
                session.execute(action)
            case Reread():
                pass  # whoever locks reads the catalog afterwards
            case _:
                raise TypeError(f"{self.name} does not know {action}")

    def create_replacement(self, name: TableName, columns: Sequence[Column], key: Sequence[str]) -> str:
        """Write CREATE for the table that will take the target's place; `swap` adds the key unless this does."""
        return self.create_table(name, columns)

    # ------------------------------------------------------------------- data
    def null_key(self, staging: TableName, key: Sequence[str]) -> str:
        """Write the SELECT of one staged record with NULL in its key."""
        condition = " or ".join(f"{self.quote(name)} is null" for name in key)
        return f"select 1 from {self.table(staging)} where {condition} limit 1"

    def repeated(self, staging: TableName, key: Sequence[str]) -> str:
        """Write the condition of staged records `s` whose key an earlier one has."""
        order = f"partition by {self.names(key)} order by {self.arrival}"
        inner = f"select {self.arrival} as place, row_number() over ({order}) as number from {self.table(staging)}"
        return f"s.{self.arrival} in (select r.place from ({inner}) as r where r.number > 1)"

    def repeated_key(self, staging: TableName, key: Sequence[str]) -> str:
        """Write the SELECT of one key that several staged records have."""
        names = self.names(key)
        return f"select {names} from {self.table(staging)} group by {names} having count(*) > 1 limit 1"

    def misfits(
        self,
        session: Session,
        target: Table,
        staging: TableName,
        columns: Sequence[Column],
        staged: Mapping[str, str],
        key: Sequence[str],
        method: ConflictMethod,
        *,
        is_emptied: bool,
        is_numbered: bool,
    ) -> Sequence[tuple[str, str]]:
        """Write what staged records `s` do not fit the target's constraints; of dialects without savepoints.

        Args:
            session: to read the constraints.
            target: as it stands now.
            staging: the records.
            columns: those that are staged, with the target's types.
            staged: column -> type in the staging table.
            key: of a merge.
            method: of a merge.
            is_emptied: the target's records will go first.
            is_numbered: the staging table has `SEQUENCE`.

        Returns:
            Conditions, asked one after the other until none is met, and what is wrong with records that meet them.
        """
        return ()

    def take(self, part: TableName, staging: TableName, columns: Sequence[Column], first: int, last: int) -> str:
        """Write INSERT of staged records, from a number to another, into an empty staging table of equal columns."""
        number = Column(name=SEQUENCE, type=self.bigint_type)
        types = {column.name: column.type for column in (*columns, number)}
        everything = self.insert_from(part, staging, [*columns, number], types)
        return f"{everything} where s.{self.quote(SEQUENCE)} between {first} and {last}"

    def slice(self, staging: TableName, first: int, last: int) -> TableName:
        """Return a name for staged records, from a number to another; of dialects with `slices`."""
        raise NotImplementedError

    def staged_records(
        self, session: Session, staging: TableName, columns: Sequence[Column], numbers: str
    ) -> Sequence[tuple[Any, ...]]:
        """Read staged records, each behind its number.

        Args:
            session: whose transaction it is.
            staging: a numbered staging table.
            columns: those that are wanted.
            numbers: list of numbers, in parentheses.
        """
        number = self.quote(SEQUENCE)
        names = ", ".join(self.shown(column.name, column.type) for column in columns)
        return session.query(f"select {number}, {names} from {self.table(staging)} where {number} in {numbers}")

    def shown(self, name: str, column_type: str) -> str:
        """Write a staged column as its values are read to be shown; default: the driver makes something of them all."""
        return self.quote(name)

    def insert_from(
        self, target: TableName, staging: TableName, columns: Sequence[Column], staged: Mapping[str, str]
    ) -> str:
        """Write INSERT ... SELECT of all staged records."""
        values = ", ".join(self._value(column, staged) for column in columns)
        return f"{self._into(target, columns)} select {values} from {self.table(staging)} s"

    def _into(self, target: TableName, columns: Sequence[Column]) -> str:
        return f"insert into {self.table(target)} ({self.names([column.name for column in columns])})"

    def latest(self, staging: TableName, key: Sequence[str]) -> str:
        """Write a derived table of the staged records without those that a later one of the same key replaces."""
        order = f"partition by {self.names(key)} order by {self.quote(SEQUENCE)} desc"
        inner = f"select *, row_number() over ({order}) as {self.quote(RANK)} from {self.table(staging)}"
        return f"(select * from ({inner}) as ranked where {self.quote(RANK)} = 1)"

    def merge(
        self,
        target: Table,
        staging: TableName,
        columns: Sequence[Column],
        staged: Mapping[str, str],
        key: Sequence[str],
        method: ConflictMethod,
    ) -> Sequence[Action]:
        """Write the statements that merge the staged records into the target: UPDATE, then INSERT of what is new.

        Args:
            target: as it stands now, with all columns.
            staging: has `SEQUENCE`; of records with equal keys the last one counts.
            columns: those that are staged, with the target's types; the target's others get NULL (or their default).
            staged: column -> type in the staging table.
            key: columns that identify a record; no NULLs (checked before).
            method: what happens with a record whose key is there already.
        """
        source = self.latest(staging, key)
        statements = [self._insert_new(target, source, columns, staged, key)]
        if method is ConflictMethod.UPDATE:
            statements.insert(0, self._update(target, source, columns, staged, key))
        return [sql for sql in statements if sql]

    def delete_keys(
        self,
        target: Table,
        columns: Sequence[Column],
        removed: tuple[TableName, Mapping[str, str]],
        key: Sequence[str],
        *,
        kept: tuple[TableName, Mapping[str, str]] | None,
    ) -> str:
        """Write DELETE of the records whose keys are in one staging table, but not in another.

        Args:
            target: as it stands now.
            columns: the key's, with the target's types.
            removed: staging table of keys, and the types of its columns.
            key: their names.
            kept: the same for the records that arrive; None: none do.
        """
        conditions = [(removed, "exists"), *([(kept, "not exists")] if kept else [])]
        parts = [
            f"{word} (select 1 from {self.table(table)} as s where {self._same_key(columns, types, key)})"
            for (table, types), word in conditions
        ]
        return f"delete from {self.table(target.name)} as t where {' and '.join(parts)}"

    def replace_in_place(
        self,
        target: Table,
        staging: TableName,
        columns: Sequence[Column],
        staged: Mapping[str, str],
        key: Sequence[str],
    ) -> Sequence[str]:
        """Write the statements that make the target equal to the staged records without deleting one that stays."""
        source = self.table(staging)
        same = self._same_key(target.columns, staged, key)
        update = self._update(target, source, columns, staged, key)
        if update and self.compares:
            update = f"{update} {self._and_if} ({self._differ(target, columns, staged)})"
        return [
            f"delete from {self.table(target.name)} as t where not exists (select 1 from {source} as s where {same})",
            *([update] if update else []),
            self._insert_new(target, source, columns, staged, key),
        ]

    def replace_changed(
        self,
        target: Table,
        staging: TableName,
        columns: Sequence[Column],
        staged: Mapping[str, str],
        key: Sequence[str],
    ) -> Sequence[str]:
        """Write the statements that delete the records that are not staged as they are, and insert what is missing.

        Of dialects with `compares`; no two staged records have the same key.
        """
        source = self.table(staging)
        same = f"{self._same_key(target.columns, staged, key)} and not ({self._differ(target, columns, staged)})"
        return [
            f"delete from {self.table(target.name)} as t where not exists (select 1 from {source} as s where {same})",
            self._insert_new(target, source, columns, staged, key),
        ]

    def differs(self, columns: Sequence[Column], staged: Mapping[str, str]) -> str:
        """Write the condition that a record `t` and a staged one `s` are not the very same, never NULL.

        What only compares as equal (1.0 and 1.00, `a` and `A` by some collations) is not the same.
        """
        raise NotImplementedError

    def _differ(self, target: Table, columns: Sequence[Column], staged: Mapping[str, str]) -> str:
        """Write the condition that an update would change a record, columns that no longer arrive included."""
        emptied = [f"t.{self.quote(name)} is not null" for name in self._emptied(target, columns)]
        return " or ".join([*([self.differs(columns, staged)] if columns else []), *emptied])

    def equals(self, left: str, right: str, column: Column) -> str:
        """Write that two values of a column's type are the same."""
        return f"{left} = {right}"

    def _value(self, column: Column, staged: Mapping[str, str]) -> str:
        return self.cast(f"s.{self.quote(column.name)}", column.type, staged[column.name])

    def _emptied(self, target: Table, columns: Sequence[Column]) -> list[str]:
        """Return the columns in which a record that is updated gets NULL; a key that never arrived stays."""
        arriving = {*(column.name for column in columns), *target.key}
        return [column.name for column in target.columns if self._is_emptied(column, arriving)]

    @staticmethod
    def _is_emptied(column: Column, arriving: Collection[str]) -> bool:
        """Tell whether a record that is updated gets NULL here: the column no longer arrives, and may hold NULL."""
        may_be_null = column.is_nullable and not column.is_generated and not column.has_default
        return may_be_null and column.name not in arriving

    def _same_key(self, columns: Sequence[Column], staged: Mapping[str, str], key: Sequence[str]) -> str:
        """Compare a record `t` with a staged one `s`; `columns` has those of the key that the table computes, too."""
        keys = [column for column in columns if column.name in key]
        return " and ".join(
            self.equals(f"t.{self.quote(column.name)}", self._value(column, staged), column) for column in keys
        )

    def _update(
        self, target: Table, source: str, columns: Sequence[Column], staged: Mapping[str, str], key: Sequence[str]
    ) -> str:
        assignments = [
            f"{self.quote(column.name)} = {self._value(column, staged)}" for column in columns if column.name not in key
        ]
        assignments += [f"{self.quote(name)} = null" for name in self._emptied(target, columns)]
        if not assignments:
            return ""
        return (
            f"update {self.table(target.name)} as t set {', '.join(assignments)} "
            f"from {source} as s where {self._same_key(target.columns, staged, key)}"
        )

    def _insert_new(
        self, target: Table, source: str, columns: Sequence[Column], staged: Mapping[str, str], key: Sequence[str]
    ) -> str:
        values = ", ".join(self._value(column, staged) for column in columns)
        return (
            f"{self._into(target.name, columns)} select {values} "
            f"from {source} as s where not exists (select 1 from {self.table(target.name)} as t "
            f"where {self._same_key(target.columns, staged, key)})"
        )

    def empty(self, target: Table) -> str:
        """Write the statement that deletes all records."""
        return f"delete from {self.table(target.name)}"

    def swap(self, staging: TableName, target: Table | None, name: TableName, key: Sequence[str]) -> Sequence[Action]:
        """Write the statements that put a loaded staging table in the target's place, with its primary key."""
        statements = [f"alter table {self.table(staging)} add primary key ({self.names(key)})"] if key else []
        if target is not None:
            statements.append(f"drop table {self.table(target.name)}")
        statements.append(f"alter table {self.table(staging)} rename to {self.quote(name.name)}")
        return [*statements, *(target.regrant if target is not None else ())]


__all__ = ["Dialect"]
