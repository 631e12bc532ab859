"""One pipeline in two run stores that do not know of each other."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.faults.conftest import Count
from tests.faults.test_zombie import freeze
from tests.faults.workshop import Workshop
from tests.zygote import Process, Zygote

IS_FULL = os.environ.get("SYNCBLOCKS_FAULTS") == "full"
pytestmark = [pytest.mark.full, pytest.mark.timeout(0 if IS_FULL else 120)]

#: Pairs of starts of each method.
STARTS = 50 if IS_FULL else 2
SEED = 8
TABLES = ("a", "b", "c")
METHODS: dict[str, dict[str, Any]] = {
    "LOG_BASED": {},
    "INCREMENTAL": {"bookmark_properties": ["at"]},
    "FULL_TABLE": {},
}


@pytest.mark.parametrize("method", METHODS)
def test_of_two_run_stores_started_at_once_one_finishes_and_the_tables_equal_the_source(
    zygote: Zygote, tmp_path: Path, log_url: str, postgres_url: str, method: str, injected: Count
) -> None:
    """The second run starts 0 to 300 ms after the first one."""
    chance, wrong = random.Random(f"{method} {SEED}"), []
    folders = [tmp_path / name for name in ("one", "two")]
    document = {
        "pipeline": "shared",
        "source": {"connector": "postgres", "config": {"url": log_url}},
        "destination": {"connector": "postgres", "config": {"url": postgres_url}},
        "streams": [{"stream": "public.*", "replication_method": method, **METHODS[method]}],
    }
    for folder in folders:
        folder.mkdir()
        (folder / "shared.yaml").write_text(json.dumps(document))
    with psycopg.connect(log_url, autocommit=True) as source:
        source.execute("set synchronous_commit = on")  # a run reads what is on the server's disk
        for table in TABLES:
            source.execute(f"create table {table} (id int primary key, at int not null, word text)".encode())
        for number in range(STARTS):
            for table in TABLES:
                change(source, table, number, chance, deletes=method != "INCREMENTAL")
            chance.shuffle(folders)
            processes = [zygote.start(folders[0], ("run", "shared.yaml"))]
            time.sleep(chance.uniform(0, 0.3))
            processes.append(zygote.start(folders[1], ("run", "shared.yaml")))
            codes = [process.wait(100) for process in processes]
            found = [] if 0 in codes else [f"exit codes {codes}"]
            found += [f"{table} differs" for table in TABLES if rows(source, table) != written(postgres_url, table)]
            found += [error for process in processes if process.code == 1 for error in unexplained(process)]
            wrong += [f"start {number}: {each}" for each in found]
    injected(STARTS)
    assert wrong == []


def test_a_recovery_leaves_a_stream_to_the_run_of_another_store_that_has_taken_it_over(
    zygote: Zygote, tmp_path: Path, postgres_url: str, injected: Count
) -> None:
    one, two = (Workshop(zygote, tmp_path / name, destination="postgres", url=postgres_url) for name in ("one", "two"))
    for workshop in (one, two):
        workshop.stream("a", 6)
        workshop.write()
    one.run(failpoint="stream.after_take_over:1:kill")
    running = freeze(two, "stream.after_take_over:1")
    recovery = zygote.start(one.folder, ("recover", "pipeline.yaml"))
    recovery.wait()
    running.signal(signal.SIGCONT)
    assert running.wait() == 0, running.log()
    injected()
    (row,) = one.store_rows("select status from _syncblocks_stream_run")
    assert row["status"] == "failure"
    assert two.rows("a") is not None


def change(source: psycopg.Connection, table: str, number: int, chance: random.Random, *, deletes: bool) -> None:
    """Insert and update records, and perhaps delete some."""
    first = number * 1000
    last = first + (500 if number == 0 else chance.randint(1, 50))
    source.execute(
        f"insert into {table} select n, {first}, 'word ' || n from generate_series({first}, {last}) n".encode()
    )
    source.execute(f"update {table} set at = {first + 1}, word = word || '.' where id % 97 = {number}".encode())
    if deletes:
        source.execute(f"delete from {table} where id % 89 = {number}".encode())


def rows(connection: psycopg.Connection, table: str) -> list[tuple[Any, ...]]:
    """Return a table, in order."""
    return connection.execute(f"select id, at, word from {table} order by id".encode()).fetchall()


def written(url: str, table: str) -> list[tuple[Any, ...]]:
    """Return a table of the destination, in order."""
    with psycopg.connect(url) as connection:
        return rows(connection, table)


def unexplained(process: Process) -> list[str]:
    """Return the errors that do not name the host of the other run."""
    streams = process.result().get("streams", [])
    errors = [str(stream["error"]) for stream in streams if stream["status"] == "failure"]
    return [error for error in errors or [process.log()[-2000:]] if f" on {os.uname().nodename}" not in error]
