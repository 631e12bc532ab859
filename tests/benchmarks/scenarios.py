"""What is measured. Each scenario checks what it wrote, and returns its figures."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .bench import Bench, Figure, figures
from .measure import Usage, alternate, median_usage

_NOTHING = "@callback\ndef nothing(**kwargs):\n    pass\n"
_NO_INPUT = "@callback('success', fetch_inputs=False)\ndef nothing(data, **kwargs):\n    assert data is None\n"
_DATA = "@callback\ndef look(data, **kwargs):\n    assert len(data) == kwargs['block_run'].rows\n"


def postgres_to_postgres(bench: Bench) -> list[Figure]:
    """A table with a primary key, replaced; the limit is psql | psql, binary, into a table with that key."""
    source, destination = bench.database(), bench.database()
    bench.orders(source, "orders", bench.rows)
    pipeline = bench.pipeline("postgres", _postgres(source), _postgres(destination), [{"stream": "public.orders"}])

    def psql() -> Usage:
        bench.new_orders(destination, "bare")
        return bench.run(
            bench.psql(source, "copy orders to stdout (format binary)"),
            bench.psql(destination, "copy bare from stdin (format binary)"),
        )

    taken = alternate({"psql | psql": psql, "syncblocks": bench.sync(pipeline)}, bench.repeat)
    bench.check_equal(source, destination, "orders")
    return figures("postgres to postgres", bench.rows, taken, limit="psql | psql", least=0.5)


def postgres_to_duckdb(bench: Bench) -> list[Figure]:
    """A table, replaced in a DuckDB file; the limit is the driver's reader given to DuckDB."""
    source = bench.database()
    bench.orders(source, "orders", bench.rows)
    file = bench.folder / "bare.duckdb"
    pipeline = bench.pipeline("duckdb", _postgres(source), _duckdb(), [{"stream": "public.orders"}])

    def adbc() -> Usage:
        file.unlink(missing_ok=True)
        return bench.run(bench.program("adbc_to_duckdb", source, "orders", file))

    taken = alternate({"adbc to duckdb": adbc, "syncblocks": bench.sync(pipeline)}, bench.repeat)
    _check_duckdb(bench, pipeline, "orders")
    return figures("postgres to duckdb", bench.rows, taken, limit="adbc to duckdb", least=0.8)


def csv_to_postgres(bench: Bench) -> list[Figure]:
    """A CSV file, replaced; the limit is COPY of the file as it is, into a table with a primary key."""
    source, destination = bench.database(), bench.database()
    bench.orders(source, "orders", bench.rows)
    file = bench.folder / "orders.csv"
    bench.write_csv(source, "orders", file)
    reading = {"connector": "csv", "config": {"path": str(file)}}
    streams = [{"stream": "orders", "key_properties": ["id"]}]
    pipeline = bench.pipeline("csv", reading, _postgres(destination), streams)

    def copy() -> Usage:
        bench.new_orders(destination, "bare")
        return bench.run(bench.program("copy_csv", destination, "bare", file))

    taken = alternate({"copy": copy, "syncblocks": bench.sync(pipeline)}, bench.repeat)
    sums = "select count(*), count(distinct id), sum(price::numeric(12,2)), sum(length(description)) from orders"
    assert bench.execute(destination, sums) == bench.execute(source, sums)
    return figures("csv to postgres", bench.rows, taken, limit="copy")


def start(bench: Bench) -> list[Figure]:
    """The command line's own start, and a sync of one small table from start to exit."""
    source, destination = bench.database(), bench.database()
    bench.orders(source, "orders", 100)
    pipeline = bench.pipeline("small", _postgres(source), _postgres(destination), [{"stream": "public.orders"}])
    cases: dict[str, Callable[[], Usage]] = {
        "--version": lambda: bench.run(bench.syncblocks("--version")),
        "100 records": bench.sync(pipeline),
    }
    taken = alternate(cases, 3 * bench.repeat)
    bench.check_equal(source, destination, "orders")
    version_s = statistics.median(usage.wall_s for usage in taken["--version"])
    return [
        _figure("start", "--version", 0, taken["--version"], target="< 0.3 s", is_met=version_s < 0.3),
        _figure("start", "100 records", 100, taken["100 records"]),
    ]


