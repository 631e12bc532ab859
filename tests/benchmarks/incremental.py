"""A large table's first load, and what comes later: nothing new, and a few records that changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.bench import Bench, Figure, extra_figures, figures, postgres
from tests.benchmarks.measure import Usage, alternate

STREAM = {"stream": "public.orders", "replication_method": "INCREMENTAL", "bookmark_properties": ["created_at"]}


def first_load(bench: Bench) -> list[Figure]:
    """Into a table that is not there yet, committed on the way; the limit is psql | psql in the bookmark's order."""
    source, destination = bench.database(), bench.database()
    bench.orders(source, "orders", bench.rows)
    pipeline = bench.pipeline("first", postgres(source), postgres(destination), [STREAM])

    def psql() -> Usage:
        bench.new_orders(destination, "bare")
        return bench.run(
            bench.psql(source, "copy (select * from orders order by created_at) to stdout (format binary)"),
            bench.psql(destination, "copy bare from stdin (format binary)"),
        )

    def sync() -> Usage:
        bench.execute(destination, "drop table if exists orders, _syncblocks_ledger")
        return bench.sync(pipeline)()

    taken = alternate({"psql | psql, in order": psql, "syncblocks": sync}, bench.repeat)
    bench.check_equal(source, destination, "orders", "orders=bare")
    return figures("incremental, first load", bench.rows, taken, limit="psql | psql, in order")


def nothing_new(bench: Bench) -> list[Figure]:
    """The limit asks the destination for the bookmark and the source for what is newer."""
    source, destination, pipeline = _synced(bench)
    cases: dict[str, Callable[[], Usage]] = {
        "two queries": lambda: bench.run(bench.program("ask_for_new", source, destination, "bare", "orders")),
        "syncblocks": bench.sync(pipeline),
    }
    taken = alternate(cases, bench.repeat)
    bench.check_equal(source, destination, "orders", "bare=orders_bare")
    return extra_figures("incremental, nothing new", bench.rows, taken, limit="two queries", most_s=0.5)


def changed(bench: Bench) -> list[Figure]:
    """One record of a hundred has changed, all over the table; the limit merges them from a staging table."""
    source, destination, pipeline = _synced(bench)
    rounds = dict.fromkeys(("orders", "bare"), 0)

    def change(table: str) -> None:
        rounds[table] += 1
        bench.execute(
            source,
            f"update {table} set amount_cents = amount_cents + 1, created_at = timestamptz '2030-01-01 00:00:00+00' "
            "+ %(round)s * interval '1 day' + id * interval '1 ms' where id %% 100 = %(round)s",
            {"round": rounds[table]},
        )

    def merge() -> Usage:
        change("bare")
        return bench.run(bench.program("merge_new", source, destination, "bare", "orders_bare"))

    def sync() -> Usage:
        change("orders")
        return bench.sync(pipeline)()

    taken = alternate({"copy and on conflict": merge, "syncblocks": sync}, bench.repeat)
    bench.check_equal(source, destination, "orders", "bare=orders_bare")
    scenario = f"incremental, {bench.rows // 100:,} changed"
    return extra_figures(scenario, bench.rows // 100, taken, limit="copy and on conflict", most_s=0.6)


def _synced(bench: Bench) -> tuple[str, str, Path]:
    """Make `orders` in both databases, kept by a pipeline, and beside it `bare` -> `orders_bare`, kept by the limit."""
    source, destination = bench.database(), bench.database()
    for table in ("orders", "bare"):
        bench.orders(source, table, bench.rows)
    bench.orders(destination, "orders_bare", bench.rows)
    pipeline = bench.pipeline("incremental", postgres(source), postgres(destination), [STREAM])
    bench.sync(pipeline)()
    bench.execute(destination, "create table bookmark as select max(created_at) as value from orders_bare")
    bench.execute(destination, "vacuum analyze orders")
    return source, destination, pipeline


__all__ = ["changed", "nothing_new"]
