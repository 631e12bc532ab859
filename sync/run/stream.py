"""One stream from source to destination. It ends exactly once in every case."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from syncblocks.connectors.errors import ConnectorError, RetriableError, TableLost, taken_over
from syncblocks.connectors.incremental.bookmarks import values, without_records
from syncblocks.connectors.log_based import LogLag, changes_stream
from syncblocks.connectors.rejected.records import REJECTED_TABLE
from syncblocks.connectors.stream import (
    Bookmark,
    Checkpoint,
    Commit,
    FileRead,
    Load,
    Stream,
)
from syncblocks.connectors.struct_helpers import asdict, replace

from ..errors import SyncError
from ..failpoints import failpoint
from ..flow.feed import Feed
from ..plan.plan import PlannedStream
from ..plan.source_marks import source_of
from ..store.model import BlockOutcome, ErrorInfo, StateCopy, StreamOutcome
from .context import StreamContext
from .errors import ColumnsRefused, JoinedFailed, LedgerUnreadable, Stopped, error_info, message_of
from .position import Position
from .recovery.fencing import (
    is_completed,
    run_reference,
)
from .retries import Retries
from .schema_changes import SchemaChanges
from .steps.chosen import chosen_steps
from .steps.protocol import Step
from .stream_blocks import CANCELLED, FAILURE, SUCCESS, StreamBlocks, statuses
from .stream_events import StreamEvents
from .written import Written, end_notices

log = logging.getLogger("syncblocks")


class StreamRun:
    """One stream of one attempt. `run_group` drives it; any thread may cancel it."""

    def __init__(self, context: StreamContext, planned: PlannedStream, *, losses: int = 0) -> None:
        """Prepare a stream; `losses`: number of processes that died with it in this attempt of the run."""
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
        self.position = Position(context, planned)
        self._has_reported_source = False
        self._written = Written()
        self._schema_changes = SchemaChanges(context, planned.name)
        self.blocks = StreamBlocks(context, planned, losses=losses)
        self._lag: LogLag | None = None
        #: Steps by name. The next attempt calls the same objects again.
        self._steps = chosen_steps(self)
        #: True if the load leaves the completing step to `run_joined`.
        self.waits_to_complete = False
        #: The arrived stream, once its records are committed and a step must complete it.
        self._arrived: Stream | None = None
        #: Time since when it waits for other streams of its group; None: it does not.
        self._waits_since: float | None = None
        self.retries = Retries(context, planned, losses)
        self.attempt = 1

    @property
    def has_started(self) -> bool:
        """A claimed stream starts at once, unless it waits for other streams of its group."""
        return self._waits_since is None

    @property
    def awaits_completion(self) -> bool:
        """True if its load is committed and its completing step is postponed."""
        return self.waits_to_complete and self._arrived is not None and self.status is None

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
        interrupts: list[Callable[[], None]] = [step.interrupt for step in self._steps.values()]
        interrupts += [partial(each.interrupt, self.name) for each in (self.context.source, self.context.destination)]
        for interrupt in interrupts:
            try:
                interrupt()
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
        self.blocks.renew(is_continued=self.position.commits > 0)
        self.attempt, self._arrived = attempt, None
        if planned.verdict.refusal:
            if not planned.verdict.is_refused_by_destination:
                self.blocks.fail_in_source()
            raise (
                ColumnsRefused(planned.verdict.refusal)
                if planned.mapping.columns
                else SyncError(planned.verdict.refusal)
            )
        row = self.position.take(self.retries.number(attempt), takes_back=self.retries.take_back())
        if not context.is_owner():
            # This process was frozen past its lease, and a recovery has closed the stream.
            raise Stopped("the run was taken over by another process")
        self._schema_changes.resolve(row)
        for step in self._steps.values():
            step.begin()
        return self.position.decide_start(row, is_first=attempt == 1)

    def note_lag(self, lag: LogLag) -> None:
        """Note how far the stream was behind its log, before the first attempt and after this one."""
        first = self._lag or lag
        self._lag = replace(lag, bytes_before=first.bytes_before, seconds_before=first.seconds_before)

    @property
    def read_stream(self) -> Stream:
        """The stream as the source yields it: for a merge from the log, its changes."""
        stream = self.planned.stream
        return changes_stream(stream) if self.planned.write.changes else stream

    def before_read(self) -> None:
        """Run the steps that work after the start is decided and before the source is read."""
        for step in self._steps.values():
            step.before_read()

    def load(self, feed: Feed) -> None:
        """Load everything from the feed into the destination; raises the error that stopped the load."""
        self._feed = feed
        try:
            self.check()
            # A repair rewrites records below the bookmark: the hashes in the bookmark do not describe them.
            start = self.position.start if self.planned.repair is None else without_records(self.position.start)
            events = StreamEvents(
                self.blocks,
                self.context.progress,
                start=start,
                floor=self.position.held if self.planned.start.is_given else None,
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
        self.arrive(stream)

    def arrive(self, stream: Stream) -> None:
        """Complete the stream with a step, unless its load has completed it, or it waits for other streams.

        Args:
            stream: the arrived stream. All its records are committed.
        """
        if self.planned.completing_step is None:
            return
        self._arrived = stream
        if not self.waits_to_complete:
            self.prepare()
            self.complete()

    def prepare(self) -> None:
        """Let the completing step read both sides, after all records are committed."""
        self.check()
        self._completing[0].prepare(self._completing[1])

    def complete(self) -> None:
        """Execute the order of the completing step, which completes the stream in a separate transaction."""
        self.check()
        step, stream = self._completing
        events = iter([self._final(self.position.committed)])
        for commit in self.context.destination.load(step.completion(stream), events, "arrow"):
            self.note_commit(commit)
            step.note_completion(commit)

    @property
    def _completing(self) -> tuple[Step, Stream]:
        """The step that completes the stream, and the arrived stream."""
        planned = self.planned.completing_step
        assert planned is not None
        assert self._arrived is not None
        return self._steps[planned.name], self._arrived

    @property
    def rows_written(self) -> int:
        """Number of records committed so far."""
        return self._written.rows

    def note_schema_changes(self, commit: Commit) -> None:
        """Report the schema changes of a commit that is not part of the load."""
        self._schema_changes.committed(commit.checkpoint, commit.schema_changes)

    def load_order(self, stream: Stream) -> Load:
        """Return the destination's order for a stream with these columns."""
        if self.planned.replacing.is_appended_anew and self.context.destination.has_ledger:
            # The next run appends again: a key on the table would reject records that append may repeat.
            stream = replace(stream, key_properties=())
        return Load(
            key=self.planned.key,
            stream=changes_stream(stream) if self.planned.write.changes else stream,
            write=self.planned.write,
            token=self.position.token,
            run=run_reference(self.context.run),
            announce=self._schema_changes.announce,
            former_key=self.planned.replacing.former_key,
            columns=self.position.columns,
            compared_at=self.position.compared_at,
            log=self.position.log,
            untyped=self.planned.schema.untyped,
            begun_in=self.position.begun_in,
            forgets_files=self.position.start is None and stream.read.tracks_files,
            history=self.position.history(),
            removed=None if self.planned.repair is None else self.planned.repair.removed,
        )

    def send_final(self, bookmark: Bookmark | None = None, files: Sequence[FileRead] = ()) -> Checkpoint:
        """Return the checkpoint after the last record; from now on the ledger may mark the stream as complete.

        Raises:
            SyncError: fewer records were read than the stream needs.
        """
        self._demand_records()
        for stage in self.blocks.stages[:-1]:
            stage.is_complete = True
        if self.planned.completing_step is not None:  # a later transaction completes the stream
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
        self.position.note_commit(commit)
        self._written.add(commit)
        if commit.rejected:
            self.context.progress.rejected(self.name, records=commit.rejected)
        if self.blocks.stages and self.blocks.stages[-1].spool is not None:
            self.blocks.stages[-1].refused += commit.refused
        self._schema_changes.committed(commit.checkpoint, commit.schema_changes)
        if commit.checkpoint.is_final:
            self.position.note_source()
        if not self._has_reported_source:
            # Changes without effect on the destination: a dropped column, other keys.
            made = (*self._schema_changes.made, *commit.schema_changes)  # also for a fill before the load
            self._has_reported_source, reported = True, {change["column"] for change in made}
            unseen = [change for change in self.planned.schema.source_changes if change["column"] not in reported]
            self._schema_changes.committed(commit.checkpoint, unseen)
        if self.planned.wire != "arrow":  # raw blocks do not have a record count
            self.blocks.stages[0].rows += commit.records
            self.blocks.stages[0].size_bytes += commit.size_bytes
            self.context.progress.advanced(
                self.name, records=commit.records, size_bytes=0
            )  # bytes were reported already
        self.context.progress.committed(self.name, records=commit.records, bookmark=values(self.position.committed))
        failpoint("stream.after_commit")

    # -- the end -------------------------------------------------------------------------------------------------

    def wants_retry(self, error: BaseException, attempt: int) -> bool:
        """Whether another attempt may help and is still allowed."""
        if self.begins_anew(error):
            return True
        if not isinstance(error, RetriableError) or self.stop_reason or not self.retries.is_left(attempt):
            return False
        if self._is_final_sent:
            row = self.position.fenced_row()
            if is_completed(row, self.context.run) or not self.position.is_ours(row):
                return False
        with self._lock:
            self._is_final_sent = False
        return True

    def begins_anew(self, error: BaseException) -> bool:
        """Return true if the next attempt costs no retry, see `Retries.is_free`."""
        if self.stop_reason is not None:
            return False
        self.position.is_row_stale |= isinstance(error, TableLost)
        return self.retries.is_free(error)

    def take_retry(self) -> bool:
        """Use one of the stream's retries for a range. Return false if none is left."""
        return self.stop_reason is None and self.retries.take_for_range(self.attempt)

    def report_retry(self, error: BaseException) -> None:
        """Tell callbacks that this attempt failed and will be repeated."""
        log.debug("%s: an attempt failed in block %s", self.name, self.blocks.failed, exc_info=error)
        self.context.report_retry(self.name, self.blocks.failed, self._error_info(error))

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
            row = self.position.fenced_row() if is_undecided else None
            is_done = error is None or (row is not None and is_completed(row, self.context.run))
            is_change_made = row is not None and self._schema_changes.was_made(row)
        except LedgerUnreadable as unreadable:
            text = str(unreadable)
            if error is not None and not was_stopped:  # a full disk is the cause of both, and the first one names it
                text = f"{self.shown(error)}; after that, {text}"
            self.error = LedgerUnreadable(text)
            self.ended = time.monotonic()
            self.context.progress.stream_ended(self.name, self.status, records=None, error=text)
            return
        if is_done:
            self.status, error = SUCCESS, None
            if row is not None:  # the answer of the last commit never arrived
                unseen = self._written.take(row)
                if self.planned.wire != "arrow":
                    self.blocks.stages[0].rows += unseen
                self.position.note_committed_row(row)
        elif was_stopped and self.stop_reason is not None:
            log.debug("%s: how the stop ended it", self.name, exc_info=error)
            error = Stopped(self.stop_reason)
        elif row is not None and not self.position.is_ours(row):
            log.debug("%s: how the takeover ended it", self.name, exc_info=error)
            error = taken_over(self.name, row.owner)
        if is_done:
            blocks, before = self.blocks, self.position.planned_row
            blocks.notice(end_notices(self.planned, before, self._written, blocks.warned, blocks.read_rows))
        self._put_at_its_place(error)
        self.error = error
        self.outcome = replace(self._make_outcome(error), is_held_committed=is_change_made)
        self.context.close_stream(self.outcome)
        self.ended = time.monotonic()
        if self.status == FAILURE:
            log.debug("%s: failed in block %s", self.name, self.blocks.failed, exc_info=error)
        shown = None if error is None else self.shown(error)
        if self._written.rejected:
            self.context.progress.message(
                f"{self.name}: rejected records: {self._written.rejected}, kept in {REJECTED_TABLE} beside "
                f"{self.planned.key.destination_table}",
                level="warning",
            )
        for notice in self.blocks.notices if self.status == SUCCESS else ():
            self.context.progress.message(f"{self.name}: {notice}", level="warning")
        self.context.progress.stream_ended(self.name, self.status, records=self._written.rows, error=shown)

    def _make_outcome(self, error: BaseException | None) -> StreamOutcome:
        info = self._error_info(error) if self.status == FAILURE and error is not None else None
        written = self._written
        self.blocks.note_written(rows=written.rows, size_bytes=written.size_bytes, rejected=written.rejected)
        stages, failed = self.blocks.stages, self.blocks.failed
        ended = statuses(stages, self.status or CANCELLED, failed)
        self.blocks.keep_spools(ended)
        blocks = tuple(
            BlockOutcome(
                block=stage.block,
                status=status,
                rows=stage.rows,
                rows_rejected=stage.rejected,
                rows_replaced=written.replaced if stage is stages[-1] else None,
                size_bytes=stage.size_bytes,
                bookmark_before=values(self.position.start),
                bookmark_after=values(self.position.committed if self.position.commits else self.position.start),
                schema_changes=tuple(self._schema_changes.made),
                error=info if stage.block == failed else None,
                data=stage.data,
                notices=tuple(self.blocks.notices) if stage is stages[0] else (),
                warnings=asdict(self.blocks.warned) if self.blocks.warned else None,
                lag=asdict(self._lag) if self._lag is not None and stage is stages[0] else None,
            )
            for stage, status in zip(stages, ended, strict=True)
        )
        state = None
        if self.position.commits:
            key, destination = self.planned.key, self.context.destination
            state = StateCopy(
                stream=key.stream,
                destination_table=key.destination_table,
                source=source_of(self.context.source_name, self.planned),
                # Without a ledger the store's bookmark is the state, with the hashes of the records at the bookmark.
                bookmark=values(self.position.committed) if destination.has_ledger else self.position.committed,
                rows=written.rows,
                shape=self.planned.schema.shape,
            )
        for step in self._steps.values():
            if counts := step.counts():
                blocks = (*blocks[:-1], replace(blocks[-1], **counts))
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
