"""One large table, replaced."""

from __future__ import annotations

from typing import Any

from pyarrow import parquet

from tests.benchmarks.bench import DUCKDB_FILE, Bench, Figure, duckdb, figures, postgres
from tests.benchmarks.measure import Usage, alternate


def postgres_to_postgres(bench: Bench) -> list[Figure]:
    """A table with a primary key; the limit is psql | psql, binary, into a table with that key."""
    source, destination = bench.database(), bench.database()
    bench.orders(source, "orders", bench.rows)
    pipeline = bench.pipeline("postgres", postgres(source), postgres(destination), [{"stream": "public.orders"}])

    def psql() -> Usage:
        bench.new_orders(destination, "bare")
        return bench.run(
            bench.psql(source, "copy orders to stdout (format binary)"),
            bench.psql(destination, "copy bare from stdin (format binary)"),
        )

    taken = alternate({"psql | psql": psql, "syncblocks": bench.sync(pipeline)}, bench.repeat)
    bench.check_equal(source, destination, "orders", "orders=bare")
    return figures("postgres to postgres", bench.rows, taken, limit="psql | psql", least=0.85)


def postgres_to_duckdb(bench: Bench) -> list[Figure]:
    """A table, into a DuckDB file; the limit is the driver's reader given to DuckDB."""
    source = bench.database()
    bench.orders(source, "orders", bench.rows)
    file = bench.folder / "bare.duckdb"
    pipeline = bench.pipeline("duckdb", postgres(source), duckdb(), [{"stream": "public.orders"}])

    def adbc() -> Usage:
        file.unlink(missing_ok=True)
        return bench.run(bench.program("adbc_to_duckdb", source, "orders", file))

    taken = alternate({"adbc to duckdb": adbc, "syncblocks": bench.sync(pipeline)}, bench.repeat)
    bench.check_duckdb(source, "orders", pipeline.with_name(DUCKDB_FILE))
    return figures("postgres to duckdb", bench.rows, taken, limit="adbc to duckdb", least=0.9)


def csv_to_postgres(bench: Bench) -> list[Figure]:
    """A CSV file; the limit is COPY of the file as it is, in two halves at once, into a table with a primary key."""
    source, destination = bench.database(), bench.database()
    bench.orders(source, "orders", bench.rows)
    file = bench.folder / "orders.csv"
    bench.write_csv(source, "orders", file)
    reading = {"connector": "csv", "config": {"path": str(file)}}
    streams = [{"stream": "orders", "key_properties": ["id"]}]
    pipeline = bench.pipeline("csv", reading, postgres(destination), streams)

    def copy() -> Usage:
        bench.new_orders(destination, "bare")
        return bench.run(bench.program("copy_csv", destination, "bare", file, 2))

    taken = alternate({"copy, two ways": copy, "syncblocks": bench.sync(pipeline)}, bench.repeat)
    bench.check_equal(source, destination, "orders", "orders=bare", as_values=True)
    return figures("csv to postgres", bench.rows, taken, limit="copy, two ways", least=0.9)


def parquet_to_parquet(bench: Bench) -> list[Figure]:
    """A file that nothing changes; the limit is pyarrow, reading and writing it batch by batch."""
    source = bench.database()
    bench.orders(source, "orders", bench.rows)
    made = bench.pipeline("file", postgres(source), _parquet("made"), [{"stream": "public.orders"}])
    bench.run(bench.syncblocks("run", made))
    file = made.with_name("made") / "orders.parquet"
    pipeline = bench.pipeline("parquet", _parquet(str(file)), _parquet("out"), [{"stream": "orders"}])

    def written() -> Usage:
        return bench.run(bench.program("stream_parquet", file, bench.folder / "bare.parquet"))

    taken = alternate({"pyarrow, by batches": written, "syncblocks": bench.sync(pipeline)}, bench.repeat)
    assert parquet.read_metadata(pipeline.with_name("out") / "orders.parquet").num_rows == bench.rows
    return figures("parquet to parquet", bench.rows, taken, limit="pyarrow, by batches", least=1.0)


def _parquet(path: str) -> dict[str, Any]:
    return {"connector": "parquet", "config": {"path": path}}


__all__ = ["csv_to_postgres", "parquet_to_parquet", "postgres_to_duckdb", "postgres_to_postgres"]