def many_tables(bench: Bench) -> list[Figure]:
    """Many small tables; the limit copies one after the other into tables that are there."""
    source, bare, destination = bench.database(), bench.database(), bench.database()
    for number in range(bench.tables):
        bench.orders(source, f"small_{number}", 100)
        bench.orders(bare, f"small_{number}", 0)
    pipeline = bench.pipeline("many", _postgres(source), _postgres(destination), [{"stream": "public.*"}])

    def copy() -> Usage:
        bench.execute(bare, "truncate " + ", ".join(f"small_{number}" for number in range(bench.tables)))
        return bench.run(bench.program("copy_tables", source, bare, "small_", bench.tables))

    taken = alternate({"bare copies": copy, "syncblocks": bench.sync(pipeline)}, bench.repeat)
    bench.check_equal(source, destination, *(f"small_{number}" for number in range(bench.tables)))
    extra_s = statistics.median(
        own.wall_s - best.wall_s for best, own in zip(taken["bare copies"], taken["syncblocks"], strict=True)
    )
    made = figures(f"{bench.tables} small tables", 100 * bench.tables, taken, limit="bare copies")
    return [made[0], replace(made[1], target=f"< 3 s more: {extra_s:.2f} s", is_met=extra_s < 3.0)]


def memory(bench: Bench) -> list[Figure]:
    """A table and one of four times its size: the peaks differ by less than a fifth."""
    source, destination = bench.database(), bench.database()
    sizes = {"once": bench.rows, "four_times": 4 * bench.rows}
    for name, records in sizes.items():
        bench.orders(source, name, records)
    made = []
    for kind in ("duckdb", "postgres"):
        peaks = []
        for name, records in sizes.items():
            to = _duckdb() if kind == "duckdb" else _postgres(destination)
            pipeline = bench.pipeline(f"{kind}_{name}", _postgres(source), to, [{"stream": f"public.{name}"}])
            usage = bench.sync(pipeline)()
            if kind == "duckdb":
                _check_duckdb(bench, pipeline, name, records)
            else:
                bench.check_equal(source, destination, name)
            peaks.append(usage.peak_rss_bytes)
            growth = peaks[-1] / peaks[0]
            target = f"< 20 % more: {100 * (growth - 1):+.0f} %" if len(peaks) > 1 else ""
            is_met = growth < 1.2 if len(peaks) > 1 else None
            made.append(_figure(f"memory, {kind}", f"{records:,}", records, [usage], target=target, is_met=is_met))
    return made


def callbacks(bench: Bench) -> list[Figure]:
    """A callback that asks for no data costs nothing, one that does a tenth; compared with no callback."""
    source = bench.database()
    bench.orders(source, "orders", bench.rows)
    cases = {"none": None, "no input": _NO_INPUT, "kwargs only": _NOTHING, "DataFrame": _DATA}
    pipelines = {
        name: bench.pipeline(
            name.replace(" ", "_").lower(), _postgres(source), _duckdb(), [{"stream": "public.orders"}], callback=file
        )
        for name, file in cases.items()
    }
    taken = alternate({name: bench.sync(pipeline) for name, pipeline in pipelines.items()}, bench.repeat)
    for pipeline in pipelines.values():
        _check_duckdb(bench, pipeline, "orders")
    return figures("callbacks, postgres to duckdb", bench.rows, taken, limit="none", least=0.9)


def _postgres(url: str) -> dict[str, object]:
    return {"connector": "postgres", "config": {"url": url}}


def _duckdb() -> dict[str, object]:
    return {"connector": "duckdb", "config": {"path": "warehouse.duckdb"}}


def _check_duckdb(bench: Bench, pipeline: Path, table: str, records: int | None = None) -> None:
    file = pipeline.with_name("warehouse.duckdb")
    bench.run(bench.program("count_duckdb", file, table, bench.rows if records is None else records))


def _figure(
    scenario: str, case: str, records: int, usages: list[Usage], *, target: str = "", is_met: bool | None = None
) -> Figure:
    return Figure(
        scenario=scenario,
        case=case,
        limit=None,
        records=records,
        usage=median_usage(usages),
        target=target,
        is_met=is_met,
    )


#: Name on the command line -> scenario; in this order.
SCENARIOS: dict[str, Callable[[Bench], list[Figure]]] = {
    "start": start,
    "postgres": postgres_to_postgres,
    "duckdb": postgres_to_duckdb,
    "csv": csv_to_postgres,
    "many": many_tables,
    "callbacks": callbacks,
    "memory": memory,
}
