"""A column without a value is text until its first value, which decides its type."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pytest

from syncblocks import run_pipeline
from syncblocks.connectors.duckdb.destination import DuckDBDestination
from syncblocks.connectors.field_facts import with_facts
from syncblocks.connectors.stream import Checkpoint, Stream
from syncblocks.connectors.write_spec import WriteDisposition
from tests.connectors.duckdb.duckdb_files import load
from tests.sync.run.test_columns_by_case import config
from tests.sync.run.test_second_day import Bench

FINAL = Checkpoint(bookmark=None, is_final=True)
SYSTEMS = ("sqlite", "duckdb", "postgres", "mysql")


@pytest.fixture(params=SYSTEMS)
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    return config(request.param, request, tmp_path)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, {"connector": "duckdb", "config": {"path": "out.db"}}, "merge")


def succeeds(bench: Bench, *records: dict[str, Any]) -> None:
    result = bench.run(records)
    assert result.status == "success", result.streams[0].error


def execute(bench: Bench, sql: str) -> None:
    with duckdb.connect(str(bench.folder / "out.db")) as connection:
        connection.execute(sql)


@pytest.mark.one_of("destination", "kind", "how")
@pytest.mark.parametrize("how", ["merge", "append", "replace"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_the_first_value_decides_the_type(tmp_path: Path, destination: dict[str, Any], kind: str, how: str) -> None:
    bench = Bench(tmp_path, destination, how, kind)
    for key in (1, 2):
        succeeds(bench, {"id": key, "v": None, "w": None, "x": None})
    planned = bench.plan([{"id": 3, "v": 5, "w": 1.5, "x": None}])
    assert planned.verdict.refusal == ""
    changed = [change for change in planned.texts.changes if "becomes" in change]
    assert [change.partition(":")[0] for change in changed] == ["v", "w"]
    assert run_pipeline(tmp_path / "days.yaml").status == "success"
    succeeds(bench, {"id": 4, "v": None, "w": 2, "x": None})
    succeeds(bench, {"id": 5, "v": 6, "w": None, "x": "abc"})
    found = bench.table()
    expected = {3: (5, 1.5, None), 4: (None, 2.0, None), 5: (6, None, "abc")}
    if how != "replace":
        expected |= {1: (None, None, None), 2: (None, None, None)}
    for key in found:
        assert (found[key]["v"], found[key]["w"], found[key]["x"]) == expected[key], key
    assert list(found) == ([5] if how == "replace" else [1, 2, 3, 4, 5])
    result = bench.run([{"id": 6, "v": "soon", "w": 1.5, "x": "7"}])
    assert result.status == "failure"
    assert f"in.{kind}:{2 if kind == 'csv' else 1}: column 'v'" in str(result.streams[0].error)


def test_a_column_that_is_added_without_a_value_has_no_type_yet(bench: Bench) -> None:
    succeeds(bench, {"id": 1})
    succeeds(bench, {"id": 2, "v": None})
    succeeds(bench, {"id": 3})
    succeeds(bench, {"id": 4, "v": "2024-01-01"})
    assert str(bench.table()[4]["v"]) == "2024-01-01"
    assert not isinstance(bench.table()[4]["v"], str)


def test_a_text_as_the_first_value_makes_a_text(bench: Bench) -> None:
    succeeds(bench, {"id": 1, "v": None})
    succeeds(bench, {"id": 2, "v": "abc"})
    succeeds(bench, {"id": 2, "v": None})
    succeeds(bench, {"id": 3, "v": 5})
    assert bench.table()[3]["v"] == "5"


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("update t set v = 'x' where id = 1", "5"),
        ("alter table t alter column v type double", 5.0),
    ],
)
def test_a_column_that_somebody_else_changed_or_uses_keeps_its_type(
    bench: Bench, statement: str, value: object
) -> None:
    succeeds(bench, {"id": 1, "v": None})
    execute(bench, statement)
    succeeds(bench, {"id": 2, "v": 5})
    assert bench.table()[2]["v"] == value
    assert type(bench.table()[2]["v"]) is type(value)


@pytest.mark.one_of
@pytest.mark.parametrize(
    ("more", "value"),
    [({"on_schema_change": "freeze"}, "5"), ({"types": {"v": "string"}}, "5"), ({"on_schema_change": "ignore"}, 5)],
    ids=str,
)
def test_freeze_and_types_keep_the_text(bench: Bench, more: dict[str, Any], value: object) -> None:
    succeeds(bench, {"id": 1, "v": None})
    bench.more = more
    assert [change for change in bench.plan([{"id": 2, "v": 5}]).texts.changes if "becomes" in change] == (
        ["v: VARCHAR becomes BIGINT"] if value == 5 else []
    )
    assert run_pipeline(bench.folder / "days.yaml").status == "success"
    assert bench.table()[2]["v"] == value


def test_a_table_of_an_earlier_version_has_no_marks(bench: Bench) -> None:
    succeeds(bench, {"id": 1, "v": None})
    execute(bench, "update _syncblocks_ledger set bookmark = null")
    succeeds(bench, {"id": 2, "v": 5})
    assert bench.table()[2]["v"] == "5"


def test_a_column_of_a_view_stays_a_text(tmp_path: Path, postgres_url: str) -> None:
    bench = Bench(tmp_path, {"connector": "postgres", "config": {"url": postgres_url}}, "merge")
    succeeds(bench, {"id": 1, "v": None})
    with psycopg.connect(postgres_url) as connection:
        connection.execute("create view seen as select v from t")
    succeeds(bench, {"id": 2, "v": 5})
    assert bench.table()[2]["v"] == "5"


def test_the_ledger_names_columns_without_a_type(bench: Bench) -> None:
    def marks() -> Any:
        with duckdb.connect(str(bench.folder / "out.db")) as connection:
            ((text,),) = connection.execute("select bookmark from _syncblocks_ledger").fetchall()
        return (json.loads(text or "null") or {}).get("untyped")

    succeeds(bench, {"id": 1, "v": None, "w": None})
    assert marks() == ["v", "w"]
    succeeds(bench, {"id": 2, "w": 5})
    assert marks() == ["v"]
    succeeds(bench, {"id": 3, "v": 1.5, "w": 6})
    assert marks() is None
    assert bench.table()[3] == {"id": 3, "v": 1.5, "w": 6}


def test_a_history_gets_the_type_of_the_first_value(bench: Bench) -> None:
    bench.more = {"write_disposition": "history"}
    succeeds(bench, {"id": 1, "v": None})
    succeeds(bench, {"id": 1, "v": 5})
    with duckdb.connect(str(bench.folder / "out.db")) as connection:
        assert connection.execute("select v from t order by _valid_from").fetchall() == [(None,), (5,)]


def test_exact_numbers_are_decimals_from_their_first_value_on(bench: Bench) -> None:
    succeeds(bench, {"id": 1, "v": None})
    bench.write([{"id": 2, "v": "10.10"}])
    document = json.loads((bench.folder / "days.yaml").read_text())
    document["source"]["config"]["numbers"] = "exact"
    (bench.folder / "days.yaml").write_text(json.dumps(document))
    assert run_pipeline(bench.folder / "days.yaml").status == "success"
    assert bench.table()[2]["v"] == Decimal("10.10")


def test_a_type_of_first_values_may_grow_in_the_same_load(tmp_path: Path) -> None:
    def column(kind: pa.DataType) -> pa.Schema:
        return pa.schema([pa.field("id", pa.int64()), with_facts(pa.field("v", kind), first_values=True)])

    def batch(key: int, value: object, kind: pa.DataType) -> pa.RecordBatch:
        return pa.RecordBatch.from_pylist([{"id": key, "v": value}], schema=column(kind))

    append, whole, fraction = WriteDisposition.APPEND, pa.int64(), pa.float64()
    destination = DuckDBDestination({"path": str(tmp_path / "out.db")}, tmp_path)
    load(destination, "t", append, [batch(1, None, pa.string()), FINAL], column(pa.string()))
    wider = Stream(name="stream of t", schema=column(fraction))
    events = [batch(2, 5, whole), Checkpoint(bookmark={"id": 2}), wider, batch(3, 1.5, fraction), FINAL]
    load(destination, "t", append, events, column(whole))
    destination.close()
    with duckdb.connect(str(tmp_path / "out.db")) as connection:
        assert connection.execute("select v from t order by id").fetchall() == [(None,), (5.0,), (1.5,)]
