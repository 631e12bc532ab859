"""`syncblocks sync SRC DST`: sync without a pipeline file; writes the file."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .completion import complete_paths
from .console import Console
from .options import common

if TYPE_CHECKING:
    from ..config import Pipeline
    from ..config.sync_command import Quick
    from ..plan.plan import Plan


#: Names of columns with a time, and with that of a record's last change.
_TIME = re.compile(r"_at$|_on$|time|date|modif", re.IGNORECASE)
_CHANGED = re.compile("updat|modif|chang", re.IGNORECASE)

#: Setting of a stream -> the option that it comes from.
_OPTIONS = {
    "stream": "--stream",
    "write_disposition": "--mode",
    "bookmark_properties": "--incremental",
    "key_properties": "--key",
    "destination_table": "--destination-table",
}


class _Modes(click.Choice[str]):
    """The dispositions; a word of other tools is answered with ours."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the disposition."""
        if value not in self.choices:
            from ..config.other_words import value_of_others

            is_other_case = value.lower() in self.choices
            ours = value.lower() if is_other_case else value_of_others(("write_disposition",), value)
            if value.lower() == "incremental":
                self.fail("Use --incremental COLUMN to read only new records.", param, ctx)
            if ours in self.choices:
                self.fail(f"{value!r}; did you mean {ours!r}?", param, ctx)
            if ours:
                self.fail(f"{value!r} is `write_disposition: {ours}` of a pipeline file.", param, ctx)
        return super().convert(value, param, ctx)


@click.command("sync", short_help="Sync SRC into DST; no pipeline file needed.")
@common
@click.option("--stream", "streams", multiple=True, metavar="GLOB", help="Streams of the source; default: all.")
@click.option(
    "--mode",
    "--write-disposition",
    "write_disposition",
    type=_Modes(["append", "replace", "merge", "history"]),
    help="How tables are written; default: replace; with --incremental merge if there are keys, else append.",
)
@click.option(
    "--incremental",
    multiple=True,
    metavar="COLUMN",
    is_flag=False,
    flag_value="",
    help="Read only new records, by a column that only grows; without COLUMN, likely columns are named.",
)
@click.option("--key", "keys", multiple=True, metavar="COLUMN", help="Column that identifies a record; repeatable.")
@click.option("--destination-table", metavar="TABLE", help="Table to write, for one stream; may name a schema.")
@click.option(
    "--on-lossy",
    type=click.Choice(["fail", "cast", "text"]),
    help="Columns that the destination cannot keep exactly; default: fail.",
)
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="The file to write.")
@click.option("--yes", is_flag=True, help="Do not ask on a terminal.")
@click.argument("places", nargs=-1, metavar="SRC DST", shell_complete=complete_paths)
def sync_command(
    console: Console,
    places: tuple[str, ...],
    streams: tuple[str, ...],
    write_disposition: str | None,
    incremental: tuple[str, ...],
    keys: tuple[str, ...],
    destination_table: str | None,
    on_lossy: str | None,
    save: Path | None,
    yes: bool,
) -> int:
    """Sync SRC into DST without a pipeline file: show the plan, write a pipeline file, run it.

    A place is a URL (postgresql://, mysql://, mariadb://), a file, a folder or a quoted glob of files (CSV, JSON lines,
    Parquet), a database file (DuckDB, SQLite), env:NAME for a URL in an environment variable, or connector:path.
    DST x.csv, x.jsonl or x.parquet is one file of one stream.
    A typed password becomes a reference to an environment variable in the file.
    """
    from ..config.current_folder import current_folder
    from ..config.endpoints import joined
    from ..config.sync_command import quick_pipeline
    from ..errors import ConfigError, Mistake
    from ..session.inspection import has_run
    from .run import execute

    if len(places) < 2:
        taken = f"; {incremental[0]!r} is taken for the COLUMN of --incremental" if any(incremental) else ""
        raise click.UsageError(f"needs a SRC and a DST{taken}")
    folder = current_folder()
    quick = quick_pipeline(
        joined(places[:-1], folder),
        places[-1],
        folder=folder,
        save=save,
        streams=streams,
        write_disposition=write_disposition,
        incremental=[column for column in incremental if column],
        keys=keys,
        destination_table=destination_table,
        on_lossy=on_lossy,
    )
    console.hide(quick.pipeline.secret_values)
    if "" in incremental:
        raise click.UsageError(_growing_columns(quick.pipeline, streams))
    try:
        _show_plan(console, quick, has_streams=bool(streams), destination_table=destination_table)
    except ConfigError as error:
        # Else the run is recorded that source or destination refuse now.
        if isinstance(error, Mistake) or not has_run(quick.pipeline):
            raise
    is_asked = not yes and not console.is_json and sys.stdin.isatty() and sys.stdout.isatty()
    if is_asked and not click.confirm("Run it?", default=True):
        console.echo("nothing was run or written")
        return 0
    _save(console, quick)
    # Callbacks and child processes of this run find the passwords in the environment.
    os.environ.update(quick.environment)
    return execute(console, quick.pipeline, inline_callbacks=False)


