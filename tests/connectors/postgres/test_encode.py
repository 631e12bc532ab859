"""Arrow batches as COPY's binary format: what the server makes of it, read back with psycopg."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.field_facts import with_facts
from syncblocks.connectors.postgres import encode
from syncblocks.connectors.postgres.destination import PostgresDestination
from tests import services
from tests.connectors.postgres.postgres_pair import batch_of, rows, write
from tests.connectors.postgres.postgres_pair import destination as destination

_NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, places=5, min_value=-(10**50), max_value=10**50)


@pytest.fixture(scope="module")
def module_postgres_url() -> Iterator[str]:
    with services.fresh_postgres_database() as url:
        yield url


def sent(url: str, column_type: str, array: pa.Array) -> list[Any]:
    """Return the texts that the server has for a column's values."""
    schema = pa.schema([with_facts(pa.field("c", array.type), column_type=column_type)])
    batch = pa.RecordBatch.from_arrays([array], schema=schema)
    with psycopg.connect(url) as connection:
        connection.execute(f"create temporary table t (c {column_type}, n bigserial)".encode())
        with connection.cursor().copy("copy t (c) from stdin (format binary)") as copy:
            for block in encode.blocks(schema, iter([batch])):
                copy.write(block)
        return [value for (value,) in connection.execute("select c::text from t order by n")]


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.none() | _NUMBERS, min_size=1, max_size=20))
def test_long_decimals_are_the_same_numbers(module_postgres_url: str, values: list[Decimal | None]) -> None:
    array = pa.array(values, pa.decimal256(60, 5))
    found = sent(module_postgres_url, "numeric(60,5)", array)
    assert [value if value is None else Decimal(value) for value in found] == values


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(
        st.none() | st.tuples(st.integers(-1000, 1000), st.integers(-1000, 1000), st.integers(-(10**15), 10**15)),
        min_size=1,
        max_size=20,
    ),
    offset=st.integers(0, 3),
)
def test_intervals_keep_months_days_and_microseconds(
    module_postgres_url: str, values: list[tuple[int, int, int] | None], offset: int
) -> None:
    nanos = [value if value is None else (value[0], value[1], value[2] * 1000) for value in values]
    array = pa.array([None] * offset + nanos, pa.month_day_nano_interval()).slice(offset)
    found = sent(module_postgres_url, "interval", array)
    shown = "select make_interval(months => %s, days => %s) + %s * interval '1 microsecond'"
    with psycopg.connect(module_postgres_url) as connection:
        expected = [
            value if value is None else connection.execute(f"select ({shown})::text", value).fetchone()[0]  # type: ignore[index]
            for value in values
        ]
    assert found == expected


@pytest.mark.parametrize(
    ("column_type", "kind", "values", "texts"),
    [
        ("uuid[]", pa.uuid(), [[uuid.UUID(int=1), None], [], None], [f"{{{uuid.UUID(int=1)},NULL}}", "{}", None]),
        ("jsonb[]", pa.json_(), [['{"a": 1}'], None], ['{"{\\"a\\": 1}"}', None]),
        ("json[]", pa.json_(), [['{"a":  1}']], ['{"{\\"a\\":  1}"}']),
        (
            "timestamp with time zone[]",
            pa.timestamp("us", "UTC"),
            [[datetime(2024, 2, 29, tzinfo=UTC)], []],
            ['{"2024-02-29 00:00:00+00"}', "{}"],
        ),
        ("character varying(5)[]", pa.string(), [["a,b", None, ""]], ['{"a,b",NULL,""}']),
        ("numeric(50,2)[]", pa.decimal256(50, 2), [[Decimal("-1.25"), None]], ["{-1.25,NULL}"]),
        ("interval[]", pa.duration("us"), [[timedelta(hours=1)]], ["{01:00:00}"]),
        ("integer[]", pa.int32(), [[1, None], [], None], ["{1,NULL}", "{}", None]),
        ("text[]", pa.string(), [["ü\n"]], ["{\"ü\n\"}"]),
        ("numeric(6,2)[]", pa.decimal128(6, 2), [[Decimal("1.50")]], ["{1.50}"]),
    ],
)  # fmt: skip
def test_arrays_of_each_kind_arrive(
    postgres_url: str, column_type: str, kind: pa.DataType, values: list[Any], texts: list[Any]
) -> None:
    storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    plain = [
        value and [each.bytes if isinstance(each, uuid.UUID) else each for each in value] if value else value
        for value in values
    ]
    lists = pa.array(plain, pa.list_(storage))
    if storage != kind:
        lists = pa.ListArray.from_arrays(
            lists.offsets, kind.wrap_array(lists.values), mask=pa.array([value is None for value in values])
        )
    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            "do 'begin execute format(''alter database %I set timezone = ''''UTC'''''', current_database()); end'"
        )
    assert sent(postgres_url, column_type, lists) == texts


