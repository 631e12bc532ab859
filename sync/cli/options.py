"""Options and arguments of several commands, and the search for the pipeline file."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import Console

if TYPE_CHECKING:
    from ..config import Pipeline

Command = Callable[..., Any]

SUFFIXES = (".yaml", ".yml")
_KEYS = (re.compile(rb"^source\s*:", re.MULTILINE), re.compile(rb"^destination\s*:", re.MULTILINE))

file_argument = click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE]")

stream_option = click.option(
    "--stream", "streams", multiple=True, metavar="GLOB", help="Only these of the selected streams; repeatable."
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
        if as_json:
            console.claim_stdout()
        show_logs(console)
        return function(console, *args, **kwargs)

    return wrapper


def _read_variables(_ctx: click.Context, _param: click.Parameter, texts: Sequence[str]) -> tuple[tuple[str, Any], ...]:
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
    except ValueError as error:
        raise click.BadParameter(f"{name} holds no JSON: {error}") from error
    if not isinstance(event, dict):
        raise click.BadParameter(f"{name} holds a JSON value that is no object")
    return event


event_option = click.option(
    "--event",
    callback=_read_event,
    metavar="FILE|-",
    help="JSON object that callbacks get as `event`; - reads stdin.",
)

variable_option = click.option(
    "--variable",
    "variables",
    multiple=True,
    callback=_read_variables,
    metavar="NAME=VALUE",
    help="Runtime variable over those of the file; the value as JSON, else as text. Repeatable.",
)


def json_or_text(text: str) -> Any:
    """Return the value of valid JSON (without NaN and infinity), else the text."""

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    try:
        return json.loads(text, parse_constant=refuse)
    except ValueError:
        return text


def split_file(arguments: Sequence[str]) -> tuple[Path | None, tuple[str, ...]]:
    """Split a leading FILE from a command's arguments, if there is one."""
    if arguments and (Path(arguments[0]).suffix.lower() in SUFFIXES or Path(arguments[0]).exists()):
        return Path(arguments[0]), tuple(arguments[1:])
    return None, tuple(arguments)


def find_file(file: Path | None) -> Path:
    """Return the given pipeline file, else the only one of the (current) folder.

    Raises:
        ConfigError: there is none, or more than one.
    """
    from ..errors import ConfigError, nearest_match

    if file is not None and not file.is_dir():
        if not file.exists() and (file.parent.is_dir()):
            there = [path.name for path in _yaml_files(file.parent)]
            near = nearest_match(file.name, there)
            nearest = None if near is None else str(file.parent / near)
            raise ConfigError("there is no such pipeline file", path=str(file), nearest=nearest)
        return file
    folder = Path() if file is None else file
    where = "the current folder" if file is None else str(file)
    files = _yaml_files(folder)
    pipelines = [path for path in files if _is_pipeline(path)]
    if len(pipelines) == 1:
        return pipelines[0]
    if len(pipelines) > 1:
        names = tuple(sorted(path.name for path in pipelines))
        raise ConfigError(f"{where} holds {len(pipelines)} pipeline files: name one", key="FILE", allowed=names)
    others = f" ({', '.join(path.name for path in files[:5])}: no `source` and `destination`)" if files else ""
    raise ConfigError(
        f"{where} holds no pipeline file{others}: name one, or make one with `syncblocks init`", key="FILE"
    )


def open_pipeline(
    console: Console, file: Path | None, variables: Sequence[tuple[str, Any]] = (), trigger: str | None = None
) -> Pipeline:
    """Find and load the pipeline file; its secrets are masked from now on."""
    from ..config import load_pipeline

    pipeline = load_pipeline(find_file(file), variables=dict(variables), trigger=trigger)
    console.hide(pipeline.secret_values)
    for warning in pipeline.warnings:
        console.warn(warning)
    return pipeline


def _yaml_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def _is_pipeline(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(1_000_000)
    except OSError:
        return False
    return all(key.search(head) for key in _KEYS)
