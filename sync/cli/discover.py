"""`syncblocks discover`: show the source's streams, or write them as a catalog file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import formatting
from .completion import complete_streams
from .console import Console
from .options import Moments, common, file_argument, moment_options, open_pipeline, variable_option

if TYPE_CHECKING:
    from syncblocks.connectors.stream import Stream

    from ..config import Pipeline


@click.command("discover", short_help="Show the source's streams, columns and keys.")
@common
@variable_option
@moment_options
@click.option(
    "--stream",
    "streams",
    multiple=True,
    metavar="GLOB",
    help="Only these streams; repeatable.",
    shell_complete=complete_streams,
)
@click.option("--save", is_flag=True, help="Write what is shown to STEM.catalog.yaml beside the pipeline file.")
@file_argument
def discover_command(
    console: Console,
    file: Path | None,
    streams: tuple[str, ...],
    save: bool,
    variables: tuple[tuple[str, Any], ...],
    moments: Moments,
) -> int:
    """Show the streams of the source: columns with types, keys, roughly how many records.

    Shows every stream of the source, also those that the pipeline does not select.
    """
    from ..api import discover

    pipeline = open_pipeline(console, file, variables, **moments._asdict())
    found = discover(pipeline, streams=streams or None)
    if save:
        return _save(console, pipeline, found)
    if console.is_json:
        documents = [document(stream) for stream in found]
        console.emit({"type": "discover", "pipeline": pipeline.pipeline, "streams": documents})
        return 0
    for number, stream in enumerate(found):
        if number:
            console.echo()
        _show(console, stream)
        if stream.unreadable:
            console.warn(stream.unreadable)
    if not found:
        console.echo("the source offers no stream")
    return 0


def _save(console: Console, pipeline: Pipeline, streams: Sequence[Stream]) -> int:
    """Write the catalog file."""
    from ..config.catalog_file import catalog_path
    from ..plan.catalog import catalog_text

    path = catalog_path(pipeline)
    path.write_text(catalog_text(streams, path.name), encoding="utf-8")
    if console.is_json:
        console.emit({"type": "catalog", "path": str(path), "streams": [stream.name for stream in streams]})
        return 0
    hint = "" if pipeline.catalog else f"; a run reads it once the pipeline says `catalog: {path.name}`"
    console.echo(f"wrote {path} with {formatting.plural(len(streams), 'stream')}{hint}")
    return 0


def document(stream: Stream) -> dict[str, Any]:
    """Return a stream as JSON."""
    return {
        "stream": stream.name,
        "is_view": stream.is_view,
        "key_properties": list(stream.key_properties),
        "estimated_records": stream.estimated_records,
        "columns": [
            {
                "name": field.name,
                "type": str(field.type),
                "native_type": _native_type(field),
                "nullable": field.nullable,
            }
            for field in stream.schema
        ],
    }


def _show(console: Console, stream: Stream) -> None:
    facts = []
    if stream.is_view:
        facts.append("view")
    if stream.estimated_records is not None:
        facts.append(f"about {formatting.plural(stream.estimated_records, 'record')}")
    facts.append(f"key: {', '.join(stream.key_properties)}" if stream.key_properties else "no key")
    console.echo(f"{stream.name} ({'; '.join(facts)})", color="cyan")
    console.table(
        ["  column", "type", "in the source", ""],
        [
            [
                f"  {field.name}",
                str(field.type),
                _native_type(field),
                "key" if field.name in stream.key_properties else "" if field.nullable else "not null",
            ]
            for field in stream.schema
        ],
    )


def _native_type(field: Any) -> str | None:
    from syncblocks.connectors.field_facts import facts_of  # with pyarrow, which takes time to load

    return facts_of(field).native_type or None
