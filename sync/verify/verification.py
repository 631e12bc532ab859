"""Whether the destination holds what the source holds: which records and columns count, and what came out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from syncblocks.connectors.abilities import Abilities, abilities_of
from syncblocks.connectors.checksums import (
    Compared,
    Form,
    Side,
    compared_columns,
    no_item,
)
from syncblocks.connectors.errors import ConnectorConfigError, ConnectorError, Interrupted
from syncblocks.connectors.incremental.bookmarks import bookmark_values, is_number_in_text
from syncblocks.connectors.protocols import Source
from syncblocks.connectors.stream import Bookmark, ConflictMethod, ReplicationMethod, Stream, WriteDisposition

from ..plan.plan import Plan, PlannedStream
from ..plan.repair import Repair
from ..session.reader import copy_of, destination_reader
from ..session.session import Session
from .checksums import opened_checksums, read_within, system_of
from .comparison import Comparison, compare

#: Verdicts. `counted`: only the numbers of records can be compared, or not even those.
EQUAL, DIFFERS, COUNTED, FAILED = "equal", "differs", "counted", "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamVerification:
    """What was found about one stream."""

    stream: str
    destination_table: str
    verdict: str
    #: Records that count; None: not counted.
    source_records: int | None = None
    destination_records: int | None = None
    #: The key's columns, as the source calls them; empty: records could not be told apart.
    key: tuple[str, ...] = ()
    comparison: Comparison | None = None
    #: What could not be compared, and why.
    notes: tuple[str, ...] = ()
    #: How it is mended; None: nothing to do, or not asked for, or it cannot be.
    repair: Repair | None = None


def verify_streams(session: Session, plan: Plan, *, with_repairs: bool = False) -> Iterator[StreamVerification]:
    """Compare the source and the destination of each planned stream, one after the other; write nothing.

    Args:
        session: the opened pipeline.
        plan: what a run would do.
        with_repairs: also find out how to mend what differs.
    """
    tables = [planned.key.destination_table for planned in plan.streams]
    with ExitStack() as stack:
        try:
            reader = stack.enter_context(destination_reader(session))
            reader_can = abilities_of(reader)
            offered = {stream.name: stream for stream in reader.discover()} if _has_tables(plan) else {}
        except ConnectorConfigError as error:
            for planned in plan.streams:
                yield _uncompared(planned, f"the destination cannot be read back: {error}")
            return
        for planned in plan.streams:
            is_shared = tables.count(planned.key.destination_table) > 1
            try:
                yield _verify(
                    session, planned, reader, reader_can, offered, is_shared=is_shared, with_repair=with_repairs
                )
            except ConnectorError as error:
                yield replace(_uncompared(planned, str(error)), verdict=FAILED)


def _has_tables(plan: Plan) -> bool:
    return any(planned.table.schema is not None for planned in plan.streams)


def _verify(
    session: Session,
    planned: PlannedStream,
    reader: Source,
    reader_can: Abilities,
    offered: Mapping[str, Stream],
    *,
    is_shared: bool,
    with_repair: bool,
) -> StreamVerification:
    source, stream, table = session.source, planned.selected.stream, planned.table
    if not table.is_described:
        return _uncompared(planned, "the destination cannot say what it holds")
    copy = copy_of(table, offered)
    if copy is None:
        found = replace(_uncompared(planned, "there is no destination table"), verdict=DIFFERS)
        return replace(found, source_records=source.count(stream), destination_records=0)
    reason = _why_counted(planned, is_shared=is_shared)
    if reason:
        found = _uncompared(planned, reason)
        return replace(found, source_records=source.count(stream), destination_records=reader.count(copy))
    columns = _Columns(session, planned, copy, (system_of(session.source_can), system_of(reader_can)), reader_can)
    left, right = columns.sides(planned.start.bookmark)
    comparison, rejected = _compared(session, reader, reader_can, left, right)
    if rejected:
        columns.notes.append(f"{rejected} bad record(s) of the source are set aside: not compared")
    found = _judged(planned, left, comparison, columns.notes)
    return _mendable(session, planned, found, reader, reader_can, left, right) if with_repair else found


def _compared(
    session: Session, reader: Source, reader_can: Abilities, left: Side, right: Side
) -> tuple[Comparison, int]:
    """Compare both sides; return also how many bad records of the source were set aside."""
    reason: ConnectorError | None = None

    def interrupt() -> None:
        for side, reader_of in ((left, session.source), (right, reader)):
            reader_of.interrupt(side.stream.name)

    try:
        with (
            opened_checksums(session.source, session.source_can, left) as mine,
            opened_checksums(reader, reader_can, right) as other,
        ):
            try:
                is_bounded = left.until is not None
                found = compare(mine, other, left.key, left.columns, is_bounded=is_bounded, interrupt=interrupt)
            except ConnectorError as error:
                reason = error
                raise
            return found, getattr(mine, "rejected", 0)
    except Interrupted:
        # One side has failed, and the other says no more than that it was told to stop.
        if reason is not None:
            raise reason from None
        raise


def _mendable(
    session: Session,
    planned: PlannedStream,
    found: StreamVerification,
    reader: Source,
    reader_can: Abilities,
    left: Side,
    right: Side,
) -> StreamVerification:
    """Add the repair of what differs, or a note why there is none."""
    if found.verdict != DIFFERS or found.comparison is None:
        return found
    reason = ""
    if not left.key:
        reason = "records cannot be told apart"
    elif planned.selected.conflict_method is ConflictMethod.IGNORE:
        reason = "unique_conflict_method IGNORE changes no record"
    elif session.destination_can.removes_records is None:
        reason = "the destination cannot remove records"
    if reason:
        return replace(found, notes=(*found.notes, f"not repaired: {reason}; `run --full-refresh` starts over"))
    ranges = tuple(each.keys for each in found.comparison.ranges)
    there = [each.keys for each in found.comparison.ranges if each.destination_records]
    names = {column.name: name for column, name in zip(right.key, _arriving_names(planned, left), strict=True)}
    keys = replace(right.stream, schema=pa.schema([right.stream.schema.field(name) for name in names]))
    batches = [
        event.rename_columns([names[name] for name in event.schema.names])
        for event in (read_within(reader, reader_can, keys, right, there) if there else ())
        if isinstance(event, pa.RecordBatch) and event.num_rows
    ]
    schema = pa.schema([field.with_name(names[field.name]) for field in keys.schema])
    removed = pa.Table.from_batches(batches, schema=batches[0].schema if batches else schema)
    return replace(found, repair=Repair(side=left, ranges=ranges, removed=removed))


def _arriving_names(planned: PlannedStream, side: Side) -> list[str]:
    names = dict(zip(planned.selected.stream.schema.names, planned.arriving.schema.names, strict=True))
    return [names[column.name] for column in side.key]


def _why_counted(planned: PlannedStream, *, is_shared: bool) -> str:
    """Say why records cannot be compared; empty: they can."""
    own = (planned.key.pipeline, planned.key.stream)
    others = [row for row in planned.table.ledger if (row.key.pipeline, row.key.stream) != own]
    if is_shared or any(row.committed_at is not None for row in others):
        return "other streams write this table too: records are only counted"
    if not planned.is_schema_decided:
        blocks = ", ".join(planned.transformers)
        return f"a transformer changes the records ({blocks}): they are only counted"
    stream = planned.selected.stream
    if stream.keeps_own_bookmark and stream.replication_method is ReplicationMethod.INCREMENTAL:
        return "the source alone knows up to where it was read: records are only counted"
    return ""


def _judged(planned: PlannedStream, side: Side, comparison: Comparison, notes: Sequence[str]) -> StreamVerification:
    verdict, found = EQUAL if comparison.is_equal else DIFFERS, list(notes)
    source, destination = comparison.source.records, comparison.destination.records
    if verdict == DIFFERS and planned.write_disposition is WriteDisposition.APPEND and destination >= source:
        verdict = COUNTED
        found.append(_appended(comparison))
    elif verdict == DIFFERS and not side.key:
        found.append("there is no key that both sides order alike: only all records together were compared")
    if comparison.changed_since:
        found.append(f"at least {comparison.changed_since} records have changed in the source since: not compared")
    return StreamVerification(
        stream=planned.name,
        destination_table=planned.key.destination_table,
        verdict=verdict,
        source_records=source,
        destination_records=destination,
        key=tuple(column.name for column in side.key),
        comparison=comparison,
        notes=tuple(found),
    )


def _appended(comparison: Comparison) -> str:
    """Say how a table that was appended to and its source go together: whole loads of the same records add up."""
    times, rest = divmod(comparison.destination.records, comparison.source.records or 1)
    if times > 1 and not rest and comparison.destination.checksum == times * comparison.source.checksum:
        return f"append: the destination holds every record {times} times, and nothing else"
    return "append: the destination may hold a record several times, and in older versions"


def _uncompared(planned: PlannedStream, note: str) -> StreamVerification:
    return StreamVerification(
        stream=planned.name, destination_table=planned.key.destination_table, verdict=COUNTED, notes=(note,)
    )


class _Columns:
    """Which columns of a stream and of its copy belong together, and how each is compared."""

    def __init__(
        self, session: Session, planned: PlannedStream, copy: Stream, systems: tuple[str, str], reader_can: Abilities
    ) -> None:
        self.notes: list[str] = []
        #: Columns whose values went over as texts.
        self._texts = set[str]()
        self._planned = planned
        self._systems = systems
        computes = session.source_can.computes_checksums, reader_can.computes_checksums
        self._keeps_json = (
            computes[0] is not None and computes[0].keeps_json(),
            computes[1] is not None and computes[1].keeps_json(),
        )
        self._array_items = (
            no_item if computes[0] is None else computes[0].array_item,
            no_item if computes[1] is None else computes[1].array_item,
        )
        self._has_one_null = reader_can.has_one_null is not None and reader_can.has_one_null.has_one_null()
        self._stream = planned.selected.stream
        # Files know their columns' types from what was written, better than from a look at the text.
        assert planned.table.schema is not None
        self._copy = replace(copy, schema=_described(copy.schema, planned.table.schema))
        self._names = self._matched(session)

    def sides(self, bookmark: Bookmark | None) -> tuple[Side, Side]:
        """Return both sides."""
        planned = self._planned
        is_ignored = planned.selected.conflict_method is ConflictMethod.IGNORE
        is_merged = planned.write_disposition is WriteDisposition.MERGE
        keys = self._keys()
        pairs = self._pairs()
        if is_merged and is_ignored:
            self.notes.append("unique_conflict_method IGNORE keeps older versions: only keys are compared")
            pairs = [pair for pair in pairs if pair[0].name in self._stream.key_properties]
        has_own_hash = self._systems == ("postgres", "postgres") and all(
            column.form is Form.NATIVE for pair in pairs for column in pair
        )
        lefts, rights = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        stream, copy = self._streams(lefts, rights)
        is_incremental = self._stream.replication_method is ReplicationMethod.INCREMENTAL
        until = bookmark if is_incremental and bookmark_values(self._stream, bookmark) is not None else None
        left = Side(
            stream=stream,
            key=tuple(pair[0] for pair in keys),
            columns=tuple(lefts),
            until=until,
            has_own_hash=has_own_hash,
        )
        right = Side(
            stream=copy,
            key=tuple(pair[1] for pair in keys),
            columns=tuple(rights),
            until=self._translated(copy, until),
            has_own_hash=has_own_hash,
        )
        return left, right

    def _matched(self, session: Session) -> dict[str, str]:
        """Map the source's names to those of the table's columns; note what has no counterpart."""
        arriving = self._planned.arriving.schema.names
        names_columns = session.destination_can.names_columns
        chosen = {name: name for name in arriving} if names_columns is None else names_columns.column_names(arriving)
        held = set(self._copy.schema.names)
        folded = {name.casefold(): name for name in held}
        names, missing, skipped = {}, [], set[str]()
        remedies = {column.name: column.remedy for column in self._planned.fit.columns}
        for own, name in zip(self._stream.schema.names, arriving, strict=True):
            found = next((each for each in (name, chosen[name]) if each in held), folded.get(name.casefold()))
            remedy = remedies.get(name)
            if remedy == "text":
                self._texts.add(own)
            if remedy and remedy != "text":
                self.notes.append(f"column {own!r} is not compared: on_lossy ({remedy}) changes its values")
                skipped.add(found or "")
            elif found is None:
                missing.append(own)
            else:
                names[own] = found
        if missing:
            self.notes.append(f"not in the destination: {', '.join(missing)}")
        extra = [name for name in self._copy.schema.names if name not in names.values() and name not in skipped]
        if extra:
            self.notes.append(f"only in the destination: {', '.join(extra)}")
        return names

    def _pairs(self) -> list[tuple[Compared, Compared]]:
        pairs = []
        for own, name in self._names.items():
            pair = self._pair(own, name, is_key=False)
            if isinstance(pair, str):
                self.notes.append(f"column {own!r} is not compared: {pair}")
            else:
                pairs.append(pair)
        return pairs

    def _keys(self) -> list[tuple[Compared, Compared]]:
        """Return the key's columns, or none if one of them cannot be compared."""
        if self._planned.write_disposition is WriteDisposition.APPEND:
            return []
        pairs = []
        for own in self._stream.key_properties:
            pair = self._pair(own, self._names[own], is_key=True) if own in self._names else "it is missing"
            if isinstance(pair, str):
                self.notes.append(f"key column {own!r}: {pair}")
                return []
            pairs.append(pair)
        return pairs

    def _pair(self, own: str, name: str, *, is_key: bool) -> tuple[Compared, Compared] | str:
        fields = self._stream.schema.field(own), self._copy.schema.field(name)
        return compared_columns(
            *fields,
            systems=self._systems,
            is_key=is_key,
            keeps_json=self._keeps_json,
            is_in_lines=self._has_one_null,
            array_items=self._array_items,
            is_text=own in self._texts,
        )

    def _streams(self, lefts: Sequence[Compared], rights: Sequence[Compared]) -> tuple[Stream, Stream]:
        """Return both streams with the columns that are needed, to be read as whole tables."""
        marks = [name for name in self._stream.bookmark_properties if name in self._names]
        own = {*(column.name for column in lefts), *self._stream.key_properties, *self._stream.bookmark_properties}
        held = {self._names[name] for name in own if name in self._names}
        stream = replace(
            self._stream, schema=_only(self._stream.schema, own), replication_method=ReplicationMethod.FULL_TABLE
        )
        copy = replace(
            self._copy,
            schema=_only(self._copy.schema, held),
            replication_method=ReplicationMethod.FULL_TABLE,
            bookmark_properties=tuple(self._names[name] for name in marks),
        )
        return stream, copy

    def _is_ordered_alike(self, own: pa.Field, there: pa.Field) -> bool:
        """Tell whether a bookmark bounds both sides alike: texts go by a collation, or by what they are."""
        if pa.types.is_string(own.type) or pa.types.is_string(there.type):
            # In files a number of many digits is a text like others.
            return is_number_in_text(own) and is_number_in_text(there) and "duckdb" not in self._systems
        return True

    def _translated(self, copy: Stream, until: Bookmark | None) -> dict[str, Any] | None:
        """Return the bookmark under the copy's names; None: it says nothing there, and single records decide."""
        marks = self._stream.bookmark_properties
        if until is None or len(copy.bookmark_properties) < len(marks):
            return None
        if not all(
            self._is_ordered_alike(self._stream.schema.field(m), copy.schema.field(self._names[m])) for m in marks
        ):
            return None
        bookmark = {self._names[name]: until[name] for name in marks}
        try:
            return bookmark if bookmark_values(copy, bookmark) is not None else None
        except ConnectorConfigError:  # another type there
            return None


def _only(schema: pa.Schema, names: set[str]) -> pa.Schema:
    return pa.schema([field for field in schema if field.name in names])


def _described(offered: pa.Schema, described: pa.Schema) -> pa.Schema:
    if any((field.metadata or {}).get(b"native_type") for field in offered):
        return offered
    return pa.schema([field for field in described if field.name in offered.names] or list(offered))


__all__ = ["COUNTED", "DIFFERS", "EQUAL", "FAILED", "StreamVerification", "verify_streams"]
