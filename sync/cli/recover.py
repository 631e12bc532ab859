"""`syncblocks recover`: end a dead run, deliver what is due, and list left files, without new work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .console import Console
from .options import common, file_argument, open_pipeline, variable_option
from .pipeline_file import file_words
from .run import show_callbacks

#: Most files that are named one by one.
MOST_SHOWN = 20


@click.command("recover", short_help="End a dead run and deliver due callbacks; no new work.")
@common
@click.option("--wait", is_flag=True, help="Wait for an active run of this pipeline.")
@click.option("--inline-callbacks", is_flag=True, help="Run callbacks in this process, for a debugger.")
@click.option("--remove-files", is_flag=True, help="Delete the files that killed runs have left in the destination.")
@variable_option
@file_argument
def recover_command(
    console: Console,
    file: Path | None,
    variables: tuple[tuple[str, Any], ...],
    wait: bool,
    inline_callbacks: bool,
    remove_files: bool,
) -> int:
    """End the run that a dead process has left, and deliver the callbacks that are due. Runs no stream.

    The next start of the pipeline does the same before its own work. Starts by `trigger_pipeline` that still wait are
    begun, each in a process of its own. Lists files that killed runs have left in Delta tables for over a day.
    """
    from ..run.recover_run import recover
    from ..store.documents import run_document
    from .logs import redirected
    from .progress_lines import make_progress

    pipeline = open_pipeline(console, file, variables)
    with make_progress(console, is_inline=inline_callbacks) as progress:

        def show(text: str, level: str) -> None:
            progress.message(text, level=level)

        with redirected(show):
            found = recover(
                pipeline,
                wait_for_other=wait,
                inline_callbacks=inline_callbacks,
                remove_files=remove_files,
                progress=progress,
            )
    if console.is_json:
        run = None if found.run is None else run_document(found.run)
        told: dict[str, Any] = {"run": run, "callbacks": dict(found.callbacks), "ticks": list(found.ticks)}
        told |= {"leftovers": dict(found.leftovers), "are_files_removed": remove_files}
        console.emit({"type": "recovered", "pipeline": pipeline.pipeline, **told})
        return found.exit_code
    file_name = file_words(pipeline)
    if found.run is None:
        console.echo(f"{pipeline.pipeline}: no run was left open")
    else:
        console.echo(f"{pipeline.pipeline}: run {found.run.id} was ended: {found.run.status}")
        console.echo(f"next: `syncblocks runs show{file_name} {found.run.id}` shows what happened")
        if found.run.status != "success":
            console.echo(f"      `syncblocks runs retry{file_name}` runs the streams that did not succeed")
    show_callbacks(console, found.callbacks, file_name)
    for tick in found.ticks:
        console.echo(f"tick {tick}, a waiting start by trigger_pipeline, was begun")
    if found.leftovers:
        _show_leftovers(console, found.leftovers, file_name, are_removed=remove_files)
    return found.exit_code


def _show_leftovers(console: Console, leftovers: Mapping[str, int], file_name: str, *, are_removed: bool) -> None:
    for path, size in list(leftovers.items())[:MOST_SHOWN]:
        console.echo(f"  {path} ({size:,} bytes)")
    if len(leftovers) > MOST_SHOWN:
        console.echo(f"  and {len(leftovers) - MOST_SHOWN} more")
    count = f"{len(leftovers)} file{'s' if len(leftovers) > 1 else ''} of killed runs"
    if are_removed:
        console.echo(f"{count}, which no commit named: removed")
    else:
        console.echo(
            f"{count}, over a day old, which no commit names: `syncblocks recover{file_name} --remove-files` removes"
        )
