"""One large table, read by ranges: by one reader, two and four, with the same limits as in `full_refresh`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.bench import Bench, Figure, figures, postgres
from tests.benchmarks.measure import Usage, alternate

WAYS = (1, 2, 4)


def postgres_by_ranges(bench: Bench) -> list[Figure]:
    """PostgreSQL to PostgreSQL, with the primary key."""
    source, destination = bench.database(), bench.database()
    bench.orders(source, "orders", bench.rows)

    def psql() -> Usage:
        bench.new_orders(destination, "bare")
        return bench.run(
            bench.psql(source, "copy orders to stdout (format binary)"),
            bench.psql(destination, "copy bare from stdin (format binary)"),
        )

    streams = {"stream": "public.orders"}
    cases = _cases(bench, "postgres", postgres(source), destination, streams)
    taken = alternate({"psql | psql": psql, **cases}, bench.repeat)
    bench.check_equal(source, destination, *(f"orders=orders_{ways}" for ways in WAYS))
    return figures("postgres by ranges", bench.rows, taken, limit="psql | psql")


def csv_by_ranges(bench: Bench) -> list[Figure]:
    """A CSV file to PostgreSQL, with a primary key."""
    source, destination = bench.database(), bench.database()
    bench.orders(source, "orders", bench.rows)
    file = bench.folder / "orders.csv"
    bench.write_csv(source, "orders", file)

    def copy() -> Usage:
        bench.new_orders(destination, "bare")
        return bench.run(bench.program("copy_csv", destination, "bare", file, 2))

    streams = {"stream": "orders", "key_properties": ["id"]}
    reading = {"connector": "csv", "config": {"path": str(file)}}
    taken = alternate(
        {"copy, two ways": copy, **_cases(bench, "csv", reading, destination, streams)},
        bench.repeat,
    )
    bench.check_equal(source, destination, *(f"orders=orders_{ways}" for ways in WAYS), as_values=True)
    return figures("csv by ranges", bench.rows, taken, limit="copy, two ways")


def _cases(
    bench: Bench, name: str, source: Mapping[str, Any], destination: str, stream: Mapping[str, Any]
) -> dict[str, Callable[[], Usage]]:
    """Return a pipeline for each number of ways, into tables of their own."""
    # Small tables, of the tests, are split as well.
    source = {**source, "config": {**source["config"], "range_bytes": min(16 << 20, 8 * bench.rows)}}
    cases: dict[str, Callable[[], Usage]] = {}
    for ways in WAYS:
        entry = {**stream, "destination_table": f"orders_{ways}", "parallel_reads": ways}
        pipeline: Path = bench.pipeline(f"{name}_{ways}", source, postgres(destination), [entry])
        cases[f"{ways} way{'s' if ways > 1 else ''}"] = bench.sync(pipeline)
    return cases


__all__ = ["csv_by_ranges", "postgres_by_ranges"]
