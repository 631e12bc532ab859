"""`on_schema_change: widen`: a column that cannot hold what its source now has becomes text, old values and all."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest
import yaml

from syncblocks import run_pipeline
from tests.conftest import RunCLI
from tests.connectors.delta.delta_tables import read_table
from tests.golden.systems import mysql_connection

#: Column -> (type, value before, its text).
COLUMNS = {
    "n": ("bigint", "12", "12"),
    "price": ("decimal(12,2)", "10.50", "10.50"),
    "day": ("date", "date '2024-01-02'", "2024-01-02"),
    "flag": ("boolean", "true", "true"),
    "moment": ("timestamp", "timestamp '2024-01-02 03:04:05.5'", "2024-01-02T03:04:05.500000"),
    "part": ("double", "0.00001", "0.00001"),
}
#: What a system does not turn into text where it stands.
NOT_THERE = {"mysql": {"flag", "moment", "part"}, "sqlite": {"part"}}
SYSTEMS = ("postgres", "mysql", "sqlite", "duckdb", "jsonl", "csv", "parquet", "delta")
HOW: dict[str, dict[str, Any]] = {
    "append": {"write_disposition": "append"},
    "merge": {"write_disposition": "merge", "key_properties": ["id"]},
    "replace": {"write_disposition": "replace"},
}
INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["n"]}


class Bench:
    """A table of DuckDB that is synced into a system."""

    def __init__(self, folder: Path, system: str, config: dict[str, Any]) -> None:
        self.folder, self.system, self.config = folder, system, config
        self.stream: dict[str, Any] = {"stream": "t", "on_schema_change": "widen"}
        self.columns = {name: each for name, each in COLUMNS.items() if name not in NOT_THERE.get(system, ())}

    def make(self, *, columns: dict[str, tuple[str, str, str]]) -> None:
        """Make the source's table anew, with one record."""
        types = ", ".join(f"{name} {kind}" for name, (kind, _, _) in columns.items())
        values = ", ".join(value for _, value, _ in columns.values())
        with duckdb.connect(str(self.folder / "s.db")) as connection:
            connection.execute(f"drop table if exists t; create table t (id int, {types})")
            connection.execute(f"insert into t values (1, {values})")

    def change(self, *names: str) -> None:
        """Make texts of some columns of the source, in another record."""
        values = ", ".join(f"'{name} text'" for name in names)
        with duckdb.connect(str(self.folder / "s.db")) as connection:
            for name in names:
                connection.execute(f"alter table t alter {name} type varchar")
            connection.execute(f"delete from t; insert into t (id, {', '.join(names)}) values (2, {values})")

    def file(self) -> Path:
        document = {
            "pipeline": "p",
            "source": {"connector": "duckdb", "block": "load", "config": {"path": "s.db"}},
            "destination": {"connector": self.system, "block": "export", "config": self.config},
            "streams": [self.stream],
        }
        file = self.folder / "p.yaml"
        file.write_text(yaml.safe_dump(document))
        return file

    def run(self) -> Any:
        return run_pipeline(self.file())

    def rows(self) -> list[dict[str, Any]]:
        """What the system's own client reads, by id."""
        match self.system:
            case "jsonl":
                found = [json.loads(line) for file in self._files() for line in file.read_text().splitlines()]
            case "csv" | "parquet":
                names = ", ".join(f"'{file}'" for file in self._files())
                how = f"read_csv([{names}], all_varchar = true)" if self.system == "csv" else f"read_parquet([{names}])"
                table = duckdb.sql(f"select * from {how}")
                found = [dict(zip(table.columns, row, strict=True)) for row in table.fetchall()]
            case "delta":
                found = read_table(self.folder / "out", "t") or []
            case _:
                with self._cursor() as cursor:
                    cursor.execute("select * from t")
                    names = [each[0] for each in cursor.description]
                    found = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return sorted(({**row, "id": int(row["id"])} for row in found), key=lambda row: row["id"])

    def _files(self) -> list[Path]:
        return [*self.folder.glob(f"out/t.{self.system}"), *self.folder.glob(f"out/t/*.{self.system}")]

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[Any]:
        place = self.config.get("url") or str(self.folder / self.config["path"])
        made: Any = {"postgres": psycopg, "sqlite": sqlite3, "duckdb": duckdb}.get(self.system)
        opened = mysql_connection(place) if made is None else made.connect(place)
        with contextlib.closing(opened) as connection, contextlib.closing(connection.cursor()) as cursor:
            yield cursor


@pytest.fixture
def bench(system: str, tmp_path: Path, request: pytest.FixtureRequest) -> Bench:
    if system in ("postgres", "mysql"):
        return Bench(
            tmp_path, system, {"url": request.getfixturevalue({"mysql": "mariadb_url"}.get(system, "postgres_url"))}
        )
    return Bench(tmp_path, system, {"path": "d.db" if system in ("sqlite", "duckdb") else "out"})


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_column_becomes_text_with_its_values(bench: Bench, how: str, run_cli: RunCLI) -> None:
    bench.stream |= HOW[how]
    bench.make(columns=bench.columns)
    assert bench.run().status == "success"
    bench.change(*bench.columns)
    if how != "replace":
        shown = json.loads(run_cli(["plan", bench.file(), "--json"], bench.folder).stdout)["streams"][0]["changes"]
        assert {name for name in bench.columns if any(f"{name}: " in each for each in shown)} == {*bench.columns}, shown
        assert all(" becomes " in each for each in shown)
    for _ in range(2):  # the second run finds them as texts
        result = bench.run()
        assert result.status == "success", result
    new = {"id": 2, **{name: f"{name} text" for name in bench.columns}}
    old = {"id": 1, **{name: text for name, (_, _, text) in bench.columns.items()}}
    assert bench.rows() == {"append": [old, new, new], "merge": [old, new], "replace": [new]}[how]


