"""Runs past the limits of `history` go: their rows in the run store, spool files and output of their processes."""

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

#: Runs that the end of one run removes: a long past does not delay it, and each run removes more than it adds.
MOST_AT_END = 100


class Pruned(NamedTuple):
    """What a prune has found."""

    #: Runs that are gone, or would go.
    runs: int
    #: Runs past the limits that stay, since something needs them.
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

    Files go before the rows that name them, so a prune that is cut short leaves none behind.

    Args:
        pipeline: Whose runs.
        store: Its run store.
        keep: How long a run is kept after its end.
        keep_runs: How many of the newest are kept.
        most: End soon after so many; None: remove all.
        is_dry_run: Only count.
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
    """Prune as the pipeline file says; what goes wrong is a warning, since the run has ended."""
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
