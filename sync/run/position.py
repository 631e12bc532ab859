"""A stream's position: its ledger row, where the attempt starts, and the last commit."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from syncblocks.connectors.errors import taken_over
from syncblocks.connectors.incremental.bookmarks import not_below
from syncblocks.connectors.stream import FILES, Bookmark, Commit, HistoryLoad, LedgerRow, TableState
from syncblocks.connectors.write_spec import WriteDisposition

from ..errors import SyncError
from ..failpoints import failpoint
from ..plan.features.history import falls_behind, history_load
from ..plan.features.log_based import is_logged
from ..plan.plan import PlannedStream
from ..plan.source_marks import source_of, unmarked
from ..plan.start import ledger_row, starting_point
from .context import StreamContext
from .recovery.fencing import fenced_row_of_run, is_of_run, owner_text, present_row, stream_token


class Position:
    """The position of one stream in one attempt of the run. Only the stream's own threads change it."""

    def __init__(self, context: StreamContext, planned: PlannedStream) -> None:
        self._context = context
        self._planned = planned
        #: Number of this attempt among all attempts of the run's attempt. The token is derived from it.
        self.number = 0
        self.token = ""
        #: The bookmark at which the attempt starts. `None` if it reads the stream from scratch.
        self.start: Bookmark | None = None
        #: The bookmark of the last commit, and the number of commits.
        self.committed: Bookmark | None = None
        self.commits = 0
        #: The ledger's bookmark when the attempt began.
        self.held: Bookmark | None = None
        #: Column names from the ledger.
        self.columns: Mapping[str, str] = {}
        #: Time of the last key comparison, from the ledger.
        self.compared_at: datetime | None = None
        #: The log from which the stream is read, from the ledger.
        self.log: Mapping[str, Any] = {}
        #: `TableState.identity` of the table that the attempt continues. `None` if it starts from scratch.
        self.begun_in: str | None = None
        #: True if the ledger row belongs to a lost table.
        self.is_row_stale = False
        #: The ledger's state of a history.
        self._history: Mapping[str, Any] = {}
        #: `LedgerRow.source` after the commit of the load. Empty if the row already has it.
        self._source_to_be = ""

    @property
    def planned_row(self) -> LedgerRow:
        """The ledger row as it was when the stream was planned."""
        key = self._planned.key
        return ledger_row(self._planned.table, key) or LedgerRow(key=key, source="", token="")

    def take(self, number: int, *, takes_back: bool) -> LedgerRow:
        """Write the token of an attempt into the ledger row, and return the row.

        Args:
            number: number of the attempt among all attempts of the run's attempt.
            takes_back: true if the attempt takes the stream back from another run.

        Raises:
            TakenOver: another run has the stream. A retry must not take it back.
        """
        context = self._context
        self.number, self.token = number, stream_token(context.run, self._planned.name, number)
        if number > 1 and not takes_back:
            row = present_row(context.destination, self._planned.key)
            if row is not None and not self.is_ours(row):
                raise taken_over(self._planned.name, row.owner)
        failpoint("stream.before_take_over")
        row = self._take_over()
        failpoint("stream.after_take_over")
        return row

    def _take_over(self, *, is_row_kept: bool = True) -> LedgerRow:
        context, source = self._context, source_of(self._context.source_name, self._planned)
        before = self.planned_row
        # Until a commit changes this, the table has the records of the former query or filter.
        is_held = is_row_kept and before.committed_at is not None
        is_held = is_held and before.source != source and unmarked(before.source) == unmarked(source)
        self._source_to_be = source if is_held else ""
        row = context.destination.take_over(
            self._planned.key, token=self.token, owner=owner_text(context.run), source=None if is_held else source
        )
        if self._has_moved(row) and falls_behind(self._planned, row):
            raise SyncError("another run has written newer versions since this one was planned: run it again")
        self.columns, self._history, self.compared_at = row.columns, row.history, row.compared_at
        self.log = row.log
        return row

    def is_ours(self, row: LedgerRow) -> bool:
        """Return true unless another run has written its token into the row."""
        return is_of_run(row, self._context.run, self.number)

    def decide_start(self, row: LedgerRow, *, is_first: bool) -> Bookmark | None:
        """Decide where the attempt starts, and return what the source reads from.

        Args:
            row: the row that `take` returned.
            is_first: true for the first attempt, which starts where the plan says unless the row has changed.

        Raises:
            SyncError: the stream cannot continue in its table.
        """
        self.held = row.bookmark
        if self.is_row_stale:
            row = self._forget()
        is_planned = is_first and not self._has_moved(row)
        self.start = self._starting_point(row, is_planned=is_planned)
        if self._planned.write.changes and self.start is None:
            raise SyncError("its table has to be copied anew, which the next run does: run it again")
        keeps = self._context.destination_can.keeps_files
        if self.start is not None and not is_planned and self._planned.stream.read.tracks_files and keeps is not None:
            return {**self.start, FILES: keeps.files_read(self._planned.key)}
        return self.start

    def _forget(self) -> LedgerRow:
        """Clear the ledger row of a lost table. After a crash, its bookmark would apply to the new table."""
        # The log's objects in the source stay ours.
        self._context.destination.set_bookmark(self._planned.key, None, forget=not is_logged(self._planned.stream))
        self.is_row_stale = False
        return self._take_over(is_row_kept=False)

    def _has_moved(self, row: LedgerRow) -> bool:
        """Return true if another run has committed since the plan was made."""
        before = self.planned_row
        return (row.bookmark, row.completed_by, row.committed_at) != (
            before.bookmark,
            before.completed_by,
            before.committed_at,
        )

    def _starting_point(self, row: LedgerRow, *, is_planned: bool) -> Bookmark | None:
        """Decide the start under the token, because the table may have been dropped since the plan."""
        planned, start = self._planned, self._planned.start.bookmark
        self.begun_in = None
        if start is not None or not is_planned:
            table = self._table()
            if not is_planned or (table.schema is None and table.is_described):
                start = self._given(self._restart(row, table))
            if start is not None and table.schema is not None:  # otherwise the bookmark was set before the first run
                self.begun_in = table.identity
        if start is None and row.bookmark is not None and not planned.commits_once:
            self._forget()
        return start

    def _table(self) -> TableState:
        name = self._planned.key.destination_table
        return self._context.destination.describe([name])[name]

    def note_altered_table(self) -> None:
        """Read the identity of the table again, because some systems give an altered table a new one."""
        if self.begun_in is not None:
            self.begun_in = self._table().identity

    def _given(self, start: Bookmark | None) -> Bookmark | None:
        """Start at a bookmark from the command line, except for an append's later records."""
        planned = self._planned
        if not planned.start.is_given:
            return start
        if planned.write.disposition is WriteDisposition.APPEND:  # if both are equal, the ledger's has hashes
            return not_below(planned.stream, start, planned.start.bookmark)
        return planned.start.bookmark

    def _restart(self, row: LedgerRow, table: TableState) -> Bookmark | None:
        planned, before = self._planned, self.planned_row
        # An empty table that an earlier attempt created does not prove a commit.
        is_known = self.commits > 0 or before.committed_at is not None or before.bookmark is not None
        start = starting_point(
            planned,
            table,
            row,
            is_known=is_known,
            sources=(self._context.source_name, self._context.source.identity()),
            full_refresh=planned.commits_once,
        )
        if isinstance(start, str):
            raise SyncError(start)
        return start.bookmark

    def note_log(self, log: Mapping[str, Any]) -> None:
        """Write the stream's log into the ledger."""
        notes = self._context.destination_can.notes_log
        assert notes is not None, "the plan checks this"
        if dict(self.log) != dict(log):
            notes.note_log(self._planned.key, self.token, log)
            self.log = log

    @property
    def log_bookmark(self) -> Bookmark | None:
        """The committed log position up to which the table is complete. `None` if the table must be copied."""
        if self.commits:
            return self.committed
        # A replaced table stays unchanged until the end.
        return self.held if self.start is not None or self._planned.commits_once else None

    def history(self) -> HistoryLoad | None:
        """Return what a load needs to know of the table's history. `None` if the stream does not keep a history."""
        if (history := self._planned.policy.added.history) is None:
            return None
        is_anew = self._planned.replacing.drops_history and self.start is None and not self.commits
        return history_load(self._planned, history, self._history, starts_over=is_anew)

    def note_commit(self, commit: Commit) -> None:
        """Record a durable commit."""
        if commit.is_confirmed:
            self.committed = commit.checkpoint.bookmark
            self.commits += 1  # last, because another thread reads `log_bookmark`

    def note_committed_row(self, row: LedgerRow) -> None:
        """Record the last commit from the ledger, because its answer never arrived."""
        self.commits += 1
        self.committed = row.bookmark

    def note_source(self) -> None:
        """Write the query and the filter of the committed records into the ledger, if they have changed."""
        if not self._source_to_be:
            return
        context, source, self._source_to_be = self._context, self._source_to_be, ""
        row = present_row(context.destination, self._planned.key)
        if row is None or self.is_ours(row):  # otherwise another run has begun meanwhile, and notes it
            owner = owner_text(context.run)
            context.destination.take_over(self._planned.key, token=self.token, owner=owner, source=source)

    def fenced_row(self) -> LedgerRow:
        """Fence the attempts of this run at the stream, and return the ledger row.

        Raises:
            LedgerUnreadable: the destination cannot be reached.
        """
        context = self._context
        return fenced_row_of_run(
            context.destination, self._planned.key, context.run, self.number, owner=owner_text(context.run)
        )


__all__ = ["Position"]
