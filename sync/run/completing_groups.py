"""A group of streams that foreign keys join: it loads parents first, and deletes children first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .errors import JoinedFailed, Stopped
from .group import run_from, run_group
from .stream import StreamRun
from .stream_blocks import FAILURE, SUCCESS


def run_joined(runs: Sequence[StreamRun]) -> None:
    """Run streams, parents first, until each has ended.

    The streams are loaded in order, with their retries. Then all look for missing records, and each deletes them in a
    separate transaction. A stream that deletes nothing ends with its load.
    """
    for run in runs:
        run.waits_to_complete = True
        run.wait()
    failed = _load(runs)
    waiting = [run for run in runs if run.awaits_completion]
    if failed is not None:
        for run in waiting:
            _give_up(run, failed)
        return
    errors = {}
    # Parents first: a record that a child still refers to was not missing in the parent's earlier comparison.
    for run in waiting:
        run.go_on()
        errors[run.name] = _error_of(run.prepare)
        run.wait()
    for run in reversed(waiting):
        child = _failed_child(run, runs)
        if child is not None:
            _give_up(run, child)
        elif failed is not None and not run.context.pipeline.allow_blocks_to_fail:
            _end(run, Stopped(f"another stream failed: {failed.name}"))
        else:
            _delete(run, errors[run.name])
        failed = failed or (None if run.status == SUCCESS else run)


def _load(runs: Sequence[StreamRun]) -> StreamRun | None:
    """Load one stream after the other; return the first that did not succeed."""
    failed: StreamRun | None = None
    for run in runs:
        if failed is not None and not run.context.pipeline.allow_blocks_to_fail:
            _end(run, Stopped(f"another stream failed: {failed.name}"))
            continue
        run.go_on()
        run_group([run])
        if run.awaits_completion:
            run.wait()
        elif run.status != SUCCESS:
            failed = failed or run
    return failed


def _delete(run: StreamRun, error: BaseException | None) -> None:
    """Delete the found records, or decide about the error; a further attempt loads the stream again."""
    run.go_on()
    run.waits_to_complete = False
    run_from(run, error or _error_of(run.complete))


def _error_of(step: Callable[[], None]) -> BaseException | None:
    try:
        step()
    except BaseException as error:  # decided in StreamRun.end
        return error
    return None


def _failed_child(run: StreamRun, runs: Sequence[StreamRun]) -> StreamRun | None:
    """Return a stream that ended without success and whose table refers to this one's."""
    ended = (each for each in runs if run.name in each.planned.placement.parents and each.status is not None)
    return next((each for each in ended if each.status != SUCCESS), None)


def _give_up(run: StreamRun, other: StreamRun) -> None:
    """End a stream whose load is committed, since another stream of the group did not succeed."""
    if other.status != FAILURE:
        _end(run, Stopped(f"another stream was cancelled: {other.name}"))
        return
    text = (
        f"nothing was deleted: foreign keys connect its table to that of stream {other.name!r}, which has failed. "
        "The loaded records are committed; the next run looks for deleted records again"
    )
    _end(run, JoinedFailed(text))


def _end(run: StreamRun, error: BaseException) -> None:
    run.go_on()
    run.end(error)


__all__ = ["run_joined"]
