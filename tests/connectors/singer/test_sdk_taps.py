"""Every source of ours as a Singer tap: singer-sdk's own suite, and what of it goes to the pipe and back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from syncblocks.connectors.singer.plugin_config import plugins
from tests.connectors.mysql import mysql_databases
from tests.connectors.singer.singer_sdk_suite import TAP, run_suite
from tests.zygote import Zygote

PEOPLE = "id INTEGER PRIMARY KEY, name TEXT NOT NULL, height DOUBLE PRECISION NOT NULL, seen TIMESTAMP NOT NULL"
ROWS = "(1, 'Ada', 1.7, '2024-01-01 10:00:00'), (2, 'Grace \"x\"', 1.6, '2024-01-02 10:00:00')"

#: Of a stream with these columns the SDK runs at least so many tests.
AT_LEAST = 13


def make(connector: str, folder: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Seed a place with one table of people and return the tap's config."""
    if connector == "postgres":
        import psycopg

        url = request.getfixturevalue("postgres_url")
        with psycopg.connect(url) as connection:
            connection.execute(f"CREATE TABLE people ({PEOPLE})")
            connection.execute(f"INSERT INTO people VALUES {ROWS}")
        return {"url": url}
    if connector in ("mysql", "mariadb"):
        url = request.getfixturevalue("mariadb_url")
        columns = "id bigint primary key, name text not null, height double not null, seen datetime(6) not null"
        mysql_databases.run(url, f"create table people ({columns})", f"insert into people values {ROWS}")
        return {"url": url}
    if connector in ("sqlite", "sqlalchemy"):
        with closing(sqlite3.connect(folder / "people.db")) as database, database:
            database.execute(f"CREATE TABLE people ({PEOPLE})")
            database.execute(f"INSERT INTO people VALUES {ROWS}")
        path = str(folder / "people.db")
        return {"path": path} if connector == "sqlite" else {"url": f"sqlite:///{path}"}
    if connector == "duckdb":
        import duckdb

        with duckdb.connect(str(folder / "people.duckdb")) as database:
            database.execute(f"CREATE TABLE people ({PEOPLE})")
            database.execute(f"INSERT INTO people VALUES {ROWS}")
        return {"path": str(folder / "people.duckdb")}
    if connector == "memory":
        records = [{"id": 1, "name": "Ada", "height": 1.7, "seen": "2024-01-01T10:00:00"}]
        columns = {"id": "int64", "name": "string", "height": "float64", "seen": "timestamp[us]"}
        return {"tables": {"people": {"columns": columns, "records": records, "key": ["id"]}}}
    data = folder / "data"
    data.mkdir()
    if connector == "csv":
        (data / "people.csv").write_text("id,name,height,seen\n1,Ada,1.7,2024-01-01T10:00:00\n")
    elif connector == "jsonl":
        (data / "people.jsonl").write_text('{"id": 1, "name": "Ada", "height": 1.7, "seen": "2024-01-01T10:00:00"}\n')
    elif connector == "json":
        (data / "people.json").write_text('[{"id": 1, "name": "Ada", "height": 1.7, "seen": "2024-01-01T10:00:00"}]')
    elif connector in ("parquet", "arrow"):
        table = pa.table({"id": [1], "name": ["Ada"], "height": [1.7], "seen": [datetime(2024, 1, 1, tzinfo=UTC)]})
        if connector == "parquet":
            pq.write_table(table, data / "people.parquet")
        else:
            with pa.ipc.new_file(str(data / "people.arrow"), table.schema) as writer:
                writer.write_table(table)
    else:
        pytest.fail(f"no data for the source {connector!r}: this suite runs over every source")
    return {"path": str(data)}


@pytest.mark.one_of
@pytest.mark.parametrize("connector", sorted(plugins("source")))
def test_the_sdks_own_suite_passes_over_every_source(
    connector: str, tmp_path: Path, request: pytest.FixtureRequest, zygote: Zygote
) -> None:
    config = make(connector, tmp_path, request)
    passed, output = run_suite(zygote, TAP, connector, config, tmp_path)
    assert passed >= AT_LEAST, output
