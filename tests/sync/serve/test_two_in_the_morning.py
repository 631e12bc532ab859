"""Two in the morning: what went wrong in the night is told by a server within a minute, once, and `status` shows it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from syncblocks.sync.store import Store
from tests.callbacks.listener import Listener, http_listener
from tests.conftest import RunCLI
from tests.sync.store.store_helpers import query
from tests.zygote import Zygote

#: Seconds between two looks of the server; 30 in earnest.
LOOK_S = 1.0
HANG = """\
import time


@transformer
def hang(records):
    time.sleep(600)
    return records
"""


def tables(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "left.sqlite")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def write(folder: Path) -> str:
    """Write a folder of pipelines; return the URL of their run store."""
    for name, text in {"fine": "id\n1\n", "down": "id\n1\n", "empty": "id\n", "killed": "id\n1\n"}.items():
        (folder / name).mkdir()
        (folder / name / "rows.csv").write_text(text)
    tables(folder, "create table a (id integer primary key)", "create table b (id integer primary key)")
    (folder / "hang.py").write_text(HANG)
    for name, more in {
        "fine": "expect: {every: 1d, rows: {min: 1}}\n",
        "down": "expect: {rows: {min: 1}}\n",
        "empty": "expect: {rows: {min: 1}}\n",
        "killed": "transformers: [{file: hang.py}]\n",
        "never": "expect: {every: 1d}\n",
        "spoilt": "expect: {every: 1d}\n",
        "left": "",
    }.items():
        source = f"csv, config: {{path: {name}}}" if name != "left" else "sqlite, config: {path: left.sqlite}"
        (folder / f"{name}.yaml").write_text(
            f"source: {{connector: {source}}}\n"
            f"destination: {{connector: sqlite, config: {{path: {name}.db}}}}\n"
            'streams: [{stream: "*"}]\n' + more
        )
    return f"sqlite:///{folder}/.syncblocks/store.db"


def told(listener: Listener) -> Counter[str]:
    """Pipeline, and stream, of each line of all messages."""
    lines = [line for each in listener.requests for line in each.event["message"].splitlines()]
    return Counter(line.partition(": ")[0] for line in lines)


@pytest.mark.full
def test_what_went_wrong_in_the_night_is_told_within_a_minute_and_once(
    zygote: Zygote, run_cli: RunCLI, tmp_path: Path
) -> None:
    url = write(tmp_path)
    for name in ("down", "left"):
        assert run_cli(["run", f"{name}.yaml"], tmp_path).returncode == 0
    with http_listener() as listener:
        server = zygote.start(
            tmp_path,
            ["serve", "--port", "0", "--alert", "ALERTS", "--max-runs", "9"],
            environment={"ALERTS": f"json://127.0.0.1:{listener.port}/t0ken"},
            constants={"syncblocks.sync.serve.outsiders.ALERT_S": LOOK_S},
        )

        def until(is_so: Callable[[], object]) -> None:
            deadline = time.monotonic() + 120
            while not is_so():
                assert time.monotonic() < deadline, (told(listener), server.log())
                time.sleep(0.05)

        def owner_of(pipeline: str) -> int | None:
            active = f"SELECT owner FROM _syncblocks_pipeline_run WHERE is_active = TRUE AND pipeline = '{pipeline}'"
            return next((int(json.loads(owner)["pid"]) for (owner,) in query(url, active)), None)

        until(lambda: query(url, "SELECT count(*) FROM _syncblocks_expectation WHERE pipeline = 'never'") == [(1,)])

        # The night comes.
        (tmp_path / "down" / "rows.csv").unlink()
        (tmp_path / "down").rmdir()
        tables(tmp_path, "drop table b")
        with Store.open(url) as store:
            for name in ("fine", "down", "empty", "killed", "left"):
                store.order_tick(name, "night", trigger="api", causes=(), kind="api")
        query(url, "UPDATE _syncblocks_expectation SET seen_at = '2026-01-02 03:04:05' WHERE pipeline = 'never'")
        (tmp_path / "spoilt.yaml").write_text("source: {\ndestination: x\n")
        until(lambda: owner_of("killed"))
        os.kill(owner_of("killed") or 0, signal.SIGKILL)

        expected = {"down", "empty", "never", "spoilt.yaml", "left, stream b", "killed"}
        until(lambda: told(listener).keys() >= expected)
        # While `recover` has the run of the dead process in hand, nothing is wrong with it.
        until(lambda: owner_of("killed") is None)
        done = run_cli(["status", "--json"], tmp_path)
        assert done.returncode == 1
        shown = {each["pipeline"]: each for each in json.loads(done.stdout)["pipelines"]}
        named = {name for name, each in shown.items() if each["findings"]}
        assert named == {name.partition(",")[0] for name in expected}
        assert shown["fine"]["status"] == "on time"

        more = time.monotonic() + 4 * LOOK_S
        until(lambda: time.monotonic() > more)
        twice = {name for name, number in told(listener).items() if number > 1} - {"killed"}
        assert (told(listener).keys(), twice) == (expected, set())
        # A run whose process is dead is one thing, that it has failed another.
        assert told(listener)["killed"] <= 2
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.log()
        assert "t0ken" not in server.log()
