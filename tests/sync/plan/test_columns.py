"""Columns that a destination cannot keep exactly: refused before anything runs, or changed as the pipeline says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from syncblocks import PipelineFailed, load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from tests.conftest import RunCLI

NANOS = 1_700_000_000_123_456_789


class Folder:
    """A pipeline from Parquet to DuckDB, which keeps no zoned nanoseconds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.document: dict[str, Any] = {
            "pipeline": "columns",
            "source": {"connector": "parquet", "config": {"path": "in"}},
            "destination": {"connector": "duckdb", "config": {"path": "out.duckdb"}},
            "streams": [{"stream": "events"}],
        }
        (path / "in").mkdir()
        self.seed(pa.table({"id": [1, 2], "at": pa.array([NANOS, None], pa.timestamp("ns", "UTC")), "n": [1, 2]}))

    def seed(self, table: pa.Table) -> None:
        pq.write_table(table, self.path / "in" / "events.parquet")

    def write(self, **stream: Any) -> Path:
        self.document["streams"][0].update(stream)
        file = self.path / "columns.yaml"
        file.write_text(yaml.safe_dump(self.document), encoding="utf-8")
        return file

    def query(self, sql: str) -> list[Any]:
        with duckdb.connect(str(self.path / "out.duckdb"), read_only=True) as connection:
            return connection.execute(sql).fetchall()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_lossy_column_is_refused_and_nothing_is_made(folder: Folder, run_cli: RunCLI) -> None:
    file = folder.write()
    for command in ("plan", "run"):
        done = run_cli([command, file], folder.path)
        assert done.returncode == 2, done.stdout + done.stderr
        for part in ("columns.yaml:", "'at'", "timestamp[ns, tz=UTC]", "duckdb", "on_lossy: text", "exclude: [at]"):
            assert part in done.stderr
    assert sorted(path.name for path in folder.path.iterdir()) == ["columns.yaml", "in"]


