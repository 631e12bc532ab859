"""A column that is of another type when it is read than when it was planned: an error that names it, or the value."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.registry import make_source
from syncblocks.connectors.stream import Checkpoint, Stream
from syncblocks.connectors.struct_helpers import replace
from tests import services
from tests.golden.test_changes_on_the_way import runner

#: Of every system: the type that is planned; the type that is read, and its value as it may arrive, or None.
TYPES: list[tuple[str, str, str, Any]] = [
    ("int", "real", "3.5", None),
    ("int", "double precision", "3.5", None),
    ("bigint", "double precision", "3.0", None),
    ("int", "bigint", "7", 7),
    ("real", "double precision", "0.1", 0.1),
    ("double precision", "decimal(10,6)", "3.123456", None),
    ("decimal(10,2)", "double precision", "3.123456", None),
    ("decimal(10,2)", "decimal(10,6)", "3.123456", None),
    ("decimal(10,6)", "decimal(10,2)", "3.12", None),
    ("date", "int", "3", None),
    ("int", "date", "'2020-02-03'", None),
    ("timestamp", "bigint", "3", None),
    ("date", "timestamp", "'2020-02-03 04:05:06'", None),
    ("timestamp", "date", "'2020-02-03'", None),
    ("text", "blob", "'abc'", None),
    ("blob", "text", "'abc'", None),
    ("text", "int", "3", None),
    ("time", "bigint", "3", None),
]

MORE: dict[str, list[tuple[str, str, str, Any]]] = {
    "duckdb": [
        ("timestamp", "timestamptz", "'2020-02-03 04:05:06+02'", None),
        ("timestamptz", "timestamp", "'2020-02-03 04:05:06'", None),
        ("timestamp_s", "timestamp_ns", "'2020-02-03 04:05:06.123456789'", None),
        ("boolean", "int", "5", None),
        ("struct(x int)", "struct(y int)", "{'y': 1}", None),
        ("enum('a', 'b')", "enum('b', 'a')", "'b'", None),
    ],
    "mysql": [
        ("datetime", "timestamp", "'2020-02-03 04:05:06'", None),
        ("tinyint(1)", "int", "1", None),
        ("bit(8)", "int", "7", 7),
        ("year", "int", "7", 7),
        ("json", "text", "'[1'", None),
        ("varchar(3)", "varchar(9)", "'abc   '", None),
    ],
    "sqlite": [("boolean", "int", "5", None)],
    "sqlalchemy": [("boolean", "int", "5", None)],
}

SYSTEMS = ("mysql", "sqlite", "duckdb", "sqlalchemy", "sqlalchemy of mysql")


@pytest.fixture
def place(system: str, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The place and the system that it is."""
    with ExitStack() as stack:
        if "mysql" in system:
            yield "mysql", stack.enter_context(services.fresh_mariadb_database())
        else:
            kind = "duckdb" if system == "duckdb" else "sqlite"
            yield kind, str(tmp_path / f"source.{kind}")


def opened(system: str, kind: str, place: str, folder: Path) -> Any:
    if system == "sqlalchemy":
        return make_source("sqlalchemy", {"url": f"sqlite:///{place}"}, folder)
    if system == "sqlalchemy of mysql":
        return make_source("sqlalchemy", {"url": place.replace("mysql:", "mysql+pymysql:", 1)}, folder)
    return make_source(system, {"url": place} if kind == "mysql" else {"path": place}, folder)


def values(source: Any, stream: Stream) -> list[Any]:
    events = [event for _, event in source.read([stream], {}) if not isinstance(event, Checkpoint)]
    return [value for event in events if isinstance(event, pa.RecordBatch) for value in event.column(1).to_pylist()]


