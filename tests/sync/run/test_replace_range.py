"""`replace_range`: a run deletes one range of the table, or single values, and writes what it reads in their place."""

from __future__ import annotations

import csv
import json
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow.parquet as pq
import pytest

from syncblocks import PipelineFailed, RunResult, load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from tests.conftest import RunCLI
from tests.sync.run.test_columns_by_case import config, records
from tests.sync.run.test_new_files import Bucket
from tests.thinned import only_full

SYSTEMS = (
    *("duckdb", "postgres", "mysql", "sqlite", "sqlalchemy", "parquet"),
    *only_full("sqlalchemy-postgres", "csv", "jsonl"),
)
DUCKDB = {"connector": "duckdb", "config": {"path": "out.db"}}

#: id, day, moment of that day
Row = tuple[int, str, str]


def block(system: str, request: pytest.FixtureRequest, folder: Path) -> dict[str, Any]:
    if system == "sqlalchemy-postgres":
        url = request.getfixturevalue("postgres_url").replace("postgresql://", "postgresql+psycopg://")
        return {"connector": "sqlalchemy", "config": {"url": url}}
    if system in ("csv", "parquet"):
        return {"connector": system, "config": {"path": "out"}}
    return config(system, request, folder)


def held(destination: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Read the table back, by the driver itself."""
    system, url = destination["connector"], str(destination["config"].get("url", ""))
    if url.startswith("postgresql+"):
        return records({"connector": "postgres", "config": {"url": url.replace("+psycopg", "")}}, folder)
    if system == "csv":
        with (folder / "out/t.csv").open(newline="") as file:
            return list(csv.DictReader(file))
    if system == "jsonl":
        return [json.loads(line) for line in (folder / "out/t.jsonl").read_text().splitlines()]
    if system == "parquet":
        return pq.read_table(folder / "out/t.parquet").to_pylist()
    return records(destination, folder)


class Table:
    """A table of a DuckDB file that is synced by `replace_range`."""

    def __init__(self, folder: Path, destination: Mapping[str, Any] = DUCKDB, **entry: Any) -> None:
        self.folder, self.destination = folder, destination
        self.entry = {"stream": "t", "write_disposition": "replace_range", **entry}
        if str(destination["config"].get("url", "")).startswith("sqlite"):  # SQLAlchemy's has no times with a zone
            self.entry["columns"] = {"exclude": ["z"]}

    def fill(self, *rows: Row, more: str = "") -> None:
        with closing(duckdb.connect(self.folder / "source.db")) as database:
            database.execute("drop table if exists t")
            database.execute(f'create table t (id int, day date, "at" timestamp, z timestamptz, word varchar{more})')
            for number, day, hour in rows:
                at = f"{day} {hour}"
                database.execute("insert into t values (?, ?, ?, ?, ?)", [number, day, at, f"{at}+00", f"w {number}"])

    def file(self, **entry: Any) -> Path:
        document = {
            "pipeline": "ranges",
            "source": {"connector": "duckdb", "config": {"path": "source.db"}},
            "destination": self.destination,
            "streams": [{**self.entry, **entry}],
        }
        path = self.folder / "ranges.yaml"
        path.write_text(json.dumps(document))
        return path

    def run(self, *interval: str, full_refresh: bool = False, **entry: Any) -> RunResult:
        ends = tuple(datetime.fromisoformat(each).astimezone(UTC) for each in interval)
        pipeline = load_pipeline(self.file(**entry), interval=(ends[0], ends[1]) if ends else None)
        return run_pipeline(pipeline, full_refresh=full_refresh)

    def written(self, *interval: str, **entry: Any) -> int:
        """Run, and return how many records were written."""
        result = self.run(*interval, **entry)
        assert result.status == "success", result.streams
        return result.streams["t"].records or 0

    def error(self, *interval: str, **entry: Any) -> str:
        found = self.run(*interval, **entry).streams["t"]
        assert found.status == "failure"
        return str(found.error)

    def ids(self) -> list[int]:
        return sorted(int(record["id"]) for record in held(self.destination, self.folder))


def days(first: int, last: int) -> tuple[str, str]:
    return f"2024-01-{first:02}T00:00:00+00:00", f"2024-01-{last:02}T00:00:00+00:00"


@pytest.mark.full
@pytest.mark.parametrize("column", ["day", "at", "z"])
@pytest.mark.parametrize("keys", [(), ("id",)], ids=["keyless", "keyed"])
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.thinned(1)
def test_an_interval_is_written_anew(
    tmp_path: Path, request: pytest.FixtureRequest, system: str, keys: Sequence[str], column: str
) -> None:
    table = Table(tmp_path, block(system, request, tmp_path), range_column=column, key_properties=list(keys))
    if (system, column) == ("sqlalchemy", "z"):
        pytest.skip("it has no times with a zone")
    noon, night, last = "12:00:00.000001", "00:00", "23:59:59.999999"
    table.fill((1, "2024-01-01", noon), (2, "2024-01-02", night), (3, "2024-01-02", last), (4, "2024-01-03", night))
    assert table.written(*days(1, 5)) == 4
    table.fill((1, "2024-01-01", noon), (5, "2024-01-02", noon), (6, "2024-01-03", noon))
    assert (table.written(*days(2, 3)), table.ids()) == (1, [1, 4, 5])
    assert (table.written(*days(2, 3)), table.ids()) == (1, [1, 4, 5])  # run again it gives the same table
    table.fill()
    assert (table.written(*days(1, 2)), table.ids()) == (0, [4, 5])  # an empty read empties the range
    table.fill((5, "2024-01-07", noon))
    assert table.written(*days(7, 8)) == 1
    assert table.ids() == ([4, 5] if keys else [4, 5, 5])  # an arriving key is deleted wherever it stands
    assert [str(each["word"]) for each in held(table.destination, tmp_path) if int(each["id"]) == 4] == ["w 4"]


@pytest.mark.one_of
@pytest.mark.parametrize("column", ["day", "id", "word"])
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.thinned(1)
def test_without_an_interval_the_values_that_are_read_are_written_anew(
    tmp_path: Path, request: pytest.FixtureRequest, system: str, column: str
) -> None:
    table = Table(tmp_path, block(system, request, tmp_path), range_column=column)
    table.fill(*((number, f"2024-01-0{number}", "06:00:00") for number in (1, 2, 3, 4)))
    assert table.written() == 4
    table.fill((1, "2024-01-01", "07:00:00"), (1, "2024-01-01", "08:00:00"), (3, "2024-01-03", "07:00:00"))
    assert (table.written(), table.ids()) == (3, [1, 1, 2, 3, 4])  # never what lies between
    table.fill()
    assert (table.written(), table.ids()) == (0, [1, 1, 2, 3, 4])  # nothing read deletes nothing


@pytest.mark.one_of("system")
@pytest.mark.parametrize("system", ["duckdb", "mysql", "parquet", "csv"])
def test_the_files_that_are_read_are_written_anew(tmp_path: Path, request: pytest.FixtureRequest, system: str) -> None:
    bucket = Bucket(
        tmp_path,
        block(system, request, tmp_path),
        write_disposition="replace_range",
        range_column="_file",
    )
    bucket.source["file_columns"] = True

    def ids() -> list[int]:
        return sorted(int(record["id"]) for record in held(bucket.destination, tmp_path))

    bucket.put("a.csv", "id\n1\n2\n")
    bucket.put("b.csv", "id\n3\n")
    assert (bucket.rows(), bucket.rows(), ids()) == (3, 0, [1, 2, 3])
    bucket.put("a.csv", "id\n2\n4\n", 1)  # it has changed
    bucket.put("c.csv", "id\n5\n", 1)
    assert (bucket.rows(), ids()) == (3, [2, 3, 4, 5])
    bucket.put("b.csv", "id\n", 2)  # it is empty now
    assert (bucket.rows(), ids()) == (0, [2, 4, 5])
    whole = {"replication_method": "FULL_TABLE", "bookmark_properties": None}
    bucket.put("c.csv", "id\n", 3)
    (tmp_path / "data/a.csv").unlink()  # not read, so its records stay
    bucket.put("b.csv", "id\n6\n", 3)
    assert (bucket.rows(**whole), ids()) == (1, [2, 4, 6])


@pytest.mark.one_of("system")
@pytest.mark.parametrize("system", ["duckdb", "postgres", "mysql", "sqlite", "sqlalchemy", "parquet"])
def test_the_old_records_of_rejected_ones_go(tmp_path: Path, request: pytest.FixtureRequest, system: str) -> None:
    """A record that has no place in the table is read all the same, and so is its day."""
    table = Table(tmp_path, block(system, request, tmp_path), key_properties=["id"], on_rejected="keep")
    table.fill((1, "2024-01-01", "01:00"), (2, "2024-01-02", "01:00"), (3, "2024-01-03", "01:00"))
    assert table.written(range_column="day") == 3
    with closing(duckdb.connect(tmp_path / "source.db")) as database:
        database.execute("delete from t where id = 2")
        database.execute("update t set id = null where id = 1")
    result = table.run(range_column="day")
    assert (result.status, table.ids()) == ("success", [2, 3]), result.streams


@pytest.mark.parametrize("system", ["duckdb", "jsonl"])
def test_the_old_records_of_lines_that_the_source_rejects_go(
    tmp_path: Path, request: pytest.FixtureRequest, system: str
) -> None:
    """Such a record has the source's names for its columns."""
    file = tmp_path / "t.csv"
    document = {
        "pipeline": "lines",
        "source": {"connector": "csv", "config": {"path": "t.csv", "types": {"n": "int64"}}},
        "transformers": [{"rename": {"day": "of_day"}}],
        "destination": block(system, request, tmp_path),
        "streams": [
            {"stream": "t", "write_disposition": "replace_range", "range_column": "day", "on_rejected": "keep"}
        ],
    }
    for text in ("id,day,n\n1,2024-01-01,1\n2,2024-01-02,2\n", "id,day,n\n1,2024-01-01,one\n"):
        file.write_text(text)
        result = run_pipeline(load_pipeline(document, folder=tmp_path))
        assert result.status == "success", result.streams
    assert [int(record["id"]) for record in held(block(system, request, tmp_path), tmp_path)] == [2]


def moved(table: Table) -> str:
    """Run with a transformer, and return how the stream has failed."""
    path = table.file()
    path.write_text(json.dumps({**json.loads(path.read_text()), "transformers": [{"file": "moves.py"}]}))
    ends = (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
    found = run_pipeline(load_pipeline(path, interval=ends)).streams["t"]
    assert found.status == "failure"
    return str(found.error)


@pytest.mark.full
def test_a_record_outside_of_the_range_fails_the_stream(tmp_path: Path) -> None:
    (tmp_path / "moves.py").write_text(
        "from syncblocks import transformer\nimport datetime\n\n@transformer\ndef move(df):\n"
        "    df.loc[df['id'] == 2, 'day'] = CHANGED\n    return df\n"
    )
    table = Table(tmp_path, range_column="day")
    table.fill((1, "2024-01-01", "01:00"), (2, "2024-01-01", "01:00"))
    assert table.written(*days(1, 2)) == 2
    text = (tmp_path / "moves.py").read_text()
    dropped = text.replace("return df", "return df.drop(columns=['day'])").replace("CHANGED", "None")
    (tmp_path / "moves.py").write_text(dropped)
    assert "no such column arrives" in moved(table)
    for value, message in (("datetime.date(2024, 1, 2)", "outside of the interval"), ("None", "NULL")):
        (tmp_path / "moves.py").write_text(text.replace("CHANGED", value))
        assert message in moved(table)
    assert table.ids() == [1, 2]


INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}


@pytest.mark.parametrize(
    ("entry", "interval", "message"),
    [
        ({}, days(1, 2), "needs range_column"),
        ({"range_column": "dya"}, days(1, 2), "did you mean 'day'"),
        ({"range_column": "day", "write_disposition": "merge", "key_properties": ["id"]}, (), "replace_range"),
        ({"range_column": "_file"}, (), "file_columns"),
        ({"range_column": "day"}, ("2024-01-01T00:00:00+01:00", "2024-01-02T00:00:00+01:00"), "not at 00:00 UTC"),
        ({"range_column": "id"}, days(1, 2), "bound days and times"),
        ({"range_column": "at"}, (), "--interval-start"),
        ({"range_column": "price"}, (), "double"),
        ({"range_column": "day", **INCREMENTAL}, days(1, 2), "INCREMENTAL"),
        ({"range_column": "day", "unique_conflict_method": "IGNORE"}, days(1, 2), "IGNORE"),
        ({"range_column": "at", "types": {"at": "string"}}, days(1, 2), "types"),
    ],
    ids=lambda value: "",
)
def test_what_cannot_be_a_range_is_refused(
    tmp_path: Path, entry: dict[str, Any], interval: tuple[str, ...], message: str
) -> None:
    table = Table(tmp_path, **entry)
    table.fill(more=", price double")
    with pytest.raises(ConfigError) as caught:
        table.run(*interval)
    assert message in str(caught.value)


def test_a_column_that_the_table_lacks_is_no_range_of_it(tmp_path: Path) -> None:
    table = Table(tmp_path, range_column="day")
    table.fill((1, "2024-01-01", "01:00"))
    table.written(range_column="word", columns={"exclude": ["day"]})
    with pytest.raises(PipelineFailed, match="new in the table"):
        table.run(*days(1, 2)).raise_for_status()


@pytest.mark.full
def test_values_that_the_source_no_longer_has_are_no_difference(tmp_path: Path, run_cli: RunCLI) -> None:
    table = Table(tmp_path, range_column="day", key_properties=["id"])
    table.fill((1, "2024-01-01", "01:00"), (2, "2024-01-02", "01:00"))
    table.written()
    table.fill((2, "2024-01-02", "01:00"))
    assert "counted" in run_cli(["verify", table.file()], tmp_path).stdout
    table.fill((2, "2024-01-03", "01:00"))
    differs = run_cli(["verify", "--repair", table.file()], tmp_path)
    assert (differs.returncode, "differs" in differs.stdout) == (1, True)
    assert "a run writes the records of each day that it reads anew" in differs.stderr


def test_a_full_refresh_of_an_interval_is_refused(tmp_path: Path) -> None:
    table = Table(tmp_path, range_column="day")
    table.fill((1, "2024-01-01", "01:00"))
    with pytest.raises(ConfigError, match="--full-refresh would leave only"):
        table.run(*days(1, 2), full_refresh=True)
    assert table.run(full_refresh=True).status == "success"


def test_a_table_that_others_write_is_refused(tmp_path: Path) -> None:
    table = Table(tmp_path, range_column="day")
    table.fill((1, "2024-01-01", "01:00"))
    path = table.file()
    document = json.loads(path.read_text())
    document["pipeline"] = "another"
    document["streams"] = [{"stream": "t", "write_disposition": "append"}]
    other = tmp_path / "another.yaml"
    other.write_text(json.dumps(document))
    assert run_pipeline(other).status == "success"
    with pytest.raises(ConfigError, match="delete records of table 't', which stream 't' of pipeline 'another'"):
        table.run(*days(1, 2))


def test_a_table_that_foreign_keys_refer_to_is_refused(tmp_path: Path, postgres_url: str) -> None:
    table = Table(tmp_path, {"connector": "postgres", "config": {"url": postgres_url}}, range_column="day")
    table.fill((1, "2024-01-01", "01:00"))
    assert table.written(*days(1, 2), key_properties=["id"]) == 1
    with psycopg.connect(postgres_url) as connection:
        connection.execute("create table lines (t integer references t (id) on delete cascade)")
    with pytest.raises(PipelineFailed, match="and `replace_range` would delete"):
        table.run(*days(1, 2), key_properties=["id"]).raise_for_status()


def test_a_destination_that_deletes_nothing_is_refused(tmp_path: Path) -> None:
    target = {"connector": "singer", "config": {"executable": sys.executable}}
    table = Table(tmp_path, target, range_column="day")
    table.fill((1, "2024-01-01", "01:00"))
    with pytest.raises(ConfigError, match="replace_range` needs a destination that deletes a range"):
        table.run(*days(1, 2))


@pytest.mark.one_of("system")
@pytest.mark.parametrize("system", ["duckdb", "sqlite", "postgres"])
def test_a_table_of_another_program_is_taken_over_with_its_records(
    tmp_path: Path, request: pytest.FixtureRequest, run_cli: RunCLI, system: str
) -> None:
    """Other types than ours hold the same days; a unique key allows no record twice, not even within a transaction."""
    table = Table(tmp_path, block(system, request, tmp_path), range_column="day", columns={"include": ["id", "day"]})
    create = "create table t (id bigint primary key, day date)"
    rows = "insert into t values (1, '2024-01-01'), (2, '2024-01-02'), (3, '2024-01-03')"
    if system == "postgres":
        with psycopg.connect(str(table.destination["config"]["url"])) as postgres:
            postgres.execute(create)
            postgres.execute(rows)
    else:
        with closing((duckdb if system == "duckdb" else sqlite3).connect(tmp_path / "out.db")) as database:
            database.execute(create)
            database.execute(rows)
            database.commit()
    table.fill((1, "2024-01-02", "01:00"), (4, "2024-01-02", "01:00"))
    with pytest.raises(ConfigError, match="state adopt"):
        table.run(*days(2, 3), key_properties=["id"])
    adopted = run_cli(["state", "adopt", table.file(key_properties=["id"]), "t"], tmp_path)
    assert adopted.returncode == 0, adopted.stderr
    assert (table.written(*days(2, 3), key_properties=["id"]), table.ids()) == (2, [1, 3, 4])
    assert (table.written(*days(2, 3), key_properties=["id"]), table.ids()) == (2, [1, 3, 4])


def test_two_records_of_one_key_are_refused(tmp_path: Path) -> None:
    table = Table(tmp_path, range_column="day", key_properties=["id"])
    table.fill((1, "2024-01-01", "01:00"), (1, "2024-01-01", "02:00"))
    assert "several records have the same key" in table.error(*days(1, 2))


def test_times_that_sqlite_does_not_order_are_refused(tmp_path: Path) -> None:
    """Other programs write moments in more than one way."""
    table = Table(tmp_path, {"connector": "sqlite", "config": {"path": "out.db"}}, range_column="z")
    table.fill((1, "2024-01-01", "01:00"))
    assert table.written(*days(1, 2)) == 1
    with closing(sqlite3.connect(tmp_path / "out.db")) as database:
        database.execute("insert into t (id, z) values (2, '2024-01-01T23:59:59Z'), (3, '2024-01-02T00:00:00Z')")
        database.commit()
    assert (table.written(*days(1, 2)), table.ids()) == (1, [1, 3])
    with closing(sqlite3.connect(tmp_path / "out.db")) as database:
        database.execute("insert into t (id, z) values (4, '2024-01-01T23:59:59+05:00')")
        database.commit()
    assert "other zones than UTC" in table.error(*days(1, 2))


def test_values_of_texts_are_compared_as_they_are_written(tmp_path: Path, mariadb_url: str) -> None:
    table = Table(tmp_path, {"connector": "mysql", "config": {"url": mariadb_url}}, range_column="word")
    table.fill()
    with closing(duckdb.connect(tmp_path / "source.db")) as database:
        database.execute("insert into t (id, word) values (1, 'a'), (2, 'A'), (3, 'a ')")
    table.written()
    with closing(duckdb.connect(tmp_path / "source.db")) as database:
        database.execute("delete from t where id > 1")
    assert (table.written(), table.ids()) == (1, [1, 2, 3])


def test_values_of_a_folding_collation_are_compared_as_they_are_written(tmp_path: Path, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    destination = {"connector": "postgres", "config": {"url": postgres_url}}
    table = Table(tmp_path, destination, range_column="word")
    table.fill((1, "2026-01-01", "00:00"))
    table.written()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("alter table t alter word type text collate ci")
        connection.execute("insert into t (id, word) values (2, 'W 1')")
    assert (table.written(), table.ids()) == (1, [1, 2])


@pytest.mark.full
def test_plan_and_verify_say_what_they_are_about(tmp_path: Path, run_cli: RunCLI) -> None:
    table = Table(tmp_path, range_column="day", key_properties=["id"])
    table.fill((1, "2024-01-01", "01:00"), (2, "2024-01-02", "01:00"))
    file = str(table.file())
    ends = ["--interval-start", "2024-01-02", "--interval-end", "2024-01-03"]
    planned = run_cli(["plan", file, *ends], tmp_path)
    assert "replaces the records of 2024-01-02T00:00:00+00:00 <= day < 2024-01-03T00:00:00+00:00" in planned.stdout
    assert "where day >= 2024-01-02 and day < 2024-01-03" in planned.stdout
    assert run_cli(["run", file, *ends], tmp_path).returncode == 0
    assert table.ids() == [2]
    found = run_cli(["verify", file], tmp_path)  # within the interval of the last run
    assert (found.returncode, "compared: 2024-01-02" in found.stderr) == (0, True), found.stderr
    whole = run_cli(["verify", file, "--interval-start", "2024-01-01", "--interval-end", "2024-01-03"], tmp_path)
    assert (whole.returncode, "differs" in whole.stdout) == (1, True), whole.stdout
    counted = json.loads(run_cli(["count", file, *ends, "--json"], tmp_path).stdout)
    assert [(each["source"], each["destination"]) for each in counted["streams"]] == [(1, 1)]
    assert (
        len(json.loads(run_cli(["preview", file, "--stream", "t", *ends, "--json"], tmp_path).stdout)["records"]) == 1
    )


def test_a_missing_interval_hides_nothing_from_commands_that_write_nothing(tmp_path: Path, run_cli: RunCLI) -> None:
    table = Table(tmp_path, range_column="at")
    table.fill((1, "2024-01-01", "01:00"))
    file = str(table.file())
    assert run_cli(["preview", file, "--stream", "t"], tmp_path).returncode == 0
    assert run_cli(["count", file], tmp_path).returncode == 0
    assert run_cli(["plan", file], tmp_path).returncode == 2
