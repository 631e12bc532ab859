"""`types` of a stream: each source's columns in the types that the pipeline says, exact or refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from syncblocks import RunResult, preview, run_pipeline
from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.sync.errors import ConfigError
from tests.conftest import RunCLI
from tests.services import connect_mariadb

TYPES = {"total": "decimal(18,2)", "zip": "string"}


class Bench:
    """A stream `t` into DuckDB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stream: dict[str, Any] = {"stream": "t", "types": TYPES}

    def file(self, source: dict[str, Any]) -> Path:
        document = {
            "pipeline": "said",
            "source": source,
            "destination": {"connector": "duckdb", "config": {"path": "out.duckdb"}},
            "streams": [self.stream],
        }
        file = self.folder / "said.yaml"
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        return file

    def run(self, source: dict[str, Any]) -> RunResult:
        return run_pipeline(self.file(source))

    def table(self) -> tuple[list[tuple[str, str]], list[Any]]:
        with duckdb.connect(str(self.folder / "out.duckdb"), read_only=True) as connection:
            columns = connection.execute("select column_name, data_type from duckdb_columns() where table_name = 't'")
            return columns.fetchall(), connection.execute("select * from t order by id").fetchall()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def expect(bench: Bench, source: dict[str, Any], zips: tuple[str, str]) -> None:
    for _ in range(2):  # the table that is there is written in the same types
        result = bench.run(source)
        assert (result.status, result.streams[0].error, result.streams[0].is_unequal) == ("success", None, False)
        columns, records = bench.table()
        assert dict(columns)["total"] == "DECIMAL(18,2)"
        assert dict(columns)["zip"] == "VARCHAR"
        assert [record[1:] for record in records] == [(Decimal("10.10"), zips[0]), (None, zips[1])]


def test_files_are_read_in_the_types_of_the_stream_before_those_of_config(bench: Bench) -> None:
    (bench.folder / "t.csv").write_text("id,total,zip\n1,10.1,00707\n2,,1\n")
    config: dict[str, Any] = {"path": "t.csv", "types": {"zip": "int64"}}
    expect(bench, {"connector": "csv", "config": config}, ("00707", "1"))


def test_json_lines_and_parquet_too(bench: Bench) -> None:
    (bench.folder / "t.jsonl").write_text(
        '{"id": 1, "total": 10.1, "zip": 707}\n{"id": 2, "total": null, "zip": 1.50}\n'
    )
    expect(bench, {"connector": "jsonl", "config": {"path": "t.jsonl"}}, ("707", "1.50"))
    (bench.folder / "out.duckdb").unlink()
    pq.write_table(pa.table({"id": [1, 2], "total": [10.1, None], "zip": [707, 1]}), bench.folder / "t.parquet")
    bench.stream["write_disposition"] = "replace"
    expect(bench, {"connector": "parquet", "config": {"path": "t.parquet"}}, ("707", "1"))


@pytest.mark.full
def test_databases_too(bench: Bench, postgres_url: str, mariadb_url: str) -> None:
    make = "create table t (id int primary key, total double precision, zip int)"
    fill = "insert into t values (1, 10.1, 707), (2, null, 1)"
    with psycopg.connect(postgres_url) as connection:
        connection.execute(f"{make}; {fill}".encode())
    with connect_mariadb(mariadb_url) as connection:
        connection.cursor().execute(make)
        connection.cursor().execute(fill)
        connection.commit()
    with closing(sqlite3.connect(bench.folder / "in.db")) as lite, lite:
        lite.execute(make)
        lite.execute(fill)
    with duckdb.connect(str(bench.folder / "in.duckdb")) as duck:
        duck.execute(f"{make}; {fill}")
    sources = [
        {"connector": "postgres", "config": {"url": postgres_url}},
        {"connector": "mysql", "config": {"url": mariadb_url}},
        {"connector": "sqlite", "config": {"path": "in.db"}},
        {"connector": "duckdb", "config": {"path": "in.duckdb"}},
    ]
    for source in sources:
        bench.stream |= {"stream": "*t", "verify": True}
        (bench.folder / "out.duckdb").unlink(missing_ok=True)
        expect(bench, source, ("707", "1"))


