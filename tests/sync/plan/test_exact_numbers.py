"""`numbers: exact` of CSV and JSON lines: decimals with all digits, by one pass over the files of the first load."""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from syncblocks import RunResult, load_pipeline, run_pipeline
from tests.conftest import RunCLI


class Bench:
    """A file `t` of numbers that is appended to DuckDB, unless told."""

    def __init__(self, folder: Path, connector: str) -> None:
        self.folder, self.connector = folder, connector
        self.stream: dict[str, Any] = {"stream": "t", "write_disposition": "append"}
        self.destination: dict[str, Any] = {"connector": "duckdb", "config": {"path": "out.duckdb"}}
        self.config: dict[str, Any] = {"path": f"t.{connector}", "numbers": "exact"}

    def write(self, *values: str) -> None:
        lines = [f'{{"id": {place}, "v": {value or "null"}}}' for place, value in enumerate(values)]
        if self.connector == "csv":
            lines = ["id,v", *(f"{place},{value}" for place, value in enumerate(values))]
        (self.folder / f"t.{self.connector}").write_text("\n".join(lines) + "\n")

    def file(self) -> Path:
        document = {
            "pipeline": "exact",
            "source": {"connector": self.connector, "config": self.config},
            "destination": self.destination,
            "streams": [self.stream],
        }
        file = self.folder / "exact.yaml"
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        return file

    def run(self, **options: Any) -> RunResult:
        return run_pipeline(self.file(), **options)

    def succeeds(self, **options: Any) -> None:
        result = self.run(**options)
        assert (result.status, result.streams[0].error) == ("success", None)

    def column(self) -> tuple[str, list[Any]]:
        with duckdb.connect(str(self.folder / "out.duckdb"), read_only=True) as connection:
            ((kind,),) = connection.execute(
                "select data_type from duckdb_columns() where table_name = 't' and column_name = 'v'"
            ).fetchall()
            return kind, [value for (value,) in connection.execute("select v from t order by rowid").fetchall()]


@pytest.fixture(params=["csv", "jsonl"])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    return Bench(tmp_path, request.param)


@pytest.mark.full
def test_numbers_are_decimals_and_grow_with_later_files(bench: Bench, run_cli: RunCLI) -> None:
    bench.write("10.10", "0.1", "", "12")
    done = run_cli(["plan", bench.file(), "--types"], bench.folder)
    assert "decided at the first load" in done.stdout
    bench.succeeds()
    assert bench.column() == ("DECIMAL(18,2)", [Decimal("10.10"), Decimal("0.1"), None, Decimal(12)])
    bench.write("11", "7.125", "1.5e3")
    bench.succeeds()
    kind, values = bench.column()
    assert (kind, values[4:]) == ("DECIMAL(19,3)", [Decimal(11), Decimal("7.125"), Decimal(1500)])
    bench.write("1", "1" * 40 + ".5")
    result = bench.run()
    assert result.status == "failure"
    assert "types" in str(result.streams[0].error)
    bench.stream |= {"on_rejected": "keep", "max_rejected": 3}
    bench.succeeds()
    assert bench.column()[1][-1] == Decimal(1)


@pytest.mark.one_of("destination")
@pytest.mark.parametrize("destination", ["sqlite", "csv"])
@pytest.mark.parametrize("connector", ["csv", "jsonl"])
def test_a_destination_without_such_decimals_keeps_the_text(tmp_path: Path, connector: str, destination: str) -> None:
    bench = Bench(tmp_path, connector)
    document = yaml.safe_load(bench.file().read_text())
    document["destination"] = {"connector": destination, "config": {"path": "out"}}
    document["streams"][0]["write_disposition"] = "replace"
    long = "0." + "1" * 60
    for values in (["1.50", "", "0.1"], ["1.50", long, "0.10", "-2"]):
        bench.write(*values)
        result = run_pipeline(load_pipeline(document, folder=tmp_path))
        assert (result.status, result.streams[0].error) == ("success", None)
        if destination == "sqlite":
            with closing(sqlite3.connect(tmp_path / "out")) as database:
                found = [value for (value,) in database.execute("select v from t order by id")]
        else:
            with (tmp_path / "out" / "t.csv").open() as file:
                found = [record["v"] or None for record in csv.DictReader(file)]
        assert found == [value or None for value in values]


def test_integers_that_get_fractions_become_a_decimal(bench: Bench) -> None:
    bench.write("9007199254740993", "2")
    bench.succeeds()
    assert bench.column()[0] == "BIGINT"
    bench.write("2.5")
    bench.succeeds()
    kind, values = bench.column()
    assert kind.startswith("DECIMAL")
    assert values == [Decimal(9007199254740993), Decimal(2), Decimal("2.5")]


@pytest.mark.full
def test_what_no_decimal_holds_makes_a_text_that_says_so(bench: Bench, run_cli: RunCLI) -> None:
    special = "NaN" if bench.connector == "csv" else '"NaN"'
    bench.write("1.50", special, "2.25")
    done = run_cli(["run", bench.file()], bench.folder)
    assert done.returncode == 0, done.stderr
    assert "no decimal holds NaN in 1 of its records" in " ".join((done.stdout + done.stderr).split())
    assert bench.column() == ("VARCHAR", ["1.50", "NaN", "2.25"])
    bench.write("1.50", "2.25")
    bench.succeeds(full_refresh=True)
    assert bench.column()[0] == "DECIMAL(18,2)"
    document = json.loads(run_cli(["plan", bench.file(), "--json"], bench.folder).stdout)
    assert document["streams"][0]["columns"]["v"] == "decimal128(18, 2)"


def test_sqlite_keeps_the_text_of_numbers_of_which_no_double_holds_all(bench: Bench) -> None:
    """With an exponent they would be doubles, and a table without decimals decides nothing at its first load."""
    bench.destination = {"connector": "sqlite", "config": {"path": "out.db"}}
    bench.stream["write_disposition"] = "replace"
    for values in (["1e-7", "0.12345678901234567890"], ["1e400", "12345678901234567890.5", ""], ["1.50", "1e-7"]):
        bench.write(*values)
        bench.succeeds()
        with closing(sqlite3.connect(bench.folder / "out.db")) as connection:
            found = connection.execute("select v from t order by id").fetchall()
        assert found == [(value or None,) for value in values]