@pytest.mark.parametrize("system", ["sqlite"])
def test_a_zoned_time_of_sqlite_keeps_its_zone(bench: Bench) -> None:
    bench.columns = {"z": ("timestamptz", "timestamptz '2024-01-02 03:04:05.5+02'", "2024-01-02T01:04:05.500000Z")}
    bench.stream |= HOW["append"]
    bench.make(columns=bench.columns)
    assert bench.run().status == "success"
    bench.change("z")
    assert bench.run().status == "success"
    assert [row["z"] for row in bench.rows()] == ["2024-01-02T01:04:05.500000Z", "z text"]


@pytest.mark.one_of
@pytest.mark.parametrize("system", ["duckdb", "jsonl"])
def test_what_arrives_later_in_another_type_is_its_text(bench: Bench) -> None:
    bench.columns = {"n": COLUMNS["n"]}
    bench.stream |= HOW["append"]
    bench.make(columns=bench.columns)
    assert bench.run().status == "success"
    bench.change("n")
    assert bench.run().status == "success"
    bench.make(columns={"n": COLUMNS["day"]})
    assert bench.run().status == "success"
    assert sorted(row["n"] for row in bench.rows()) == ["12", "2024-01-02", "n text"]


@pytest.mark.parametrize("system", ["sqlite"])
def test_a_guessed_column_is_read_as_it_is_written(bench: Bench) -> None:
    bench.stream |= {**HOW["append"], "stream": "t"}
    document = yaml.safe_load(bench.file().read_text())
    document["source"] = {"connector": "csv", "block": "load", "config": {"path": "in"}}
    bench.file().write_text(yaml.safe_dump(document))
    (bench.folder / "in").mkdir()
    for text in ("id,n,day\n1,12,2024-01-02\n", "id,n,day\n2,007,soon\n", "id,n,day\n3,8,2024-02-03\n"):
        (bench.folder / "in" / "t.csv").write_text(text)
        assert run_pipeline(bench.folder / "p.yaml").status == "success"
    assert [(row["n"], row["day"]) for row in bench.rows()] == [
        ("12", "2024-01-02"),
        ("007", "soon"),
        ("8", "2024-02-03"),
    ]


@pytest.mark.full
@pytest.mark.one_of("system")
@pytest.mark.parametrize(
    ("system", "how", "column", "reason"),
    [
        ("duckdb", {**HOW["merge"], "key_properties": ["n"]}, "n", "it is a key"),
        ("sqlite", {**HOW["append"], **INCREMENTAL}, "n", "it is a key"),
        ("duckdb", {"write_disposition": "replace_range", "range_column": "n"}, "n", "arrives as text"),
        ("mysql", HOW["append"], "flag", "does not write the values of a tinyint(1) as text in place"),
    ],
)
def test_plan_refuses_what_cannot_become_text(
    bench: Bench, how: dict[str, Any], column: str, reason: str, run_cli: RunCLI
) -> None:
    bench.columns = {column: COLUMNS[column]}
    bench.stream |= how
    bench.make(columns=bench.columns)
    assert bench.run().status == "success"
    before = bench.rows()
    bench.change(column)
    done = run_cli(["plan", bench.file()], bench.folder)
    assert done.returncode == 2
    assert reason in (done.stdout + done.stderr).replace("\n", " ")
    assert run_cli(["run", bench.file()], bench.folder).returncode != 0
    assert bench.rows() == before


@pytest.mark.full
@pytest.mark.parametrize("system", ["duckdb"])
def test_a_table_that_another_stream_writes_keeps_its_types(bench: Bench, run_cli: RunCLI) -> None:
    bench.columns = {"n": COLUMNS["n"]}
    bench.stream |= HOW["append"]
    bench.make(columns=bench.columns)
    assert bench.run().status == "success"
    file = bench.file()
    file.write_text(file.read_text().replace("pipeline: p", "pipeline: other"))
    assert run_pipeline(file).status == "success"
    bench.change("n")
    done = run_cli(["plan", bench.file()], bench.folder)
    assert done.returncode == 2
    assert "stream 't' of pipeline 'other' writes the table, too" in (done.stdout + done.stderr).replace("\n", " ")


@pytest.mark.full
@pytest.mark.parametrize(
    ("system", "point"),
    [
        ("postgres", "postgres.commit.before"),
        ("mysql", "mysql.commit.before"),
        ("parquet", "files.manifest.before"),
    ],
)
def test_a_kill_leaves_the_old_or_the_new(bench: Bench, point: str, run_cli: RunCLI) -> None:
    bench.columns = {"n": COLUMNS["n"]}
    bench.stream |= HOW["append"]
    bench.make(columns=bench.columns)
    assert bench.run().status == "success"
    bench.change("n")
    done = run_cli(["run", bench.file()], bench.folder, env={"SYNCBLOCKS_FAILPOINT": f"{point}:1:kill"}, is_warm=False)
    assert done.returncode != 0
    assert [row["n"] for row in bench.rows()] in ([12], ["12"], ["12", "n text"])
    assert bench.run().status == "success"
    assert {row["n"] for row in bench.rows()} == {"12", "n text"}
