"""Plans one stream: where it starts, what its columns become, what is refused, how it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
from msgspec import Struct

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.field_facts import notices_of
from syncblocks.connectors.log_based import DELETES
from syncblocks.connectors.read_spec import ASKING
from syncblocks.connectors.stream import LedgerKey, LedgerRow, Stream, TableState
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec, WrittenRange

from ..config import Pipeline
from ..config.filters import UNIQUE
from ..delivery.subscriptions import UserCode, data_blocks
from ..errors import ConfigError
from .columns import ColumnMapping, Rules, map_columns, other_names, table_changes
from .evolution import (
    Ignored,
    former_key,
    frozen,
    ignored,
    lost_keys,
    of_source,
    planned_changes,
    rekeyed,
    relaxed,
    unless_left_out,
    without_columns,
)
from .features.before import plan_before
from .features.checks import length_checks, value_checks
from .features.deleted_when import check_deleted_when
from .features.deletes import plan_deletes, unordered_key, why_no_deletes
from .features.fill_new_columns import PlannedFill, columns_to_fill, why_no_filling
from .features.history import check_history, holds_history, not_yet, timed
from .features.latest_by import check_latest
from .features.log_based import check_arrival, check_log, is_logged, with_whole_records
from .features.masks import folder_columns, refuse_masked_folders
from .features.replace_range import arriving_range
from .groups import RecordChecks, Replacing, SchemaPlan, Texts, Verdict
from .guessed_types import Limits, decided, in_common, untyped_columns
from .nanoseconds import in_microseconds
from .plan import Connectors, PlannedStream
from .reading import StreamReading, plan_reading, plan_resumption
from .refusals import (
    Unplannable,
    check_added,
    check_least,
    check_nested,
    check_ranges,
    check_rejected,
    check_tracked,
    check_unique,
    check_updates_only,
    stream_error,
)
from .run_options import RunOptions
from .schema_snapshots import Change, Shape, differences, shape_of
from .selected_stream import OfSource, SelectedStream
from .start import Start, emptied_warnings, ledger_row, restored_notices, starting_point
from .start_refusals import not_ours
from .steps import in_order
from .stream_transformers import transformers_of
from .table_writers import other_writers
from .transfer_formats import ARROW, chosen_wire
from .undecided_numbers import is_undecided, settled, text_warnings, turned_to_text


class StreamPlanning(Struct, frozen=True, kw_only=True):
    """What the plan of one stream is made from, beside the stream as it is selected."""

    pipeline: Pipeline
    key: LedgerKey
    #: The state of its destination table.
    table: TableState
    #: Whether the run store has a state of it, and its shape there.
    is_known: bool
    before: Shape | None
    #: The streams of the plan that write its table.
    sharing: Sequence[str]
    #: Those of them that are planned together with it.
    beside: Sequence[SelectedStream]
    code: UserCode
    connectors: Connectors
    options: RunOptions
    #: By the clock of this machine.
    now: datetime

    def disposition(self, stream: SelectedStream) -> WriteDisposition:
        """Return the disposition of this run: a full refresh replaces."""
        return WriteDisposition.REPLACE if self.options.full_refresh else stream.write.disposition


class _Arrival(Struct, frozen=True, kw_only=True):
    """A stream before and behind its transformers, as far as it can be known before a record is read."""

    selected: SelectedStream
    #: As its records are read, and as the source offers them: with types that its first load decides.
    read: Stream
    offered: Stream
    #: The transformer blocks that apply, in order.
    blocks: Sequence[Any]
    #: The stream behind them; whether no function of theirs may still change it.
    declared: Stream
    is_decided: bool
    #: Columns by the source's names -> by the names behind the transformers.
    names: Mapping[str, str]
    rules: Rules

    @property
    def required(self) -> list[str]:
        """Names of the columns that hold no NULL at the source."""
        return [field.name for field in self.read.schema if not field.nullable]

    @property
    def write(self) -> WriteSpec:
        """How it is written, in the names behind the transformers."""
        return self.selected.write.renamed(self.names.__getitem__)

    def again(self, planning: StreamPlanning, stream: Stream) -> _Arrival:
        """Return it with other types of the stream's columns."""
        selected = replace(self.selected, stream=stream)
        declared, _ = _behind_transformers(planning, selected, self.blocks)
        return replace(self, selected=selected, declared=declared)


