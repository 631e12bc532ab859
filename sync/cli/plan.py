"""`syncblocks plan`: show what a run would do. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import formatting
from .console import Console
from .options import (
    Moments,
    check_drop_history,
    common,
    drop_history_option,
    file_argument,
    moment_options,
    open_pipeline,
    stream_option,
    tag_option,
    variable_option,
)
from .pipeline_file import file_words

if TYPE_CHECKING:
    from syncblocks.connectors.read_spec import Condition
    from syncblocks.connectors.write_spec import WrittenRange

    from ..config.filters import FilterCondition
    from ..plan.columns import ColumnPlan
    from ..plan.plan import Plan, PlannedStream
    from ..plan.reading import Resumption

#: Most columns of each fidelity in a stream's line.
NAMED_COLUMNS = 5


@click.command("plan", short_help="Show what a run would do; write nothing.")
@common
@variable_option
@moment_options
@click.option("--full-refresh", is_flag=True, help="As `run --full-refresh` would do.")
@drop_history_option
@click.option("--types", is_flag=True, help="Show every column: its type, and how exactly it is kept.")
@stream_option
@tag_option
@file_argument
def plan_command(
    console: Console,
    file: Path | None,
    streams: tuple[str, ...],
    tags: tuple[str, ...],
    full_refresh: bool,
    drop_history: bool,
    types: bool,
    variables: tuple[tuple[str, Any], ...],
    moments: Moments,
) -> int:
    """Show what a run would do, stream by stream, with warnings. Writes nothing."""
    from ..plan.foreign_key_groups import joined
    from ..plan.run_options import RunOptions
    from ..session.inspection import existing_store, opened
    from ..session.session import make_plan

    check_drop_history(full_refresh=full_refresh, drop_history=drop_history)

    pipeline = open_pipeline(console, file, variables, **moments._asdict())
    with opened(pipeline) as session, existing_store(pipeline) as store:
        options = RunOptions(full_refresh=full_refresh, drop_history=drop_history)
        plan = make_plan(session, store, streams=streams, tags=tags, options=options)
    if not plan.elsewhere:
        plan = joined(plan)
    if console.is_json:
        console.emit({"type": "plan", "pipeline": pipeline.pipeline, **document(plan)})
    else:
        show(console, plan, types=types, file=file_words(pipeline))
    return 2 if any(planned.verdict.refusal for planned in plan.streams) else 0


def document(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON."""
    from ..plan.steps import documents

    return {
        "missing_streams": [each.stream for each in plan.missing],
        "streams": [
            {
                "stream": planned.name,
                "destination_table": planned.key.destination_table,
                "replication_method": str(planned.stream.read.method),
                "bookmark_properties": list(planned.stream.read.bookmark_properties),
                "where": _where(planned),
                "limit": planned.stream.read.limit,
                "sampled_files": planned.stream.sampled_files,
                "min_records": planned.policy.min_records,
                "nested": planned.policy.nested,
                "masks": _masks(planned),
                "checks": _written_checks(planned),
                "warn_checks": _checks(planned, planned.record_checks.warn_checks, planned.policy.warn_checks),
                **documents(planned.steps),
                "added_columns": list(map(str, planned.policy.added.columns)),
                "history": str(planned.policy.added.history or "") or None,
                "key_properties": list(planned.arriving.key_properties),
                "unique_constraints": list(planned.arriving.unique_properties),
                "write_disposition": str(planned.write.disposition),
                "written_range": _written_range(planned.write.written_range),
                "latest_by": planned.write.latest_by or None,
                "latest_is_lowest": planned.write.latest_is_lowest,
                "deleted_when": str(planned.write.deleted_when or "") or None,
                "unique_conflict_method": str(planned.write.conflict_method),
                "bookmark": _bookmark(planned),
                "start": planned.start.reason,
                "transformers": list(planned.transformers),
                "changes": list(planned.texts.changes),
                "creates_schema": planned.table.new_schema or None,
                "after": list(planned.placement.parents),
                "wire": planned.wire,
                "parallel_reads": {
                    "asked": planned.policy.parallel_reads,
                    "readers": planned.reading.readers,
                    "loaders": planned.reading.loaders,
                    "ranges": planned.reading.ranges,
                    "why": planned.reading.why,
                    "workers": planned.reading.where or None,
                },
                "incremental": _incremental(planned.resumption),
                "kept_for_callbacks": sorted(planned.record_checks.data_blocks),
                "columns": {field.name: str(field.type) for field in planned.arriving.schema},
                "triggers": [
                    {"name": trigger.name, "timing": trigger.timing, "events": list(trigger.events)}
                    for trigger in planned.triggers
                ],
                "fidelity": [_column(column) for column in planned.mapping.columns],
                "source_changes": [dict(change) for change in planned.schema.source_changes],
                "refusal": planned.verdict.refusal or None,
                "estimated_records": planned.stream.estimated_records,
            }
            for planned in plan.streams
        ],
        "groups": [list(group) for group in plan.groups],
        "before": [statement.document() for statement in plan.before],
        "files": dict(plan.files),
        "elsewhere": plan.elsewhere or None,
        "left_out": dict(plan.left_out),
        "log_retained_bytes": plan.log.retained_bytes,
        "warnings": list(plan.warnings),
    }


