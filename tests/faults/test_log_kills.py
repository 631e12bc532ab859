"""LOG_BASED runs beside writers: killed, with their servers killed, and with their connections cut, at every step."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
import pytest

from syncblocks.connectors.errors import ConnectorError
from syncblocks.sync.errors import SyncError
from tests import services
from tests.faults.conftest import Count
from tests.faults.log_oracle import Watched
from tests.zygote import Process, Zygote

pytestmark = [pytest.mark.full, pytest.mark.timeout(0 if os.environ.get("SYNCBLOCKS_FAULTS") == "full" else 300)]

IS_FULL = os.environ.get("SYNCBLOCKS_FAULTS") == "full"
#: Of each connector; then of both servers, and of hand-overs.
KILLS, CUTS, SERVER_KILLS, HANDOVERS = (100, 100, 30, 200) if IS_FULL else (2, 3, 1, 3)
#: Cases of a connector at commit points, all of one phase; each is as dear as three runs.
POINTS = 0 if IS_FULL else 2
#: A run that is let alone after so many that were struck.
IN_A_ROW = 5

CONNECTORS = ("jsonl", "duckdb", "postgres")

#: What a run does that is struck: it makes slot and publication, copies one table, has one more stream, or reads on.
PHASES = ("first", "copied", "added", "changes")


@pytest.fixture(params=CONNECTORS)
def watched(request: pytest.FixtureRequest, zygote: Zygote, tmp_path: Path, log_url: str) -> Watched:
    into = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    return Watched(zygote, tmp_path, log_url, request.param, into)


def prepare(watched: Watched, phase: str) -> tuple[str, ...]:
    """Bring a pipeline that has run to where a phase begins; return the command that is struck."""
    file = watched.logged.file.name
    if phase == "first":
        watched.succeed("log", "drop", file)
        return ("run", "--full-refresh", file)
    if phase == "copied":
        watched.succeed("state", "reset", file, "public.b")
    if phase == "added":
        watched.select("public.a")
        watched.succeed()
        watched.select("public.*")
    return ()


def traced(watched: Watched, phase: str) -> list[str]:
    """Return each point that a run of a phase reaches, the first and the last time; of the run store one of all."""
    words, trace = prepare(watched, phase), watched.logged.folder / f"trace-{phase}"
    with watched.writing():
        assert watched.run(*words, trace=trace).code == 0
    hits: dict[str, list[str]] = {}
    for line in trace.read_text().splitlines():
        hits.setdefault(line.rpartition(":")[0], []).append(line)
    stored = sorted(name for name in hits if name.startswith("store."))
    for name in stored[1:]:
        del hits[name]
    return list(
        dict.fromkeys(line for lines in hits.values() for line in (lines[0], lines[len(lines) // 2], lines[-1]))
    )


def strike(watched: Watched, phase: str, point: str) -> tuple[bool, list[str]]:
    """Kill a run at a point, restart; return whether it was killed, and what is wrong then."""
    words = prepare(watched, phase)
    with watched.writing():
        process = watched.run(*words, failpoint=f"{point}:kill")
        found = watched.ahead()
    if process.code not in (0, -signal.SIGKILL):
        found.append(f"exit code {process.code}: {process.log()[-3000:]}")
    if phase == "first" and watched.run(*words).code:  # what the ledger has forgotten is copied anew by a full refresh
        found.append("the full refresh fails")
    found += watched.wrong()
    return process.code == -signal.SIGKILL, [f"{phase} {point}: {each}" for each in found]


def test_killed_at_every_commit_point_the_tables_are_exact(watched: Watched, injected: Count) -> None:
    watched.succeed()
    phases = PHASES if IS_FULL else (PHASES[CONNECTORS.index(watched.logged.connector)],)
    cases = [(phase, point) for phase in phases for point in traced(watched, phase)]
    assert len(cases) > 12
    if POINTS:
        cases = random.Random(watched.logged.connector).sample(cases, POINTS)
    wrong, struck = [], 0
    for phase, point in cases:
        was_killed, found = strike(watched, phase, point)
        struck, wrong = struck + was_killed, wrong + found
    injected(struck)
    assert wrong == []
    assert struck >= len(cases) * 0.6  # a run that is quicker than the one that was traced passes fewer points


def test_killed_at_random_the_tables_are_exact(watched: Watched, killed_at_random: Count) -> None:
    wrong = struck_at_random(watched, KILLS, lambda process: process.kill())
    killed_at_random(KILLS)
    assert wrong == []


def test_killed_while_tables_are_handed_over_from_copy_to_log(watched: Watched, killed_at_random: Count) -> None:
    """At random steps of a copy that transactions of writers are open across."""
    chance, count = random.Random(11), -(-HANDOVERS // len(CONNECTORS))
    watched.succeed()
    wrong = struck_at_random(
        watched, count, lambda process: process.kill(), lambda: prepare(watched, chance.choice(("copied", "added")))
    )
    killed_at_random(count)
    assert wrong == []


@pytest.mark.parametrize("connector", ["jsonl", "postgres"])
def test_a_source_that_crashes_loses_and_doubles_nothing(
    zygote: Zygote, tmp_path: Path, postgres_url: str, connector: str, injected: Count
) -> None:
    with services.own_postgres("synchronous_commit=off") as server:
        into = postgres_url if connector == "postgres" else ""
        watched = Watched(zygote, tmp_path, server.url, connector, into)
        assert struck_at_random(watched, SERVER_KILLS, crash_of(server), now_and_then_a_copy(watched)) == []
    injected(SERVER_KILLS)


def test_a_destination_that_crashes_loses_and_doubles_nothing(
    zygote: Zygote, tmp_path: Path, log_url: str, injected: Count
) -> None:
    with services.own_postgres() as server:
        watched = Watched(zygote, tmp_path, log_url, "postgres", server.url)
        assert struck_at_random(watched, SERVER_KILLS, crash_of(server), now_and_then_a_copy(watched)) == []
    injected(SERVER_KILLS)


def now_and_then_a_copy(watched: Watched) -> Callable[[], tuple[str, ...]]:
    chance = random.Random(5)
    return lambda: prepare(watched, chance.choice(("copied", "changes", "changes")))


def crash_of(server: services.OwnPostgres) -> Callable[[Process], None]:
    """Return what kills a server under a run, waits for the run's end, and starts the server anew."""
    chance = random.Random(3)

    def crash(process: Process) -> None:
        if chance.random() < 0.5:
            server.kill()
        else:
            server.stop("immediate")
        if is_up := chance.random() < 0.5:  # the run's retries find it again
            server.start()
        assert process.wait(120) in (0, 1), process.log()[-4000:]
        if not is_up:
            server.start()

    return crash


