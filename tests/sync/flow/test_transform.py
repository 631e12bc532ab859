"""What a transformer's frame becomes: the values and columns that the user's function returned, none cut or lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

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
    with pytest.raises(TransformError, match=r"timestamp\[us, tz=UTC\] in an earlier batch"):
        applied(lambda frame: frame if len(frame) == 1 else local(frame), *batches)