@pytest.mark.full
@pytest.mark.thinned(1)
@pytest.mark.parametrize("is_incremental", [False, True], ids=["whole", "incremental"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_column_of_another_type_is_not_taken_for_the_one_that_was_planned(
    tmp_path: Path, system: str, place: tuple[str, str], is_incremental: bool
) -> None:
    kind, where = place
    run, wrong = runner(kind, where), []
    for number, (planned, now, literal, expected) in enumerate([*TYPES, *MORE.get(system, [])]):
        name = f"t{number}"
        run([f"create table {name} (id int primary key, a {planned})"])
        with closing(opened(system, kind, where, tmp_path)) as source:
            stream = next(each for each in source.discover() if each.name.rpartition(".")[2] == name)
            if is_incremental:
                method = ReplicationMethod.INCREMENTAL
                stream = replace(stream, read=replace(stream.read, method=method, bookmark_properties=("id",)))
            source.close()
            run(
                [
                    f"drop table {name}",
                    f"create table {name} (id int primary key, a {now})",
                    f"insert into {name} values (1, {literal})",
                ]
            )
            try:
                found: Any = values(source, stream)
            except ConnectorError as error:
                found = "" if "'a'" in str(error) else str(error)
        if found != "" and found != [expected]:
            wrong.append((planned, now, found))
    assert wrong == []


MOMENT = datetime.fromisoformat("2020-02-03T04:05:06.789012")

#: Of Parquet: the type that is planned; the value and the type that are read, and the value as it may arrive, or None.
PARQUET: list[tuple[pa.DataType, Any, pa.DataType, Any]] = [
    (pa.int32(), 3.5, pa.float32(), None),
    (pa.int32(), 7, pa.int64(), 7),
    (pa.int32(), 2**40, pa.int64(), None),
    (pa.float32(), 0.1, pa.float64(), None),
    (pa.float64(), 0.5, pa.float32(), 0.5),
    (pa.date32(), 3, pa.int32(), None),
    (pa.date32(), MOMENT, pa.timestamp("us"), None),
    (pa.timestamp("us"), 3, pa.int64(), None),
    (pa.timestamp("us"), MOMENT, pa.timestamp("us", "UTC"), None),
    (pa.timestamp("us", "UTC"), MOMENT, pa.timestamp("us"), None),
    (pa.timestamp("ms"), MOMENT, pa.timestamp("us"), None),
    (pa.timestamp("us"), MOMENT, pa.timestamp("ns"), MOMENT),
    (pa.bool_(), 5, pa.int32(), None),
    (pa.int32(), True, pa.bool_(), None),
    (pa.decimal128(10, 2), 3.123456, pa.float64(), None),
    (pa.float64(), Decimal("3.12"), pa.decimal128(10, 2), None),
    (pa.decimal128(10, 2), Decimal("3.123456"), pa.decimal128(10, 6), None),
    (pa.decimal128(10, 2), Decimal("3.120000"), pa.decimal128(10, 6), Decimal("3.12")),
    (pa.string(), b"abc", pa.binary(), None),
    (pa.binary(), "abc", pa.string(), b"abc"),
    (pa.time64("us"), 3, pa.int64(), None),
    (pa.string(), 3, pa.int32(), None),
    (pa.int32(), "3", pa.string(), 3),
    (pa.int32(), "no", pa.string(), None),
]


@pytest.mark.parametrize("wire", ["arrow", "parquet"])
def test_a_parquet_file_of_another_type_is_not_taken_for_the_one_that_was_planned(tmp_path: Path, wire: str) -> None:
    wrong = []
    for planned, value, now, expected in PARQUET:
        pq.write_table(pa.table({"id": [1], "a": pa.nulls(1, planned)}), tmp_path / "t.parquet")
        with closing(make_source("parquet", {"path": "."}, tmp_path)) as source:
            (stream,) = source.discover()
            pq.write_table(pa.table({"id": [1], "a": pa.array([value], now)}), tmp_path / "t.parquet")
            try:
                events = [event for _, event in source.read([stream], {}, wire)]
                (batch,) = events
                assert isinstance(batch, pa.RecordBatch)
                found: Any = batch.column(1).to_pylist()
            except ConnectorError as error:
                found = "" if "'a'" in str(error) or "column a" in str(error) else str(error)
        if found != "" and found != [expected]:
            wrong.append((planned, now, found))
    assert wrong == []