def _written_range(written: WrittenRange | None) -> dict[str, Any] | None:
    if written is None:
        return None
    ends = None if written.interval is None else [moment.isoformat() for moment in written.interval]
    return {"column": written.column, "interval": ends, "is_by_files": written.is_by_files}


def _where(planned: PlannedStream) -> list[str]:
    """Return the filter; what a masked column is compared with is not shown."""
    masked = _masks(planned)
    return [
        f"{each.field.name} {each.operator} ***" if each.field.name in masked and each.values else str(each)
        for each in planned.stream.read.where
    ]


def _files(said: Mapping[str, Any]) -> str:
    """Return into which files records go; empty: nothing is said about it."""
    folders, most = said.get("partition_by"), said.get("file_records")
    parts = [f"a folder for each {', '.join(folders)} (`partition_by`)"] if folders else []
    parts += [f"at most {formatting.count(most)} records in each (`file_records`)"] if most else []
    size_bytes = said.get("file_bytes")
    parts += [f"no further batch into a file of {formatting.size(size_bytes)} (`file_bytes`)"] if size_bytes else []
    return "; ".join(parts)


def _statement(sql: str) -> str:
    return formatting.cut(" ".join(sql.split()), 80)


def _checks(planned: PlannedStream, checks: Sequence[Condition], said: Sequence[FilterCondition]) -> list[str]:
    """Return some checks; before a transformer's function is known to make its columns, as the file has them."""
    if planned.is_schema_decided:
        return list(map(str, checks))
    from ..config.filters import UNIQUE

    return [
        f"{column} {operator.replace('_', ' ')} {', '.join(map(str, values))}".strip()
        for column, operator, values in said
        if operator != UNIQUE
    ]


def _written_checks(planned: PlannedStream) -> list[str]:
    """Return the checks that records must pass to be written."""
    unique = [f"unique {', '.join(planned.record_checks.unique)}"] if planned.record_checks.unique else []
    return [*_checks(planned, planned.record_checks.checks, planned.policy.checks), *unique]


def _masks(planned: PlannedStream) -> dict[str, str]:
    """Return the masked columns, and how each is masked."""
    masks = planned.stream.read.masks
    if masks is None:
        return {}
    from syncblocks.connectors.arrow.masking import rule_of

    found = {name: rule_of(masks, name) for name in planned.stream.schema.names}
    return {name: str(rule) for name, rule in found.items() if rule is not None}


def _mask_lines(planned: PlannedStream) -> list[str]:
    found = [f"masks {name} ({how})" for name, how in _masks(planned).items()]
    return [*found, "`verify` reads the source's records, to mask them"] if found else []


def _incremental(resumption: Resumption | None) -> dict[str, Any] | None:
    if resumption is None:
        return None
    return {
        "null_bookmarks": resumption.null_bookmarks and str(resumption.null_bookmarks),
        "lookback": resumption.lookback,
        "bookmark_start": resumption.bookmark_start or None,
        "skips_late": resumption.skips_late,
    }


