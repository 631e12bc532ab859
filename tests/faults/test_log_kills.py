"""LOG_BASED runs that are killed at random moments, and whose connections are cut, beside many writers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from syncblocks.connectors.errors import ConnectorError
from syncblocks.sync.errors import SyncError
from tests.sync.run.log_based import LOG_BASED, Logged, replayed
from tests.sync.run.test_log_writers import TABLES, writing

pytestmark = pytest.mark.full

IS_FULL = os.environ.get("SYNCBLOCKS_FAULTS") == "full"
KILLS, CUTS = (100, 100) if IS_FULL else (8, 8)
#: A run takes about so long.
LONGEST_S = 2.5


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("connector", ["jsonl", "duckdb"])
def test_killed_at_random_the_tables_are_exact(tmp_path: Path, log_url: str, connector: str) -> None:
    chance = random.Random(7)
    logged = prepared(tmp_path, log_url, connector)
    with writing(log_url):
        for _ in range(KILLS):
            child = subprocess.Popen(
                [sys.executable, "-m", "syncblocks", "run", str(logged.file)],
                cwd=tmp_path,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                child.wait(chance.uniform(0.3, LONGEST_S))
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
            child.wait()
    assert_exact(logged)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("connector", ["jsonl", "duckdb"])
def test_with_cut_connections_the_tables_are_exact(tmp_path: Path, log_url: str, connector: str) -> None:
    chance, stop, cuts = random.Random(7), threading.Event(), 0
    logged = prepared(tmp_path, log_url, connector)
    logged.document |= {"retries": 2, "retry_delay_s": 0.1}

    def cut() -> None:
        nonlocal cuts
        with psycopg.connect(log_url, autocommit=True) as connection:
            while not stop.is_set():
                query = (
                    "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() "
                    "and pid <> pg_backend_pid() and application_name = 'syncblocks' and random() < 0.5"
                )
                ((count,),) = connection.execute(query.encode()).fetchall()
                cuts += count
                time.sleep(chance.uniform(0.05, 0.6))

    cutting = threading.Thread(target=cut, daemon=True)
    cutting.start()
    with writing(log_url):
        while cuts < CUTS:
            with suppress(SyncError, ConnectorError):  # the plan's connection was cut: the next run plans again
                logged.run()
    stop.set()
    cutting.join()
    assert_exact(logged)


def prepared(folder: Path, url: str, connector: str) -> Logged:
    logged = Logged(folder, url, connector)
    logged.document["source"]["config"] |= {"checkpoint_records": 200, "checkpoint_s": 0.02}
    if connector == "duckdb":
        logged.document["streams"] = [{"stream": "public.*", "replication_method": LOG_BASED["replication_method"]}]
    logged.sql(TABLES)
    return logged


def assert_exact(logged: Logged) -> None:
    logged.sql("checkpoint")
    logged.succeed()
    logged.succeed()  # a merge's first run only copies
    for table in "ab":
        there = logged.sql(f"select * from {table} order by 1")
        if logged.connector == "duckdb":
            assert logged.merged(table) == there
        else:
            found = replayed(logged.changes(table))
            assert sorted(tuple(record.values()) for record in found.values()) == there
    assert len(logged.slots()) == 1
