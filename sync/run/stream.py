"""One stream from source to destination. It ends exactly once in every case."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from syncblocks.connectors.errors import ConnectorError, RetriableError, TableLost
from syncblocks.connectors.incremental.bookmarks import not_below, values, without_records
from syncblocks.connectors.log_based import LogLag, changes_stream
from syncblocks.connectors.protocols import Source
from syncblocks.connectors.ranges import RangesRefused
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.rejected.records import REJECTED_TABLE
from syncblocks.connectors.stream import (
    FILES,
    Bookmark,
    Checkpoint,
    FileRead,
    HistoryLoad,
    LedgerRow,
    Load,
    Stream,
    TableState,
)
from syncblocks.connectors.struct_helpers import asdict, replace
from syncblocks.connectors.write_spec import WriteDisposition

from ..errors import SyncError
from ..failpoints import failpoint
from ..flow.feed import Feed
from ..plan.history import falls_behind, history_load
from ..plan.log_based import is_logged
from ..plan.plan import PlannedStream
from ..plan.start import ledger_row, source_of, starting_point, unmarked
from ..store.model import BlockOutcome, ErrorInfo, StateCopy, StreamOutcome
from .block_runs import CANCELLED, FAILURE, SUCCESS, StreamBlocks, statuses
from .context import StreamContext
from .errors import ColumnsRefused, JoinedFailed, LedgerUnreadable, Stopped, error_info, message_of
from .recovery.takeover import fenced_row, is_completed, owner_text, run_reference, stream_token
from .schema_changes import SchemaChanges
from .stream_events import StreamEvents

if TYPE_CHECKING:
    from .deletes import Removal

log = logging.getLogger("syncblocks")


class StreamRun:
    """One stream of one attempt. `run_group` drives it; any thread may cancel it."""

    def __init__(self, context: StreamContext, planned: PlannedStream, *, losses: int = 0) -> None:
        """Prepare a stream; `losses`: number of processes that died with it in this attempt of the run."""
        self._losses = losses
        self.context = context
        self.planned = planned
        self.name = planned.name
        self.started = time.monotonic()
        self.outcome: StreamOutcome | None = None
        self.status: str | None = None
        #: Time when it was closed in the store; without an outcome: when it was left open, since the ledger was
        # unreadable.
        self.ended: float | None = None
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        #: Reason of the cancel; None: not cancelled.
        self.stop_reason: str | None = None
        self._stopped = threading.Event()
        self._is_final_sent = False
        self._feed: Feed | None = None
        self._start: Bookmark | None = None
        self._committed: Bookmark | None = None
        self._commits = 0
        self._has_reported_source = False
        self._rows_written = 0
        self._bytes_written = 0
        self._rows_rejected = 0
        #: None: the keys were not compared.
        self._rows_deleted: int | None = None
        self._schema_changes = SchemaChanges(context, planned.name)
        self.blocks = StreamBlocks(context, planned, losses=losses)
        #: Number of this attempt among all attempts of the run's attempt: its token is derived from it.
        self.number = 0
        self._token = ""
        #: The ledger's bookmark when the attempt began.
        self._held: Bookmark | None = None
        #: `LedgerRow.source` after the commit of the load; empty: as in the row.
        self._source_to_be = ""
        #: Column names from the ledger.
        self._columns: Mapping[str, str] = {}
        #: The ledger's state of a history.
        self._known_history: Mapping[str, Any] = {}
        #: The log from which it is read.
        self._log: Mapping[str, Any] = {}
        self._lag: LogLag | None = None
        #: When the keys were last compared, from the ledger.
        self._compared_at: datetime | None = None
        #: Reads the table during the key comparison.
        self._reader: Source | None = None
        #: Whether a load postpones the deletes to `run_joined`.
        self.leaves_deletes = False
        #: The arrived stream, if its records are committed and the keys must be compared; else None.
        self._arrived: Stream | None = None
        self._removal: Removal | None = None
        #: Time since when it waits for other streams of its group; None: it does not.
        self._waits_since: float | None = None
        #: Whether the next attempt reads by ranges.
        self.reads_ranges = planned.reading.readers > 1 and planned.repair is None
        #: `TableState.identity` of the table that the next attempt continues; None: it starts from scratch.
        self._begun_in: str | None = None
        #: The first loss of the table; the next attempt costs no retry.
        self._loss: TableLost | None = None
        #: The ledger row belongs to a lost table.
        self._is_row_stale = False
        self.attempt = 1
        self._range_retries = 0

    @property
    def has_started(self) -> bool:
        """A claimed stream starts at once, unless it waits for other streams of its group."""
        return self._waits_since is None

    @property
    def awaits_deletes(self) -> bool:
        """Whether its load is committed, with its deletes postponed."""
        return self.leaves_deletes and self._arrived is not None and self.status is None

    def wait(self) -> None:
        """Note that it waits for other streams: this time does not count."""
        self._waits_since = time.monotonic()

    def go_on(self) -> None:
        """Note the end of the wait."""
        if self._waits_since is not None:
            self.started += time.monotonic() - self._waits_since
            self._waits_since = None

    @property
    def has_ended(self) -> bool:
        """Whether the stream has finally ended."""
        return self.ended is not None

    # -- stopping ------------------------------------------------------------------------------------------------

    def cancel(self, reason: str) -> None:
        """Stop soon: commit no more, interrupt driver calls. Idempotent."""
        with self._lock:
            if self.status is not None or self.stop_reason is not None:
                return
            self.stop_reason = reason
        self._stopped.set()
        if self._feed is not None:
            self._feed.close()
        table = self.planned.table.stream_name or self.planned.key.destination_table
        for connector, name in (
            (self.context.source, self.name),
            (self.context.destination, self.name),
            (self._reader, table),
        ):
            try:
                if connector is not None:
                    connector.interrupt(name)
            except ConnectorError as error:
                log.debug("%s: interrupt: %s", self.name, error)

    def abandon(self) -> None:
        """End a cancelled stream whose thread hangs; the ledger decides the status, the token fences the thread."""
        self.end(Stopped(self.stop_reason or "stopped"))

    def wait_for_retry(self, delay_s: float) -> None:
        """Sleep, unless cancelled meanwhile."""
        self._stopped.wait(delay_s)

    def check(self) -> None:
        """Raise `Stopped` if the stream was cancelled."""
        if self.stop_reason is not None:
            raise Stopped(self.stop_reason)

    # -- one attempt ---------------------------------------------------------------------------------------------

    def begin(self, attempt: int) -> Bookmark | None:
        """Write the token into the ledger row and return the bookmark to read from."""
        self.check()
        context, planned = self.context, self.planned
        self.blocks.renew(is_continued=self._commits > 0)
        self.attempt, self._arrived = attempt, None
        if planned.refusal:
            if not planned.is_refused_by_destination:
                self.blocks.fail_in_source()
            raise ColumnsRefused(planned.refusal) if planned.mapping.columns else SyncError(planned.refusal)
        # A process that is only frozen may still write under its own attempts' tokens.
        self.number = self._losses * planned.tries + attempt
        self._token = stream_token(context.run, self.name, self.number)
        failpoint("stream.before_take_over")
        row = self._take_over()
        failpoint("stream.after_take_over")
        if not context.is_owner():
            # This process was frozen past its lease, and a recovery has closed the stream.
            raise Stopped("the run was taken over by another process")
        self._schema_changes.resolve(row)
        if planned.policy.before and planned.repair is None:
            from .before_statements import run_before_stream

            run_before_stream(context, self.blocks, self._token, lambda: self.stop_reason)
        self._held = row.bookmark
        if self._is_row_stale:
            row = self._forget()
        is_planned = attempt == 1 and not self._has_moved(row)
        self._start = self._starting_point(row, is_planned=is_planned)
        if planned.write.changes and self._start is None:
            raise SyncError("its table has to be copied anew, which the next run does: run it again")
        keeps = context.destination_can.keeps_files
        if self._start is not None and not is_planned and planned.stream.read.tracks_files and keeps is not None:
            return {**self._start, FILES: keeps.files_read(planned.key)}
        return self._start

    def _take_over(self, *, is_row_kept: bool = True) -> LedgerRow:
        context, source = self.context, source_of(self.context.source_name, self.planned)
        before = self._planned_row()
        # Until a commit changes this, the table has the records of the former query or filter.
        is_held = is_row_kept and before.committed_at is not None
        is_held = is_held and before.source != source and unmarked(before.source) == unmarked(source)
        self._source_to_be = source if is_held else ""
        row = context.destination.take_over(
            self.planned.key, token=self._token, owner=owner_text(context.run), source=None if is_held else source
        )
        if self._has_moved(row) and falls_behind(self.planned, row):
            raise SyncError("another run has written newer versions since this one was planned: run it again")
        self._columns, self._known_history, self._compared_at = row.columns, row.history, row.compared_at
        self._log = row.log
        return row

    def _note_source(self) -> None:
        """Write the query and the filter of the committed records into the ledger."""
        context, source, self._source_to_be = self.context, self._source_to_be, ""
        owner = owner_text(context.run)
        context.destination.take_over(self.planned.key, token=self._token, owner=owner, source=source)

    def _forget(self) -> LedgerRow:
        """Clear the ledger row of a lost table: after a crash, its bookmark would apply to the new table."""
        # The log's objects in the source stay ours.
        self.context.destination.set_bookmark(self.planned.key, None, forget=not is_logged(self.planned.stream))
        self._is_row_stale = False
        return self._take_over(is_row_kept=False)

    def _planned_row(self) -> LedgerRow:
        """Return the ledger row as it was at planning time."""
        key = self.planned.key
        return ledger_row(self.planned.table, key) or LedgerRow(key=key, source="", token="")

    def _has_moved(self, row: LedgerRow) -> bool:
        """Whether another run has committed since the plan was made."""
        before = self._planned_row()
        return (row.bookmark, row.completed_by, row.committed_at) != (
            before.bookmark,
            before.completed_by,
            before.committed_at,
        )

    def _starting_point(self, row: LedgerRow, *, is_planned: bool) -> Bookmark | None:
        """Decide under the token where to start: the table may have been dropped since the plan."""
        planned, start = self.planned, self.planned.start.bookmark
        self._begun_in = None
        if start is not None or not is_planned:
            name = planned.key.destination_table
            table = self.context.destination.describe([name])[name]
            if not is_planned or (table.schema is None and table.is_described):
                start = self._given(self._restart(row, table))
            if start is not None and table.schema is not None:  # otherwise the bookmark was set before the first run
                self._begun_in = table.identity
        if start is None and row.bookmark is not None and not planned.commits_once:
            self._forget()
        return start

    def _given(self, start: Bookmark | None) -> Bookmark | None:
        """Start at a bookmark from the command line, except for an append's later records."""
        planned = self.planned
        if not planned.start.is_given:
            return start
        if planned.write.disposition is WriteDisposition.APPEND:  # if both are equal, the ledger's has hashes
            return not_below(planned.stream, start, planned.start.bookmark)
        return planned.start.bookmark

    def _restart(self, row: LedgerRow, table: TableState) -> Bookmark | None:
        planned, before = self.planned, self._planned_row()
        # An empty table that an earlier attempt created does not prove a commit.
        is_known = self._commits > 0 or before.committed_at is not None or before.bookmark is not None
        start = starting_point(
            planned,
            table,
            row,
            is_known=is_known,
            sources=(self.context.source_name, self.context.source.identity()),
            full_refresh=planned.commits_once,
        )
        if isinstance(start, str):
            raise SyncError(start)
        return start.bookmark

    def note_log(self, log: Mapping[str, Any]) -> None:
        """Write the stream's log into the ledger."""
        notes = self.context.destination_can.notes_log
        assert notes is not None, "the plan checks this"
        if dict(self._log) != dict(log):
            notes.note_log(self.planned.key, self._token, log)
            self._log = log

    def note_lag(self, lag: LogLag) -> None:
        """Note how far the stream was behind its log, before the first attempt and after this one."""
        first = self._lag or lag
        self._lag = replace(lag, bytes_before=first.bytes_before, seconds_before=first.seconds_before)

    @property
    def read_stream(self) -> Stream:
        """The stream as the source yields it: for a merge from the log, its changes."""
        stream = self.planned.stream
        return changes_stream(stream) if self.planned.write.changes else stream

    @property
    def log_bookmark(self) -> Bookmark | None:
        """Committed log position up to which the table is complete; None: it must be copied."""
        if self._commits:
            return self._committed
        # A replaced table stays unchanged until the end.
        return self._held if self._start is not None or self.planned.commits_once else None

    def fill(self) -> None:
        """Fill new columns of existing records, before the source is read."""
        planned, start = self.planned, self._start
        if not planned.fills or start is None or planned.repair is not None:
            return
        from .filling import Filling  # few runs need it

        self.check()
        failpoint("stream.before_fill")
        filling = Filling(planned, self.blocks.transformers)
        write = replace(planned.write, kept=(), max_rejected=None)
        order = replace(self.load_order(filling.arriving), write=write, fills=True, filling=planned.fills)
        events = filling.events(self.context.source, start)
        for commit in self.context.destination.load(order, events, "arrow"):
            self.check()
            self._schema_changes.committed(commit.checkpoint, commit.schema_changes)
            failpoint("stream.after_fill_commit")
        if self._begun_in is not None:  # some systems give an altered table a new identity
            name = planned.key.destination_table
            self._begun_in = self.context.destination.describe([name])[name].identity
        self.context.progress.message(f"{self.name}: filled in older records: {', '.join(planned.fills)}")

    def load(self, feed: Feed) -> None:
        """Load everything from the feed into the destination; raises the error that stopped the load."""
        self._feed = feed
        try:
            self.check()
            # A repair rewrites records below the bookmark: the hashes in the bookmark do not describe them.
            start = self._start if self.planned.repair is None else without_records(self._start)
            events = StreamEvents(
                self.blocks,
                self.context.progress,
                start=start,
                floor=self._held if self.planned.start.is_given else None,
                check=self.check,
                send_final=self.send_final,
            )
            stream, arriving = events.read(feed)
            # A transformer's first batch may have lasted longer than the stream, whose connections were then closed.
            self.check()
            for commit in self.context.destination.load(self.load_order(stream), arriving, self.planned.wire):
                self.note_commit(commit)
        finally:
            feed.close()
        self.remove_missing(stream)

    def remove_missing(self, stream: Stream) -> None:
        """Delete, mark or end missing records, and complete the stream, in a separate transaction.

        Args:
            stream: the arrived stream; all its records are committed.
        """
        if not self.planned.compares_keys:
            return
        self._arrived = stream
        if not self.leaves_deletes:
            self.find_missing()
            self.delete_missing()

    def find_missing(self) -> None:
        """Find records that the source no longer has, after all records are committed."""
        from .deletes import find_removal  # imports the whole comparison; few runs need it

        self.check()
        failpoint("stream.before_deletes")
        self._removal = find_removal(self.context, self.planned, self._columns, self._read_by)

    def delete_missing(self) -> None:
        """Apply `find_missing`: delete, mark or end the records, and complete the stream."""
        from .deletes import with_marks

        stream, found, deletes = self._arrived, self._removal, self.planned.deletes
        assert stream is not None
        assert found is not None
        assert deletes is not None
        self.check()
        order = replace(
            self.load_order(stream if found.marked is None or deletes.is_of_history else with_marks(stream)),
            removed=found.removed,
            marked=found.marked,
            compared_at=deletes.moment,
            records_before=self._rows_written,
            begun_in=found.begun_in,
        )
        for commit in self.context.destination.load(order, iter([self._final(self._committed)]), "arrow"):
            self.note_commit(commit)
            self._rows_deleted = (self._rows_deleted or 0) + commit.removed
        if self._rows_deleted:
            self.context.progress.message(
                f"{self.name}: {self._rows_deleted:,} record(s) {deletes.word}: the source lacks them"
            )

    def _read_by(self, reader: Source | None) -> None:
        self._reader = reader

    def note_read(self, rows: int, size_bytes: int, *, is_whole: bool) -> None:
        """Record how much of a stream's ranges was read, and whether it was all."""
        stage = self.blocks.stages[0]
        stage.rows, stage.size_bytes, stage.is_complete = rows, size_bytes, is_whole

    def load_order(self, stream: Stream) -> Load:
        """Return the destination's order for a stream with these columns."""
        if self.planned.is_appended_anew and self.context.destination.has_ledger:
            # The next run appends again: a key on the table would reject records that append may repeat.
            stream = replace(stream, key_properties=())
        return Load(
            key=self.planned.key,
            stream=changes_stream(stream) if self.planned.write.changes else stream,
            write=self.planned.write,
            token=self._token,
            run=run_reference(self.context.run),
            announce=self._schema_changes.announce,
            former_key=self.planned.former_key,
            columns=self._columns,
            compared_at=self._compared_at,
            log=self._log,
            begun_in=self._begun_in,
            forgets_files=self._start is None and stream.read.tracks_files,
            history=self._history(),
            removed=None if self.planned.repair is None else self.planned.repair.removed,
        )

    def _history(self) -> HistoryLoad | None:
        is_anew = self.planned.drops_history and self._start is None and not self._commits
        return history_load(self.planned, self._known_history, starts_over=is_anew)

    def send_final(self, bookmark: Bookmark | None = None, files: Sequence[FileRead] = ()) -> Checkpoint:
        """Return the checkpoint after the last record; from now on the ledger may mark the stream as complete.

        Raises:
            SyncError: fewer records were read than the stream needs.
        """
        self._demand_records()
        for stage in self.blocks.stages[:-1]:
            stage.is_complete = True
        if self.planned.compares_keys:  # a later transaction completes the stream
            self.check()
            return Checkpoint(bookmark=bookmark, files=tuple(files))
        return self._final(bookmark, files)

    def _demand_records(self) -> None:
        least, found = self.planned.policy.min_records, self.blocks.stages[0].rows or 0
        if least is None or found >= least or self.planned.repair is not None:
            return
        self.blocks.fail_in_source()
        raise SyncError(
            f"the source has {found:,} record(s) now, and the stream says `min_records: {least}`: nothing was written, "
            f"table {self.planned.key.destination_table!r} is as it was. If so few are right, say a smaller number"
        )

    def _final(self, bookmark: Bookmark | None, files: Sequence[FileRead] = ()) -> Checkpoint:
        with self._lock:
            self.check()
            self._is_final_sent = True
        self.context.progress.read_ended(self.name)
        return Checkpoint(bookmark=bookmark, is_final=True, files=tuple(files))

    def note_commit(self, commit: Any) -> None:
        """Record a durable commit."""
        if commit.is_confirmed:
            self._committed = commit.checkpoint.bookmark
            self._commits += 1  # last: `log_bookmark` belongs to another thread
        self._rows_written += commit.records
        self._bytes_written += commit.size_bytes
        self._rows_rejected += commit.rejected
        if commit.rejected:
            self.context.progress.rejected(self.name, records=commit.rejected)
        if self.blocks.stages and self.blocks.stages[-1].spool is not None:
            self.blocks.stages[-1].refused += commit.refused
        self._schema_changes.committed(commit.checkpoint, commit.schema_changes)
        if commit.checkpoint.is_final and self._source_to_be:
            self._note_source()
        if not self._has_reported_source:
            # Changes without effect on the destination: a dropped column, other keys.
            made = (*self._schema_changes.made, *commit.schema_changes)  # also for a fill before the load
            self._has_reported_source, reported = True, {change["column"] for change in made}
            unseen = [change for change in self.planned.source_changes if change["column"] not in reported]
            self._schema_changes.committed(commit.checkpoint, unseen)
        if self.planned.wire != "arrow":  # raw blocks do not have a record count
            self.blocks.stages[0].rows += commit.records
            self.blocks.stages[0].size_bytes += commit.size_bytes
            self.context.progress.advanced(
                self.name, records=commit.records, size_bytes=0
            )  # bytes were reported already
        self.context.progress.committed(self.name, records=commit.records, bookmark=values(self._committed))
        failpoint("stream.after_commit")

    # -- the end -------------------------------------------------------------------------------------------------

    def wants_retry(self, error: BaseException, attempt: int) -> bool:
        """Whether another attempt may help and is still allowed."""
        if self.begins_anew(error):
            return True
        if not isinstance(error, RetriableError) or self.stop_reason or not self._has_retry(attempt):
            return False
        if self._is_final_sent and is_completed(self._ledger_row(), self.context.run):
            return False
        with self._lock:
            self._is_final_sent = False
        return True

    def falls_back_to_whole(self, error: BaseException) -> bool:
        """Whether the source refused ranges: the next attempt reads the whole stream, and costs no retry."""
        if isinstance(error, RangesRefused) and self.reads_ranges and self.stop_reason is None:
            log.warning("%s: read as a whole, not by ranges: %s", self.name, error)
            self.reads_ranges = False
        return isinstance(error, RangesRefused) and not self.reads_ranges and self.stop_reason is None

    def begins_anew(self, error: BaseException) -> bool:
        """Whether the next attempt costs no retry: ranges were refused, or the table was lost for the first time."""
        if isinstance(error, TableLost) and self.stop_reason is None:
            self._is_row_stale = True
            if self._loss is None:
                log.warning("%s: begun anew: %s", self.name, error)
                self._loss = error
        return self.falls_back_to_whole(error) or (error is self._loss and self.stop_reason is None)

    def take_retry(self) -> bool:
        """Use one of the stream's retries for a range; return False if none is left."""
        with self._lock:
            if self.stop_reason is not None or not self._has_retry(self.attempt):
                return False
            self._range_retries += 1
            return True

    def _has_retry(self, attempt: int) -> bool:
        was_refused = self.planned.reading.readers > 1 and not self.reads_ranges
        free = was_refused + (self._loss is not None)
        return attempt + self._range_retries + self._losses <= self.planned.policy.retries + free

    def tell_retry(self, error: BaseException) -> None:
        """Tell callbacks that this attempt failed and will be repeated."""
        log.debug("%s: an attempt failed in block %s", self.name, self.blocks.failed, exc_info=error)
        self.context.tell_retry(self.name, self.blocks.failed, self._error_info(error))

    def _ledger_row(self) -> LedgerRow:
        return fenced_row(self.context.destination, self.planned.key, owner_text(self.context.run))

    def end(self, error: BaseException | None) -> None:
        """Decide the statuses and close the stream's block runs in the store."""
        with self._lock:
            if self.status is not None:
                return
            was_stopped = self.stop_reason is not None or isinstance(error, Stopped)
            # The other stream's failure is the reason, even if the run's stop was noticed first.
            was_stopped = was_stopped and not isinstance(error, JoinedFailed)
            is_undecided = error is not None and (self._is_final_sent or self._schema_changes.is_open)
            self.status = CANCELLED if was_stopped else FAILURE  # only one thread gets here; may become success below
        try:
            row = self._ledger_row() if is_undecided else None
            is_done = error is None or (row is not None and is_completed(row, self.context.run))
            is_change_made = row is not None and self._schema_changes.was_made(row)
        except LedgerUnreadable as unreadable:
            self.error = unreadable
            self.ended = time.monotonic()
            self.context.progress.stream_ended(self.name, self.status, records=None, error=str(unreadable))
            return
        if is_done:
            self.status, error = SUCCESS, None
            if row is not None:
                self._note_ledger(row)
        elif was_stopped and self.stop_reason is not None:
            log.debug("%s: how the stop ended it", self.name, exc_info=error)
            error = Stopped(self.stop_reason)
        if is_done:
            self.blocks.notice(self._emptied())
        self._put_at_its_place(error)
        self.error = error
        self.outcome = replace(self._make_outcome(error), is_held_committed=is_change_made)
        self.context.close(self.outcome)
        self.ended = time.monotonic()
        if self.status == FAILURE:
            log.debug("%s: failed in block %s", self.name, self.blocks.failed, exc_info=error)
        shown = None if error is None else self.shown(error)
        if self._rows_rejected:
            self.context.progress.message(
                f"{self.name}: rejected records: {self._rows_rejected}, kept in {REJECTED_TABLE} beside "
                f"{self.planned.key.destination_table}",
                level="warning",
            )
        for notice in self.blocks.notices if self.status == SUCCESS else ():
            self.context.progress.message(f"{self.name}: {notice}", level="warning")
        self.context.progress.stream_ended(self.name, self.status, records=self._rows_written, error=shown)

    def _note_ledger(self, row: LedgerRow) -> None:
        """Take the last commit from the ledger: its answer never arrived."""
        rows = self._rows_written if row.rows is None else row.rows
        if self.planned.wire != "arrow":
            self.blocks.stages[0].rows += rows - self._rows_written
        self._commits += 1
        self._committed, self._rows_written = row.bookmark, rows

    def _emptied(self) -> list[str]:
        """Report a table whose records are replaced by none."""
        planned, before = self.planned, self._planned_row()
        if (
            planned.write.disposition is not WriteDisposition.REPLACE
            or self._rows_written
            or planned.table.schema is None
        ):
            return []
        # The ledger counts the last run's records: for INCREMENTAL, only the new ones.
        counted = before.rows if before.committed_at is not None and before.bookmark is None else None
        if not (counted if counted is not None else not planned.table.is_empty):
            return []
        shown = "the records that it had" if counted is None else f"its {counted:,} record(s)"
        told = f"table {planned.key.destination_table!r} was replaced by no records, and {shown} are gone"
        if planned.stream.read.method is ReplicationMethod.FULL_TABLE:
            told += "; `min_records: 1` of the stream makes that a failure, and keeps them"
        return [told]

    def _make_outcome(self, error: BaseException | None) -> StreamOutcome:
        info = self._error_info(error) if self.status == FAILURE and error is not None else None
        self.blocks.note_written(rows=self._rows_written, size_bytes=self._bytes_written, rejected=self._rows_rejected)
        stages, failed = self.blocks.stages, self.blocks.failed
        ended = statuses(stages, self.status or CANCELLED, failed)
        self.blocks.keep_spools(ended)
        blocks = tuple(
            BlockOutcome(
                block=stage.block,
                status=status,
                rows=stage.rows,
                rows_rejected=stage.rejected,
                rows_deleted=self._rows_deleted if stage is stages[-1] else None,
                size_bytes=stage.size_bytes,
                bookmark_before=values(self._start),
                bookmark_after=values(self._committed if self._commits else self._start),
                schema_changes=tuple(self._schema_changes.made),
                error=info if stage.block == failed else None,
                data=stage.data,
                notices=tuple(self.blocks.notices) if stage is stages[0] else (),
                lag=asdict(self._lag) if self._lag is not None and stage is stages[0] else None,
            )
            for stage, status in zip(stages, ended, strict=True)
        )
        state = None
        if self._commits:
            key, destination = self.planned.key, self.context.destination
            state = StateCopy(
                stream=key.stream,
                destination_table=key.destination_table,
                source=source_of(self.context.source_name, self.planned),
                # Without a ledger the store's bookmark is the state, with the hashes of the records at the bookmark.
                bookmark=values(self._committed) if destination.has_ledger else self._committed,
                rows=self._rows_written,
                shape=self.planned.shape,
            )
        return StreamOutcome(stream=self.name, blocks=blocks, state=state)

    def _put_at_its_place(self, error: BaseException | None) -> None:
        """Put file and line of the setting that fixes an error before its text."""
        if isinstance(error, ConnectorError) and error.stream_key:
            loc = (*self.planned.policy.location[:2], error.stream_key)
            error.args = (str(self.context.pipeline.error(loc, str(error))),)

    def shown(self, error: BaseException) -> str:
        """Return an error's text for the user, with secrets masked."""
        return self.context.redactor.redact(message_of(error))

    def _error_info(self, error: BaseException) -> ErrorInfo:
        return error_info(error, self.context.redactor, stream=self.name, block=self.blocks.failed)
