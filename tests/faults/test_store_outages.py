"""A run store that does not answer for a while: each time is a run, or is skipped for the true reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.conftest import Count
from tests.faults.store_outages import Missed, Outage

pytestmark = pytest.mark.full

#: Outages of each `missed`.
OUTAGES = 50 if os.environ.get("SYNCBLOCKS_FAULTS") == "full" else 2


@pytest.mark.parametrize("missed", ["latest", "all", "skip"])
@pytest.mark.parametrize("seed", range(OUTAGES))
def test_each_time_of_an_outage_is_a_run_or_is_skipped_for_the_true_reason(
    seed: int, missed: Missed, folder: Path, injected: Count, request: pytest.FixtureRequest
) -> None:
    """Time is virtual. For even seeds calls of the store fail, for odd seeds a call hangs."""
    url = request.getfixturevalue("postgres_url") if seed % 5 == 1 else f"sqlite:///{folder}/store.db"
    day = Outage(url, missed, seed)
    injected()
    assert day.run() == []