def struck_at_random(
    watched: Watched,
    count: int,
    strike: Callable[[Process], None],
    begin: Callable[[], tuple[str, ...]] = lambda: (),
) -> list[str]:
    """Strike runs at random moments, beside writers; return everything that is wrong after each, and at the end.

    Args:
        watched: the pipeline.
        count: of strikes.
        strike: called while a run is under way; it has ended then.
        begin: called before each run; returns its command.
    """
    chance, wrong = random.Random(7), list[str]()
    watched.logged.document |= {"retries": 2, "retry_delay_s": 0.1}
    begun = time.monotonic()
    watched.succeed()
    longest_s = 1.3 * (time.monotonic() - begun)
    for number in range(count):
        words = begin()
        with watched.writing():
            process = watched.start(*words)
            time.sleep(chance.uniform(0, longest_s))
            strike(process)
            wrong += watched.ahead()
        if number % IN_A_ROW == IN_A_ROW - 1:
            wrong += watched.wrong()
        if wrong:
            return [f"strike {number + 1}: {each}" for each in wrong]
    return watched.wrong()


def test_with_cut_connections_the_tables_are_exact(watched: Watched, injected: Count) -> None:
    chance, stop, cuts = random.Random(7), threading.Event(), 0
    logged = watched.logged
    logged.document |= {"retries": 2, "retry_delay_s": 0.1}
    urls = [url for url in (logged.url, logged.document["destination"]["config"].get("url")) if url]
    query = (
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() "
        "and pid <> pg_backend_pid() and application_name = 'syncblocks' and random() < 0.5"
    )

    def cut() -> None:
        nonlocal cuts
        with ExitStack() as stack:
            connections = [stack.enter_context(psycopg.connect(url, autocommit=True)) for url in urls]
            while not stop.wait(chance.uniform(0.05, 0.6)):
                for connection in connections:
                    ((count,),) = connection.execute(query.encode()).fetchall()
                    cuts += count

    cutting = threading.Thread(target=cut, daemon=True)
    cutting.start()
    with watched.writing():
        while cuts < CUTS:
            with suppress(SyncError, ConnectorError):  # the plan's connection was cut: the next run plans again
                logged.run()
    stop.set()
    cutting.join()
    injected(cuts)
    assert watched.wrong() == []
