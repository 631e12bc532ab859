"""A table that is loaded by ranges, with faults between and inside of them: all of it or nothing, of one moment."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Count
from tests.faults.oracle import untrue, violations
from tests.faults.test_zombie import revive
from tests.faults.workshop import LOADER, Workshop, postgres
from tests.zygote import Zygote

pytestmark = pytest.mark.full

#: Strikes of each commit; the full set strikes everywhere.
CASES = 6


class Ranged(Workshop):
    """One stream, out of a table of the same PostgreSQL database, in about ten ranges."""

    def __init__(self, zygote: Zygote, folder: Path, url: str, disposition: str) -> None:
        super().__init__(zygote, folder, destination="postgres", url=url)
        with postgres(url) as connection:
            connection.execute("create schema src; create table src.a (id bigint primary key, t bigint, v text)")
        config = {"url": url, "schema": "src", "range_bytes": 8192}
        self.document["source"] = {"block": LOADER, "connector": "postgres", "config": config}
        self.document["parallel_reads"] = 3
        # One table name for both sides, so that the oracle finds it: `src.a`, in the schema public.
        self.stream("src.a", 200, destination_table='"src.a"', write_disposition=disposition)

    def grow(self, name: str, records: int) -> None:
        held = self.tables[name]["records"]
        made = [{"id": n, "t": n // 2, "v": f"{n}-" + "x" * 400} for n in range(len(held), len(held) + (records or 5))]
        held += made
        with postgres(self.url) as connection, connection.cursor() as cursor:
            cursor.executemany("insert into src.a values (%(id)s, %(t)s, %(v)s)", made)
            # What is read moves about in the table, and into other ranges.
            for record in held[:: random.Random(len(held)).randrange(5, 15)]:
                record["t"] += 1
                cursor.execute("update src.a set t = %(t)s where id = %(id)s", record)


@pytest.fixture
def ranged(zygote: Zygote, folder: Path, postgres_url: str, request: pytest.FixtureRequest) -> Ranged:
    made = Ranged(zygote, folder, postgres_url, getattr(request, "param", "replace"))
    made.write()
    return made


@pytest.mark.timeout(0)
@pytest.mark.parametrize("shard", range(2))
def test_a_fault_at_any_point_of_a_load_by_ranges_loses_and_doubles_nothing(
    ranged: Ranged, shard: int, injected: Count, is_full: bool
) -> None:
    traced = ranged.folder / "points"
    assert ranged.run(trace=traced).code == 0
    points = [point for point in traced.read_text().splitlines() if point.startswith(("postgres.", "stream."))]
    assert sum(point.startswith("postgres.range.before:") for point in points) > 5
    cases = points if is_full else [points[number * len(points) // (2 * CASES)] for number in range(2 * CASES)]
    found, kills = [], 0
    for number, point in enumerate(cases[shard::2]):
        ranged.grow("src.a", 20)
        action = ("kill", "kill", "raise", "kill", "sigint")[number % 5]
        process = ranged.run(failpoint=f"{point}:{action}")
        kills += process.code == -9
        last = ranged.run()
        wrong = untrue(ranged, process) + untrue(ranged, last) + violations(ranged, kills=kills)
        wrong += [] if last.code == 0 else [f"the restart ended with {last.code}: {last.log()[-3000:]}"]
        found += [f"{point} {action} ({process.code}): {violation}" for violation in wrong]
        injected()
        if found:
            break
    assert found == []
    assert kills >= 4


@pytest.mark.timeout(0)
@pytest.mark.parametrize("ranged", ["replace", "merge"], indirect=True)
def test_a_fault_while_a_killed_load_is_resumed_loses_and_doubles_nothing(
    ranged: Ranged, injected: Count, is_full: bool
) -> None:
    half = "postgres.range.before:6:kill"
    assert ranged.run().code == 0
    assert ranged.run(failpoint=half).code == -9
    traced = ranged.folder / "points"
    resumed = ranged.run(trace=traced)
    assert (resumed.code, "ranges were loaded before it was cut short, and are kept" in resumed.log()) == (0, True)
    points = [point for point in traced.read_text().splitlines() if point.startswith(("postgres.", "stream."))]
    few = CASES // 2
    cases = points if is_full else [points[number * len(points) // few] for number in range(few)]
    found, kills = [], 1
    for number, point in enumerate(cases):
        if number % 2:
            ranged.grow("src.a", 20)
        kills += ranged.run(failpoint=half).code == -9
        process = ranged.run(failpoint=f"{point}:{('kill', 'kill', 'raise', 'sigint')[number % 4]}")
        kills += process.code == -9
        last = ranged.run()
        wrong = untrue(ranged, process) + untrue(ranged, last) + violations(ranged, kills=kills)
        wrong += [] if last.code == 0 else [f"the restart ended with {last.code}: {last.log()[-3000:]}"]
        found += [f"{point} ({process.code}): {violation}" for violation in wrong]
        injected(2)
        if found:
            break
    assert found == []


@pytest.mark.timeout(0)
def test_a_kill_at_a_random_moment_loses_and_doubles_nothing(ranged: Ranged, injected: Count, is_full: bool) -> None:
    chance = random.Random("ranges")
    began = time.monotonic()
    assert ranged.run().code == 0
    usual_s = time.monotonic() - began
    hit, found = 0, []
    while hit < (100 if is_full else 4) and not found:
        ranged.grow("src.a", chance.randrange(1, 30))
        process = ranged.start()
        process.zygote.read_until(lambda ended=process: ended.code is not None, chance.uniform(0.0, usual_s))
        process.kill()
        hit += process.code == -9
        last = ranged.run()
        found += [] if last.code == 0 else [f"the restart ended with {last.code}: {last.log()[-3000:]}"]
        found += untrue(ranged, process) + untrue(ranged, last) + violations(ranged, kills=hit)
    injected(hit)
    assert found == []


@pytest.mark.parametrize("point", ["postgres.range.before:3", "postgres.commit.after:4"])
def test_a_process_that_was_frozen_in_a_range_writes_nothing_when_it_wakes_up(
    ranged: Ranged, point: str, injected: Count
) -> None:
    found = revive(ranged, point)
    injected()
    assert found == []


def test_a_killed_run_of_an_earlier_version_whose_workers_loaded_ranges_is_read_anew(
    ranged: Ranged, injected: Count
) -> None:
    assert ranged.run(failpoint="postgres.range.before:6:kill").code == -9
    # What the earlier version has left: a claim for each range that a worker had, and loaded ranges of its own shape.
    columns = "nonce, run_id, attempt, stream, range_order, worker"
    for number in range(3):
        values = f"'n{number}', 1, 1, 'src.a', '{{}}', '{{}}'"
        ranged.change_store(f"insert into _syncblocks_range_claim ({columns}) values ({values})")
    (ledger,) = (name for name in ranged.leftovers() if name.endswith("_r"))
    with postgres(ranged.url) as connection:
        connection.execute(f"update public.{ledger} set shape = 'of an earlier version'")
    last = ranged.run()
    injected()
    assert last.code == 0, last.log()
    assert "and are kept" not in last.log()
    assert untrue(ranged, last) + violations(ranged, kills=1) == []
    assert ranged.leftovers() == []
