"""`syncblocks runs`: list, show, retry, cancel and prune runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import Group, formatting
from .completion import complete_first_file
from .console import Console
from .options import (
    Variables,
    common,
    file_argument,
    open_pipeline,
    split_file,
    stream_option,
    tag_option,
    variable_option,
)
from .run import execute, running_options

if TYPE_CHECKING:
    from ..store import Store
    from ..store.model import BlockRun, DeliveryRecord, PipelineRun


#: Where an attempt has no log.
NO_LOG = "no log: the process writes it when the attempt has ended"


@click.group("runs", cls=Group)
def runs_command() -> None:
    """List, show, retry, cancel and prune pipeline runs."""


@runs_command.command("list")
@common
@variable_option
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, metavar="N", help="Runs.")
@file_argument
def list_command(console: Console, file: Path | None, variables: Variables, limit: int) -> int:
    """List the pipeline's runs, the latest first."""
    from ..session.inspection import existing_store
    from ..store.documents import duration_s, listed_run

    pipeline = open_pipeline(console, file, variables)
    with existing_store(pipeline) as store:
        runs = [] if store is None else store.runs(pipeline.pipeline, limit=limit)
        found = [] if store is None else [listed_run(store, run) for run in runs]
    if console.is_json:
        console.emit({"type": "runs", "pipeline": pipeline.pipeline, "runs": found})
        return 0
    if not runs:
        console.echo(f"{pipeline.pipeline} has not run yet")
        return 0
    console.table(
        ["run", "attempt", "status", "started", "time", "trigger", "error"],
        [
            [
                run.id,
                run.attempt,
                _status(run, document["owner_state"]),
                formatting.moment(run.started_at),
                formatting.duration(duration_s(run)),
                "" if run.trigger == "0" else run.trigger,
                formatting.cut(run.error.message if run.error else "", 80),
            ]
            for run, document in zip(runs, found, strict=True)
        ],
        right=["run", "attempt", "time"],
    )
    return 0


@runs_command.command("show")
@common
@variable_option
@click.option("--log", "has_log", is_flag=True, help="Also print the end of its log, at most 1 MB.")
@click.argument("arguments", nargs=-1, metavar="[FILE] [RUN]", shell_complete=complete_first_file)
def show_command(console: Console, arguments: tuple[str, ...], variables: Variables, has_log: bool) -> int:
    """Show a run (default: the latest): block runs with index and flag, errors, deliveries of callbacks."""
    from ..session.inspection import existing_store
    from ..store.documents import whole_run

    file, rest = split_file(arguments)
    wanted = _run_number(rest)
    pipeline = open_pipeline(console, file, variables)
    with existing_store(pipeline) as store:
        run = find_run(store, pipeline.pipeline, wanted)
        assert store is not None
        if console.is_json:
            log = {"log": store.run_log(run.id, run.attempt)} if has_log else {}
            console.emit({"type": "run", **whole_run(store, run), **log})
            return 0
        block_runs = store.block_runs(run.id)
        deliveries = store.outbox(pipeline.pipeline).deliveries.records(run_id=run.id, limit=10_000)
        never_started = store.never_started(run.id)
        missing = store.present_plan(run.id, run.attempt).missing_streams
        owner_state = store.owner_state(run) if run.is_active else None
        text = store.run_log(run.id, run.attempt) if has_log else None
    _show_run(console, run, owner_state)
    _show_block_runs(console, block_runs)
    if never_started:
        console.echo(f"never started: {', '.join(never_started)}", color="yellow")
    if missing:
        console.echo(f"synced before, missing at the source then: {', '.join(missing)}", color="yellow")
    if deliveries:
        console.echo()
        show_deliveries(console, deliveries)
    if has_log:
        console.echo()
        for line in (text or NO_LOG).splitlines():
            console.echo(line)
    return 0


@runs_command.command("retry")
@common
@variable_option
@running_options
@stream_option
@tag_option
@file_argument
def retry_command(
    console: Console,
    file: Path | None,
    variables: Variables,
    streams: tuple[str, ...],
    tags: tuple[str, ...],
    concurrency: int | None,
    inline_callbacks: bool,
    executor: str | None,
) -> int:
    """Run the latest run again: the streams that did not succeed or never started, as a new attempt."""
    pipeline = open_pipeline(console, file, variables)
    more: dict[str, Any] = {"concurrency": concurrency, "inline_callbacks": inline_callbacks, "executor": executor}
    return execute(console, pipeline, retry=True, streams=streams or None, tags=tags or None, **more)


