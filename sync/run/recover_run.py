"""Ends the run of a dead process, and delivers due callbacks, without new work."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from syncblocks.connectors.errors import ConnectorError

from ..config import Pipeline, load_pipeline
from ..config.arguments import AnyPipeline, checks_arguments
from ..store import Store
from ..store.model import PipelineRun
from .progress import Progress
from .runner import PipelineRunner, RunnerOptions
from .ticks import start_unserved

log = logging.getLogger("syncblocks")

#: Newer files may be of a load under way.
LEFTOVER_AGE = timedelta(days=1)

#: Most waiting starts that one `recover` begins: their runs come one after the other.
MOST_STARTED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """Result of `recover`."""

    #: The dead process's run, now ended; None: there was none.
    run: PipelineRun | None
    #: Callback deliveries by state, of this run and of runs with due deliveries.
    callbacks: Mapping[str, int] = field(default_factory=dict)
    #: Numbers of the waiting `trigger_pipeline` starts that it has begun, each in a separate process.
    ticks: tuple[int, ...] = ()
    #: Files of the destination that no commit names, older than a day: path -> bytes.
    leftovers: Mapping[str, int] = field(default_factory=dict)
    #: Number of the signal that cut it short.
    signal: int | None = None

    @property
    def exit_code(self) -> int:
        """Exit code: 0 done, 3 a callback is due or dead, 128 + signal."""
        if self.signal is not None:
            return 128 + self.signal
        return 3 if self.callbacks.get("dead") or self.callbacks.get("due") else 0


@checks_arguments
def recover(
    pipeline: AnyPipeline,
    *,
    wait_for_other: bool = False,
    inline_callbacks: bool = False,
    remove_files: bool = False,
    progress: Progress | None = None,
) -> Recovered:
    """End the run that a dead process left, and deliver due callbacks; run no stream.

    The destination's ledger decides how each stream ended, as in the next start of the pipeline, which does the same
    before its own work. The source is not asked. Waiting starts of `trigger_pipeline` begin, each in a separate
    process. Repeatedly interrupted calls come last: they may end this process too.

    Some destinations list files that killed runs of any pipeline have left in their tables (`ListsLeftovers`).

    Args:
        pipeline: result of `load_pipeline`, or its argument.
        wait_for_other: wait for an active run of the same pipeline instead of refusing.
        inline_callbacks: run callbacks in this process, for a debugger.
        remove_files: delete the destination's files that no commit names and that are older than a day.
        progress: gets a call for each event.

    Raises:
        ConfigError: the file, or a part that it names, is wrong.
        AlreadyRunning: a living process runs this pipeline.
        LedgerUnreadable: the destination cannot be reached; the run stays open.
    """
    if not (isinstance(pipeline, Pipeline) and pipeline.is_loaded):
        pipeline = load_pipeline(pipeline)
    order = RunnerOptions(wait_for_other=wait_for_other)
    with PipelineRunner(pipeline, progress or Progress(), order, inline_callbacks=inline_callbacks) as runner:
        if not Store.exists(pipeline.store_url):
            return Recovered(run=None, leftovers=_leftovers(runner, is_removing=remove_files))
        runner.open_store()
        due = runner.outbox.deliveries.open_runs()
        run = runner.clear_up()
        ticks = () if runner.signals else _started(pipeline, runner.store)
        leftovers = {} if runner.signals else _leftovers(runner, is_removing=remove_files)
        runner.deliver_lost()
        ids = {*due, *runner.run_ids}
        return Recovered(
            run=run,
            callbacks=runner.outbox.deliveries.counts(ids) if ids else {},
            ticks=ticks,
            leftovers=leftovers,
            signal=runner.signals[0] if runner.signals else None,
        )


def _leftovers(runner: PipelineRunner, *, is_removing: bool) -> Mapping[str, int]:
    """List files that killed runs have left; an error counts where they are to be removed."""
    lists = runner.session.destination_can.lists_leftovers
    if lists is None:
        return {}
    try:
        return lists.leftovers(datetime.now(UTC) - LEFTOVER_AGE, is_removing=is_removing)
    except ConnectorError as error:
        if is_removing:
            raise
        log.warning("files that killed runs may have left could not be listed: %s", error)
        return {}


def _started(pipeline: Pipeline, store: Store) -> tuple[int, ...]:
    """Begin the oldest waiting starts of a pipeline file; a start that waits for another already has a process.

    A running server begins them itself.
    """
    if pipeline.path is None:
        return ()
    ticks = store.startable_ticks(pipeline.pipeline, "callback")[:MOST_STARTED]
    return tuple(tick.id for tick in ticks if start_unserved(pipeline, store, tick))
