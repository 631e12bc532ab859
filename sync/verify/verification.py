"""Verification: compare the records of source and destination, stream by stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from syncblocks.connectors.checksums import Side
from syncblocks.connectors.errors import ConnectorConfigError, ConnectorError, Interrupted
from syncblocks.connectors.incremental.bookmarks import leaves_out_incomplete
from syncblocks.connectors.log_based import LogMoment
from syncblocks.connectors.read_spec import NullBookmarks, ReplicationMethod
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import ConflictMethod, WriteDisposition

from ..flow.memory import side_bytes
from ..plan.features.log_based import is_logged
from ..plan.plan import Plan, PlannedStream
from ..plan.planned_repair import Repair
from ..plan.start import ledger_row
from ..session.destination_reader import DestinationReader, copy_of, destination_reader, live_records, offered_streams
from ..session.session import PipelineSession
from .checked_source import passing
from .checksums import SideReader
from .columns import ColumnPairs
from .comparison import MOST_BYTES, Comparison, compare
from .latest_records import Ages
from .log_moment import at_moment, is_kept_alone, why_elsewhere
from .repair import other_remedy, plan_repair
from .replace_range import within_range

#: Verdicts. `counted`: records were only counted, or not even that.
EQUAL, DIFFERS, COUNTED, FAILED = "equal", "differs", "counted", "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamVerification:
    """The verification of one stream."""

    stream: str
    destination_table: str
    verdict: str
    #: Numbers of compared records; None if not counted.
    source_records: int | None = None
    destination_records: int | None = None
    #: The key's columns, by the source's names; empty if records could not be told apart.
    key: tuple[str, ...] = ()
    comparison: Comparison | None = None
    #: What was not compared, and why.
    notes: tuple[str, ...] = ()
    #: The repair; None if not needed, not asked for or not possible.
    repair: Repair | None = None
    #: What mends differences in place of a repair; empty: a repair may.
    remedy: str = ""


def verify_streams(
    session: PipelineSession,
    plan: Plan,
    *,
    with_repairs: bool = False,
    moment: LogMoment | None = None,
    unheld: str = "",
) -> Iterator[StreamVerification]:
    """Compare source and destination of each planned stream, one after the other; write nothing.

    Args:
        session: the opened pipeline.
        plan: the plan of a run.
        with_repairs: also plan the repair of differences.
        moment: to which merged LOG_BASED streams were read; None: their records are only counted.
        unheld: why no moment could be held for them; empty: none had to be.
    """
    for missing in plan.missing:
        note = f"was synced before and {missing.why}"
        table = missing.destination_table
        yield StreamVerification(stream=missing.stream, destination_table=table, verdict=DIFFERS, notes=(note,))
    tables = [planned.key.destination_table for planned in plan.streams]
    with ExitStack() as stack:
        try:
            reader = stack.enter_context(destination_reader(session))
            offered = offered_streams(reader, [planned.table for planned in plan.streams]) if _has_tables(plan) else {}
        except ConnectorConfigError as error:
            for planned in plan.streams:
                yield _uncompared(planned, f"the destination cannot be read back: {error}")
            return
        for planned in plan.streams:
            if planned.verdict.refusal and not planned.mapping.columns:  # nothing is planned of it
                yield replace(_uncompared(planned, planned.verdict.refusal), verdict=FAILED)
                continue
            if unheld and planned.write.changes:
                yield replace(_uncompared(planned, unheld), verdict=FAILED)
                continue
            is_shared = tables.count(planned.key.destination_table) > 1
            try:
                at = moment if planned.write.changes and planned.start.bookmark else None
                compared = planned if at is None else at_moment(planned, at)
                found = _verify(session, compared, reader, offered, is_shared=is_shared, with_repair=with_repairs)
                yield found if at is None else _judged_at(session, planned, at, found)
            except ConnectorError as error:
                yield replace(_uncompared(planned, str(error)), verdict=FAILED)


def _has_tables(plan: Plan) -> bool:
    return any(planned.table.schema is not None for planned in plan.streams)


def _verify(
    session: PipelineSession,
    planned: PlannedStream,
    reader: DestinationReader,
    offered: Mapping[str, Stream],
    *,
    is_shared: bool,
    with_repair: bool,
) -> StreamVerification:
    session = passing(session, planned)
    source, stream, table, scope = session.source, planned.stream, planned.table, ""
    if not table.is_described:
        return _uncompared(planned, "the destination cannot describe its tables")
    copy = copy_of(table, offered)
    copy = None if copy is None else live_records(copy, planned)
    if copy is not None and planned.write.written_range is not None:
        copy, scope = within_range(planned, copy)
    if copy is None:
        row = ledger_row(table, planned.key)
        why = "no run has written the stream yet" if row is None or row.committed_at is None else "a run has written it"
        found = replace(_uncompared(planned, f"there is no destination table: {why}"), verdict=DIFFERS)
        return replace(found, source_records=source.count(stream), destination_records=0)
    reason = _why_counted(planned, is_shared=is_shared)
    if reason:
        found = _uncompared(planned, reason)
        found = replace(found, notes=(*filter(None, [scope]), *found.notes))
        current = reader.source.count(copy)
        return replace(found, source_records=source.count(stream), destination_records=current)
    columns = ColumnPairs(session.connectors, planned, copy, reader.can)
    columns.notes[:0] = filter(None, [scope])
    left, right = columns.sides(planned.start.bookmark)
    memory_bytes = None if session.pipeline.memory is None else side_bytes(session.pipeline.memory)
    mine = SideReader(source, session.source_can, left, memory_bytes)
    theirs = SideReader(reader.source, reader.can, right, memory_bytes)
    comparison, rejected = _compared(mine, theirs, columns.ages(left))
    is_past_there = comparison.is_past_there
    if is_past_there or (not left.key and planned.triggers and right.until and not comparison.is_equal):
        # The bookmark was changed in the destination: it says nothing of which records were read.
        theirs, former = replace(theirs, side=replace(right, until=None)), comparison.destination.records
        comparison, rejected = _compared(mine, theirs, columns.ages(left))
        is_past_there |= comparison.destination.records > former
    if rejected:
        columns.notes.append(f"{rejected} rejected record(s) of the source: not compared")
    found = replace(_judged(planned, left, comparison, columns.notes), remedy=other_remedy(planned))
    if is_past_there:
        found = _changed_there(planned, found, comparison)
    if not with_repair or found.verdict != DIFFERS or (is_past_there and planned.triggers):
        return found
    repair, note = plan_repair(session, planned, comparison, mine, theirs)
    return replace(found, repair=repair, notes=(*found.notes, *filter(None, [note])))


def _compared(source: SideReader, copy: SideReader, ages: Ages) -> tuple[Comparison, int]:
    """Compare both sides; return also the number of the source's rejected records."""
    reason: ConnectorError | None = None

    def interrupt() -> None:
        for each in (source, copy):
            each.source.interrupt(each.side.stream.name)

    left = source.side
    try:
        with source.checksums() as mine, copy.checksums() as theirs:
            try:
                found = compare(
                    mine,
                    theirs,
                    left.key,
                    left.columns,
                    is_bounded=left.until is not None or leaves_out_incomplete(left.stream, None),
                    unread=_unread_columns(left),
                    ages=ages,
                    most_bytes=source.memory_bytes or MOST_BYTES,
                    interrupt=interrupt,
                )
            except ConnectorError as error:
                reason = error
                raise
            return found, mine.rejected
    except Interrupted:
        # One side failed, and the other one was interrupted.
        if reason is not None:
            raise reason from None
        raise


