"""A load's rejected records: found during the load, kept in a table beside the ledger, written in its transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count

import pyarrow as pa

from ...arrow import compute as pc
from ...errors import FatalConnectorError
from ...rejected.halving import convert_by_halves, convert_or_reject
from ...rejected.limits import Rejections, may_come_again, too_many
from ...rejected.records import REJECTED_SCHEMA, REJECTED_TABLE, rejection, rejections
from ...stream import Block, Load, RejectedRecord
from ..actions import Statements
from ..dialect.dialect import Dialect
from ..identifiers import TableName
from ..ledger import commit
from ..session import Session, SessionLease
from ..tables import Column, StagingTable
from .insert_by_halves import InsertByHalves, attempt

_COLUMNS = tuple(REJECTED_SCHEMA.names)

#: Records that one query asks for; records that one INSERT writes, and its limit of characters.
_VALUES = 50
_CHARACTERS = 1_000_000


class RejectedRecords:
    """Finds the rejected records of one load and writes them."""

    def __init__(self, dialect: Dialect, load: Load, target: TableName, lease: SessionLease, limit: int) -> None:
        self._dialect = dialect
        self._load = load
        self._lease = lease
        self._limit = limit
        self._table = TableName(target.schema, REJECTED_TABLE)
        self._found = Rejections(limit, load.write.max_rejected_percent)

    @property
    def _session(self) -> Session:
        return self._lease.session

    # ---------------------------------------------------- the table of rejected records
    @property
    def _record_type(self) -> str:
        return self._dialect.types.column_type(pa.field("record", pa.string()))

    def create_table(self) -> None:
        """Create the table in a separate transaction if it is missing."""
        dialect = self._dialect
        self._lease.begin()
        if not dialect.catalog.exists(self._session, self._table):
            dialect.tables.lock_creation(self._session, self._table)
            long = self._record_type
            types = {"record": long, "reason": long, "place": long, "rejected_at": dialect.facts.timestamp_type}
            columns = [
                Column(name=each.name, type=types.get(each.name, dialect.facts.text_type), is_nullable=each.nullable)
                for each in REJECTED_SCHEMA
            ]
            self._session.execute(dialect.tables.create(self._table, columns, if_not_exists=True))
        commit(self._session, dialect)

    def begin(self) -> None:
        """Begin a transaction: forget the uncommitted records of the last one."""
        self._found.forget()

    def add(self, records: Iterable[RejectedRecord]) -> None:
        """Add records that the source rejected."""
        self._found.add(records, is_of_source=True)

    @property
    def found(self) -> Sequence[RejectedRecord]:
        """Rejected records of this transaction so far."""
        return self._found.records

    def judge(self, records: int) -> None:
        """See `Rejections.judge`."""
        self._found.judge(records)

    def take_refused(self) -> tuple[RejectedRecord, ...]:
        """See `Rejections.take_refused`."""
        return self._found.take_refused()

    def write(self) -> int:
        """Write the rejected records of this transaction; return how many."""
        self._found.leave_out(self._known())
        key, now = self._load.key, self._dialect.facts.now
        of_load = (key.pipeline, key.stream, key.destination_table, self._load.run)
        into = f"insert into {self._dialect.naming.table(self._table)} ({self._dialect.naming.names(_COLUMNS)}) values "
        for some in self._written_at_once():
            rows = [(*of_load, each.record, each.reason, each.place) for each in some]
            numbers = count(1)
            marks = (", ".join([*(f"${next(numbers)}" for _ in row), now]) for row in rows)
            self._session.execute(into + ", ".join(f"({each})" for each in marks), tuple(chain(*rows)))
        return self._found.written()

    def _written_at_once(self) -> Iterator[list[RejectedRecord]]:
        """Yield the records of this transaction in portions for one INSERT each."""
        most = _VALUES if self._dialect.facts.inserts_many else 1
        some: list[RejectedRecord] = []
        characters = 0
        for each in self._found.records:
            characters += len(each.record)
            if some and (len(some) == most or characters > _CHARACTERS):
                yield some
                some, characters = [], len(each.record)
            some.append(each)
        if some:
            yield some

    def _known(self) -> set[tuple[str, str]]:
        """Return position and record of rejected records of an earlier load that may come again."""
        records = may_come_again(self._load, self._found.records)
        known = self._select("place", sorted({each.place for each in records if each.place}))
        if "LOB" not in self._record_type.upper():  # some systems cannot compare large objects
            known |= self._select("record", sorted({each.record for each in records if not each.place}))
        return known

    def _select(self, column: str, values: Sequence[str]) -> set[tuple[str, str]]:
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

    # --------------------------------------------------------------- batches that arrive
    def convert(
        self, batch: pa.RecordBatch, converts: Callable[[pa.RecordBatch], pa.RecordBatch], required: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        """Yield a batch in the table's types, and collect the records that do not convert.

        Args:
            batch: records of the stream.
            converts: converts the batch to the table's types, or raises.
            required: columns of the batch that may not be NULL.
        """
        for name in required:
            if batch.column(name).null_count:
                is_null = pc.is_null(batch.column(name))
                found = batch.filter(is_null).slice(0, self._limit + 1)
                self._found.add(rejections(found, f"column {name!r}: NULL in the key"))
                batch = batch.filter(pc.invert(is_null))
        parts, bad = convert_or_reject(batch, converts, self._load.write.max_rejected)
        self._found.add(bad)
        yield from (part for part in parts if part.num_rows)

    def ingest(
        self,
        table: TableName,
        schema: pa.Schema,
        batches: Iterator[pa.RecordBatch | Block],
        names: Mapping[str, str],
    ) -> int:
        """Write converted batches into a table; collect the records that the table rejects, and return the others.

        `names`: column of the stream -> column of the table.
        """
        if not self._dialect.facts.has_savepoints:
            return self._session.ingest(table, schema, batches, "arrow")
        count = 0
        for batch in batches:
            assert isinstance(batch, pa.RecordBatch), "its wire is arrow"
            count += self._ingest(table, schema, batch, names)
        return count

    def _ingest(self, table: TableName, schema: pa.Schema, batch: pa.RecordBatch, names: Mapping[str, str]) -> int:
        """Write one batch; if the database refuses it, find the records at fault."""

        def put(part: pa.RecordBatch) -> int:
            self._lease.check()
            count = 0

            def ingest() -> None:
                nonlocal count
                count = self._session.ingest(table, schema, iter([part]), "arrow")
                if count != part.num_rows:
                    raise FatalConnectorError(f"{count} of {part.num_rows} records arrived in {table}")
                facts = self._dialect.facts
                if facts.check_now and facts.appends_directly:  # staging tables have no constraints
                    self._session.execute(facts.check_now)

            refusal = attempt(self._dialect, self._lease, ingest)
            if refusal is not None:
                raise refusal
            return count

        counts, bad = convert_by_halves(batch, put, self._limit)
        if bad:
            reasons = [reason for _, reason in bad]
            records = batch.take(pa.array([place for place, _ in bad]))
            of_stream = {column: name for name, column in names.items()}
            own_names = [of_stream.get(name, name) for name in records.schema.names]
            records = pa.RecordBatch.from_arrays(records.columns, names=own_names)
            self._found.add(rejections(records, reasons.__getitem__))
        return sum(counts)

    # -------------------------------------------------------------------- staged records
    def insert(
        self,
        staged: StagingTable,
        statements: Statements,
        names: Mapping[str, str],
        *,
        key: Sequence[str],
        is_first: bool,
    ) -> int:
        """Insert one staging table into its target and collect the records the target rejects; return how many.

        Args:
            staged: the staging table.
            statements: return the INSERT of a staging table's records.
            names: column of the stream -> column of the table.
            key: key of a merge; of records with equal keys the last counts.
            is_first: the first one counts, since existing records in the target win.
        """
        insert = InsertByHalves(
            dialect=self._dialect,
            lease=self._lease,
            staged=staged,
            statements=statements,
            limit=self._limit,
            is_first=is_first,
        )
        return self._add(insert.run(key), names)

    def remove(self, staged: StagingTable, unfit: Iterable[tuple[str, str]], names: Mapping[str, str]) -> int:
        """Delete unfit records from a staging table, and reject them; return how many.

        Args:
            staged: the staging table.
            unfit: conditions on the table `s`, with the reason for each.
            names: column of the stream -> column of the table.
        """
        asked, total = list(unfit), 0
        while True:
            # After a rejection, an older record of the key counts; it may be unfit as well.
            found = sum(self._remove(staged, condition, reason, names) for condition, reason in asked)
            total += found
            if not found or len(asked) == 1:
                return total

    def _remove(self, staged: StagingTable, condition: str, reason: str, names: Mapping[str, str]) -> int:
        self._lease.check()
        of_them = f"from {self._dialect.naming.table(staged.name)} as s where {condition}"
        ((number,),) = self._session.query(f"select count(*) {of_them}")
        if number > self._limit:
            raise too_many(self._limit, reason)
        if number:
            shown = ", ".join(self._dialect.writes.shown(name, kind) for name, kind in staged.types.items())
            rows = self._session.query(f"select {shown} {of_them}")
            self._add([(dict(zip(staged.types, values, strict=True)), reason) for values in rows], names)
            self._session.execute(self._dialect.writes.delete_staged(staged.name, condition))
        return int(number)

    def _add(self, rejected: Sequence[tuple[Mapping[str, object], str]], names: Mapping[str, str]) -> int:
        stream_names = {column: name for name, column in names.items()}
        booleans = {each.name for each in self._load.stream.schema if pa.types.is_boolean(each.type)}
        for values, reason in rejected:
            record = {stream_names.get(column, column): value for column, value in values.items()}
            record |= {name: bool(record[name]) for name in booleans & set(record) if record[name] in (0, 1)}
            self._found.add([rejection(record, reason)])
        return len(rejected)


__all__ = ["RejectedRecords"]
