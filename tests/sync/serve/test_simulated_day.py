"""A simulated day of schedules of all kinds, with a change of the clock: each time is decided exactly once."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.sync.serve.simulated_day import Day
from tests.sync.store.store_helpers import store_url_of

#: In Berlin 02:00 becomes 03:00 on the first day; on Lord Howe 02:00 becomes 01:30 on the second.
BERLIN, LORD_HOWE = datetime(2027, 3, 27, 13, 0, 7, tzinfo=UTC), datetime(2027, 4, 3, 3, 0, 7, tzinfo=UTC)
IS_FULL = os.environ.get("SYNCBLOCKS_FAULTS") == "full"


@pytest.mark.full
@pytest.mark.timeout(7200 if IS_FULL else 300)
@pytest.mark.parametrize(
    ("kind", "start", "count"), [("sqlite", BERLIN, 100), ("sqlite", LORD_HOWE, 70), ("postgres", BERLIN, 50)]
)
def test_each_time_of_a_day_is_decided_once(
    kind: str, start: datetime, count: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The full set has ten thousand schedules."""
    request.param = kind
    count = 10_000 if IS_FULL else count
    day = Day(store_url_of(request, tmp_path), start, count)
    assert day.run() == []
    assert day.ended > 10 * count
