"""Fixtures of the fault tests, and the count of injected faults at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import services
from tests.faults.histories import seed as history_seed
from tests.faults.shards import this_shard, write

Count = Callable[[int], None]
FAULTS, MOMENTS = "faults", "kills at random moments"


def _base() -> Path:
    """Return a folder in memory where there is one: these tests kill processes, not power, and wait for no disk."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    return place / f"syncblocks-faults-{os.environ[services.SESSION]}"


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and services.SESSION in os.environ:
        shutil.rmtree(_base(), ignore_errors=True)


@pytest.fixture
def shared_folder() -> Path:
    """A folder that all workers of this session share."""
    base = _base()
    base.mkdir(exist_ok=True)
    return base


@pytest.fixture
def folder(shared_folder: Path) -> Iterator[Path]:
    """A folder of this test's own."""
    made = Path(tempfile.mkdtemp(dir=shared_folder))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def injected(request: pytest.FixtureRequest) -> Count:
    """Add to the number of injected faults that is printed at the end."""

    def count(number: int = 1) -> None:
        request.node.user_properties.append((FAULTS, number))

    return count


@pytest.fixture
def killed_at_random(request: pytest.FixtureRequest, injected: Count) -> Count:
    """Add to the number of injected faults, and to that of kills at random moments, which is printed apart."""

    def count(number: int = 1) -> None:
        injected(number)
        request.node.user_properties.append((MOMENTS, number))

    return count


@pytest.fixture(scope="session")
def is_full() -> bool:
    """Whether the full set runs (`make faults`)."""
    return os.environ.get("SYNCBLOCKS_FAULTS") == "full"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    shard = this_shard()
    left_out = [item for item in items if not shard.holds(item.nodeid)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if shard.holds(item.nodeid)]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many faults were injected, over all workers, and leave it for the sum of all shards."""
    stats = terminalreporter.stats
    reports = [report for found in stats.values() for report in found if isinstance(report, pytest.TestReport)]
    calls = [report for report in reports if report.when == "call"]
    said = [each for call in calls for each in call.user_properties]
    injected, moments = (sum(number for name, number in said if name == kind) for kind in (FAULTS, MOMENTS))
    if injected:
        terminalreporter.write_sep("=", f"{injected} injected faults, {moments} of them {MOMENTS}")
    lived = sum("::test_a_history_ends_as_the_oracle_says[" in call.nodeid for call in calls)
    if lived:
        terminalreporter.write_sep("=", f"{lived} histories of SYNCBLOCKS_HISTORIES={history_seed()}")
    if os.environ.get("SYNCBLOCKS_FAULTS") == "full":
        wrong = [*stats.get("failed", ()), *stats.get("error", ())]
        violations = [f"{report.nodeid}: {str(report.longrepr)[-1000:]}" for report in wrong]
        seconds = sum(report.duration for report in reports)
        write(
            this_shard(),
            {
                "tests": len(calls),
                "injected": injected,
                "moments": moments,
                "violations": violations,
                "seconds": seconds,
            },
        )
