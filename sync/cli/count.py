"""`syncblocks count`: count the records of each stream in source and destination. Writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from syncblocks.connectors.struct_helpers import asdict

from . import formatting
from .console import Console
from .options import (
    Moments,
    common,
    file_argument,
    moment_options,
    open_pipeline,
    stream_option,
    tag_option,
    variable_option,
)


@click.command("count", short_help="Count the records on both sides.")
@common
@variable_option
@stream_option
@tag_option
@moment_options
@file_argument
def count_command(
    console: Console,
    file: Path | None,
    streams: tuple[str, ...],
    tags: tuple[str, ...],
    variables: tuple[tuple[str, Any], ...],
    moments: Moments,
) -> int:
    """Count the records of each selected stream and of its destination table. Writes nothing."""
    from ..api import count as counted
    from ..plan.selection import left_out_by_when

    pipeline = open_pipeline(console, file, variables, **moments._asdict())
    counts = counted(pipeline, streams=streams or None, tags=tags or None)
    if console.is_json:
        found = [asdict(count) for count in counts.streams]
        more = {"note": counts.note, "left_out": dict(counts.left_out), "absent": dict(counts.absent)}
        console.emit({"type": "count", "pipeline": pipeline.pipeline, "streams": found, **more})
        return 0
    console.table(
        ["stream", "source", "destination", "destination table"],
        [
            [
                count.stream,
                formatting.count(count.source),
                "-" if count.destination is None else formatting.count(count.destination),
                count.destination_table,
            ]
            for count in counts.streams
        ],
        right=["source", "destination"],
    )
    for name, when in counts.left_out.items():
        console.echo(left_out_by_when(name, when, "not counted"))
    for name, reason in counts.absent.items():
        console.echo(f"stream {name!r} is not counted: {reason}")
    if counts.note:
        console.warn(counts.note)
    return 0
