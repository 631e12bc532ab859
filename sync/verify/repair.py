"""Repair of differences: a run merges the source's records of some ranges and removes all other records there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from syncblocks.connectors.arrow import compute as pc
from syncblocks.connectors.capabilities import Capabilities
from syncblocks.connectors.compared_values import Key
from syncblocks.connectors.incremental.bookmarks import has_bookmark, leaves_out_incomplete, refuse_incomplete, unread
from syncblocks.connectors.protocols import Capability, Source
from syncblocks.connectors.read_spec import NullBookmarks, ReplicationMethod
from syncblocks.connectors.stream import Block, Bookmark, Event, Stream
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import ConflictMethod, WriteDisposition, WriteSpec

from ..plan.features.deletes import PlannedDeletes
from ..plan.plan import Plan, PlannedStream
from ..plan.planned_repair import Repair
from .checksums import SideReader, only_columns

if TYPE_CHECKING:
    from syncblocks.connectors.checksums import KeyRange, Side

    from ..session.session import PipelineSession
    from .comparison import Comparison


class NarrowedSource:
    """A source that reads the records of one repair only."""

    def __init__(self, source: Source, can: Capabilities, repair: Repair) -> None:
        self._source = source
        self._can = can
        self._repair = repair

    def read(
        self, group: Sequence[Stream], _bookmarks: Mapping[str, Bookmark | None], _wire: str = "arrow"
    ) -> Iterator[tuple[str, Event | Block]]:
        """Yield the records of the ranges, whatever the bookmark, without records that the stream never reads."""
        (stream,) = group
        whole = replace(stream, read=replace(stream.read, method=ReplicationMethod.FULL_TABLE))
        side = self._repair.side
        for event in SideReader(self._source, self._can, side).read_within(whole, self._repair.ranges):
            if isinstance(event, pa.RecordBatch):
                refuse_incomplete(event, stream)
                event = event.filter(pc.invert(unread(event, side.stream, side.until)))
            yield stream.name, event


def repairing(plan: Plan, repairs: Mapping[str, Repair]) -> Plan:
    """Return a plan that repairs some streams and does nothing else."""
    streams = [
        replace(
            planned,
            repair=repairs[planned.name],
            write=_write(planned.write),
            wire="arrow",
            texts=replace(planned.texts, changes=()),
        )
        for planned in plan.streams
        if planned.name in repairs
    ]
    return replace(plan, streams=tuple(streams), groups=tuple((planned.name,) for planned in streams))


def _write(planned: WriteSpec) -> WriteSpec:
    """Return a merge that changes records, unless the stream is merged by a method that does not."""
    if planned.disposition is WriteDisposition.MERGE:
        return planned
    return replace(planned, disposition=WriteDisposition.MERGE, conflict_method=ConflictMethod.UPDATE)


def other_remedy(planned: PlannedStream) -> str:
    """Say what mends a stream that no repair does; empty: a repair may."""
    if planned.write.disposition is WriteDisposition.HISTORY:
        return (
            "a history is only written by its runs; `syncblocks state reset` lets the next one read all records again "
            "and compare them"
        )
    if planned.write.changes:
        return f"`syncblocks state reset {planned.name}` lets the next run copy the table anew"
    written = planned.write.written_range
    if written is None:
        return ""
    if written.is_by_files:
        return "`syncblocks state rewind --files` lets the next run read files again, and write their records anew"
    if written.interval is None:
        return (
            f"a run writes the records of each {written.column} that it reads anew, and with an interval a whole range"
        )
    return "a run with the same --interval-start and --interval-end writes the range anew (`replace_range`)"


def plan_repair(
    session: PipelineSession, planned: PlannedStream, found: Comparison, source: SideReader, copy: SideReader
) -> tuple[Repair | None, str]:
    """Return the repair of what differs, and a note; without a repair the note says why."""
    is_merged = planned.write.disposition is WriteDisposition.MERGE
    is_ignored = is_merged and planned.write.conflict_method is ConflictMethod.IGNORE
    if mended := other_remedy(planned):
        return None, f"not repaired: {mended}"
    reason = ""
    if not source.side.key:
        reason = "records cannot be told apart"
    elif is_ignored and not _has_missing(found):
        reason = "unique_conflict_method IGNORE changes no record"
    elif not is_ignored and Capability.REMOVES_RECORDS not in session.destination_can:
        reason = "the destination cannot remove records"
    if reason:
        return None, f"not repaired: {reason}; `run --full-refresh` starts over"
    ranges = tuple(each.keys for each in found.ranges)
    if is_ignored:
        note = "only what is missing is repaired: unique_conflict_method IGNORE changes no record"
        return Repair(side=source.side, ranges=ranges, removed=None), note
    deletes = planned.step(PlannedDeletes)
    if deletes is not None and deletes.setting.is_soft:
        note = "records that the source lacks stay: `run --deletes` marks them"
        return Repair(side=source.side, ranges=ranges, removed=None), note
    there = [each.keys for each in found.ranges if each.destination_records]
    return Repair(side=source.side, ranges=ranges, removed=_removed_keys(planned, source, copy, there)), ""


def _has_missing(comparison: Comparison) -> bool:
    """Tell whether the destination lacks records of the source."""
    named = any(each.kind == "missing" for each in comparison.records)
    return named or any(each.source_records > each.destination_records for each in comparison.ranges)


def _removed_keys(planned: PlannedStream, source: SideReader, copy: SideReader, ranges: Sequence[KeyRange]) -> pa.Table:
    """Return the destination's keys in some ranges, under the names in which records arrive.

    The result leaves out records that the stream does not read again (see `bookmarks.unread`): the destination keeps
    its version of them. Under `null_bookmarks: never`, records without a bookmark were never read and are included.
    """
    left, right = source.side, copy.side
    names = {column.name: name for column, name in zip(right.key, _arriving_names(planned, left), strict=True)}
    fields, marks = right.stream.schema, right.stream.read.bookmark_properties
    keys = replace(right.stream, schema=only_columns(fields, {*names, *marks}))
    schema = pa.schema([fields.field(name).with_name(names[name]) for name in fields.names if name in names])
    unread_keys = _unread_keys(source, ranges)
    is_never = left.stream.read.null_bookmarks is NullBookmarks.NEVER
    kept = []
    for event in copy.read_within(keys, ranges) if ranges else ():
        if isinstance(event, pa.RecordBatch) and event.num_rows:
            if leaves_out_incomplete(left.stream, left.until) and not is_never and marks:
                event = event.filter(has_bookmark(event, marks))
            kept.append(event)
    batches = []
    found = copy.canonical_keys(kept) if unread_keys else ([] for _ in kept)
    for batch, texts in zip(kept, found, strict=True):
        if unread_keys:
            is_removed = pa.array([key not in unread_keys for key in texts], pa.bool_())
            if is_never and marks:
                is_removed = pc.or_(is_removed, pc.invert(has_bookmark(batch, marks)))
            batch = batch.filter(is_removed)
        batch = batch.select([name for name in batch.schema.names if name in names])
        batches.append(batch.rename_columns([names[name] for name in batch.schema.names]))
    return pa.Table.from_batches(batches, schema=batches[0].schema if batches else schema)


def _unread_keys(source: SideReader, ranges: Sequence[KeyRange]) -> set[Key]:
    """Return the keys of the source's records in some ranges that the stream does not read, as canonical texts."""
    side = source.side
    if not ranges or not leaves_out_incomplete(side.stream, side.until):
        return set()
    names = {*(column.name for column in side.key), *side.stream.read.bookmark_properties}
    keys = replace(side.stream, schema=only_columns(side.stream.schema, names))
    batches = (
        event.filter(unread(event, side.stream, side.until))
        for event in source.read_within(keys, ranges)
        if isinstance(event, pa.RecordBatch)
    )
    found = [batch for batch in batches if batch.num_rows]
    return {key for keys in (source.canonical_keys(found) if found else ()) for key in keys}


def _arriving_names(planned: PlannedStream, side: Side) -> list[str]:
    names = dict(zip(planned.stream.schema.names, planned.arriving.schema.names, strict=False))
    return [names[column.name] for column in side.key]