class _Mapped(Struct, frozen=True, kw_only=True):
    """A stream's columns, and the destination's."""

    arrival: _Arrival
    mapping: ColumnMapping
    #: What `on_schema_change: ignore` leaves out, by the source's names.
    left: Ignored

    @property
    def unsure(self) -> frozenset[str]:
        """Names behind the transformers of what it leaves out if a function of theirs returns it."""
        return frozenset(self.arrival.names[name] for name in self.left.unsure)


def plan_stream(planning: StreamPlanning, stream: SelectedStream) -> PlannedStream:
    """Plan one stream.

    Raises:
        Unplannable: source or destination cannot serve it; with `allow_blocks_to_fail` it fails in its turn.
        ConfigError: the pipeline file asks for what cannot be.
    """
    row = _ledger_row(planning, stream)
    if row is not None:
        planning = replace(planning, table=replace(planning.table, columns=row.columns))
    if is_logged(stream.stream):
        others = other_writers(planning.key, planning.table, planning.sharing)
        check_log(planning.pipeline, stream, row, planning.connectors, others, is_anew=planning.options.full_refresh)
        if any(planning.code.transformers[block.block] for block in transformers_of(planning.pipeline, stream)):
            stream = with_whole_records(planning.pipeline, stream)
        elif stream.write.disposition is WriteDisposition.MERGE and (
            stream.write.max_rejected is not None
            or (stream.stream.read.where and stream.stream.locator.get(DELETES) == "ignore")
        ):
            # The table may lack a value that does not change, or have an older one.
            stream = with_whole_records(planning.pipeline, stream)
    start = _start(planning, stream, row)
    if is_logged(stream.stream) and stream.write.disposition is WriteDisposition.MERGE:
        if start.bookmark is None:  # a copy takes the place of whatever is there
            planning = replace(planning, options=planning.options._replace(full_refresh=True))
        elif not planning.options.full_refresh:
            stream = replace(stream, write=replace(stream.write, changes=True))
    arrival = _arrival(planning, stream, row, start)
    if is_logged(stream.stream):
        check_arrival(planning.pipeline, stream, arrival.declared)
    before = planning.before if planning.table.schema is not None else None
    mapped = _mapped(planning, arrival, before)
    selected = mapped.arrival.selected
    if selected.policy.deletes is not None and (
        reason := unordered_key(selected, mapped.mapping, planning.table, planning.connectors)
    ):
        raise stream_error(planning.pipeline, selected, f"`deletes` {reason}")
    return _planned(planning, mapped, row, start, before)


def refused_stream(planning: StreamPlanning, stream: SelectedStream, why: ConfigError) -> PlannedStream:
    """Plan a stream that will fail in its turn: source or destination cannot serve it."""
    planning = replace(planning, options=planning.options._replace(full_refresh=False))
    return PlannedStream(
        stream=stream.stream,
        policy=stream.policy,
        key=planning.key,
        table=planning.table,
        start=Start(bookmark=None, reason="will fail"),
        write=stream.write,
        wire=ARROW,
        transformers=tuple(block.block for block in transformers_of(planning.pipeline, stream)),
        arriving=stream.stream,
        is_schema_decided=True,
        reading=StreamReading(readers=1, loaders=1, ranges=1, why=""),
        resumption=None,
        mapping=ColumnMapping(declared=stream.stream, arriving=stream.stream, columns=()),
        schema=SchemaPlan(shape=shape_of(stream.stream), rules=_rules(planning, stream)),
        verdict=Verdict(
            refusal=why.message,
            is_refused_by_destination=not (stream.stream.unreadable or isinstance(why, OfSource)),
        ),
        record_checks=RecordChecks(data_blocks=_data_blocks(planning, stream)),
        steps=() if (before := plan_before(stream.policy)) is None else (before,),
    )


# -- where it starts ---------------------------------------------------------------------------------------------------


