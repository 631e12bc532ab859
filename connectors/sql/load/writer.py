"""One load: segment by segment into a table, each with its ledger row in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

import pyarrow as pa

from ...arrow.casts import cast_batch, refuse_infinite, refuse_nanoseconds
from ...errors import ConnectorError, FatalConnectorError, TakenOver
from ...failpoints import failpoint
from ...stream import Block, Checkpoint, Commit, Load, Rejected, Stream, WriteDisposition
from ..dialect.dialect import Dialect
from ..identifiers import TableName
from ..ledger import Ledger, commit
from ..session import COLUMN_TYPE, Lease, Session
from ..tables import Table
from .admission import Admission
from .dispositions import Disposition
from .layout import Layout
from .rejected import SqlRejections
from .segments import Segments
from .staging import Staged, Staging
from .target import Target


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
        self._is_replace = load.write_disposition is WriteDisposition.REPLACE
        self._is_merge = load.write_disposition is WriteDisposition.MERGE
        self._table: Table | None = None
        #: Columns of a table that is written where it stands in which NULL would become another value.
        self._filled: frozenset[str] = frozenset()
        self._is_refilled = False
        self._written = 0
        self._records = 0
        limit = load.stream.max_rejected
        self._rejections = None if limit is None else SqlRejections(dialect, load, target, lease, limit)
        self._admission = Admission(dialect, load, self._target, lease, self._rejections)
        self._layout = Layout(dialect, load, wire)
        self._staging = Staging(dialect, load, self._target, lease, self._layout)
        self._disposition = Disposition(
            dialect, load, self._target, lease, self._layout, self._staging, self._admission
        )

    @property
    def _session(self) -> Session:
        return self._lease.session

    def run(self, segments: Segments) -> Iterator[Commit]:
        """Write every segment that ends in a checkpoint; the last one may lack it and is then dropped."""
        if self._rejections is not None:
            self._rejections.create_table()
        while segments.peek() is not None:
            done = self._segment(segments)
            if done is None:
                return
            yield done
            if done.checkpoint.is_final:
                return

    # ----------------------------------------------------------------- ranges
    def planned(self) -> Staged:
        """Say what `stage` would make, by the target as it is within the lease's transaction."""
        self._look()
        return self._staging.planned()

    def stage(self) -> Staged:
        """Make the staging table within the lease's transaction, for other connections too."""
        self._look()
        return self._staging.stage(self._table, is_shared=True)

    def fill(self, staged: Staged, segments: Segments) -> int:
        """Put data into staging within the lease's transaction; return the records."""
        self._records = 0
        # The names that staging got when the target was looked at.
        self._layout.follow(self._layout.stream, Table(name=staged.name, columns=tuple(staged.columns.values())))
        self._ingest(segments, staged.name, staged.types)
        return self._records

    def finish(self, staged: Staged, checkpoint: Checkpoint, *, records: int, size_bytes: int) -> Commit:
        """Replace the target by what others have staged, or merge it, within the lease's transaction; and commit."""
        self._look()
        self._staging.staged, self._records = staged, records
        return self._finish(checkpoint, size_bytes)

    def refuse_altered(self, table: TableName, types: Mapping[str, str]) -> None:
        """Keep a table's types as they are until the end of the transaction; raise if they are others."""
        if not self._dialect.catalog.keeps_types(self._session, table, types):
            raise FatalConnectorError(
                f"{table} was altered while it was loaded: its columns are no longer of the types that its records "
                "are written for; run again",
                stream=self._layout.stream.name,
            )

    # --------------------------------------------------------------- segments
    def _segment(self, segments: Segments) -> Commit | None:
        self._lease.begin()
        self._staging.staged, self._records = None, 0
        self._is_refilled = False
        self._disposition.forget()
        self._target.forget_changes()
        if self._rejections is not None:
            self._rejections.begin()
        self._look()
        if self._is_replace:
            self._disposition.check_key(self._table)
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
                assert self._rejections is not None, "only a stream with `max_rejected` sends them"
                self._rejections.add(marker.records)
            elif isinstance(marker, Stream):
                self._layout.follow(marker, self._table)
            elif marker.is_final or not self._is_replace:
                return self._finish(marker, segments.size_bytes)

    def _look(self) -> None:
        self._table = self._target.reflect() if self._dialect.facts.keeps_spelling or not self._is_replace else None
        self._layout.follow(self._layout.stream, self._table)
        table = self._table if not self._is_replace or (self._table and self._table.has_dependents) else None
        self._filled = frozenset(column.name for column in (table.columns if table else ()) if column.fills_nulls)

    def _take(self, segments: Segments) -> None:
        """Put the data up to the next marker into the target itself, or into staging."""
        if not self._is_replace and not self._is_merge and self._staging.staged is None and self._fits_directly():
            assert self._table is not None
            types = {column.name: column.type for column in self._table.columns}
            self._ingest(segments, self._table.name, types)
            return
        if self._is_replace and self._staging.staged is None and self._refill(segments):
            return
        staged = self._staging.stage(self._table)
        self._ingest(segments, staged.name, staged.types)

    def _refill(self, segments: Segments) -> bool:
        """Write a small replacement into the small table that is there; False: it takes another table.

        Of a database with hundreds of small tables, making and dropping them is most of the work, and its catalog
        grows by it. And readers need not wait.
        """
        most_bytes = self._dialect.facts.refill_bytes
        if not most_bytes or self._rejections is not None or not (rest := segments.rest(most_bytes)):
            return False
        table = self._disposition.refillable()
        if table is None:
            return False
        types = {column.name: column.type for column in table.columns}
        try:
            self._target.run(
                [self._dialect.tables.lock(table.name), f"delete from {self._dialect.naming.table(table.name)}"]
            )
            self.refuse_altered(table.name, types)
            self._ingest(segments, table.name, types)
        except FatalConnectorError:  # such as two records of one key: what takes the table's place says it
            self._session.rollback()
            self._lease.begin()
            self._disposition.forget()
            self._records = 0
            segments.restart(rest)
            return False
        self._is_refilled = True
        return True

    def _fits_directly(self) -> bool:
        """Tell whether the target takes the data as it comes; then keeps it from being altered."""
        if not self._dialect.facts.appends_directly or self._table is None or not self._matches(self._table):
            return False
        if self._dialect.catalog.lock_shape(self._session, self._target.name):
            self._table = self._target.reflect()
        return self._table is not None and self._matches(self._table)

    def _matches(self, table: Table) -> bool:
        for field in self._layout.stream.schema:
            column = table.column(self._layout.names[field.name])
            if column is None or column.is_generated:
                return False
            wanted = self._dialect.types.column_type(field)
            if self._wire != "arrow":
                if column.type != wanted:
                    return False
                continue
            # Held values fit as they are, and travel in the column's own type.
            if self._dialect.types.widen(column.type, wanted) != column.type:
                return False
            if self._dialect.types.wire(column.type, field.type).type != column.type:
                return False
        return True

    def _ingest(self, segments: Segments, table: TableName, types: Mapping[str, str]) -> None:
        names = [self._layout.names[field.name] for field in self._layout.stream.schema]
        kinds = [
            self._layout.wire_of(types[name], field).arrow
            for name, field in zip(names, self._layout.stream.schema, strict=True)
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
            if self._rejections is not None:
                self._records += self._rejections.put(table, schema, data)
                return
            count = self._session.ingest(table, schema, data, self._wire)
        except ConnectorError as error:
            if segments.error is not None:
                raise segments.error from None
            self._lease.check()
            self._target.blame(error)
            raise
        sent = segments.records - before if self._wire == "arrow" else count
        if count != sent:
            raise FatalConnectorError(f"{count} of {sent} records arrived in {table}", stream=self._layout.stream.name)
        self._records += count

    def _data(self, segments: Segments, schema: pa.Schema) -> Iterator[pa.RecordBatch | Block]:
        try:
            for item in segments.data():
                self._lease.check()
                if self._wire != "arrow":
                    yield item
                    continue
                if self._admission.ascent is not None:
                    self._admission.ascent.note(item)
                if self._rejections is None:
                    self._refuse_null_key_of(item)
                    batch = self._fitted(item, schema)
                    del item
                    yield batch
                    del batch  # not held while the next one is made
                else:
                    keys = self._load.stream.key_properties if self._is_merge or self._is_replace else ()
                    yield from self._rejections.fitting(item, lambda part: self._fitted(part, schema), keys)
        except BaseException as error:
            segments.error = error
            raise

    def _fitted(self, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
        refuse_infinite(batch, self._layout.stream.name, is_kept=self._dialect.facts.keeps_infinite)
        batch = cast_batch(batch, schema, self._layout.stream.name)
        if not self._dialect.facts.keeps_nanoseconds:
            refuse_nanoseconds(batch, self._layout.stream.name)
        for name in self._filled.intersection(batch.schema.names):
            if batch.column(name).null_count:
                raise FatalConnectorError(
                    f"column {name!r} of {self._target.name} refuses NULL, but would put a value of its own there, and "
                    "a record has nothing: exclude the column with `columns`, or let it hold NULL",
                    stream=self._layout.stream.name,
                )
        return batch

    def _refuse_null_key_of(self, batch: pa.RecordBatch) -> None:
        """Of a replacement: NOT NULL does not suffice, SQLite would number such records."""
        for name in self._load.stream.key_properties if self._is_replace else ():
            place = batch.schema.get_field_index(name)
            if place >= 0 and batch.column(place).null_count:
                raise FatalConnectorError(
                    f"column {name!r} of the key is NULL in a record", stream=self._layout.stream.name
                )

    # ----------------------------------------------------------------- finish
    def _finish(self, checkpoint: Checkpoint, size_bytes: int) -> Commit:
        self._lease.check()
        staged = self._staging.staged
        self._dialect.writes.begin_commit(self._session, staged.name if staged is not None else None)
        failpoint(f"{self._dialect.name}.commit.before")
        try:
            if self._is_refilled:
                pass  # it is in its place already
            elif self._is_replace:
                self._records -= self._disposition.replace()
            elif staged is not None or checkpoint.is_final:
                self._records -= self._disposition.apply(self._table, is_final=checkpoint.is_final)
            self._written += self._records
            self._ledger.record(
                self._session,
                self._ledger.table(self._target.name),
                self._load.key,
                self._load.token,
                bookmark=checkpoint.bookmark,
                completed_by=self._load.run if checkpoint.is_final else None,
                rows=self._written,
                columns=self._layout.known,
            )
        except TakenOver:
            raise self.taken_over() from None
        rejected = 0 if self._rejections is None else self._rejections.write()
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
        return TakenOver(f"stream {self._layout.stream.name!r} was taken over{by}", stream=self._layout.stream.name)


__all__ = ["Writer"]
