"""Each sample configuration says what it shows, and runs to the end; read back with plain drivers."""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.callbacks.listener import http_listener

SAMPLES = Path(__file__).parent.parent / "sample_configs"
RunCli = Callable[..., "CompletedProcess[str]"]


def _results(folder: str, names: list[str]) -> list[str]:
    """Return what runs of the samples have left in a folder of them."""
    return [name for name in names if name == ".syncblocks" or (Path(folder).name == "out" and name != ".gitignore")]


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """A copy of the samples, so that nothing is written into the repository."""
    return Path(shutil.copytree(SAMPLES, tmp_path / "samples", ignore=_results))


def duckdb_rows(path: Path, query: str) -> list[Any]:
    import duckdb

    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_sample_opens_with_a_comment_that_says_what_it_shows(sample: Path) -> None:
    assert sample.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.full
def test_quickstart(samples: Path, run_cli: RunCli) -> None:
    done = run_cli(["run", "quickstart.yaml"], cwd=samples, is_warm=False)
    assert done.returncode == 0, done.stdout + done.stderr
    output = done.stdout + done.stderr
    assert "customers -> dim_customers: 200 rows" in output
    database = samples / "out" / "shop.duckdb"
    assert duckdb_rows(database, "select count(*) from orders") == [(1000,)]
    revenue = duckdb_rows(database, "select sum(revenue) from revenue_by_country")
    assert revenue == duckdb_rows(database, "select sum(amount) from payments")


