"""The plan of a run: for each stream its start, columns, write disposition and wire. Pure; creates nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from syncblocks.connectors.abilities import Abilities
from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.protocols import Destination, Source
from syncblocks.connectors.stream import (
    Condition,
    LedgerKey,
    ReplicationMethod,
    Stream,
    TableState,
    Trigger,
    WriteDisposition,
    WrittenRange,
    notices_of,
)

from ..config import Pipeline
from ..config.before import Statement
from ..delivery.subscriptions import UserCode, data_blocks
from .checks import (
    Unplannable,
    check_added,
    check_own_source,
    check_ranges,
    check_rejected,
    check_shared_tables,
    check_tracked,
    check_unique,
    check_updates_only,
    forgetting_warnings,
    rejected_warnings,
    server_warnings,
    sharing_streams,
    stream_error,
)
from .columns import ColumnMapping, Rules, computed_warnings, map_columns, table_changes
from .deleted_when import check_deleted_when
from .deletes import PlannedDeletes, other_writers, plan_deletes, why_no_deletes
from .evolution import (
    Ignored,
    former_key,
    frozen,
    ignored,
    of_source,
    planned_changes,
    rekeyed,
    relaxed,
    unless_left_out,
    without_columns,
)
from .filling import columns_to_fill, why_no_filling
from .guessed import decided
from .history import check_history, timed
from .latest import check_latest
from .masks import refuse_masked_folders
from .nanoseconds import in_microseconds
from .order import Order, cycle_warnings, in_order
from .part import Part
from .placement import checked_placement
from .reading import (
    Reading,
    Resumption,
    late_warnings,
    limit_warnings,
    plan_reading,
    plan_resumption,
    query_warnings,
    unknown_type_warnings,
    unused_warnings,
)
from .replaced_settings import replaced_warnings
from .selected_stream import SelectedStream
from .shapes import Change, Shape, differences, shape_of
from .start import Start, ledger_row, not_ours, starting_point
from .stream_transformers import transformers_of
from .undecided import is_undecided, settled, text_warnings, turned_to_text
from .value_checks import length_checks, value_checks
from .wires import ARROW, chosen_wire, common_wires
from .written_range import arriving_range

if TYPE_CHECKING:
    from .planned_repair import Repair


@dataclass(frozen=True, slots=True, kw_only=True)
class Connectors:
    """Source and destination of one opened pipeline."""

    source: Source
    #: Connector and place, as ledger and run store keep it: without secrets.
    source_name: str
    source_can: Abilities
    destination: Destination
    destination_can: Abilities
    #: The system that computes checksums of the destination's tables, for `deletes`; empty: none does, and their keys
    #: are read; None: they cannot be read.
    read_back: str | None = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStream:
    """The plan of one stream."""

    selected: SelectedStream
    key: LedgerKey
    table: TableState
    start: Start
    #: Disposition in this run: a full refresh replaces, whatever the file says.
    write_disposition: WriteDisposition
    wire: str
    #: Transformer blocks that apply, in order.
    transformers: tuple[str, ...]
    #: The stream as the destination gets it, as far as it is declared: a transformer's function may change its columns.
    arriving: Stream
    is_schema_decided: bool
    reading: Reading
    #: None if not INCREMENTAL.
    resumption: Resumption | None
    #: Columns as the destination keeps them; of the declared columns, if a transformer may still change them.
    mapping: ColumnMapping
    rules: Rules
    #: What the run will do to the destination's table, in words.
    changes: tuple[str, ...]
    #: The stream's columns and keys at its source, and their changes since it was last written.
    shape: Shape
    source_changes: tuple[Change, ...]
    #: The keys by which the table was last written, if they have changed.
    former_key: tuple[str, ...] | None
    #: Why the stream will fail before anything is written; empty if it will not.
    refusal: str
    #: Whether the destination is why, and not a change at the source: its block fails.
    is_refused_by_destination: bool
    #: Whether the file must change first: without `allow_blocks_to_fail` nothing is run.
    needs_decision: bool
    #: Conditions that its records must meet as they would be written.
    checks: tuple[Condition, ...] = ()
    #: The same, of records that are written all the same.
    warn_checks: tuple[Condition, ...] = ()
    #: Blocks whose output is kept for callbacks.
    data_blocks: frozenset[str]
    #: Columns that `on_schema_change: ignore` leaves out; None if the setting is another.
    ignored: tuple[str, ...] | None
    #: Of replace_range: what is deleted and written anew; its column as it arrives.
    written_range: WrittenRange | None = None
    #: Streams whose tables its table refers to by foreign keys; they come before it.
    parents: tuple[str, ...] = ()
    #: Streams of one chain, whose tables foreign keys connect, run one after another; empty: there are none.
    chain: str = ""
    #: What a person should know of the columns, in sentences; a run shows them too.
    notices: tuple[str, ...] = ()
    #: Of columns that are not what a person may expect; for `plan` only.
    warnings: tuple[str, ...] = ()
    #: Whether the history in the table is dropped (`--drop-history`).
    drops_history: bool = False
    #: A repair reads and merges only its own ranges; None: a usual run.
    repair: Repair | None = None
    #: Of records that the source no longer has; None: they stay.
    deletes: PlannedDeletes | None = None
    #: Columns, by the source's names, that records get that are there already, before the load.
    fills: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.selected.name

    @property
    def triggers(self) -> tuple[Trigger, ...]:
        """Triggers of the destination table that fire on these writes."""
        return self.table.triggers.get(self.write_disposition, ())

    @property
    def tries(self) -> int:
        """Most attempts at the stream; one more for ranges that the source refuses, and for a table that is lost."""
        return self.selected.retries + (3 if self.reading.readers > 1 else 2)

    @property
    def compares_keys(self) -> bool:
        """Whether a transaction after the load deletes what the source no longer has, and completes the stream."""
        return self.deletes is not None and self.deletes.is_due and self.repair is None

    @property
    def commits_once(self) -> bool:
        """Whether it commits once, at the end: FULL_TABLE and replace. INCREMENTAL commits at every checkpoint."""
        method = self.selected.stream.replication_method
        return method is ReplicationMethod.FULL_TABLE or self.write_disposition is WriteDisposition.REPLACE

    @property
    def is_appended_anew(self) -> bool:
        """Whether this is a full refresh of a stream that otherwise appends."""
        is_replaced = self.write_disposition is WriteDisposition.REPLACE
        return is_replaced and self.selected.write_disposition is WriteDisposition.APPEND


#: Connectors of files, and those of their settings that say into which files records go.
_FILES = ("csv", "jsonl", "parquet")
_OF_FILES = ("partition_by", "file_records", "file_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan of a run."""

    streams: tuple[PlannedStream, ...]
    #: Names of streams that one read yields together.
    groups: tuple[tuple[str, ...], ...]
    #: Run before the first stream.
    before: tuple[Statement, ...] = ()
    warnings: tuple[str, ...] = ()
    #: Warnings about skipped streams; a run shows them too.
    skipped: tuple[str, ...] = ()
    #: Streams that their `when` leaves out of this run -> the condition.
    left_out: Mapping[str, str] = field(default_factory=dict)
    #: Where other processes run the streams; empty: threads of the run's own process do.
    elsewhere: str = ""
    #: What the destination's settings say about the files of its tables: `partition_by`, `file_records`, `file_bytes`.
    files: Mapping[str, Any] = field(default_factory=dict)


