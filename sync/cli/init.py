"""`syncblocks init`: write a small example pipeline, or the pipelines of a Meltano or Mage project."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import click

from .console import Console
from .options import common

PIPELINE = """\
# A pipeline of syncblocks. `syncblocks plan` shows what a run would do, `syncblocks run` does it.
# What may stand here: `syncblocks schema` (a JSON Schema for editors).
pipeline: shop

source:
  block: load_shop
  connector: csv                # or postgres, duckdb, sqlite, parquet, jsonl
  config: {{path: data}}          # a folder: each file is a stream. Paths count from this file's folder
  # connector: postgres
  # config: {{url: "{{{{ env_var('SHOP_URL') }}}}"}}   # secrets stay out of this file

destination:
  block: export_warehouse
  connector: {connector}
  config: {{{config}}}

streams:                        # run order; globs such as "*" or "public.*" are allowed
  - stream: customers           # FULL_TABLE: read and replaced as a whole
    key_properties: [id]
  - stream: orders
    replication_method: INCREMENTAL        # reads only what is new ...
    bookmark_properties: [updated_at]      # ... by a column that only grows
    key_properties: [id]                   # known records are updated (write_disposition: merge)
    destination_table: fact_orders

callbacks:                      # functions that are called after each stream
  - block: alerts
    file: callbacks/alerts.py
