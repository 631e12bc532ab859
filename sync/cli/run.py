"""`syncblocks run`: sync a pipeline's streams and deliver its callbacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
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
    event_option,
    file_argument,
    moment_options,
    open_pipeline,
    stream_option,
    tag_option,
    variable_option,
)
from .pipeline_file import file_words

if TYPE_CHECKING:
    from ..config import Pipeline
    from ..run.results import RunResult


#: Most characters of an error below the table.
MAX_ERROR = 2000


def running_options(function: Any) -> Any:
    """Add the options of every command that runs streams."""
    for option in (
        click.option(
            "--executor",
            metavar="WHERE",
            help="Where streams run, overrides the file's: threads, local, or the address of a Dask scheduler.",
        ),
        click.option("--inline-callbacks", is_flag=True, help="Run callbacks in this process, for a debugger."),
        click.option("--concurrency", type=click.IntRange(1, 1000), metavar="N", help="Streams at once."),
    ):
        function = option(function)
    return function


@click.command("run", short_help="Sync the streams, then deliver the callbacks.")
@common
@running_options
@click.option("--wait", is_flag=True, help="Wait for an active run of this pipeline.")
@click.option("--trigger", metavar="ID", help="Trigger id, the first half of execution_partition.")
@event_option
@variable_option
@moment_options
@click.option("--tick", type=click.IntRange(1), metavar="ID", help="Carry out a tick of the run store.")
@click.option("--full-refresh", is_flag=True, help="Replace the tables and start without bookmarks.")
@drop_history_option
@click.option(
    "--bookmark",
    "bookmarks",
    nargs=2,
    multiple=True,
    metavar="STREAM COLUMN=VALUE",
    help="Start a stream at this bookmark in this run; repeat it for each of its bookmark_properties.",
)
@click.option("--deletes", is_flag=True, help="Look for deleted records now, whatever `every` in `deletes` is.")
@click.option(
    "--allow-deletes",
    multiple=True,
    metavar="STREAM",
    help="Let a stream delete more than the limit of its `deletes`; repeatable.",
)
@stream_option
@tag_option
@file_argument
def run_command(
    console: Console,
    file: Path | None,
    streams: tuple[str, ...],
    tags: tuple[str, ...],
    full_refresh: bool,
    drop_history: bool,
    bookmarks: tuple[tuple[str, str], ...],
    variables: tuple[tuple[str, Any], ...],
    event: Mapping[str, Any] | None,
    trigger: str | None,
    moments: Moments,
    tick: int | None,
    wait: bool,
    concurrency: int | None,
    inline_callbacks: bool,
    deletes: bool,
    allow_deletes: tuple[str, ...],
    executor: str | None,
) -> int:
    """Sync the streams of a pipeline, then deliver its callbacks.

    Progress goes to stderr (one live line a stream on a terminal, else log lines), the summary to stdout.
    """
    check_drop_history(full_refresh=full_refresh, drop_history=drop_history)
    if bookmarks and full_refresh:
        raise click.UsageError("--bookmark and --full-refresh contradict each other")
    if (deletes or allow_deletes) and full_refresh:
        raise click.UsageError("--full-refresh replaces the tables: there is nothing left for --deletes to delete")
    more: dict[str, Any] = {"concurrency": concurrency, "inline_callbacks": inline_callbacks, "wait_for_other": wait}
    more["executor"] = executor
    if tick is not None:
        said = (streams, tags, full_refresh, deletes, allow_deletes, bookmarks, variables, trigger, *moments)
        if any(said) or event is not None:
            raise click.UsageError("--tick alone defines the run; only --wait may be added")
        return _carry_out(console, file, tick, more)
    pipeline = open_pipeline(console, file, variables, trigger, **moments._asdict())
    if moments.interval is not None and not pipeline.reads_by_interval:
        console.warn(
            "--interval-start selects no records, because no stream uses the interval. To read an interval, use "
            "`{{ interval_start_datetime }}` in `where`, or `write_disposition: replace_range`"
        )
    given = given_bookmarks(bookmarks)
    more |= {"full_refresh": full_refresh, "drop_history": drop_history}
    more |= {"deletes": deletes, "allow_deletes": allow_deletes}
    more |= {"streams": streams or None, "tags": tags or None}
    return execute(console, pipeline, bookmarks=given, event=event, **more)


def given_bookmarks(given: Sequence[tuple[str, str]]) -> dict[str, dict[str, str]]:
    """Return the values of `--bookmark`: stream -> column -> text."""
    found: dict[str, dict[str, str]] = {}
    for stream, pair in given:
        column, sign, value = pair.partition("=")
        if not sign or not column:
            raise click.UsageError(f"--bookmark {stream}: {pair!r} is not of the form COLUMN=VALUE")
        if column in found.setdefault(stream, {}):
            raise click.UsageError(f"--bookmark {stream}: column {column!r} is given twice")
        found[stream][column] = value
    return found


def _carry_out(console: Console, file: Path | None, number: int, more: dict[str, Any]) -> int:
    """Run what a tick orders, once: a tick that has ended, or that another process has, is left alone."""
    from ..errors import AlreadyRunning, mistakes
    from ..run.ticks import TickClaim
    from ..store import Store
    from ..store.ticks import LostTick

    def told(text: str) -> int:
        if console.is_json:
            console.emit({"type": "tick", "tick": number, "message": text})
        else:
            console.echo(text)
        return 0

    def ended_by(error: Exception) -> int | None:
        claim.end(error)
        return told(str(error)) if isinstance(error, AlreadyRunning | LostTick) else None

    found = open_pipeline(console, file)
    with Store.open(found.store_url) as store, TickClaim(store, number, console.redactor.redact) as claim:
        if (name := store.tick(number).pipeline) != found.pipeline:
            raise found.error(("pipeline",), f"tick {number} starts pipeline {name!r}, not {found.pipeline!r}")
        if (tick := claim.take()) is None:
            return told(f"tick {number} has ended, waits, or is carried out by another process")
        options = tick.options
        if tick.retries is not None:
            pipeline = open_pipeline(console, file)
            more["full_refresh"] = store.replaces_tables(tick.retries)
            return execute(console, pipeline, retry=tick.retries, tick=number, on_error=ended_by, **more)
        with mistakes():
            pipeline = open_pipeline(
                console,
                file,
                tuple(options.variables.items()),
                tick.trigger_id,
                execution_date=options.execution_date or tick.due_at,
                interval=options.interval,
            )
        more |= {"streams": options.streams, "full_refresh": options.full_refresh}
        return execute(console, pipeline, event=options.event, tick=number, on_error=ended_by, **more)


def execute(
    console: Console,
    pipeline: Pipeline,
    *,
    inline_callbacks: bool,
    on_error: Callable[[Exception], int | None] = lambda error: None,
    **options: Any,
) -> int:
    """Run a pipeline, show its progress and result; return the exit code.

    `on_error` is told what ended it, and returns the exit code if this is no failure.
    """
    from ..run.pipeline import run_pipeline
    from .logs import redirected
    from .progress_lines import make_progress

    with make_progress(console, is_inline=inline_callbacks) as progress:

        def show(text: str, level: str) -> None:
            progress.message(text, level=level)

        start = time.monotonic()
        if not console.is_json:
            progress.connecting(f"{pipeline.pipeline}: connecting, reading the catalog")
        try:
            with redirected(show):
                result = run_pipeline(pipeline, inline_callbacks=inline_callbacks, progress=progress, **options)
        except Exception as error:
            progress.close()
            if (code := on_error(error)) is not None:
                return code
            # Streams may have run, so the exit code must not say that nothing ran.
            return console.fail(error, exit_code=1 if progress.has_started else None)
    if console.is_json:
        console.emit(result_document(result))
    else:
        show_result(console, result, file_words(pipeline), duration_s=time.monotonic() - start)
    return result.exit_code


def result_document(result: RunResult) -> dict[str, Any]:
    """Return a run's result as JSON."""
    from ..store.documents import words_of

    return {
        "type": "result",
        "pipeline": result.pipeline,
        "run_id": result.run_id,
        "status": result.status,
        "exit_code": result.exit_code,
        "signal": result.signal,
        "error": result.error,
        "streams": [
            {
                "stream": stream.stream,
                "destination_table": stream.destination_table,
                "status": stream.status,
                "records": stream.records,
                "records_rejected": stream.records_rejected,
                "records_deleted": stream.records_deleted,
                "records_replaced": stream.records_replaced,
                "warnings": None if stream.warnings is None else dict(stream.warnings),
                "size_bytes": stream.size_bytes,
                "duration_s": stream.duration_s,
                "bookmark": words_of(stream.bookmark),
                "error": stream.error,
                "verdict": stream.verdict,
            }
            for stream in result.streams
        ],
        "never_started": list(result.never_started),
        "missing_streams": list(result.missing_streams),
        "callbacks": dict(result.callbacks),
    }


