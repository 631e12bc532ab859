"""`verify` of streams whose rejected records are set aside where they are read."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import RunCLI


def changed(file: Path, statements: str) -> list[Any]:
    with closing(sqlite3.connect(file)) as connection, connection:
        for statement in statements.split(";"):
            found = connection.execute(statement).fetchall()
        return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    changed(
        tmp_path / "from.db",
        "create table t (id integer primary key, n int); insert into t values (1, 1), (2, 'no number'), (3, 3)",
    )
    document = {
        "pipeline": "p",
        "source": {"connector": "sqlite", "config": {"path": "from.db"}},
        "destination": {"connector": "sqlite", "config": {"path": "to.db"}},
        "streams": [{"stream": "t", "on_rejected": "keep", "write_disposition": "merge"}],
    }
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    return tmp_path


def test_what_is_set_aside_is_said_not_to_be_compared(folder: Path, run_cli: RunCLI) -> None:
    assert run_cli(["run"], folder).returncode == 0
    outcome = run_cli(["verify", "--json"], folder)
    (found,) = json.loads(outcome.stdout)["streams"]
    assert (outcome.returncode, found["verdict"], found["source_records"]) == (0, "equal", 2)
    assert found["notes"] == ["1 rejected record(s) of the source: not compared"]


def test_a_repair_sets_aside_what_a_run_does(folder: Path, run_cli: RunCLI) -> None:
    assert run_cli(["run"], folder).returncode == 0
    changed(folder / "to.db", "delete from t where id = 1")
    outcome = run_cli(["verify", "--repair", "--json"], folder)
    assert outcome.returncode == 0, outcome.stderr
    assert changed(folder / "to.db", "select id, n from t order by id") == [(1, 1), (3, 3)]
    run = json.loads(outcome.stdout)["repair"]
    assert [(each["status"], each["records_rejected"]) for each in run["streams"]] == [("success", 1)]