def _ledger_row(planning: StreamPlanning, stream: SelectedStream) -> LedgerRow | None:
    """Return what the destination's ledger says of the stream; refuse what neither side can serve."""
    pipeline, can = planning.pipeline, planning.connectors.destination_can
    if stream.stream.unreadable:
        raise stream_error(pipeline, stream, stream.stream.unreadable, kind=Unplannable)
    refusal = "" if can.refuses_keys is None else can.refuses_keys.refusal(planning.key)
    if refusal:
        raise stream_error(pipeline, stream, refusal, kind=Unplannable)
    row = ledger_row(planning.table, planning.key)
    if stream.write.disposition is WriteDisposition.HISTORY or holds_history(planning.table, row):
        check_history(
            pipeline,
            stream,
            planning.table,
            row,
            can,
            full_refresh=planning.options.full_refresh,
            drop_history=planning.options.drop_history,
        )
    return row


def _start(planning: StreamPlanning, stream: SelectedStream, row: LedgerRow | None) -> Start:
    connectors = planning.connectors
    start = starting_point(
        stream,
        planning.table,
        row,
        is_known=planning.is_known,
        sources=(connectors.source_name, connectors.source.identity()),
        full_refresh=planning.options.full_refresh,
    )
    if isinstance(start, str):
        raise stream_error(planning.pipeline, stream, start)
    return start


# -- what its columns become -------------------------------------------------------------------------------------------


def _arrival(planning: StreamPlanning, stream: SelectedStream, row: LedgerRow | None, start: Start) -> _Arrival:
    """Decide the types that the pipeline file, the table and earlier records decide."""
    pipeline, connectors, full_refresh = planning.pipeline, planning.connectors, planning.options.full_refresh
    read, types = stream.stream, connectors.source_can.finds_types
    if types is not None and not full_refresh:
        stream = replace(stream, stream=types.as_known(stream.stream, start.bookmark))
    blocks = transformers_of(pipeline, stream)
    declared, is_decided = _behind_transformers(planning, stream, blocks)
    check_nested(pipeline, stream)
    check_added(pipeline, stream, declared, connectors.destination_can)
    writers = other_writers(planning.key, planning.table, planning.sharing)
    if (setting := stream.policy.deletes) is not None and (
        reason := why_no_deletes(stream, setting, declared, planning.table, writers, connectors)
    ):
        raise stream_error(pipeline, stream, f"`deletes` {reason}")
    names = dict(zip(stream.stream.schema.names, declared.schema.names, strict=True))
    rules = _rules(planning, stream)
    is_anew = full_refresh or planning.table.schema is None
    if (history := stream.policy.added.history) is not None:
        is_late = planning.options.is_late
        stream = timed(pipeline, stream, history, row, names, drop_history=is_anew, may_be_late=is_late)
    rules = replace(
        rules,
        said={names[name]: kind for name, kind in stream.said.items() if name in names},
        decode={names[name]: form for name, form in stream.decode.items() if name in names},
        lengths={names[name]: length for name, length in stream.lengths.items() if name in names},
        deciding=stream.write.renamed(names.__getitem__).deciding,
    )
    if is_decided and not full_refresh:  # what a function makes of a value is not known
        changeable = _changeable(pipeline, stream, names)
        is_ours = row is not None and row.committed_at is not None and stream.on_schema_change != "freeze"
        movable = changeable if is_ours else frozenset()
        untyped = row.untyped if row is not None and is_ours and not writers else ()
        found = decided(stream.stream, names, rules, changeable, movable, _limits(planning), untyped)
        stream = replace(stream, stream=found)
        if planning.table.schema is None and planning.beside:
            stream = replace(stream, stream=in_common(stream.stream, names, _beside(planning)))
        read = stream.stream
    offered = stream.stream
    stream = replace(stream, stream=settled(offered, names, rules, is_decided=is_decided, is_new=full_refresh))
    arrival = _Arrival(
        selected=stream,
        read=read,
        offered=offered,
        blocks=blocks,
        declared=declared,
        is_decided=is_decided,
        names=names,
        rules=rules,
    )
    return arrival.again(planning, _refitted(pipeline, stream))