def _growing_columns(pipeline: Pipeline, streams: Sequence[str]) -> str:
    """Say that `--incremental` needs a column, and which columns of the source probably only grow."""
    from ..api import discover

    fields = [field for stream in discover(pipeline, streams=streams or None) for field in stream.schema]
    times = {each.name for each in fields if "time" in str(each.type) or _TIME.search(each.name)}
    likely = sorted(times, key=lambda name: (_CHANGED.search(name) is None, name))[:3]
    if not likely:
        return (
            f"--incremental needs a COLUMN that only grows; there are {', '.join([each.name for each in fields][:10])}"
        )
    return f"--incremental needs a COLUMN that only grows, probably {' or '.join(likely)}"


def _show_plan(console: Console, quick: Quick, *, has_streams: bool, destination_table: str | None) -> None:
    from ..errors import ConfigError
    from ..plan.refusals import SharedTable
    from ..session.inspection import existing_store, opened
    from ..session.session import make_plan
    from .plan import document, show

    try:
        with opened(quick.pipeline) as session, existing_store(quick.pipeline) as store:
            plan: Plan = make_plan(session, store)
    except SharedTable as error:
        if destination_table:
            raise ConfigError(
                f"{destination_table} is one table, and the source has several streams: name one of them with --stream",
                key="--destination-table",
            ) from error
        if not quick.file:
            raise
        folder = f"{quick.pipeline.destination.connector}:folder"
        raise ConfigError(
            f"{quick.file} is one file, and the source has several streams: name one of them with --stream, or a "
            f"folder for all, such as {folder}",
            key="DST",
        ) from error
    except ConfigError as error:
        if quick.path.exists():
            raise
        # There is no such file yet: what was typed is what has to be mended.
        error.path = error.line = None
        error.key = _typed(error.key or "", has_streams=has_streams)
        raise
    if console.is_json:
        console.emit({"type": "plan", "pipeline": quick.pipeline.pipeline, **document(plan)})
    else:
        show(console, plan, is_alone=False)
        console.echo()


def _typed(key: str, *, has_streams: bool) -> str | None:
    """Return the argument or option that a place in the pipeline file was made from."""
    if key.startswith(("source", "destination")):
        return "SRC" if key.startswith("source") else "DST"
    if key.endswith(".stream") and not has_streams:
        return "SRC"
    return next((option for name, option in _OPTIONS.items() if key.endswith(f".{name}")), None)


def _save(console: Console, quick: Quick) -> None:
    is_new = quick.save()
    if console.is_json:
        variables = sorted(quick.environment)
        console.emit({"type": "saved", "file": str(quick.path), "is_new": is_new, "needs_variables": variables})
        return
    if is_new:
        console.echo(f"wrote {_shown(quick.path)}")
    for name in sorted(quick.environment):
        console.warn(f"the file reads the password from ${name}: set it before `syncblocks run {_shown(quick.path)}`")


def _shown(path: Path) -> str:
    return path.name if path.parent == Path.cwd() else str(path)
