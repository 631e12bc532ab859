"""Every benchmark, small and once: kept alive, and what it writes is right. Nothing is said of time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import services

from .bench import workshop
from .scenarios import SCENARIOS


@pytest.mark.postgres
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_benchmark_writes_what_it_read(name: str, tmp_path: Path) -> None:
    if shutil.which("psql") is None:
        services.missing("psql is not installed")
    with workshop(tmp_path, services.postgres_server(), rows=2000, tables=5, repeat=1) as bench:
        figures = SCENARIOS[name](bench)  # checks its own records
    assert figures
    assert all(figure.usage.wall_s > 0 for figure in figures)
