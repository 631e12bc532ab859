"""Orchestrators in their own test modes, each in an environment of its own: the pages' examples, failures and retries.

What an orchestrator brings is large, and not needed for anything else here: 23 packages (Dagster) to 95 (Airflow).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from syncblocks.connectors.programs.environments import FOLDER_VARIABLE
from tests import services
from tests.docs import ROOT, examples

from ..stage import LIMIT_S, Act, Failed, Stage

#: Sends nothing to anybody, and keeps everything in the case's folder.
QUIET = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    "DAGSTER_DISABLE_TELEMETRY": "yes",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}

#: Two good files and one that fails the first time; a run tells a callback of each stream.
PIPELINE = """\
pipeline: crm
source: {connector: csv, config: {path: "{{ env_var('CRM_URL', 'in') }}"}}
destination: {connector: duckdb, config: {path: crm.duckdb}}
allow_blocks_to_fail: true
streams:
  - {stream: orders, write_disposition: append, checks: {id: {">": 0}}}
  - {stream: users, write_disposition: append}
  - {stream: visits, write_disposition: append, verify: true}
callbacks:
  - file: note.py
"""
#: The same for tasks of their own, which no file of DuckDB can have at once.
STREAMS = PIPELINE.replace("pipeline: crm", "pipeline: streams").replace(
    "{connector: duckdb, config: {path: crm.duckdb}}", "{connector: sqlite, config: {path: streams.db}}"
)
NOTE = """\
@callback("success")
@callback("failure")
def note(stream, pipeline_run, idempotency_key, **kwargs):
    status = "failure" if "__error" in kwargs else "success"
    with open(__file__ + ".log", "a") as log:
        print(stream, status, pipeline_run.id, pipeline_run.attempt, idempotency_key, file=log)
    print("noted", stream, status)
"""
GOOD, BAD = "id,name\n1,a\n2,b\n", "id,name\n1,a\n1,b,c\n"


class Orchestrator(NamedTuple):
    """One orchestrator: the package with its version, and the page whose examples run."""

    pip: str
    extra: str
    page: str


ORCHESTRATORS = (
    Orchestrator("dagster==1.13.29", "dagster", "docs/how-to/dagster.md"),
    Orchestrator("apache-airflow==3.3.2", "airflow", "docs/how-to/airflow.md"),
    Orchestrator("prefect==3.9.1", "prefect", "docs/how-to/prefect.md"),
)


def orchestrator_cases() -> list[tuple[str, Act]]:
    """Return name and act of each case."""
    cases = [(each.pip.replace("==", " "), _examples(each)) for each in ORCHESTRATORS]
    cases += [(f"{each.extra} kills", _kills(each)) for each in ORCHESTRATORS]
    return cases


def _examples(orchestrator: Orchestrator) -> Act:
    def run(stage: Stage) -> str:
        python = _environment(orchestrator)
        _write(stage.folder, orchestrator)
        return _called([python, str(Path(__file__).with_name(f"in_{orchestrator.extra}.py"))], stage.folder)

    return run


def _kills(orchestrator: Orchestrator) -> Act:
    """Return the case that kills real workers; what it prints is a row of the table."""

    def run(stage: Stage) -> str:
        program = str(Path(__file__).with_name(f"kills_in_{orchestrator.extra}.py"))
        with services.fresh_postgres_database() as url:
            env = {"KILLS_DATABASE": url, "KILLS_FOLDER": str(stage.folder)}
            return _called([_environment(orchestrator), program], stage.folder, env)

    return run


def _environment(orchestrator: Orchestrator) -> str:
    """Return the Python of an environment with the orchestrator and this checkout."""
    folder = Path(os.environ[FOLDER_VARIABLE]) / orchestrator.pip
    python = str(folder / "bin" / "python")
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _called([sys.executable, "-m", "venv", str(folder)], ROOT)
        wanted = [orchestrator.pip, "-e", f"{ROOT}[{orchestrator.extra},duckdb,postgres,sqlite]"]
        _called([python, "-m", "pip", "install", "-q", *wanted], ROOT)
        (folder / "ready").touch()
    return python


def _write(folder: Path, orchestrator: Orchestrator) -> None:
    """Write the pipeline, its files, and the page's examples under the names that they have there."""
    (folder / "in").mkdir()
    for name in ("orders", "users", "visits"):
        (folder / "in" / f"{name}.csv").write_text(BAD if name == "visits" else GOOD, encoding="utf-8")
    (folder / "crm.yaml").write_text(PIPELINE, encoding="utf-8")
    (folder / "streams.yaml").write_text(STREAMS, encoding="utf-8")
    (folder / "note.py").write_text(NOTE, encoding="utf-8")
    for example in examples("python", page=orchestrator.page):
        if example.file is not None:
            path = folder / example.file
            path.parent.mkdir(exist_ok=True)
            text = (
                example.text.replace("/srv/crm/", f"{folder}/").replace("=60)", "=0)").replace("minutes=5", "minutes=0")
            )
            if "streams" in path.name:
                text = text.replace("crm.yaml", "streams.yaml")
            path.write_text(text.replace("{{ conn.crm.get_uri() }}", "in"), encoding="utf-8")


def _called(command: Sequence[str], folder: Path, more: Mapping[str, str] | None = None) -> str:
    homes = {"AIRFLOW_HOME": str(folder), "DAGSTER_HOME": str(folder), "PREFECT_HOME": str(folder / "prefect")}
    # The programs import `seen`, and the page's examples.
    homes["PYTHONPATH"] = os.pathsep.join((str(Path(__file__).parent), str(folder), str(folder / "dags")))
    env = (
        {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"} | QUIET | homes | dict(more or {})
    )
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(command[:4])}: {done.stderr[-800:] or done.stdout[-800:]}")
    return (done.stdout.strip().splitlines() or [""])[-1]
