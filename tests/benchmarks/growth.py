"""How cost grows with the number of streams, tables and deliveries: three sizes, and the exponent between them."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from syncblocks.connectors.mysql.destination import MySQLDestination
from syncblocks.connectors.sqlalchemy.destination import SQLAlchemyDestination
from syncblocks.connectors.sqlite import SQLiteDestination
from syncblocks.sync.store import Store
from tests import services
from tests.benchmarks.bench import Bench, Figure, single_figure
from tests.benchmarks.measure import Usage
from tests.sync.store.store_helpers import CALLBACKS, attempt_plan, begin, deliver_all, outcome, stream_plan

#: What is asked of each case.
_MOST = 1.1


def growth(bench: Bench) -> list[Figure]:
    """Measure each case at a quarter of `--tables`, and at three and nine times as many."""
    first = max(1, bench.tables // 4)
    figures = []
    for case, measure in _CASES.items():
        sizes = [first, 3 * first, 9 * first]
        try:
            usages = [measure(bench, size) for size in sizes]
        except pytest.skip.Exception:
            continue  # there is no such server
        found = exponent(sizes, [usage.cpu_s for usage in usages])
        for size, usage in zip(sizes, usages, strict=True):
            is_last = size == sizes[-1]
            target = f"exponent <= {_MOST}: {found:.2f}" if is_last else ""
            is_met = found <= _MOST if is_last else None
            figures.append(single_figure("growth", case, size, [usage], target=target, is_met=is_met))
    return figures


def exponent(sizes: list[int], costs: list[float]) -> float:
    """Return the exponent of what the two larger sizes cost more than the smallest; that leaves the start out."""
    more = [max(cost - costs[0], 1e-6) for cost in costs[1:]]
    return math.log(more[1] / more[0]) / math.log((sizes[2] - sizes[0]) / (sizes[1] - sizes[0]))


def _sync(bench: Bench, name: str, source: dict[str, Any], destination: dict[str, Any]) -> Usage:
    pipeline = bench.pipeline(name, source, destination, [{"stream": "*"}])
    return bench.run(bench.syncblocks("run", pipeline))


def _sqlite_to_sqlite(bench: Bench, size: int) -> Usage:
    path = bench.folder / f"source{size}.db"
    with closing(sqlite3.connect(path)) as connection:
        for number in range(size):
            connection.execute(f"create table t{number} (id integer primary key, name text)")
            connection.execute(f"insert into t{number} values (1, 'a'), (2, 'b')")
        connection.commit()
    source = {"connector": "sqlite", "config": {"path": str(path)}}
    return _sync(bench, f"sqlite{size}", source, {"connector": "sqlite", "config": {"path": "out.db"}})


def _csv(bench: Bench, size: int) -> dict[str, Any]:
    folder = bench.folder / f"csv{size}"
    folder.mkdir(exist_ok=True)
    for number in range(size):
        (folder / f"t{number}.csv").write_text("id,name\n1,a\n2,b\n")
    return {"connector": "csv", "config": {"path": str(folder)}}


def _csv_to_duckdb(bench: Bench, size: int) -> Usage:
    destination = {"connector": "duckdb", "config": {"path": "out.duckdb"}}
    return _sync(bench, f"duckdb{size}", _csv(bench, size), destination)


def _csv_to_parquet(bench: Bench, size: int) -> Usage:
    return _sync(bench, f"parquet{size}", _csv(bench, size), {"connector": "parquet", "config": {"path": "out"}})


def _timed(action: Callable[[], object], *, is_elsewhere: bool = False) -> Usage:
    """Measure this process, or the time that it waits for a server."""
    started, cpu_s = time.monotonic(), time.process_time()
    action()
    wall_s = max(time.monotonic() - started, 1e-6)
    return Usage(wall_s=wall_s, cpu_s=wall_s if is_elsewhere else time.process_time() - cpu_s, peak_rss_bytes=0)


def _look_at_each(destination: Any, names: list[str]) -> None:
    with destination._sessions.lease() as leased:
        for name in names:
            leased.begin()
            target = destination.target(name)
            assert target in destination.dialect.catalog.reflect(leased.session, [target])
            leased.session.rollback()


def _mariadb_catalog(bench: Bench, size: int) -> Usage:
    with services.fresh_mariadb_database() as url:
        destination = MySQLDestination({"url": url}, bench.folder)
        try:
            names = [f"t{number}" for number in range(size)]
            for name in names:
                destination.execute(f"create table {name} (id bigint primary key, tags json)", {})
            return _timed(lambda: _look_at_each(destination, names), is_elsewhere=True)
        finally:
            destination.close()


def _sqlalchemy_catalog(bench: Bench, size: int) -> Usage:
    path = bench.folder / f"sqlalchemy{size}.db"
    names = [f"t{number}" for number in range(size)]
    with closing(sqlite3.connect(path)) as connection:
        for name in names:
            connection.execute(f"create table {name} (id integer primary key, name text)")
    destination = SQLAlchemyDestination({"url": f"sqlite:///{path}"}, bench.folder)
    try:
        return _timed(lambda: _look_at_each(destination, names))
    finally:
        destination.close()


def _planning(bench: Bench, size: int) -> Usage:
    """Describe one table beside a hundred times as many ledger rows of others."""
    path = bench.folder / f"ledger{size}.db"
    destination = SQLiteDestination({"path": str(path)}, bench.folder)
    try:
        with destination._sessions.lease() as leased:
            destination._ensure_ledger(leased, destination._ledger.table(destination.target("t")))
            leased.session.commit()
        destination.execute(
            "with recursive c (n) as (select 1 union all select n + 1 from c where n < $1) insert into "
            "_syncblocks_ledger (pipeline, stream, destination_table, source, token, owner) "
            "select 'p', 's' || n, 't' || n, 's', 't', 'o' from c".replace("$1", str(100 * size)),
            {},
        )
        return _timed(lambda: destination.describe(["t"]))
    finally:
        destination.close()


def _store(bench: Bench, name: str) -> str:
    return f"sqlite:///{Path(bench.folder, name)}"


def _queue(bench: Bench, size: int) -> Usage:
    """Deliver the backlog of one queue."""
    with Store.open(_store(bench, f"queue{size}.db")) as store:
        streams = [stream_plan(f"s{number}") for number in range(size)]
        run = begin(store, attempt_plan(streams, ["stream"]))
        store.claim(run.id, [stream.stream for stream in streams])
        for stream in streams:
            store.close_stream(run.id, outcome(stream))
        outbox = store.outbox("p", CALLBACKS)
        outbox.release_gate(run.id)
        return _timed(lambda: deliver_all(outbox))


_CASES: dict[str, Callable[[Bench, int], Usage]] = {
    "sqlite to sqlite": _sqlite_to_sqlite,
    "csv to duckdb": _csv_to_duckdb,
    "csv to parquet": _csv_to_parquet,
    "catalog of mariadb": _mariadb_catalog,
    "catalog by sqlalchemy": _sqlalchemy_catalog,
    "ledger rows of others": _planning,
    "backlog of a queue": _queue,
}

__all__ = ["exponent", "growth"]