def _unread_columns(side: Side) -> frozenset[str]:
    """Return the columns without which a record is never read (`null_bookmarks: never`)."""
    is_never = side.stream.read.null_bookmarks is NullBookmarks.NEVER
    return frozenset(side.stream.read.bookmark_properties) if is_never else frozenset()


def _why_counted(planned: PlannedStream, *, is_shared: bool) -> str:
    """Say why records are only counted; empty if they can be compared."""
    own = (planned.key.pipeline, planned.key.stream)
    others = [row for row in planned.table.ledger if (row.key.pipeline, row.key.stream) != own]
    if is_shared or any(row.committed_at is not None for row in others):
        return "other streams write this table too: records are only counted"
    if planned.stream.read.limit is not None:
        return "`limit` leaves out records of the source: records are only counted"
    if planned.write.conflict_method is ConflictMethod.UPDATE_ONLY:
        return "UPDATE_ONLY leaves out records whose key is not in the table: records are only counted"
    if not planned.is_schema_decided:
        blocks = ", ".join(planned.transformers)
        return f"a transformer changes the records ({blocks}): they are only counted"
    if planned.write.deleted_when is not None and planned.write.latest_by:
        return "which record of a key is deleted is known to `latest_by` in the table alone: records are only counted"
    stream = planned.stream
    if is_logged(stream) and planned.write.disposition is WriteDisposition.APPEND:
        return "every change is appended: records are only counted"
    if is_logged(stream):
        return "a table of its log was copied, or will be, and stands at another moment: records are only counted"
    if stream.keeps_own_bookmark and stream.read.method is not ReplicationMethod.FULL_TABLE:
        return "the source alone knows up to where it was read: records are only counted"
    return ""


