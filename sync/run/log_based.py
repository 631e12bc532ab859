"""A group of LOG_BASED streams: one read of the log, which the source may discard once all of them have committed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from syncblocks.connectors.log_based import LOG_POSITION, LogMoment, OpenLog, position_of
from syncblocks.connectors.stream import Bookmark, LedgerRow
from syncblocks.connectors.struct_helpers import replace

from ..failpoints import failpoint
from ..plan.features.log_based import holds_log, is_logged, log_name, log_rows
from ..plan.plan import Plan
from ..session.session import PipelineSession
from .recovery.fencing import owner_text
from .recovery.unfinished_runs import forget_bookmarks
from .stream import StreamRun
from .stream_blocks import SUCCESS


@contextmanager
def opened_log(runs: Sequence[StreamRun], ended: Sequence[StreamRun]) -> Iterator[OpenLog]:
    """Open the log for these started streams; others of the group have ended."""
    context = runs[0].context
    reads = context.source_can.reads_log
    assert reads is not None, "the plan checks this"
    by_name = {run.name: run for run in runs}
    rows = _rows(runs)

    others = [row.bookmark for row in rows if row.bookmark and row.key.stream not in by_name]

    def note(stream: str, log: Mapping[str, Any]) -> None:
        by_name[stream].position.note_log(log)

    def held() -> Sequence[Bookmark]:
        found = [*others, *(run.position.log_bookmark for run in runs)]
        return [bookmark for bookmark in found if bookmark and LOG_POSITION in bookmark]

    name = log_name(context.pipeline.pipeline, context.source_name, context.destination.identity())
    done = [context.log_until, *(run.position.log_bookmark for run in ended if run.status == SUCCESS)]
    stands = [each for each in done if each and LOG_POSITION in each]
    reader, streams = owner_text(context.run), [run.read_stream for run in runs]
    with reads.open_log(name, streams, rows, note, held, stands, reader) as opened:
        yield opened


def give_up_log(session: PipelineSession, plan: Plan, owner: str) -> None:
    """Empty the positions of rows that hold too much log, and drop the log once nobody goes on from it.

    Killed at any point, the next run finds empty rows, whose tables it copies, or decides the same again.

    Raises:
        ConnectorError: the slot is in use, or source or destination cannot be reached.
        LedgerUnreadable: a ledger row cannot be read.
    """
    destination, reads = session.destination, session.source_can.reads_log
    assert reads is not None, "the plan checks this"
    if not plan.given_up.is_dropped:
        forget_bookmarks(destination, plan.given_up.rows, owner)
        failpoint("log.emptied")
        return
    rows = log_rows(session.pipeline, session, [planned.destination_table for planned in plan.streams])
    for row in rows:
        if position_of(row):
            # Also a row that another run has written since the plan: its later commits are refused.
            destination.set_bookmark(row.key, None)
            failpoint("log.emptied")
    reads.drop_log(rows, keeps_publication=True)
    failpoint("log.dropped")


@contextmanager
def moment_of_run(session: PipelineSession, plan: Plan) -> Iterator[LogMoment | None]:
    """Hold a moment up to which a planned run reads its log, for `verify: true`; None: no stream is compared at one.

    A table that the run copies stands at another moment, and so do all tables of that run.

    Raises:
        ConnectorError: the source cannot be reached, or a transaction holds up the moment.
    """
    reads, logged = session.source_can.reads_log, [each for each in plan.streams if is_logged(each.stream)]
    compared = [
        each.stream for each in logged if each.policy.verify and each.write.changes and not each.verdict.refusal
    ]
    if reads is None or not compared or any(each.start.bookmark is None for each in logged):
        yield None
        return
    rows = log_rows(session.pipeline, session, [each.destination_table for each in logged])
    name = log_name(session.pipeline.pipeline, session.source_name, session.destination.identity())
    with reads.open_moment(name, compared, rows) as moment:
        yield moment


def _rows(runs: Sequence[StreamRun]) -> list[LedgerRow]:
    """Return the ledger rows that name the log; a stream removed from the file no longer retains it."""
    context = runs[0].context
    keys = {run.name: run.planned.key for run in runs}
    tables = [key.destination_table for key in keys.values()]
    found = []
    for row in log_rows(context.pipeline, context, tables):
        is_held = holds_log(context.pipeline, row) and keys.get(row.key.stream, row.key) == row.key
        if not is_held and position_of(row):
            # Before the source discards the row's position: an empty row means that its table is copied again.
            context.destination.set_bookmark(row.key, None)
            row = replace(row, bookmark=None)
        found.append(row)
    return found


__all__ = ["give_up_log", "moment_of_run", "opened_log"]
