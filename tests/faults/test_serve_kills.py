"""Servers killed at random, and the processes that they start: each time of a schedule is one run, or skipped once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.conftest import Count
from tests.faults.serve_rounds import Rounds
from tests.zygote import Zygote

pytestmark = pytest.mark.full


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_each_time_is_one_run_or_skipped_once(
    kind: str,
    zygote: Zygote,
    folder: Path,
    request: pytest.FixtureRequest,
    injected: Count,
    is_full: bool,
) -> None:
    """Three servers on PostgreSQL, two on SQLite; the full set has fifty rounds of `every: 10s`."""
    url = request.getfixturevalue("postgres_url") if kind == "postgres" else f"sqlite:///{folder}/store.db"
    servers = 3 if kind == "postgres" else 2
    if is_full:
        rounds = Rounds(zygote, folder, url, every_s=10, seed=1)
        rounds.run(servers, 50, 10.0)
    else:
        rounds = Rounds(zygote, folder, url, every_s=2, seed=1, pipelines=("skips", "all"))
        rounds.run(servers, 4, 3.0)
    injected(sum(rounds.kills.values()))
    figures = rounds.figures()
    assert rounds.violations() == [], figures
    assert "('run', " in figures
