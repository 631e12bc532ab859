"""`finish_run`: stops unstarted streams, closes the streams of dead tasks, and calls callbacks."""

from __future__ import annotations

import time
from contextlib import suppress

from syncblocks.connectors.struct_helpers import replace

from ...config import Pipeline, load_pipeline
from ...config.arguments import AnyPipeline, checks_arguments
from ...config.executor import THREADS
from ...errors import AlreadyRunning, RunFinished, StateError
from ...flow.spool import discard_spools
from ...session.inspection import existing_store
from ...store import Store
from ...store.model import FAILURE, SUCCESS, UNCLAIMED, LostRun, PipelineRun
from ..executors.opening import with_executor
from ..lease import RunLease
from ..notebook import default_progress
from ..pipeline import as_of_run
from ..progress import Progress
from ..recovery.unfinished_runs import close_left_streams
from ..results import RunResult, StreamResults
from ..runner import PipelineRunner, RunnerOptions
from .recorded import recorded_results

#: Seconds between two checks whether tasks still run.
POLL_S = 0.5


@checks_arguments
def finish_run(
    pipeline: AnyPipeline,
    run_id: int,
    *,
    progress: Progress | None = None,
    signals: list[int] | None = None,
) -> RunResult:
    """End a mapped run after all of its tasks are done, whatever their results; deliver its callbacks.

    Streams that no task has claimed never start, and streams of running tasks are cancelled. For tasks that have died,
    the destination's ledger tells how their streams ended. May be repeated: for a finished run it only reports the
    result.

    Args:
        pipeline: the same as in `open_run`.
        run_id: number of the mapped run.
        progress: called for each event.
        signals: numbers of signals that the caller has received; an added number stops the wait for callbacks.

    Returns:
        The result of the run over all its attempts: `failure` if some stream never succeeded.

    Raises:
        ConfigError: the file is wrong.
        StateError: the pipeline has no such run.
        AlreadyRunning: another process is finishing it.
        LedgerUnreadable: the destination cannot report how a dead task's stream ended; the run stays open.
    """
    pipeline, run = of_run(pipeline, run_id)
    with Finisher(
        pipeline, progress or default_progress(), RunnerOptions(), inline_callbacks=False, signals=signals
    ) as one:
        return one.finish(run)


def of_run(given: AnyPipeline, run_id: int) -> tuple[Pipeline, PipelineRun]:
    """Return a pipeline as it was for one of its runs, and the run.

    Raises:
        ConfigError: the file is wrong.
        StateError: the pipeline has no such run.
    """
    pipeline = given if isinstance(given, Pipeline) and given.is_loaded else load_pipeline(given)
    with existing_store(pipeline) as store:
        if store is None:
            raise StateError(f"pipeline {pipeline.pipeline!r} has no run {run_id}: there is no run store")
        run = store.run(run_id)
    if run.pipeline != pipeline.pipeline:
        raise StateError(f"run {run_id} is one of pipeline {run.pipeline!r}, not of {pipeline.pipeline!r}")
    return with_executor(as_of_run(pipeline, run), THREADS), run


class Finisher(PipelineRunner):
    """One process's work at the end of a mapped run."""

    def finish(self, run: PipelineRun) -> RunResult:
        """End the run; see `finish_run`."""
        self.open_store()
        self.run_ids.append(run.id)
        if not self._take(run):
            return self._finished_before(run)
        run = self._unfinished_run = self.store.run(run.id)
        with RunLease(self.store, run.id):
            close_left_streams(self.store, run, self.session.destination)
            ended = self.store.end_attempt(run.id)
            self.progress.run_ended(ended)
            result = self.deliver(ended, (), None)
            discard_spools(self.pipeline, [run.key], keep=self.outbox.deliveries.open_data())
        return self._told(result)

    def _take(self, run: PipelineRun) -> bool:
        """Stop the claims, wait until no task lives, and take the run over; False: it is no longer mapped."""
        is_told = False
        while True:
            run = self.store.run(run.id)
            if not run.is_active or (run.hold_s is None and run.owner != self.store.owner):
                return False
            if run.hold_s is not None:
                # Another `finish` may be faster.
                with Store.open(self.pipeline.store_url, owner=run.owner) as tasks, suppress(LostRun):
                    tasks.request_stop(run.id)
            try:
                if self.store.take_held_run(run.id):
                    return True
            except RunFinished:  # by a faster `finish`
                return False
            if not is_told:
                self.progress.message(f"run {run.id}: tasks still run; they are asked to stop")
            is_told = True
            time.sleep(POLL_S)

    def _finished_before(self, run: PipelineRun) -> RunResult:
        """Deliver the remaining events of an earlier call, or of a start that recovered the run."""
        now = self.store.run(run.id)
        if now.is_active and self.store.owner_state(now) == "alive":
            raise AlreadyRunning(now.pipeline, now.id, now.holder)
        if now.is_active:
            self.clear_up()
        else:
            self.drain(self.pipeline.drain_s)
        self.deliver_lost()
        now = self.store.run(run.id)
        return self._told(self.result(now, now.status, ()))

    def _told(self, result: RunResult) -> RunResult:
        """Add how the streams ended, in any attempt."""
        assert result.run_id is not None
        with existing_store(self.pipeline) as store:
            assert store is not None
            streams = recorded_results(store, result.run_id)
            statuses = store.stream_statuses(result.run_id)
            error = store.run(result.run_id).error
            missing = store.attempt_plan_of(result.run_id).missing_streams
        started = {each.stream for each in streams}
        never = {each.stream: None for each in statuses if each.status == UNCLAIMED and each.stream not in started}
        is_whole = not never and all(each.status == SUCCESS for each in streams)
        status = FAILURE if result.status == SUCCESS and not is_whole else result.status
        return replace(
            result,
            status=status,
            streams=StreamResults(streams),
            never_started=tuple(never),
            missing_streams=missing,
            error=result.error or (None if error is None or status == SUCCESS else error.message),
        )


__all__ = ["finish_run"]
