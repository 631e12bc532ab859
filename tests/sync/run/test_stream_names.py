"""`stream_names: bare`: what functions, conditions and templates call a stream whose name has a schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from tests.conftest import RunCLI

TELL = """
from pathlib import Path
@callback
def tell(stream, destination_table, **kwargs):
    with Path(__file__).with_name("told").open("a") as told:
        told.write(f"{stream} {destination_table} {kwargs['block_run'].uuid}\\n")
"""

MARK = """
@transformer
def mark(df, stream):
    return df.assign(stream=stream)
"""


def write(folder: Path, **settings: Any) -> Path:
    with duckdb.connect(folder / "shop.duckdb") as shop:
        shop.sql("CREATE SCHEMA crm; CREATE TABLE crm.users AS SELECT 1 AS id")
        shop.sql("CREATE SCHEMA old; CREATE TABLE old.users AS SELECT 2 AS id")
    (folder / "tell.py").write_text(TELL)
    (folder / "mark.py").write_text(MARK)
    document = {
        "stream_names": "bare",
        "source": {"connector": "duckdb", "config": {"path": "shop.duckdb"}},
        "transformers": [{"file": "mark.py"}],
        "destination": {"connector": "duckdb", "config": {"path": "copy.duckdb"}},
        "streams": [{"stream": "crm.users", "destination_table": "raw_{{ stream }}"}],
        "callbacks": [{"file": "tell.py", "on": ["stream"], "when": "stream == 'users'"}],
    }
    (folder / "names.yaml").write_text(yaml.safe_dump(document | settings))
    return folder


@pytest.mark.full
def test_functions_conditions_and_templates_get_the_bare_name(tmp_path: Path, run_cli: RunCLI) -> None:
    folder = write(tmp_path)
    done = run_cli(["run", "names.yaml", "--stream", "crm.users"], folder)
    assert done.returncode == 0, done.stderr
    with duckdb.connect(folder / "copy.duckdb") as copy:
        assert copy.sql("SELECT * FROM raw_users").fetchall() == [(1, "users")]
    assert (folder / "told").read_text() == "users raw_users export_duckdb:crm.users\n"
    tried = run_cli(["callbacks", "test", "tell.py", "--pipeline", "names.yaml", "--json"], folder)
    assert json.loads(tried.stdout)["calls"][0]["received"]["stream"] == "'users'"


def test_two_streams_of_one_bare_name_are_refused(tmp_path: Path, run_cli: RunCLI) -> None:
    folder = write(tmp_path, streams=[{"stream": "*.users", "destination_table": "all_{{ ds }}"}])
    done = run_cli(["plan", "names.yaml"], folder)
    assert done.returncode == 2
    assert "'crm.users' and 'old.users' are both called 'users'" in done.stderr
