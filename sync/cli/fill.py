"""`syncblocks fill`: give records that are there the values of some columns, then run the stream."""

from __future__ import annotations

from typing import Any

import click

from .completion import complete_words
from .console import Console
from .options import Moments, common, moment_options, open_pipeline, split_file, variable_option
from .run import execute, running_options


@click.command("fill", short_help="Fill columns of existing records, then run the stream.")
@common
@running_options
@variable_option
@moment_options
@click.option("--wait", is_flag=True, help="Wait for an active run of this pipeline.")
@click.option("--columns", required=True, metavar="C,...", help="Columns, by the source's names, separated by commas.")
@click.argument("arguments", nargs=-1, metavar="[FILE] STREAM", shell_complete=complete_words)
def fill_command(
    console: Console,
    arguments: tuple[str, ...],
    columns: str,
    wait: bool,
    variables: tuple[tuple[str, Any], ...],
    moments: Moments,
    concurrency: int | None,
    inline_callbacks: bool,
    executor: str | None,
) -> int:
    """Give the records of a table the values that some columns have at the source, then run the stream as ever.

    Only key and columns are read; the bookmark stays.
    """
    file, rest = split_file(arguments)
    if len(rest) != 1:
        raise click.UsageError("name one stream")
    wanted = [each for each in (column.strip() for column in columns.split(",")) if each]
    if not wanted:
        raise click.UsageError("--columns names no column")
    pipeline = open_pipeline(console, file, variables, **moments._asdict())
    more: dict[str, Any] = {"concurrency": concurrency, "wait_for_other": wait, "executor": executor}
    return execute(console, pipeline, fills={rest[0]: wanted}, inline_callbacks=inline_callbacks, **more)
