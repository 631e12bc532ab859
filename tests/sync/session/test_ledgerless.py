"""Destinations without a ledger: the run store's bookmark is the state, and it never runs ahead of the destination."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RunCLI
from tests.connectors.singer.singer_targets import make_target

PIPELINE = """\
pipeline: to_target
source:
  connector: memory
  config:
    checkpoint_records: 2
    batch_size: 2
    tables:
      people:
        columns: {{id: int64, version: int64}}
        key: [id]
        records: {records}
destination:
  connector: singer
  config:
    executable: {program}
    config: {{out: out.jsonl, manner: "{manner}", after: {after}, password: x}}
streams:
  - stream: people
    replication_method: INCREMENTAL
    bookmark_properties: [version]
    write_disposition: append
"""


def write(folder: Path, rows: int, manner: str = "", after: int = 0) -> None:
    records = json.dumps([{"id": number, "version": number} for number in range(1, rows + 1)])
    text = PIPELINE.format(records=records, program=make_target(folder), manner=manner, after=after)
    (folder / "p.yaml").write_text(text)


def ids(folder: Path) -> list[int]:
    messages = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines() if line.endswith("}")]
    return [message["record"]["id"] for message in messages if message["type"] == "RECORD"]


def state(folder: Path) -> Any:
    with closing(sqlite3.connect(folder / ".syncblocks" / "store.db")) as database, database:
        row = database.execute("SELECT bookmark FROM _syncblocks_state WHERE stream = 'people'").fetchone()
    return None if row is None else json.loads(row[0])


def test_the_next_run_goes_on_from_the_echoed_bookmark(tmp_path: Path, run_cli: RunCLI) -> None:
    write(tmp_path, 3)
    done = run_cli(["run", "--json"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert state(tmp_path)["version"] == 3
    write(tmp_path, 5)
    assert run_cli(["run"], tmp_path).returncode == 0
    assert ids(tmp_path) == [1, 2, 3, 4, 5], "records at the boundary are not sent again: their hashes are kept too"


def test_the_plan_says_at_least_once_and_writes_nothing(tmp_path: Path, run_cli: RunCLI) -> None:
    write(tmp_path, 3)
    done = run_cli(["plan"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "at least once" in done.stdout + done.stderr
    assert not (tmp_path / "out.jsonl").exists()
    assert not (tmp_path / ".syncblocks" / "store.db").exists()


def test_what_the_target_did_not_echo_is_sent_again(tmp_path: Path, run_cli: RunCLI) -> None:
    write(tmp_path, 3, "silent")
    for _ in range(2):
        done = run_cli(["run"], tmp_path)
        assert done.returncode == 0, done.stderr
        assert "without an error, but did not echo" in done.stderr
    assert ids(tmp_path) == [1, 2, 3, 1, 2, 3]
    assert state(tmp_path) is None


def test_a_failed_target_leaves_the_state_at_its_last_echo(tmp_path: Path, run_cli: RunCLI) -> None:
    write(tmp_path, 7, "fails", after=6)
    done = run_cli(["run"], tmp_path)
    assert done.returncode == 1
    assert "status 3" in done.stdout + done.stderr
    kept = state(tmp_path)
    assert kept is None or kept["version"] <= 6
    write(tmp_path, 7)
    assert run_cli(["run"], tmp_path).returncode == 0
    assert sorted(set(ids(tmp_path))) == list(range(1, 8)), "at least once"
    assert state(tmp_path)["version"] == 7


@pytest.mark.full
def test_state_can_be_set_and_reset_by_hand(tmp_path: Path, run_cli: RunCLI) -> None:
    write(tmp_path, 4)
    assert run_cli(["run"], tmp_path).returncode == 0
    done = run_cli(["state", "set", "people", "version=3"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert run_cli(["run"], tmp_path).returncode == 0
    assert ids(tmp_path) == [1, 2, 3, 4, 3, 4]
    assert run_cli(["state", "reset", "people"], tmp_path).returncode == 0
    assert run_cli(["run"], tmp_path).returncode == 0
    assert ids(tmp_path)[6:] == [1, 2, 3, 4]
    shown = run_cli(["state", "show", "--json"], tmp_path)
    assert json.loads(shown.stdout)["streams"][0]["bookmark"] == {"version": 4}


def test_a_full_refresh_starts_over(tmp_path: Path, run_cli: RunCLI) -> None:
    write(tmp_path, 2)
    assert run_cli(["run"], tmp_path).returncode == 0
    assert run_cli(["run", "--full-refresh"], tmp_path).returncode == 0
    assert ids(tmp_path) == [1, 2, 1, 2]


@pytest.mark.full
def test_after_a_kill_the_next_run_repeats_and_loses_nothing(tmp_path: Path, run_cli: RunCLI) -> None:
    write(tmp_path, 9, "hangs", after=5)
    command = [str(Path(sys.executable).with_name("syncblocks")), "run"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (tmp_path / "out.jsonl").exists() or len(ids(tmp_path)) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    write(tmp_path, 9)
    done = run_cli(["run"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "left by a dead process" in done.stderr
    assert sorted(set(ids(tmp_path))) == list(range(1, 10))
    assert state(tmp_path)["version"] == 9
    runs = json.loads(run_cli(["runs", "list", "--json"], tmp_path).stdout)
    assert [run["status"] for run in runs["runs"]] == ["success", "failure"]
