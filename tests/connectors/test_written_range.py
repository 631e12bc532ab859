"""Ranges of `replace_range` in the types of columns."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pyarrow as pa
import pytest

from syncblocks.connectors.replace_range import bound, is_within

MOMENT = datetime(2024, 3, 1, 12, 30, 0, 500_000, UTC)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.timestamp("us"), MOMENT.replace(tzinfo=None)),
        (pa.timestamp("ms", "UTC"), MOMENT),
        (pa.timestamp("s"), MOMENT.replace(second=1, microsecond=0, tzinfo=None)),  # no second lies between
    ],
    ids=str,
)
def test_a_bound_lets_in_what_the_moment_would(kind: pa.DataType, expected: datetime) -> None:
    assert bound(MOMENT, kind).as_py() == expected
    assert bound(MOMENT.astimezone(timezone(timedelta(hours=3))), kind).as_py() == expected


def test_a_day_begins_at_midnight_in_utc() -> None:
    assert bound(datetime(1969, 12, 31, tzinfo=UTC), pa.date32()).as_py() == date(1969, 12, 31)
    with pytest.raises(ValueError, match="not at 00:00 UTC"):
        bound(MOMENT, pa.date32())


def test_what_a_type_does_not_reach_is_refused() -> None:
    with pytest.raises(ValueError, match="does not reach"):
        bound(datetime(2300, 1, 1, tzinfo=UTC), pa.timestamp("ns"))
    with pytest.raises(ValueError, match="int64"):
        bound(MOMENT, pa.int64())


def test_the_end_is_not_within() -> None:
    ends = (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC))
    days = pa.array([date(2023, 12, 31), date(2024, 1, 1), date(2024, 1, 2), date(2024, 1, 3), None])
    assert is_within(days, ends).to_pylist() == [False, True, True, False, None]