def test_cast_cuts_and_says_so(folder: Folder, run_cli: RunCLI) -> None:
    file = folder.write(on_lossy="cast")
    shown = run_cli(["plan", file], folder.path)
    assert "at (timestamp[ns, tz=UTC] -> TIMESTAMP WITH TIME ZONE)" in shown.stdout
    assert "cut as on_lossy says" in shown.stdout
    assert run_pipeline(file).status == "success"
    assert folder.query("select epoch_us(events.at) from events order by id") == [(NANOS // 1000,), (None,)]
    assert run_pipeline(file).status == "success"  # over the table that is there now


def test_text_keeps_all_digits_the_second_time_as_well(folder: Folder) -> None:
    folder.document["on_lossy"] = "text"  # the pipeline's default
    file = folder.write(write_disposition="append")
    for _ in range(2):
        assert run_pipeline(file).status == "success"
    assert folder.query("select distinct events.at from events where events.at is not null") == [
        ("2023-11-14T22:13:20.123456789Z",)
    ]
    assert folder.query("select count(*) from events") == [(4,)]


def test_the_plan_shows_the_fidelity_of_each_column(folder: Folder, run_cli: RunCLI) -> None:
    file = folder.write(on_lossy="text")
    (stream,) = json.loads(run_cli(["plan", file, "--json"], folder.path).stdout)["streams"]
    assert [(column["column"], column["fidelity"], column["destination_type"]) for column in stream["fidelity"]] == [
        ("id", "exact", "BIGINT"),
        ("at", "text", "VARCHAR"),
        ("n", "exact", "BIGINT"),
    ]
    assert "on_lossy: text" in run_cli(["plan", file, "--types"], folder.path).stdout


def test_a_column_that_a_transformer_makes_is_held_against_the_types_as_well(folder: Folder) -> None:
    (folder.path / "later.py").write_text(
        "import pandas as pd\n@transformer\ndef later(df):\n"
        "    df['later'] = pd.array([1] * len(df), dtype=pd.ArrowDtype(__import__('pyarrow').timestamp('ns', 'UTC')))\n"
        "    return df\n"
    )
    folder.seed(pa.table({"id": [1, 2]}))
    folder.document["transformers"] = [{"file": "later.py"}]
    result = run_pipeline(folder.write())
    assert result.status == "failure"
    assert "'later' is timestamp[ns, tz=UTC]" in str(result.streams[0].error)
    assert folder.query("select count(*) from information_schema.tables where table_name = 'events'") == [(0,)]
    assert run_pipeline(folder.write(on_lossy="cast")).status == "success"
    assert folder.query("select count(*) from events where later is not null") == [(2,)]


def test_a_type_that_the_table_cannot_take_fails_the_stream_before_anything_is_written(folder: Folder) -> None:
    folder.seed(pa.table({"id": [1]}))
    assert run_pipeline(folder.write(write_disposition="append")).status == "success"
    folder.seed(pa.table({"id": ["one"]}))
    result = run_pipeline(folder.write())
    assert result.status == "failure"
    assert "BIGINT" in str(result.streams[0].error)
    assert "neither type holds the other" in str(result.streams[0].error)
    assert "on_lossy" not in str(result.streams[0].error), "it would not help"


def test_where_the_tables_column_is_text_the_error_names_the_way_to_write_it_as_text(folder: Folder) -> None:
    folder.seed(pa.table({"id": ["one"]}))
    assert run_pipeline(folder.write(write_disposition="append")).status == "success"
    folder.seed(pa.table({"id": [2.5]}))
    result = run_pipeline(folder.write())
    assert result.status == "failure"
    assert "on_lossy: text" in str(result.streams[0].error)
    assert run_pipeline(folder.write(on_lossy="text")).status == "success"
    assert folder.query("select * from events order by id") == [("2.5",), ("one",)]


def test_an_integer_enters_a_text_column_as_its_text(folder: Folder, run_cli: RunCLI) -> None:
    folder.seed(pa.table({"id": ["one"]}))
    assert run_pipeline(folder.write(write_disposition="append")).status == "success"
    folder.seed(pa.table({"id": pa.array([-(2**63), None])}))
    assert '"text"' in run_cli(["plan", folder.write(verify=True), "--json"], folder.path).stdout
    assert run_pipeline(folder.write()).raise_for_status().status == "success"
    assert folder.query("select * from events order by id nulls last") == [("-9223372036854775808",), ("one",), (None,)]


def test_nanoseconds_without_a_digit_below_the_microsecond_are_read(folder: Folder) -> None:
    def seed(last: int) -> None:
        at = pa.array([NANOS // 1000 * 1000, None, last], pa.timestamp("ns", "UTC"))
        times = pa.array([1_000, None, 86_399_999_999_000], pa.time64("ns"))
        folder.seed(pa.table({"id": [1, 2, 3], "at": at, "time": times}))

    seed(NANOS // 1000 * 1000)
    for _ in range(2):
        result = run_pipeline(folder.write())
        assert (result.status, result.streams[0].error) == ("success", None)
    assert folder.query('select epoch_us("at"), "time"::varchar from events order by id') == [
        (NANOS // 1000, "00:00:00.000001"),
        (None, None),
        (NANOS // 1000, "23:59:59.999999"),
    ]
    seed(NANOS)
    with pytest.raises(PipelineFailed, match="'at' is timestamp"):
        run_pipeline(folder.write()).raise_for_status()


def test_int96_of_every_year_is_read_unless_it_has_nanoseconds(folder: Folder, postgres_url: str) -> None:
    folder.document["destination"] = {"connector": "postgres", "config": {"url": postgres_url}}
    far = 253402300799999999  # the last microsecond of 9999, which nanoseconds of 64 bits do not reach
    for at, is_exact in (
        (pa.array([far, 0], pa.timestamp("us")), True),
        (pa.array([NANOS, 0], pa.timestamp("ns")), False),
    ):
        path = folder.path / "in" / "events.parquet"
        pq.write_table(pa.table({"id": [1, 2], "at": at}), path, use_deprecated_int96_timestamps=True)
        if is_exact:
            assert run_pipeline(folder.write()).status == "success"
        else:
            with pytest.raises(PipelineFailed, match="'at' is timestamp"):
                run_pipeline(folder.write()).raise_for_status()
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("select at::text from events order by id").fetchall() == [
            ("9999-12-31 23:59:59.999999",),
            ("1970-01-01 00:00:00",),
        ]


def test_a_mistake_in_on_lossy_names_what_is_allowed(folder: Folder) -> None:
    with pytest.raises(ConfigError, match="fail, cast"):
        load_pipeline(folder.write(on_lossy="drop"))


def test_more_columns_than_a_table_has_are_refused_by_the_plan(folder: Folder, run_cli: RunCLI) -> None:
    folder.document["destination"] = {"connector": "sqlite", "config": {"path": "out.sqlite"}}
    folder.seed(pa.table({f"c{place}": [1] for place in range(2001)}))
    done = run_cli(["plan", folder.write()], folder.path)
    assert done.returncode == 2, done.stdout + done.stderr
    for part in ("stream 'events'", "2,001 columns", "sqlite can have at most 1,999", "exclude"):
        assert part in done.stderr
    folder.write(columns={"include": ["c1", "c2"]})
    assert run_pipeline(folder.path / "columns.yaml").status == "success"