def _column(column: ColumnPlan) -> dict[str, Any]:
    kept = column.kept
    return {
        "column": column.name,
        "type": column.type,
        "fidelity": None if column.fidelity is None else str(column.fidelity),
        "destination_column": None if kept is None else kept.column,
        "destination_type": None if kept is None else kept.type,
        "table_type": None if kept is None else kept.held,
        "on_lossy": column.conversion or None,
        "is_left_out": column.is_left_out,
        "note": "" if kept is None else kept.note,
    }


def show(console: Console, plan: Plan, *, types: bool = False, is_alone: bool = True, file: str = "") -> None:
    """Print the plan.

    Args:
        console: where to.
        plan: what is shown.
        types: show every column with its types; else one line for each stream, with the columns not kept exactly.
        is_alone: say what to do next; False if the plan is carried out at once.
        file: see `file_words`.
    """
    from ..plan.selection import left_out_by_when

    console.table(
        ["stream", "destination table", "method", "write", "keys", "start", "records", "changes", "transfer format"],
        [
            [
                planned.name,
                planned.key.destination_table,
                str(planned.stream.read.method),
                str(planned.write.disposition),
                ", ".join(planned.arriving.key_properties),
                formatting.cut(formatting.bookmark(_bookmark(planned)), 40) or planned.start.reason,
                _estimate(planned),
                formatting.cut("; ".join(planned.texts.changes), 80),
                planned.wire,
            ]
            for planned in plan.streams
        ],
        right=["records"],
    )
    console.echo()
    if types:
        _show_types(console, plan)
    else:
        for line in _type_lines(plan):
            console.echo(line)
        if plan.streams and is_alone:
            console.echo("`--types` shows every column.")
    for schema in dict.fromkeys(planned.table.new_schema for planned in plan.streams if planned.table.new_schema):
        console.echo(f"creates {schema}")
    for statement in plan.before:
        console.echo(f"before the first stream, in the {statement.connection}: {_statement(statement.sql)}")
    if files := _files(plan.files):
        console.echo(f"the destination's files: {files}")
    for planned in plan.streams:
        for line in _stream_lines(planned):
            console.echo(f"{planned.name}: {line}")
    joined = {planned.name for planned in plan.streams if planned.placement.is_joined}
    for group in plan.groups:
        if group[0] in joined:
            console.echo(
                f"{', '.join(group)}: connected by foreign keys: loaded in this order, deletions children first"
            )
    for name, when in plan.left_out.items():
        console.echo(left_out_by_when(name, when))
    if is_alone:
        number = formatting.plural(len(plan.streams), "stream")
        console.echo()
        console.echo(f"{number}; nothing was written. `syncblocks run{file}` carries this out.")
    if plan.elsewhere:
        console.echo(f"streams run elsewhere: {plan.elsewhere}")
    for warning in plan.warnings:
        console.warn(warning)
    for planned in plan.streams:
        if planned.verdict.refusal:
            console.warn(f"stream {planned.name!r} will fail: {planned.verdict.refusal}")


def _stream_lines(planned: PlannedStream) -> Iterator[str]:
    """Say of one stream what its columns and the table do not show."""
    from ..plan.features.replace_range import in_words

    policy, arriving = planned.policy, planned.arriving
    if policy.nested:
        levels = formatting.plural(policy.nested, "level")
        yield f"the values of objects are columns, down to {levels}"
    if planned.stream.sampled_files:
        looked_at, files = map(formatting.count, planned.stream.sampled_files)
        yield (
            f"columns and types are of {looked_at} of {files} files; the load adds columns of other files, and its "
            "error names a file with a value that does not fit"
        )
    if planned.stream.read.where:
        yield f"where {' and '.join(_where(planned))}"
    if planned.stream.read.limit is not None:
        most = formatting.plural(planned.stream.read.limit, "record")
        yield f"at most {most} {'is' if planned.stream.read.limit == 1 else 'are'} read"
    if policy.min_records is not None:
        least = formatting.plural(policy.min_records, "record")
        yield f"fewer than {least} fail the stream before anything is written"
    for statement in policy.before:
        yield f"before its read, in the {statement.connection}: {_statement(statement.sql)}"
    if planned.write.written_range is not None:
        yield in_words(planned.write.written_range)
    if checks := _written_checks(planned):
        yield f"checks {' and '.join(checks)}; `verify` reads the source's records"
    if planned.record_checks.warn_checks:
        shown = " and ".join(_checks(planned, planned.record_checks.warn_checks, policy.warn_checks))
        yield f"records that fail {shown} are written, and the run says how many there are"
    yield from _mask_lines(planned)
    if arriving.unique_properties:
        yield f"merged by {', '.join(arriving.unique_properties)}"
    if planned.write.latest_by:
        which = "lowest" if planned.write.latest_is_lowest else "highest"
        yield f"of the records of a key the one with the {which} {planned.write.latest_by} counts"
    if planned.write.conflict_method == "UPDATE_ONLY":
        yield "only records whose key is in the table are written"
    if planned.write.deleted_when is not None:
        yield f"a record with {planned.write.deleted_when} is deleted in the table, by its key"
    for column in policy.added.columns:
        yield f"adds {column}"
    if policy.added.history is not None:
        yield f"keeps every version, {policy.added.history}"
    yield from filter(None, map(str, planned.steps))
    if planned.resumption is not None:
        yield str(planned.resumption)
    if policy.parallel_reads > 1:
        yield str(planned.reading)
    if planned.triggers:
        yield _firing(planned)


