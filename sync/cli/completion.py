"""Names that the shell is offered. Opens no connector; what cannot be read offers nothing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .pipeline_file import find_file, pipeline_files

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ..config import Pipeline


def complete_connectors(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the names of connectors."""
    from syncblocks.connectors.registry import names

    return _beginning(incomplete, {*names("source"), *names("destination")})


def complete_streams(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the streams that the pipeline file names."""
    pipeline = _pipeline(ctx)
    entries = () if pipeline is None else pipeline.streams
    return _beginning(incomplete, {entry.stream for entry in entries if not set("*?[") & set(entry.stream)})


def complete_words(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer pipeline files and, where the file is known, its streams: of `[FILE] STREAM`."""
    given: tuple[str, ...] = ctx.params.get(param.name or "") or ()
    if not given:
        streams = complete_streams(ctx, param, incomplete)
        return [*complete_files(ctx, param, incomplete), *map(_item, streams)]
    ctx.params["file"] = given[0]
    return [_item(name) for name in complete_streams(ctx, param, incomplete) if len(given) == 1]


def complete_first_file(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer pipeline files as the first of several words."""
    return [] if ctx.params.get(param.name or "") else complete_files(ctx, param, incomplete)


def complete_blocks(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offer the callback blocks of the pipeline file."""
    pipeline = _pipeline(ctx)
    return _beginning(incomplete, set() if pipeline is None else {block.block for block in pipeline.callbacks})


def complete_files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the pipeline files of the folder; where there is none, what the shell finds."""
    folder = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    with suppress(OSError):
        found = _beginning(incomplete, {str(path) for path in pipeline_files(folder)})
        if found:
            return [_item(name) for name in found]
    return [_item(incomplete, kind="file")]


def complete_paths(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer what the shell finds: files and folders."""
    return [_item(incomplete, kind="file")]


def _item(value: str, kind: str = "plain") -> CompletionItem:
    from click.shell_completion import CompletionItem  # which no command needs

    return CompletionItem(value, type=kind)


def _pipeline(ctx: click.Context) -> Pipeline | None:
    from ..config import load_pipeline

    with suppress(Exception):  # a mistake in the file is shown when the command runs
        # An option whose value is still to come ends click's parsing: what stands before it is left in `args`.
        file = ctx.params.get("file") or next(iter(ctx.args), None)
        return load_pipeline(find_file(None if file is None else Path(file)))
    return None


def _beginning(start: str, names: set[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(start))
