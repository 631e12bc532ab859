"""`syncblocks callbacks test FILE.yaml`: call a hook with a made-up event, as a run does."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from . import formatting
from .console import Console

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from syncblocks.callbacks.delivery import Outcome

    from ..config import CallbackBlock, Pipeline


def test_hook(
    console: Console,
    pipeline: Pipeline,
    name: str | None,
    statuses: Sequence[str],
    parent: str | None,
    make_event: Callable[[CallbackBlock, str, str], dict[str, Any]],
) -> int:
    """Call one hook of a pipeline file, once for each status it serves; 1 if a call fails.

    Args:
        console: Where to show it.
        pipeline: The file.
        name: Of the callback block; None: the only one.
        statuses: Of the events; none: those that it serves.
        parent: A word of `on`; None: the block's first.
        make_event: Makes the event of a block, a status and a parent.
    """
    from ..run.redelivery import try_hook

    place = _place(pipeline, name)
    block = pipeline.callbacks[place]
    calls: list[tuple[str, Outcome]] = []
    for status in statuses or _statuses(pipeline, block):
        event = make_event(block, status, parent or block.on[0])
        calls.append((status, try_hook(pipeline, place, status, event)))
    code = 0 if all(outcome.ok for _, outcome in calls) else 1
    if console.is_json:
        told = [{"callback_block": block.block, "status": status, **asdict(outcome)} for status, outcome in calls]
        console.emit({"type": "callback_test", "pipeline": pipeline.pipeline, "calls": told, "exit_code": code})
        return code
    for status, outcome in calls:
        took = formatting.duration(outcome.duration_s)
        said = "its condition is false, so it was not called" if outcome.kind == "skipped" else f"done after {took}"
        said = said if outcome.ok else f"{outcome.kind} after {took}"
        console.echo(f"{block.block}.{block.kind} ({status}): {said}", color="green" if outcome.ok else "red")
        for what, text in (("error", outcome.error), ("output", outcome.output)):
            for line in (text or "").rstrip().splitlines():
                console.echo(f"  {what}: {line}")
    return code


def _place(pipeline: Pipeline, name: str | None) -> int:
    from ..errors import ConfigError, nearest_match

    hooks = {block.block: place for place, block in enumerate(pipeline.callbacks) if block.kind != "file"}
    if name is None and len(hooks) == 1:
        return next(iter(hooks.values()))
    if name is not None and name in hooks:
        return hooks[name]
    files = {block.block: block.file for block in pipeline.callbacks if block.kind == "file"}
    if name in files:
        raise click.UsageError(f"{name} is functions: `syncblocks callbacks test {files[name]}` calls them")
    if not hooks:
        raise ConfigError(
            f"{pipeline.pipeline} has no hooks (notify, webhook, shell, sql); to call functions name their .py "
            "file, and the pipeline by --pipeline",
            key="--block",
        )
    raise ConfigError(
        "name the hook to call" if name is None else f"the pipeline has no hook {name!r}",
        key="--block",
        allowed=tuple(hooks),
        nearest=None if name is None else nearest_match(name, tuple(hooks)),
    )


def _statuses(pipeline: Pipeline, block: CallbackBlock) -> list[str]:
    from ..delivery.subscriptions import load_user_code

    subscriptions = load_user_code(pipeline).subscriptions
    return list(dict.fromkeys(one.status for one in subscriptions if one.callback_block == block.block))
