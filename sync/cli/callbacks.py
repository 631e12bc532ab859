"""`syncblocks callbacks`: list callbacks and their calls, retry and replay deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from syncblocks.connectors.struct_helpers import asdict

from . import Group, formatting
from .callback_testing import inline_option, show_indented, show_outcome, test_command
from .completion import complete_files, complete_first_file
from .console import Console
from .options import Variables, common, file_argument, open_pipeline, split_file, variable_option
from .runs import find_run, show_deliveries

if TYPE_CHECKING:
    from ..config import Pipeline
    from ..store.model import HistoryEntry


_HISTORY_COLUMNS = ["started", "run", "callback", "function", "parent", "stream", "status"]
_HISTORY_COLUMNS += ["try", "outcome", "time", "key", "error", "output"]


@click.group("callbacks", short_help="List, test, retry and replay callbacks.", cls=Group)
def callbacks_command() -> None:
    """List callback blocks and their calls; test functions; deliver dead events again."""


callbacks_command.add_command(test_command)


@callbacks_command.command("list")
@common
@variable_option
@click.option("--run", "number", type=click.IntRange(min=1), metavar="N", help="The deliveries of run N instead.")
@file_argument
def list_command(console: Console, file: Path | None, variables: Variables, number: int | None) -> int:
    """List the pipeline's callback functions: when they are called, and whether they receive data.

    With --run: each delivery of that run with its state, attempts and last error.
    """
    pipeline = open_pipeline(console, file, variables)
    if number is not None:
        return _list_deliveries(console, pipeline, number)
    functions, warnings = _functions(pipeline)
    if console.is_json:
        console.emit(
            {"type": "callbacks", "pipeline": pipeline.pipeline, "functions": functions, "warnings": list(warnings)}
        )
        return 0
    if not functions:
        console.echo(f"{pipeline.pipeline} has no callbacks")
        return 0
    console.table(
        ["callback", "function", "on", "statuses", "streams", "data", "timeout", "attempts", "when", "calls"],
        [
            [
                item["callback_block"],
                item["function"],
                ", ".join(item["parents"]),
                ", ".join(item["statuses"]),
                ", ".join(item["streams"] or ()),
                "yes" if item["needs_data"] else "no",
                f"{item['timeout_s']:g} s",
                item["attempts"],
                item["when"],
                item["calls"],
            ]
            for item in functions
        ],
        right=["timeout", "attempts"],
    )
    for warning in warnings:
        console.warn(warning)
    return 0


@callbacks_command.command("retry")
@common
@variable_option
@click.argument("arguments", nargs=-1, metavar="[FILE] [RUN|KEY]", shell_complete=complete_first_file)
def retry_command(console: Console, arguments: tuple[str, ...], variables: Variables) -> int:
    """Deliver dead and due deliveries now: of the pipeline, of a RUN, or the one with a KEY.

    Dead deliveries get all of their attempts again. Exit code 3 if a delivery is dead or due afterwards.
    """
    from ..run.redelivery import Redelivered, redeliver
    from ..session.inspection import existing_store
    from .progress_lines import make_progress

    file, rest = split_file(arguments)
    if len(rest) > 1:
        raise click.UsageError(f"too many arguments: {' '.join(rest)}")
    pipeline = open_pipeline(console, file, variables)
    done = Redelivered(revived=0, counts={"due": 0, "done": 0, "dead": 0})
    with existing_store(pipeline) as store:
        if store is not None:
            run_id = key = None
            if rest and rest[0].isdecimal() and len(rest[0]) < 12:
                run_id = find_run(store, pipeline.pipeline, int(rest[0])).id
            elif rest:
                key = store.outbox(pipeline.pipeline).deliveries.find(rest[0]).key
            with nullcontext() if console.is_json else make_progress(console) as progress:
                done = redeliver(pipeline, store, run_id=run_id, key=key, progress=progress)
    code = 3 if done.counts["dead"] or done.counts["due"] else 0
    if console.is_json:
        console.emit({"type": "callbacks_retry", "pipeline": pipeline.pipeline, **asdict(done), "exit_code": code})
        return code
    parts = [f"{formatting.count(number)} {state}" for state, number in done.counts.items() if number]
    console.echo(f"callbacks: {', '.join(parts)}" if parts else "no delivery is dead or due")
    if done.note:
        console.echo(done.note, color="yellow")
    return code


@callbacks_command.command("replay")
@common
@variable_option
@inline_option
@click.argument("arguments", nargs=-1, metavar="[FILE] KEY", shell_complete=complete_first_file)
def replay_command(console: Console, arguments: tuple[str, ...], variables: Variables, inline: bool) -> int:
    """Deliver the event of a done or dead delivery again, to the function as it is today.

    KEY is the beginning of its idempotency key, which the function gets again. The delivery keeps its state; the call
    is in its history as "replayed". Exit code 1 if the function did not return.
    """
    from ..errors import StateError
    from ..run.redelivery import replay
    from ..session.inspection import existing_store

    file, rest = split_file(arguments)
    if len(rest) != 1:
        raise click.UsageError("name one delivery: the KEY that `syncblocks callbacks history` shows")
    pipeline = open_pipeline(console, file, variables)
    with existing_store(pipeline) as store:
        if store is None:
            raise StateError(f"pipeline {pipeline.pipeline!r} has not run yet: there is nothing to replay")
        record, outcome = replay(pipeline, store, rest[0], inline=inline)
    code = 0 if outcome.ok else 1
    if console.is_json:
        facts = {"key": record.key, "run_id": record.run_id, "state": record.state, **asdict(outcome)}
        console.emit({"type": "callback_replay", "pipeline": pipeline.pipeline, **facts, "exit_code": code})
        return code
    event = " ".join(filter(None, [record.status, "of", record.parent, record.stream]))
    show_outcome(console, f"{record.callback_block}.{record.function}, run {record.run_id}, {event}", outcome)
    console.echo(f"delivery {record.key[:12]} stays {record.state}")
    return code


@callbacks_command.command("history")
@common
@variable_option
@click.option("--key", metavar="KEY", help="The calls of one delivery, with the whole error and output.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, metavar="N", help="Calls.")
@click.option("--run", "number", type=click.IntRange(min=1), metavar="N", help="Only those of run N.")
@click.argument(
    "file", required=False, type=click.Path(path_type=Path), metavar="[FILE]", shell_complete=complete_files
)
def history_command(
    console: Console, file: Path | None, variables: Variables, number: int | None, limit: int, key: str | None
) -> int:
    """List every call of a callback function, the latest first: outcome, time, error, last line of output."""
    from ..session.inspection import existing_store

    pipeline = open_pipeline(console, file, variables)
    entries: list[HistoryEntry] = []
    with existing_store(pipeline) as store:
        if store is not None or number is not None:
            run_id = None if number is None else find_run(store, pipeline.pipeline, number).id
            assert store is not None
            outbox = store.outbox(pipeline.pipeline)
            whole = None if key is None else outbox.deliveries.find(key).key
            entries = outbox.deliveries.history(run_id=run_id, key=whole, limit=limit)
    if console.is_json:
        calls = [asdict(entry) for entry in entries]
        console.emit({"type": "callback_history", "pipeline": pipeline.pipeline, "calls": calls})
    elif not entries:
        console.echo("no callback was called yet")
    elif key is not None:
        for entry in entries:
            _show_entry(console, entry)
    else:
        _show_entries(console, entries)
    return 0


def _list_deliveries(console: Console, pipeline: Pipeline, number: int) -> int:
    from ..session.inspection import existing_store

    with existing_store(pipeline) as store:
        run = find_run(store, pipeline.pipeline, number)
        assert store is not None
        deliveries = store.outbox(pipeline.pipeline).deliveries.records(run_id=run.id, limit=10_000)
    if console.is_json:
        found = [asdict(delivery) for delivery in deliveries]
        console.emit({"type": "deliveries", "pipeline": pipeline.pipeline, "run_id": run.id, "deliveries": found})
    elif deliveries:
        show_deliveries(console, deliveries)
    else:
        console.echo(f"run {run.id} has no deliveries")
    return 0


def _functions(pipeline: Pipeline) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return one entry for each function, in calling order."""
    from ..config.hook_texts import describe_hook
    from ..delivery.subscriptions import load_user_code

    code = load_user_code(pipeline)
    blocks = {block.block: block for block in pipeline.callbacks}
    places = {name: place for place, name in enumerate(blocks)}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for subscription in code.subscriptions:
        block = blocks[subscription.callback_block]
        entry = found.setdefault(
            (subscription.callback_block, subscription.function),
            {
                "callback_block": block.block,
                "function": subscription.function,
                "kind": block.kind,
                "file": block.file,
                "calls": describe_hook(block, pipeline.raw(("callbacks", places[block.block], block.kind))),
                "when": block.when,
                "parents": [],
                "statuses": [],
                "streams": None if block.streams is None else list(block.streams),
                "needs_data": False,
                "timeout_s": block.timeout_s,
                "attempts": block.attempts,
            },
        )
        for key, value in (("parents", subscription.parent), ("statuses", subscription.status)):
            if value not in entry[key]:
                entry[key].append(value)
        entry["needs_data"] = entry["needs_data"] or subscription.needs_data
    return list(found.values()), code.warnings


def _show_entries(console: Console, entries: Sequence[HistoryEntry]) -> None:
    console.table(
        _HISTORY_COLUMNS,
        [
            [
                formatting.moment(entry.call.started_at),
                entry.run_id,
                entry.callback_block,
                entry.function,
                entry.parent,
                entry.stream,
                entry.status,
                entry.call.number,
                entry.call.outcome,
                formatting.duration(entry.call.duration_s),
                entry.key[:12],
                formatting.cut((entry.call.error or "").strip().partition("\n")[0], 80),
                formatting.cut(entry.call.output.strip().rpartition("\n")[2], 60),
            ]
            for entry in entries
        ],
        right=["run", "try", "time"],
    )


def _show_entry(console: Console, entry: HistoryEntry) -> None:
    call, event = entry.call, " ".join(filter(None, [entry.status, "of", entry.parent, entry.stream]))
    console.echo(
        f"attempt {call.number} of {entry.callback_block}.{entry.function}, run {entry.run_id}, {event}: "
        f"{call.outcome} at {formatting.moment(call.started_at)} after {formatting.duration(call.duration_s)}",
        color="red" if call.error else "green",
    )
    show_indented(console, "error", call.error)
    show_indented(console, "output", call.output)
