"""What the command line does beside running, as functions: one call opens a pipeline, asks and closes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from syncblocks.connectors.stream import Stream

from .config import Pipeline, load_pipeline
from .config.arguments import AnyPipeline, checks_arguments
from .plan.selection import matching_names
from .run import previews
from .run.log_moment import log_moment
from .run.pipeline import run_pipeline
from .run.previews import Preview
from .session.inspection import Counts, count_streams, existing_store, opened
from .session.session import make_plan
from .state.stream_state import State, read_state, refuse_while_running
from .store.model import PipelineRun
from .verify.verification import StreamVerification, verify_streams


@checks_arguments
def discover(pipeline: AnyPipeline, *, streams: Sequence[str] | None = None) -> tuple[Stream, ...]:
    """Return the streams of the source with columns and keys, also those that the pipeline does not select.

    Args:
        pipeline: the pipeline.
        streams: names or globs; default: all.

    Raises:
        ConfigError: the pipeline is wrong, or a glob matches nothing.
        ConnectorError: the source cannot be reached.
    """
    with opened(_loaded(pipeline)) as session:
        offered = {stream.name: stream for stream in session.discover()}
    return tuple(offered[name] for name in matching_names(list(offered), streams or ()))


@checks_arguments
def list_streams(
    pipeline: AnyPipeline, *, streams: Sequence[str] | None = None, tags: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Return the names of the streams that the pipeline selects, in run order.

    Args:
        pipeline: the pipeline.
        streams: names or globs, only these; default: all.
        tags: only streams that have one of them; default: all.

    Raises:
        ConfigError: the pipeline is wrong, or a glob matches nothing.
        ConnectorError: the source cannot be reached.
    """
    with opened(_loaded(pipeline)) as session:
        return session.select(streams or (), tags=tags or ()).wanted


@checks_arguments
def preview(pipeline: AnyPipeline, stream: str, *, limit: int = 10) -> Preview:
    """Return the first records of a selected stream as they would arrive: renames and transformers applied.

    Raises:
        ConfigError: the pipeline is wrong, or has no such stream.
        ConnectorError: the source cannot be reached.
    """
    with opened(_loaded(pipeline)) as session:
        return previews.preview(session, stream, limit)


@checks_arguments
def count(pipeline: AnyPipeline, *, streams: Sequence[str] | None = None, tags: Sequence[str] | None = None) -> Counts:
    """Count the records of each selected stream and of its destination table; arguments as of `list_streams`.

    Raises:
        ConfigError: the pipeline is wrong, or a glob matches nothing.
        ConnectorError: the source cannot be reached.
    """
    with opened(_loaded(pipeline)) as session:
        return count_streams(session, streams or (), tags or ())


@checks_arguments
def state(pipeline: AnyPipeline) -> State:
    """Return the bookmarks of all streams from the destination's ledger, else the run store's copy.

    Raises:
        ConfigError: the pipeline is wrong.
    """
    pipeline = _loaded(pipeline)
    with existing_store(pipeline) as store, opened(pipeline) as session:
        return read_state(session, store)


@checks_arguments
def verify(
    pipeline: AnyPipeline,
    *,
    streams: Sequence[str] | None = None,
    tags: Sequence[str] | None = None,
    repair: bool = False,
) -> tuple[StreamVerification, ...]:
    """Compare source and destination by checksums; with `repair` sync the ranges that differ, and compare again.

    `streams` and `tags` are as of `list_streams`.

    Raises:
        ConfigError: the pipeline is wrong, or a glob matches nothing.
        AlreadyRunning: it is running, and would be repaired.
        PipelineFailed: the repair failed, or the run of LOG_BASED streams up to the moment at which they are compared.
    """
    pipeline = _loaded(pipeline)
    found = compared(pipeline, streams or (), tags or (), with_repairs=repair).streams
    if repairs := {each.stream: each.repair for each in found if each.repair is not None}:
        run_pipeline(pipeline, repairs=repairs).raise_for_status()
        found = compared(pipeline, streams or (), tags or (), with_repairs=False).streams
    return found


class Compared(NamedTuple):
    """What one comparison found."""

    streams: tuple[StreamVerification, ...]
    #: Streams that were not compared, since their `when` is false -> the condition.
    left_out: Mapping[str, str]


def compared(pipeline: Pipeline, streams: Sequence[str], tags: Sequence[str] = (), *, with_repairs: bool) -> Compared:
    """Compare once, and plan the repairs of what differs; write nothing but what a run of LOG_BASED streams writes.

    Merged LOG_BASED streams are run up to one moment of their source, at which they are compared. Streams that
    `replace_range` writes are compared within the interval of the last run, unless another is given.
    """
    pipeline = _of_last_interval(pipeline)
    with ExitStack() as stack:
        is_logged = any(entry.replication_method == "LOG_BASED" for entry in pipeline.streams)
        moment = stack.enter_context(log_moment(pipeline, streams, tags)) if is_logged else None
        session, store = stack.enter_context(opened(pipeline)), stack.enter_context(existing_store(pipeline))
        if with_repairs:
            refuse_while_running(session, store)
        plan = make_plan(session, store, streams=streams, tags=tags, is_of_run=False)
        found = verify_streams(session, plan, with_repairs=with_repairs, moment=moment)
        return Compared(tuple(found), plan.left_out)


def _of_last_interval(pipeline: Pipeline) -> Pipeline:
    if pipeline.interval is not None or not any(entry.range_column for entry in pipeline.streams):
        return pipeline
    with existing_store(pipeline) as store:
        latest = None if store is None else store.latest_run(pipeline.pipeline)
    # Where a template uses an interval, the pipeline cannot be opened without one.
    interval = None if latest is None or pipeline.needs_interval else latest.interval
    return pipeline if interval is None else pipeline.during(interval)


@checks_arguments
def cancel(pipeline: AnyPipeline) -> int | None:
    """Ask the active run of a pipeline to stop, from another thread or process: its streams end as cancelled.

    Returns at once; the run ends within seconds, and delivers its callbacks.

    Returns:
        The run's id; None: the pipeline is not running.
    """
    run, is_asked = cancel_active(_loaded(pipeline))
    return run.id if run is not None and is_asked else None


def cancel_active(pipeline: Pipeline, wanted: int | None = None) -> tuple[PipelineRun | None, bool]:
    """Return the active run, and whether its process lives and was asked to stop; `wanted`: only this run is asked."""
    with existing_store(pipeline) as store:
        run = store.active_run(pipeline.pipeline) if store is not None else None
        if store is None or run is None or wanted not in (None, run.id) or store.owner_state(run) != "alive":
            return run, False
        store.request_cancel(run.id)
        return run, True


def _loaded(pipeline: AnyPipeline) -> Pipeline:
    return pipeline if isinstance(pipeline, Pipeline) and pipeline.is_loaded else load_pipeline(pipeline)