def _beside(planning: StreamPlanning) -> list[pa.Schema]:
    """Return the columns, as they arrive, of the other streams of the table; not those that a function may change."""
    found = [_behind_transformers(planning, each, transformers_of(planning.pipeline, each)) for each in planning.beside]
    return [declared.schema for declared, is_decided in found if is_decided]


def _limits(planning: StreamPlanning) -> Limits:
    """Return a function that reads the least and the greatest value of a column of the table."""
    reads, table = planning.connectors.destination_can.reads_limits, planning.key.destination_table
    return lambda column: None if reads is None else reads.limits(table, [column]).get(column)


def _changeable(pipeline: Pipeline, stream: SelectedStream, names: Mapping[str, str]) -> frozenset[str]:
    """Return the columns that may get another kind of values, since no order of records depends on them."""
    read, written = stream.stream, stream.write.written_range
    fixed = {*read.key_properties, *read.unique_properties, *read.read.bookmark_properties}
    fixed |= set() if written is None else {written.column}
    folders = folder_columns(pipeline)
    return frozenset(name for name in names if name not in fixed and names[name] not in folders)


def _mapped(planning: StreamPlanning, arrival: _Arrival, before: Shape | None) -> _Mapped:
    """Map its columns to the destination's types; `before`: the shape in which it was last written."""
    pipeline, names, is_decided = planning.pipeline, arrival.names, arrival.is_decided
    required = arrival.required if is_decided else ()
    arrival = arrival.again(
        planning, relaxed(arrival.selected.stream, before, required, full_refresh=planning.options.full_refresh)
    )
    stream, rules, left = arrival.selected, arrival.rules, Ignored()
    try:
        if _ignores_new_columns(planning, stream):
            left = ignored(stream.stream, arrival.declared, before, rules, is_decided=is_decided)
        rules = replace(rules, left_out=frozenset(names[name] for name in (*left.unsure, *left.columns)))
        mapping = map_columns(stream.policy.added.stream(arrival.declared), rules)
        looks_at_times = planning.connectors.source_can.looks_at_times
        whole = in_microseconds(stream.stream, names, mapping, rules, looks_at_times)
        if whole is not stream.stream:
            arrival = arrival.again(planning, whole)
            mapping = map_columns(arrival.selected.policy.added.stream(arrival.declared), rules)
    except FatalConnectorError as error:  # a column that the destination cannot name
        raise stream_error(pipeline, stream, str(error), kind=Unplannable) from error
    return _Mapped(arrival=replace(arrival, rules=rules), mapping=mapping, left=left)


def _ignores_new_columns(planning: StreamPlanning, stream: SelectedStream) -> bool:
    is_held = planning.table.schema is not None and not planning.options.full_refresh
    return is_held and stream.on_schema_change == "ignore"


def _refitted(pipeline: Pipeline, stream: SelectedStream) -> Stream:
    """Read the values of its filter in the types that its columns have by now."""
    if not stream.stream.read.where:
        return stream.stream
    from syncblocks.connectors.filters import refitted  # a pipeline without filters spares the import

    offered = stream.stream
    if offered.read.masks is not None:
        from syncblocks.connectors.arrow.masking import unmasked_stream

        offered = unmasked_stream(offered)  # the source filters by values as they are
        _demand_said_types(pipeline, stream, offered)
    try:
        return replace(stream.stream, read=replace(stream.stream.read, where=refitted(offered).read.where))
    except ValueError as error:
        raise stream_error(pipeline, stream, str(error), kind=OfSource) from error


def _demand_said_types(pipeline: Pipeline, stream: SelectedStream, offered: Stream) -> None:
    """Refuse a filter by a masked column that is read as text, as its type is only guessed: `10` is below `9` there."""
    import pyarrow as pa  # a pipeline without filters spares the import

    masked = {} if offered.read.masks is None else offered.read.masks.fields
    for condition in offered.read.where:
        field = condition.field
        if field.name not in masked or condition.operator in ASKING:
            continue
        is_text = pa.types.is_string(masked[field.name].type)
        # Days are written as they are compared; times may be written in several ways.
        if is_text and not (pa.types.is_string(field.type) or pa.types.is_date(field.type)):
            text = (
                f"where: column {field.name!r} is masked, and where its type is only guessed, the text that is "
                "written: say its type in `config.types` of the source"
            )
            raise stream_error(pipeline, stream, text, kind=OfSource)


