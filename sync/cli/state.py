"""`syncblocks state`: show, set, rewind and reset the bookmarks of streams; adopt tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import Group, formatting
from .completion import complete_words
from .console import Console
from .options import (
    Moments,
    Variables,
    common,
    file_argument,
    moment_options,
    open_pipeline,
    split_file,
    variable_option,
)

if TYPE_CHECKING:
    from ..plan.policy import Configured
    from ..session.session import PipelineSession
    from ..store import Store


@click.group("state", short_help="Show, set, reset and rewind bookmarks; adopt tables.", cls=Group)
def state_command() -> None:
    """Show, set, reset and rewind bookmarks; adopt tables of others."""


@state_command.command("show")
@common
@variable_option
@moment_options
@file_argument
def show_command(console: Console, file: Path | None, variables: Variables, moments: Moments) -> int:
    """Show the state of every stream from the destination's ledger.

    If the destination cannot be reached, shows the run store's copy, with a warning.
    """
    from ..api import state as state_of
    from ..store.documents import words_of

    pipeline = open_pipeline(console, file, variables, **moments._asdict())
    state = state_of(pipeline)
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
                formatting.bookmark(row.bookmark) or "-",
                formatting.count(row.rows),
                formatting.moment(row.at),
                row.source,
            ]
            for row in state.streams
        ],
        right=["records"],
    )
    return 0


@state_command.command("set")
@common
@variable_option
@moment_options
@click.argument("arguments", nargs=-1, metavar="[FILE] STREAM COLUMN=VALUE...", shell_complete=complete_words)
def set_command(console: Console, arguments: tuple[str, ...], variables: Variables, moments: Moments) -> int:
    """Set a stream's bookmark: the next run reads the records at or past it.

    Each of its bookmark_properties needs a value, in the form of `state show`.
    """
    from ..session.inspection import existing_store, opened
    from ..state.stream_state import set_state
    from ..store.documents import words_of

    file, rest = split_file(arguments)
    if len(rest) < 2:
        raise click.UsageError("needs a STREAM and COLUMN=VALUE")
    stream = rest[0]
    pipeline = open_pipeline(console, file, variables, **moments._asdict())
    with existing_store(pipeline) as store, opened(pipeline) as session:
        state = set_state(session, store, stream, _texts(rest[1:], _bookmark_properties(session, stream)))
    _done(console, "set", pipeline.pipeline, stream, [state.destination_table], bookmark=words_of(state.bookmark))
    return 0


@state_command.command("adopt")
@common
@variable_option
@moment_options
@click.argument("arguments", nargs=-1, metavar="[FILE] STREAM [COLUMN=VALUE...]", shell_complete=complete_words)
def adopt_command(console: Console, arguments: tuple[str, ...], variables: Variables, moments: Moments) -> int:
    """Take over a table that another program has written: the next run goes on from its newest bookmark.

    Checks that the columns hold the stream's and that no key is there twice, then writes the ledger row. COLUMN=VALUE
    gives another bookmark than the newest in the table. The table stays unchanged.
    """
    from ..session.inspection import existing_store, opened
    from ..state.adoption import adopt_table
    from ..store.documents import words_of

    file, rest = split_file(arguments)
    if not rest:
        raise click.UsageError("needs a STREAM")
    stream = rest[0]
    pipeline = open_pipeline(console, file, variables, **moments._asdict())
    with existing_store(pipeline) as store, opened(pipeline) as session:
        texts = _texts(rest[1:], _bookmark_properties(session, stream)) if rest[1:] else {}
        adoption = adopt_table(session, store, stream, texts)
    for note in adoption.notes:
        console.warn(note)
    state = adoption.state
    bookmark = words_of(state.bookmark)
    _done(console, "adopted", pipeline.pipeline, stream, [state.destination_table], bookmark=bookmark)
    return 0


@state_command.command("rewind")
@common
@variable_option
@moment_options
@click.option(
    "--to",
    "values",
    multiple=True,
    metavar="[COLUMN=]VALUE",
    help="The new bookmark; repeat it for each of the bookmark_properties.",
)
@click.option("--by", metavar="AMOUNT", help="How far to move back: a number, or a time like 1d12h, 30m.")
@click.option("--run", "run_id", type=int, metavar="N", help="To the bookmark after run N.")
@click.option("--files", "glob", metavar="GLOB", help="For a stream that reads new files: the files that match.")
@click.argument("arguments", nargs=-1, metavar="[FILE] STREAM", shell_complete=complete_words)
def rewind_command(
    console: Console,
    arguments: tuple[str, ...],
    variables: Variables,
    moments: Moments,
    values: tuple[str, ...],
    by: str | None,
    run_id: int | None,
    glob: str | None,
) -> int:
    """Move a stream's bookmark back: the next run reads the records at or past it again.

    Refuses a value past the current bookmark. Records that are read again are merged by their keys; an append
    writes them once more. Of a stream that reads new files, `--to` names the time from which files are read again,
    `--files` which ones.
    """
    from ..session.inspection import existing_store, opened
    from ..state.stream_state import rewind_state
    from ..store.documents import words_of

    file, rest = split_file(arguments)
    if len(rest) != 1:
        raise click.UsageError("needs one STREAM")
    if sum((bool(values), by is not None, run_id is not None)) + (glob is not None and not values) != 1:
        raise click.UsageError("needs one of --to, --by, --run and --files")
    pipeline = open_pipeline(console, file, variables, **moments._asdict())
    with existing_store(pipeline) as store, opened(pipeline) as session:
        selected = _selected(session, rest[0])
        if selected.stream.read.tracks_files:
            if by is not None or run_id is not None:
                raise click.UsageError(f"{rest[0]} reads new files: give --to TIME or --files GLOB")
            return _forget_files(console, session, store, selected, values, glob)
        if glob is not None:
            raise click.UsageError(f"{rest[0]} does not read by new files (bookmark_properties: [_file_modified])")
        bookmark = _values(session, rest[0], values) if values else None
        state, before = rewind_state(session, store, rest[0], to=bookmark, by=by, run_id=run_id)
        if not state.knows_records:
            _warn_of_append(console, session, rest[0])
    words_before, tables = words_of(before), [state.destination_table]
    now = words_of(state.bookmark)
    _done(console, "rewound", pipeline.pipeline, rest[0], tables, bookmark=now, before=words_before)
    return 0


def _forget_files(
    console: Console,
    session: PipelineSession,
    store: Store | None,
    selected: Configured,
    values: tuple[str, ...],
    glob: str | None,
) -> int:
    from syncblocks.connectors.stream import FILE_MODIFIED

    from ..state.files_read import forget_files, time_of

    is_bare = len(values) == 1 and "=" not in values[0]
    texts = {FILE_MODIFIED: values[0]} if is_bare else _texts(values, (FILE_MODIFIED,))
    since = time_of(texts) if values else ""
    files = forget_files(session, store, selected, since=since, glob=glob or "")
    _warn_of_append(console, session, selected.name)
    paths = [each.path for each in files]
    pipeline, table = session.pipeline.pipeline, selected.destination_table
    _done(console, "rewound", pipeline, selected.name, [table], files=paths)
    if not console.is_json:
        shown = ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
        console.echo(f"the next run reads again: {shown}")
    return 0


def _values(session: PipelineSession, stream: str, texts: tuple[str, ...]) -> dict[str, str]:
    """Parse COLUMN=VALUE; a single VALUE belongs to the only bookmark property."""
    names = _bookmark_properties(session, stream)
    if len(texts) == len(names) == 1 and not texts[0].startswith(f"{names[0]}="):
        return {names[0]: texts[0]}
    return _texts(texts, names)


def _bookmark_properties(session: PipelineSession, stream: str) -> tuple[str, ...]:
    from syncblocks.connectors.log_based import LOG_POSITION

    from ..plan.features.log_based import is_logged

    selected = _selected(session, stream).stream
    return (LOG_POSITION,) if is_logged(selected) else selected.read.bookmark_properties


def _selected(session: PipelineSession, stream: str) -> Configured:
    from ..plan.selection import one_stream
    from ..session.inspection import selected_streams

    return one_stream(selected_streams(session), stream)


@state_command.command("reset")
@common
@variable_option
@moment_options
@click.option("--forget", is_flag=True, help="Delete the ledger row too: the table is no longer this pipeline's.")
@click.argument("arguments", nargs=-1, metavar="[FILE] STREAM", shell_complete=complete_words)
def reset_command(
    console: Console, arguments: tuple[str, ...], variables: Variables, moments: Moments, forget: bool
) -> int:
    """Delete a stream's bookmark: the next run reads it from scratch. Its table stays unchanged."""
    from ..session.inspection import existing_store, opened
    from ..state.stream_state import reset_state

    file, rest = split_file(arguments)
    if len(rest) != 1:
        raise click.UsageError("needs one STREAM")
    pipeline = open_pipeline(console, file, variables, **moments._asdict())
    with existing_store(pipeline) as store, opened(pipeline) as session:
        keys = reset_state(session, store, rest[0], forget=forget)
        _warn_of_append(console, session, rest[0])
    tables = [key.destination_table for key in keys]
    _done(console, "forgotten" if forget else "reset", pipeline.pipeline, rest[0], tables)
    return 0


