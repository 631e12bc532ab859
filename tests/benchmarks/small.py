"""What a sync costs apart from its records: the start, and each further table."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from tests.benchmarks.bench import COLUMNS, Bench, Figure, extra_figures, postgres, single_figure
from tests.benchmarks.measure import Usage, alternate


def start(bench: Bench) -> list[Figure]:
    """The command line's own start, and a sync of one small table from start to exit."""
    source, destination = bench.database(), bench.database()
    bench.orders(source, "orders", 100)
    pipeline = bench.pipeline("small", postgres(source), postgres(destination), [{"stream": "public.orders"}])
    cases: dict[str, Callable[[], Usage]] = {
        "--version": lambda: bench.run(bench.syncblocks("--version")),
        "100 records": bench.sync(pipeline),
    }
    taken = alternate(cases, 3 * bench.repeat)
    bench.check_equal(source, destination, "orders")
    version_s = statistics.median(usage.wall_s for usage in taken["--version"])
    return [
        single_figure("start", "--version", 0, taken["--version"], target="< 0.3 s", is_met=version_s < 0.3),
        single_figure("start", "100 records", 100, taken["100 records"]),
    ]


def many_tables(bench: Bench) -> list[Figure]:
    """Many small tables; the limit makes each with its key, copies and commits, one after the other."""
    source, bare, destination = bench.database(), bench.database(), bench.database()
    names = [f"small_{number}" for number in range(bench.tables)]
    for name in names:
        bench.orders(source, name, 100)
    pipeline = bench.pipeline("many", postgres(source), postgres(destination), [{"stream": "public.*"}])

    def copy() -> Usage:
        for name in names:
            bench.execute(bare, f"drop table if exists {name}")
        return bench.run(bench.program("copy_tables", source, bare, "small_", bench.tables, COLUMNS))

    taken = alternate({"bare copies": copy, "syncblocks": bench.sync(pipeline)}, bench.repeat)
    bench.check_equal(source, destination, *names)
    bench.check_equal(source, bare, *names)
    scenario = f"{bench.tables} small tables"
    return extra_figures(scenario, 100 * bench.tables, taken, limit="bare copies", most_s=1.0)


__all__ = ["many_tables", "start"]