def _rules(planning: StreamPlanning, stream: SelectedStream) -> Rules:
    # A full refresh accepts the source as it is now.
    is_held = planning.table.schema is not None and not planning.options.full_refresh
    widens = is_held and stream.on_schema_change == "widen"
    return Rules(
        types=planning.connectors.destination_can.states_types,
        connector=planning.pipeline.destination.connector,
        table=planning.table,
        disposition=planning.disposition(stream),
        on_lossy=stream.on_lossy,
        ways=stream.policy.ways,
        added=frozenset(column.field.name for column in stream.policy.added.columns),
        is_frozen=is_held and stream.on_schema_change == "freeze",
        widens=widens,
        others=tuple(other_writers(planning.key, planning.table, planning.sharing)) if widens else (),
    )


def _behind_transformers(
    planning: StreamPlanning, stream: SelectedStream, blocks: Sequence[Any]
) -> tuple[Stream, bool]:
    """Return the stream as its transformers declare it, and whether no function may still change it."""
    from ..flow.naming import naming_steps
    from ..flow.transform import Transformer, TransformError, declared_stream

    pipeline, code = planning.pipeline, planning.code
    renaming = [Transformer(block.block, (), code.renames[block.block]) for block in blocks]
    try:
        declared = declared_stream(stream.stream, renaming)
        declared = declared_stream(declared, naming_steps(stream.policy.naming, pipeline.destination.block))
    except TransformError as error:
        raise stream_error(pipeline, stream, str(error), kind=OfSource) from error
    return declared, not any(code.transformers[block.block] for block in blocks)


# -- what is refused, and how it is read -------------------------------------------------------------------------------


