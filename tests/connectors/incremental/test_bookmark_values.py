"""A bookmark's values: through JSON and back, in every type, past what Python holds."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncblocks.connectors.errors import ConnectorConfigError, FatalConnectorError
from syncblocks.connectors.incremental.bookmarks import (
    bookmark_values,
    from_json,
    python_value,
    to_json,
)
from syncblocks.connectors.incremental.checkpoints import incremental
from syncblocks.connectors.incremental.hashes import record_hashes
from syncblocks.connectors.stream import Checkpoint
from tests.connectors.incremental.bookmark_runs import batch, hash_count, run, stream
from tests.tiers import examples

#: Zones have no rules before and after.
BOUNDS = (datetime(1900, 1, 1), datetime(2100, 1, 1))  # noqa: DTZ001 -- Hypothesis wants them naive

TYPED = [
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.int8(), st.integers(-128, 127)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.float32(), st.floats(width=32, allow_nan=False)),
    (pa.decimal128(38, 10), st.decimals(-(10**27), 10**27, places=10)),
    (pa.decimal256(60, 4), st.decimals(-(10**27), 10**27, places=4)),
    (pa.string(), st.text(st.characters(exclude_categories=["Cs"]))),
    (pa.large_string(), st.text(st.characters(exclude_categories=["Cs"]))),
    (pa.string_view(), st.text(st.characters(exclude_categories=["Cs"]))),
    (pa.binary(), st.binary()),
    (pa.large_binary(), st.binary()),
    (pa.binary(16), st.binary(min_size=16, max_size=16)),
    (pa.date32(), st.dates()),
    (pa.date64(), st.dates()),
    (pa.time64("us"), st.times()),
    (pa.time32("s"), st.times().map(lambda value: value.replace(microsecond=0))),
    (pa.timestamp("us"), st.datetimes()),
    (pa.timestamp("us", "UTC"), st.datetimes(timezones=st.just(UTC))),
    (pa.timestamp("us", "Europe/Berlin"), st.datetimes(*BOUNDS, timezones=st.just(UTC))),
    (pa.timestamp("s"), st.datetimes().map(lambda value: value.replace(microsecond=0))),
]


@pytest.mark.sampled
@settings(max_examples=examples(400), deadline=None)
@given(data=st.data())
def test_a_bookmark_value_survives_json(data: st.DataObject) -> None:
    kind, strategy = data.draw(st.sampled_from(TYPED))
    scalar = pa.scalar(data.draw(strategy), kind)
    back = from_json(json.loads(json.dumps(to_json(scalar), allow_nan=False)), kind)
    assert back.type == kind
    assert back.equals(scalar)


@settings(max_examples=200, deadline=None)
@given(number=st.integers(-(2**60), 2**60), zone=st.sampled_from([None, "UTC", "Asia/Kolkata"]))
def test_nanoseconds_survive_json(number: int, zone: str | None) -> None:
    scalar = pa.scalar(number, pa.timestamp("ns", zone))
    assert from_json(to_json(scalar), scalar.type).value == number


@given(number=st.integers(0, 24 * 3600 * 10**9 - 1))
def test_nanoseconds_of_a_day_survive_json(number: int) -> None:
    scalar = pa.scalar(number, pa.time64("ns"))
    assert from_json(to_json(scalar), scalar.type).value == number


def test_python_values_have_the_same_json_form() -> None:
    assert to_json(datetime(2024, 1, 1, tzinfo=UTC)) == "2024-01-01T00:00:00+00:00"
    assert to_json(Decimal("1.50")) == "1.50"
    assert to_json(date(2024, 1, 1)) == "2024-01-01"
    assert to_json(time(1, 2)) == "01:02:00"
    assert to_json(b"\x00\xff") == "00ff"
    assert to_json(None) is None
    assert to_json(math.inf) == "inf"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("x", pa.int64()),
        (True, pa.int64()),
        (2**63, pa.int64()),
        (1.5, pa.int64()),
        ("2024-13-01", pa.date32()),
        ("2024-01-01T00:00:00", pa.timestamp("us", "UTC")),
        ("2024-01-01T00:00:00+00:00", pa.timestamp("us")),
        ("1.23456", pa.decimal128(10, 2)),
        ("zz", pa.binary()),
        ([1], pa.string()),
    ],
)
def test_a_value_of_another_type_names_the_way_out(value: Any, kind: pa.DataType) -> None:
    with pytest.raises(ConnectorConfigError, match="state reset") as caught:
        from_json(value, kind, column="at", stream="people")
    assert caught.value.stream == "people"


def test_a_bookmark_of_other_properties_names_the_way_out() -> None:
    with pytest.raises(ConnectorConfigError, match=r"has no b.*state reset"):
        bookmark_values(stream("a", "b"), {"a": 1})


@pytest.mark.parametrize("kind", [pa.bool_(), pa.list_(pa.int64()), pa.duration("us"), pa.struct([("x", pa.int64())])])
def test_a_type_without_an_order_is_refused_at_once(kind: pa.DataType) -> None:
    schema = pa.schema([("a", kind)])
    with pytest.raises(ConnectorConfigError, match="cannot be one of the bookmark_properties"):
        run(stream(schema=schema), [batch([], schema)])


def test_times_past_pythons_hash_like_all_others() -> None:
    """PostgreSQL's infinity, in a column that is no bookmark."""
    schema = pa.schema([("a", pa.int64()), ("until", pa.timestamp("us", "UTC"))])
    endless = pa.RecordBatch.from_arrays(
        [pa.array([1, 1]), pa.array([2**63 - 1, 2**63 - 1], pa.timestamp("us", "UTC"))], schema=schema
    )
    one, other = record_hashes(endless, schema.names)
    assert one == other
    of = stream(schema=schema)
    bookmark = [event for event in incremental(of, [endless], None, is_ordered=True) if isinstance(event, Checkpoint)]
    assert hash_count(bookmark[-1]) == 2


def test_a_bookmark_past_pythons_times_is_an_error_with_its_name() -> None:
    schema = pa.schema([("a", pa.timestamp("us"))])
    endless = pa.RecordBatch.from_arrays([pa.array([2**63 - 1], pa.timestamp("us"))], schema=schema)
    with pytest.raises(FatalConnectorError, match="'a'"):
        list(incremental(stream(schema=schema), [endless], None, is_ordered=True))


@pytest.mark.parametrize("tz", [None, "UTC", "Europe/Berlin"])
@pytest.mark.parametrize("unit", ["s", "us"])
def test_a_time_reads_as_arrow_itself_reads_it(tz: str | None, unit: str) -> None:
    for value in (-62135596800, -1, 0, 1, 951782400, 253402300799, None):
        number = value if value is None or unit == "s" else value * 10**6 + (7 if value == 1 else 0)
        if tz == "Europe/Berlin" and value in (-62135596800, 253402300799):
            continue  # past what Python can hold there
        scalar = pa.scalar(number, pa.timestamp(unit, tz))
        assert python_value(scalar) == scalar.as_py()
        assert str(python_value(scalar)) == str(scalar.as_py())
    assert python_value(pa.scalar(7)) == 7