def plan_streams(
    pipeline: Pipeline,
    selected: Sequence[SelectedStream],
    tables: Mapping[str, TableState],
    known: Mapping[tuple[str, str], Shape | None],
    code: UserCode,
    *,
    connectors: Connectors,
    full_refresh: bool = False,
    drop_history: bool = False,
    may_be_late: bool = False,
    part: Part | None = None,
) -> Plan:
    """Plan a run: decide everything that can be decided before a record is read.

    Args:
        pipeline: the pipeline file.
        selected: streams of this run, in run order.
        tables: state of every destination table.
        known: (stream, destination table) of each state in the run store -> the stream's shape.
        code: the user's functions.
        connectors: gives groups, wires and abilities.
        full_refresh: replace every table and ignore every bookmark.
        drop_history: with `full_refresh`, the histories as well.
        may_be_late: the run was due before it began (a tick).
        part: of the plan of which these streams are a part; None: they are the whole plan.

    Raises:
        ConfigError: two streams or pipelines would overwrite each other; a table of another program would be written;
            a table is its own source.
    """
    check_shared_tables(pipeline, selected, tables, connectors.destination_can, full_refresh=full_refresh)
    sharing = sharing_streams(selected, connectors.destination_can, part)
    order = in_order(selected, tables, connectors.destination_can.names_tables)
    streams = []
    for stream in order.streams:
        table = tables[stream.destination_table]
        key = LedgerKey(pipeline=pipeline.pipeline, stream=stream.name, destination_table=stream.destination_table)
        check_own_source(pipeline, stream, table, connectors.source, connectors.destination)
        keys = connectors.destination_can.refuses_keys
        refusal = "" if keys is None else keys.refusal(key)
        try:
            if refusal:
                raise stream_error(pipeline, stream, refusal, kind=Unplannable)
            row = ledger_row(table, key)
            can = connectors.destination_can
            check_history(pipeline, stream, table, row, can, full_refresh=full_refresh, drop_history=drop_history)
            planned = _plan_stream(
                pipeline,
                stream,
                key,
                table,
                known,
                code,
                connectors,
                sharing[stream.name],
                full_refresh=full_refresh,
                may_be_late=may_be_late,
            )
        except Unplannable as error:
            if not pipeline.allow_blocks_to_fail:
                raise
            planned = _refused_stream(pipeline, stream, key, table, code, connectors, error.message)
        parents, chain = order.parents.get(stream.name, ()), order.chains.get(stream.name, "")
        streams.append(replace(planned, parents=parents, chain=chain))
    groups = tuple(
        tuple(stream.name for stream in group)
        for group in connectors.source.groups([stream.stream for stream in order.streams])
    )
    wires = common_wires({planned.name: planned.wire for planned in streams}, groups)
    planned_streams = tuple(replace(planned, wire=wires[planned.name]) for planned in streams)
    if part is not None:
        return Plan(streams=planned_streams, groups=groups)
    connector, config = pipeline.destination.connector, pipeline.destination.config
    return Plan(
        streams=planned_streams,
        groups=groups,
        before=pipeline.before,
        warnings=_warnings(pipeline, selected, order, streams, code, connectors),
        elsewhere=checked_placement(
            pipeline,
            connectors.source_can,
            connectors.destination_can,
            {planned.name: planned.data_blocks for planned in streams},
            has_ledger=connectors.destination.has_ledger,
        ),
        files={key: config[key] for key in _OF_FILES if config.get(key)} if connector in _FILES else {},
    )