"""

CALLBACK = '''\
"""Called by syncblocks after each stream. `callback` needs no import. Functions get the arguments that they name."""


@callback("success")
def report(stream, destination_table, block_run):
    print(f"{stream} -> {destination_table}: {block_run.rows} records")


@callback("failure")
def alert(stream, **kwargs):
    print(f"{stream} failed: {kwargs['__error'].message}")


@callback("success")
@callback("failure")
@callback("cancelled")
def finish(is_last_block_run, pipeline_run):
    if is_last_block_run:  # exactly once a run: refresh a view, start dbt, mark the day complete
        print(f"last stream of {pipeline_run}: {pipeline_run.status}")
'''

CUSTOMERS = """\
id,name,city
1,Ada,London
2,Grace,New York
3,Linus,Helsinki
"""

ORDERS = """\
id,customer_id,amount,updated_at
1,1,19.90,2024-01-01T10:00:00
2,2,5.00,2024-01-02T11:30:00
3,1,42.50,2024-01-03T09:15:00
"""

IGNORE = """\
# The run store, and secrets of .syncblocks/secrets.
.syncblocks/
"""


@click.command("init", short_help="Write a small pipeline that runs at once.")
@common
@click.option(
    "--from-meltano",
    "meltano",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Write the pipelines of this meltano.yml instead: one a pair of extractor and loader.",
)
@click.option("--environment", metavar="NAME", help="With --from-meltano: whose overrides to take.")
@click.option(
    "--from-mage",
    "mage",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="PROJECT",
    help="Write the data integration pipelines of this Mage project instead, and copy their Python files.",
)
@click.option("--pipeline", metavar="NAME", help="With --from-mage: only this pipeline.")
@click.option(
    "--mage-data",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="With --from-mage: Mage's folder of data, where its bookmarks are.",
)
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False), metavar="[DIR]")
def init_command(
    console: Console,
    folder: Path | None,
    meltano: Path | None,
    environment: str | None,
    mage: Path | None,
    pipeline: str | None,
    mage_data: Path | None,
) -> int:
    """Write a small pipeline with data and a callback that runs at once. Never overwrites a file."""
    from ..config.current_folder import current_folder

    current_folder()
    if mage is None and (pipeline or mage_data):
        raise click.UsageError("--pipeline and --mage-data need --from-mage")
    if mage is not None and meltano is not None:
        raise click.UsageError("use either --from-mage or --from-meltano")
    if environment is not None and meltano is None:
        raise click.UsageError("--environment goes with --from-meltano")
    if meltano is not None:
        # Paths start at the folder of the Meltano project, and at the folder of a pipeline file.
        folder = folder or meltano.parent
        files, notes = _from_meltano(meltano, environment)
        steps = _steps_after_meltano(folder, list(files))
    elif mage is not None:
        folder = folder or Path()
        files, notes, steps = _from_mage(mage, folder, pipeline, mage_data)
    else:
        folder, notes = folder or Path(), []
        files, steps = _files(), _next_steps(folder)
    if not os.path.lexists(folder / ".gitignore"):
        files[".gitignore"] = IGNORE
    _demand_free(folder, list(files))
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:  # x: never overwrites, even a file created just now
            file.write(text if isinstance(text, bytes) else text.encode())
    if console.is_json:
        console.emit({"type": "init", "folder": str(folder), "files": list(files), "notes": notes, "next": steps})
        return 0
    for note in notes:
        console.warn(note)
    for name in files:
        console.echo(f"wrote {folder / name}")
    console.echo()
    console.echo("Next:")
    for step in steps:
        console.echo(f"  {step}")
    return 0


def _from_meltano(path: Path, environment: str | None) -> tuple[dict[str, str | bytes], list[str]]:
    from ..importers.meltano import read_meltano

    pipelines = read_meltano(path, environment)
    notes = [f"{pipeline.file}: {note}" for pipeline in pipelines for note in pipeline.notes]
    return {pipeline.file: pipeline.text for pipeline in pipelines}, notes


def _from_mage(
    project: Path, folder: Path, pipeline: str | None, data: Path | None
) -> tuple[dict[str, str | bytes], list[str], list[str]]:
    """Return the files to write, the notes, and the next steps."""
    from ..importers.mage import read_mage

    pipelines, left_out = read_mage(project, pipeline, data)
    files: dict[str, str | bytes] = {made.file: made.text for made in pipelines}
    for made in pipelines:
        for copy in made.copies:
            if copy.path != (folder / copy.name).resolve():
                files[copy.name] = copy.path.read_bytes()
    notes = [*left_out, *(f"{made.file}: {note}" for made in pipelines for note in made.notes)]
    steps = [] if folder == Path() else [f"cd {folder}"]
    for made in pipelines:
        adopt = [f"{line}     # if Mage has written the table" for line in made.adoptions]
        steps += [f"syncblocks plan {made.file}     # what a run would do", *adopt, f"syncblocks run {made.file}"]
    return files, notes, steps


def _steps_after_meltano(folder: Path, files: list[str]) -> list[str]:
    name = next((name for name in files if name.endswith(".yaml")), "FILE")
    enter = [] if folder == Path() else [f"cd {folder}"]
    return [
        *enter,
        f"syncblocks plan {name}     # what a run would do; the first one installs tap and target",
        f"syncblocks run {name}",
    ]


def _files() -> dict[str, str | bytes]:
    connector, config = _destination()
    return {
        "pipeline.yaml": PIPELINE.format(connector=connector, config=config),
        "callbacks/alerts.py": CALLBACK,
        "data/customers.csv": CUSTOMERS,
        "data/orders.csv": ORDERS,
    }


def _destination() -> tuple[str, str]:
    """Return the best destination whose driver is installed, so that the example runs."""
    if find_spec("duckdb") is not None:
        return "duckdb", "path: warehouse.duckdb"
    if find_spec("adbc_driver_sqlite") is not None:
        return "sqlite", "path: warehouse.sqlite"
    return "parquet", "path: warehouse"


def _demand_free(folder: Path, names: list[str]) -> None:
    """Refuse to write over a file, and outside of the folder: names and links come from other people's projects."""
    from syncblocks.connectors.errors import ConnectorConfigError
    from syncblocks.connectors.local_files import inside

    from ..errors import ConfigError

    there = [str(folder / name) for name in names if os.path.lexists(folder / name)]
    if there:
        shown = ", ".join(there)
        raise ConfigError(f"{shown} exist already, nothing was written; name another folder: `syncblocks init DIR`")
    for path in (folder / name for name in names):
        if no_folder := next((each for each in path.parents if os.path.lexists(each) and not each.is_dir()), None):
            raise ConfigError(f"{no_folder} is no folder, nothing was written")
        try:
            inside(path, folder)
        except ConnectorConfigError as error:
            raise ConfigError(f"{error}; nothing was written") from error


def _next_steps(folder: Path) -> list[str]:
    enter = [] if folder == Path() else [f"cd {folder}"]
    return [
        *enter,
        "syncblocks plan     # what a run would do; writes nothing",
        "syncblocks run      # sync, then call the callbacks; run it twice: the second run reads only what is new",
        "syncblocks runs show",
    ]
