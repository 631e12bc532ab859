"""SQLite through `sqlalchemy`: its dialect rounds numbers, cuts seconds, and takes any number for a boolean."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.errors import ConnectorConfigError, FatalConnectorError
from syncblocks.connectors.sqlalchemy.source import SQLAlchemySource
from syncblocks.connectors.write_spec import WriteDisposition
from tests.connectors.sqlalchemy.test_sqlalchemy import load, read
from tests.connectors.sqlite.sqlite_files import query, script


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.mark.parametrize(
    ("declared", "value", "expected"),
    [
        ("REAL", "0.1", 0.1),
        ("FLOAT", "1e300", 1e300),
        ("DOUBLE PRECISION", "0.1", 0.1),
        ("NUMERIC(5,2)", "1.25", Decimal("1.25")),
        ("NUMERIC(20,2)", "12345678901234.56", Decimal("12345678901234.56")),
        ("NUMERIC(20,2)", "100.1 + 200.2", Decimal("300.30")),
        ("NUMERIC(30,2)", "'12345678901234567890123456.5'", Decimal("12345678901234568000000000.00")),
        ("NUMERIC", "1e-20", "0.00000000000000000001"),
        ("UUID", "'00000000-0000-0000-0000-00000000000a'", "00000000-0000-0000-0000-00000000000a"),
        ("BOOLEAN", "1", True),
        ("DATE", "'2024-02-29'", date(2024, 2, 29)),
        ("TIME", "'10:00'", time(10)),
        ("DATETIME", "'2024-02-29T10:00'", datetime(2024, 2, 29, 10)),  # noqa: DTZ001 -- naive
    ],
)
def test_values_are_read_as_they_are_stored(declared: str, value: str, expected: Any, path: Path) -> None:
    script(path, f"create table t (v {declared}); insert into t values ({value}), (null)")
    assert read(url_of(path), "t")["v"].to_pylist() == [expected, None]


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ("NUMERIC(5,2)", "1.255"),
        ("BOOLEAN", "2"),
        ("DATE", "'2024-02-29 10:00:00'"),
        ("DATE", "20240229"),
        ("TIME", "12"),
        ("DATETIME", "'2024-02-29 10:00:00.1234567'"),
        ("DATETIME", "'2024-02-29 10:00:00+02:00'"),
    ],
)
def test_a_value_that_its_type_does_not_hold_is_refused(declared: str, value: str, path: Path) -> None:
    script(path, f"create table t (v {declared}); insert into t values ({value})")
    with pytest.raises(FatalConnectorError, match="'v': a value does not fit"):
        read(url_of(path), "t")


def test_a_catalog_that_cannot_be_read_is_an_error_of_the_system(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)
    source = SQLAlchemySource({"url": url_of(path)})
    with pytest.raises(FatalConnectorError, match="file is not a database"):
        source.discover()
    source.close()


def test_what_is_written_is_read_again_as_it_was(path: Path) -> None:
    columns = {
        "id": pa.array([1]),
        "double": pa.array([0.1]),
        "money": pa.array([Decimal("1234567890123.45")], pa.decimal128(15, 2)),
        "wide": pa.array([Decimal("12345678901234567890.0123456789")], pa.decimal128(38, 10)),
        "at": pa.array([datetime(2024, 2, 29, 10, 0, 0, 1, UTC)]).cast(pa.timestamp("us")),
        "hour": pa.array([time(23, 59, 59, 999999)]),
    }
    for disposition in (WriteDisposition.REPLACE, WriteDisposition.MERGE, WriteDisposition.REPLACE):
        load(url_of(path), pa.table(columns), disposition)
    assert query(path, "select * from things") == [
        (
            1,
            0.1,
            1234567890123.45,
            "12345678901234567890.0123456789",
            "2024-02-29 10:00:00.000001",
            "23:59:59.999999",
        )
    ]
    found = read(url_of(path), "things")
    assert found.drop_columns(["wide"]).to_pylist() == pa.table(columns).drop_columns(["wide"]).to_pylist()


def test_a_relative_file_counts_from_the_folder_of_the_pipeline(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(path, "create table t (v integer); insert into t values (1)")
    elsewhere = path.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    source = SQLAlchemySource({"url": "sqlite:///shop.db"}, path.parent)
    assert [stream.name for stream in source.discover()] == ["t"]
    assert str(path) in source.identity()
    source.close()


def test_a_source_whose_file_is_missing_is_refused_and_makes_none(path: Path) -> None:
    source = SQLAlchemySource({"url": url_of(path)}, path.parent)
    with pytest.raises(ConnectorConfigError, match=r"the file .*shop\.db"):
        source.discover()
    source.close()
    assert not path.exists()
