"""`numeric` without a precision: its type is decided by a look at its first load, kept, widened, and never rounded."""

from __future__ import annotations

import json
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow.parquet as pq
import pytest
import yaml

from syncblocks import RunResult, run_pipeline
from tests.conftest import RunCLI
from tests.services import connect_mariadb


class Bench:
    """A table `s.t` of numbers in PostgreSQL."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.stream: dict[str, Any] = {"stream": "s.t"}
        self.destination: dict[str, Any] = {"connector": "duckdb", "config": {"path": "out.duckdb"}}
        self.sql("create schema s; create table s.t (id int primary key, n numeric, m numeric)")

    def sql(self, statements: str) -> None:
        with psycopg.connect(self.url) as connection:
            connection.execute(statements.encode())

    def file(self) -> Path:
        document = {
            "pipeline": "bare",
            "source": {"connector": "postgres", "config": {"url": self.url}},
            "destination": self.destination,
            "streams": [self.stream],
        }
        file = self.folder / "bare.yaml"
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        return file

    def run(self, **options: Any) -> RunResult:
        return run_pipeline(self.file(), **options)

    def succeeds(self, **options: Any) -> None:
        result = self.run(**options)
        assert result.streams[0].error is None, result.streams[0].error
        assert result.status == "success"
        assert not result.streams[0].is_unequal

    def types(self) -> dict[str, str]:
        with duckdb.connect(str(self.folder / "out.duckdb"), read_only=True) as connection:
            sql = "select column_name, data_type from duckdb_columns() where table_name = 't'"
            return dict(connection.execute(sql).fetchall())

    def records(self) -> list[Any]:
        with duckdb.connect(str(self.folder / "out.duckdb"), read_only=True) as connection:
            return connection.execute("select n, m from t order by id").fetchall()


@pytest.fixture
def bench(tmp_path: Path, postgres_url: str) -> Bench:
    return Bench(tmp_path, postgres_url)


EXACT = Context(prec=80)

#: First values of a column -> its type.
DECIDED = {
    ("1.50", "-123456.7"): "DECIMAL(18,2)",
    ("0.000001", None): "DECIMAL(18,6)",
    ("1234567890123.45", None): "DECIMAL(18,2)",
    ("12345678901234.45", None): "DECIMAL(38,2)",
    ("0.50000000000000000000", None): "DECIMAL(18,1)",  # an average: the zeros at its end do not count
    ("1" * 20 + "." + "1" * 18, None): "DECIMAL(38,18)",
    ("0." + "1" * 38, None): "DECIMAL(38,38)",
    ("1" * 20 + "." + "1" * 19, None): "VARCHAR",
    ("1", "NaN"): "VARCHAR",
    ("1", "-Infinity"): "VARCHAR",
    (None, None): "DECIMAL(18,0)",
}


@pytest.mark.full
def test_the_first_load_decides_the_type(bench: Bench) -> None:
    columns = [f"c{place}" for place in range(len(DECIDED))]
    bench.sql(f"drop table s.t; create table s.t (id int primary key, {' numeric, '.join(columns)} numeric)")
    bench.succeeds()
    assert set(bench.types().values()) == {"INTEGER", "DECIMAL(18,0)"}, "there is no number yet"
    for place in range(2):
        values = [values[place] for values in DECIDED]
        shown = ", ".join("null" if value is None else f"'{value}'" for value in values)
        bench.sql(f"insert into s.t values ({place}, {shown})")
    bench.stream["verify"] = True
    bench.succeeds(full_refresh=True)
    types = bench.types()
    assert [types[column] for column in columns] == list(DECIDED.values())
    with duckdb.connect(str(bench.folder / "out.duckdb"), read_only=True) as connection:
        records = connection.execute(f"select {', '.join(columns)} from t order by id").fetchall()
    for values, *found in zip(DECIDED, *records, strict=True):
        for value, number in zip(values, found, strict=True):
            assert (None if number is None else str(Decimal(number).normalize(EXACT))) == (
                None if value is None else str(Decimal(value).normalize(EXACT))
            )


@pytest.mark.full
@pytest.mark.parametrize("how", ["merge", "append", "replace"])
def test_later_runs_keep_the_type_and_widen_it_for_a_longer_number(bench: Bench, how: str) -> None:
    bench.sql("insert into s.t values (1, 1.25, 1)")
    bench.stream |= {"write_disposition": how, "verify": how != "append"}
    if how == "append":
        bench.stream |= {"replication_method": "INCREMENTAL", "bookmark_properties": ["n"]}
    bench.succeeds()
    bench.sql("insert into s.t values (2, 2, 2)")
    bench.succeeds()
    assert bench.types() == {"id": "INTEGER", "n": "DECIMAL(18,2)", "m": "DECIMAL(18,0)"}
    bench.sql("insert into s.t values (3, 3.12345, 1234567890123456789012)")
    bench.succeeds()
    assert bench.types() == {"id": "INTEGER", "n": "DECIMAL(21,5)", "m": "DECIMAL(22,0)"}
    bench.succeeds()
    assert bench.records() == [
        (Decimal("1.25"), Decimal(1)),
        (Decimal(2), Decimal(2)),
        (Decimal("3.12345"), Decimal(1234567890123456789012)),
    ]
    bench.sql("insert into s.t values (4, 'NaN', 4), (5, 5.5, 5)")
    result = bench.run()
    assert result.status == "failure"
    assert "column 'n': 'NaN' does not fit" in str(result.streams[0].error)
    assert "types: {n: string}" in str(result.streams[0].error)
    if how == "append":
        return
    bench.stream |= {"on_rejected": "keep", "max_rejected": 5, "verify": False}
    bench.succeeds()
    assert [n for n, _ in bench.records()] == [Decimal(text) for text in ("1.25", "2", "3.12345", "5.5")]
    bench.stream["types"] = {"n": "string"}
    bench.succeeds(full_refresh=True)
    assert bench.types()["n"] == "VARCHAR"


@pytest.mark.full
def test_a_column_that_is_added_is_decided_and_a_frozen_one_is_not_widened(bench: Bench) -> None:
    bench.sql("insert into s.t values (1, 1.25, 1)")
    bench.stream |= {"write_disposition": "merge"}
    bench.succeeds()
    bench.sql("alter table s.t add column extra numeric; update s.t set extra = 0.5")
    bench.succeeds()
    assert bench.types()["extra"] == "DECIMAL(18,1)"
    bench.stream["on_schema_change"] = "freeze"
    bench.succeeds()
    bench.sql("update s.t set extra = 0.25")
    result = bench.run()
    assert result.status == "failure"
    assert "frozen" in str(result.streams[0].error)
    assert bench.types()["extra"] == "DECIMAL(18,1)"


def test_plan_says_what_it_cannot_know_and_what_is_text(bench: Bench, run_cli: RunCLI) -> None:
    bench.sql("insert into s.t values (1, 'NaN', 1), (2, 'NaN', 1), (3, 'Infinity', 1)")
    done = run_cli(["plan", bench.file(), "--types"], bench.folder)
    assert done.returncode == 0
    assert done.stdout.count("decided at the first load") == 2
    done = run_cli(["run", bench.file()], bench.folder)
    text = " ".join(done.stdout.split()) + " ".join(done.stderr.split())
    assert "column 'n' is read as text" in text
    assert "NaN in 2, Infinity in 1" in text
    assert "types: {n: double}" in text
    shown = run_cli(["runs", "show", bench.file()], bench.folder)
    assert "column 'n' is read as text" in " ".join(shown.stdout.split())
    document = json.loads(run_cli(["plan", bench.file(), "--json"], bench.folder).stdout)
    assert any("n is text, as the table's column is (VARCHAR)" in each for each in document["warnings"])


@pytest.mark.full
def test_other_destinations(bench: Bench, postgres_url: str, mariadb_url: str) -> None:
    bench.sql("insert into s.t values (1, 1.25, 12345678901234567890), (2, null, 1)")
    bench.destination = {"connector": "parquet", "config": {"path": "out"}}
    bench.stream["write_disposition"] = "merge"
    bench.succeeds()
    bench.sql("insert into s.t values (3, 2.125, 2)")
    bench.succeeds()
    tables = [pq.read_table(file) for file in sorted((bench.folder / "out").rglob("*.parquet"))]
    assert {str(table.schema.field("n").type) for table in tables} <= {"decimal128(18, 2)", "decimal128(19, 3)"}
    bench.destination = {"connector": "mysql", "config": {"url": mariadb_url}}
    bench.succeeds()
    bench.sql("insert into s.t values (4, 2.0625, 2)")
    bench.succeeds()
    with connect_mariadb(mariadb_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select column_type from information_schema.columns where table_name = 't' and column_name = 'n' "
            "and table_schema = database()"
        )
        assert cursor.fetchall()[0][0] == "decimal(19,4)"
    bench.destination = {"connector": "postgres", "config": {"url": postgres_url, "schema": "copy"}}
    bench.succeeds()
    with psycopg.connect(postgres_url) as connection:
        sql = "select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 'copy.t'::regclass"
        assert ("numeric",) in connection.execute(f"{sql} and attname = 'n'").fetchall()
