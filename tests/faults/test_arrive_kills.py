"""`kill -9` at every point around closing, leasing, calling and marking, for every status: each event arrives."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from tests.faults.arrivals import SCENARIOS, arguments, expected_double, is_killed, prepared, violations
from tests.faults.conftest import Count
from tests.faults.test_failpoints import one_of_each, wipe
from tests.zygote import Zygote

pytestmark = pytest.mark.full

#: Cases in the set of each commit, by mode and store; all of them in the full set.
CASES = {("inline", "sqlite"): 80, ("child", "sqlite"): 16, ("inline", "postgres"): 8}
#: So many parts of each, to be run side by side.
SHARDS = {("inline", "sqlite"): 6, ("child", "sqlite"): 2, ("inline", "postgres"): 2}
PARTS = [(*place, shard) for place, shards in SHARDS.items() for shard in range(shards)]
#: Calls of a child at which it kills its engine.
CALLS = (1, 2, 4)

Case = tuple[str, str]  # scenario, and point:hit or a call of the child


def trace(zygote: Zygote, shared: Path, mode: str) -> list[Case]:
    """Return every point that a run of each scenario reaches; traced once a session, shared by all workers."""
    folder = common(shared, mode)
    folder.mkdir(exist_ok=True)
    kept = folder / "points.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            found = []
            for name in SCENARIOS:
                workshop = prepared(zygote, folder / name, name, kept=folder, mode=mode)
                traced = workshop.folder / "points"
                process = workshop.run(*arguments(mode), trace=traced)
                assert process.code in (0, 1), process.log()
                points = [point for point in traced.read_text().splitlines() if is_ours(point)]
                if mode == "child":
                    points += [f"call:{number}:{place}" for number in CALLS for place in ("before", "after")]
                found += [(name, point) for point in points]
            kept.write_text(json.dumps(found))
        return [(name, point) for name, point in json.loads(kept.read_text())]


def common(shared: Path, mode: str) -> Path:
    """Return the folder of a mode's trace, and of what the runs before were."""
    return shared / f"arrive-{mode}"


def is_ours(point: str) -> bool:
    """Whether a point is about runs and their events, not about the data."""
    return point.startswith(("store.", "call."))


def strike(
    zygote: Zygote, folder: Path, name: str, point: str, *, kept: Path, mode: str, store: str, url: str
) -> tuple[bool, list[str]]:
    """Kill a run at one point, start the next one; say whether it was hit, and what is wrong then."""
    workshop = prepared(zygote, folder, name, kept=kept, mode=mode, store=store, url=url)
    traced = folder / "points"
    traced.touch()
    if point.startswith("call:"):
        _, number, place = point.split(":")
        kill = {"environment": {"ARRIVE_KILL": f"{number}:{place}"}}
        process = workshop.run(*arguments(mode), trace=traced, **kill)
        doubled = "must" if place == "after" else "not"
    else:
        process = workshop.run(*arguments(mode), trace=traced, failpoint=f"{point}:kill")
        doubled = expected_double(traced.read_text().splitlines(), mode, point)
    if not is_killed(process):
        doubled = "not"
    last = workshop.run(*arguments(mode))
    found = [] if last.code in (0, 1) else [f"the next start ended with {last.code}: {last.log()[-3000:]}"]
    found += violations(workshop, name, doubled=doubled)
    return is_killed(process), [f"{mode} {store}: {name}: {point}: {violation}" for violation in found]


def chosen(cases: list[Case], number: int, *, is_full: bool) -> list[Case]:
    """Return all cases, or so many of them: each point once, then once more in another scenario."""
    return cases if is_full else one_of_each(cases, list(SCENARIOS), number)


@pytest.mark.timeout(0 if os.environ.get("SYNCBLOCKS_FAULTS") == "full" else 120)
@pytest.mark.parametrize(("mode", "store", "shard"), PARTS)
def test_every_event_arrives_wherever_the_process_is_killed(
    zygote: Zygote,
    folder: Path,
    shared_folder: Path,
    request: pytest.FixtureRequest,
    mode: str,
    store: str,
    shard: int,
    injected: Count,
    is_full: bool,
) -> None:
    url = request.getfixturevalue("postgres_url") if store == "postgres" else ""
    cases = chosen(trace(zygote, shared_folder, mode), CASES[mode, store], is_full=is_full)[
        shard :: SHARDS[mode, store]
    ]
    kept, hits, found = common(shared_folder, mode), 0, []
    for number, (name, point) in enumerate(cases):
        place = folder / str(number)
        was_hit, wrong = strike(zygote, place, name, point, kept=kept, mode=mode, store=store, url=url)
        hits += was_hit
        found += wrong
        if url:
            wipe(url)
    injected(hits)
    assert found == []
    # Threads come to some points in another order, or not at all, from run to run.
    assert hits >= len(cases) * 0.6


@pytest.mark.parametrize("mode", ["inline", "child"])
def test_the_points_of_each_status_were_found_by_tracing(zygote: Zygote, shared_folder: Path, mode: str) -> None:
    cases = trace(zygote, shared_folder, mode)
    wanted = ["store.close.after", "store.mark.inside", "store.release_gate.after", "store.end_attempt.inside"]
    wanted += ["call.before", "call.after", "store.lease.inside"] if mode == "inline" else ["store.lease.ahead"]
    for name in set(SCENARIOS) - {"before the first stream"}:
        points = {point.rpartition(":")[0] for scenario, point in cases if scenario == name}
        assert set(wanted) - points == set(), name
    assert len(cases) >= CASES[mode, "sqlite"]
    if mode == "inline":  # few cases strike every point too
        few = chosen(cases, CASES[mode, "sqlite"], is_full=False)
        assert {point.rpartition(":")[0] for _, point in few} == {point.rpartition(":")[0] for _, point in cases}
