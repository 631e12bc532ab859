"""A simulated day of schedules of all kinds, with a change of the clock: each time is decided exactly once."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.sync.serve.simulated_day import Day
from tests.sync.store.store_helpers import STORES, store_url_of

#: In Berlin 02:00 becomes 03:00 on the first day; on Lord Howe 02:00 becomes 01:30 on the second.
BERLIN, LORD_HOWE = datetime(2027, 3, 27, 13, 0, 7, tzinfo=UTC), datetime(2027, 4, 3, 3, 0, 7, tzinfo=UTC)
COUNT = 10_000 if os.environ.get("SYNCBLOCKS_FAULTS") == "full" else 300


@pytest.mark.full
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("start", [BERLIN, LORD_HOWE], ids=["Berlin", "Lord_Howe"])
@pytest.mark.parametrize("kind", STORES)
def test_each_time_of_a_day_is_decided_once(
    kind: str, start: datetime, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    request.param = kind
    day = Day(store_url_of(request, tmp_path), start, COUNT)
    assert day.run() == []
    assert day.ended > 10 * COUNT