def _judged(planned: PlannedStream, side: Side, comparison: Comparison, notes: Sequence[str]) -> StreamVerification:
    verdict, found = EQUAL if comparison.is_equal else DIFFERS, list(notes)
    source, destination = comparison.source.records, comparison.destination.records
    if verdict == DIFFERS and planned.write.disposition is WriteDisposition.APPEND and destination >= source:
        verdict = COUNTED
        found.append(_appended(comparison))
    elif verdict == DIFFERS and _may_hold_more(planned, side, comparison):
        verdict = COUNTED
        found.append("replace_range: the destination may hold values that the source no longer has")
    elif verdict == DIFFERS and not side.key:
        found.append("there is no key that both sides order alike: only all records together were compared")
    if comparison.changed_since:
        found.append(
            f"at least {comparison.changed_since} records have changed in the source since, or have no bookmark and "
            "are not read again: not compared"
        )
    if comparison.outdated:
        found.append(
            f"at least {comparison.outdated} records are newer in the destination, by `latest_by`: not compared"
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


def _judged_at(
    session: PipelineSession, planned: PlannedStream, moment: LogMoment, found: StreamVerification
) -> StreamVerification:
    """Judge a LOG_BASED stream that was compared at a moment."""
    if moved := why_elsewhere(session, planned, moment):
        return replace(found, verdict=FAILED, notes=(*found.notes, moved))
    if found.verdict == DIFFERS and found.comparison is not None and is_kept_alone(planned, found.comparison):
        note = "deletes: ignore: the destination keeps records that the source no longer has"
        return replace(found, verdict=COUNTED, notes=(*found.notes, note), remedy="")
    return found


def _changed_there(planned: PlannedStream, found: StreamVerification, comparison: Comparison) -> StreamVerification:
    """Judge a stream with a bookmark that was changed in the destination; its triggers leave no way to tell why."""
    bookmark = ", ".join(map(repr, planned.stream.read.bookmark_properties))
    if not planned.triggers:
        note = f"the bookmark ({bookmark}) of some records was changed in the destination"
        return replace(found, notes=(*found.notes, note))
    names = ", ".join(map(str, planned.triggers))
    note = (
        f"a trigger of the destination changes the bookmark ({bookmark}): {names}. `verify` cannot tell which of these "
        "records differ, and repairs none"
    )
    is_certain = any(each.kind != "different" for each in comparison.records) or any(
        each.source_records > each.destination_records for each in comparison.ranges
    )
    verdict = found.verdict if is_certain else COUNTED
    remedy = found.remedy or "`syncblocks run --full-refresh` writes all records anew"
    return replace(found, verdict=verdict, notes=(*found.notes, note), remedy=remedy)


def _may_hold_more(planned: PlannedStream, side: Side, comparison: Comparison) -> bool:
    """Tell whether only records were found that a run without an interval has left, since it read no such value."""
    if planned.write.written_range is None or planned.write.written_range.interval is not None:
        return False
    if not side.key:
        return comparison.destination.records > comparison.source.records
    return all(each.kind == "extra" for each in comparison.records) and all(
        each.destination_records > each.source_records for each in comparison.ranges
    )


def _appended(comparison: Comparison) -> str:
    """Compare an appended table with its source: the checksums of complete loads add up."""
    times, rest = divmod(comparison.destination.records, comparison.source.records or 1)
    if times > 1 and not rest and comparison.destination.checksum == times * comparison.source.checksum:
        return f"append: the destination holds every record {times} times, and nothing else"
    return "append: the destination may hold a record several times, and in older versions"


def _uncompared(planned: PlannedStream, note: str) -> StreamVerification:
    return StreamVerification(
        stream=planned.name, destination_table=planned.key.destination_table, verdict=COUNTED, notes=(note,)
    )