def _show_types(console: Console, plan: Plan) -> None:
    rows = []
    for planned in plan.streams:
        for column in planned.mapping.columns:
            kept = column.kept
            shown = column.name if kept is None or kept.column == column.name else f"{column.name} -> {kept.column}"
            rows.append(
                [
                    planned.name,
                    shown,
                    column.type,
                    "" if kept is None else kept.type,
                    _fidelity(column),
                    "" if kept is None else kept.note,
                ]
            )
    console.table(["stream", "column", "type", "kept as", "fidelity", "note"], rows)


def _type_lines(plan: Plan) -> list[str]:
    """Return a line for each stream with columns not kept exactly, and one line for all other streams."""
    from ..plan.columns import summary

    lines, exact = [], 0
    for planned in plan.streams:
        if not planned.is_schema_decided:
            lines.append(f"{planned.name}: columns are decided by the transformer, and checked when its records come")
            continue
        if not planned.mapping.columns:
            continue  # it will fail: the warning says why
        counts = summary(planned.mapping.columns)
        if set(counts) <= {"exact"}:
            exact += 1
            continue
        parts = [f"{number} {each}" for each, number in counts.items() if each in ("exact", "unknown")]
        for each in ("lossy", "text", "widened"):
            found = [column for column in planned.mapping.columns if column.fidelity == each and not column.is_left_out]
            if found:
                named = [f"{column.name} ({column.type} -> {_kept_type(column)})" for column in found[:NAMED_COLUMNS]]
                rest = f" and {len(found) - len(named)} more" if len(found) > len(named) else ""
                parts.append(f"{len(found)} {_fidelity_word(each, found)}: {', '.join(named)}{rest}")
        lines.append(f"{planned.name}: {'; '.join(parts)}")
    if exact:
        lines.append(f"{formatting.plural(exact, 'stream')} with every column kept exactly")
    return lines


def _fidelity_word(each: str, columns: Sequence[ColumnPlan]) -> str:
    return f"{each}, cut as on_lossy says" if each == "lossy" and any(column.conversion for column in columns) else each


def _kept_type(column: ColumnPlan) -> str:
    return "nothing" if column.kept is None else column.kept.type or "no type"


def _fidelity(column: ColumnPlan) -> str:
    shown = "unknown" if column.fidelity is None else str(column.fidelity)
    if column.is_left_out:
        return "left out (on_schema_change: ignore)"
    return f"{shown} (on_lossy: {column.conversion})" if column.conversion else shown


def _firing(planned: PlannedStream) -> str:
    named = ", ".join(map(str, planned.triggers))
    word = "trigger" if len(planned.triggers) == 1 else "triggers"
    return f"{word} of {planned.key.destination_table}: {named}; `verify` shows values that they change as different"


def _bookmark(planned: PlannedStream) -> dict[str, Any] | None:
    from syncblocks.connectors.incremental.bookmarks import values

    return values(planned.start.bookmark)


def _estimate(planned: PlannedStream) -> str:
    estimated = planned.stream.estimated_records
    return "" if estimated is None else f"~{formatting.count(estimated)}"
