"""The memory pair with every optional capability, as plain as can be: the contracts must find no fault with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from syncblocks.connectors.arrow.flatten import flat_schema, leaf_of, path_of
from syncblocks.connectors.arrow.record_size import too_wide
from syncblocks.connectors.compared_values import Checksums, KeyRange, Side
from syncblocks.connectors.duckdb.record_checksums import checksums_of_records
from syncblocks.connectors.errors import ConnectorError, FatalConnectorError, TakenOver
from syncblocks.connectors.filters import matches
from syncblocks.connectors.incremental.bookmarks import query_start
from syncblocks.connectors.memory import MemoryDestination, MemorySource
from syncblocks.connectors.named_parameters import numbered, parameter_names, replaced
from syncblocks.connectors.protocols import Capability
from syncblocks.connectors.ranges import Range, RangeReads, how_many
from syncblocks.connectors.read_spec import Condition
from syncblocks.connectors.stream import (
    VALID_FROM,
    VALID_TO,
    Block,
    Bookmark,
    Commit,
    Event,
    LedgerKey,
    LedgerRow,
    Load,
    Stream,
    TableRecords,
    TableState,
)
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition

Events = Iterator[tuple[str, Any]]

#: Most characters of a stream's name in the ledger of `AbleDestination`.
LONGEST = 500

#: A database that `AbleSource` cannot reach.
NOBODY = "nobody"


@dataclass
class Ranges:
    """Slices of one table, as it was when they were opened."""

    source: AbleSource
    stream: Stream
    table: pa.Table
    count: int

    @property
    def ranges(self) -> Sequence[Range]:
        return [Range(place=place, label=f"part {place}") for place in range(self.count if self.count > 1 else 0)]

    @property
    def moment(self) -> Mapping[str, Any] | None:
        return {"records": self.table.num_rows, "count": self.count}

    def resume(self, moment: Mapping[str, Any], loaded: Mapping[int, int]) -> bool:
        return moment == self.moment

    def read(self, part: Range) -> Generator[Event | Block, None, None]:
        size = -(-self.table.num_rows // self.count)
        yield from self.table.slice(part.place * size, size).combine_chunks().to_batches()


class AbleSource(MemorySource):
    """A source with every capability."""

    capabilities = frozenset({Capability.HAS_ONE_NULL})

    range_bytes = 1 << 12

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        super().__init__(config, folder)
        self.most_bytes: int | None = None
        #: Former name -> present name, of the streams that go on under the former one.
        self.former: dict[str, str] = {}
        self.levels: Callable[[str], int] = lambda _: 0

    def flatten(self, levels: Callable[[str], int]) -> None:
        self.levels = levels

    def discover(self) -> Sequence[Stream]:
        return [
            replace(stream, schema=flat_schema(stream.schema, self.levels(stream.name), stream.name))
            for stream in super().discover()
        ]

    def _flat(self, table: pa.Table, levels: int) -> pa.Table:
        schema = flat_schema(table.schema, levels, "table")
        if schema.equals(table.schema) or not table.num_rows:
            return table if schema.equals(table.schema) else schema.empty_table()
        (batch,) = table.combine_chunks().to_batches()
        return pa.table([leaf_of(batch, path_of(field)) for field in schema], schema=schema)

    def check(self) -> None:
        if self._settings.database == NOBODY:
            raise FatalConnectorError("nobody answers")

    def shortcut(self) -> str:
        return "arrow"

    def prepare(self, wire: str, *, is_whole: bool) -> None:
        """There is nothing to connect to."""

    def limit_memory(self, size_bytes: int, *, is_strict: bool) -> None:
        """There are no buffers."""

    def limit_record(self, size_bytes: int) -> None:
        self.most_bytes = size_bytes

    def list_streams(self) -> Sequence[str]:
        return [stream.name for stream in self._named()]

    def open_streams(self, names: Collection[str]) -> Sequence[Stream]:
        return [stream for stream in self._named() if stream.name in names]

    def _named(self) -> Sequence[Stream]:
        shown = {present: former for former, present in self.former.items()}
        return [replace(stream, name=shown.get(stream.name, stream.name)) for stream in self.discover()]

    def former_names(self) -> Mapping[str, str]:
        return {stream.name: f"former_{stream.name}" for stream in self.discover() if "." in stream.name}

    def keep_former_names(self, names: Collection[str]) -> None:
        self.former = {self.former_names()[name]: name for name in names}

    def as_known(self, stream: Stream, bookmark: Bookmark | None) -> Stream:
        return stream

    def nanoseconds(self, stream: Stream, columns: Sequence[str]) -> frozenset[str]:
        table = self._table(stream)
        found = {name: table.column(name).cast(pa.int64()).to_pylist() for name in columns}
        return frozenset(
            name for name, values in found.items() if any(each is not None and each % 1000 for each in values)
        )

    def skips_late(self, stream: Stream) -> str:
        return ""

    def query_stream(
        self, name: str, query: str, values: Mapping[str, Any] | None = None, start: str | float | None = None
    ) -> Stream:
        texts = {each: f"'{value}'" for each, value in (values or {}).items()}
        table = self._queried(replaced(query, {"bookmark": "null", **texts}))
        if len({each.casefold() for each in table.schema.names}) < len(table.schema):
            raise FatalConnectorError("two columns have one name", stream=name)
        is_bounded = "bookmark" in parameter_names(query)
        return Stream(name=name, schema=table.schema, query=replaced(query, texts), is_query_bounded=is_bounded)

    def may_write(self) -> str:
        return ""

    def _bounded(self, stream: Stream, bookmark: Bookmark | None) -> Stream:
        start = query_start(stream, bookmark) if stream.is_query_bounded else None
        return replace(stream, query=replaced(stream.query, {} if start is None else {"bookmark": str(start)}))

    def _table(self, stream: Stream) -> pa.Table:
        known = replace(stream, name=self.former.get(stream.name, stream.name))
        whole = replace(known, schema=pa.schema([]))
        table = self._queried(self._bounded(stream, None).query) if stream.query else super()._table(whole)
        table = self._flat(table, self.levels(known.name))
        if not stream.read.where:
            return table
        kept = [batch.filter(matches(batch, stream.read.where)) for batch in table.to_batches()]
        return pa.Table.from_batches(kept, schema=table.schema)

    def filters(self, stream: Stream, condition: Condition) -> bool:
        return True

    def _queried(self, query: str) -> pa.Table:
        """Run it over copies of the tables."""
        with duckdb.connect() as connection, self._database.lock:
            for name, table in self._database.tables.items():
                connection.register(name, table)
            try:
                if [each.type for each in connection.extract_statements(query)] != [duckdb.StatementType.SELECT]:
                    raise FatalConnectorError("it is not one SELECT")
                found: pa.Table = connection.sql(query).to_arrow_table()
            except duckdb.Error as error:
                raise FatalConnectorError(str(error)) from error
        return found.cast(pa.schema([field.with_nullable(True) for field in found.schema]))

    def plan_ranges(self, stream: Stream, readers: int) -> tuple[int | None, str]:
        count = how_many(self._table(stream).nbytes, readers, self.range_bytes)
        return count, "by their place in the table" if count > 1 else "the table is small"

    @contextmanager
    def open_ranges(self, stream: Stream, readers: int, wire: str) -> Iterator[Any]:
        yield Ranges(self, stream, self._table(stream), self.plan_ranges(stream, readers)[0] or 1)

    def checksum_system(self) -> str:
        return "duckdb"

    def checksums(self, side: Side) -> AbstractContextManager[Checksums]:
        return checksums_of_records(self, side)

    def narrowed(self, stream: Stream, side: Side, ranges: Sequence[KeyRange]) -> Stream:
        return replace(stream, locator={"ranges": [tuple(ranges), side.key[0].name]})

    def keeps_json(self) -> bool:
        return False

    def array_item(self, field: pa.Field) -> pa.Field | None:
        return None

    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str = "arrow"
    ) -> Iterator[tuple[str, Event | Block]]:
        within = {stream.name: stream.locator.get("ranges") for stream in group}
        bounded = [self._bounded(stream, bookmarks.get(stream.name)) for stream in group]
        for name, event in super().read(bounded, bookmarks, wire):
            if isinstance(event, pa.RecordBatch):
                for place in range(event.num_rows if self.most_bytes else 0):
                    if _bytes(event, place) > (self.most_bytes or 0):
                        raise too_wide(f"{name}: record {place}", self.most_bytes or 0)
                found = within[name]
                if found is not None:
                    keys = event.column(found[1]).to_pylist()
                    event = event.filter(pa.array([any(_is_in(key, each) for each in found[0]) for key in keys]))
            yield name, event


def _bytes(batch: pa.RecordBatch, place: int) -> int:
    return sum(len(str(value)) for value in batch.slice(place, 1).to_pylist()[0].values())


def _is_in(key: int, part: KeyRange) -> bool:
    start, end = part.start, part.end
    return (start is None or key >= int(start[0] or 0)) and (end is None or key < int(end[0] or 0))


def versions(load: Load, rows: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Bring new versions among the rows of a history, the oldest first."""
    assert load.history is not None
    keys, in_place = load.stream.key_properties[:-1], load.history.in_place
    for record in sorted(new, key=lambda record: record[VALID_FROM]):  # is stable
        own = [row for row in rows if all(row[key] == record[key] for key in keys)]
        current = next((row for row in own if row[VALID_TO] is None), None)
        if own and current is None:
            record[VALID_FROM] = begun = max(record[VALID_FROM], *(row[VALID_TO] for row in own))
            for row in own:
                row[VALID_TO] = None if row[VALID_FROM] == row[VALID_TO] == begun else row[VALID_TO]
        values = {name: value for name, value in record.items() if name not in (VALID_FROM, VALID_TO)}
        at_once = next((row for row in own if row[VALID_FROM] == record[VALID_FROM]), None)
        is_newer = current is not None and current[VALID_FROM] < record[VALID_FROM]
        if at_once is None and is_newer and current is not None:
            is_equal = all(current[name] == value for name, value in values.items() if name not in in_place)
            at_once = current if is_equal else None
        if at_once is not None:
            at_once.update(values)
            continue
        rows.append(dict(record))
        own = sorted([*own, rows[-1]], key=lambda row: row[VALID_FROM])
        for row, following in zip(own, [*own[1:], {VALID_FROM: None}], strict=True):
            ends = [each for each in (row[VALID_TO], following[VALID_FROM]) if each is not None]
            row[VALID_TO] = min(ends, default=None)
    return rows