def _planned(
    planning: StreamPlanning, mapped: _Mapped, row: LedgerRow | None, start: Start, before: Shape | None
) -> PlannedStream:
    """Decide the rest about a stream whose columns are mapped."""
    pipeline, connectors, full_refresh = planning.pipeline, planning.connectors, planning.options.full_refresh
    arrival, mapping, left = mapped.arrival, mapped.mapping, mapped.left
    names, is_decided, rules = arrival.names, arrival.is_decided, arrival.rules
    stream, disposition = arrival.selected, planning.disposition(arrival.selected)
    left_out = tuple(name for name in names if name in left.columns)
    # A replaced table gets new column types, whether values were seen or not.
    shape = shape_of(
        arrival.read,
        stream.left_out,
        None if disposition is WriteDisposition.REPLACE else before,
        None if left.unsure else left_out,
        arrival.required,
        is_decided=is_decided,
    )
    changes = tuple(unless_left_out(change, left_out) for change in differences(before, shape))
    if start.is_unclaimed and (altered := _alterations(mapping, planning.table, is_decided=is_decided)):
        raise stream_error(pipeline, stream, not_ours(stream, altered))
    refused = _refused_changes(planning, mapped, changes, before, row)
    lossy = mapping.refusals if is_decided else ()
    stream = replace(stream, stream=without_columns(stream.stream, left.columns))
    declared = stream.policy.added.stream(without_columns(arrival.declared, rules.left_out - mapped.unsure))
    arriving = mapping.arriving if is_decided else declared
    arrival = replace(arrival, selected=stream, declared=declared)
    written = _checked(planning, arrival, mapping)
    reading, wire = _reading(planning, arrival, mapping, arriving)
    fills = _fills(planning, arrival, mapping, row, start)
    deletes = None
    if (setting := stream.policy.deletes) is not None:
        date, now = pipeline.execution_date, planning.now
        deletes = plan_deletes(stream, setting, row, connectors, date, full_refresh=full_refresh, now=now)
    steps = in_order(filter(None, [plan_before(stream.policy), fills, deletes]))
    history = stream.policy.added.history
    return PlannedStream(
        stream=stream.stream,
        policy=stream.policy,
        key=planning.key,
        table=planning.table,
        start=start,
        # A history begins anew by itself: versions of one key may arrive.
        write=replace(
            arrival.write,
            disposition=disposition if history is None else WriteDisposition.HISTORY,
            written_range=written,
            kept=stream.policy.added.kept,
        ),
        wire=wire,
        transformers=tuple(block.block for block in arrival.blocks),
        arriving=arriving,
        is_schema_decided=is_decided,
        record_checks=_record_checks(planning, arrival, mapping),
        mapping=replace(mapping, declared=declared),
        schema=SchemaPlan(
            shape=shape,
            source_changes=changes,
            ignored=left_out if _ignores_new_columns(planning, stream) else None,
            untyped=untyped_columns(mapping, row, rules, full_refresh=full_refresh) if is_decided else (),
            rules=replace(rules, left_out=mapped.unsure),
        ),
        verdict=Verdict(
            refusal="; ".join([*refused, *lossy]),
            is_refused_by_destination=not refused,
            needs_decision=bool(lossy) and not changes,
        ),
        replacing=Replacing(
            is_appended_anew=full_refresh and stream.write.disposition is WriteDisposition.APPEND,
            drops_history=full_refresh and history is not None,
            former_key=former_key(
                before, shape, [planning.code.renames[block.block] for block in arrival.blocks], stream.policy.naming
            ),
        ),
        reading=reading,
        resumption=plan_resumption(stream.stream, connectors.source_can),
        steps=steps,
        texts=Texts(
            changes=(
                *planned_changes(mapping, planning.table, disposition, is_decided=is_decided),
                *of_source(changes),
            ),
            notices=(
                *notices_of(stream.stream.schema),
                *turned_to_text(mapping, planning.table),
                *other_names(mapping),
                *(() if history is None else not_yet(history, planning.now)),
                *restored_notices(stream, planning.table, row, start),
                *(notice for step in steps for notice in step.notices),
            ),
            warnings=(
                *(f"{stream.name}: {each}" for each in stream.differences),
                *text_warnings(arrival.offered, names, mapping, is_decided=is_decided),
                *emptied_warnings(stream, planning.table, row, start),
            ),
        ),
    )


def _record_checks(planning: StreamPlanning, arrival: _Arrival, mapping: ColumnMapping) -> RecordChecks:
    """Return what is done with each record between source and destination."""
    pipeline, stream, names, is_decided = planning.pipeline, arrival.selected, arrival.names, arrival.is_decided
    said = {"checks": stream.policy.checks, "warn_checks": stream.policy.warn_checks}
    checks, warn_checks = (
        value_checks(pipeline, stream, each, mapping, names, is_decided=is_decided, setting=setting) if each else ()
        for setting, each in said.items()
    )
    lengths = length_checks(mapping, arrival.rules.lengths, is_decided=is_decided)
    return RecordChecks(
        checks=(*(check for check in checks if check.operator != UNIQUE), *lengths),
        unique=tuple(check.field.name for check in checks if check.operator == UNIQUE),
        warn_checks=warn_checks,
        data_blocks=_data_blocks(planning, stream),
    )


def _alterations(mapping: ColumnMapping, table: TableState, *, is_decided: bool) -> list[str]:
    """Say why a stream cannot be written into a table as it is; empty if it can."""
    if not is_decided:
        return ["a transformer decides the columns"]
    return [*table_changes(mapping, table), *mapping.refusals]


def _refused_changes(
    planning: StreamPlanning,
    mapped: _Mapped,
    changes: Sequence[Change],
    before: Shape | None,
    row: LedgerRow | None,
) -> list[str]:
    """Return the changes of the source, or of the table, that the stream must not take over, in words."""
    rules = mapped.arrival.rules
    found = [frozen(changes, before, mapped.mapping, rules)]
    if not planning.options.full_refresh:
        found.append(rekeyed(changes, rules) or lost_keys(mapped.arrival.declared, row, rules))
    return [text for text in found if text]


