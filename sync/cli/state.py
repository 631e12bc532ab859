"""`syncblocks state`: where each stream stands, and moving it by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import Group, words
from .console import Console
from .options import common, file_argument, open_pipeline, split_file
from .run import words_of


@click.group("state", cls=Group)
def state_command() -> None:
    """Show, set and reset the bookmarks of streams."""


@state_command.command("show")
@common
@file_argument
def show_command(console: Console, file: Path | None) -> int:
    """Show the state of every stream, as the destination's ledger says.

    Where the destination cannot be reached the run store's copy is shown, and that it is a copy.
    """
    from ..inspection import existing_store, opened, read_state

    pipeline = open_pipeline(console, file)
    with existing_store(pipeline) as store, opened(pipeline) as session:
        state = read_state(session, store)
    if console.is_json:
        console.emit(
            {
                "type": "state",
                "pipeline": pipeline.pipeline,
                "from": "store" if state.is_copy else "ledger",
                "notes": list(state.notes),
                "streams": [
                    {
                        "stream": row.stream,
                        "destination_table": row.destination_table,
                        "bookmark": words_of(row.bookmark),
                        "source": row.source,
                        "rows": row.rows,
                        "at": row.at,
                        "completed_by": row.completed_by,
                    }
                    for row in state.streams
                ],
            }
        )
        return 0
    for note in state.notes:
        console.warn(note)
    if not state.streams:
        console.echo("no stream has a state yet")
        return 0
    console.table(
        ["stream", "destination table", "bookmark", "records", "copied" if state.is_copy else "committed", "source"],
        [
            [
                row.stream,
                row.destination_table,
                words.bookmark(row.bookmark) or "-",
                words.count(row.rows),
                words.moment(row.at),
                row.source,
            ]
            for row in state.streams
        ],
        right=["records"],
    )
    return 0


@state_command.command("set")
@common
@click.argument("arguments", nargs=-1, metavar="[FILE] STREAM COLUMN=VALUE...")
def set_command(console: Console, arguments: tuple[str, ...]) -> int:
    """Set a stream's bookmark: the next run reads what is at or past it.

    Every one of its bookmark_properties needs a value, in the form in which `state show` shows it.
    """
    from ..inspection import existing_store, opened, set_state

    file, rest = split_file(arguments)
    if len(rest) < 2:
        raise click.UsageError("needs a STREAM and COLUMN=VALUE")
    stream, texts = rest[0], _texts(rest[1:])
    pipeline = open_pipeline(console, file)
    with existing_store(pipeline) as store, opened(pipeline) as session:
        state = set_state(session, store, stream, texts)
    _done(console, "set", pipeline.pipeline, stream, [state.destination_table], bookmark=words_of(state.bookmark))
    return 0


@state_command.command("reset")
@common
@click.option("--forget", is_flag=True, help="Delete the ledger row too: the table is a stranger's from then on.")
@click.argument("arguments", nargs=-1, metavar="[FILE] STREAM")
def reset_command(console: Console, arguments: tuple[str, ...], forget: bool) -> int:
    """Take a stream's bookmark away: the next run reads it from scratch. Its table stays as it is."""
    from ..inspection import existing_store, opened, reset_state

    file, rest = split_file(arguments)
    if len(rest) != 1:
        raise click.UsageError("needs one STREAM")
    pipeline = open_pipeline(console, file)
    with existing_store(pipeline) as store, opened(pipeline) as session:
        keys = reset_state(session, store, rest[0], forget=forget)
    tables = [key.destination_table for key in keys]
    _done(console, "forgotten" if forget else "reset", pipeline.pipeline, rest[0], tables)
    return 0


def _texts(pairs: tuple[str, ...]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for pair in pairs:
        column, sign, value = pair.partition("=")
        if not sign or not column:
            raise click.UsageError(f"{pair!r} is not of the form COLUMN=VALUE")
        if column in texts:
            raise click.UsageError(f"column {column!r} is given twice")
        texts[column] = value
    return texts


def _done(
    console: Console,
    what: str,
    pipeline: str,
    stream: str,
    tables: list[str],
    bookmark: dict[str, Any] | None = None,
) -> None:
    if console.is_json:
        console.emit(
            {
                "type": "state_changed",
                "pipeline": pipeline,
                "change": what,
                "stream": stream,
                "destination_tables": tables,
                "bookmark": bookmark,
            }
        )
        return
    shown = f" to {words.bookmark(bookmark)}" if bookmark else ""
    console.echo(f"{stream} ({', '.join(tables)}): {what}{shown}", color="green")
