"""A run store of very many runs, filled by copies of one, and how long the pages over it take.

python -m tests.sync.serve.web.large_store sqlite 1000000
python -m tests.sync.serve.web.large_store postgresql://postgres@127.0.0.1/store 1000000
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from syncblocks.sync.serve.web.paths import path_of
from syncblocks.sync.store.connection import StoreConnection
from tests.sync.serve.serve_helpers import Place
from tests.sync.serve.web.web_helpers import Site, served
from tests.sync.store.store_helpers import attempt_plan, outcome, stream_plan

PIPELINES, STREAMS = 100, ("a", "b")
#: Of each pipeline, of its newest runs.
DEAD = 100
EVERY_S = 60

#: Table -> its columns that differ between runs; `{run}` is the number of a run, `{at}` its time.
_COPIED: Mapping[str, Mapping[str, str]] = {
    "pipeline_run": {"id": "{run}", "run_key": "'key' || {run}", "pipeline": "{pipeline}", "execution_date": "{at}"},
    "attempt": {"run_id": "{run}", "started_at": "{at}", "ended_at": "{at}", "status": "{status}"},
    "stream_run": {"run_id": "{run}", "pipeline": "{pipeline}"},
    "block_run": {"run_id": "{run}", "started_at": "{at}", "ended_at": "{at}"},
    "tick": {"run_id": "{run}", "id": "{run}", "pipeline": "{pipeline}", "tick_key": "{key}", "due_at": "{at}"},
}


def names() -> list[str]:
    return [f"pipeline {number:03}" for number in range(PIPELINES)]


def fill(place: Place, runs: int) -> None:
    """Write so many runs, those of the pipelines in turn, one each minute until now."""
    for name in names():
        place.write(name, "* * * * *", keys={"expect": {"every": "1h"}}, missed="skip")
    with place.store() as store:
        plans = [stream_plan(name) for name in STREAMS]
        tick = store.order_tick(names()[0], "2000-01-01T00:00:00Z", trigger="schedule", causes=(), kind="schedule")
        store.claim_tick(tick.id)
        run = store.begin_run(names()[0], execution_date=place.clock.time, tick=tick.id)
        store.begin_attempt(run.id, attempt_plan(plans, parents=("stream",)))
        store.claim(run.id, list(STREAMS))
        for plan in plans:
            store.close_stream(run.id, outcome(plan))
        store.end_attempt(run.id)
        store.finish_run(run.id)
        with store._transactions.write("fill") as connection:
            _copy(connection, runs, is_sqlite=place.url.startswith("sqlite"))
            if not place.url.startswith("sqlite"):  # a server does it by itself, a while later
                connection.run("ANALYZE")


def _copy(connection: StoreConnection, runs: int, *, is_sqlite: bool) -> None:
    ago = f"(({runs} - n) / {PIPELINES} * {EVERY_S})"
    if is_sqlite:
        times = {
            "at": f"strftime('%Y-%m-%d %H:%M:%S.000000', {{now}}, '-' || {ago} || ' seconds')",
            "key": f"strftime('%Y-%m-%dT%H:%M:%SZ', {{now}}, '-' || {ago} || ' seconds')",
        }
        now = connection.value("SELECT max(started_at) || '' AS text FROM _syncblocks_attempt")
        times = {name: text.format(now=f"'{now[:19]}'") for name, text in times.items()}
    else:
        at = f"(now() - {ago} * interval '1 second')"
        times = {"at": at, "key": f"to_char({at} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"}
    words = {
        **times,
        "run": "(n + 10)",
        "pipeline": f"'pipeline ' || substr(cast(1000 + n % {PIPELINES} AS TEXT), 2, 3)",
        "status": "CASE WHEN n % 97 = 0 THEN 'failure' ELSE 'success' END",
    }
    numbers = f"WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {runs})"
    for table, changes in _COPIED.items():
        row = connection.row(f"SELECT * FROM _syncblocks_{table}")
        assert row is not None
        expressions = {name: text.format(**words) for name, text in changes.items()}
        listed = ", ".join(expressions.get(name, f"t.{name}") for name in vars(row))
        source = f"SELECT * FROM _syncblocks_{table}"
        connection.run(
            f"INSERT INTO _syncblocks_{table} ({', '.join(vars(row))}) {numbers} SELECT {listed} FROM c, ({source}) t"
        )
    _kill(connection)


def _kill(connection: StoreConnection) -> None:
    """Give the newest runs of each pipeline dead deliveries, and those before them some that are done."""
    newest = connection.value("SELECT max(id) AS newest FROM _syncblocks_pipeline_run")
    copied = {
        "delivery": {
            "idempotency_key": "'key' || r.id || '/' || t.seq || '/' || t.position",
            "pipeline": "r.pipeline",
            "run_id": "r.id",
            "state": f"CASE WHEN r.id > {newest - DEAD * PIPELINES} THEN 'dead' ELSE 'done' END",
            "is_open": "0 = 1",
        },
        "event": {"run_id": "r.id"},
    }
    for table, changes in copied.items():
        row = connection.row(f"SELECT * FROM _syncblocks_{table}")
        assert row is not None
        listed = ", ".join(changes.get(name, f"t.{name}") for name in vars(row))
        connection.run(
            f"""INSERT INTO _syncblocks_{table} ({", ".join(vars(row))})
            SELECT {listed} FROM _syncblocks_pipeline_run r, (SELECT * FROM _syncblocks_{table}) t
            WHERE r.id > {max(newest - 10 * DEAD * PIPELINES, 10)}"""
        )


def pages(runs: int) -> Iterator[str]:
    """Return the addresses of pages."""
    one = f"/pipelines/{path_of(names()[7])}"
    middle = runs // 2
    yield from ("/", "/?q=pipeline+05", "/schedules", "/deliveries", f"/deliveries?pipeline={path_of(names()[7])}")
    yield from (one, f"{one}?status=failure", f"{one}?status=cancelled", f"{one}?kind=schedule", f"{one}?kind=api")
    yield from (f"{one}?before={middle}", f"{one}?until=2025-12-30T00:00", f"{one}/streams/a")
    yield f"{one}/streams/a?before={middle}"


def measured(site: Site, runs: int, rounds: int = 5) -> Iterator[tuple[str, float, float]]:
    """Ask for each page; return its address, the seconds of the first answer, and the median of the next ones."""
    for address in pages(runs):
        took = []
        for _ in range(rounds + 1):
            site.place.clock.move(3)  # a look has grown old
            begun = time.perf_counter()
            answer = site.get(address)
            took.append(time.perf_counter() - begun)
            assert answer.status == 200, (address, answer)
        yield address, took[0], statistics.median(took[1:])


def main(store: str, runs: int) -> None:
    """Fill a store, and print how long its pages take."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), None if store == "sqlite" else store)
        begun = time.perf_counter()
        fill(place, runs)
        print(f"filled with {runs:,} runs in {time.perf_counter() - begun:.0f} s")  # noqa: T201
        with served(place) as site:
            site.sign_in()
            for address, first, median in measured(site, runs):
                print(f"{address:60} first {first * 1000:6.0f} ms, median {median * 1000:6.0f} ms")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
