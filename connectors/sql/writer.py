"""One load: segment by segment into a table, each with its ledger row in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import pyarrow as pa

from ..errors import ConnectorError, FatalConnectorError, TakenOver
from ..failpoints import failpoint
from ..protocols import Block
from ..stream import Checkpoint, Commit, Load, Rejected, Stream, WriteDisposition
from .admission import Admission
from .casts import cast_batch, refuse_nanoseconds
from .dialect import Column, Dialect, Table, Wire
from .identifiers import REMOVED, TableName, staging_name
from .ledger import Ledger, commit
from .refused import Statements
from .rejected import Sieve
from .segments import Segments
from .session import COLUMN_TYPE, Lease, Session
from .target import Target


@dataclass(frozen=True, slots=True)
class Staged:
    """A staging table and what it holds."""

    name: TableName
    #: Column -> type in staging; every column that arrived so far.
    types: Mapping[str, str]
    #: Column -> as the target should have it.
    columns: Mapping[str, Column]


class Writer:
    """Writes one load over one leased connection."""

    def __init__(
        self, dialect: Dialect, load: Load, target: TableName, lease: Lease, wire: str, ledger: Ledger
    ) -> None:
        self._dialect = dialect
        self._load = load
        self._target = Target(dialect, target, lease, load)
        self._lease = lease
        self._wire = wire
        self._ledger = ledger
        self._stream = load.stream
        self._is_replace = load.write_disposition is WriteDisposition.REPLACE
        self._is_merge = load.write_disposition is WriteDisposition.MERGE
        self._names: dict[str, str] = {}
        self._staged: Staged | None = None
        self._table: Table | None = None
        self._written = 0
        self._records = 0
        limit = load.stream.max_rejected
        self._sieve = None if limit is None else Sieve(dialect, load, target, lease, limit)
        self._admission = Admission(dialect, load, self._target, lease, self._sieve)
        self._set_stream(load.stream)

    @property
    def _session(self) -> Session:
        return self._lease.session

    def run(self, segments: Segments) -> Iterator[Commit]:
        """Write every segment that ends in a checkpoint; the last one may lack it and is then dropped."""
        if self._sieve is not None:
            self._sieve.create_table()
        while segments.peek() is not None:
            done = self._segment(segments)
            if done is None:
                return
            yield done
            if done.checkpoint.is_final:
                return

    # ----------------------------------------------------------------- ranges
    def stage(self) -> Staged:
        """Begin a transaction and make the staging table of a replacement in it."""
        self._lease.begin()
        self._stage()
        assert self._staged is not None
        return self._staged

    def fill(self, staged: Staged, segments: Segments) -> int:
        """Put data into staging within the lease's transaction; return the records."""
        self._records = 0
        self._ingest(segments, staged.name, staged.types)
        return self._records

    def finish(self, staged: Staged, checkpoint: Checkpoint, *, records: int, size_bytes: int) -> Commit:
        """Replace the target by what others have staged, within the lease's transaction, and commit."""
        self._staged, self._records = staged, records
        return self._finish(checkpoint, size_bytes)

    # --------------------------------------------------------------- segments
    def _segment(self, segments: Segments) -> Commit | None:
        self._lease.begin()
        self._staged, self._records = None, 0
        self._target.forget_changes()
        if self._sieve is not None:
            self._sieve.begin()
        self._table = self._target.reflect() if self._dialect.keeps_spelling or not self._is_replace else None
        self._set_stream(self._stream)
        segments.reset()
        while True:
            if segments.has_data():
                self._take(segments)
                continue
            marker = segments.marker()
            if marker is None:
                self._session.rollback()
                return None
            if isinstance(marker, Rejected):
                assert self._sieve is not None, "only a stream with `max_rejected` sends them"
                self._sieve.add(marker.records)
            elif isinstance(marker, Stream):
                self._set_stream(marker)
            elif marker.is_final or not self._is_replace:
                return self._finish(marker, segments.size_bytes)

    def _take(self, segments: Segments) -> None:
        """Put the data up to the next marker into the target itself, or into staging."""
        if not self._is_replace and not self._is_merge and self._staged is None and self._fits_directly():
            assert self._table is not None
            types = {column.name: column.type for column in self._table.columns}
            self._ingest(segments, self._table.name, types)
            return
        self._stage()
        assert self._staged is not None
        self._ingest(segments, self._staged.name, self._staged.types)

    def _fits_directly(self) -> bool:
        """Tell whether the target takes the data as it comes; then keeps it from being altered."""
        if not self._dialect.appends_directly or self._table is None or not self._matches(self._table):
            return False
        if self._dialect.lock_shape(self._session, self._target.name):
            self._table = self._target.reflect()
        return self._table is not None and self._matches(self._table)

    def _matches(self, table: Table) -> bool:
        for field in self._stream.schema:
            column = table.column(self._names[field.name])
            if column is None or column.is_generated:
                return False
            wanted = self._dialect.column_type(field)
            if self._wire != "arrow":
                if column.type != wanted:
                    return False
                continue
            # Held values fit as they are, and travel in the column's own type.
            if self._dialect.widen(column.type, wanted) != column.type:
                return False
            if self._dialect.wire(column.type, field.type).type != column.type:
                return False
        return True

    def _ingest(self, segments: Segments, table: TableName, types: Mapping[str, str]) -> None:
        names = [self._names[field.name] for field in self._stream.schema]
        kinds = [
            self._wire_of(types[name], field).arrow for name, field in zip(names, self._stream.schema, strict=True)
        ]
        schema = pa.schema(
            [
                pa.field(name, kind, metadata={COLUMN_TYPE: types[name].encode()})
                for name, kind in zip(names, kinds, strict=True)
            ]
        )
        self._lease.check()
        before = segments.records
        data = self._data(segments, schema)
        try:
            if self._sieve is not None:
                self._records += self._sieve.put(table, schema, data)
                return
            count = self._session.ingest(table, schema, data, self._wire)
        except ConnectorError:
            if segments.error is not None:
                raise segments.error from None
            self._lease.check()
            raise
        sent = segments.records - before if self._wire == "arrow" else count
        if count != sent:
            raise FatalConnectorError(f"{count} of {sent} records arrived in {table}", stream=self._stream.name)
        self._records += count

    def _wire_of(self, column_type: str, field: pa.Field) -> Wire:
        return self._dialect.wire(column_type, field.type)

    def _data(self, segments: Segments, schema: pa.Schema) -> Iterator[pa.RecordBatch | Block]:
        try:
            for item in segments.data():
                self._lease.check()
                if self._wire != "arrow":
                    yield item
                    continue
                if self._admission.ascent is not None:
                    self._admission.ascent.note(item)
                if self._sieve is None:
                    self._refuse_null_key_of(item)
                    batch = self._fitted(item, schema)
                    del item
                    yield batch
                    del batch  # not held while the next one is made
                else:
                    keys = self._load.stream.key_properties if self._is_merge or self._is_replace else ()
                    yield from self._sieve.fitting(item, lambda part: self._fitted(part, schema), keys)
        except BaseException as error:
            segments.error = error
            raise

    def _fitted(self, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
        batch = cast_batch(batch, schema, self._stream.name)
        if not self._dialect.keeps_nanoseconds:
            refuse_nanoseconds(batch, self._stream.name)
        return batch

    def _set_stream(self, stream: Stream) -> None:
        self._stream = stream
        fold = self._dialect.fold
        held = {} if self._table is None else {fold(column.name): column.name for column in self._table.columns}
        names = self._dialect.column_names(stream.schema.names)
        self._names = {name: held.get(fold(chosen), chosen) for name, chosen in names.items()}

    # ---------------------------------------------------------------- staging
    def _planned(self) -> dict[str, tuple[Column, Wire]]:
        """Say for each column how the target should have it and how it travels there."""
        keys = set(self._load.stream.key_properties)
        planned = {}
        for field in self._stream.schema:
            kind = self._dialect.column_type(field)
            if field.name in keys and (self._is_merge or self._is_replace):
                kind = self._dialect.key_type(kind, len(keys))
            wire = Wire(type=kind, arrow=field.type) if self._wire != "arrow" else self._dialect.wire(kind, field.type)
            column = Column(name=self._names[field.name], type=kind, is_nullable=field.name not in keys)
            planned[column.name] = (column, wire)
        return planned

    def _stage(self) -> None:
        """Create the staging table, or fit it to a schema that changed on the way."""
        dialect, planned = self._dialect, self._planned()
        types = {name: wire.type for name, (_, wire) in planned.items()}
        columns = {name: column for name, (column, _) in planned.items()}
        if self._staged is None:
            as_staged = [Column(name=name, type=types[name]) for name in columns]
            table, sql = self._new_staging(as_staged)
            self._session.execute(sql)
            self._staged = Staged(table, types, columns)
            return
        held_types, held = dict(self._staged.types), dict(self._staged.columns)
        for name, column in columns.items():
            if name not in held:
                self._session.execute(dialect.add_column(self._staged.name, replace(column, type=types[name])))
                held_types[name], held[name] = types[name], column
            elif column.type != held[name].type:
                wider = self._target.widened(held[name].type, column)
                wire = self._wire_of(wider, self._stream.schema.field(list(planned).index(name)))
                if wire.type != held_types[name]:
                    self._session.execute(dialect.alter_type(self._staged.name, name, wire.type))
                held_types[name], held[name] = wire.type, replace(column, type=wider)
        self._staged = Staged(self._staged.name, held_types, held)

    def _new_staging(self, columns: Sequence[Column]) -> tuple[TableName, str]:
        dialect, name = self._dialect, staging_name(self._load.token)
        beside = TableName(self._target.name.schema, name)
        if self._is_replace:
            return beside, dialect.create_replacement(beside, self._required(columns), self._key())
        if self._dialect.adopts_staging and not self._is_merge and self._table is None:
            # It may become the target itself.
            return beside, dialect.create_table(beside, columns)
        table = dialect.staging(self._target.name, name)
        return table, dialect.create_staging(table, columns, numbered=self._is_numbered)

    @property
    def _is_numbered(self) -> bool:
        """Tell whether staged records are numbered: which one counts, or which are bad, is told by that."""
        return self._is_merge or (self._sieve is not None and self._dialect.slices)

    def _required(self, columns: Sequence[Column]) -> list[Column]:
        keys = self._key()
        return [
            replace(column, is_nullable=not column.is_nullable)
            if column.is_nullable == (column.name in keys)
            else column
            for column in columns
        ]

    def _key(self) -> list[str]:
        """Return the key's columns as the table names them; an append makes none."""
        if not (self._is_replace or self._is_merge):
            return []
        missing = [name for name in self._load.stream.key_properties if name not in self._names]
        if missing or (self._is_merge and not self._load.stream.key_properties):
            raise FatalConnectorError(
                f"key_properties {', '.join(missing)}: the stream has no such columns"
                if missing
                else "a merge needs key_properties: name the columns that identify a record, or append",
                stream=self._stream.name,
            )
        return [self._names[name] for name in self._load.stream.key_properties]

    # ----------------------------------------------------------------- finish
    def _finish(self, checkpoint: Checkpoint, size_bytes: int) -> Commit:
        self._lease.check()
        self._dialect.settle(self._session, self._staged.name if self._staged is not None else None)
        failpoint(f"{self._dialect.name}.commit.before")
        if self._is_replace:
            self._replace()
        elif self._staged is not None or checkpoint.is_final:
            self._apply(is_final=checkpoint.is_final)
        self._written += self._records
        try:
            self._ledger.record(
                self._session,
                self._ledger.table(self._target.name),
                self._load.key,
                self._load.token,
                bookmark=checkpoint.bookmark,
                completed_by=self._load.run if checkpoint.is_final else None,
                rows=self._written,
            )
        except TakenOver:
            raise self.taken_over() from None
        rejected = 0 if self._sieve is None else self._sieve.write()
        self._lease.check()
        if self._target.changes and not self._target.is_announced:
            self._load.announce(checkpoint, tuple(self._target.changes))
        commit(self._session, self._dialect)
        return Commit(
            checkpoint=checkpoint,
            records=self._records,
            size_bytes=size_bytes,
            schema_changes=tuple(self._target.changes),
            rejected=rejected,
        )

    def taken_over(self) -> TakenOver:
        """Roll back and say by whom, if the ledger can still be read."""
        self._session.rollback()
        owner = ""
        with suppress(ConnectorError):
            self._session.begin()
            rows = self._ledger.read(self._session, self._ledger.table(self._target.name), self._load.key)
            owner = rows[0].owner if rows else ""
            self._session.rollback()
        by = f" by {owner}" if owner else " by another run, or its ledger row was deleted"
        return TakenOver(f"stream {self._stream.name!r} was taken over{by}", stream=self._stream.name)

    def _target_columns(self) -> list[Column]:
        if self._staged is not None:
            return self._required(list(self._staged.columns.values()))
        return self._required([column for column, _ in self._planned().values()])

    def _apply(self, *, is_final: bool) -> None:
        """APPEND and MERGE: bring the target in shape, then the staged records into it."""
        staged = self._staged
        if staged is not None and self._is_merge:
            self._refuse_null_keys(staged)
        columns = self._target_columns()
        table = self._table
        removed = self._load.removed if is_final and self._is_merge else None
        needs_lock = staged is not None or table is None or removed is not None or self._target.lacks(table, columns)
        if needs_lock:
            table = self._target.lock(table)
            if table is None and staged is not None and self._may_become_target(staged, columns):
                self._target.run(self._dialect.swap(staged.name, None, self._target.name, ()))
                return
            if table is None:
                self._session.execute(self._dialect.create_table(self._target.name, columns, self._key()))
                table = self._target.reflect()
            else:
                table = self._target.evolve(table, columns)
        if removed is not None and table is not None:
            self._remove(removed, table, staged)
        if staged is None or table is None:
            return
        into, key = self._into(table, staged), self._key()

        def statements(source: TableName) -> Sequence[str]:
            if self._is_merge:
                return self._dialect.merge(table, source, into, staged.types, key, self._load.conflict_method)
            return [self._dialect.insert_from(self._target.name, source, into, staged.types)]

        self._bring_in(table, staged, into, statements, key=key)

    def _into(self, table: Table, staged: Staged) -> list[Column]:
        return [column for column in table.columns if column.name in staged.types and not column.is_generated]

    def _bring_in(
        self,
        table: Table,
        staged: Staged,
        into: Sequence[Column],
        statements: Statements,
        *,
        key: Sequence[str],
        before: Sequence[str] = (),
    ) -> None:
        self._records -= self._admission.bring_in(
            table,
            staged.name,
            staged.types,
            self._names,
            into,
            statements,
            key=key,
            is_numbered=self._is_numbered,
            before=before,
        )

    def _remove(self, removed: pa.Table, table: Table, staged: Staged | None) -> None:
        """Delete the records of some keys, but for those that arrive: these are updated."""
        dialect, keys = self._dialect, self._key()
        columns = [column for column in table.columns if column.name in keys]
        fields = {self._names[field.name]: field for field in removed.schema}
        wires = [dialect.wire(column.type, fields[column.name].type) for column in columns]
        types = {column.name: wire.type for column, wire in zip(columns, wires, strict=True)}
        name = TableName(self._target.name.schema, staging_name(self._load.token) + REMOVED)
        name = dialect.staging(self._target.name, name.name)
        as_staged = [replace(column, type=types[column.name], is_nullable=True) for column in columns]
        self._session.execute(dialect.create_staging(name, as_staged, numbered=False))
        schema = pa.schema([pa.field(c.name, wire.arrow) for c, wire in zip(columns, wires, strict=True)])
        ordered = removed.select([fields[column.name].name for column in columns])
        batches = (cast_batch(batch, schema, self._stream.name) for batch in ordered.to_batches())
        self._session.ingest(name, schema, batches, "arrow")
        kept = None if staged is None else (staged.name, staged.types)
        self._target.run(
            [dialect.delete_keys(table, columns, (name, types), keys, kept=kept), dialect.drop_table(name)]
        )

    def _may_become_target(self, staged: Staged, columns: Sequence[Column]) -> bool:
        """Tell whether an append's staging table has all that a new target needs."""
        is_possible = self._dialect.adopts_staging and not self._is_merge
        return is_possible and all(staged.types[column.name] == column.type for column in columns)

    def _refuse_null_key_of(self, batch: pa.RecordBatch) -> None:
        """Of a replacement: NOT NULL does not suffice, SQLite would number such records."""
        for name in self._load.stream.key_properties if self._is_replace else ():
            place = batch.schema.get_field_index(name)
            if place >= 0 and batch.column(place).null_count:
                raise FatalConnectorError(f"column {name!r} of the key is NULL in a record", stream=self._stream.name)

    def _refuse_null_keys(self, staged: Staged) -> None:
        key = self._key()
        if self._session.query(self._dialect.null_key(staged.name, key)):
            raise FatalConnectorError(
                f"a record has NULL in its key ({', '.join(key)}): NULL equals nothing, so a merge would double it; "
                "choose other key_properties, or write_disposition append",
                stream=self._stream.name,
            )

    # ---------------------------------------------------------------- replace
    def _replace(self) -> None:
        """Put the staged records in the place of the target's."""
        dialect = self._dialect
        self._stage_if_missing()
        assert self._staged is not None
        columns = self._target_columns()
        staged = self._converted(self._staged, columns)
        self._dialect.lock_creation(self._session, self._target.name)
        table = self._target.reflect()
        if table is not None and not dialect.renames and self._target.conflicts(table, columns):
            # It cannot be brought into shape, and nothing can take its place.
            self._target.note_replaced(table, columns)
            self._session.execute(dialect.drop_table(table.name))
            table = None
        if table is None and not dialect.renames:
            self._session.execute(dialect.create_table(self._target.name, columns, self._key()))
            table = self._target.reflect()
        if table is not None and (table.has_dependents or not dialect.renames):
            self._refill(table, staged, columns)
            return
        if table is not None:
            self._target.note_replaced(table, columns)
        statements = dialect.swap(staged.name, table, self._target.name, self._key())
        self._records -= self._admission.swap(statements, staged.name, staged.types, self._names, self._key())

    def _stage_if_missing(self) -> None:
        if self._staged is None:
            self._stage()

    def _converted(self, staged: Staged, columns: Sequence[Column]) -> Staged:
        """Return a staging table with the target's own types: another one if some had to travel as text."""
        if all(staged.types[column.name] == column.type for column in columns):
            return staged
        name = TableName(staged.name.schema, f"{staged.name.name}_c")
        self._session.execute(self._dialect.create_replacement(name, columns, self._key()))
        self._session.execute(self._dialect.insert_from(name, staged.name, columns, staged.types))
        self._session.execute(self._dialect.drop_table(staged.name))
        return Staged(name, {column.name: column.type for column in columns}, staged.columns)

    def _refill(self, table: Table, staged: Staged, columns: Sequence[Column]) -> None:
        """Empty and refill a table that others depend on; where foreign keys point at it, update in place."""
        dialect = self._dialect
        table = self._target.evolve(self._target.lock(table) or table, columns)
        into, key = self._into(table, staged), self._key()
        is_unique = frozenset(key) in {frozenset(table.key), *table.unique_keys}
        if not is_unique or (self._sieve is not None and not dialect.has_savepoints):
            self._records -= self._admission.refuse_repeated(staged.name, staged.types, self._names, key)
        is_in_place = table.is_referenced and bool(key)
        before = [
            dialect.replace_in_place(table, staged.name, into, staged.types, key)[0]
            if is_in_place
            else dialect.empty(table)
        ]

        def statements(source: TableName) -> Sequence[str]:
            if is_in_place:
                return dialect.replace_in_place(table, source, into, staged.types, key)[1:]
            return [dialect.insert_from(self._target.name, source, into, staged.types)]

        self._bring_in(table, staged, into, statements, key=key if is_in_place else (), before=before)


__all__ = ["Writer"]
