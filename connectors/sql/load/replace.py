"""REPLACE: stage all records in one transaction, then replace the target's records by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from ...errors import FatalConnectorError, null_in_key
from ...struct_helpers import replace
from ..dialect.comparing import ComparingWrites
from ..identifiers import CONVERTED_SUFFIX, TableName
from ..tables import Column, StagingTable, Table
from .context import LoadContext
from .deleted_when import MarkedRecords
from .events import LoadEvents
from .ingest import ingest
from .insert_by_halves import attempt
from .key_change import KeyChange
from .key_order import KeyOrder
from .nulls import reason, refused, shown_values
from .staging import insert_staged, planned_staging, refuse_altered, repeated_keys
from .strategy import Strategy


class Replace(Strategy):
    """Replaces the target by the records of one load."""

    commits_at_checkpoints = False

    def __init__(self, context: LoadContext) -> None:
        super().__init__(context)
        self._key_change = KeyChange(context)
        #: Watches the arriving keys if no primary key will enforce them; None: a primary key does.
        self._key_order = (
            None if context.dialect.facts.keys_replacements else KeyOrder(context.load.stream.key_properties)
        )
        #: `[table]`, read while no other process can create or drop it (`[None]`: no table); None: not read yet.
        self._locked: list[Table | None] | None = None
        #: The target if it has the new records already, or `None`.
        self._rewritten: Table | None = None
        #: Columns of the target after the replacement.
        self._columns: Sequence[Column] = ()
        self._marked: MarkedRecords | None = None

    # ------------------------------------------------------------ the records arrive
    def begin(self) -> None:
        """Begin the transaction; refuse a key that cannot change, before a record is read."""
        super().begin()
        self._rewritten, self._locked = None, None
        if self.table is not None and self.table.has_dependents and self.context.dialect.facts.renames:
            self._key_change.refuse(self.table, self.context.columns.key())

    def read_target(self) -> None:
        """Read the target's catalog entry, if the replacement must keep its spelling of names."""
        if self.context.dialect.facts.keeps_spelling:
            super().read_target()
        else:
            self.context.columns.follow(self.context.columns.stream, None)

    def receive(self, events: LoadEvents) -> None:
        """Stage the data up to the next marker. If that is all and it is small, write it into the target."""
        if self.staged is None and self._rewrite(events):
            return
        staged = self.stage()
        self.records += self._ingest(events, staged.name, staged.types)

    def create_staging(self, planned: StagingTable, *, is_shared: bool) -> StagingTable:
        """Create it as the table that will replace the target."""
        columns, key = self.context.columns.required(planned.target_columns()), self.context.columns.key()
        if not self._stays:  # a table that stays refuses NULL itself
            columns = _as_strict(columns, self.table)
        self.context.session.execute(self.context.dialect.tables.create_replacement(planned.name, columns, key))
        return planned

    def not_null(self) -> frozenset[str]:
        """Return the columns whose NULLs must be found: of a target that stays, or of the new table."""
        if self._stays:
            return super().not_null()
        columns = self.target_columns()
        strict = zip(columns, _as_strict(columns, self.table), strict=True)
        return frozenset(column.name for column, new in strict if column.is_nullable and not new.is_nullable)

    @property
    def _stays(self) -> bool:
        """Return whether the target will be emptied and filled, as far as is known before the records arrive."""
        return self.table is not None and (self.table.has_dependents or not self.context.dialect.facts.renames)

    def _rewrite(self, events: LoadEvents) -> bool:
        """Write a small replacement into the target itself, if the target is missing or small; False: it is staged.

        In a database with hundreds of small tables, creating, renaming and dropping them is most of the work, and the
        catalog grows. Also, readers need not wait.
        """
        context, dialect, target = self.context, self.context.dialect, self.context.target
        if (
            not dialect.facts.refill_bytes
            or context.rejected is not None
            or not (rest := events.rest(dialect.facts.refill_bytes))
        ):
            return False
        table = self._rewritable()
        if table is None:
            return False
        types = {column.name: column.type for column in table.columns}
        empty = (
            [dialect.tables.create(table.name, table.columns, table.key)]
            if self._lock_creation() is None
            else [dialect.tables.lock(table.name), f"delete from {dialect.naming.table(table.name)}"]
        )
        try:
            target.execute(filter(None, empty))
            refuse_altered(context, table.name, types)
            self.records += self._ingest(events, table.name, types)
        except FatalConnectorError:  # such as two records of one key: the staging table gives the better error
            context.session.rollback()
            context.lease.begin()
            self._locked, self.records = None, 0
            events.restart(rest)
            return False
        self._rewritten = table
        return True

    def _rewritable(self) -> Table | None:
        """Return the table that would replace the target, if the target is missing, or small and equal."""
        planned = planned_staging(self.context)
        if any(planned.types[name] != column.type for name, column in planned.columns.items()):
            return None
        table, key = self._lock_creation(), self.context.columns.key()
        wanted = self.context.columns.required(list(planned.columns.values()))
        if table is None:
            return Table(name=self.context.target.name, columns=tuple(wanted), key=tuple(key))
        if table.has_dependents or list(table.key) != key:
            return None
        if table.records is None or table.records > self.context.dialect.facts.refill_records:
            return None
        # No record has NULL in its key; SQLite would number it.
        held = [
            replace(each, has_default=False, fills_nulls=False) if each.fills_nulls and each.name in key else each
            for each in table.columns
        ]
        is_unique = not key or frozenset(key) in table.unique_keys
        return table if is_unique and held == _as_strict(wanted, table) else None

    def _ingest(self, events: LoadEvents, table: TableName, types: Mapping[str, str]) -> int:
        return ingest(self.context, events, table, types, not_null=self.not_null(), check=self._check)

    def _check(self, batch: pa.RecordBatch) -> None:
        """Refuse NULL in the key: NOT NULL is not enough, since SQLite would number such records."""
        if self._key_order is not None:
            self._key_order.note(batch)
        for name in self.context.load.stream.key_properties if self.context.rejected is None else ():
            place = batch.schema.get_field_index(name)
            if place >= 0 and batch.column(place).null_count:
                raise null_in_key(name, stream=self.context.load.stream.name)

    # ------------------------------------------------- the final checkpoint arrived
    def lock(self, *, is_final: bool) -> None:
        """Give the staging table the target's types, and lock the creation of the target."""
        self._marked = MarkedRecords(self.context)
        if self._rewritten is None:
            columns = _as_strict(self.target_columns(), self.table)
            self._columns, self.staged = columns, self._with_target_types(self.staged or self.stage(), columns)
            self._lock_creation()

    def write(self) -> None:
        """Fill the target from the staging table if the target stays."""
        if self._rewritten is not None:
            return
        dialect, target, session = self.context.dialect, self.context.target, self.context.session
        staged, table, key, columns = self.staged, self._lock_creation(), self.context.columns.key(), self._columns
        assert staged is not None, "`lock` has staged"
        if table is not None and not dialect.facts.renames and self._cannot_evolve(table, columns, key):
            target.note_replaced(table, columns)
            session.execute(dialect.tables.drop(table.name))
            table = None
        if table is None and not dialect.facts.renames:
            table = target.create(columns, key)
        if table is not None and (table.has_dependents or not dialect.facts.renames):
            self._rewritten, rejected = self._refill(table, staged, columns, key)
            self.records -= rejected

    def remove(self) -> None:
        """Delete the records that are marked as deleted, if `write` has written the target."""
        if self._rewritten is not None:
            self._delete_marked(self._rewritten)

    def swap(self) -> None:
        """Replace the target by the staging table, if `write` has not written the target."""
        if self._rewritten is not None:
            return
        dialect, target, table, staged = self.context.dialect, self.context.target, self._lock_creation(), self.staged
        assert staged is not None, "`lock` has staged"
        if table is not None:
            target.note_replaced(table, self._columns)
        self.records -= self._swap(table, staged, self.context.columns.key())
        # If a commit cannot contain the swap, the swap follows the commit.
        name = staged.name if dialect.facts.alters_at_once else target.name
        self._delete_marked(Table(name=name, columns=tuple(self._columns)))

    def _delete_marked(self, table: Table) -> None:
        assert self._marked is not None, "`lock` has staged the condition"
        self._marked.delete(table)

    def _with_target_types(self, staged: StagingTable, columns: Sequence[Column]) -> StagingTable:
        """Return a staging table with the target's own types: a new table if some values travel as text."""
        if all(staged.types[column.name] == column.type for column in columns):
            return staged
        dialect, session = self.context.dialect, self.context.session
        name = TableName(staged.name.schema, staged.name.name + CONVERTED_SUFFIX)
        session.execute(dialect.tables.create_replacement(name, columns, self.context.columns.key()))
        session.execute(dialect.writes.insert_from(name, staged, columns))
        session.execute(dialect.tables.drop(staged.name))
        return replace(staged, name=name, types={column.name: column.type for column in columns})

    def _lock_creation(self) -> Table | None:
        """Read the target's catalog entry once no other process can create or drop the table until the commit."""
        if self._locked is None:
            self.context.dialect.tables.lock_creation(self.context.session, self.context.target.name)
            self._locked = [self.context.target.reflect()]
        return self._locked[0]

    def _cannot_evolve(self, table: Table, columns: Sequence[Column], key: Sequence[str]) -> bool:
        return self.context.target.conflicts(table, columns, key) or self._key_change.is_due(table, key)

    # --------------------------------------------- the staging table becomes the target
    def _swap(self, table: Table | None, staged: StagingTable, key: Sequence[str]) -> int:
        """Replace the target by the staging table, with unique keys; return how many records were rejected."""
        dialect, target = self.context.dialect, self.context.target
        strict, nulls = self._made_strict(table, staged), 0
        if table is not None and strict:
            nulls = self._without_nulls(staged, list(strict))
        statements = [*strict.values(), *dialect.tables.swap(staged.name, table, target.name, key)]
        if dialect.facts.keys_replacements:
            if self.context.rejected is None or not dialect.facts.arrival:
                target.execute(statements)
                return nulls
            if attempt(dialect, self.context.lease, lambda: target.execute(statements)) is None:
                return nulls
        count = self._reject_repeated_keys(staged, key)
        target.execute(statements)
        return nulls + count

    def _made_strict(self, table: Table | None, staged: StagingTable) -> dict[str, str]:
        """Write NOT NULL for columns of the replacement, if the target was not read before it was created."""
        if table is None or self.context.dialect.facts.keeps_spelling:
            return {}
        name, quote = self.context.dialect.naming.table(staged.name), self.context.dialect.naming.quote
        columns = self.context.columns.required(list(staged.columns.values()))
        return {
            strict.name: f"alter table {name} alter column {quote(strict.name)} set not null"
            for column, strict in zip(columns, _as_strict(columns, table), strict=True)
            if column.is_nullable and not strict.is_nullable
        }

    def _without_nulls(self, staged: StagingTable, strict: Sequence[str]) -> int:
        """Remove staged records with NULL in a NOT NULL column; return how many.

        Raises:
            FatalConnectorError: such a record exists, and the stream rejects no records.
        """
        context, quote = self.context, self.context.dialect.naming.quote
        table, key = context.target.name, context.columns.key()
        if context.rejected is not None:
            unfit = [(f"{quote(name)} is null", reason(table, name)) for name in strict]
            return context.rejected.remove(staged, unfit, context.columns.names)
        for name in strict:
            shown = ", ".join(["1", *map(quote, key)])
            source = context.dialect.naming.table(staged.name)
            for _, *values in context.session.query(
                f"select {shown} from {source} where {quote(name)} is null limit 1"
            ):
                raise context.error(refused(table, name, shown_values(key, values)))
        return 0

    def _reject_repeated_keys(self, staged: StagingTable, key: Sequence[str]) -> int:
        """Keep one staged record of each key if no index does; return how many records were rejected.

        Raises:
            FatalConnectorError: a key is repeated, and the stream rejects no records.
        """
        if not key or (self._key_order is not None and self._key_order.is_ascending):
            return 0
        return repeated_keys(self.context, staged, key)

    # ------------------------------------------------------------- the target stays
    def _refill(
        self, table: Table, staged: StagingTable, columns: Sequence[Column], key: Sequence[str]
    ) -> tuple[Table, int]:
        """Fill a table that other objects depend on from staging; return it, and how many records were rejected."""
        context, dialect, target = self.context, self.context.dialect, self.context.target
        table = target.lock(table) or table
        self._key_change.refuse(table, key)
        table = target.evolve(table, columns)
        self._key_change.refuse_nulls(table, staged.name, columns, key)
        if self._key_change.is_due(table, key):
            table = self._key_change.change(table, key)
        key = key or self._own_key(table, staged)
        by_key = self._by_key(table, key)
        is_unique = frozenset(key) in {frozenset(table.key), *table.unique_keys}
        is_checked_first = context.rejected is not None and not dialect.facts.has_savepoints
        count = 0
        if by_key is not None or (is_unique and context.rejected is None):
            dialect.writes.refuse_equal_keys(context.session, table, staged, key)
        # `replace_changed` inserts all missing records: two records of a key would both be inserted.
        inserts_all = by_key not in (None, dialect.writes.replace_in_place)
        if not is_unique or inserts_all or is_checked_first:
            count = self._reject_repeated_keys(staged, key)

        def statements(source: StagingTable) -> Sequence[str]:
            if by_key is not None:
                return by_key(table, source, key)[1:]
            return [dialect.writes.insert_from(target.name, source, source.written_to(table))]

        try:
            if by_key is None:
                before = [dialect.writes.empty(table)]
                inserted = insert_staged(context, table, staged, statements, before=before)
                target.execute(inserted.actions)
                return table, count + inserted.rejected
            first = by_key(table, staged, key)[:1]
            target.lock_late()
            inserted = insert_staged(context, table, staged, statements, key=key, before=first)
            target.execute(inserted.actions)
            return table, count + inserted.rejected
        except FatalConnectorError as error:
            self._key_change.explain(error, table, key)
            raise

    @staticmethod
    def _own_key(table: Table, staged: StagingTable) -> list[str]:
        """Return a unique key that foreign keys refer to, if the stream has no key; empty: there is none.

        Without a key the table would be emptied, which its foreign keys refuse.
        """
        if not table.is_referenced:
            return []
        strict = {column.name for column in table.columns if not column.is_nullable}.intersection(staged.types)
        found = sorted(sorted(names) for names in table.unique_keys if names and names <= strict)
        return min(found, key=len, default=[])

    def _by_key(self, table: Table, key: Sequence[str]) -> Callable[..., Sequence[str]] | None:
        """Choose how a kept table is refilled by its key; None: it is emptied and gets all records anew.

        If foreign keys refer to it, records are updated. If it has triggers, they fire only for changed records.
        """
        if key and table.is_referenced:
            return self.context.dialect.writes.replace_in_place
        # The table's index finds the rejected records; it would not see skipped ones.
        is_rejecting = self.context.rejected is not None and not self.context.dialect.facts.arrival
        writes = self.context.dialect.writes
        if key and table.triggers and isinstance(writes, ComparingWrites) and not is_rejecting:
            return writes.replace_changed
        return None


def _as_strict(columns: Sequence[Column], table: Table | None) -> list[Column]:
    """Return the columns, NOT NULL as in the replaced table unless NULL comes now."""
    needed = {column.name for column in table.needed()} if table is not None else set()
    return [
        replace(column, is_nullable=False) if column.name in needed and not column.is_relaxed else column
        for column in columns
    ]


__all__ = ["Replace"]
