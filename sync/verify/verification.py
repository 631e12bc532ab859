"""Whether the destination holds what the source holds: which records and columns count, and what came out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from syncblocks.connectors.abilities import Abilities, abilities_of
from syncblocks.connectors.arrow import compute as pc
from syncblocks.connectors.checksums import (
    Compared,
    Form,
    KeyRange,
    Side,
    compared_columns,
    no_item,
)
from syncblocks.connectors.errors import ConnectorConfigError, ConnectorError, Interrupted
from syncblocks.connectors.incremental.bookmarks import (
    bookmark_values,
    has_bookmark,
    is_number_in_text,
    leaves_out_incomplete,
    unread,
)
from syncblocks.connectors.protocols import Source
from syncblocks.connectors.sides import Key
from syncblocks.connectors.stream import (
    Bookmark,
    ConflictMethod,
    NullBookmarks,
    ReplicationMethod,
    Stream,
    WriteDisposition,
)

from ..plan.plan import Plan, PlannedStream
from ..plan.repair import Repair
from ..session.reader import copy_of, destination_reader
from ..session.session import Session
from .checksums import canonical_keys, opened_checksums, read_within, system_of
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
        columns.notes.append(f"{rejected} rejected record(s) of the source are set aside: not compared")
    found = _judged(planned, left, comparison, columns.notes)
    return _mendable(session, planned, found, reader, reader_can, left, right) if with_repair else found


def _compared(
    session: Session, reader: Source, reader_can: Abilities, left: Side, right: Side
) -> tuple[Comparison, int]:
    """Compare both sides; return also how many rejected records of the source were set aside."""
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
                is_bounded = left.until is not None or leaves_out_incomplete(left.stream, None)
                found = compare(
                    mine,
                    other,
                    left.key,
                    left.columns,
                    is_bounded=is_bounded,
                    unread=_unread_columns(left),
                    interrupt=interrupt,
                )
            except ConnectorError as error:
                reason = error
                raise
            return found, mine.rejected
    except Interrupted:
        # One side has failed, and the other says no more than that it was told to stop.
        if reason is not None:
            raise reason from None
        raise


def _unread_columns(side: Side) -> frozenset[str]:
    """Return the columns without which no record is ever read (`null_bookmarks: never`)."""
    is_never = side.stream.null_bookmarks is NullBookmarks.NEVER
    return frozenset(side.stream.bookmark_properties) if is_never else frozenset()


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
    is_ignored = planned.selected.conflict_method is ConflictMethod.IGNORE
    reason = ""
    if not left.key:
        reason = "records cannot be told apart"
    elif is_ignored and not _has_missing(found.comparison):
        reason = "unique_conflict_method IGNORE changes no record"
    elif not is_ignored and session.destination_can.removes_records is None:
        reason = "the destination cannot remove records"
    if reason:
        return replace(found, notes=(*found.notes, f"not repaired: {reason}; `run --full-refresh` starts over"))
    ranges = tuple(each.keys for each in found.comparison.ranges)
    if is_ignored:
        note = "only what is missing is repaired: unique_conflict_method IGNORE changes no record"
        return replace(found, repair=Repair(side=left, ranges=ranges, removed=None), notes=(*found.notes, note))
    there = [each.keys for each in found.comparison.ranges if each.destination_records]
    removed = _removed(session, planned, reader, reader_can, left, right, there)
    return replace(found, repair=Repair(side=left, ranges=ranges, removed=removed))


def _has_missing(comparison: Comparison) -> bool:
    """Tell whether the source has records that the destination has not."""
    named = any(each.kind == "missing" for each in comparison.records)
    return named or any(each.source_records > each.destination_records for each in comparison.ranges)


def _removed(
    session: Session,
    planned: PlannedStream,
    reader: Source,
    reader_can: Abilities,
    left: Side,
    right: Side,
    ranges: Sequence[KeyRange],
) -> pa.Table:
    """Return the destination's keys in some ranges, named as they arrive, but for those that are to stay.

    What the stream does not read again (see `bookmarks.unread`) does not arrive: what the destination has of it stays,
    as it was read at the time; under `null_bookmarks: never` nothing without a bookmark was.
    """
    names = {column.name: name for column, name in zip(right.key, _arriving_names(planned, left), strict=True)}
    fields, marks = right.stream.schema, right.stream.bookmark_properties
    keys = replace(right.stream, schema=_only(fields, {*names, *marks}))
    schema = pa.schema([fields.field(name).with_name(names[name]) for name in fields.names if name in names])
    unread_keys = _unread_keys(session, left, ranges)
    is_never = left.stream.null_bookmarks is NullBookmarks.NEVER

    def held() -> Iterator[pa.RecordBatch]:
        for event in read_within(reader, reader_can, keys, right, ranges) if ranges else ():
            if isinstance(event, pa.RecordBatch) and event.num_rows:
                if leaves_out_incomplete(left.stream, left.until) and not is_never and marks:
                    event = event.filter(has_bookmark(event, marks))
                yield event

    batches = []
    kept = list(held())
    found = canonical_keys(reader, right, kept) if unread_keys else ([] for _ in kept)
    for batch, texts in zip(kept, found, strict=True):
        if unread_keys:
            is_free = pa.array([key not in unread_keys for key in texts], pa.bool_())
            if is_never and marks:
                is_free = pc.or_(is_free, pc.invert(has_bookmark(batch, marks)))
            batch = batch.filter(is_free)
        batches.append(batch.select([name for name in batch.schema.names if name in names]))
    batches = [batch.rename_columns([names[name] for name in batch.schema.names]) for batch in batches]
    return pa.Table.from_batches(batches, schema=batches[0].schema if batches else schema)


def _unread_keys(session: Session, side: Side, ranges: Sequence[KeyRange]) -> set[Key]:
    """Return the keys of the source's records in some ranges that the stream does not read, as canonical texts."""
    if not ranges or not leaves_out_incomplete(side.stream, side.until):
        return set()
    names = {*(column.name for column in side.key), *side.stream.bookmark_properties}
    keys = replace(side.stream, schema=_only(side.stream.schema, names))
    batches = (
        event.filter(unread(event, side.stream, side.until))
        for event in read_within(session.source, session.source_can, keys, side, ranges)
        if isinstance(event, pa.RecordBatch)
    )
    found = [batch for batch in batches if batch.num_rows]
    return {key for keys in (canonical_keys(session.source, side, found) if found else ()) for key in keys}


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
        found.append(
            f"at least {comparison.changed_since} records have changed in the source since, or have no bookmark and "
            "are not read again: not compared"
        )
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
        # Without a value in it, it still says that the records without one were read.
        until = bookmark if is_incremental and bookmark else None
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
        if names_columns is None:
            chosen: Mapping[str, str] = {name: name for name in arriving}
        else:
            chosen = names_columns.column_names(arriving, self._planned.table)
        held = set(self._copy.schema.names)
        folded = {name.casefold(): name for name in held.difference(chosen.values())}
        names, missing, skipped = {}, [], set[str]()
        remedies = {column.name: column.remedy for column in self._planned.fit.columns}
        for own, name in zip(self._stream.schema.names, arriving, strict=True):
            found = chosen[name] if chosen[name] in held else folded.get(name.casefold())
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
        is_once = self._stream.null_bookmarks is NullBookmarks.ONCE
        stream = replace(
            self._stream, schema=_only(self._stream.schema, own), replication_method=ReplicationMethod.FULL_TABLE
        )
        copy = replace(
            self._copy,
            schema=_only(self._copy.schema, held),
            replication_method=ReplicationMethod.FULL_TABLE,
            bookmark_properties=tuple(self._names[name] for name in marks),
            # What was read once is compared on neither side; what is never read is too much where it is.
            null_bookmarks=NullBookmarks.ONCE if is_once else NullBookmarks.FAIL,
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
            bookmark_values(copy, bookmark)
            return bookmark
        except ConnectorConfigError:  # another type there
            return None


def _only(schema: pa.Schema, names: set[str]) -> pa.Schema:
    return pa.schema([field for field in schema if field.name in names])


def _described(offered: pa.Schema, described: pa.Schema) -> pa.Schema:
    if any((field.metadata or {}).get(b"native_type") for field in offered):
        return offered
    return pa.schema([field for field in described if field.name in offered.names] or list(offered))


__all__ = ["COUNTED", "DIFFERS", "EQUAL", "FAILED", "StreamVerification", "verify_streams"]
