"""Values inside of others, and types that hardly anybody has: kept in full, or refused with the column's name."""

from __future__ import annotations

import contextlib
import json
import math
import secrets
import sqlite3
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pytest

from syncblocks.connectors.arrow.fidelity import Fidelity, fidelity
from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.registry import make_destination
from syncblocks.connectors.stream import Checkpoint, LedgerKey, Load, Stream, TableState
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec
from tests.golden.systems import mysql_connection

STRUCT = pa.struct([("n", pa.decimal128(38, 10)), ("f", pa.float64()), ("b", pa.binary()), ("t", pa.timestamp("ns"))])


def load(system: str, config: Mapping[str, Any], array: pa.Array) -> None:
    destination = make_destination(system, config, Path("/nowhere"))
    key, token = LedgerKey(pipeline="odd", stream="s", destination_table="odd"), secrets.token_hex(8)
    schema = pa.schema([("v", array.type)])
    destination.take_over(key, token=token, owner="odd", source="odd://")
    stream = Stream(name="s", schema=schema)
    order = Load(key=key, stream=stream, write=WriteSpec(disposition=WriteDisposition.REPLACE), token=token, run="1:1")
    try:
        list(destination.load(order, iter([pa.record_batch([array], schema=schema), Checkpoint(is_final=True)])))
    finally:
        destination.close()


@pytest.fixture
def places(tmp_path: Path, postgres_url: str, mariadb_url: str) -> dict[str, dict[str, Any]]:
    return {
        "postgres": {"url": postgres_url},
        "mysql": {"url": mariadb_url},
        "sqlite": {"path": str(tmp_path / "odd.db")},
        "duckdb": {"path": str(tmp_path / "odd.duckdb")},
    }


def test_what_becomes_json_keeps_every_digit(places: dict[str, dict[str, Any]]) -> None:
    number = Decimal("1234567890123456789012345678.0000000001")
    value = {"n": number, "f": math.nan, "b": b"\xff", "t": 1}
    for system in ("postgres", "mysql", "sqlite"):
        load(system, places[system], pa.array([value, None], STRUCT))
    with psycopg.connect(places["postgres"]["url"]) as connection:
        texts = [row[0] for row in connection.execute("select v::text from odd where v is not null")]
    with mysql_connection(places["mysql"]["url"]) as mysql, mysql.cursor() as cursor:
        cursor.execute("select v from odd where v is not null")
        texts += [row[0] for row in cursor.fetchall()]
    sqlite = sqlite3.connect(places["sqlite"]["path"])
    texts += [row[0] for row in sqlite.execute("select v from odd where v is not null")]
    sqlite.close()
    found = [json.loads(text, parse_float=Decimal) for text in texts]
    assert found == [{"n": number, "f": "NaN", "b": "/w==", "t": "1970-01-01T00:00:00.000000001"}] * 3


def test_a_nanosecond_of_an_interval_is_refused_where_it_would_be_cut_off(places: dict[str, dict[str, Any]]) -> None:
    whole = pa.MonthDayNano([1, -2, -3000])
    fine = pa.array([None, whole, pa.MonthDayNano([1, -2, 1])], pa.month_day_nano_interval())
    for system in ("postgres", "duckdb"):
        with pytest.raises(FatalConnectorError, match="'v': an interval is finer"):
            load(system, places[system], fine)
        load(system, places[system], fine.slice(0, 2))
        load(system, places[system], fine.slice(1, 1))
    with duckdb.connect(places["duckdb"]["path"], read_only=True) as connection:
        assert connection.execute("select v::varchar from odd").fetchall() == [("1 month -2 days -00:00:00.000003",)]


DAY = pa.array([24 * 3600 * 10**6]).view(pa.time64("us"))
FOREVER = pa.array([2**63 - 1]).view(pa.timestamp("us"))


@pytest.mark.one_of("system")
@pytest.mark.parametrize("system", ["postgres", "mysql", "sqlite"])
@pytest.mark.parametrize(
    "array",
    [
        FOREVER,
        pa.array([1 - 2**63]).view(pa.timestamp("us", "UTC")),
        pa.array([2**31 - 1], pa.int32()).view(pa.date32()),
        pa.ListArray.from_arrays([0, 1], FOREVER),
        pa.MapArray.from_arrays([0, 1], pa.array(["k"]), pa.StructArray.from_arrays([FOREVER], ["at"])),
    ],
    ids=["timestamp", "before all", "date", "list", "map of structs"],
)
def test_an_infinite_time_is_refused_and_not_a_finite_one(
    places: dict[str, dict[str, Any]], system: str, array: pa.Array
) -> None:
    with pytest.raises(FatalConnectorError, match=r"'v'.*infinite"):
        load(system, places[system], array)
    load("duckdb", places["duckdb"], array)
    with duckdb.connect(places["duckdb"]["path"]) as connection:
        (found,) = connection.execute("select v::varchar from odd").fetchall()
    assert "infinity" in found[0]


def test_the_last_nanosecond_does_not_become_infinite(places: dict[str, dict[str, Any]]) -> None:
    last = pa.array([2**63 - 1]).view(pa.timestamp("ns"))  # pandas' Timestamp.max
    with pytest.raises(FatalConnectorError, match="'v' contains the first or last nanosecond"):
        load("duckdb", places["duckdb"], last)
    load("sqlite", places["sqlite"], last)
    with contextlib.closing(sqlite3.connect(places["sqlite"]["path"])) as connection:
        assert connection.execute("select v from odd").fetchall() == [("2262-04-11 23:47:16.854775807",)]


@pytest.mark.parametrize("system", ["sqlite", "mysql", "sqlalchemy", "jsonl", "csv"])
def test_the_end_of_a_day_is_refused_where_it_would_be_another_time(
    places: dict[str, dict[str, Any]], tmp_path: Path, system: str
) -> None:
    files = {"path": str(tmp_path / "files")}
    others = {"sqlalchemy": {"url": f"sqlite:///{tmp_path / 'other.db'}"}, "jsonl": files, "csv": files}
    with pytest.raises(FatalConnectorError, match=r"['\"]v['\"]"):
        load(system, {**places, **others}[system], DAY)


@pytest.mark.parametrize("system", ["parquet", "sqlite", "mysql"])
def test_a_decimal_with_a_negative_scale_has_no_type(system: str) -> None:
    config = {"url": "mysql://nobody@127.0.0.1/x"} if system == "mysql" else {"path": "nowhere"}
    destination: Any = make_destination(system, config, Path("/nowhere"))
    field = pa.field("v", pa.decimal128(5, -2))
    (kept,) = destination.keeps(Stream(name="s", schema=pa.schema([field])), TableState(), WriteDisposition.REPLACE)
    assert fidelity(field, kept) is Fidelity.LOSSY
    assert kept.arrow is None
