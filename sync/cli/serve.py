"""`syncblocks serve`: start the pipelines of a folder when they are due."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .console import Console
from .formatting import plural
from .options import common

if TYPE_CHECKING:
    from ..config.head import StorePlace

#: Seconds between two turns, and between two looks at the output that is kept.
TURN_S, OUTPUT_S = 1.0, 3600.0


@click.command("serve", short_help="Start the pipelines of a folder when they are due.")
@common
@click.option(
    "--max-runs",
    type=click.IntRange(1, 1000),
    default=lambda: 2 * (os.cpu_count() or 1),
    show_default="2 for each core",
    metavar="N",
    help="Most pipelines of the folder that run at once.",
)
@click.option("--stop-runs", is_flag=True, help="Stop the runs that this server has started when it is stopped.")
@click.argument("folder", required=False, type=click.Path(path_type=Path), metavar="[FOLDER]")
def serve_command(console: Console, folder: Path | None, max_runs: int, stop_runs: bool) -> int:
    """Start the pipelines of a folder (default: the current one) by the `schedule` in their files.

    Takes the files *.yaml and *.yml that have a source and a destination, and reads them again when they change. Each
    run is a process of its own, which goes on when the server ends.
    """
    from ..clock import Clock
    from ..serve import PipelineFiles, Server
    from ..serve.children import Children
    from ..serve.signals import Signals
    from ..store import Store

    if sys.platform == "win32":
        raise click.UsageError("serve does not run on Windows: let the Task Scheduler start `syncblocks run FILE`")
    folder = (Path() if folder is None else folder).absolute()
    place = store_of(folder)
    console.hide(place.secret_values)
    clock = Clock()

    def say(text: str, level: str) -> None:
        at = f"{clock.now():%Y-%m-%dT%H:%M:%SZ}"
        if console.is_json:
            console.emit({"type": "log", "at": at, "level": level, "message": text})
        else:
            console.echo(f"{at} {text}", err=True, color="yellow" if level == "warning" else None)

    children = Children(_output_folder(folder, place.url))
    with Store.open(place.url) as store, Signals() as signals:
        files = PipelineFiles(folder, place.url, clock)
        server = Server(store, folder, files, children, max_runs=max_runs, clock=clock, say=say)
        say(f"serving {folder}; run store {store.url}; at most {plural(max_runs, 'run')} at once", "info")
        prune_at = clock.monotonic()
        while not signals.stops:
            if clock.monotonic() >= prune_at:
                children.prune()
                prune_at += OUTPUT_S
            server.turn()
            signals.wait(TURN_S)
        server.leave()
        if stop_runs:
            children.stop()
            say(f"stopping; waiting for {plural(len(children.runs), 'run')} to stop", "info")
            while signals.stops == 1 and (children.runs or children.recoveries):
                signals.wait(TURN_S)
                children.reap()
        else:
            say(f"stopped; {plural(len(children.runs), 'run')} left alone", "info")
    return 0


def store_of(folder: Path) -> StorePlace:
    """Return the run store of a folder: that of the first pipeline file that says one.

    Raises:
        ConfigError: there is no folder or no pipeline file, or each of them is wrong.
    """
    from ..config.head import read_head
    from ..errors import ConfigError
    from ..pipeline_files import pipeline_files

    if not folder.is_dir():
        way = ": name the folder of the file" if folder.exists() else ""
        raise ConfigError(f"is no folder{way}", path=str(folder))
    problem = ConfigError("holds no pipeline file: make one with `syncblocks init`", path=str(folder))
    mistakes = []
    for path in pipeline_files(folder):
        try:
            return read_head(path).store()
        except ConfigError as error:
            mistakes.append(error)
    raise next(iter(mistakes), problem)


def _output_folder(folder: Path, store_url: str) -> Path:
    """Return where the output of ticks is: beside the run store, or in the folder."""
    if store_url.startswith("sqlite:///"):
        return Path(store_url.removeprefix("sqlite:///").partition("?")[0]).parent / "ticks"
    return folder / ".syncblocks" / "ticks"
