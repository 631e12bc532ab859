"""Plans a run: its streams, their order and groups, and what a person should know. Pure; creates nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from syncblocks.connectors.stream import LedgerKey, TableState
from syncblocks.connectors.struct_helpers import replace

from ..config import Pipeline
from ..delivery.subscriptions import UserCode
from ..errors import ConfigError, Mistake, mistakes
from .columns import computed_warnings
from .features.deletes import PlannedDeletes
from .foreign_key_order import StreamOrder, cycle_warnings, in_order
from .groups import Placement
from .placement import checked_placement
from .plan import Connectors, Plan, PlannedStream
from .reading import (
    hidden_warnings,
    late_warnings,
    limit_warnings,
    query_warnings,
    unknown_type_warnings,
    unused_warnings,
)
from .refusals import (
    Unplannable,
    check_cycle,
    check_own_source,
    forgetting_warnings,
    rejected_warnings,
    server_warnings,
    shared_tables,
    sharing_streams,
    stream_error,
)
from .replaced_settings import replaced_warnings
from .run_options import NO_OPTIONS, RunOptions
from .schema_snapshots import Shape
from .selected_stream import SelectedStream
from .stream_planning import StreamPlanning, plan_stream, refused_stream
from .transfer_formats import common_wires
from .worker_plan import WorkerPlan

#: Connectors of files, and those of their settings that say into which files records go.
_FILES = ("csv", "jsonl", "parquet")
_OF_FILES = ("partition_by", "file_records", "file_bytes")


def plan_streams(
    pipeline: Pipeline,
    selected: Sequence[SelectedStream],
    tables: Mapping[str, TableState],
    known: Mapping[tuple[str, str], Shape | None],
    code: UserCode,
    *,
    connectors: Connectors,
    now: datetime,
    options: RunOptions = NO_OPTIONS,
    in_turn: bool = False,
    part: WorkerPlan | None = None,
) -> Plan:
    """Plan a run: decide everything that can be decided before a record is read.

    Args:
        pipeline: the pipeline file.
        selected: streams of this run, in run order.
        tables: state of every destination table.
        known: (stream, destination table) of each state in the run store -> the stream's shape.
        code: the user's functions.
        connectors: gives groups, wires and capabilities.
        now: by the clock of this machine.
        options: of the run.
        in_turn: a stream that source or destination refuse fails in its turn.
        part: of the plan of which these streams are a part; None: they are the whole plan.

    Raises:
        ConfigError: two streams or pipelines would overwrite each other; a table of another program would be written;
            a table is its own source.
    """
    can = connectors.destination_can
    shared = shared_tables(pipeline, selected, tables, can, full_refresh=options.full_refresh)
    if shared and not in_turn:
        raise next(iter(shared.values()))
    sharing = sharing_streams(selected, can, part)
    by_name = {stream.name: stream for stream in selected}
    order = in_order(selected, tables, can.names_tables)
    streams = []
    for stream in order.streams:
        place = (stream.name, stream.destination_table)
        planning = StreamPlanning(
            pipeline=pipeline,
            key=LedgerKey(pipeline=pipeline.pipeline, stream=stream.name, destination_table=stream.destination_table),
            table=tables[stream.destination_table],
            is_known=place in known,
            before=known.get(place),
            sharing=sharing[stream.name],
            beside=tuple(by_name[name] for name in sharing[stream.name] if name in by_name),
            code=code,
            connectors=connectors,
            options=options,
            now=now,
        )
        try:
            if stream.name in shared:
                raise shared[stream.name]
            check_own_source(pipeline, stream, planning.table, connectors.source, connectors.destination)
            planned = plan_stream(planning, stream)
            deletes = planned.step(PlannedDeletes)
            if deletes is not None and not deletes.setting.is_soft and not options.full_refresh:
                check_cycle(pipeline, stream, order.parents)
        except ConfigError as error:
            is_spared = in_turn or (isinstance(error, Unplannable) and pipeline.allow_blocks_to_fail)
            if not is_spared or isinstance(error, Mistake):
                raise
            planned = refused_stream(planning, stream, error)
        parents, chain = order.parents.get(stream.name, ()), order.chains.get(stream.name, "")
        streams.append(replace(planned, placement=Placement(parents=parents, chain=chain)))
    groups = tuple(
        tuple(stream.name for stream in group)
        for group in connectors.source.groups([stream.stream for stream in order.streams])
    )
    wires = common_wires({planned.name: planned.wire for planned in streams}, groups)
    planned_streams = tuple(replace(planned, wire=wires[planned.name]) for planned in streams)
    if part is not None:
        return Plan(streams=planned_streams, groups=groups)
    connector, config = pipeline.destination.connector, pipeline.destination.config
    with mistakes():
        elsewhere = checked_placement(
            pipeline,
            connectors.source_can,
            can,
            {planned.name: planned.record_checks.data_blocks for planned in streams},
            has_ledger=connectors.destination.has_ledger,
        )
    return Plan(
        streams=planned_streams,
        groups=groups,
        before=pipeline.before,
        warnings=_warnings(pipeline, selected, order, streams, code, connectors),
        elsewhere=elsewhere,
        files={key: config[key] for key in _OF_FILES if config.get(key)} if connector in _FILES else {},
    )


def _warnings(
    pipeline: Pipeline,
    selected: Sequence[SelectedStream],
    order: StreamOrder,
    streams: Sequence[PlannedStream],
    code: UserCode,
    connectors: Connectors,
) -> tuple[str, ...]:
    """Return what `plan` and the run say of a whole plan."""
    warnings = [*code.warnings, *replaced_warnings(pipeline, [stream.name for stream in selected])]
    if not connectors.destination.has_ledger:
        warnings.append("this destination cannot hold a ledger: at least once, a crash may repeat records")
    warnings += server_warnings(pipeline, connectors.source_can, connectors.destination_can)
    warnings += rejected_warnings(pipeline, selected, connectors.destination_can)
    warnings += forgetting_warnings(selected, connectors.destination_can)
    warnings += computed_warnings({planned.name: planned.mapping for planned in streams})
    warnings += cycle_warnings(order)
    warnings += limit_warnings(selected)
    warnings += hidden_warnings(selected)
    warnings += query_warnings(selected, connectors.source_can)
    warnings += unknown_type_warnings(selected)
    warnings += unused_warnings(pipeline, selected)
    warnings += [f"{planned.name}: {notice}" for planned in streams for notice in planned.texts.notices]
    warnings += [warning for planned in streams for warning in planned.texts.warnings]
    return (*warnings, *late_warnings({planned.name: planned.resumption for planned in streams}))


def refuse_undecided(pipeline: Pipeline, plan: Plan) -> None:
    """Raise if columns of some streams cannot be kept, and the file does not say what to do; name them all.

    With `allow_blocks_to_fail` these streams fail, each in its turn, and the others run.
    """
    found = [planned for planned in plan.streams if planned.verdict.needs_decision]
    if not found or pipeline.allow_blocks_to_fail:
        return
    if len(found) == 1:
        raise stream_error(pipeline, found[0], found[0].verdict.refusal)
    listed = "".join(f"\n  stream {planned.name!r}: {planned.verdict.refusal}" for planned in found)
    raise pipeline.error(
        found[0].policy.location,
        f"{len(found)} streams have columns that {pipeline.destination.connector} cannot keep:{listed}\n"
        "  With `allow_blocks_to_fail: true` only these streams fail",
    )
