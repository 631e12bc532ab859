"""Columns that the engine adds: a value a run, kept where a record is updated, and no part of any comparison."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow.parquet as pq
import pytest

from syncblocks import load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.session.inspection import opened
from syncblocks.sync.session.session import make_plan
from syncblocks.sync.store import Store
from syncblocks.sync.verify.verification import DIFFERS, EQUAL, verify_streams
from tests.conftest import RunCLI
from tests.golden.systems import mysql_connection

MONDAY, TUESDAY = datetime(2026, 1, 5, 6, tzinfo=UTC), datetime(2026, 1, 6, 6, tzinfo=UTC)
STAMPED = {"_synced_at": "{{ execution_date }}", "_first": {"value": "{{ execution_date }}", "on_update": "keep"}}
NAIVE = {name: {"value": "{{ execution_date }}", "type": "timestamp"} for name in STAMPED}
NAIVE["_first"]["on_update"] = "keep"
MERGED = {"write_disposition": "merge", "key_properties": ["id"]}

Rows = dict[int, tuple[Any, ...]]


class Bench:
    """People in a DuckDB file, copied somewhere."""

    def __init__(self, folder: Path, to: dict[str, Any], rows: Callable[[], Rows]) -> None:
        self.folder, self.to, self.rows = folder, to, rows
        self.execute("create table people (id int primary key, name varchar)")

    def execute(self, *statements: str) -> None:
        with closing(duckdb.connect(self.folder / "source.db")) as database:
            for each in statements:
                database.execute(each)

    def document(self, **stream: Any) -> dict[str, Any]:
        return {
            "pipeline": "people",
            "source": {"connector": "duckdb", "config": {"path": "source.db"}},
            "destination": self.to,
            "streams": [{"stream": "people", **stream}],
        }

    def run(self, at: datetime = MONDAY, **stream: Any) -> None:
        pipeline = load_pipeline(self.document(**stream), folder=self.folder, execution_date=at)
        result = run_pipeline(pipeline)
        assert result.status == "success", result.streams[0].error


def read_duckdb(folder: Path) -> Rows:
    with closing(duckdb.connect(folder / "out.db")) as database:
        database.execute("set timezone = 'UTC'")
        return {row[0]: row[1:] for row in database.execute("select * from people").fetchall()}


@pytest.fixture
def plain(tmp_path: Path) -> Bench:
    to = {"connector": "duckdb", "config": {"path": "out.db"}}
    return Bench(tmp_path, to, lambda: read_duckdb(tmp_path))


def target(folder: Path, system: str, url: str) -> tuple[dict[str, Any], Callable[[], Rows]]:
    """Return a destination, and what reads its table."""
    config: dict[str, Any] = {"url": url} if url else {"path": "out.db"}

    def asked() -> Rows:
        if system == "duckdb":
            return read_duckdb(folder)
        if system == "parquet":
            (file,) = (folder / "out").rglob("*.parquet")
            return {row["id"]: tuple(row.values())[1:] for row in pq.read_table(file).to_pylist()}
        if system == "postgres":
            with psycopg.connect(url) as postgres:
                return {row[0]: row[1:] for row in postgres.execute("select * from people").fetchall()}
        if system == "mysql":
            with mysql_connection(url) as mysql, mysql.cursor() as cursor:
                cursor.execute("select * from people")
                return {row[0]: row[1:] for row in cursor.fetchall()}
        with closing(sqlite3.connect(folder / "out.db")) as database:
            return {row[0]: row[1:] for row in database.execute("select * from people").fetchall()}

    if system == "sqlalchemy":
        config = {"url": f"sqlite:///{folder}/out.db"}
    if system == "parquet":
        config = {"path": "out"}
    return {"connector": system, "config": config}, asked


@pytest.fixture(params=["duckdb", "postgres", "mysql", "sqlite", "sqlalchemy", "parquet"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    urls = {"postgres": "postgres_url", "mysql": "mariadb_url"}
    url = request.getfixturevalue(urls[request.param]) if request.param in urls else ""
    return Bench(tmp_path, *target(tmp_path, request.param, url))


@pytest.mark.one_of("bench")
def test_a_kept_column_stays_when_its_record_is_updated(bench: Bench) -> None:
    bench.execute("insert into people values (1, 'Ann'), (2, 'Bob')")
    added = NAIVE if bench.to["connector"] == "sqlalchemy" else STAMPED
    bench.run(MONDAY, **MERGED, add_columns=added)
    bench.execute("update people set name = 'Robert' where id = 2", "insert into people values (3, 'Cid')")
    bench.run(TUESDAY, **MERGED, add_columns=added)
    found = {key: (name, "06" in str(first)[8:10]) for key, (name, _, first) in bench.rows().items()}
    assert found == {1: ("Ann", False), 2: ("Robert", False), 3: ("Cid", True)}
    assert all("06" in str(synced)[8:10] for _, synced, _ in bench.rows().values())


def test_values_have_types(plain: Bench) -> None:
    plain.execute("insert into people values (1, 'Ann')")
    added = {
        "_source": "crm",
        "_number": 7,
        "_share": {"value": "0.10", "type": "decimal(5,2)"},
        "_day": {"value": "2026-01-31", "type": "date"},
        "_shown": "at {{ execution_date }}",
        "_at": "{{ execution_date }}",
        "_live": True,
        "_none": {"value": None, "type": "decimal(5,2)"},
    }
    plain.run(add_columns=added)
    (row,) = plain.rows().values()
    assert row[1:4] == ("crm", 7, Decimal("0.10"))
    assert (str(row[4]), str(row[5])[:13], row[6], row[7]) == ("2026-01-31", "at 2026-01-05", MONDAY, True)
    assert row[8] is None


def test_magic_columns_of_mage(plain: Bench) -> None:
    plain.execute("insert into people values (1, 'Ann')")
    plain.run(**MERGED)
    plain.execute("insert into people values (2, 'Bob')")
    plain.run(MONDAY, **MERGED, mage_columns=True)
    plain.run(TUESDAY, **MERGED, mage_columns=True)
    assert plain.rows() == {1: ("Ann", None, TUESDAY), 2: ("Bob", MONDAY, TUESDAY)}, "of older ones nobody knows"


@pytest.mark.full
def test_verify_and_incremental_reads_know_nothing_of_them(plain: Bench, run_cli: RunCLI) -> None:
    plain.execute("insert into people values (1, 'Ann'), (2, 'Bob')")
    stream = {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"], "add_columns": STAMPED}
    plain.run(MONDAY, **stream)
    plain.run(TUESDAY, **stream)
    assert [row[1] for row in plain.rows().values()] == [MONDAY, MONDAY], "nothing was read again"
    pipeline = load_pipeline(plain.document(**stream), folder=plain.folder)
    with opened(pipeline) as session, Store.open(pipeline.store_url) as store:
        (found,) = verify_streams(session, make_plan(session, store))
        assert (found.verdict, found.notes) == (EQUAL, ())
        plan = make_plan(session, store).streams[0]
        assert (plan.schema.source_changes, plan.texts.changes) == ((), ())
    with closing(duckdb.connect(plain.folder / "out.db")) as database:
        database.execute("update people set name = 'Zoe' where id = 2")
    with opened(pipeline) as session, Store.open(pipeline.store_url) as store:
        (found,) = verify_streams(session, make_plan(session, store))
        assert found.verdict == DIFFERS
    (plain.folder / "p.yaml").write_text(json.dumps(plain.document(**stream)))
    repaired = run_cli(["verify", "p.yaml", "--repair"], plain.folder)
    assert repaired.returncode == 0, repaired.stderr
    assert plain.rows()[2][0] == "Bob"
    assert "adds _synced_at (timestamptz)" in run_cli(["plan", "p.yaml"], plain.folder).stdout
    assert "_synced_at" in run_cli(["preview", "p.yaml", "--stream", "people"], plain.folder).stdout


def test_they_come_after_the_transformers(plain: Bench) -> None:
    plain.execute("insert into people values (1, 'Ann')")
    (plain.folder / "t.py").write_text("@transformer\ndef f(df):\n    df['more'] = df['id'] * 2\n    return df\n")
    document = plain.document(add_columns={"_source": "crm"}) | {"transformers": [{"file": "t.py"}]}
    assert run_pipeline(load_pipeline(document, folder=plain.folder)).status == "success"
    assert plain.rows() == {1: ("Ann", 2, "crm")}
    taken = plain.document(add_columns={"more": "crm"}) | {"transformers": [{"file": "t.py"}]}
    result = run_pipeline(load_pipeline(taken, folder=plain.folder))
    assert "'more' of add_columns is one of the stream's own" in str(result.streams[0].error)


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ({"Name": "x"}, "the stream has a column 'Name'"),
        ({"_x": {"value": "soon", "type": "date"}}, "the value of column '_x' is no date: write it like"),
        ({"_x": {"value": 1, "type": "integr"}}, "there is no such type"),
        ({"_x": {"value": 1, "on_updat": "keep"}}, "did you mean 'on_update'"),
        ({"_x": {"type": "date"}}, "needs a value"),
        ({"_x": {"value": None}}, "NULL needs a type"),
        ({"_x": 1, "_X": 2}, "two columns are called"),
    ],
)
def test_what_cannot_be_added_is_refused(plain: Bench, added: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plain.run(add_columns=added)
