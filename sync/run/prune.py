"""Removes runs beyond the limits of `history`: rows in the run store, spool files and process output."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple

from ..config import Pipeline
from ..flow.spool import discard_spools
from ..store import Store
from ..store.prune import LOOK_RUNS

log = logging.getLogger("syncblocks")

#: Maximum of runs removed at the end of one run: many old runs do not delay it, and each run removes more than it adds.
MOST_AT_END = 100


class Pruned(NamedTuple):
    """Result of a prune."""

    #: Runs removed, or to be removed.
    runs: int
    #: Runs beyond the limits that are still needed.
    held: int


def prune(
    pipeline: Pipeline,
    store: Store,
    *,
    keep: timedelta | None,
    keep_runs: int | None,
    most: int | None = None,
    is_dry_run: bool = False,
) -> Pruned:
    """Remove the runs of a pipeline that are past either limit, the oldest first.

    Files are removed before the rows that name them, so an interrupted prune leaves no files behind.

    Args:
        pipeline: the runs' pipeline.
        store: its run store.
        keep: time that a run is kept after its end.
        keep_runs: number of newest runs to keep.
        most: stop after this many; None: remove all.
        is_dry_run: only count.
    """
    runs = held = after = 0
    while True:
        past = store.past_runs(pipeline.pipeline, keep=keep, keep_runs=keep_runs, after=after, most=most or LOOK_RUNS)
        held += past.held
        if is_dry_run:
            runs += len(past.runs)
        elif past.runs:
            discard_spools(pipeline, [run.key for run in past.runs])
            _remove_logs(pipeline, past.ticks)
            runs += store.remove_runs(past.runs)
        if past.last is None or (most is not None and runs >= most):
            break
        after = past.last
    while not is_dry_run and (ticks := store.ticks_without_run(pipeline.pipeline, keep=keep, keep_runs=keep_runs)):
        _remove_logs(pipeline, ticks)
        store.remove_ticks(ticks)
        if most is not None:
            break
    while not is_dry_run and store.remove_actions(pipeline.pipeline, keep=keep, keep_runs=keep_runs):
        if most is not None:
            break
    return Pruned(runs, held)


def prune_at_end(pipeline: Pipeline, store: Store) -> None:
    """Prune by the pipeline file's limits; an error becomes a warning, since the run has ended."""
    assert pipeline.history is not None, "without `history` nothing is pruned"
    history = pipeline.history
    try:
        prune(pipeline, store, keep=history.kept_for, keep_runs=history.keep_runs, most=MOST_AT_END)
    except Exception as error:  # the run store, or the file system of the spool
        log.warning("old runs stay, the next run removes them: %s", error)


def _remove_logs(pipeline: Pipeline, ticks: Iterable[int]) -> None:
    for tick in ticks:
        pipeline.tick_log(tick).unlink(missing_ok=True)


__all__ = ["Pruned", "prune", "prune_at_end"]
