"""`syncblocks callbacks`: who is called for what, what was delivered, and repeating what is dead."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import Group, words
from .console import Console
from .options import common, file_argument, open_pipeline, split_file
from .runs import find_run, show_deliveries

if TYPE_CHECKING:
    from ..config import Pipeline


@click.group("callbacks", cls=Group)
def callbacks_command() -> None:
    """List callback blocks and their deliveries; repeat dead ones."""


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
        ["callback", "function", "on", "statuses", "streams", "data", "timeout", "attempts", "file"],
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
                item["file"],
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
    """Make dead deliveries due again: all of the pipeline's, those of a RUN, or the one with a KEY.

    The next `syncblocks run` delivers them, before new work.
    """
    from ..inspection import existing_store

    file, rest = split_file(arguments)
    if len(rest) > 1:
        raise click.UsageError(f"too many arguments: {' '.join(rest)}")
    pipeline = open_pipeline(console, file)
    with existing_store(pipeline) as store:
        number = 0
        if store is not None:
            outbox = store.outbox(pipeline.pipeline)
            if not rest:
                number = outbox.retry()
            elif rest[0].isdecimal() and len(rest[0]) < 12:
                number = outbox.retry(run_id=find_run(store, pipeline.pipeline, int(rest[0])).id)
            else:
                number = outbox.retry(key=_whole_key([record.key for record in outbox.dead()], rest[0]))
    if console.is_json:
        console.emit({"type": "callbacks_retry", "pipeline": pipeline.pipeline, "due": number})
    elif number:
        console.echo(f"{_deliveries(number)} due again; `syncblocks run` delivers before new work")
    else:
        console.echo("nothing is dead")
    return 0


def _list_deliveries(console: Console, pipeline: Pipeline, number: int) -> int:
    from ..inspection import existing_store

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
    from ..subscriptions import load_user_code

    code = load_user_code(pipeline)
    blocks = {block.block: block for block in pipeline.callbacks}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for subscription in code.subscriptions:
        block = blocks[subscription.callback_block]
        entry = found.setdefault(
            (subscription.callback_block, subscription.function),
            {
                "callback_block": block.block,
                "function": subscription.function,
                "file": block.file,
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


def _whole_key(keys: list[str], start: str) -> str:
    """Return the idempotency key that begins so; tables show the beginning only."""
    from ..errors import StateError

    found = [key for key in keys if key.startswith(start)]
    if len(found) != 1:
        what = "no dead delivery has" if not found else f"{len(found)} dead deliveries have"
        raise StateError(f"{what} a key that begins with {start!r}; `syncblocks callbacks list --run N` shows them")
    return found[0]


def _deliveries(number: int) -> str:
    return "1 delivery is" if number == 1 else f"{words.count(number)} deliveries are"
