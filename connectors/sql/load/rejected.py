"""A load's rejected records: found while it is written, kept beside the ledger in the data's own transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import pyarrow as pa

from ...arrow import compute as pc
from ...errors import FatalConnectorError
from ...rejected.halving import convert_by_halves as sift
from ...rejected.halving import convert_or_reject as sifted
from ...rejected.limits import Rejections, TooManyRejected, may_come_again, too_many
from ...rejected.records import REJECTED_SCHEMA, REJECTED_TABLE, rejection, rejections
from ...stream import Block, Load, RejectedRecord
from ..dialect.dialect import Dialect
from ..identifiers import TableName
from ..ledger import commit
from ..session import Lease, Session
from ..tables import Column
from .refused import Entrance, Statements, attempt

_COLUMNS = tuple(REJECTED_SCHEMA.names)

#: Places, or records, that one query asks for.
_VALUES = 50


class SqlRejections:
    """Takes the rejected records out of what one load writes."""

    def __init__(self, dialect: Dialect, load: Load, target: TableName, lease: Lease, limit: int) -> None:
        self._dialect = dialect
        self._load = load
        self._lease = lease
        self._limit = limit
        self._table = TableName(target.schema, REJECTED_TABLE)
        self._kept = Rejections(limit)

    @property
    def _session(self) -> Session:
        return self._lease.session

    @property
    def _record_type(self) -> str:
        return self._dialect.types.column_type(pa.field("record", pa.string()))

    def create_table(self) -> None:
        """Create the table in a transaction of its own, if it is missing."""
        dialect = self._dialect
        self._lease.begin()
        if not dialect.catalog.exists(self._session, self._table):
            dialect.tables.lock_creation(self._session, self._table)
            long = self._record_type
            types = {"record": long, "reason": long, "place": long, "rejected_at": dialect.facts.timestamp_type}
            columns = [
                Column(name=field.name, type=types.get(field.name, dialect.facts.text_type), is_nullable=field.nullable)
                for field in REJECTED_SCHEMA
            ]
            self._session.execute(dialect.tables.create(self._table, columns, if_not_exists=True))
        commit(self._session, dialect)

    def begin(self) -> None:
        """Start anew: what the last transaction did not commit is nowhere."""
        self._kept.forget()

    def add(self, records: Iterable[RejectedRecord]) -> None:
        """Take rejected records that somebody else found."""
        self._kept.add(records)

    def write(self) -> int:
        """Write the records of this transaction; return how many."""
        self._kept.leave_out(self._known())
        key, quote = self._load.key, self._dialect.naming.quote
        marks = ", ".join(f"${place}" for place in range(1, len(_COLUMNS)))
        sql = (
            f"insert into {self._dialect.naming.table(self._table)} ({', '.join(map(quote, _COLUMNS))}) "
            f"values ({marks}, {self._dialect.facts.now})"
        )
        of_load = (key.pipeline, key.stream, key.destination_table, self._load.run)
        for each in self._kept.records:
            self._session.execute(sql, (*of_load, each.record, each.reason, each.place))
        return self._kept.written()

    def _known(self) -> set[tuple[str, str]]:
        """Return place and record of what is there already, as far as it may come again."""
        records = may_come_again(self._load, self._kept.records)
        known = self._found("place", sorted({each.place for each in records if each.place}))
        if "LOB" not in self._record_type.upper():  # large objects are not compared by every system
            known |= self._found("record", sorted({each.record for each in records if not each.place}))
        return known

    def _found(self, column: str, values: Sequence[str]) -> set[tuple[str, str]]:
        key, names = self._load.key, self._dialect.naming.names
        whose = (key.pipeline, key.stream, key.destination_table)
        conditions = " and ".join(
            f"{names([name])} = ${number}" for number, name in enumerate(("pipeline", "stream", "destination_table"), 1)
        )
        found: set[tuple[str, str]] = set()
        for start in range(0, len(values), _VALUES):
            some = values[start : start + _VALUES]
            marks = ", ".join(f"${number}" for number in range(4, 4 + len(some)))
            rows = self._session.query(
                f"select {names(['place', 'record'])} from {self._dialect.naming.table(self._table)} "
                f"where {conditions} and {names([column])} in ({marks})",
                (*whose, *some),
            )
            found.update((str(place or ""), str(record)) for place, record in rows)
        return found

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
        self._kept.add(bad)
        yield from (part for part in parts if part.num_rows)

    def put(self, table: TableName, schema: pa.Schema, batches: Iterator[pa.RecordBatch | Block]) -> int:
        """Put fitting batches into a table without those records that it does not take; return how many it took."""
        if not self._dialect.facts.has_savepoints:
            return self._session.ingest(table, schema, batches, "arrow")
        count = 0
        for batch in batches:
            assert isinstance(batch, pa.RecordBatch), "its wire is arrow"
            count += self._put(table, schema, batch)
        return count

    def admit(
        self,
        staging: TableName,
        types: Mapping[str, str],
        names: Mapping[str, str],
        statements: Statements,
        *,
        key: Sequence[str] = (),
        is_numbered: bool = False,
        is_downwards: bool = False,
    ) -> int:
        """Bring staged records into the target, but for those that it refuses; return how many these were.

        Args:
            staging: table that holds them.
            types: its columns.
            names: column of the stream -> column of the table.
            statements: bring the records of a staging table in.
            key: of a merge.
            is_numbered: see `Entrance.admit`.
            is_downwards: see `Entrance.admit`.
        """
        entrance = Entrance(self._dialect, self._lease, staging, types, self._limit)
        refused = entrance.admit(statements, key, is_numbered=is_numbered, is_downwards=is_downwards)
        return self._set_aside(refused, names)

    def reject(
        self,
        staging: TableName,
        types: Mapping[str, str],
        names: Mapping[str, str],
        misfits: Iterable[tuple[str, str]],
    ) -> int:
        """Take staged records out that do not fit; return how many these were.

        Args:
            staging: table that holds them.
            types: its columns.
            names: column of the stream -> column of the table.
            misfits: conditions on the table `s`, and what is wrong with records that meet it.
        """
        asked, total = list(misfits), 0
        while True:
            # What is taken out may bring an older record of its key to count.
            found = sum(self._weeded(staging, types, names, condition, reason) for condition, reason in asked)
            total += found
            if not found or len(asked) == 1:
                return total

    def _weeded(
        self, staging: TableName, types: Mapping[str, str], names: Mapping[str, str], condition: str, reason: str
    ) -> int:
        self._lease.check()
        of_them = f"from {self._dialect.naming.table(staging)} as s where {condition}"
        ((number,),) = self._session.query(f"select count(*) {of_them}")
        if number > self._limit:
            raise TooManyRejected(too_many(self._limit, reason))
        if number:
            shown = ", ".join(self._dialect.writes.shown(name, kind) for name, kind in types.items())
            rows = self._session.query(f"select {shown} {of_them}")
            self._set_aside([(dict(zip(types, values, strict=True)), reason) for values in rows], names)
            self._session.execute(f"delete {of_them}")
        return int(number)

    def _set_aside(self, refused: Sequence[tuple[Mapping[str, object], str]], names: Mapping[str, str]) -> int:
        called = {column: name for name, column in names.items()}
        booleans = {field.name for field in self._load.stream.schema if pa.types.is_boolean(field.type)}
        for values, reason in refused:
            record = {called.get(column, column): value for column, value in values.items()}
            record |= {name: bool(record[name]) for name in booleans & set(record) if record[name] in (0, 1)}
            self._kept.add([rejection(record, reason)])
        return len(refused)

    def _without_null_keys(self, batch: pa.RecordBatch, keys: Sequence[str]) -> pa.RecordBatch:
        nulls = [name for name in keys if batch.column(name).null_count]
        for name in nulls:
            is_null = pc.is_null(batch.column(name))
            found = batch.filter(is_null).slice(0, self._limit + 1)
            self._kept.add(rejections(found, f"column {name!r}: NULL in the key"))
            batch = batch.filter(pc.invert(is_null))
        return batch

    def _put(self, table: TableName, schema: pa.Schema, batch: pa.RecordBatch) -> int:
        """Put one batch in; if the database refuses it, find out which records are at fault."""

        def put(part: pa.RecordBatch) -> int:
            self._lease.check()
            count = 0

            def ingest() -> None:
                nonlocal count
                count = self._session.ingest(table, schema, iter([part]), "arrow")
                if count != part.num_rows:
                    raise FatalConnectorError(f"{count} of {part.num_rows} records arrived in {table}")
                if (
                    self._dialect.facts.check_now and self._dialect.facts.appends_directly
                ):  # staging tables have no constraints
                    self._session.execute(self._dialect.facts.check_now)

            refusal = attempt(self._dialect, self._lease, ingest)
            if refusal is not None:
                raise refusal
            return count

        counts, bad = sift(batch, put, self._limit)
        if bad:
            reasons = [reason for _, reason in bad]
            records = batch.take(pa.array([place for place, _ in bad]))
            self._kept.add(rejections(records, reasons.__getitem__))
        return sum(counts)


__all__ = ["SqlRejections"]
