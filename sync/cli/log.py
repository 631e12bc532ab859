"""`syncblocks log`: what LOG_BASED streams have made at their source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import Group
from .console import Console
from .options import Moments, common, file_argument, moment_options, open_pipeline, variable_option


@click.group("log", short_help="Drop what LOG_BASED streams have made at their source.", cls=Group)
def log_command() -> None:
    """Drop what LOG_BASED streams have made at their source."""


@log_command.command("drop")
@common
@variable_option
@moment_options
@file_argument
def drop_command(console: Console, file: Path | None, variables: tuple[tuple[str, Any], ...], moments: Moments) -> int:
    """Drop the replication slot and the publication of this pipeline, so that the source keeps no log for it.

    Only what the pipeline has made, and never a slot in use. Tables stay as they are; a later run copies them anew:
    `run --full-refresh` replaces what they hold.
    """
    from ..session.inspection import existing_store, opened
    from ..state.log import drop_log

    pipeline = open_pipeline(console, file, variables, **moments._asdict())
    with existing_store(pipeline) as store, opened(pipeline) as session:
        dropped = list(drop_log(session, store))
    if console.is_json:
        console.emit({"type": "log_dropped", "pipeline": pipeline.pipeline, "dropped": dropped})
        return 0
    what = f"dropped {' and '.join(dropped)}" if dropped else "there is nothing to drop"
    console.echo(f"{pipeline.pipeline}: {what}", color="green")
    return 0
