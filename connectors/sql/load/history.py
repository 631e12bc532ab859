"""HISTORY: stage the records, and add those that differ from the current version of their key as new versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ...stream import ADDED, ENDS, VALID_FROM, VALID_TO
from ...struct_helpers import replace
from ..actions import Action
from ..identifiers import HISTORY_SUFFIX, RANK, SEQUENCE, TableName, staging_name
from ..ledger import commit
from ..tables import Column, StagingTable, Table
from .context import LoadContext
from .history_ends import Endings
from .history_statements import HistoryStatements, HistoryTypes
from .latest_by import keep_latest
from .staging import create_staging, insert_staged, stage_keys
from .strategy import Strategy

#: Types of bookmarks that every system orders like the source; texts depend on collations.
_ORDERED = (pa.types.is_integer, pa.types.is_decimal, pa.types.is_timestamp, pa.types.is_date)


class History(Strategy):
    """Keeps every version of a record."""

    def __init__(self, context: LoadContext) -> None:
        super().__init__(context)
        assert context.load.history is not None, "the engine says what a history needs"
        self._history = context.load.history
        #: Columns added since the stream was last completed: filling them creates no new version.
        self._added = set(map(str, self._history.known.get(ADDED, ())))
        self._starts_over = self._history.starts_over
        #: Keys whose versions end in this transaction, or `None`.
        self._marked: pa.Table | None = None
        #: True if this transaction writes the target.
        self._is_locked = False

    def begin(self) -> None:
        """Begin a transaction; where ALTER TABLE cannot be undone, note first which columns it will add."""
        super().begin()
        context = self.context
        new = self._lacking(
            list(context.columns.required([column for column, _ in context.columns.planned().values()]))
        )
        if context.dialect.facts.alters_at_once and not self._starts_over and new - self._added:
            self._added |= new
            self._note()
            context.lease.begin()
            super().begin()

    def _lacking(self, columns: Sequence[Column]) -> set[str]:
        """Return the columns that the table will get; none for a table that does not exist yet."""
        held = self.table
        return set() if held is None else {each.name for each in columns if held.column(each.name) is None}

    def _note(self) -> None:
        """Write into the ledger which columns are added, and commit."""
        context = self.context
        ledger, load, session = context.ledger.table(context.target.name), context.load, context.session
        (row,) = context.ledger.read(session, ledger, load.key)
        row = replace(row, token=load.token, completed_by=None, history=self.kept_history(is_final=False))
        context.ledger.record(session, ledger, row)
        commit(session, context.dialect)

    def kept_history(self, *, is_final: bool) -> Mapping[str, Any]:
        """Keep the known state, and the added columns until the stream is completed."""
        known = {name: value for name, value in self._history.known.items() if name != ADDED}
        return known | ({ADDED: sorted(self._added)} if self._added and not is_final else {})

    def create_staging(self, planned: StagingTable, *, is_shared: bool) -> StagingTable:
        """Create it with numbers: among equal keys and times the last record counts."""
        return create_staging(self.context, planned, is_shared=is_shared)

    def lock(self, *, is_final: bool) -> None:
        """See `Strategy`."""
        context, staged = self.context, self.staged
        self._is_locked, self._marked = False, context.load.marked if is_final else None
        if staged is None and not is_final:
            return
        if staged is not None:
            self._refuse_nulls(staged, context.columns.key())
        is_written = staged is not None or self._marked is not None or self._starts_over
        if is_written or self.table is None or context.target.lacks(self.table, self.target_columns()):
            self.table, self._is_locked = context.target.lock(self.table), True

    def write(self) -> None:
        """Create the target or add what it lacks, then add the staged records as new versions."""
        context, staged, target, table = self.context, self.staged, self.context.target, self.table
        if not self._is_locked:
            return
        key, columns = context.columns.key(), self.target_columns()
        if table is not None and self._starts_over:
            table = self._emptied(table, columns, key)
        elif table is not None:
            self._added |= self._lacking(columns)
        is_empty, self._starts_over = table is None, False
        table = self.table = target.create(columns, key) if table is None else target.evolve(table, columns)
        if staged is None:
            return
        versions = self._versions(table, staged, key)
        writes = HistoryStatements(context.dialect, table, staged, versions)
        target.execute(
            [*writes.prepared(is_of_records=self._history.has_versions), *self._first(staged, is_made=False)]
        )
        self.remove()  # the versions that arrive begin later
        target.lock_late()
        own = [column.name for column in versions.key]
        context.dialect.writes.refuse_equal_keys(context.session, table, staged, own)
        keep_latest(context, table, staged, own, is_new=is_empty, current=versions.valid_to.name)
        if self._history.is_whole:
            self.records -= self._reject_unlike(staged, versions)

        def statements(source: StagingTable) -> Sequence[Action]:
            if self._history.has_versions:
                return writes.of_records(source.name)
            # When records are rejected one by one, earlier ones are already in the table.
            is_first = is_empty and context.rejected is None
            return writes.of_first_run(source.name) if is_first else writes.of_run(source.name)

        inserted = insert_staged(context, table, staged, statements, key=key)
        target.execute(inserted.actions)
        self.records -= inserted.rejected

    def remove(self) -> None:
        """End the versions of records that the source no longer has, if `write` has not done so."""
        marked, self._marked = self._marked, None
        if marked is not None and self.table is not None:
            self._end(marked, self.table, self.context.columns.key())

    def _end(self, marked: pa.Table, table: Table, key: Sequence[str]) -> None:
        """End the current versions of records that the source no longer has, and reopen keys that are back."""
        context = self.context
        last = context.columns.names[VALID_TO]
        held = {column.name: column for column in table.columns}
        columns = [held[name] for name in (*key, last)]
        keys = stage_keys(context, marked, columns)
        stem = TableName(keys.name.schema, staging_name(context.load.token))
        endings = Endings(context.dialect, table, columns[:-2], columns[-2], columns[-1], stem)
        context.target.execute(endings.prepared())
        context.target.lock_late()
        context.target.execute([*endings.statements(keys), context.dialect.tables.drop(keys.name)])
        self.removed += marked.num_rows - marked.column(VALID_TO).null_count

    def _refuse_nulls(self, staged: StagingTable, key: Sequence[str]) -> None:
        context = self.context
        context.refuse_null_keys(staged.name, key[:-1])
        if context.session.query(context.dialect.writes.null_key(staged.name, key[-1:])):
            what = f"no time: its bookmark is NULL, and `{VALID_FROM}` is taken from it"
            raise context.error(f"a record has {what}, which a history cannot store")

    def _emptied(self, table: Table, columns: Sequence[Column], key: Sequence[str]) -> Table | None:
        """Empty a history: delete its records, or drop the table if its types or its key must change."""
        context, dialect = self.context, self.context.dialect
        is_alike = not context.target.conflicts(table, columns, key) and set(table.key) in (set(), set(key))
        if is_alike and not (dialect.facts.alters_at_once and context.target.lacks(table, columns)):
            context.target.execute([dialect.writes.empty(table)])
            return table
        if kept := ", ".join(dialect.catalog.dependents(context.session, table)):
            raise context.error(f"{table.name} must be created again, but {kept} would be lost: drop it first")
        context.session.execute(dialect.tables.drop(table.name))
        return None

    def _versions(self, table: Table, staged: StagingTable, key: Sequence[str]) -> HistoryTypes:
        names, load = self.context.columns.names, self.context.load
        into = {column.name: column for column in staged.written_to(table)}
        marks = [names[name] for name in load.stream.read.bookmark_properties if name in names]
        in_place = {names[name] for name in self._history.in_place if name in names} | self._added | {*marks}
        edges = {*key, names[VALID_TO]}
        values = [column for name, column in into.items() if name not in edges]
        kept = {names[name] for name in load.write.kept if name in names}
        return HistoryTypes(
            key=[into[name] for name in key[:-1]],
            valid_from=into[key[-1]],
            valid_to=into[names[VALID_TO]],
            compared=[column for column in values if column.name not in in_place],
            in_place=[column for column in values if column.name in in_place],
            kept=[column for column in values if column.name in kept],
            bookmark=[into[name] for name in self._bookmark() if name in into],
            time=into.get(names.get(self._history.time, "")),
            has_ends=bool(self._history.known.get(ENDS)),
        )

    def _bookmark(self) -> list[str]:
        """Return the columns of the bookmark; none if the database may order them differently than the source."""
        stream, names = self.context.columns.stream, self.context.columns.names
        if self._history.has_versions or any(name not in names for name in stream.read.bookmark_properties):
            return []
        kinds = [stream.schema.field(name).type for name in stream.read.bookmark_properties]
        is_ordered = all(any(is_kind(kind) for is_kind in _ORDERED) for kind in kinds)
        return [names[name] for name in stream.read.bookmark_properties] if is_ordered else []

    @staticmethod
    def _first_name(staged: StagingTable) -> TableName:
        return TableName(staged.name.schema, f"{staged.name.name}{HISTORY_SUFFIX}0")

    def _first(self, staged: StagingTable, *, is_made: bool) -> list[str]:
        """Write CREATE for a table with the first record of each key, before the load or when it is filled.

        Some systems cannot open a temporary table twice in one statement.
        """
        facts, tables = self.context.dialect.facts, self.context.dialect.tables
        if facts.makes_in_transaction != is_made or not self._history.is_whole:
            return []
        own = [*staged.own_columns(), Column(name=SEQUENCE, type=facts.bigint_type)]
        keys = [column for column in own if column.name in self.context.columns.key()[:-1]]
        name = self._first_name(staged)
        return [*filter(None, (tables.create_working(name, own), tables.index_staging(name, keys)))]

    def _reject_unlike(self, staged: StagingTable, versions: HistoryTypes) -> int:
        """Reject records that differ from the first record of their key, when the whole source is read at once.

        Raises:
            FatalConnectorError: such records exist, and the stream rejects no records.
        """
        context, dialect, session = self.context, self.context.dialect, self.context.session
        names = [column.name for column in versions.key]
        if not session.query(dialect.writes.repeated_key(staged.name, names)):
            return 0
        first = self._first_name(staged)
        own, number, place = staged.own_columns(), dialect.naming.quote(SEQUENCE), dialect.naming.quote(RANK)
        source, held = dialect.naming.table(staged.name), {column.name: column for column in own}
        listed = dialect.naming.names([*staged.types])
        of_key = f"partition by {dialect.naming.names(names)}"
        times = dialect.naming.quote("_syncblocks_count")
        windows = f"row_number() over ({of_key} order by {number}) as {place}, count(*) over ({of_key}) as {times}"
        ranked = f"(select {listed}, {number}, {windows} from {source} w)"
        context.target.execute(
            [
                *self._first(staged, is_made=True),
                f"insert into {dialect.naming.table(first)} ({listed}, {number}) "
                f"select {listed}, {number} from {ranked} r where {place} = 1 and {times} > 1",
            ]
        )
        differs = dialect.writes.changed([held[column.name] for column in versions.compared])
        same = dialect.writes.same_key([held[name] for name in names])
        unlike = f"exists (select 1 from {dialect.naming.table(first)} t where {same} and ({differs}))"
        reason = f"another record of this run has the same key ({', '.join(names)}) and other values"
        if context.rejected is not None:
            count = context.rejected.remove(staged, [(unlike, reason)], context.columns.names)
        elif session.query(f"select count(*) from {source} s where {unlike}")[0][0]:
            raise context.error(f"{reason}: a history cannot decide which one is right; choose other key_properties")
        else:
            count = 0
        context.target.execute([dialect.tables.drop(first)])
        return count


__all__ = ["History"]
