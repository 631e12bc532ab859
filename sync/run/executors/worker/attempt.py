"""One attempt of a run, opened by a process that runs some of its streams in its owner's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from syncblocks.connectors.struct_helpers import replace

from ....config import Pipeline
from ....delivery.subscriptions import load_worker_code
from ....errors import SyncError
from ....flow.feed import Budget
from ....flow.memory import budget_bytes, in_flight_bytes, record_bytes
from ....plan.plan import Plan, PlannedStream
from ....plan.run_options import RunOptions, options_of
from ....plan.worker_plan import WorkerPlan
from ....session.session import PipelineSession, open_session
from ....store import Store
from ....store.model import AttemptPlan, ErrorInfo, PipelineRun, StreamOutcome, StreamPlan
from ...attempt_plan import stream_plans
from ...errors import error_info
from ...recovery.lost_stream import unknown_blocks
from ...run_options.options import plan_with_options
from ...stream_blocks import CANCELLED, FAILURE


class OpenedAttempt(Struct, frozen=True, kw_only=True):
    """One attempt of a run, opened by this process."""

    run: PipelineRun
    #: Writes in the name of the run's owner: only then it allows this process to close streams.
    store: Store
    session: PipelineSession
    recorded: AttemptPlan
    budget: Budget
    #: The run's recorded streams by name.
    then: Mapping[str, StreamPlan]
    #: State for planning a few streams again; None: all streams must be planned together.
    part: WorkerPlan | None

    @property
    def options(self) -> RunOptions:
        """The run's options that influence its plan."""
        return options_of(self.recorded.extra.get("order", {}))

    @property
    def is_plain(self) -> bool:
        """Whether no option requires that all streams are planned together."""
        return _is_plain(self.options)

    def plan(self, names: Sequence[str]) -> Plan:
        """Plan streams again, as the run did."""
        return plan_with_options(self.session, self.store, self.options, only=names, part=self.part)

    def same(self, streams: Sequence[PlannedStream]) -> list[PlannedStream]:
        """Return the streams that still have the run's columns, keys and choices.

        A stream refused in the run is refused here: a partial plan sees less than the full plan.
        """
        streams = [_as_refused(each, self.then[each.name]) for each in streams]
        now = {planned.stream: planned for planned in recorded_streams(self.session.pipeline, streams)}
        return [each for each in streams if each.verdict.refusal or _is_same(self.then[each.name], now[each.name])]

    def close(self) -> None:
        """Close every connection."""
        self.session.close()
        self.store.close()


def open_attempt(pipeline: Pipeline, url: str, run: PipelineRun, recorded: AttemptPlan) -> OpenedAttempt:
    """Open a run's pipeline, loaded as it was for the run, and its run store.

    Args:
        pipeline: as it was for the run.
        url: address of the run store.
        run: the run.
        recorded: plan of the run's attempt.
    """
    session = open_session(pipeline, load_worker_code(pipeline, recorded.subscriptions))
    session.prepare()
    memory = budget_bytes(pipeline.memory)
    store = Store.open(url, owner=run.owner)
    session.use_store(store, run.id)
    tables = {planned.stream: planned.destination_table for planned in recorded.streams}
    return OpenedAttempt(
        run=run,
        store=store,
        session=session,
        recorded=recorded,
        budget=Budget(in_flight_bytes(memory), record_bytes(memory)),
        then={planned.stream: planned for planned in recorded.streams},
        part=session.parts(tables) if _is_plain(options_of(recorded.extra.get("order", {}))) else None,
    )


def _is_plain(options: RunOptions) -> bool:
    return not (options.bookmarks or options.deletes or options.allow_deletes or options.fills)


def recorded_streams(pipeline: Pipeline, streams: Sequence[PlannedStream]) -> tuple[StreamPlan, ...]:
    """Return the run store's record of planned streams."""
    return stream_plans(pipeline, Plan(streams=tuple(streams), groups=()))


def has_changed(stream: str) -> SyncError:
    """Return the error of a stream that has changed since the run was planned."""
    return SyncError(f"stream {stream!r} has changed at the source between the plan and the run: run it again")


def unplanned_outcome(attempt: OpenedAttempt, stream: str, error: Exception) -> tuple[StreamOutcome, ErrorInfo]:
    """Return the end of a claimed stream that could not be planned again: its first block has failed."""
    planned = attempt.then[stream]
    first = planned.blocks[0].block
    info = error_info(error, attempt.session.redactor, stream=stream, block=first)
    blocks = unknown_blocks(planned, CANCELLED, info, failed=first)
    return StreamOutcome(stream=stream, blocks=(replace(blocks[0], status=FAILURE), *blocks[1:])), info


def with_share(pipeline: Pipeline, recorded: AttemptPlan) -> Pipeline:
    """Give this process its share of the machine's memory, unless the file sets a limit."""
    on_host = int(recorded.extra.get("order", {}).get("workers_on_host", 1))
    if pipeline.memory is not None or on_host < 2:
        return pipeline
    return pipeline.model_copy(update={"memory": max(64_000_000, budget_bytes(None) // on_host)})


def _as_refused(planned: PlannedStream, then: StreamPlan) -> PlannedStream:
    if "refusal" not in then.config:
        return planned
    why, is_by_destination = then.config["refusal"]
    return replace(planned, verdict=replace(planned.verdict, refusal=why, is_refused_by_destination=is_by_destination))


def _is_same(then: StreamPlan, now: StreamPlan) -> bool:
    if (then.destination_table, then.blocks) != (now.destination_table, now.blocks):
        return False
    shapes = [dict(plan.config.get("shape") or {}) for plan in (then, now)]
    return all(shapes[0].get(part) == shapes[1].get(part) for part in ("columns", "left_out", "keys"))
