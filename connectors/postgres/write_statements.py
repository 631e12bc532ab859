"""PostgreSQL's statements that write records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..sql.dialect.comparing import ComparingWrites
from ..sql.dialect.write_statements import CountsReplaced
from ..sql.identifiers import SEQUENCE, TableName, literal
from ..sql.session import Session
from ..sql.tables import Column, StagingTable, Table
from ..struct_helpers import replace
from ..write_spec import ConflictMethod
from .type_names import TEXTS, Name
from .types import shown

#: Only until the commit. Merges join and group whole staging tables; the default of 4 MB would spill to disk. The
#: default costs assume a spinning disk: a few staged records would read the whole table instead of its index.
_FOR_MERGES = (
    "select pg_catalog.set_config('work_mem', '64MB', true) "
    "where pg_catalog.pg_size_bytes(pg_catalog.current_setting('work_mem')) < 64 * 1024 * 1024; "
    "select pg_catalog.set_config('random_page_cost', '1.1', true) "
    "where pg_catalog.current_setting('random_page_cost')::float8 > '1.1'"
)


#: Runs a DELETE of repeated records, and adds their number to a setting of this transaction.
_COUNTING = (
    "with gone as ({} returning 1) select pg_catalog.set_config('syncblocks.replaced', (count(*) + coalesce("
    "nullif(pg_catalog.current_setting('syncblocks.replaced', true), ''), '0')::bigint)::text, true) from gone"
)


class PostgresWrites(ComparingWrites, CountsReplaced):
    """Merges by DELETE and INSERT, ON CONFLICT, or UPDATE and INSERT, depending on the table."""

    def cast(self, expression: str, column_type: str, staged_type: str) -> str:
        """Keep the padding of a `character`, as in its source: a cast to another text drops it."""
        if Name.parse(staged_type).is_filled and not Name.parse(column_type).is_filled:
            return f"cast(pg_catalog.textin(pg_catalog.bpcharout({expression})) as {column_type})"
        return super().cast(expression, column_type, staged_type)

    def shown(self, name: str, column_type: str) -> str:
        """Convert values on the server that Python's types cannot hold."""
        return shown(column_type).format(self._quote(name))

    def empty(self, target: Table) -> str:
        """Truncate if nothing depends on the difference."""
        if target.is_referenced or target.has_triggers:
            return super().empty(target)
        return f"truncate table {self._table(target.name)}"

    def merge(self, target: Table, staged: StagingTable, key: Sequence[str], method: ConflictMethod) -> Sequence[str]:
        """Merge by the fastest method that this table allows.

        DELETE and INSERT takes half the time of ON CONFLICT, but fires triggers, breaks foreign keys, and resets
        columns that do not arrive. Without a unique index only UPDATE and INSERT remain. Records in the order of their
        keys go by ON CONFLICT: the index finds neighbours in one page, and no plan joins them with the whole table.
        """
        staged = _unpadded(staged, key)
        columns = staged.written_to(target)
        compared = [*columns, *(c for c in target.columns if c.is_generated and c.name in key)]
        values = ", ".join(f"{self._value(column, staged.types)} as {self._quote(column.name)}" for column in compared)
        source = f"(select {values} from {self._table(staged.name)} s)"
        insert = f"{self._into(target.name, columns)} select {self._names(_names(columns), 's.')} from {source} as s"
        is_first = method is ConflictMethod.IGNORE
        is_ordered = staged.has_each_key_once and all(
            staged.types[column.name] == column.type for column in compared if column.name in key
        )
        first = [_FOR_MERGES]
        if not is_ordered:
            drop = self._drop_repeated(staged, compared, key, is_first=is_first)
            first.append(drop if is_first else _COUNTING.format(drop))
        is_unique = frozenset(key) in target.unique_keys
        is_by_index = is_ordered and is_unique and not target.has_update_rules
        if method is ConflictMethod.UPDATE and self._is_ours(target, columns) and not is_by_index:
            same = self._same_key(compared, staged.types, key)
            delete = f"delete from {self._table(target.name)} as t using {self._table(staged.name)} as s where {same}"
            return [_unless_new(insert, [*first, delete, insert])] if is_unique else [*first, delete, insert]
        if is_unique and not target.has_update_rules:
            changes = self._changes(target, staged, key, "excluded.{}") if method is ConflictMethod.UPDATE else []
            action = f"update set {', '.join(changes)}" if changes else "nothing"
            return [*first, f"{insert} on conflict ({self._names(key)}) do {action}"]
        cast = replace(staged, types={column.name: column.type for column in compared})
        new = self._insert_new(target, source, cast, key)
        if is_first:
            return [*first, new]
        return [*first, *filter(None, [self._update(target, source, cast, key)]), new]

    def counted_by_merge(self, session: Session) -> int:
        """Read the number that `merge` has added up; a statement that was rolled back adds nothing."""
        ((number,),) = session.query("select pg_catalog.current_setting('syncblocks.replaced', true)")
        return int(number or 0)

    def drop_outrun(
        self, target: Table, staged: StagingTable, column: Column, key: Sequence[str], is_lowest: bool
    ) -> str:
        """Compare keys as `merge` does."""
        return super().drop_outrun(target, _unpadded(staged, key), column, key, is_lowest)

    def drop_older(
        self, target: Table, staged: StagingTable, column: Column, key: Sequence[str], current: str, is_lowest: bool
    ) -> str:
        """Find the target's records as `merge` does."""
        return super().drop_older(target, _unpadded(staged, key), column, key, current, is_lowest)

    def drop_new(self, target: Table, staged: StagingTable, key: Sequence[str]) -> str:
        """Find the target's records as `merge` does."""
        return super().drop_new(target, _unpadded(staged, key), key)

    def ordered(self, expression: str, column: Column) -> str:
        """Order texts by their bytes, whatever the collation."""
        is_text = Name.parse(column.base or column.type).base in TEXTS
        return self._spelled(expression) if is_text else expression

    def carry(self, target: Table, staged: StagingTable, kept: Sequence[Column], key: Sequence[str]) -> Sequence[str]:
        """Find the target's records as `merge` does."""
        return [_FOR_MERGES, *super().carry(target, _unpadded(staged, key), kept, key)]

    def equals(self, left: str, right: str, column: Column) -> str:
        """Name the operator's schema: a user's operator for these types would be preferred to the server's."""
        return f"{left} operator({self._quote(column.equality or 'pg_catalog')}.=) {right}"

    def delete_values(self, target: Table, staged: StagingTable, column: Column) -> str:
        """Compare texts by their exact spelling, if their type or collation ignores differences."""
        if not column.is_folded:
            return super().delete_values(target, staged, column)
        held, arriving = (self._spelled(f"{each}.{self._quote(column.name)}") for each in "ts")
        source = f"(select distinct {self._quote(column.name)} from {self._table(staged.name)})"
        return self._delete_joined(target, source, f"{held} operator(pg_catalog.=) {arriving}")

    def _compared(self, left: str, operator: str, right: str) -> str:
        return f"{left} operator(pg_catalog.{operator}) {right}"

    def keep_last(self, staged: StagingTable, key: Sequence[str]) -> str:
        """See `Writes`; keys are compared in the types that they are staged in."""
        columns = [replace(column, type=staged.types[name]) for name, column in staged.columns.items() if name in key]
        return self._drop_repeated(staged, columns, key, is_first=False)

    def _drop_repeated(
        self, staged: StagingTable, columns: Sequence[Column], key: Sequence[str], *, is_first: bool
    ) -> str:
        """Delete all staged records of a key except the last, or the first.

        Mostly there are none, and a sort would be wasted.

        Keys are compared in the target's type: '1.0' and '1' are one numeric.
        """
        keys = {column.name: self._value(column, staged.types) for column in columns if column.name in key}
        sequence, table = self._quote(SEQUENCE), self._table(staged.name)
        listed = ", ".join(f"{value} as {self._quote(name)}" for name, value in keys.items())
        of = {column.name: column for column in columns}
        same = " and ".join(self.equals(value, f"r.{self._quote(name)}", of[name]) for name, value in keys.items())
        repeated = (
            f"select {listed}, pg_catalog.{'min' if is_first else 'max'}(s.{sequence}) as {sequence} from {table} s "
            f"group by {', '.join(keys.values())} having count(*) > 1"
        )
        return f"delete from {table} as s using ({repeated}) as r where {same} and s.{sequence} <> r.{sequence}"

    def differs(self, columns: Sequence[Column], types: Mapping[str, str]) -> str:
        """Compare the binary images of the records: some types have no equality, and some equal values differ."""
        held = ", ".join(f"t.{self._quote(column.name)}" for column in columns)
        arriving = ", ".join(self._value(column, types) for column in columns)
        return f"row({held})::record operator(pg_catalog.*<>) row({arriving})::record"

    def changed(self, columns: Sequence[Column]) -> str:
        """Compare numbers by value, whatever their digits; other types by the images of the records."""
        kinds = {column.name: Name.parse(column.base or column.type) for column in columns}
        numbers = [column for column in columns if kinds[column.name].base == "numeric"]
        others = [column for column in columns if column not in numbers]
        parts = [f"t.{name} is distinct from s.{name}" for name in map(self._quote, _names(numbers))]
        return " or ".join([*parts, *([super().changed(others)] if others or not parts else [])])

    def before_merge(self) -> Sequence[str]:
        """Give joins and sorts the memory of merges."""
        return [_FOR_MERGES]

    def _into(self, target: TableName, columns: Sequence[Column]) -> str:
        return f"{super()._into(target, columns)} overriding system value"

    def _is_ours(self, target: Table, columns: Sequence[Column]) -> bool:
        arriving = set(_names(columns))
        return not (target.has_triggers or target.is_referenced) and all(
            column.name in arriving or column.is_generated or (column.is_nullable and not column.has_default)
            for column in target.columns
        )


def _unless_new(insert: str, merge: Sequence[str]) -> str:
    """Write one statement that inserts, and merges only if a key exists already, or comes twice.

    The unique index detects the first such record. A first load has none, and saves a join of each commit with the
    growing table; the time of these joins grows with the square of the records.
    """
    body = (
        f"begin execute {literal(insert)}; exception when integrity_constraint_violation then "
        f"{' '.join(f'execute {literal(sql)};' for sql in merge)} end"
    )
    return f"do {literal(body)}"


def _unpadded(staged: StagingTable, key: Sequence[str]) -> StagingTable:
    """Compare a key without its padding: with padding, a record would not find its former version."""
    filled = {name: "bpchar" for name in key if Name.parse(staged.types[name]).is_filled}
    return replace(staged, types={**staged.types, **filled}) if filled else staged


def _names(columns: Sequence[Column]) -> list[str]:
    return [column.name for column in columns]


__all__ = ["PostgresWrites"]