def show_result(console: Console, result: RunResult, file: str, *, duration_s: float | None = None) -> None:
    """Print the summary table, and the callbacks that are due or dead. `file`: see `file_words`."""
    if result.streams:
        console.table(
            ["stream", "destination table", "status", "records", "rejected", "replaced", "size", "time", "bookmark"],
            [
                [
                    stream.stream,
                    stream.destination_table,
                    stream.status or "not ended",
                    formatting.count(stream.records),
                    formatting.count(stream.records_rejected or None),
                    formatting.count(stream.records_replaced or None),
                    formatting.size(stream.size_bytes) if stream.size_bytes else "",
                    formatting.duration(stream.duration_s),
                    formatting.cut(formatting.bookmark(stream.bookmark), 40),
                ]
                for stream in result.streams
            ],
            right=["records", "rejected", "replaced", "size", "time"],
        )
        for stream in result.streams:
            if stream.error:
                console.echo(f"{stream.stream}: {formatting.cut(stream.error, MAX_ERROR)}", color="red")
        console.echo()
    records = sum(stream.records or 0 for stream in result.streams)
    rejected = sum(stream.records_rejected or 0 for stream in result.streams)
    what = f"{formatting.plural(len(result.streams), 'stream')}, {formatting.plural(records, 'record')}"
    if rejected:
        what += f", {rejected:,} rejected"
    if deleted := sum(stream.records_deleted or 0 for stream in result.streams):
        what += f", {deleted:,} deleted"
    if replaced := sum(stream.records_replaced or 0 for stream in result.streams):
        what += f", {replaced:,} replaced within the load"
    from ..store.documents import warnings_in_words

    if warned := [stream.warnings for stream in result.streams if stream.warnings]:
        sums = {level: sum(each.get(level, 0) for each in warned) for level in ("warn", "error")}
        what += f", {warnings_in_words(sums)} of the connector"
    if duration_s is not None:
        what += f", {formatting.duration(duration_s)}"
    run = "no run" if result.run_id is None else f"run {result.run_id}"
    console.echo(f"{result.pipeline}: {run}: {result.status}, {what}", color=_color(result.status))
    if result.never_started:
        console.echo(_never_started(result), color="yellow")
    if result.missing_streams:
        number = formatting.plural(len(result.missing_streams), "stream")
        console.echo(
            f"{number} synced before, missing at the source now: {_first(result.missing_streams)}", color="yellow"
        )
    if result.error:
        console.echo(f"error: {result.error}", color="red")
    for step in next_steps(result, file):
        console.echo(step, color="yellow")
    show_callbacks(console, result.callbacks, file)


