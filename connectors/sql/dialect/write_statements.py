"""Records of one SQL system: statements that write them, savepoints, and the actions of a load plan."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ...errors import FatalConnectorError
from ...struct_helpers import replace
from ...write_spec import ConflictMethod
from ..actions import Action, Reread
from ..identifiers import SEQUENCE, Naming, TableName
from ..session import Session
from ..tables import Column, ColumnTest, StagingTable, Table
from .facts import Facts

#: Columns of a staging table with one row: the bounds of a range; the upper bound is exclusive.
BOUNDS = ("range_start", "range_end")


class SlicesStaging(ABC):
    """For systems whose statements can read a range of a staging table without a copy."""

    @abstractmethod
    def slice(self, staging: TableName, first: int, last: int) -> TableName:
        """Return an alias for the staged records within a range of numbers; the staging table is numbered."""


class CountsReplaced(ABC):
    """For systems whose merge finds repeated keys anyway, so that no second search for them is needed."""

    @abstractmethod
    def counted_by_merge(self, session: Session) -> int:
        """Return how many staged records the merge of this transaction replaced by others of the same key."""


class Writes(ABC):
    """Methods that return SQL have no effect; methods that take a session run inside its transaction."""

    def __init__(self, naming: Naming, facts: Facts) -> None:
        self._naming, self._facts = naming, facts
        self._quote, self._table, self._names = naming.quote, naming.table, naming.names

    def perform(self, session: Session, action: Action) -> None:
        """Run one action of a load plan; a system with its own actions overrides this."""
        match action:
            case str():
                session.execute(action)
            case Reread():
                pass  # every caller that locks reads the catalog afterwards
            case _:
                raise TypeError(f"{self._naming.name} does not know {action}")

    def savepoint(self, session: Session) -> None:
        """Set the savepoint of `rollback`; for systems that have savepoints."""
        session.execute("savepoint _syncblocks_batch")

    def rollback(self, session: Session) -> None:
        """Undo everything since `savepoint`."""
        session.execute("rollback to savepoint _syncblocks_batch")
        session.execute("release savepoint _syncblocks_batch")

    def release(self, session: Session) -> None:
        """Release the savepoint and keep the changes."""
        session.execute("release savepoint _syncblocks_batch")

    def begin_commit(self, session: Session, staging: TableName | None) -> None:  # noqa: B027 -- most need nothing
        """Prepare the write of target and ledger: all data of a commit has arrived, in `staging` if it was staged."""

    def any_record(self, table: Table) -> str:
        """Write the SELECT of any one record of a table."""
        return f"select 1 from {self._table(table.name)} limit 1"

    def newest(self, table: Table, columns: Sequence[str]) -> str:
        """Write the SELECT of some columns from the record with their highest values; the first column orders first."""
        kinds = {column.name: column.type for column in table.columns}
        shown = ", ".join(self.shown(name, kinds[name]) for name in columns)
        known = " and ".join(f"{self._quote(name)} is not null" for name in columns)
        order = ", ".join(f"{self._quote(name)} desc" for name in columns)
        return f"select {shown} from {self._table(table.name)} where {known} order by {order} limit 1"

    def null_key(self, staging: TableName, key: Sequence[str]) -> str:
        """Write the SELECT of one staged record with NULL in its key."""
        condition = " or ".join(f"{self._quote(name)} is null" for name in key)
        return f"select 1 from {self._table(staging)} where {condition} limit 1"

    def repeated(self, staging: TableName, key: Sequence[str]) -> str:
        """Write the condition that a staged record `s` repeats the key of an earlier one."""
        arrival = self._facts.arrival
        order = f"partition by {self._names(key)} order by {arrival}"
        inner = f"select {arrival} as place, row_number() over ({order}) as number from {self._table(staging)}"
        return f"s.{arrival} in (select r.place from ({inner}) as r where r.number > 1)"

    def repeated_key(self, staging: TableName, key: Sequence[str]) -> str:
        """Write the SELECT of one key that several staged records have."""
        names = self._names(key)
        return f"select {names} from {self._table(staging)} group by {names} having count(*) > 1 limit 1"

    def count_replaced(self, staging: TableName, key: Sequence[str]) -> str:
        """Write the SELECT of the number of staged records that repeat a key, NULL if none does."""
        names = self._names(key)
        repeated = f"select count(*) as number from {self._table(staging)} group by {names} having count(*) > 1"
        return f"select sum(r.number - 1) from ({repeated}) r"

    def refuse_equal_keys(self, session: Session, target: Table, staged: StagingTable, key: Sequence[str]) -> None:
        """Raise if different staged keys are equal for the target: only the last of their records would remain.

        Args:
            session: runs the queries.
            target: the present target.
            staged: the records.
            key: columns that identify a record.

        Raises:
            FatalConnectorError: two keys are equal for the target.
        """
        folded = [column for column in staged.written_to(target) if column.name in key and column.is_folded]
        if not folded:
            return
        # The target's columns come first: their collations apply to the comparison.
        keys = [column for column in target.columns if column.name in key]
        held = [self._quote(column.name) for column in keys] + [self._spelled(self._quote(c.name)) for c in folded]
        arriving = [self._value(column, staged.types) for column in keys]
        arriving += [self._spelled(f"s.{self._quote(column.name)}") for column in folded]
        names = [f"k{place}" for place in range(len(held))]
        grouped, spelled = names[: len(keys)], names[len(keys) :]
        listed = ", ".join(f"{value} as {name}" for value, name in zip(held, names, strict=True))
        both = (
            f"select {listed} from {self._table(target.name)} where 1 = 0 "
            f"union all select {', '.join(arriving)} from {self._table(staged.name)} s"
        )
        ends = ", ".join(f"min({name}), max({name})" for name in spelled)
        differs = " or ".join(f"min({name}) <> max({name})" for name in spelled)
        found = session.query(
            f"select {ends} from ({both}) as r group by {', '.join(grouped)} having {differs} limit 1"
        )
        for (*values,) in found:
            pairs = zip(folded, values[::2], values[1::2], strict=True)
            column, one, other = next(pair for pair in pairs if pair[1] != pair[2])
            raise FatalConnectorError(
                f"{target.name} treats the keys {one!r} and {other!r} (column {column.name!r}) as equal, so only "
                "one of their records would remain: give the column a type or a collation that distinguishes "
                "them, choose other key_properties, or, if they mean the same, make them equal in a transformer "
                "or a query",
                connector=self._naming.name,
            )

    def refuse_equal_values(  # noqa: B027 -- most need nothing
        self, session: Session, target: Table, staged: StagingTable, column: Column
    ) -> None:
        """Raise if `delete_values` would also delete records with other values; default: all values are distinct."""

    def _spelled(self, expression: str) -> str:
        """Write a value as a text that is compared by its characters."""
        return self._facts.spelled.format(expression)

    def violations(
        self, session: Session, target: Table, staged: StagingTable, key: Sequence[str], ignores: bool, is_emptied: bool
    ) -> Sequence[tuple[str, str]]:
        """Write conditions for staged records `s` that violate the target's constraints.

        For systems without savepoints.

        Args:
            session: reads the constraints.
            target: the present target.
            staged: the records.
            key: key of a merge.
            ignores: whether a merge leaves existing records unchanged.
            is_emptied: the target's records are deleted first.

        Returns:
            Conditions with the reason for each; they are checked in order until none matches.
        """
        return ()

    def insert_range(self, part: TableName, staged: StagingTable, first: int, last: int) -> str:
        """Write INSERT of a range of staged records, by their numbers, into an empty staging table of equal columns."""
        whole = replace(staged, types={**staged.types, SEQUENCE: self._facts.bigint_type})
        everything = self.insert_from(part, whole, whole.own_columns())
        return f"{everything} where s.{self._quote(SEQUENCE)} between {first} and {last}"

    def staged_records(self, session: Session, staged: StagingTable, numbers: str) -> Sequence[tuple[Any, ...]]:
        """Read staged records with their numbers.

        Args:
            session: runs the query.
            staged: a numbered staging table.
            numbers: list of numbers, in parentheses.
        """
        number = self._quote(SEQUENCE)
        names = ", ".join(self.shown(name, kind) for name, kind in staged.types.items())
        return session.query(f"select {number}, {names} from {self._table(staged.name)} where {number} in {numbers}")

    def shown(self, name: str, column_type: str) -> str:
        """Write a staged column in a form that the driver can show; default: unchanged."""
        return self._quote(name)

    def cast(self, expression: str, column_type: str, staged_type: str) -> str:
        """Cast a staged expression to the column's type."""
        return expression if column_type == staged_type else f"cast({expression} as {column_type})"

    def insert_from(self, target: TableName, staged: StagingTable, columns: Sequence[Column]) -> str:
        """Write INSERT ... SELECT of all staged records; the columns have the target's types."""
        values = ", ".join(self._value(column, staged.types) for column in columns)
        return f"{self._into(target, columns)} select {values} from {self._table(staged.name)} s"

    def _into(self, target: TableName, columns: Sequence[Column]) -> str:
        return f"insert into {self._table(target)} ({self._names([column.name for column in columns])})"

    def latest(self, staging: TableName, key: Sequence[str], *, is_first: bool = False) -> str:
        """Write a derived table of the last, or the first, staged record of each key."""
        number, source = self._quote(SEQUENCE), self._table(staging)
        last = f"select {'min' if is_first else 'max'}({number}) from {source} group by {self._names(key)}"
        return f"(select * from {source} where {number} in ({last}))"

    def keep_last(self, staged: StagingTable, key: Sequence[str]) -> str:
        """Write DELETE of all staged records but the last of each key."""
        number, source = self._quote(SEQUENCE), self._table(staged.name)
        last = f"select max({number}) from {source} group by {self._names(key)}"
        return f"delete from {source} where {number} not in ({last})"

    def merge(
        self, target: Table, staged: StagingTable, key: Sequence[str], method: ConflictMethod
    ) -> Sequence[Action]:
        """Write the statements that merge the staged records into the target: UPDATE, then INSERT of new records.

        Args:
            target: the present target; columns that are not staged get NULL (or their default).
            staged: has `SEQUENCE`; of equal keys the last record counts, for IGNORE the first.
            key: columns that identify a record, without NULLs (checked before).
            method: what to do with a record whose key exists.
        """
        source = self.latest(staged.name, key, is_first=method is ConflictMethod.IGNORE)
        statements = [self._insert_new(target, source, staged, key)]
        # Several records may share a key after an append: an UPDATE would make them all equal.
        may_repeat = frozenset(key) not in target.unique_keys and not (target.has_triggers or target.is_referenced)
        if method is ConflictMethod.UPDATE and may_repeat:
            statements.insert(0, self.delete_arriving(target, staged, key))
        elif method is ConflictMethod.UPDATE:
            statements.insert(0, self._update(target, source, staged, key))
        return [sql for sql in statements if sql]

    def drop_outrun(
        self, target: Table, staged: StagingTable, column: Column, key: Sequence[str], is_lowest: bool
    ) -> str:
        """Write DELETE of staged records, except the one with the highest value of each key (the last of equal ones).

        Args:
            target: the present target.
            staged: the records, with `SEQUENCE`.
            column: compared values; NULL is lower than any value.
            key: columns that identify a record.
            is_lowest: the lowest value wins; NULL still loses against any value.
        """
        keys = ", ".join(self._value(each, staged.types) for each in target.columns if each.name in key)
        value, number = self.ordered(self._value(column, staged.types), column), f"s.{self._quote(SEQUENCE)}"
        order = f"case when {value} is null then 1 else 0 end, {value} {'asc' if is_lowest else 'desc'}, {number} desc"
        inner = (
            f"select {number} as place, row_number() over (partition by {keys} order by {order}) as number "
            f"from {self._table(staged.name)} as s"
        )
        return self.delete_staged(staged.name, f"{number} in (select r.place from ({inner}) as r where r.number > 1)")

    def drop_older(
        self, target: Table, staged: StagingTable, column: Column, key: Sequence[str], current: str, is_lowest: bool
    ) -> str:
        """Write DELETE of staged records if the target has a newer record of their key; equal ones are not newer.

        Args:
            target: the present target.
            staged: the records.
            column: compared values; NULL is older than any value.
            key: columns that identify a record.
            current: compare only with records that have NULL in this column; empty: with all.
            is_lowest: the lower value is newer.
        """
        held = self.ordered(f"t.{self._quote(column.name)}", column)
        value = self.ordered(self._value(column, staged.types), column)
        newer = f"{held} is not null and ({value} is null or {self._compared(held, '<' if is_lowest else '>', value)})"
        parts = [self._same_key(target.columns, staged.types, key), newer]
        parts += [f"t.{self._quote(current)} is null"] if current else []
        older = f"exists (select 1 from {self._table(target.name)} as t where {' and '.join(parts)})"
        return self.delete_staged(staged.name, older)

    def drop_new(self, target: Table, staged: StagingTable, key: Sequence[str]) -> str:
        """Write DELETE of staged records whose key the target lacks; arguments as in `drop_older`."""
        same, into = self._same_key(target.columns, staged.types, key), self._table(target.name)
        return self.delete_staged(staged.name, f"not exists (select 1 from {into} as t where {same})")

    def ordered(self, expression: str, column: Column) -> str:
        """Write a column value so that the system orders it like Arrow: texts by their bytes."""
        return expression

    def carry(self, target: Table, staged: StagingTable, kept: Sequence[Column], key: Sequence[str]) -> Sequence[str]:
        """Write the statements that copy some columns from the target into staged records of the same key.

        Args:
            target: the present target.
            staged: the records.
            kept: columns with the target's types, no key columns.
            key: columns that identify a record.
        """
        values = {c.name: self.cast(f"t.{self._quote(c.name)}", staged.types[c.name], c.type) for c in kept}
        return [self._carried(target, staged.name, values, self._same_key(target.columns, staged.types, key))]

    def _carried(self, target: Table, staging: TableName, values: Mapping[str, str], same: str) -> str:
        listed = ", ".join(f"{self._quote(name)} = {value}" for name, value in values.items())
        return f"update {self._table(staging)} as s set {listed} from {self._table(target.name)} as t where {same}"

    def delete_keys(
        self, target: Table, removed: StagingTable, key: Sequence[str], *, kept: StagingTable | None
    ) -> str:
        """Write DELETE of records whose keys are in one staging table but not in another.

        Args:
            target: the present target.
            removed: has the keys.
            key: its columns.
            kept: the arriving records; None: there are none.
        """
        return self._delete(target, self._of_keys(target, removed, key, kept))

    def delete_unreferenced(
        self, target: Table, removed: StagingTable, key: Sequence[str], *, kept: StagingTable | None
    ) -> str:
        """Write a DELETE of records that no other record refers to; it is repeated while it deletes any.

        Empty: the system checks foreign keys at the end of a statement, so one pass is enough.
        """
        return ""

    def _of_keys(self, target: Table, removed: StagingTable, key: Sequence[str], kept: StagingTable | None) -> str:
        conditions = [(removed, "exists"), *([(kept, "not exists")] if kept else [])]
        return " and ".join(
            f"{word} (select 1 from {self._table(staged.name)} as s "
            f"where {self._same_key(target.columns, staged.types, key)})"
            for staged, word in conditions
        )

    def delete_arriving(self, target: Table, staged: StagingTable, key: Sequence[str]) -> str:
        """Write DELETE of the records with staged keys."""
        same = self._same_key(target.columns, staged.types, key)
        return self._delete_joined(target, self._table(staged.name), same)

    def delete_values(self, target: Table, staged: StagingTable, column: Column) -> str:
        """Write DELETE of the records that have a staged value in a column.

        Texts are compared by their exact characters.
        """
        distinct = f"(select distinct {self._quote(column.name)} from {self._table(staged.name)})"
        return self._delete_joined(target, distinct, self._same_key([column], staged.types, [column.name]))

    def delete_between(self, target: Table, staged: StagingTable, column: Column) -> str:
        """Write DELETE of the records within a range, whose `BOUNDS` are staged."""
        held = f"t.{self._quote(column.name)}"
        first, last = (self.cast(f"s.{self._quote(each)}", column.type, staged.types[each]) for each in BOUNDS)
        condition = f"{self._compared(held, '>=', first)} and {self._compared(held, '<', last)}"
        return self._delete_joined(target, self._table(staged.name), condition)

    @abstractmethod
    def delete_meeting(
        self, target: Table, test: ColumnTest, arrived: StagingTable | None = None, key: Sequence[str] = ()
    ) -> str:
        """Write DELETE of the records that meet a test; texts are compared by their exact characters.

        Args:
            target: the present target.
            test: condition on a column.
            arrived: limits the DELETE to the keys of these records; None: all records.
            key: its columns.
        """

    def refuse_unordered(  # noqa: B027 -- most need nothing
        self, session: Session, target: Table, column: Column
    ) -> None:
        """Raise if the system orders some times in a column wrongly; default: it orders them correctly."""

    def _compared(self, left: str, operator: str, right: str) -> str:
        """Compare two times of one type."""
        return f"{left} {operator} {right}"

    def _delete_joined(self, target: Table, source: str, same: str) -> str:
        """Write DELETE of target records `t` that match a record `s` of a source by a condition."""
        return f"delete from {self._table(target.name)} as t using {source} as s where {same}"

    def set_columns(self, target: Table, staged: StagingTable, key: Sequence[str], names: Sequence[str]) -> str:
        """Write UPDATE of some columns of the records with staged keys; each key is staged once.

        Args:
            target: the present target.
            staged: keys and values.
            key: names of the key columns.
            names: columns to set.
        """
        values = {column.name: self._value(column, staged.types) for column in target.columns if column.name in names}
        same = self._same_key(target.columns, staged.types, key)
        return self._updated(target, self._table(staged.name), values, same, "")

    def _delete(self, target: Table, condition: str) -> str:
        """Write DELETE of target records `t` that meet a condition."""
        return f"delete from {self._table(target.name)} as t where {condition}"

    @abstractmethod
    def replace_in_place(self, target: Table, staged: StagingTable, key: Sequence[str]) -> Sequence[str]:
        """Write the statements that make the target equal to the staged records; remaining records are not deleted."""

    @abstractmethod
    def changed(self, columns: Sequence[Column]) -> str:
        """Write the condition that records `t` and `s` of equal types differ by value, never NULL.

        1.0 and 1.00 are one value; `a` and `A` are two.
        """

    def update_from(self, target: Table, source: TableName, values: Mapping[str, str], condition: str) -> str:
        """Write UPDATE of records `t` from a staging table `s`; at most one record of `s` meets the condition."""
        return self._updated(target, self._table(source), values, condition, "")

    def update_staged(self, staging: TableName, target: Table, values: Mapping[str, str], condition: str) -> str:
        """Write UPDATE of staged records `s` from records `t`; at most one record of `t` meets the condition."""
        return self._carried(target, staging, values, condition)

    def delete_staged(self, staging: TableName, condition: str) -> str:
        """Write DELETE of staged records `s` that meet a condition."""
        return f"delete from {self._table(staging)} as s where {condition}"

    def same_key(self, columns: Sequence[Column]) -> str:
        """Compare the keys of records `t` and `s` of equal types."""
        names = [column.name for column in columns]
        return self._same_key(columns, {column.name: column.type for column in columns}, names)

    def before_merge(self) -> Sequence[Action]:
        """Return actions that speed up a merge until the commit; default: none."""
        return ()

    def equals(self, left: str, right: str, column: Column) -> str:
        """Write the condition that two values of a column's type are identical."""
        return f"{left} = {right}"

    def _value(self, column: Column, types: Mapping[str, str]) -> str:
        return self.cast(f"s.{self._quote(column.name)}", column.type, types[column.name])

    def _emptied(self, target: Table, staged: StagingTable) -> list[str]:
        """Return the columns in which an updated record gets NULL; a key column that never arrived stays."""
        arriving = {*(column.name for column in staged.written_to(target)), *target.key}
        return [column.name for column in target.columns if self._is_emptied(column, arriving)]

    @staticmethod
    def _written(target: Table, staged: StagingTable, key: Sequence[str]) -> list[Column]:
        """Return the columns that an update writes, with key columns whose equal values can be spelled differently."""
        same = {column.name for column in target.columns if column.name in key and not column.is_folded}
        return [column for column in staged.written_to(target) if column.name not in same]

    @staticmethod
    def _is_emptied(column: Column, arriving: Collection[str]) -> bool:
        """Return whether an updated record gets NULL here: the column no longer arrives, and is nullable."""
        may_be_null = column.is_nullable and not column.is_generated and not column.has_default
        return may_be_null and column.name not in arriving

    def _same_key(self, columns: Sequence[Column], types: Mapping[str, str], key: Sequence[str]) -> str:
        """Compare a record `t` with a staged record `s`; `columns` includes computed key columns."""
        keys = [column for column in columns if column.name in key]
        return " and ".join(
            self.equals(f"t.{self._quote(column.name)}", self._value(column, types), column) for column in keys
        )

    def _update(self, target: Table, source: str, staged: StagingTable, key: Sequence[str], condition: str = "") -> str:
        """Write UPDATE of target records by staged records that meet a condition; empty: no column to set."""
        values = {each.name: self._value(each, staged.types) for each in self._written(target, staged, key)}
        values |= dict.fromkeys(self._emptied(target, staged), "null")
        same = self._same_key(target.columns, staged.types, key)
        return self._updated(target, source, values, same, condition) if values else ""

    def _updated(self, target: Table, source: str, values: Mapping[str, str], same: str, condition: str) -> str:
        listed = ", ".join(f"{self._quote(name)} = {value}" for name, value in values.items())
        where = f"{same} and ({condition})" if condition else same
        return f"update {self._table(target.name)} as t set {listed} from {source} as s where {where}"

    def _changes(self, target: Table, staged: StagingTable, key: Sequence[str], arriving: str) -> list[str]:
        """Write the assignments when an inserted key exists; `arriving` is a form such as `excluded.{}`."""
        names = [self._quote(column.name) for column in self._written(target, staged, key)]
        emptied = [f"{self._quote(name)} = null" for name in self._emptied(target, staged)]
        return [*(f"{name} = {arriving.format(name)}" for name in names), *emptied]

    def _insert_new(self, target: Table, source: str, staged: StagingTable, key: Sequence[str]) -> str:
        columns = staged.written_to(target)
        values = ", ".join(self._value(column, staged.types) for column in columns)
        return (
            f"{self._into(target.name, columns)} select {values} "
            f"from {source} as s where not exists (select 1 from {self._table(target.name)} as t "
            f"where {self._same_key(target.columns, staged.types, key)})"
        )

    def empty(self, target: Table) -> str:
        """Write the statement that deletes all records."""
        return f"delete from {self._table(target.name)}"


__all__ = ["BOUNDS", "CountsReplaced", "SlicesStaging", "Writes"]
