"""Options and arguments of several commands."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from .completion import complete_files, complete_paths, complete_streams
from .console import Console
from .pipeline_file import SUFFIXES, find_file

if TYPE_CHECKING:
    from ..config import Pipeline

Command = Callable[..., Any]

#: What `--variable` gives: names and values.
Variables = tuple[tuple[str, Any], ...]

file_argument = click.argument(
    "file", required=False, type=click.Path(path_type=Path), metavar="[FILE]", shell_complete=complete_files
)

stream_option = click.option(
    "--stream",
    "streams",
    multiple=True,
    metavar="GLOB",
    help="Only these of the selected streams; repeatable.",
    shell_complete=complete_streams,
)

tag_option = click.option(
    "--tag", "tags", multiple=True, metavar="TAG", help="Only streams with this tag in `tags`; repeatable."
)


def common(function: Command) -> Command:
    """Add --json and --debug, and pass the console as the first argument."""

    @click.option("--json", "as_json", is_flag=True, help="JSON on stdout, errors too.")
    @click.option("--debug", is_flag=True, help="Show tracebacks and the engine's log.")
    @click.pass_obj
    @functools.wraps(function)
    def wrapper(console: Console, /, *args: Any, as_json: bool, debug: bool, **kwargs: Any) -> Any:
        from .logs import show_logs

        console.is_json, console.is_debug = as_json, debug
        console.context = click.get_current_context()
        if as_json:
            console.claim_stdout()
        show_logs(console)
        return function(console, *args, **kwargs)

    return wrapper


def _read_variables(_ctx: click.Context, _param: click.Parameter, texts: Sequence[str]) -> Variables:
    """Split `name=value`; the value is JSON if it is valid JSON, else text."""
    found = []
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name.strip():
            raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE")
        found.append((name.strip(), json_or_text(value)))
    return tuple(found)


def _read_event(_ctx: click.Context, _param: click.Parameter, place: str | None) -> dict[str, Any] | None:
    """Read a JSON object from a file, or from stdin (`-`)."""
    if place is None:
        return None
    name = "stdin" if place == "-" else place
    try:
        text = sys.stdin.read() if place == "-" else Path(place).read_text(encoding="utf-8")
        event = json.loads(text)
    except OSError as error:
        raise click.BadParameter(f"{name} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"{name} holds no JSON: {error}") from error
    if not isinstance(event, dict):
        raise click.BadParameter(f"{name} holds a JSON value that is no object")
    return event


event_option = click.option(
    "--event",
    callback=_read_event,
    shell_complete=complete_paths,
    metavar="FILE|-",
    help="JSON object for callbacks as `event`; - reads stdin.",
)

variable_option = click.option(
    "--variable",
    "variables",
    multiple=True,
    callback=_read_variables,
    metavar="NAME=VALUE",
    help="Runtime variable, overrides the file's; the value is JSON, else text. Repeatable.",
)


def read_moment(_ctx: click.Context, _param: click.Parameter, text: str | None) -> datetime | None:
    """Read an ISO date or time; without a zone it is UTC."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no time: write 2024-01-31 or 2024-01-31T06:00:00Z") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Moments(NamedTuple):
    """When a run is, and what time it is for; arguments of `load_pipeline`."""

    execution_date: datetime | None
    interval: tuple[datetime, datetime] | None


def moment_options(function: Command) -> Command:
    """Add --execution-date, --interval-start and --interval-end, which come together: the parameter `moments`."""

    @click.option(
        "--execution-date",
        "date",
        callback=read_moment,
        metavar="TIME",
        help="Time of `execution_date` and `ds`; UTC.",
    )
    @click.option(
        "--interval-start",
        "start",
        callback=read_moment,
        metavar="TIME",
        help="Start of the run's data interval; UTC.",
    )
    @click.option("--interval-end", "end", callback=read_moment, metavar="TIME", help="Its end, exclusive.")
    @functools.wraps(function)
    def wrapper(*args: Any, date: datetime | None, start: datetime | None, end: datetime | None, **kwargs: Any) -> Any:
        if (start is None) != (end is None):
            raise click.UsageError("give both --interval-start and --interval-end, or none")
        interval = None if start is None or end is None else (start, end)
        return function(*args, moments=Moments(date, interval), **kwargs)

    return wrapper


drop_history_option = click.option(
    "--drop-history", is_flag=True, help="With --full-refresh: begin the histories anew, too."
)


def check_drop_history(*, full_refresh: bool, drop_history: bool) -> None:
    """Refuse --drop-history where nothing is dropped."""
    if drop_history and not full_refresh:
        raise click.UsageError("--drop-history needs --full-refresh, which replaces the tables")


def json_or_text(text: str) -> Any:
    """Return the value of valid JSON (without NaN and infinity), else the text."""

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return text


def split_file(arguments: Sequence[str]) -> tuple[Path | None, tuple[str, ...]]:
    """Split a leading FILE from a command's arguments, if there is one."""
    if arguments and (Path(arguments[0]).suffix.lower() in SUFFIXES or Path(arguments[0]).exists()):
        return Path(arguments[0]), tuple(arguments[1:])
    return None, tuple(arguments)


def open_pipeline(
    console: Console,
    file: Path | None,
    variables: Sequence[tuple[str, Any]] = (),
    trigger: str | None = None,
    **more: Any,
) -> Pipeline:
    """Find and load the pipeline file; its secrets are masked from now on. `more`: see `load_pipeline`."""
    from ..config import load_pipeline

    pipeline = load_pipeline(find_file(file), variables=dict(variables), trigger=trigger, **more)
    console.hide(pipeline.secret_values)
    for warning in pipeline.warnings:
        console.warn(warning)
    return pipeline
