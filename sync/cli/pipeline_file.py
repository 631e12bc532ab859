"""The search for the pipeline file."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from ..pipeline_files import SUFFIXES, pipeline_files, yaml_files

if TYPE_CHECKING:
    from ..config import Pipeline

__all__ = ["SUFFIXES", "file_words", "find_file", "pipeline_files"]

#: A URL, of which a path keeps one slash, the variable of one, or the file of a database.
_PLACE = re.compile(r"^(?:[A-Za-z][\w+.-]+:/|env:)|\.(?:db|duckdb|sqlite|sqlite3)$")


def find_file(file: Path | None) -> Path:
    """Return the given pipeline file, else the only one of the (current) folder.

    Raises:
        ConfigError: there is none, or more than one.
    """
    from ..config.current_folder import current_folder
    from ..errors import ConfigError, nearest_match

    current_folder()
    if file is not None and _PLACE.search(str(file)):
        raise ConfigError(
            "is data, not a pipeline file: `syncblocks sync SRC DST` shows its streams, and writes the file",
            key="FILE",
        )
    if file is not None and not file.is_dir():
        if not file.exists() and (file.parent.is_dir()):
            there = [path.name for path in yaml_files(file.parent)]
            near = nearest_match(file.name, there)
            nearest = None if near is None else str(file.parent / near)
            raise ConfigError(f"there is no such pipeline file{_meant(file)}", path=str(file), nearest=nearest)
        return file
    folder = Path() if file is None else file
    where = "the current folder" if file is None else str(file)
    files = yaml_files(folder)
    pipelines = pipeline_files(folder)
    if len(pipelines) == 1:
        return pipelines[0]
    if len(pipelines) > 1:
        names = tuple(sorted(path.name for path in pipelines))
        raise ConfigError(f"{where} holds {len(pipelines)} pipeline files: name one", key="FILE", allowed=names)
    others = f" ({', '.join(path.name for path in files[:5])}: no `source` and `destination`)" if files else ""
    way = "`syncblocks init`"
    if any(path.name == "meltano.yml" for path in files):
        way = f"`syncblocks init --from-meltano {folder / 'meltano.yml'}`"
    raise ConfigError(f"{where} holds no pipeline file{others}: name one, or make one with {way}", key="FILE")


def _meant(file: Path) -> str:
    """Say which option takes a word that is no file's name, if the command has it."""
    import click

    from .errors import has_option

    context = click.get_current_context(silent=True)
    for option, what in (("--run", "a run"), ("--stream", "a stream")):
        is_number = file.name.isdecimal()
        if not file.suffix and context and has_option(context, option) and is_number == (option == "--run"):
            return f"; {what} is named by {option}"
    return ""


def file_words(pipeline: Pipeline) -> str:
    """Return the FILE of a command about this pipeline, after a space; empty where it may be left out.

    A command that a message names is copied into a shell, so it must find the same pipeline.
    """
    if pipeline.path is None:
        return ""
    try:
        folder = Path.cwd()
        if pipeline.path.parent == folder and [path.name for path in pipeline_files(folder)] == [pipeline.path.name]:
            return ""
    except OSError:  # the folder has gone during the run, whose result counts
        return f" {shlex.quote(str(pipeline.path))}"
    shown = pipeline.path.relative_to(folder) if pipeline.path.is_relative_to(folder) else pipeline.path
    return f" {shlex.quote(str(shown))}"
