"""Where a load's bad records go: found while it is put in, written beside the ledger in the data's own transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa

from .. import compute as pc
from ..errors import FatalConnectorError
from ..protocols import Block
from ..quarantine import REJECTED_TABLE, Quarantine, rejections, sift, sifted
from ..stream import Load, RejectedRecord
from .dialect import Column, Dialect
from .identifiers import TableName
from .ledger import commit
from .session import Lease, Session

_COLUMNS = ("pipeline", "stream", "destination_table", "run", "record", "reason", "place", "rejected_at")
_NOT_NULL = frozenset(_COLUMNS) - {"place"}


class Sieve:
    """Takes the bad records out of what one load writes."""

    def __init__(self, dialect: Dialect, load: Load, target: TableName, lease: Lease, limit: int) -> None:
        self._dialect = dialect
        self._load = load
        self._lease = lease
        self._limit = limit
        self._table = TableName(target.schema, REJECTED_TABLE)
        self._quarantine = Quarantine(limit)

    @property
    def _session(self) -> Session:
        return self._lease.session

    def create_table(self) -> None:
        """Create the table in a transaction of its own, if it is missing."""
        dialect = self._dialect
        self._lease.begin()
        if not dialect.exists(self._session, self._table):
            dialect.lock_creation(self._session, self._table)
            long = dialect.column_type(pa.field("record", pa.string()))
            types = {"record": long, "reason": long, "place": long, "rejected_at": dialect.timestamp_type}
            columns = [
                Column(name=name, type=types.get(name, dialect.text_type), is_nullable=name not in _NOT_NULL)
                for name in _COLUMNS
            ]
            self._session.execute(dialect.create_table(self._table, columns, if_not_exists=True))
        commit(self._session, dialect)

    def begin(self) -> None:
        """Start anew: what the last transaction did not commit is nowhere."""
        self._quarantine.forget()

    def add(self, records: Iterable[RejectedRecord]) -> None:
        """Take bad records that somebody else found."""
        self._quarantine.add(records)

    def write(self) -> int:
        """Write the records of this transaction; return how many."""
        key, quote = self._load.key, self._dialect.quote
        marks = ", ".join(f"${place}" for place in range(1, len(_COLUMNS)))
        sql = (
            f"insert into {self._dialect.table(self._table)} ({', '.join(map(quote, _COLUMNS))}) "
            f"values ({marks}, {self._dialect.now})"
        )
        of_load = (key.pipeline, key.stream, key.destination_table, self._load.run)
        for each in self._quarantine.records:
            self._session.execute(sql, (*of_load, each.record, each.reason, each.place))
        return self._quarantine.written()

    def fitting(
        self, batch: pa.RecordBatch, converts: Callable[[pa.RecordBatch], pa.RecordBatch], keys: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        """Yield a batch as the table takes it, without the records that do not fit.

        Args:
            batch: of the stream.
            converts: brings it to the table's types, or raises.
            keys: columns of the batch that may not be NULL.
        """
        parts, bad = sifted(self._without_null_keys(batch, keys), converts, self._load.stream)
        self._quarantine.add(bad)
        yield from (part for part in parts if part.num_rows)

    def put(self, table: TableName, schema: pa.Schema, batches: Iterator[pa.RecordBatch | Block]) -> int:
        """Put fitting batches into a table without those records that it does not take; return how many it took."""
        if not self._dialect.has_savepoints:
            return self._session.ingest(table, schema, batches, "arrow")
        count = 0
        for batch in batches:
            assert isinstance(batch, pa.RecordBatch), "its wire is arrow"
            count += self._put(table, schema, batch)
        return count

    def _without_null_keys(self, batch: pa.RecordBatch, keys: Sequence[str]) -> pa.RecordBatch:
        nulls = [name for name in keys if batch.column(name).null_count]
        for name in nulls:
            is_null = pc.is_null(batch.column(name))
            found = batch.filter(is_null).slice(0, self._limit + 1)
            self._quarantine.add(rejections(found, f"column {name!r}: NULL in the key"))
            batch = batch.filter(pc.invert(is_null))
        return batch

    def _put(self, table: TableName, schema: pa.Schema, batch: pa.RecordBatch) -> int:
        """Put one batch in; if the database refuses it, find out which records are at fault."""

        def put(part: pa.RecordBatch) -> int:
            self._lease.check()
            self._session.execute("savepoint _syncblocks_batch")
            try:
                count = self._session.ingest(table, schema, iter([part]), "arrow")
                if count != part.num_rows:
                    raise FatalConnectorError(f"{count} of {part.num_rows} records arrived in {table}")
            except FatalConnectorError:
                self._lease.check()
                self._session.execute("rollback to savepoint _syncblocks_batch")
                raise
            self._session.execute("release savepoint _syncblocks_batch")
            return count

        counts, bad = sift(batch, put, self._limit)
        if bad:
            reasons = [reason for _, reason in bad]
            records = batch.take(pa.array([place for place, _ in bad]))
            self._quarantine.add(rejections(records, reasons.__getitem__))
        return sum(counts)


__all__ = ["Sieve"]