@runs_command.command("cancel")
@common
@variable_option
@click.argument("arguments", nargs=-1, metavar="[FILE] [RUN]", shell_complete=complete_first_file)
def cancel_command(console: Console, arguments: tuple[str, ...], variables: Variables) -> int:
    """Ask the process that runs the pipeline to stop: its streams end as cancelled, callbacks are still delivered."""
    from ..api import cancel_active
    from ..errors import StateError

    file, rest = split_file(arguments)
    wanted = _run_number(rest)
    pipeline = open_pipeline(console, file, variables)
    run, is_alive = cancel_active(pipeline, wanted)
    if run is None:
        raise StateError(f"pipeline {pipeline.pipeline!r} is not running: there is nothing to cancel")
    if wanted is not None and wanted != run.id:
        raise StateError(f"run {wanted} is not running: the pipeline's active run is {run.id}")
    if console.is_json:
        console.emit({"type": "cancel", "pipeline": run.pipeline, "run_id": run.id, "requested": is_alive})
    elif is_alive:
        console.echo(f"run {run.id} was asked to stop: {run.holder}")
    else:
        console.echo(f"run {run.id} was left by {run.left_by}: the next start ends and recovers it")
    return 0


@runs_command.command("prune")
@common
@variable_option
@click.option("--keep", metavar="SPAN", help="How long a run is kept after its end, such as 90d.")
@click.option("--keep-runs", type=click.IntRange(min=1), metavar="N", help="How many of the newest runs are kept.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@file_argument
def prune_command(
    console: Console, file: Path | None, variables: Variables, keep: str | None, keep_runs: int | None, dry_run: bool
) -> int:
    """Remove the runs that are past a limit of `history` in the file, or of an option, which overrides it."""
    from pydantic import ValidationError

    from ..config.run_retention import HistorySettings
    from ..run.prune import Pruned, prune
    from ..session.inspection import existing_store

    pipeline = open_pipeline(console, file, variables)
    given = {} if pipeline.history is None else pipeline.history.model_dump()
    given |= {key: value for key, value in (("keep", keep), ("keep_runs", keep_runs)) if value is not None}
    if not given:
        raise click.UsageError("no limit: give --keep, --keep-runs, or `history` in the file")
    try:
        history = HistorySettings.model_validate(given)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        option = "--keep-runs" if wrong["loc"] == ("keep_runs",) else "--keep"
        raise click.UsageError(f"{option}: {wrong['msg']}") from None
    with existing_store(pipeline) as store:
        pruned = Pruned(0, 0)
        if store is not None:
            limits: dict[str, Any] = {"keep": history.kept_for, "keep_runs": history.keep_runs}
            pruned = prune(pipeline, store, **limits, is_dry_run=dry_run)
    if console.is_json:
        console.emit({"type": "prune", "pipeline": pipeline.pipeline, "dry_run": dry_run, **pruned._asdict()})
        return 0
    held = f"; {pruned.held} past the limits stay, since something needs them" if pruned.held else ""
    console.echo(
        f"{pipeline.pipeline}: {formatting.plural(pruned.runs, 'run')} {'would go' if dry_run else 'removed'}{held}"
    )
    return 0


def find_run(store: Store | None, pipeline: str, wanted: int | None) -> PipelineRun:
    """Return a run of the pipeline; by default the latest one.

    Raises:
        StateError: there is none.
    """
    from ..errors import StateError

    run = None
    if store is not None:
        run = store.latest_run(pipeline) if wanted is None else store.run(wanted)
    if run is None:
        raise StateError(f"pipeline {pipeline!r} has not run yet")
    if run.pipeline != pipeline:
        raise StateError(f"run {run.id} is one of pipeline {run.pipeline!r}, not of {pipeline!r}")
    return run


#: Words for people: `callbacks: 2 due` counts both.
_STATES = {"ready": "due", "leased": "due, taken"}


def show_deliveries(console: Console, deliveries: Sequence[DeliveryRecord]) -> None:
    """Print deliveries of callbacks with their last error."""
    console.table(
        ["callback", "function", "parent", "stream", "status", "state", "attempts", "key", "last error"],
        [
            [
                delivery.callback_block,
                delivery.function,
                delivery.parent,
                delivery.stream,
                delivery.status,
                _STATES.get(shown_state(delivery), shown_state(delivery)),
                delivery.attempts,
                delivery.key[:12],
                formatting.cut(last_error(delivery), 80),
            ]
            for delivery in deliveries
        ],
        right=["attempts"],
    )


def shown_state(delivery: DeliveryRecord) -> str:
    """Return a delivery's state; `skipped` if its condition was false."""
    return (
        "skipped"
        if delivery.state == "done" and delivery.tries[-1:] and delivery.tries[-1].outcome == "skipped"
        else delivery.state
    )


def last_error(delivery: DeliveryRecord) -> str:
    """Return the first line of the error of a delivery's last attempt; empty if it succeeded."""
    error = delivery.tries[-1].error if delivery.tries else None
    return (error or "").strip().partition("\n")[0]


def _show_run(console: Console, run: PipelineRun, owner_state: str | None) -> None:
    from ..store.documents import duration_s

    console.echo(f"run {run.id} of {run.pipeline}, attempt {run.attempt}: {_status(run, owner_state)}")
    console.echo(f"execution date  {formatting.moment(run.execution_date)}")
    console.echo(f"started         {formatting.moment(run.started_at)}  {run.holder}")
    if run.ended_at is not None:
        console.echo(f"ended           {formatting.moment(run.ended_at)}  after {formatting.duration(duration_s(run))}")
    if run.error is not None:
        console.echo(f"error           {run.error.type}: {run.error.message}", color="red")


def _show_block_runs(console: Console, block_runs: Sequence[BlockRun]) -> None:
    if not block_runs:
        return
    is_retried = any(block_run.attempt > 1 for block_run in block_runs)
    console.echo()
    console.table(
        [
            "attempt",
            "block run",
            "status",
            "index",
            "last",
            "records",
            "rejected",
            "deleted",
            "replaced",
            "size",
            "time",
            "bookmark",
            "error",
        ],
        [
            [
                block_run.attempt if is_retried else "",
                block_run.uuid,
                block_run.status,
                block_run.index,
                "yes" if block_run.is_last_block_run else "",
                formatting.count(block_run.rows),
                block_run.rows_rejected or "",
                block_run.rows_deleted or "",
                block_run.rows_replaced or "",
                formatting.size(block_run.size_bytes) if block_run.size_bytes else "",
                formatting.duration(
                    (block_run.ended_at - block_run.started_at).total_seconds() if block_run.ended_at else None
                ),
                formatting.cut(formatting.bookmark(block_run.bookmark_after), 40),
                formatting.cut(block_run.error.message if block_run.error else "", 100),
            ]
            for block_run in block_runs
        ],
        right=["attempt", "index", "records", "rejected", "deleted", "replaced", "size", "time"],
    )
    from ..store.documents import change_in_words, warnings_in_words

    changed = {(run.attempt, run.stream): run.schema_changes for run in block_runs if run.schema_changes}
    for (_, stream), changes in changed.items():
        console.echo(f"schema of {stream}: {'; '.join(map(change_in_words, changes))}")
    for block_run in block_runs:
        if block_run.lag:
            console.echo(f"log of {block_run.stream}: {_lag(block_run.lag)}")
    for stream, notice in dict.fromkeys((run.stream, notice) for run in block_runs for notice in run.notices):
        console.echo(f"{stream}: {notice}")
    for block_run in block_runs:
        if block_run.warnings and block_run.block_type == "data_loader" and block_run.status != "success":
            console.echo(f"{block_run.stream}: the connector logged {warnings_in_words(block_run.warnings)}")


def _lag(lag: Mapping[str, Any]) -> str:
    """Say how far a stream was behind its log."""
    before, age, after, kept = (
        lag.get(name) for name in ("bytes_before", "seconds_before", "bytes_after", "retained_bytes")
    )
    said = "copied" if before is None else f"{formatting.size(before)} behind before the run"
    if age is not None:
        said += f", the oldest change {formatting.duration(age)} old"
    if after is not None:
        said += f"; {formatting.size(after)} behind after it"
    return said if kept is None else f"{said}; the source keeps {formatting.size(kept)} of log"


def _status(run: PipelineRun, owner_state: str | None) -> str:
    if owner_state == "dead":
        if run.status != "running":
            return f"{run.status}, callbacks left undelivered"
        return "left by its process" if run.owner.has_departed else "left by a dead process"
    if run.is_active and run.status != "running":
        return f"{run.status}, delivering callbacks"
    return run.status


def _run_number(words_left: Sequence[str]) -> int | None:
    if len(words_left) > 1:
        raise click.UsageError(f"too many arguments: {' '.join(words_left)}")
    if not words_left:
        return None
    if not words_left[0].isdecimal():
        raise click.UsageError(f"{words_left[0]!r} is neither a pipeline file nor the number of a run")
    return int(words_left[0])
