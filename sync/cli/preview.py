"""`syncblocks preview`: show the first records of a stream, as they would arrive. Writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import formatting
from .completion import complete_streams
from .console import Console
from .options import Moments, common, file_argument, moment_options, open_pipeline, variable_option


@click.command("preview", short_help="Show the first records of a stream.")
@common
@variable_option
@click.option("--limit", type=click.IntRange(0, 100_000), default=10, show_default=True, metavar="N", help="Records.")
@click.option(
    "--stream",
    "name",
    metavar="NAME",
    help="The stream; may be left out where there is only one.",
    shell_complete=complete_streams,
)
@moment_options
@file_argument
def preview_command(
    console: Console,
    file: Path | None,
    name: str | None,
    limit: int,
    variables: tuple[tuple[str, Any], ...],
    moments: Moments,
) -> int:
    """Show the first records of a stream: columns as selected, renames and transformers applied. Writes nothing."""
    from ..api import list_streams, preview

    pipeline = open_pipeline(console, file, variables, **moments._asdict())
    if name is None:
        names = list_streams(pipeline)
        if len(names) != 1:
            raise click.UsageError(f"needs --stream NAME. There are: {', '.join(names)}")
        name = names[0]
    found = preview(pipeline, name, limit=limit)
    if console.is_json:
        console.emit(
            {
                "type": "preview",
                "stream": found.stream,
                "destination_table": found.destination_table,
                "columns": [{"name": name, "type": kind} for name, kind in found.columns.items()],
                "records": list(found.records),
            }
        )
        return 0
    console.table(
        list(found.columns),
        [[formatting.cell(record.get(column)) for column in found.columns] for record in found.records],
    )
    if not found.records and limit:
        console.echo("no records")
    return 0
