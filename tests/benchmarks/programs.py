"""What the benchmarks run beside `syncblocks`: the limits, and readers of DuckDB files. Each in a process of its own.

`python -m tests.benchmarks.programs NAME ARGUMENTS`
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path


def adbc_to_duckdb(url: str, table: str, path: str) -> None:
    """Feed the driver's own Arrow reader straight into a new DuckDB table."""
    import adbc_driver_manager
    import adbc_driver_postgresql
    import duckdb
    import pyarrow as pa

    database = adbc_driver_manager.AdbcDatabase(driver=adbc_driver_postgresql._driver_path(), uri=url)
    connection = adbc_driver_manager.AdbcConnection(database)
    statement = adbc_driver_manager.AdbcStatement(connection)
    statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(2 << 20)})
    statement.set_sql_query(f"select * from {table}")
    stream, _ = statement.execute_query()
    file = duckdb.connect(path)
    file.register("incoming", pa.RecordBatchReader.from_stream(stream))
    file.execute(f"create or replace table {table} as select * from incoming")
    file.close()
    statement.close()
    connection.close()
    database.close()


def copy_csv(url: str, table: str, path: str) -> None:
    """Give the file to the server as it is."""
    import psycopg

    with (
        Path(path).open("rb") as file,
        psycopg.connect(url) as connection,
        connection.cursor().copy(f"copy {table} from stdin (format csv, header)") as copy,
    ):
        while block := file.read(1 << 20):
            copy.write(block)


def copy_tables(source: str, destination: str, prefix: str, tables: str) -> None:
    """Copy many tables, one after the other, into ones that are there and empty; each is committed."""
    import psycopg

    with psycopg.connect(source, autocommit=True) as reading, psycopg.connect(destination, autocommit=True) as writing:
        for number in range(int(tables)):
            table = f"{prefix}{number}"
            with (
                reading.cursor().copy(f"copy {table} to stdout (format binary)") as blocks,
                writing.cursor().copy(f"copy {table} from stdin (format binary)") as copy,
            ):
                for block in blocks:
                    copy.write(block)


def count_duckdb(path: str, table: str, expected: str) -> None:
    """Exit with 1 unless the table has so many records, with so many different keys."""
    import duckdb

    with duckdb.connect(path, read_only=True) as file:
        found = file.execute(f"select count(*), count(distinct id) from {table}").fetchone()
    if found != (int(expected), int(expected)):
        sys.exit(f"{table}: {found} instead of {expected} records and keys")


PROGRAMS: dict[str, Callable[..., None]] = {
    function.__name__: function for function in (adbc_to_duckdb, copy_csv, copy_tables, count_duckdb)
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
