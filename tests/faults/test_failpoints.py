"""A fault at every commit point that a run reaches, found by tracing a run, not by a list; then a clean restart."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import pytest

from tests.faults.conftest import Count
from tests.faults.oracle import untrue, violations
from tests.faults.workshop import Workshop
from tests.zygote import Zygote

pytestmark = pytest.mark.full

HOSTILE = 'Robert"); DROP TABLE "orders"; --é \'x\''
INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["t"]}
SHARDS = 10
#: Cases of a shard in the set of each commit; so many of them at points of the destination and of the stream. The run
#: store's own points are struck by `test_arrive_kills` as well.
CASES, CASES_OF_DATA = 6, 3

#: Where in a pipeline's life the fault strikes.
PHASES = ("first", "second", "recovery")
ERRORS, SIGNALS = ("kill", "raise"), ("sigterm", "sigint")
#: How a process ends by each.
CODES = {"kill": -signal.SIGKILL, "sigterm": 128 + signal.SIGTERM, "sigint": 128 + signal.SIGINT}
#: In the set of each commit: mostly kills.
MIX = ("kill", "kill", "raise", "kill", "sigterm")


def make(zygote: Zygote, folder: Path, destination: str, store: str, url: str, disposition: str) -> Workshop:
    """The reference pipeline: normal, empty and hostile; several batches and checkpoints."""
    workshop = Workshop(zygote, folder, destination=destination, store=store, url=url)
    workshop.document["concurrency"] = 1
    workshop.source_settings.update({"checkpoint_records": 3, "batch_size": 2})
    method = {"replace": {}, "replace_range": {"range_column": "id"}}.get(disposition, INCREMENTAL)
    workshop.stream("orders", 9, write_disposition=disposition, **method)
    workshop.stream("empty", 0)
    workshop.stream(HOSTILE, 5, write_disposition="append")
    return workshop


def prepare(workshop: Workshop, phase: str, kept: Path | None = None) -> int:
    """Bring a fresh folder to where a phase begins; return how many processes were killed on the way.

    Args:
        workshop: the pipeline.
        phase: one of `PHASES`.
        kept: folder in which what comes before is run once, to be copied, where the folder holds all of it.
    """
    workshop.write()
    if phase == "first":
        return 0
    if kept is None or "postgres" in (workshop.destination, workshop.store):
        _run_before(workshop, phase)
    else:
        kept = kept / phase
        if not kept.exists():
            shutil.copytree(workshop.folder, kept)
            _run_before(workshop.moved(kept), phase)
        shutil.copytree(kept, workshop.folder, dirs_exist_ok=True)
        # What is still due is called in the file that was recorded.
        workshop.change_store(f"update _syncblocks_attempt set plan = replace(plan, '{kept}/', '{workshop.folder}/')")
    workshop.grow("orders", 5)
    workshop.write()
    return int(phase == "recovery")


def _run_before(workshop: Workshop, phase: str) -> None:
    if phase == "second":
        assert workshop.run().code == 0
    else:
        # The first commits are of takeovers for some, and of the ledger for others.
        number = {"sqlite": 2, "delta": 3}.get(workshop.destination, 4)
        point = f"{workshop.destination}.commit.after:{number}:kill"
        assert workshop.run(failpoint=point).code == -signal.SIGKILL


def trace(zygote: Zygote, shared: Path, destination: str, store: str, url: str) -> list[tuple[str, str]]:
    """Return every (phase, point:hit) that a run reaches; traced once a session, shared by all workers."""
    kept = shared / f"trace-{destination}-{store}.json"
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            found = []
            for phase in PHASES:
                workshop = make(
                    zygote, shared / f"trace-{destination}-{store}-{phase}", destination, store, url, "append"
                )
                prepare(workshop, phase)
                traced = workshop.folder / "points"
                assert workshop.run(trace=traced).code == 0
                found += [[phase, line] for line in traced.read_text().splitlines()]
                if url:
                    wipe(url)
            kept.write_text(json.dumps(found))
        return [(phase, point) for phase, point in json.loads(kept.read_text())]


def wipe(url: str) -> None:
    """Empty a PostgreSQL database."""
    from tests.faults.workshop import postgres

    with postgres(url) as connection:
        connection.execute("drop schema public cascade; create schema public")


def strike(workshop: Workshop, phase: str, point: str, action: str, kept: Path) -> tuple[bool, list[str]]:
    """Run into one fault, restart, and say whether it happened and what is wrong then."""
    kills = prepare(workshop, phase, kept)
    reached = workshop.folder / "reached"
    process = workshop.run(failpoint=f"{point}:{action}", trace=reached)
    was_hit = reached.exists() and point in reached.read_text().splitlines()
    found = untrue(workshop, process)
    if was_hit and action in CODES and process.code != CODES[action]:
        found.append(f"{action} was answered by {process.code}: {process.log()[-2000:]}")
    if process.code == 3:
        found.append(f"one fault kept callbacks from being delivered to the end: {process.log()[-6000:]}")
    if was_hit and action in SIGNALS:
        found += violations(workshop, kills=kills, has_data=False)
    last = workshop.run()
    if last.code != 0:
        found.append(f"the restart ended with {last.code}: {last.log()[-3000:]}")
    found += untrue(workshop, last) + violations(workshop, kills=kills + 1)
    where = f"{phase} {point} {action}: exit code {process.code}"
    return was_hit, [f"{where}: {violation}" for violation in found]


def chosen(cases: Sequence[tuple[str, str]], shard: int, *, is_full: bool) -> list[tuple[str, str, str]]:
    """Return a shard's cases: all of them, or evenly sampled ones with a mix of actions.

    All are: a kill and an error each time that a point is reached, and each signal once a point and phase, since what
    answers a signal does not know how often the point was reached.
    """
    if is_full:
        every = [(*case, action) for case in cases for action in ERRORS]
        places = len({(phase, line.rpartition(":")[0]) for phase, line in cases})
        every += [(*case, action) for case in one_of_each(cases, PHASES, places) for action in SIGNALS]
        return every[shard::SHARDS]
    data = [case for case in cases if not case[1].startswith("store.")]
    wanted = SHARDS * CASES_OF_DATA
    sampled = {data[number * len(data) // wanted] for number in range(wanted)}
    sampled |= set(one_of_each([case for case in cases if case not in data], PHASES, SHARDS * (CASES - CASES_OF_DATA)))
    mixed = [(*case, MIX[number % len(MIX)]) for number, case in enumerate(case for case in cases if case in sampled)]
    return mixed[shard::SHARDS]


def one_of_each(cases: Sequence[tuple[str, str]], phases: Sequence[str], wanted: int) -> list[tuple[str, str]]:
    """Return so many cases, each of another phase or point: all points in one phase, then in another.

    Of evenly taken ones many would strike what is reached at every event, and none half of the points.
    """
    hits: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for phase, line in cases:
        hits.setdefault((phase, line.rpartition(":")[0]), []).append((phase, line))
    by_turn = sorted(hits, key=lambda place: (phases.index(place[0]) + crc32(place[1].encode())) % len(phases))
    seen: Counter[str] = Counter()
    turns = {}
    for place in by_turn:
        turns[place] = seen[place[1]]
        seen[place[1]] += 1
    first = sorted(by_turn, key=turns.__getitem__)[:wanted]
    # Neither always the first time that a point is reached nor always the last.
    return [hits[place][number * 7 % len(hits[place])] for number, place in enumerate(first)]


def run_shard(
    zygote: Zygote, folder: Path, destination: str, store: str, url: str, shard: int, disposition: str, is_full: bool
) -> tuple[int, list[str]]:
    """Strike at every case of a shard; return how many faults happened and all violations."""
    cases = trace(zygote, folder.parent, destination, store, url)
    assert len(cases) >= 100
    hits, found = 0, []
    for number, (phase, point, action) in enumerate(chosen(cases, shard, is_full=is_full)):
        workshop = make(zygote, folder / str(number), destination, store, url, disposition)
        was_hit, wrong = strike(workshop, phase, point, action, folder / "kept")
        hits += was_hit
        found += wrong
        if url:
            wipe(url)
    return hits, found


IS_FULL = os.environ.get("SYNCBLOCKS_FAULTS") == "full"
PLACES = [("duckdb", "sqlite", shard) for shard in range(SHARDS)]
PLACES += [
    (*place, shard)
    for place in [
        ("delta", "sqlite"),
        ("postgres", "postgres"),
        ("sqlite", "sqlite"),
        ("postgres", "sqlite"),
        ("duckdb", "postgres"),
    ]
    for shard in (
        range(SHARDS)
        if IS_FULL
        else (3,)
        if place[0] == "sqlite"
        else (1,)
        if place[0] == "delta"
        else (4, 7)
        if place[1] == place[0]
        else ()
    )
]


@pytest.mark.timeout(0 if IS_FULL else 300)
@pytest.mark.parametrize(("destination", "store", "shard"), PLACES)
def test_a_fault_at_every_commit_point_loses_doubles_and_forgets_nothing(
    zygote: Zygote,
    folder: Path,
    postgres_url: str,
    destination: str,
    store: str,
    shard: int,
    injected: Count,
    is_full: bool,
) -> None:
    dispositions = ("append", "merge", "replace", "replace_range")
    disposition = dispositions[shard % (3 if destination == "delta" else 4)]
    url = postgres_url if "postgres" in (destination, store) else ""
    hits, found = run_shard(zygote, folder, destination, store, url, shard, disposition, is_full)
    injected(hits)
    assert found == []
    assert hits >= CASES // 2


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
@pytest.mark.parametrize("point", ["store.lease.before", "store.lease.after", "store.lease.ahead", "store.mark.after"])
def test_one_fault_of_the_store_while_it_delivers_heals_within_the_run(
    zygote: Zygote, folder: Path, postgres_url: str, store: str, point: str, injected: Count
) -> None:
    workshop = make(zygote, folder, "duckdb", store, postgres_url, "append")
    workshop.write()
    process = workshop.run(failpoint=f"{point}:1:raise", trace=folder / "reached")
    assert f"{point}:1" in (folder / "reached").read_text().split()
    injected()
    assert process.code == 0, process.log()
    assert violations(workshop, kills=1) == []
