"""`syncblocks plan`: what a run would do. Writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import words
from .console import Console
from .options import common, file_argument, open_pipeline, stream_option, variable_option

if TYPE_CHECKING:
    from ..plan import Plan, PlannedStream


@click.command("plan")
@common
@variable_option
@click.option("--full-refresh", is_flag=True, help="As `run --full-refresh` would do.")
@stream_option
@file_argument
def plan_command(
    console: Console,
    file: Path | None,
    streams: tuple[str, ...],
    full_refresh: bool,
    variables: tuple[tuple[str, Any], ...],
) -> int:
    """Show what a run would do, stream by stream, and what to look out for. Writes nothing."""
    from ..inspection import existing_store, opened
    from ..session import make_plan

    pipeline = open_pipeline(console, file, variables)
    with opened(pipeline) as session, existing_store(pipeline) as store:
        plan = make_plan(session, store, streams=streams, full_refresh=full_refresh)
    if console.is_json:
        console.emit({"type": "plan", "pipeline": pipeline.pipeline, **document(plan)})
        return 0
    show(console, plan)
    return 0


def document(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON."""
    return {
        "streams": [
            {
                "stream": planned.name,
                "destination_table": planned.key.destination_table,
                "replication_method": str(planned.selected.stream.replication_method),
                "bookmark_properties": list(planned.selected.stream.bookmark_properties),
                "key_properties": list(planned.arriving.key_properties),
                "write_disposition": str(planned.write_disposition),
                "unique_conflict_method": str(planned.selected.conflict_method),
                "bookmark": _bookmark(planned),
                "start": planned.start.reason,
                "transformers": list(planned.transformers),
                "changes": list(planned.changes),
                "wire": planned.wire,
                "kept_for_callbacks": sorted(planned.data_blocks),
                "columns": {field.name: str(field.type) for field in planned.arriving.schema},
                "estimated_records": planned.selected.stream.estimated_records,
            }
            for planned in plan.streams
        ],
        "groups": [list(group) for group in plan.groups],
        "warnings": list(plan.warnings),
    }


def show(console: Console, plan: Plan) -> None:
    """Print the plan."""
    console.table(
        ["stream", "destination table", "method", "write", "keys", "start", "records", "changes", "wire"],
        [
            [
                planned.name,
                planned.key.destination_table,
                str(planned.selected.stream.replication_method),
                str(planned.write_disposition),
                ", ".join(planned.arriving.key_properties),
                words.cut(words.bookmark(_bookmark(planned)), 40) or planned.start.reason,
                _estimate(planned),
                words.cut("; ".join(planned.changes), 80),
                planned.wire,
            ]
            for planned in plan.streams
        ],
        right=["records"],
    )
    console.echo()
    console.echo(
        f"{words.plural(len(plan.streams), 'stream')}; nothing was written. `syncblocks run` carries this out."
    )
    for warning in plan.warnings:
        console.warn(warning)


def _bookmark(planned: PlannedStream) -> dict[str, Any] | None:
    from ..plan import shown_bookmark

    return shown_bookmark(planned.start.bookmark)


def _estimate(planned: PlannedStream) -> str:
    estimated = planned.selected.stream.estimated_records
    return "" if estimated is None else f"~{words.count(estimated)}"
