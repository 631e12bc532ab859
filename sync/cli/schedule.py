"""`syncblocks schedule`: when a pipeline is due, and what `serve` does about it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from syncblocks.connectors.struct_helpers import asdict

from . import Group
from .console import Console
from .formatting import plural
from .options import common, file_argument, read_moment
from .pipeline_file import find_file

if TYPE_CHECKING:
    from ..config.head import Head
    from ..schedules import Schedule
    from ..store import Store
    from ..store.views import TickLine


@click.group("schedule", cls=Group)
def schedule_command() -> None:
    """Show, pause and reset the schedule of a pipeline."""


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
    from ..schedules import next_times

    head, schedule = _read(file)
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


@schedule_command.command("ticks")
@common
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, metavar="N", help="Rows.")
@file_argument
def ticks_command(console: Console, file: Path | None, limit: int) -> int:
    """Show what became of the last times of the pipeline's schedule, the latest first: a run, or why there is none."""
    from zoneinfo import ZoneInfo

    from ..store import Store

    head, schedule = _read(file)
    place = head.store()
    console.hide(place.secret_values)
    lines: Sequence[TickLine] = ()
    if Store.exists(place.url):
        with Store.open(place.url) as store:
            lines = store.views.last_ticks([head.pipeline], limit)[head.pipeline]
    if console.is_json:
        console.emit({"type": "ticks", "pipeline": head.pipeline, "ticks": [asdict(line) for line in lines]})
        return 0
    if not lines:
        console.echo(f"{head.pipeline}: no time of its schedule was decided yet")
        return 0
    zone = ZoneInfo(schedule.timezone)
    rows = [
        [f"{line.due_at.astimezone(zone):%a %Y-%m-%d %H:%M:%S %z}", _became(line), line.why or ""] for line in lines
    ]
    console.table([schedule.timezone, "became", "why"], rows)
    return 0


@schedule_command.command("pause")
@common
@click.option("--until", callback=read_moment, metavar="TIME", help="When it goes on by itself; UTC.")
@click.option("--reason", metavar="TEXT", help="Why; shown with the times that are skipped.")
@file_argument
def pause_command(console: Console, file: Path | None, until: datetime | None, reason: str | None) -> int:
    """Let `serve` start no run by the pipeline's schedule until it is resumed. Runs that go are left alone.

    The times meanwhile are skipped. Runs by hand and by `trigger_pipeline` are not held back.
    """
    from ..clock import Clock
    from ..store.owner import current_user

    head, schedule = _read(file)
    if until is not None and until <= Clock().now():
        raise click.UsageError(f"--until {until:%Y-%m-%dT%H:%M:%SZ} has passed: name a later time, or leave it out")
    with _store(console, head) as store:
        place = str(head.path)
        store.schedules.pause(head.pipeline, place, schedule, until=until, reason=reason, who=current_user())
    end = "until `schedule resume`" if until is None else f"until {until:%Y-%m-%d %H:%M:%SZ}"
    told = {"until": None if until is None else f"{until:%Y-%m-%dT%H:%M:%SZ}", "reason": reason}
    return _told(console, "paused", head.pipeline, f"schedule paused {end}", **told)


@schedule_command.command("resume")
@common
@file_argument
def resume_command(console: Console, file: Path | None) -> int:
    """End a pause: the schedule goes on with its next time."""
    from ..store.owner import current_user

    head, _ = _read(file)
    with _store(console, head) as store:
        was_paused = store.schedules.resume(head.pipeline, who=current_user())
    text = "schedule resumed" if was_paused else "schedule was not paused"
    return _told(console, "resumed", head.pipeline, text, was_paused=was_paused)


@schedule_command.command("forget")
@common
@click.argument("pipeline", metavar="PIPELINE")
@click.argument("folder", required=False, type=click.Path(path_type=Path), metavar="[FOLDER]")
def forget_command(console: Console, pipeline: str, folder: Path | None) -> int:
    """Delete the schedule of a pipeline whose file is gone from a folder; ticks that wait are skipped.

    Runs and their history stay.
    """
    from ..config.store_place import usual_store
    from ..errors import ConfigError
    from ..pipeline_files import pipeline_files
    from ..store import Store
    from .serve import store_of

    folder = (Path() if folder is None else folder).absolute()
    has_files = not folder.is_dir() or bool(pipeline_files(folder))
    place = store_of(folder) if has_files else usual_store(folder)
    console.hide(place.secret_values)
    if not Store.exists(place.url):
        raise ConfigError("has no run store yet: there is nothing to forget", path=str(folder))
    with Store.open(place.url) as store:
        skipped = store.schedules.forget(pipeline)
    return _told(console, "forgotten", pipeline, f"schedule forgotten{_ticks(skipped)}", skipped=skipped)


@schedule_command.command("reset")
@common
@file_argument
def reset_command(console: Console, file: Path | None) -> int:
    """Let the schedule begin anew now; ticks that wait, and times that nobody has looked at, are skipped.

    The way out after the run store's clock was ahead: until the clock is there again, `serve` starts nothing.
    """
    head, _ = _read(file)
    with _store(console, head) as store:
        skipped = store.schedules.reset(head.pipeline)
    return _told(console, "reset", head.pipeline, f"schedule begins anew{_ticks(skipped)}", skipped=skipped)


def _read(file: Path | None) -> tuple[Head, Schedule]:
    from ..config.head import read_head
    from ..errors import ConfigError

    head = read_head(find_file(file))
    if head.schedule is None:
        message = 'is missing: write when the pipeline is due, such as `schedule: {cron: "*/15 * * * *"}`'
        raise ConfigError(message, path=str(head.path), key="schedule")
    return head, head.schedule


def _store(console: Console, head: Head) -> Store:
    from ..store import Store

    place = head.store()
    console.hide(place.secret_values)
    return Store.open(place.url)


def _told(console: Console, what: str, pipeline: str, text: str, **more: Any) -> int:
    if console.is_json:
        console.emit({"type": "schedule", "action": what, "pipeline": pipeline, **more})
    else:
        console.echo(f"{pipeline}: {text}")
    return 0


def _became(line: TickLine) -> str:
    if line.run_id is not None:
        return f"run {line.run_id}"
    return f"{line.skipped_count} times skipped" if (line.skipped_count or 0) > 1 else line.state


def _ticks(number: int) -> str:
    return f"; {plural(number, 'waiting tick')} skipped" if number else ""