def _warnings(
    pipeline: Pipeline,
    selected: Sequence[SelectedStream],
    order: Order,
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
    warnings += query_warnings(selected, connectors.source_can)
    warnings += unknown_type_warnings(selected)
    warnings += unused_warnings(pipeline, selected)
    warnings += [f"{planned.name}: {notice}" for planned in streams for notice in planned.notices]
    warnings += [warning for planned in streams for warning in planned.warnings]
    return (*warnings, *late_warnings({planned.name: planned.resumption for planned in streams}))


def refuse_undecided(pipeline: Pipeline, plan: Plan) -> None:
    """Raise if columns of some streams cannot be kept, and the file does not say what to do; name them all.

    With `allow_blocks_to_fail` these streams fail, each in its turn, and the others run.
    """
    found = [planned for planned in plan.streams if planned.needs_decision]
    if not found or pipeline.allow_blocks_to_fail:
        return
    if len(found) == 1:
        raise stream_error(pipeline, found[0].selected, found[0].refusal)
    listed = "".join(f"\n  stream {planned.name!r}: {planned.refusal}" for planned in found)
    raise pipeline.error(
        found[0].selected.location,
        f"{len(found)} streams have columns that {pipeline.destination.connector} cannot keep:{listed}\n"
        "  With `allow_blocks_to_fail: true` only these streams fail",
    )


def _plan_stream(
    pipeline: Pipeline,
    stream: SelectedStream,
    key: LedgerKey,
    table: TableState,
    known: Mapping[tuple[str, str], Shape | None],
    code: UserCode,
    connectors: Connectors,
    sharing: Sequence[str],
    *,
    full_refresh: bool,
    may_be_late: bool,
) -> PlannedStream:
    if stream.stream.unreadable:
        raise stream_error(pipeline, stream, stream.stream.unreadable, kind=Unplannable)
    row = ledger_row(table, key)
    table = table if row is None else replace(table, columns=row.columns)
    start = starting_point(
        stream,
        table,
        row,
        is_known=(stream.name, stream.destination_table) in known,
        sources=(connectors.source_name, connectors.source.identity()),
        full_refresh=full_refresh,
    )
    if isinstance(start, str):
        raise stream_error(pipeline, stream, start)
    read, types = stream.stream, connectors.source_can.finds_types
    if types is not None and not full_refresh:
        stream = replace(stream, stream=types.as_known(stream.stream, start.bookmark))
    blocks = transformers_of(pipeline, stream)
    declared, is_decided = _arriving(pipeline, stream, blocks, code)
    check_added(pipeline, stream, declared, connectors.destination_can)
    if reason := why_no_deletes(
        stream, declared, table, other_writers(key, table, sharing), connectors, is_decided=is_decided
    ):
        raise stream_error(pipeline, stream, f"`deletes` {reason}")
    disposition = WriteDisposition.REPLACE if full_refresh else stream.write_disposition
    rules = _rules(pipeline, stream, connectors.destination_can, table, disposition, full_refresh=full_refresh)
    if rules.widens:
        rules = replace(rules, others=tuple(other_writers(key, table, sharing)))
    names = dict(zip(stream.stream.schema.names, declared.schema.names, strict=True))
    stream = timed(pipeline, stream, row, names, drop_history=full_refresh, may_be_late=may_be_late)
    rules = replace(
        rules,
        said={names[name]: kind for name, kind in stream.said.items() if name in names},
        decode={names[name]: form for name, form in stream.decode.items() if name in names},
        lengths={names[name]: length for name, length in stream.lengths.items() if name in names},
    )
    if is_decided and not full_refresh:  # what a function makes of a value is not known
        stream = replace(stream, stream=decided(stream.stream, names, rules))
        read = stream.stream
    offered = stream.stream
    stream = replace(stream, stream=settled(offered, names, rules, is_decided=is_decided, is_new=full_refresh))
    stream = replace(stream, stream=_refitted(pipeline, stream))
    declared, _ = _arriving(pipeline, stream, blocks, code)
    before = known.get((stream.name, stream.destination_table)) if table.schema is not None else None
    required = [field.name for field in read.schema if not field.nullable]
    arriving_required = required if is_decided else ()
    stream = replace(stream, stream=relaxed(stream.stream, before, arriving_required, full_refresh=full_refresh))
    declared, _ = _arriving(pipeline, stream, blocks, code)
    left, ignores = Ignored(), stream.on_schema_change == "ignore" and table.schema is not None and not full_refresh
    try:
        if ignores:
            left = ignored(stream.stream, declared, before, rules, is_decided=is_decided)
        unsure = frozenset(names[name] for name in left.unsure)
        rules = replace(rules, left_out=unsure.union(names[name] for name in left.columns))
        mapping = map_columns(stream.added.stream(declared), rules)
        whole = in_microseconds(stream.stream, names, mapping, rules, connectors.source_can.looks_at_times)
        if whole is not stream.stream:
            stream = replace(stream, stream=whole)
            declared, _ = _arriving(pipeline, stream, blocks, code)
            mapping = map_columns(stream.added.stream(declared), rules)
    except FatalConnectorError as error:  # a column that the destination cannot name
        raise stream_error(pipeline, stream, str(error), kind=Unplannable) from error
    left_out = tuple(name for name in names if name in left.columns)
    # A replaced table gets new column types, whether values were seen or not.
    shape = shape_of(
        read,
        stream.left_out,
        None if disposition is WriteDisposition.REPLACE else before,
        None if left.unsure else left_out,
        required,
        is_decided=is_decided,
    )
    changes = tuple(unless_left_out(change, left_out) for change in differences(before, shape))
    if start.is_unclaimed and (altered := _alterations(mapping, table, is_decided=is_decided)):
        raise stream_error(pipeline, stream, not_ours(stream, altered))
    lossy = mapping.refusals if is_decided else ()
    of_changes = [
        text
        for text in (frozen(changes, before, mapping, rules), "" if full_refresh else rekeyed(changes, stream, rules))
        if text
    ]
    stream = replace(stream, stream=without_columns(stream.stream, left.columns))
    declared = stream.added.stream(without_columns(declared, rules.left_out - unsure))
    arriving = mapping.arriving if is_decided else declared
    kept = data_blocks(code.subscriptions, stream.name, pipeline.destination.block)
    check_rejected(pipeline, stream, connectors.destination_can)
    check_updates_only(pipeline, stream, table, connectors.destination_can, full_refresh=full_refresh)
    check_tracked(pipeline, stream, connectors.destination_can)
    check_ranges(pipeline, stream, connectors.destination_can)
    try:
        written = arriving_range(stream, names, mapping, table, full_refresh=full_refresh)
    except ValueError as error:
        raise stream_error(pipeline, stream, str(error)) from error
    check_unique(pipeline, stream, connectors.destination_can, full_refresh=full_refresh)
    refuse_masked_folders(pipeline, stream, names)
    check_latest(pipeline, stream, declared, mapping, table, connectors, is_decided=is_decided)
    check_deleted_when(pipeline, stream, declared, mapping, connectors, is_decided=is_decided)
    no_filling = why_no_filling(stream, connectors.destination_can, is_decided=is_decided)
    if stream.fills_new_columns and no_filling:
        raise stream_error(pipeline, stream, f"`fill_new_columns` {no_filling}")
    is_converted = any(column.conversion or column.said is not None for column in mapping.columns)
    # To keep rejected records, the engine must see records one by one.
    is_plain = is_decided and not kept and not is_converted and stream.stream.max_rejected is None
    is_checked = bool(stream.checks or stream.warn_checks or stream.lengths)
    is_plain = is_plain and not stream.added and not is_checked
    wire = ARROW
    if is_plain and disposition is not WriteDisposition.REPLACE_RANGE:  # which looks at each record
        wire = chosen_wire(connectors.source, connectors.destination, stream.stream, arriving, disposition)
    reading = plan_reading(
        stream,
        disposition,
        connectors.source_can,
        connectors.destination_can,
        source_name=pipeline.source.connector,
        is_plain=not (
            blocks
            or kept
            or is_converted
            or stream.added
            or is_checked
            or arriving.schema.names != stream.stream.schema.names
        ),
        has_workers=pipeline.executor.is_elsewhere,
    )
    if is_undecided(stream.stream):
        reading = Reading(readers=1, loaders=1, ranges=1, why="its first load decides the types of numbers")
    return PlannedStream(
        selected=stream,
        key=key,
        table=table,
        start=start,
        # A history begins anew by itself: versions of one key may arrive.
        write_disposition=disposition if stream.added.history is None else WriteDisposition.HISTORY,
        wire=wire if reading.readers == 1 or reading.loaders > 1 else "arrow",
        transformers=tuple(block.block for block in blocks),
        arriving=arriving,
        is_schema_decided=is_decided,
        checks=(
            *value_checks(pipeline, stream, mapping, names, is_decided=is_decided),
            *length_checks(mapping, rules.lengths, is_decided=is_decided),
        ),
        warn_checks=value_checks(pipeline, stream, mapping, names, is_decided=is_decided, setting="warn_checks"),
        mapping=replace(mapping, declared=declared),
        rules=replace(rules, left_out=unsure),
        changes=(*planned_changes(mapping, table, disposition, is_decided=is_decided), *of_source(changes)),
        shape=shape,
        source_changes=changes,
        ignored=left_out if ignores else None,
        former_key=former_key(before, shape, [code.renames[block.block] for block in blocks], stream.naming),
        refusal="; ".join([*of_changes, *lossy]),
        is_refused_by_destination=not of_changes,
        needs_decision=bool(lossy) and not changes,
        data_blocks=kept,
        written_range=written,
        reading=reading,
        resumption=plan_resumption(stream.stream, connectors.source_can),
        drops_history=full_refresh and stream.added.history is not None,
        deletes=plan_deletes(stream, row, connectors, pipeline.execution_date, full_refresh=full_refresh),
        fills=() if no_filling or full_refresh else columns_to_fill(stream, names, mapping, row, start),
        notices=(*notices_of(stream.stream.schema), *turned_to_text(mapping, table)),
        warnings=tuple(f"{stream.name}: {each}" for each in stream.differences)
        + tuple(text_warnings(offered, names, mapping, is_decided=is_decided)),
    )


def _refitted(pipeline: Pipeline, stream: SelectedStream) -> Stream:
    """Read the values of its filter in the types that its columns have by now."""
    if not stream.stream.where:
        return stream.stream
    from syncblocks.connectors.filters import refitted  # a pipeline without filters spares the import

    read = stream.stream
    if read.masks is not None:
        from syncblocks.connectors.arrow.masking import unmasked_stream

        read = unmasked_stream(read)  # the source filters by values as they are
    try:
        return replace(stream.stream, where=refitted(read).where)
    except ValueError as error:
        raise stream_error(pipeline, stream, str(error)) from error


def _refused_stream(
    pipeline: Pipeline,
    stream: SelectedStream,
    key: LedgerKey,
    table: TableState,
    code: UserCode,
    connectors: Connectors,
    refusal: str,
) -> PlannedStream:
    """Plan a stream that will fail in its turn: source or destination cannot serve it."""
    rules = _rules(pipeline, stream, connectors.destination_can, table, stream.write_disposition, full_refresh=False)
    return PlannedStream(
        selected=stream,
        key=key,
        table=table,
        start=Start(bookmark=None, reason="will fail"),
        write_disposition=stream.write_disposition,
        wire="arrow",
        transformers=tuple(block.block for block in transformers_of(pipeline, stream)),
        arriving=stream.stream,
        is_schema_decided=True,
        reading=Reading(readers=1, loaders=1, ranges=1, why=""),
        resumption=None,
        mapping=ColumnMapping(declared=stream.stream, arriving=stream.stream, columns=()),
        rules=rules,
        changes=(),
        shape=shape_of(stream.stream),
        source_changes=(),
        former_key=None,
        refusal=refusal,
        is_refused_by_destination=not stream.stream.unreadable,
        needs_decision=False,
        data_blocks=data_blocks(code.subscriptions, stream.name, pipeline.destination.block),
        ignored=None,
    )


def _alterations(mapping: ColumnMapping, table: TableState, *, is_decided: bool) -> list[str]:
    """Say why a stream cannot be written into a table as it is; empty if it can."""
    if not is_decided:
        return ["a transformer decides the columns"]
    return [*table_changes(mapping, table), *mapping.refusals]


def _rules(
    pipeline: Pipeline,
    stream: SelectedStream,
    can: Abilities,
    table: TableState,
    disposition: WriteDisposition,
    *,
    full_refresh: bool,
) -> Rules:
    # A full refresh accepts the source as it is now.
    is_held = table.schema is not None and not full_refresh
    return Rules(
        types=can.states_types,
        connector=pipeline.destination.connector,
        table=table,
        disposition=disposition,
        on_lossy=stream.on_lossy,
        added=frozenset(column.field.name for column in stream.added.columns),
        is_frozen=is_held and stream.on_schema_change == "freeze",
        widens=is_held and stream.on_schema_change == "widen",
    )


def _arriving(pipeline: Pipeline, stream: SelectedStream, blocks: Sequence[Any], code: UserCode) -> tuple[Stream, bool]:
    from ..flow.naming import naming_steps
    from ..flow.transform import Transformer, TransformError, declared_stream

    declared = declared_stream(
        stream.stream, [Transformer(block.block, (), code.renames[block.block]) for block in blocks]
    )
    try:
        declared = declared_stream(declared, naming_steps(stream.naming, pipeline.destination.block))
    except TransformError as error:
        raise stream_error(pipeline, stream, str(error)) from error
    return declared, not any(code.transformers[block.block] for block in blocks)
