"""`syncblocks callbacks`: who is called for what, what was delivered, and delivering what is dead or due."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import Group, formatting
from .callback_testing import history_command, replay_command, test_command
from .console import Console
from .options import common, file_argument, open_pipeline, split_file
from .runs import find_run, show_deliveries

if TYPE_CHECKING:
    from ..config import Pipeline


@click.group("callbacks", short_help="List, test, retry and replay callbacks.", cls=Group)
def callbacks_command() -> None:
    """List callback blocks and their calls; try functions; deliver dead events again."""


for _command in (test_command, history_command, replay_command):
    callbacks_command.add_command(_command)


@callbacks_command.command("list")
@common
@click.option("--run", "number", type=click.IntRange(min=1), metavar="N", help="The deliveries of run N instead.")
@file_argument
def list_command(console: Console, file: Path | None, number: int | None) -> int:
    """List the pipeline's callback functions: when they are called, and whether they receive data.

    With --run: each delivery of that run with its state, attempts and last error.
    """
    pipeline = open_pipeline(console, file)
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
@click.argument("arguments", nargs=-1, metavar="[FILE] [RUN|KEY]")
def retry_command(console: Console, arguments: tuple[str, ...]) -> int:
    """Deliver what is dead or still due, now: all of the pipeline's, those of a RUN, or the one with a KEY.

    Dead deliveries get all of their attempts again. Exit code 3 if one is dead or due afterwards.
    """
    from ..run.redelivery import Redelivered, redeliver
    from ..session.inspection import existing_store
    from .progress_lines import Lines

    file, rest = split_file(arguments)
    if len(rest) > 1:
        raise click.UsageError(f"too many arguments: {' '.join(rest)}")
    pipeline = open_pipeline(console, file)
    done = Redelivered(revived=0, counts={"due": 0, "done": 0, "dead": 0})
    with existing_store(pipeline) as store:
        if store is not None:
            run_id = key = None
            if rest and rest[0].isdecimal() and len(rest[0]) < 12:
                run_id = find_run(store, pipeline.pipeline, int(rest[0])).id
            elif rest:
                key = store.outbox(pipeline.pipeline).find(rest[0]).key
            progress = None if console.is_json else Lines(console)
            done = redeliver(pipeline, store, run_id=run_id, key=key, progress=progress)
    code = 3 if done.counts["dead"] or done.counts["due"] else 0
    if console.is_json:
        console.emit({"type": "callbacks_retry", "pipeline": pipeline.pipeline, **asdict(done), "exit_code": code})
        return code
    parts = [f"{formatting.count(number)} {state}" for state, number in done.counts.items() if number]
    console.echo(f"callbacks: {', '.join(parts)}" if parts else "nothing is dead or due")
    if done.note:
        console.echo(done.note, color="yellow")
    return code


def _list_deliveries(console: Console, pipeline: Pipeline, number: int) -> int:
    from ..session.inspection import existing_store

    with existing_store(pipeline) as store:
        run = find_run(store, pipeline.pipeline, number)
        assert store is not None
        deliveries = store.outbox(pipeline.pipeline).deliveries(run_id=run.id, limit=10_000)
    if console.is_json:
        found = [asdict(delivery) for delivery in deliveries]
        console.emit({"type": "deliveries", "pipeline": pipeline.pipeline, "run_id": run.id, "deliveries": found})
    elif deliveries:
        show_deliveries(console, deliveries)
    else:
        console.echo(f"run {run.id} has no deliveries")
    return 0


def _functions(pipeline: Pipeline) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """One entry a function, in the order of calling."""
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
