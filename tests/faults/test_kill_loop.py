"""`kill -9` at random moments, and a restart: rows once, callbacks at least once, nothing left open."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Count
from tests.faults.oracle import untrue, violations
from tests.faults.workshop import Workshop
from tests.zygote import Zygote

pytestmark = pytest.mark.full

INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["t"]}


def make(zygote: Zygote, folder: Path, destination: str, store: str, url: str) -> Workshop:
    """Five streams, one a way in which records can be lost or doubled."""
    workshop = Workshop(zygote, folder, destination=destination, store=store, url=url)
    workshop.stream("full", 10, write_disposition="append")
    workshop.stream("added", 10, write_disposition="append", **INCREMENTAL)
    workshop.stream("merged", 10, write_disposition="merge", **INCREMENTAL)
    workshop.stream("replaced", 10, write_disposition="replace")
    if destination != "delta":
        workshop.stream("ranged", 10, write_disposition="replace_range", range_column="id")
    workshop.source_settings.update({"checkpoint_records": 4, "delay_s": 0.01})
    return workshop


def kill_loop(
    workshop: Workshop, kills: int, seed: str, *, broken: str | None = None, stop_early: bool = False
) -> tuple[int, list[str]]:
    """Kill and restart; return how often a living process was hit, and what was wrong at the end of each round."""
    chance = random.Random(seed)
    workshop.write()
    began = time.monotonic()
    first = workshop.run(broken=broken)
    usual_s = time.monotonic() - began
    found = [] if first.code == 0 else [f"a quiet run ended with {first.code}: {first.log()[-2000:]}"]
    hit = 0
    while hit < kills and not found:
        for name in sorted(workshop.tables.keys() - {"full"}):
            workshop.grow(name, chance.randrange(0, 8))
        workshop.write()
        for _ in range(chance.choice((1, 1, 2, 3))):
            process = workshop.start(broken=broken)
            process.zygote.read_until(lambda ended=process: ended.code is not None, chance.uniform(0.0, usual_s * 1.1))
            process.kill()
            hit += process.code == -9
            found += untrue(workshop, process)
        last = workshop.run(broken=broken)
        if last.code != 0:
            found.append(f"the restart ended with {last.code}: {last.result()} {last.log()[-3000:]}")
        found += untrue(workshop, last) + violations(workshop, kills=hit)
    return hit, found


@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("destination", "store"),
    [
        ("duckdb", "sqlite"),
        ("postgres", "postgres"),
        ("sqlite", "postgres"),
        ("postgres", "sqlite"),
        ("duckdb", "postgres"),
        ("sqlite", "sqlite"),
        ("delta", "sqlite"),
    ],
)
def test_nothing_is_lost_doubled_or_left_open_whenever_the_process_is_killed(
    zygote: Zygote, folder: Path, postgres_url: str, destination: str, store: str, injected: Count, is_full: bool
) -> None:
    workshop = make(zygote, folder, destination, store, postgres_url)
    kills = 100 if is_full else 6
    hit, found = kill_loop(workshop, kills, f"{destination} {store}")
    injected(hit)
    assert found == []
    assert hit >= kills