@pytest.mark.full
def test_scheduled(samples: Path, run_cli: RunCli) -> None:
    times = run_cli(["schedule", "next", "--json", "scheduled.yaml"], cwd=samples)
    assert len(json.loads(times.stdout)["times"]) == 5
    done = run_cli(["run", "scheduled.yaml"], cwd=samples, is_warm=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert duckdb_rows(samples / "out" / "shop_scheduled.duckdb", "select count(*) from orders") == [(1000,)]
    status = json.loads(run_cli(["status", "--json"], cwd=samples).stdout)
    (shown,) = [each for each in status["pipelines"] if each["pipeline"] == "shop_scheduled"]
    assert (shown["status"], shown["findings"], shown["owner"]) == ("on time", [], "data-team")


@pytest.mark.full
def test_transform(samples: Path, run_cli: RunCli) -> None:
    done = run_cli(["run", "transform.yaml"], cwd=samples, is_warm=False)
    assert done.returncode == 0, done.stdout + done.stderr
    database = samples / "out" / "shop_transformed.duckdb"
    columns = [row[0] for row in duckdb_rows(database, "describe customers")]
    assert "customer_id" in columns
    assert "note" not in columns
    assert duckdb_rows(database, "select distinct region from customers") == [("eu",)]
    cents = duckdb_rows(database, "select total_cents from orders where id = 1")
    assert cents == [(30315,)]


@pytest.mark.full
def test_callbacks_tour(samples: Path, run_cli: RunCli) -> None:
    done = run_cli(["run", "callbacks_tour.yaml"], cwd=samples, is_warm=False)
    assert done.returncode == 1, done.stdout + done.stderr
    output = done.stdout + done.stderr
    assert "customers: fine" in output
    assert "orders: not fine" in output
    assert "ValueError in check" in output
    assert "load_shop handed on 200 records of customers" in output
    assert "ended as failure" in output


@pytest.mark.full
def test_hooks(samples: Path, run_cli: RunCli) -> None:
    pytest.importorskip("apprise")
    with http_listener() as messages, http_listener() as catalog:
        env = {
            "NOTIFY_URL": f"json://127.0.0.1:{messages.port}/tell",
            "HOOK_URL": catalog.url(),
            "HOOK_SECRET": "signed-with-this",
        }
        done = run_cli(["run", "hooks.yaml"], cwd=samples, env=env, is_warm=False)
        assert done.returncode == 0, done.stdout + done.stderr
        tried = run_cli(
            ["callbacks", "test", "hooks.yaml", "--block", "tell", "--status", "success", "--stream", "orders"],
            samples,
            env,
        )
        assert tried.returncode == 0, tried.stdout + tried.stderr
    told = [request.event["message"] for request in messages.requests]
    assert sorted(told[:3]) == [
        "customers: success, 200 rows",
        "orders: success, 1,000 rows",
        "payments: success, 809 rows",
    ]
    assert told[3:] == ["orders: success, 3 rows"]
    (request,) = catalog.requests
    assert (request.event["stream"], request.event["status"]) == ("orders", "success")
    signed = request.headers["X-Syncblocks-Timestamp"].encode() + b"." + request.body
    expected = hmac.new(b"signed-with-this", signed, hashlib.sha256).hexdigest()
    assert request.headers["X-Syncblocks-Signature"] == f"sha256={expected}"
    lines = (samples / "out" / "events.jsonl").read_text().splitlines()
    assert {json.loads(line)["stream"] for line in lines} == {"customers", "orders", "payments"}
    assert (samples / "out" / "finished.txt").read_text() == "hooks success\n"
    assert duckdb_rows(samples / "out" / "hooks.duckdb", "select count(*) > 0 from revenue") == [(True,)]


@pytest.mark.full
def test_sqlite_to_parquet(samples: Path, run_cli: RunCli) -> None:
    import pyarrow.parquet as pq

    connection = sqlite3.connect(samples / "app.db")
    connection.execute("create table users (id integer primary key, name text)")
    connection.executemany("insert into users values (?, ?)", [(n, f"user {n}") for n in range(10)])
    connection.commit()
    connection.close()
    done = run_cli(["run", "sqlite_to_parquet.yaml"], cwd=samples, is_warm=False)
    assert done.returncode == 0, done.stdout + done.stderr
    files = (samples / "out" / "parquet").rglob("*.parquet")
    assert sorted(row["id"] for path in files for row in pq.ParquetFile(path).read().to_pylist()) == list(range(10))


SEED = """
create table users (id bigint primary key, name text, password_hash text, updated_at timestamptz not null);
insert into users select g, 'user ' || g, 'x', timestamptz '2026-01-01' + g * interval '1 min'
  from generate_series(1, 500) g;
create table events (id bigint primary key, kind text);
insert into events select g, 'k' from generate_series(1, 300) g;
create table audit_log (id int);
"""


@pytest.mark.full
@pytest.mark.postgres
def test_postgres_to_duckdb(samples: Path, run_cli: RunCli, postgres_url: str) -> None:
    import psycopg

    with psycopg.connect(postgres_url) as connection:
        connection.execute(SEED)
    done = run_cli(["run", "postgres_to_duckdb.yaml"], cwd=samples, env={"CRM_URL": postgres_url}, is_warm=False)
    assert done.returncode == 0, done.stdout + done.stderr
    database = samples / "out" / "crm.duckdb"
    tables = {row[0] for row in duckdb_rows(database, "show tables")}
    assert {"dim_users", "events"} <= tables
    assert "audit_log" not in tables
    columns = [row[0] for row in duckdb_rows(database, "describe dim_users")]
    assert columns == ["id", "name", "updated_at"]


@pytest.mark.postgres
@pytest.mark.full
def test_postgres_incremental_merge(samples: Path, run_cli: RunCli, postgres_url: str) -> None:
    import psycopg

    urls = {"CRM_URL": postgres_url, "WAREHOUSE_URL": postgres_url}
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(SEED)
        first = run_cli(["run", "postgres_incremental_merge.yaml"], cwd=samples, env=urls, is_warm=False)
        assert first.returncode == 0, first.stdout + first.stderr
        connection.execute("update users set name = 'new', updated_at = now() where id = 7")
        connection.execute("insert into events values (301, 'late')")
        second = run_cli(["run", "postgres_incremental_merge.yaml", "--json"], cwd=samples, env=urls, is_warm=False)
        assert second.returncode == 0, second.stdout + second.stderr
        assert connection.execute("select name from crm.users where id = 7").fetchall() == [("new",)]
        assert connection.execute("select count(*), count(distinct id) from crm.users").fetchall() == [(500, 500)]
        assert connection.execute("select count(*) from crm.events").fetchall() == [(301,)]


@pytest.mark.postgres
@pytest.mark.full
def test_postgres_log_based(samples: Path, run_cli: RunCli, log_url: str) -> None:
    import psycopg

    def run() -> None:
        done = run_cli(["run", "postgres_log_based.yaml"], cwd=samples, env={"CRM_URL": log_url}, is_warm=False)
        assert done.returncode == 0, done.stdout + done.stderr

    with psycopg.connect(log_url, autocommit=True) as connection:
        connection.execute(SEED)
        connection.execute("set synchronous_commit = on")
        run()
        connection.execute("delete from users where id > 10; update users set name = 'new' where id = 7")
        connection.execute("insert into events values (301, 'late')")
        run()
    database = samples / "out" / "crm_changes.duckdb"
    assert duckdb_rows(database, "select count(*), max(name) filter (id = 7) from users") == [(10, "new")]
    assert duckdb_rows(database, "select id, _op from events_log order by _position desc limit 1") == [(301, "insert")]
