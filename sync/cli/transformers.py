"""`syncblocks transformers`: try a transformer file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from . import Group, formatting
from .callback_testing import show_tests
from .completion import complete_streams
from .console import Console
from .options import common, open_pipeline, variable_option

if TYPE_CHECKING:
    from ..config import Pipeline
    from ..config.blocks import TransformerBlock
    from ..flow.transform import Frames

#: Most records that are shown.
_SHOWN = 10


@click.group("transformers", short_help="Try a transformer file.", cls=Group)
def transformers_command() -> None:
    """Try transformer files without a run."""


@transformers_command.command("test")
@common
@click.option(
    "--pipeline", "pipeline_file", type=click.Path(path_type=Path), metavar="FILE.yaml", help="Its variables and block."
)
@variable_option
@click.option("--data", type=click.Path(path_type=Path), metavar="FILE", help="Rows: .parquet, .csv, .jsonl or .arrow.")
@click.option("--stream", default="users", metavar="NAME", help="Name of the stream.", shell_complete=complete_streams)
@click.option(
    "--frames",
    type=click.Choice(["batch", "record"]),
    help="What a DataFrame holds; default: as the block says, batch.",
)
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.py")
def test_command(
    console: Console,
    file: Path,
    frames: str | None,
    stream: str,
    data: Path | None,
    variables: tuple[tuple[str, Any], ...],
    pipeline_file: Path | None,
) -> int:
    """Call a transformer with the records of a file, and show what it returns.

    Functions marked by @test are called with the result. Says whether the other kind of frames gives the same: `batch`
    is many times as fast as `record`. Writes nothing. Exit code 1 if the function or a test failed.
    """
    from syncblocks.callbacks.loader import load_file
    from syncblocks.callbacks.trial import sample_or_file

    from ..delivery.masked_output import masked_output
    from ..errors import StateError
    from ..run.transformer_trial import json_records, try_transformer

    pipeline = None if pipeline_file is None else open_pipeline(console, pipeline_file, variables)
    block = None if pipeline is None else _block_of(pipeline, file)
    named = dict(variables) | dict(pipeline.variables if pipeline is not None else {})
    try:
        table = sample_or_file(data)
    except ValueError as error:
        raise StateError(str(error)) from error
    chosen = cast("Frames", frames or (block.frames if block is not None else "batch"))
    with masked_output(console.redactor):
        found = try_transformer(
            load_file(file, variables=frozenset(named), expects="transformer"),
            table,
            _kwargs(pipeline, block, file, stream, named),
            stream=stream,
            rename={} if block is None else block.rename,
            frames=chosen,
        )
    code = 1 if any(found.tests.values()) else 0
    records = json_records(found.records)
    if console.is_json:
        columns = [{"name": field.name, "type": str(field.type)} for field in found.records.schema]
        document = {"type": "transformer_test", "file": str(file), "frames": chosen, "columns": columns}
        more = {"records": records, "tests": dict(found.tests), "difference": found.difference, "exit_code": code}
        console.emit(document | more)
        return code
    names = found.records.schema.names
    console.table(names, [[formatting.cell(record[name]) for name in names] for record in records[:_SHOWN]])
    console.echo(f"{table.num_rows} records in, {len(records)} out")
    show_tests(console, found.tests)
    other = "record" if chosen == "batch" else "batch"
    if found.difference is None:
        console.echo(f"`frames: {other}` gives the same")
    else:
        console.echo(f"`frames: {other}` gives another result: {found.difference}")
    return code


def _kwargs(
    pipeline: Pipeline | None, block: TransformerBlock | None, file: Path, stream: str, variables: dict[str, Any]
) -> dict[str, Any]:
    """Return the keyword arguments of a made-up call."""
    from syncblocks.callbacks.kwargs import RESERVED, TRANSFORMER_KWARGS, hydrate
    from syncblocks.callbacks.made_up_events import make_event

    named = {name: value for name, value in variables.items() if name not in RESERVED}
    event = make_event("success", stream if pipeline is None else pipeline.called(stream), **named)
    known = {name: value for name, value in event.items() if name in TRANSFORMER_KWARGS or name in named}
    return hydrate(
        {
            **known,
            "block_uuid": file.stem if block is None else block.block,
            "configuration": {} if block is None else block.configuration,
            "query": {"_start_date": None, "_end_date": None, "_execution_date": event["execution_date"]},
        }
    )


def _block_of(pipeline: Pipeline, file: Path) -> TransformerBlock | None:
    blocks = ((block, block.file) for block in pipeline.transformers)
    return next((block for block, path in blocks if path and pipeline.resolve(path) == file.absolute()), None)
