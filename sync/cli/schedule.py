"""`syncblocks schedule`: when a pipeline is due."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from . import Group
from .console import Console
from .options import common, file_argument, read_moment
from .pipeline_file import find_file


@click.group("schedule", cls=Group)
def schedule_command() -> None:
    """Show when a pipeline is due."""


@schedule_command.command("next")
@common
@click.option("--count", type=click.IntRange(1, 1000), default=5, show_default=True, metavar="N", help="Times.")
@click.option(
    "--after", callback=read_moment, metavar="TIME", help="Only times after this one; UTC.", show_default="now"
)
@file_argument
def next_command(console: Console, file: Path | None, count: int, after: datetime | None) -> int:
    """Show the next times of the pipeline's schedule, in its zone and in UTC.

    Reads no secret and connects to nothing.
    """
    from zoneinfo import ZoneInfo

    from ..clock import Clock
    from ..config.head import read_head
    from ..errors import ConfigError
    from ..schedules import next_times

    head = read_head(find_file(file))
    schedule = head.schedule
    if schedule is None:
        message = 'is missing: write when the pipeline is due, such as `schedule: {cron: "*/15 * * * *"}`'
        raise ConfigError(message, path=str(head.path), key="schedule")
    zone = ZoneInfo(schedule.timezone)
    times = [(at, at.astimezone(zone)) for at in next_times(schedule, after or Clock().now(), count)]
    if console.is_json:
        found = [{"at": f"{at:%Y-%m-%dT%H:%M:%SZ}", "local": local.isoformat()} for at, local in times]
        about = {"owner": head.owner, "tags": list(head.tags), "runbook": head.runbook}
        more = {"timezone": schedule.timezone, "times": found, **about}
        console.emit({"type": "schedule", "pipeline": head.pipeline, **more})
        return 0
    is_utc = schedule.timezone == "UTC"
    rows = [[f"{local:%a %Y-%m-%d %H:%M:%S %z}", "" if is_utc else f"{at:%Y-%m-%d %H:%M:%SZ}"] for at, local in times]
    console.table([schedule.timezone, "UTC"], rows)
    return 0
