"""SQL that writes a column's values as text, against the texts that arriving values of the column become."""

from __future__ import annotations

import math
import random
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pytest

from syncblocks.connectors.arrow.fidelity import as_text
from syncblocks.connectors.duckdb.types import DuckDBTypes
from syncblocks.connectors.postgres.types import PostgresTypes

_DRAWN = random.Random(7)
DOUBLES = [
    sign * value
    for sign in (1, -1)
    for value in (
        *(0.0, 1.0, 0.1, 1e-4, 9.999e-5, 1e-5, 1e-6, 9.99e-7, 1e-7, 1e-100, 5e-324, 123456.789, 9999999999.999998),
        *(1e10, 1.5e10, 12345678901.5, 123456789012345.67, 1e15, 9999999999999998.0, 1e16, 1.5e300, math.inf),
        *(_DRAWN.uniform(1, 10) * 10.0**power for power in range(-12, 22)),
        *(float(_DRAWN.randrange(10**power)) for power in range(1, 19)),
    )
] + [math.nan]

VALUES: list[tuple[str, pa.DataType, list[Any]]] = [
    ("bigint", pa.int64(), [0, -(2**63), 2**63 - 1]),
    ("double precision", pa.float64(), DOUBLES),
    ("real", pa.float32(), [0.1, 1e-5, 1.5, 16777216.0, 1e10, 1e12, 1e20]),
    ("boolean", pa.bool_(), [True, False]),
    ("numeric(20,4)", pa.decimal128(20, 4), [Decimal("0.0000"), Decimal("-1.5000"), Decimal("1234567890123456.7891")]),
    ("date", pa.date32(), [date(1, 1, 1), date(1969, 12, 31), date(9999, 12, 31)]),
    ("time", pa.time64("us"), [time(0), time(1, 2, 3, 500_000), time(23, 59, 59, 999_999)]),
    (
        "timestamp",
        pa.timestamp("us"),
        [*map(datetime.fromisoformat, ("0001-01-01", "2024-01-02T03:04:05.000060", "9999-12-31"))],
    ),
    (
        "timestamptz",
        pa.timestamp("us", "UTC"),
        [datetime(2024, 1, 2, 3, 4, 5, 60, UTC), datetime(1960, 1, 1, tzinfo=UTC)],
    ),
]
KINDS = [kind for kind, _, _ in VALUES]


@pytest.mark.parametrize(("kind", "arrow", "values"), VALUES, ids=KINDS)
def test_duckdb_writes_them_as_arrow_does(kind: str, arrow: pa.DataType, values: list[Any]) -> None:
    arriving = pa.table({"v": pa.array(values, arrow)})
    with duckdb.connect() as connection:
        connection.register("arriving", arriving)
        connection.execute("set timezone = 'Asia/Tokyo'")
        connection.execute(f"create table t (v {kind}); insert into t from arriving")
        ((stored,),) = connection.execute("select column_type from (describe t)").fetchall()
        text = DuckDBTypes().text_of(stored, '"v"')
        assert text is not None
        connection.execute(f"alter table t alter v type varchar using {text}")
        found = [value for (value,) in connection.execute("select v from t").fetchall()]
    assert found == as_text(arriving["v"].combine_chunks(), "v").to_pylist()


@pytest.mark.parametrize(("kind", "arrow", "values"), VALUES, ids=KINDS)
def test_postgres_writes_them_as_arrow_does(
    postgres_url: str, kind: str, arrow: pa.DataType, values: list[Any]
) -> None:
    arriving = pa.array(values, arrow)
    with psycopg.connect(postgres_url) as connection:
        connection.execute("set timezone = 'Asia/Tokyo'")
        connection.execute(f"create table t (n int, v {kind})".encode())
        connection.cursor().executemany("insert into t values (%s, %s)", list(enumerate(values)))
        row = connection.execute(
            "select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 't'::regclass and attname = 'v'"
        ).fetchone()
        assert row is not None
        text = PostgresTypes().text_of(row[0], '"v"')
        assert text is not None
        connection.execute(f"alter table t alter v type text using {text}".encode())
        found = [value for (value,) in connection.execute("select v from t order by n").fetchall()]
    wanted = as_text(arriving, "v").to_pylist()
    if kind == "double precision":  # from 2^53 on, PostgreSQL now and then writes a digit more for the same number
        assert [float(text) for text in found if text != "nan"] == values[:-1]
        pairs = [
            pair for pair, value in zip(zip(found, wanted, strict=True), values, strict=True) if abs(value) < 2**53
        ]
        found, wanted = [one for one, _ in pairs], [other for _, other in pairs]
    assert found == wanted


def test_what_has_no_such_text_is_not_written_in_place() -> None:
    for kind in ("bytea", "integer[]", "interval", "time with time zone"):
        assert PostgresTypes().text_of(kind, "v") is None
    for kind in ("BLOB", "INTEGER[]", "INTERVAL", "TIMESTAMP_NS"):
        assert DuckDBTypes().text_of(kind, "v") is None