def test_long_values_go_in_their_place_among_short_ones(postgres_url: str, destination: PostgresDestination) -> None:
    """Long ones are not put together in memory with the others, but in the order of the records all the same."""
    long = "ä" * 400_000
    kinds = {
        "id": pa.int64(),
        "text": pa.string(),
        "data": pa.binary(),
        "doc": pa.json_(),
        "price": pa.decimal128(10, 2),
        "at": pa.timestamp("us", "UTC"),
        "more": pa.list_(pa.int64()),
    }
    noon = datetime(2024, 2, 29, 12, tzinfo=UTC)

    def batch(start: int, text: str | None, data: bytes | None, doc: str | None) -> pa.RecordBatch:
        columns = [
            pa.array([start, start + 1], pa.int64()),
            pa.array([text, "short"]),
            pa.array([data, None], pa.binary()),
            pa.json_().wrap_array(pa.array([doc, "null"])),
            pa.array([Decimal("1.25"), None], pa.decimal128(10, 2)),
            pa.array([noon, None], pa.timestamp("us", "UTC")),
            pa.array([[1, None], None], pa.list_(pa.int64())),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(list(kinds.items())))

    batches = [
        batch(1, "a", b"\0", "{}"),
        batch(3, long, None, "[]"),
        batch(5, None, long.encode(), "1"),
        batch(7, "b", None, json.dumps({"long": long})),
        batch(9, "c", b"", "{}"),
    ]
    write(destination, batches, "t")
    found = rows(postgres_url, "select id, text, data, doc, price, at, more from t order by ctid")
    expected = [(*row.values(),) for part in batches for row in pa.Table.from_batches([part]).to_pylist()]
    assert [(*row[:3], *row[4:]) for row in found] == [(*row[:3], *row[4:]) for row in expected]
    assert [row[3] for row in found] == [json.loads(row[3]) for row in expected]


def test_each_plain_type_arrives(postgres_url: str, destination: PostgresDestination) -> None:
    values: dict[str, tuple[pa.DataType, list[Any]]] = {
        "small": (pa.int16(), [-32768, 32767, None]),
        "whole": (pa.int64(), [-(2**63), 2**63 - 1, None]),
        "unsigned": (pa.uint64(), [0, 2**64 - 1, None]),
        "real": (pa.float32(), [1.5, float("-inf"), None]),
        "double": (pa.float64(), [5e-324, float("inf"), None]),
        "flag": (pa.bool_(), [True, False, None]),
        "number": (pa.decimal128(38, 10), [Decimal("-9999999999999999999999999999.9999999999"), Decimal(0), None]),
        "day": (pa.date32(), [date(1, 1, 1), date(9999, 12, 31), None]),
        "clock": (pa.time64("us"), [time(0), time(23, 59, 59, 999999), None]),
        "naive": (pa.timestamp("us"), [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999), None]),  # noqa: DTZ001
        "span": (pa.duration("us"), [timedelta(microseconds=-1), timedelta(days=1), None]),
        "id": (pa.uuid(), [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), None]),
        "text": (pa.string(), ["", "\U0001f600\n\\.\t", None]),
        "data": (pa.binary(), [b"", b"\0\xff", None]),
    }
    schema = pa.schema([(name, kind) for name, (kind, _) in values.items()])
    write(destination, [batch_of({name: each for name, (_, each) in values.items()}, schema)], "t")
    found = rows(postgres_url, f"select {', '.join(values)} from t order by ctid")
    assert [list(column) for column in zip(*found, strict=True)] == [each for _, each in values.values()]


def test_a_moment_past_what_the_format_holds_is_refused_by_name(
    postgres_url: str, destination: PostgresDestination
) -> None:
    late = pa.array([-(2**63) + 1], pa.int64()).cast(pa.timestamp("us"))
    with pytest.raises(FatalConnectorError, match="'seen'"):
        write(destination, [pa.RecordBatch.from_arrays([late], ["seen"])], "t")
    assert rows(postgres_url, "select to_regclass('t')") == [(None,)]


def test_without_pgpq_the_driver_writes(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pgpq", None)
    made = PostgresDestination({"url": postgres_url}, Path())
    try:
        write(made, [batch_of({"id": [1, 2], "doc": ["a", None]})], "t")
    finally:
        made.close()
    assert rows(postgres_url, "select id, doc from t order by id") == [(1, "a"), (2, None)]