def _checked(planning: StreamPlanning, arrival: _Arrival, mapping: ColumnMapping) -> WrittenRange | None:
    """Refuse settings that its columns or the connectors cannot serve; return the range that `replace_range` writes."""
    pipeline, connectors, full_refresh = planning.pipeline, planning.connectors, planning.options.full_refresh
    stream, table, is_decided, can = arrival.selected, planning.table, arrival.is_decided, connectors.destination_can
    check_rejected(pipeline, stream, can)
    check_least(pipeline, stream, has_ledger=planning.connectors.destination.has_ledger)
    check_updates_only(pipeline, stream, table, can, full_refresh=full_refresh)
    check_tracked(pipeline, stream, can)
    check_ranges(pipeline, stream, can)
    written = stream.write.written_range
    try:
        if written is not None:
            written = arriving_range(stream, written, arrival.names, mapping, table, full_refresh=full_refresh)
    except ValueError as error:
        raise stream_error(pipeline, stream, str(error)) from error
    check_unique(pipeline, stream, can, full_refresh=full_refresh)
    if (masks := stream.stream.read.masks) is not None:
        refuse_masked_folders(pipeline, stream, masks, arrival.names)
    check_latest(pipeline, stream, arrival.write, mapping, table, connectors, is_decided=is_decided)
    check_deleted_when(pipeline, stream, arrival.write, mapping, connectors, is_decided=is_decided)
    return written


def _reading(
    planning: StreamPlanning, arrival: _Arrival, mapping: ColumnMapping, arriving: Stream
) -> tuple[StreamReading, str]:
    """Return by how many readers it is read, and the wire on which its records go."""
    pipeline, connectors, stream = planning.pipeline, planning.connectors, arrival.selected
    disposition, kept = planning.disposition(stream), _data_blocks(planning, stream)
    is_converted = any(column.conversion or column.said is not None for column in mapping.columns)
    is_checked = bool(stream.policy.checks or stream.policy.warn_checks or stream.lengths)
    is_untouched = not (kept or is_converted or stream.policy.added or is_checked)
    wire = ARROW
    accepted = connectors.destination.accepts(arriving, disposition) if arrival.is_decided else ()
    # To keep rejected records, the engine must see records one by one; `replace_range` looks at each of them.
    is_plain = arrival.is_decided and is_untouched and stream.write.max_rejected is None
    is_plain = is_plain and stream.policy.min_records is None  # blocks do not say how many records they hold
    if is_plain and disposition is not WriteDisposition.REPLACE_RANGE:
        wire = chosen_wire(connectors.source, accepted, stream.stream, arriving)
    has_own_names = arriving.schema.names == stream.stream.schema.names
    reading = plan_reading(
        stream,
        disposition,
        connectors.source_can,
        connectors.destination_can,
        source_name=pipeline.source.connector,
        is_plain=is_untouched and has_own_names and not arrival.blocks,
        has_workers=pipeline.executor.is_elsewhere,
    )
    if is_undecided(stream.stream):
        reading = StreamReading(readers=1, loaders=1, ranges=1, why="its first load decides the types of numbers")
    return reading, wire if reading.readers == 1 or reading.loaders > 1 else ARROW


def _fills(
    planning: StreamPlanning, arrival: _Arrival, mapping: ColumnMapping, row: LedgerRow | None, start: Start
) -> PlannedFill | None:
    """Return the columns to fill, or `None` if the run does not fill any."""
    stream, can = arrival.selected, planning.connectors.destination_can
    no_filling = why_no_filling(stream, can, is_decided=arrival.is_decided)
    if stream.fills_new_columns and no_filling:
        raise stream_error(planning.pipeline, stream, f"`fill_new_columns` {no_filling}")
    if no_filling or planning.options.full_refresh:
        return None
    columns = columns_to_fill(stream, arrival.names, mapping, row, start)
    return PlannedFill(columns=columns) if columns else None


def _data_blocks(planning: StreamPlanning, stream: SelectedStream) -> frozenset[str]:
    return data_blocks(planning.code.subscriptions, stream.name, planning.pipeline.destination.block)