def test_a_value_that_is_none_of_the_type_fails_or_is_rejected(bench: Bench) -> None:
    with closing(sqlite3.connect(bench.folder / "in.db")) as lite, lite:
        lite.execute("create table t (id integer primary key, total text, zip text)")
        lite.execute("insert into t values (1, '10.10', 'x'), (2, '10.105', 'y')")
    source = {"connector": "sqlite", "config": {"path": "in.db"}}
    result = bench.run(source)
    assert result.status == "failure"
    assert "'total': '10.105' is not a decimal(18,2), the type that `types` declares" in str(result.streams[0].error)
    bench.stream |= {"on_rejected": "keep", "max_rejected": 5}
    assert bench.run(source).status == "success"
    assert [record[1] for record in bench.table()[1]] == [Decimal("10.10")]


def test_integers_are_decimals_of_any_number_of_digits(bench: Bench) -> None:
    pq.write_table(pa.table({"id": [1, 2], "total": [-7, None], "zip": [707, 1]}), bench.folder / "t.parquet")
    bench.stream["types"] = {"total": "decimal(3,2)", "zip": "string"}
    assert bench.run({"connector": "parquet", "config": {"path": "t.parquet"}}).status == "success"
    assert [record[1] for record in bench.table()[1]] == [Decimal("-7.00"), None]
    bench.stream["types"] = {"total": "decimal(2,2)"}
    result = bench.run({"connector": "parquet", "config": {"path": "t.parquet"}})
    assert "'total': -7 is not a decimal(2,2), the type that `types` declares" in str(result.streams[0].error)


def test_preview_shows_the_types_too(bench: Bench) -> None:
    with closing(sqlite3.connect(bench.folder / "in.db")) as lite, lite:
        lite.execute("create table t (id integer primary key, total text, zip integer, raw text)")
        lite.execute("insert into t values (1, '10.10', 707, 'YQ=='), (2, '10.105', 1, null), (3, '2', null, null)")
    bench.stream |= {"decode": {"raw": "base64"}, "on_rejected": "keep"}
    file = bench.file({"connector": "sqlite", "config": {"path": "in.db"}})
    found = preview(file, "t")
    assert found.columns == {"id": "int64", "total": "decimal128(18, 2)", "zip": "string", "raw": "binary"}
    assert found.records == (
        {"id": 1, "total": "10.10", "zip": "707", "raw": "61"},
        {"id": 3, "total": "2.00", "zip": None, "raw": None},
    )
    assert [record["id"] for record in preview(file, "t", limit=2).records] == [1, 3]
    del bench.stream["on_rejected"]
    with pytest.raises(FatalConnectorError, match=r"'10\.105' is not a decimal"):
        preview(bench.file({"connector": "sqlite", "config": {"path": "in.db"}}), "t")
    assert preview(file, "t", limit=1).records[0]["total"] == "10.10"


def test_mistakes_name_the_nearest_column_and_the_types(bench: Bench, run_cli: RunCLI) -> None:
    (bench.folder / "t.csv").write_text("id,total,zip\n1,10.1,00707\n")
    source = {"connector": "csv", "config": {"path": "t.csv"}}
    bench.stream["types"] = {"totl": "string"}
    with pytest.raises(ConfigError, match="'totl' matches no column") as raised:
        bench.run(source)
    assert raised.value.nearest == "total"
    bench.stream["types"] = {"total": "strin"}
    with pytest.raises(ConfigError, match="column 'total': no type 'strin'") as raised:
        bench.run(source)
    assert raised.value.nearest == "string"
    assert "decimal(p,s)" in raised.value.allowed
    with closing(sqlite3.connect(bench.folder / "in.db")) as lite, lite:
        lite.execute("create table t (id integer primary key, at date)")
    bench.stream["types"] = {"at": "int64"}
    done = run_cli(["plan", bench.file({"connector": "sqlite", "config": {"path": "in.db"}})], bench.folder)
    assert done.returncode == 2
    assert "column 'at' is date, which cannot be read as int64" in done.stderr.replace("\n", " ")