def ended(load: Load, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """End the versions of keys that are gone, and begin those of keys that are back."""
    for mark in [] if load.marked is None else load.marked.to_pylist():
        own = [row for row in rows if all(row[key] == mark[key] for key in load.stream.key_properties[:-1])]
        current = next((row for row in own if row[VALID_TO] is None), None)
        if mark[VALID_TO] is not None and current is not None:
            current[VALID_TO] = max(mark[VALID_TO], current[VALID_FROM])
        elif mark[VALID_TO] is None and own and current is None:
            last = max(own, key=lambda row: row[VALID_FROM])
            begun = max(last[VALID_TO], mark[VALID_FROM] or last[VALID_TO])
            if begun == last[VALID_FROM]:
                last[VALID_TO] = None
            else:
                rows.append({**last, VALID_FROM: begun, VALID_TO: None})
    return rows


class AbleDestination(MemoryDestination):
    """A destination with every capability."""

    capabilities = MemoryDestination.capabilities | {Capability.KEEPS_HISTORY}

    def shortcut(self) -> str:
        return "arrow"

    def prepare(self, wire: str, *, is_whole: bool) -> None:
        """There is nothing to connect to."""

    def limit_memory(self, size_bytes: int, *, is_strict: bool) -> None:
        """There are no buffers."""

    def one_name(self, destination_table: str) -> str:
        return destination_table

    def column_names(self, names: Sequence[str], table: TableState) -> Mapping[str, str]:
        return {name: name for name in names}

    def limits(self, destination_table: str, columns: Sequence[str]) -> Mapping[str, tuple[Any, Any]]:
        table = self._database.tables[destination_table]
        values = {name: [each for each in table.column(name).to_pylist() if each is not None] for name in columns}
        return {name: (min(each), max(each)) for name, each in values.items() if each}

    def refusal(self, key: LedgerKey) -> str:
        return "" if len(key.stream) <= LONGEST else f"the stream's name has more than {LONGEST} characters"

    def take_over(self, key: LedgerKey, *, token: str, owner: str, source: str | None = None) -> LedgerRow:
        if len(key.stream) > LONGEST:
            raise FatalConnectorError(f"the stream's name has more than {LONGEST} characters")
        return super().take_over(key, token=token, owner=owner, source=source)

    def load(self, load: Load, events: Iterator[Event | Block], wire: str = "arrow") -> Iterator[Commit]:
        if load.history is None:
            yield from super().load(load, events, wire)
            return
        name = load.key.destination_table
        held = self._database.tables.get(name)
        plain = replace(load, write=replace(load.write, disposition=WriteDisposition.APPEND), marked=None)
        for commit in super().load(plain, events, wire):
            written = self._database.tables[name]
            before = 0 if held is None else held.num_rows
            rows = versions(load, written.slice(0, before).to_pylist(), written.slice(before).to_pylist())
            rows = ended(load, rows) if commit.checkpoint.is_final else rows
            held = self._database.tables[name] = pa.Table.from_pylist(rows, schema=written.schema)
            row = self._database.ledger[load.key]
            self._database.ledger[load.key] = replace(row, history=load.history.known)
            gone = 0 if load.marked is None else load.marked.num_rows - load.marked.column(VALID_TO).null_count
            yield replace(commit, removed=gone)

    def load_ranges(self, load: Load, reads: RangeReads, loaders: int, wire: str) -> Iterator[Commit]:
        def events() -> Iterator[Event | Block]:
            for part in reads.ranges:
                yield from self.range_batches(reads, part)
            yield reads.final()

        row = self._database.ledger.get(load.key)
        if row is None or row.token != load.token:
            raise TakenOver("another run has the ledger row")
        yield from self.load(load, events(), wire)

    def range_batches(self, reads: RangeReads, part: Range) -> list[Event | Block]:
        """Read one range whole, again where that is allowed."""
        while True:
            try:
                return list(reads.read(part))
            except ConnectorError as error:
                if not reads.may_repeat(part, error):
                    reads.give_up()
                    raise

    def drop_ranges(self, pipeline: str, is_wanted: Callable[[LedgerKey], bool]) -> None:
        """Loads leave nothing to be resumed."""

    def examine(self, table: str, key: Sequence[str], bookmark: Sequence[str]) -> TableRecords:
        found = self._database.tables[table]
        known = [tuple(row[name] for name in bookmark) for row in found.to_pylist()] if bookmark else []
        keys = Counter(tuple(row[name] for name in key) for row in found.to_pylist()) if key else Counter[Any]()
        return TableRecords(
            newest=max((each for each in known if None not in each), default=None),
            has_index=False,
            ambiguous=next((each for each, number in keys.items() if number > 1 or None in each), None),
            statement="nothing makes an index of a table in memory",
        )

    def execute(self, statement: str, parameters: Mapping[str, Any], *, name: str = "") -> int:
        sql, values = numbered(statement, parameters)
        return self.run_sql(sql, values)

    def execute_fenced(self, key: LedgerKey, token: str, statement: str, parameters: Mapping[str, Any]) -> int:
        (row,) = [row for row in self.describe([key.destination_table])[key.destination_table].ledger if row.key == key]
        if row.token != token:
            raise TakenOver("another run has taken over", stream=key.stream)
        return self.execute(statement, parameters)

    def run_sql(self, sql: str, values: Sequence[Any]) -> int:
        """Run a statement over copies of the tables, and keep them as it leaves them."""
        with duckdb.connect() as connection, self._database.lock:
            for name, table in self._database.tables.items():
                connection.register("copy", table)
                connection.execute(f'create table "{name}" as select * from copy')
                connection.unregister("copy")
            try:
                changed = connection.execute(sql, values).fetchall()[0][0]
            except duckdb.Error as error:
                raise FatalConnectorError(str(error)) from error
            for name in self._database.tables:
                schema = self._database.tables[name].schema
                self._database.tables[name] = connection.table(f'"{name}"').to_arrow_table().cast(schema)
        return int(changed)
