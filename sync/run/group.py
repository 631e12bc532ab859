"""A group: the streams that one read returns together, with their retries. Each group runs in a separate thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress

from syncblocks.connectors.stream import Bookmark

from ..flow.feed import Feed, Readable, start_reading
from ..plan.features.log_based import is_logged
from .errors import LedgerUnreadable
from .stream import StreamRun

#: Maximum of streams of one log loaded at once: each needs a connection.
_LOG_LOADS = 8


def run_group(runs: Sequence[StreamRun]) -> None:
    """Run the streams of one group, with their retries, until each has ended.

    One read feeds all streams of the group; each stream is loaded in a separate thread. A group with one stream runs in
    the calling thread. A stream's error ends only the stream; it is never raised here.
    """
    _run(runs, 0, {})


def run_from(run: StreamRun, error: BaseException | None) -> None:
    """Decide about a stream's last attempt, and continue until the stream has ended."""
    _run([run], run.attempt, {run.name: error})


def _run(runs: Sequence[StreamRun], attempt: int, errors: dict[str, BaseException | None]) -> None:
    """Continue after an attempt with these errors; none: begin."""
    pending = list(runs)
    while pending:
        if not errors:
            attempt += 1
            errors = _try_group(pending, attempt, [run for run in runs if run not in pending])
        pending = [run for run in pending if _is_pending(run, errors.get(run.name), attempt)]
        if pending:
            delay_s = max(run.planned.policy.retry_delay_s for run in pending)
            for run in pending:
                error = errors[run.name]
                assert error is not None  # no other stream is pending
                if run.begins_anew(error):
                    delay_s = 0.0
                    continue
                run.report_retry(error)
                run.context.progress.retrying(run.name, attempt=attempt, delay_s=delay_s, error=run.shown(error))
            pending[0].wait_for_retry(delay_s)
        errors = {}


def _is_pending(run: StreamRun, error: BaseException | None, attempt: int) -> bool:
    with suppress(LedgerUnreadable):  # `end` reads the ledger again, and its message names the error before that
        if error is not None and run.wants_retry(error, attempt):
            return True
    if error is not None or not run.awaits_completion:
        run.end(error)
    return False


def _try_group(runs: Sequence[StreamRun], attempt: int, ended: Sequence[StreamRun]) -> dict[str, BaseException | None]:
    errors: dict[str, BaseException | None] = {}
    bookmarks: dict[str, Bookmark | None] = {}
    for run in runs:
        try:
            bookmarks[run.name] = run.begin(attempt)
            run.before_read()
        except BaseException as error:  # an error of a connector ends this stream only
            errors[run.name] = error
    ready = [run for run in runs if run.name not in errors]
    if not ready:
        return errors
    if len(ready) == 1 and ready[0].retries.reads_ranges and _try_ranges(ready[0], errors):
        return errors
    if is_logged(ready[0].planned.stream):
        _try_log(ready, ended, bookmarks, errors)
    else:
        _load_group(_source_of(ready[0]), ready, bookmarks, errors)
    return errors


def _try_log(
    ready: Sequence[StreamRun],
    ended: Sequence[StreamRun],
    bookmarks: Mapping[str, Bookmark | None],
    errors: dict[str, BaseException | None],
) -> None:
    """Load streams that are read from the log."""
    from .log_based import opened_log  # few pipelines have any

    try:
        with opened_log(ready, ended) as opened:
            _load_group(opened, ready, bookmarks, errors)
            opened.confirm([run.name for run in ready if errors.get(run.name) is None])
            for run in ready:
                run.note_lag(opened.lag(run.name))
    except BaseException as error:  # decided in StreamRun.end
        for run in ready:
            run.blocks.fail_in_source()
            errors.setdefault(run.name, error)


def _load_group(
    source: Readable,
    ready: Sequence[StreamRun],
    bookmarks: Mapping[str, Bookmark | None],
    errors: dict[str, BaseException | None],
) -> None:
    """Load each stream of a group in a separate thread, while one thread reads all of them."""
    context = ready[0].context
    wire = ready[0].planned.wire  # the same for all streams of a group
    # If the destination allows fewer loads than the group has streams, the other streams wait on disk.
    limit = context.destination.max_loads or len(ready)
    if is_logged(ready[0].planned.stream):  # a tap's streams all have records, a log's mostly not
        limit = min(limit, _LOG_LOADS)
    waiting = {run.name for run in ready[limit:]}
    gate = threading.Semaphore(0)

    keys = {run.name: run.planned.stream.key_properties for run in ready}

    def make_feed(name: str) -> Feed:
        if name in waiting:
            from ..flow.spooled_feed import SpooledFeed

            return SpooledFeed(name, context.spool_folder, context.budget, keys[name])
        return Feed(name, context.budget, keys[name])

    feeds = start_reading(source, [run.read_stream for run in ready], bookmarks, wire, make_feed)

    def load(run: StreamRun) -> None:
        if run.name in waiting:
            gate.acquire()
        try:
            _try_load(run, feeds[run.name], errors)
        finally:
            gate.release()

    threads = [threading.Thread(target=load, args=(run,), name=f"load-{run.name}", daemon=True) for run in ready[1:]]
    for thread in threads:
        thread.start()
    load(ready[0])
    for thread in threads:
        thread.join()


def _source_of(run: StreamRun) -> Readable:
    """Return the source of a stream; a repair reads only a part of it."""
    context, repair = run.context, run.planned.repair
    if repair is None:
        return context.source
    from ..verify.repair import NarrowedSource

    return NarrowedSource(context.source, context.source_can, repair)


def _try_ranges(run: StreamRun, errors: dict[str, BaseException | None]) -> bool:
    """Load a stream by ranges; return False, without any effect, if it is too small for ranges."""
    from .ranges import load_ranges, start_reading_ranges

    planned, source = run.planned, run.context.source_can.reads_ranges
    assert source is not None, "the plan checks this"
    stream, reading = planned.stream, planned.reading
    try:
        with ExitStack() as stack:
            try:
                opened = stack.enter_context(source.open_ranges(stream, reading.readers, planned.wire))
            except Exception:
                run.blocks.fail_in_source()
                raise
            if len(opened.ranges) < 2:
                return False
            if reading.loaders > 1:
                load_ranges(run, opened)
            else:
                feed = Feed(stream.name, run.context.budget, stream.key_properties)
                start_reading_ranges(opened, reading.readers, feed)
                run.load(feed)
    except BaseException as error:  # decided in StreamRun.end
        errors[run.name] = error
    else:
        errors[run.name] = None
    return True


def _try_load(run: StreamRun, feed: Feed, errors: dict[str, BaseException | None]) -> None:
    try:
        run.load(feed)
    except BaseException as error:  # decided in StreamRun.end; an exit must not end a thread either
        errors[run.name] = error
    else:
        errors[run.name] = None
