"""LOG_BASED streams at one moment of their source: a run brings their tables there, and the moment is held."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from syncblocks.connectors.log_based import LogMoment, position_of
from syncblocks.connectors.write_spec import WriteDisposition

from ..config import Pipeline, exact_pattern
from ..plan.features.log_based import is_logged, log_name, log_rows
from ..plan.plan import PlannedStream
from ..plan.start import ledger_row
from ..session.inspection import existing_store, opened, placed_errors
from ..session.session import make_plan
from .progress import Progress
from .runner import PipelineRunner, RunnerOptions


@contextmanager
def log_moment(pipeline: Pipeline, streams: Sequence[str], tags: Sequence[str]) -> Iterator[LogMoment | None]:
    """Run the merged LOG_BASED streams up to a moment of the source, and hold it for reads; None: there are none.

    Raises:
        AlreadyRunning: the pipeline is running.
        PipelineFailed: the run failed.
    """
    with opened(pipeline) as session, existing_store(pipeline) as store:
        if session.source_can.reads_log is None:
            found = None
        else:
            found = make_plan(session, store, streams=streams, tags=tags, is_of_run=False)
        logged = [planned for planned in (() if found is None else found.streams) if _stands(planned)]
        reads = session.source_can.reads_log
        rows = log_rows(pipeline, session, [planned.destination_table for planned in logged]) if logged else []
        name = log_name(pipeline.pipeline, session.source_name, session.destination.identity())
    if reads is None or not logged:
        yield None
        return
    # The run opens the destination: a database in a file is one process's, and here one connection's.
    with placed_errors(pipeline), reads.open_moment(name, [planned.stream for planned in logged], rows) as moment:
        order = RunnerOptions(streams=[exact_pattern(each.name) for each in logged], log_until=moment.bookmark)
        with PipelineRunner(pipeline, Progress(), order, inline_callbacks=False) as runner:
            result = runner.run()
        result.raise_for_status()
        yield moment


def _stands(planned: PlannedStream) -> bool:
    """Tell whether a stream's table is at some place in the log, and can be brought to another."""
    row = ledger_row(planned.table, planned.key)
    is_merged = planned.write.disposition is WriteDisposition.MERGE
    return (
        is_logged(planned.stream)
        and is_merged
        and not planned.verdict.refusal
        and row is not None
        and bool(position_of(row))
    )


__all__ = ["log_moment"]
