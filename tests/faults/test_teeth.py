"""Engines that are broken on purpose, one way each: the fault tests catch all of them, and nothing in the sound one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.faults import test_failpoints, test_kill_loop, test_zombie
from tests.faults.broken import ENGINES
from tests.faults.conftest import Count
from tests.faults.oracle import untrue, violations
from tests.faults.test_flags import make_many
from tests.faults.workshop import Workshop
from tests.zygote import Zygote

pytestmark = pytest.mark.full

Hunt = Callable[[Zygote, Path, "str | None"], list[str]]


def strikes(points: Sequence[str], action: str = "kill", groups: Sequence[Sequence[str]] = ()) -> Hunt:
    """Return a hunt that runs into faults at some of the points that the failpoint tests enumerate."""

    def hunt(zygote: Zygote, folder: Path, broken: str | None) -> list[str]:
        found: list[str] = []
        for number, point in enumerate(points):
            workshop = test_failpoints.make(zygote, folder / str(number), "sqlite", "sqlite", "", "append")
            workshop.document["drain_s"] = 5
            workshop.source_settings["groups"] = groups
            workshop.write()
            workshop.run(failpoint=f"{point}:{action}", broken=broken)
            last = workshop.run(broken=broken)
            found += [] if last.code == 0 else [f"the restart ended with {last.code}"]
            found += untrue(workshop, last) + violations(workshop, kills=1)
        return found

    return hunt


def wake_a_zombie(zygote: Zygote, folder: Path, broken: str | None) -> list[str]:
    """Freeze a process before a commit, take over, wake it up."""
    workshop = test_zombie.make(zygote, folder, "sqlite", "sqlite", "")
    return test_zombie.revive(workshop, "stream.after_commit:1", broken)


def run_several(zygote: Zygote, folder: Path, broken: str | None) -> list[str]:
    """Run several streams, of which one fails."""
    workshop = make_many(zygote, folder, "sqlite", "", "teeth", streams=8, concurrency=1)
    workshop.source_settings["fail_at"] = {next(n for n, table in workshop.tables.items() if table["records"]): 1}
    workshop.document |= {"allow_blocks_to_fail": True, "drain_s": 2}
    workshop.write()
    process = workshop.run(broken=broken)
    workshop.document["allow_blocks_to_fail"] = False
    workshop.write()
    process = workshop.run(broken=broken)
    return untrue(workshop, process) + violations(workshop, has_data=False)


def start_twice(zygote: Zygote, folder: Path, broken: str | None) -> list[str]:
    """Start a pipeline while it runs."""
    workshop = test_kill_loop.make(zygote, folder, "sqlite", "sqlite", "")
    workshop.source_settings["delay_s"] = 0.2
    workshop.write()
    first = workshop.start(broken=broken)
    _wait_for_claim(workshop)
    second = workshop.run(broken=broken)
    codes = (first.wait(), second.code)
    found = [] if codes == (0, 2) else [f"exit codes {codes}"]
    return found + violations(workshop)


def _wait_for_claim(workshop: Workshop) -> None:
    deadline = time.monotonic() + 30
    while not workshop.store_rows("select * from _syncblocks_stream_run where status = 'running'"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


COMMITS = strikes(["sqlite.commit.inside:2", "sqlite.commit.inside:8", "sqlite.commit.after:8"])

#: What catches which; each hunt finds nothing in the sound engine.
HUNTS: dict[str, Hunt] = {
    "token_is_not_checked": wake_a_zombie,
    "ledger_is_written_after_the_data": COMMITS,
    "recovery_believes_nothing_was_committed": COMMITS,
    "doubt_counts_as_failure": strikes(["sqlite.commit.after:8", "stream.after_commit:5"], "raise"),
    "events_are_written_behind_the_close": strikes(["store.close.after:1", "store.close.after:2"]),
    "flag_is_found_by_counting": run_several,
    # Between a group and the next one nothing is open.
    "flag_is_decided_at_the_plan": strikes(["store.close.after:2"], "sigterm", [["orders", "empty"]]),
    "delivery_is_marked_before_the_call": strikes(["store.mark.after:1", "store.mark.after:4"]),
    "every_owner_is_dead": start_twice,
}


def test_there_is_a_hunt_for_each_broken_engine() -> None:
    assert set(HUNTS) == set(ENGINES)
    assert len(ENGINES) >= 8


@pytest.mark.parametrize("broken", sorted(HUNTS))
def test_a_broken_engine_is_caught(zygote: Zygote, folder: Path, broken: str, injected: Count) -> None:
    found = HUNTS[broken](zygote, folder, broken)
    injected()
    assert found != [], f"{broken} goes unnoticed"


@pytest.mark.parametrize("hunt", list(dict.fromkeys(HUNTS.values())), ids=lambda hunt: hunt.__qualname__)
def test_nothing_is_found_in_the_sound_engine(zygote: Zygote, folder: Path, hunt: Hunt) -> None:
    assert hunt(zygote, folder, None) == []