def next_steps(result: RunResult, file: str) -> list[str]:
    """Return what to do about a run that did not succeed."""
    steps = []
    if result.run_id is not None and result.status != "success":
        steps.append(f"next: `syncblocks runs show{file} {result.run_id}` shows what happened")
        steps.append(f"      `syncblocks runs retry{file}` runs the streams that did not succeed")
    if result.status == "failure" and result.signal is None and any(each.is_retriable for each in result.streams):
        steps.append("      `retries:` of a stream repeats it after an error that may pass")
    if any(stream.verdict == "differs" for stream in result.streams):
        steps.append(f"next: `syncblocks verify{file}` shows the differences and how to repair them")
    return steps


def _never_started(result: RunResult) -> str:
    way_out = ""
    if result.status == "failure" and result.signal is None:
        way_out = "; with `allow_blocks_to_fail: true` a failed stream does not stop the others"
    return (
        f"{formatting.plural(len(result.never_started), 'stream')} not started: {_first(result.never_started)}{way_out}"
    )


def _first(names: Sequence[str]) -> str:
    rest = len(names) - 5
    return ", ".join(names[:5]) + (f" and {rest} more" if rest > 0 else "")


def show_callbacks(console: Console, callbacks: Mapping[str, int], file: str) -> None:
    """Print how many deliveries are done, due and dead, and what to do about those."""
    parts = [f"{number} {state}" for state, number in callbacks.items() if number]
    if parts:
        console.echo(f"callbacks: {', '.join(parts)}")
    if callbacks.get("due"):
        console.echo("the next start delivers the due callbacks", color="yellow")
    if callbacks.get("dead"):
        how = f"`syncblocks callbacks history{file}` says why, `callbacks retry{file}` delivers again"
        console.echo(f"dead callbacks: {how}", color="yellow")


def _color(status: str) -> str:
    return {"success": "green", "failure": "red"}.get(status, "yellow")