def _warn_of_append(console: Console, session: PipelineSession, stream: str) -> None:
    """Warn that an append writes records once more that are read again."""
    from syncblocks.connectors.errors import ConnectorError
    from syncblocks.connectors.read_spec import ReplicationMethod
    from syncblocks.connectors.write_spec import WriteDisposition

    from ..session.inspection import selected_streams

    try:
        found = [selected for selected in selected_streams(session) if selected.name == stream]
    except ConnectorError:
        return  # an unreachable source does not prevent a reset
    for selected in found:
        is_incremental = selected.stream.read.method is ReplicationMethod.INCREMENTAL
        if is_incremental and selected.write.disposition is WriteDisposition.APPEND:
            console.warn(
                f"{stream} is appended to {selected.destination_table}: the next run writes the records that it "
                f"reads again once more; `syncblocks run --full-refresh` writes the table anew"
            )


def _texts(pairs: tuple[str, ...], names: tuple[str, ...]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for pair in pairs:
        # A name may contain `=`.
        meant = max((name for name in names if pair.startswith(f"{name}=")), key=len, default=pair.partition("=")[0])
        column, sign, value = meant, pair[len(meant) : len(meant) + 1], pair[len(meant) + 1 :]
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
    **more: Any,
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
                **more,
            }
        )
        return
    shown = f" to {formatting.bookmark(bookmark)}" if bookmark else ""
    console.echo(f"{stream} ({', '.join(tables)}): {what}{shown}", color="green")
