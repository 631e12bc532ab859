"""Parallel reads of one stream by ranges: several readers fill one feed, or one loader each."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from syncblocks.connectors.errors import ConnectorError, RetriableError
from syncblocks.connectors.ranges import OpenRanges, Range, RangesRefused, SnapshotLost
from syncblocks.connectors.stream import Block, Checkpoint, Event, Stream

from ..flow.feed import Feed, Item, is_batch, size_of
from ..flow.record_size import refuse_wide
from ..plan.source_marks import masks_mark
from .stream import StreamRun

log = logging.getLogger("syncblocks")


def start_reading_ranges(opened: OpenRanges, readers: int, feed: Feed) -> None:
    """Start readers that read the ranges into one feed, until it is closed or a reader fails.

    The last batch is held back until every reader has ended, so that it can be marked as the last. Ranges are
    interleaved: records have no order.
    """
    _Readers(opened, feed).start(readers)


class _Readers:
    def __init__(self, opened: OpenRanges, feed: Feed) -> None:
        self._opened = opened
        self._feed = feed
        self._waiting = list(reversed(opened.ranges))
        self._lock = threading.Lock()
        self._last: Any = None
        self._has_failed = False
        self._running = 0

    def start(self, readers: int) -> None:
        self._running = min(readers, len(self._waiting))
        for number in range(self._running):
            name = f"read-{self._feed.stream}-{number}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        part = None
        try:
            while (part := self._take()) is not None:
                events = self._opened.read(part)
                try:
                    for event in events:
                        if not self._pass_on(event):
                            return
                finally:
                    _close(events)
        except BaseException as error:  # the load raises it in its own thread
            with self._lock:
                self._waiting, self._last, self._has_failed = [], None, True
                self._feed.end(error if part is None else named(error, part, self._opened.ranges))
        finally:
            self._end()

    def _take(self) -> Range | None:
        with self._lock:
            return self._waiting.pop() if self._waiting and not self._feed.is_closed else None

    def _pass_on(self, event: Any) -> bool:
        """Put the previous event into the feed and keep this one; the lock limits the memory."""
        if not is_batch(event):
            raise RangesRefused("the stream's columns changed during the read", stream=self._feed.stream)
        self._feed.refuse_too_wide(event)
        with self._lock:
            if self._has_failed:
                return False
            former, self._last = self._last, event
            return former is None or self._feed.put(Item(former))

    def _end(self) -> None:
        with self._lock:
            self._running -= 1
            if self._running:
                return
            if self._last is not None:
                self._feed.put(Item(self._last, is_last=True))
            self._feed.end()


def load_ranges(run: StreamRun, opened: OpenRanges) -> None:
    """Load all ranges, several at once; raises the error that stopped the load."""
    run.check()
    planned, loads = run.planned, run.context.destination_can.loads_ranges
    assert loads is not None, "the plan looked"
    reads = StreamRanges(run, opened)
    load = run.load_order(planned.arriving)
    try:
        for commit in loads.load_ranges(load, reads, planned.reading.loaders, planned.wire):
            run.note_commit(commit)
    except BaseException as error:
        if reads.is_from_source(error):
            run.blocks.fail_in_source()
        raise
    run.arrive(load.stream)


class StreamRanges:
    """The ranges of one stream for the loaders; implements `StreamRanges` of the connectors."""

    def __init__(self, run: StreamRun, opened: OpenRanges) -> None:
        self._run = run
        self._opened = opened
        self._lock = threading.Lock()
        #: Number of a range -> records and bytes passed to a loader; (0, 0) for a range that starts again.
        self._read: dict[int, tuple[int, int]] = {}
        self._whole: set[int] = set()
        self._source_errors: list[BaseException] = []
        #: Batches in loaders; guarded by the budget's lock.
        self._in_flight = 0

    @property
    def ranges(self) -> Sequence[Range]:
        """All ranges of the stream."""
        return self._opened.ranges

    @property
    def moment(self) -> Mapping[str, Any] | None:
        """The source's snapshot by which an interrupted load is resumed."""
        return self._opened.moment

    @property
    def shape(self) -> str:
        """The format of the records: version, wire, schemas, conversions. A resumed load must have the same."""
        from importlib.metadata import version  # imports all of `email` and `zipfile`

        planned = self._run.planned
        schemas = (planned.stream.schema, planned.arriving.schema)
        texts = [str(schema.to_string(show_field_metadata=True, truncate_metadata=False)) for schema in schemas]
        conversions = [column.conversion for column in planned.mapping.columns]
        masks = masks_mark(planned.stream)
        return repr([version("syncblocks"), planned.wire, texts, conversions, *filter(None, [masks])])

    def resume(self, moment: Mapping[str, Any], loaded: Mapping[int, tuple[int, int]]) -> bool:
        """Continue an earlier load if the source still has the same records in its loaded ranges."""
        try:
            is_resumed = self._opened.resume(moment, {place: rows for place, (rows, _) in loaded.items()})
        except BaseException as error:
            self._source_errors.append(error)
            raise
        of_all = f"{len(loaded)} of {len(moment.get('ranges', self.ranges))} ranges were loaded before it was cut short"
        end = "and are kept" if is_resumed else "but the source has changed since: they are loaded again"
        self._run.context.progress.message(f"{self._run.name}: {of_all}, {end}")
        if not is_resumed:
            return False
        # The number of records in raw blocks is known only after the commit.
        is_counted = self._run.planned.wire == "arrow"
        with self._lock:
            self._read = {place: known if is_counted else (0, 0) for place, known in loaded.items()}
            self._whole = set(loaded)
            self._note_all()
        return True

    def is_kept(self, error: BaseException) -> bool:
        """Whether to keep loaded ranges: another attempt or run may continue them, unless it would fail again."""
        return isinstance(error, RetriableError) or self._run.stop_reason is not None

    def read(self, part: Range) -> Generator[Event | Block, None, None]:
        """Yield a range's data in the form that the destination gets."""
        convert = self._run.planned.mapping.convert
        self._note(part, (0, 0), is_whole=False)
        records = size_bytes = 0
        for event, is_last in self._ahead(part):  # closed with this generator
            self._run.check()
            if isinstance(event, Checkpoint | Stream):
                raise RangesRefused("the stream's columns changed during the read", stream=self._run.name)
            if isinstance(event, pa.RecordBatch):
                records += event.num_rows
                size_bytes += event.nbytes
                self._run.context.progress.advanced(self._run.name, records=event.num_rows, size_bytes=event.nbytes)
                event = convert(event)
            else:
                self._run.context.progress.advanced(self._run.name, records=0, size_bytes=size_of(event))
            self._note(part, (records, size_bytes), is_whole=is_last)
            with self._in_budget(size_of(event)):
                yield event
        self._note(part, (records, size_bytes), is_whole=True)

    def may_repeat(self, part: Range, error: ConnectorError) -> bool:
        """Use one of the stream's retries for a range; the snapshot and the loaded data remain."""
        is_hopeless = isinstance(error, SnapshotLost) or not isinstance(error, RetriableError)
        if is_hopeless or not self._run.take_retry():
            return False
        delay_s = self._run.planned.policy.retry_delay_s
        shown = self._run.shown(error)
        log.warning("%s: range %s failed and is repeated in %g s: %s", self._run.name, part.label, delay_s, shown)
        self._run.wait_for_retry(delay_s)
        return self._run.stop_reason is None

    def give_up(self) -> None:
        """Interrupt all reads of the stream."""
        try:
            self._run.context.source.interrupt(self._run.name)
        except ConnectorError as error:
            log.debug("%s: interrupt: %s", self._run.name, error)

    def final(self) -> Checkpoint:
        """Return the final checkpoint; raises if the stream has been stopped."""
        return self._run.send_final()

    def is_from_source(self, error: BaseException) -> bool:
        """Return whether the source raised this error."""
        return any(error is known for known in self._source_errors)

    @contextmanager
    def _in_budget(self, size_bytes: int) -> Iterator[None]:
        """Wait for memory for a batch, and count the batch until the loader asks for the next one."""
        budget = self._run.context.budget
        with budget.changed:
            while self._in_flight and not budget.has_room(size_bytes):
                budget.changed.wait(1.0)
                self._run.check()
            self._in_flight += 1
            budget.used_bytes += size_bytes
        try:
            yield
        finally:
            with budget.changed:
                self._in_flight -= 1
                budget.used_bytes -= size_bytes
                budget.changed.notify_all()

    def _note(self, part: Range, read: tuple[int, int], *, is_whole: bool) -> None:
        with self._lock:
            self._read[part.place] = read
            if is_whole:
                self._whole.add(part.place)
            else:
                self._whole.discard(part.place)
            self._note_all()

    def _note_all(self) -> None:
        rows, size_bytes = map(sum, zip(*self._read.values(), strict=True))
        self._run.blocks.note_read(rows, size_bytes, is_whole=len(self._whole) == len(self._opened.ranges))

    def _ahead(self, part: Range) -> Iterator[tuple[Any, bool]]:
        """Read one event ahead; yield each event, and whether it is the last one."""
        events = self._opened.read(part)
        most_bytes = self._run.context.budget.record_bytes
        pending: list[Any] = []
        try:
            while True:
                try:
                    event = next(events, None)
                    if size_of(event) > most_bytes:
                        refuse_wide(event, most_bytes, self._run.planned.stream.key_properties)
                except BaseException as error:
                    self._source_errors.append(error)
                    raise
                if pending:
                    yield pending.pop(), event is None
                if event is None:
                    return
                pending.append(event)
        finally:
            _close(events)


def named(error: BaseException, part: Range, ranges: Sequence[Range]) -> BaseException:
    """Add the range to the message of a connector's error."""
    if isinstance(error, ConnectorError) and not isinstance(error, RangesRefused):
        error.extended(before=f"range {part.place + 1} of {len(ranges)} ({part.label}): ")
    return error


def _close(events: Any) -> None:
    close = getattr(events, "close", None)
    if close is not None:
        close()
