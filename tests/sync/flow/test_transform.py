"""What a transformer's frame becomes: the values and columns that the user's function returned, none cut or lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from syncblocks.connectors.stream import Stream
from syncblocks.sync.flow.transform import Transformer, TransformError

SINGLE = pa.schema([("id", pa.int64()), ("r", pa.float32())])


def applied(function: Callable[[Any], Any], *batches: pa.RecordBatch) -> list[pa.RecordBatch]:
    transformer = Transformer("block", [function], {})
    return [transformer.apply(batch, Stream(name="s", schema=batch.schema)) for batch in batches]


def single(*values: float | None) -> pa.RecordBatch:
    return pa.record_batch([pa.array(range(len(values)), pa.int64()), pa.array(values, pa.float32())], schema=SINGLE)


def tenth_more(frame: Any) -> Any:
    frame["r"] = frame["r"] * 1.1
    return frame


def test_a_double_computed_from_a_float_is_not_cut_to_a_float() -> None:
    (made,) = applied(tenth_more, single(1.0, None))
    assert made.schema.field("r").type == pa.float64()
    assert made.column("r").to_pylist() == [1.1, None]


@pytest.mark.parametrize("as_double", [False, True])
def test_a_float_that_is_left_as_it_was_stays_one(as_double: bool) -> None:
    def same(frame: Any) -> Any:
        return frame.astype({"r": "float64"}) if as_double else frame

    batch = single(0.1, None, float("inf"), -0.0)
    (made,) = applied(same, batch)
    assert made.schema == SINGLE
    assert made.column("r").equals(batch.column("r"))


def test_a_value_that_the_type_of_an_earlier_batch_would_cut_is_an_error() -> None:
    with pytest.raises(TransformError, match="'r' was float in an earlier batch and is double now"):
        applied(tenth_more, single(0.0), single(1.0))


def test_columns_that_a_function_made_the_index_are_kept() -> None:
    (made,) = applied(lambda frame: frame.set_index("id"), single(1.0, 2.0))
    assert made.to_pylist() == [{"id": 0, "r": 1.0}, {"id": 1, "r": 2.0}]
    (made,) = applied(lambda frame: frame.set_index("id", drop=False), single(1.0))
    assert made.to_pylist() == [{"id": 0, "r": 1.0}]
    (made,) = applied(lambda frame: frame.groupby("r").sum(), single(1.0, 2.0, 1.0))
    assert made.to_pylist() == [{"r": 1.0, "id": 2}, {"r": 2.0, "id": 1}]
    (made,) = applied(lambda frame: frame[frame["r"] > 1], single(1.0, 2.0))
    assert made.to_pylist() == [{"id": 1, "r": 2.0}]


def test_a_time_that_gets_a_zone_or_loses_it_is_another_type() -> None:
    naive, aware = datetime(2024, 7, 1, 12), datetime(2024, 7, 1, 10, tzinfo=UTC)  # noqa: DTZ001
    batch = pa.record_batch({"at": pa.array([naive], pa.timestamp("us"))})
    (made,) = applied(lambda frame: frame.assign(at=frame["at"].dt.tz_localize("Europe/Berlin")), batch)
    assert made.column("at").to_pylist() == [aware]
    batch = pa.record_batch({"at": pa.array([aware], pa.timestamp("us", "UTC"))})

    def local(frame: Any) -> Any:
        return frame.assign(at=frame["at"].dt.tz_convert("Europe/Berlin").dt.tz_localize(None))

    (made,) = applied(local, batch)
    assert made.column("at").to_pylist() == [naive]
    batches = [batch, pa.record_batch({"at": pa.array([aware, aware], pa.timestamp("us", "UTC"))})]
    with pytest.raises(TransformError, match=r"timestamptz in an earlier batch"):
        applied(lambda frame: frame if len(frame) == 1 else local(frame), *batches)


RECORDS = pa.record_batch(
    {
        "id": pa.array([1, 2, 2**53 + 1], pa.int64()),
        "price": pa.array([Decimal("0.10"), None, Decimal("12345678901234567.89")], pa.decimal128(20, 2)),
        "at": pa.array([datetime(2024, 1, 2, 3, 4, 5, 678, UTC)] * 3, pa.timestamp("us", "UTC")),
        "day": pa.array([date(2024, 1, 2), None, date(1, 1, 1)]),
        "ratio": pa.array([0.5, float("nan"), None]),
        "is_open": pa.array([True, None, False]),
        "seen": pa.array([["a"], [], None], pa.list_(pa.string())),
        "extra": pa.array(['{"a": 1.10}', "null", None], pa.json_()),
        "raw": pa.array([b"\x00\xff", None, b""]),
    }
)


def by_record(function: Callable[[Any], Any], *batches: pa.RecordBatch) -> list[pa.RecordBatch]:
    transformer = Transformer("block", [function], {}, "record")
    return [transformer.apply(batch, Stream(name="s", schema=batch.schema)) for batch in batches]


def test_a_record_that_a_function_leaves_alone_stays_what_it_was() -> None:
    (made,) = by_record(lambda frame: frame, RECORDS)
    assert repr(made.to_pylist()) == repr(RECORDS.to_pylist())  # a NaN equals nothing
    assert made.schema == RECORDS.schema


def test_a_function_gets_one_record_of_json_values() -> None:
    seen = []

    def look(frame: Any) -> Any:
        seen.append(frame.iloc[0].to_dict())
        assert len(frame) == 1
        return frame

    by_record(look, RECORDS.slice(0, 1))
    assert seen == [
        {
            "id": 1,
            "price": 0.1,
            "at": "2024-01-02T03:04:05.000678+00:00",
            "day": "2024-01-02",
            "ratio": 0.5,
            "is_open": True,
            "seen": ["a"],
            "extra": {"a": 1.1},
            "raw": "AP8=",
        }
    ]


def test_values_that_a_function_changes_keep_the_type_where_it_holds_them() -> None:
    def change(frame: Any) -> Any:
        frame["id"] += 1
        frame["price"] = frame["price"].iloc[0] or 7
        frame["day"] = "2025-12-31"
        frame["new"] = frame["id"].mean()
        return frame.drop(columns="raw")

    (made,) = by_record(change, RECORDS)
    assert made.schema.names == [*(name for name in RECORDS.schema.names if name != "raw"), "new"]
    assert made.column("id").to_pylist() == [2, 3, 2**53 + 2]
    assert made.column("price").to_pylist() == [Decimal("0.10"), Decimal("7.00"), Decimal("12345678901234567.89")]
    assert made.column("day").to_pylist() == [date(2025, 12, 31)] * 3
    assert made.column("new").to_pylist() == [2.0, 3.0, float(2**53 + 2)]


def test_a_record_without_a_row_is_left_out_and_a_second_row_is_an_error() -> None:
    (made,) = by_record(lambda frame: frame[frame["id"] != 2], RECORDS)
    assert made.column("id").to_pylist() == [1, 2**53 + 1]
    (made,) = by_record(lambda frame: frame.iloc[0:0], RECORDS)
    assert made.num_rows == 0
    with pytest.raises(TransformError, match="returned 2 rows for one record: with `frames: record`"):
        by_record(lambda frame: pd.concat([frame, frame]), RECORDS)


def test_without_records_a_function_of_records_is_not_called() -> None:
    (made,) = by_record(lambda frame: frame.iloc[[0]], RECORDS.slice(0, 0))
    assert made.schema == RECORDS.schema


def test_a_value_that_no_longer_fits_changes_the_type() -> None:
    (made,) = by_record(lambda frame: frame.assign(id="n" + str(frame["id"].iloc[0])), RECORDS)
    assert made.column("id").to_pylist() == ["n1", "n2", "n9007199254740993"]
    with pytest.raises(TransformError, match="mixed types"):
        by_record(lambda frame: frame.assign(id="x" if frame["id"].iloc[0] == 1 else 5), RECORDS)


NOON = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize("through", [applied, by_record])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([date(2026, 1, 1), NOON], "a date and datetime"),
        ([NOON.replace(tzinfo=None), NOON], "times with a time zone and times without one"),
    ],
)
def test_dates_and_times_that_arrow_would_change_silently_are_an_error(
    through: Callable[..., list[pa.RecordBatch]], values: list[Any], said: str
) -> None:
    left = list(values)

    def function(frame: Any) -> Any:
        taken = [left.pop(0) for _ in range(len(frame))]
        return frame.assign(at=pd.Series(taken, dtype=object))

    with pytest.raises(TransformError, match=said):
        through(function, pa.record_batch({"id": [1, 2]}))


def test_dates_with_nothing_among_them_are_dates() -> None:
    (batch,) = applied(
        lambda frame: frame.assign(day=pd.Series([date(2026, 1, 1), pd.NaT, None], dtype=object)),
        pa.record_batch({"id": [1, 2, 3]}),
    )
    assert batch["day"].to_pylist() == [date(2026, 1, 1), None, None]


@pytest.mark.parametrize("value", [2**70, 1j, pd.Period("2024-01", "M"), pd.Interval(0, 1)])
def test_a_value_without_a_type_names_block_and_column(value: Any) -> None:
    with pytest.raises(TransformError, match=r"block '.*': column 'odd' holds values for which there is no type"):
        applied(lambda frame: frame.assign(odd=pd.Series([value])), pa.record_batch({"id": [1]}))


@pytest.mark.parametrize("through", [applied, by_record])
@pytest.mark.parametrize("as_item", [lambda inner: [inner], lambda inner: {"a": inner}, lambda inner: (inner,)])
def test_values_nested_too_deeply_for_a_type_are_an_error(
    through: Callable[..., list[pa.RecordBatch]], as_item: Callable[[Any], Any]
) -> None:
    def nested(levels: int) -> Any:
        value: Any = 1
        for _ in range(levels):
            value = as_item(value)
        return value

    def function(levels: int) -> Callable[[Any], Any]:
        return lambda frame: frame.assign(deep=pd.Series([nested(levels)] * len(frame), dtype=object))

    (batch,) = through(function(100), pa.record_batch({"id": [1, 2]}))
    assert batch["deep"][1].is_valid
    for levels in (101, 9_900):  # at so many levels Arrow's own recursion would end the process
        with pytest.raises(TransformError, match="no type: lists or objects in more than 100 levels"):
            through(function(levels), pa.record_batch({"id": [1, 2]}))


@pytest.mark.parametrize("kind", [pa.string(), pa.uuid(), pa.timestamp("us", "UTC")], ids=str)
def test_keys_of_several_columns_are_compared_together(kind: pa.DataType) -> None:
    values = {
        pa.uuid(): [bytes([number]) * 16 for number in (1, 2)],
        pa.timestamp("us", "UTC"): [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2)],
    }
    first = pa.array([1, 2], pa.int64())
    batch = pa.record_batch([first, pa.array(values.get(kind, ["a", "b"]), kind)], names=["n", "k"])
    stream = Stream(name="s", schema=batch.schema, key_properties=("n", "k"))

    def apply(function: Callable[[Any], Any]) -> pa.RecordBatch:
        return Transformer("block", [function], {}, kept_keys="its keys are compared").apply(batch, stream)

    assert apply(lambda frame: frame[frame["n"] == 2]).num_rows == 1
    with pytest.raises(TransformError, match=r"returned 2 record\(s\) of stream 's' with a key \(n = 2, k = "):
        apply(lambda frame: frame.assign(n=frame["n"].iloc[::-1].to_numpy()))
