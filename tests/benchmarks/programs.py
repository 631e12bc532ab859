"""What the benchmarks run beside `syncblocks`: the limits, and readers of DuckDB files. Each in a process of its own.

`python -m tests.benchmarks.programs NAME ARGUMENTS`
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


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


def connectorx_to_adbc(source: str, table: str, destination: str, bare: str) -> None:
    """Feed connectorx's Arrow stream straight into a new table, by ADBC."""
    import adbc_driver_manager
    import adbc_driver_postgresql
    import connectorx

    reader = connectorx.read_sql(source, f"select * from {table}", return_type="arrow_stream", batch_size=65_536)
    database = adbc_driver_manager.AdbcDatabase(driver=adbc_driver_postgresql._driver_path(), uri=destination)
    connection = adbc_driver_manager.AdbcConnection(database)
    statement = adbc_driver_manager.AdbcStatement(connection)
    statement.set_options(**{"adbc.ingest.target_table": bare, "adbc.ingest.mode": "adbc.ingest.mode.create"})
    statement.bind_stream(reader)
    statement.execute_update()
    statement.close()
    connection.close()
    database.close()


def copy_csv(url: str, table: str, path: str, ways: str) -> None:
    """Give the file to the server as it is, by so many connections at once, each with its part of the records."""
    import os
    from concurrent.futures import ThreadPoolExecutor

    import psycopg

    def copy(start: int, end: int) -> None:
        header = ", header" if start == 0 else ""
        with (
            open(path, "rb", buffering=0) as file,  # noqa: PTH123 - as short as can be
            psycopg.connect(url) as connection,
            connection.cursor().copy(f"copy {table} from stdin (format csv{header})") as copy,
        ):
            file.seek(start)
            while start < end:
                block = file.read(min(1 << 20, end - start))
                copy.write(block)
                start += len(block)

    size = os.path.getsize(path)  # noqa: PTH202
    places = [0, *(_record_start(path, size * part // int(ways)) for part in range(1, int(ways))), size]
    with ThreadPoolExecutor(int(ways)) as threads:
        list(threads.map(copy, places[:-1], places[1:]))


def _record_start(path: str, place: int) -> int:
    """Return where the first record past a place begins: after a line break outside of quotes."""
    with Path(path).open("rb") as file:
        quotes = 0
        for start in range(0, place, 1 << 20):
            quotes += file.read(min(1 << 20, place - start)).count(b'"')
        while line := file.readline():
            quotes += line.count(b'"')
            if quotes % 2 == 0:
                break
        return file.tell()


def copy_tables(source: str, destination: str, prefix: str, tables: str, columns: str) -> None:
    """Make many tables, one after the other, each with its key, filled and committed."""
    import psycopg

    with psycopg.connect(source, autocommit=True) as reading, psycopg.connect(destination) as writing:
        for number in range(int(tables)):
            table = f"{prefix}{number}"
            writing.execute(f"create table {table} ({columns})")
            _copy(reading, f"copy {table} to stdout (format binary)", writing, table)
            writing.commit()


def ask_for_new(source: str, destination: str, table: str, other: str) -> None:
    """Ask where the last sync ended, and for the records past that."""
    import psycopg

    with psycopg.connect(destination) as connection:
        bookmark = _one(connection, "select value from bookmark")
    with psycopg.connect(source) as connection:
        new = connection.execute(f"select * from {table} where created_at > %s", (bookmark,)).fetchall()
    assert not new


def merge_new(source: str, destination: str, table: str, other: str) -> None:
    """Bring the records past the bookmark to a staging table by COPY, merge them, and keep the bookmark: one commit."""
    import psycopg

    with psycopg.connect(destination) as writing, psycopg.connect(source) as reading:
        bookmark = _one(writing, "select value from bookmark")
        writing.execute(f"create temporary table staging (like {other}) on commit drop")
        new = f"select * from {table} where created_at > '{bookmark.isoformat()}'"
        _copy(reading, f"copy ({new}) to stdout (format binary)", writing, "staging")
        names = [
            name
            for (name,) in writing.execute(
                "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 order by attnum",
                (other,),
            )
        ]
        changes = ", ".join(f"{name} = excluded.{name}" for name in names if name != "id")
        writing.execute(f"insert into {other} select * from staging on conflict (id) do update set {changes}")
        writing.execute("update bookmark set value = (select max(created_at) from staging)")


def _copy(reading: Any, sql: str, writing: Any, table: str) -> None:
    with (
        reading.cursor().copy(sql) as blocks,
        writing.cursor().copy(f"copy {table} from stdin (format binary)") as copy,
    ):
        for block in blocks:
            copy.write(block)


def _one(connection: Any, sql: str) -> Any:
    return connection.execute(sql).fetchone()[0]


def duckdb_execute(path: str, sql: str) -> None:
    """Execute statements in a DuckDB file."""
    import duckdb

    with duckdb.connect(path) as connection:
        connection.execute(sql)


def export_duckdb(path: str, table: str, file: str) -> None:
    """Write a table as CSV, as PostgreSQL reads it back."""
    import duckdb

    with duckdb.connect(path, read_only=True) as opened:
        opened.execute("set timezone = 'UTC'")
        opened.execute(
            f"copy (select * from {table}) to '{file}' (format csv, header, force_quote (description, note))"
        )


def log_to_arrow(source: str, destination: str, pipeline: str, least: str) -> None:
    """Read a log from where a pipeline stands, as the pipeline would, and drop what comes; nothing is confirmed."""
    from syncblocks.connectors import log_based
    from syncblocks.connectors.postgres.destination import PostgresDestination
    from syncblocks.connectors.postgres.source import PostgresSource

    ledger, reading = PostgresDestination({"url": destination}), PostgresSource({"url": source})
    rows = ledger.rows_of(pipeline, ["items"])
    ledger.close()
    (found,) = reading.find_streams(["public.items"])
    stream = log_based.with_log_columns(log_based.logged_stream(found, ["id"]), is_appended=False, deletes="hard")
    stream = log_based.changes_stream(stream)
    bookmarks = {row.key.stream: row.bookmark for row in rows}
    with reading.open_log("", [stream], rows, lambda *_: None, lambda: list(bookmarks.values())) as opened:
        count = sum(getattr(event, "num_rows", 0) for _, event in opened.read([stream], bookmarks))
    reading.close()
    assert count >= int(least), f"{count} changes"


def stream_parquet(path: str, file: str) -> None:
    """Read a Parquet file batch by batch, and write it again."""
    import pyarrow.parquet

    opened = pyarrow.parquet.ParquetFile(path)
    with pyarrow.parquet.ParquetWriter(file, opened.schema_arrow, compression="zstd") as writer:
        for batch in opened.iter_batches():
            writer.write_batch(batch)


def _stream_of(url: str, name: str) -> tuple[Any, Any]:
    """Return the columns of a PostgreSQL table and its batches, as syncblocks reads them."""
    import pyarrow as pa

    from syncblocks.connectors.postgres.source import PostgresSource

    source = PostgresSource({"url": url}, Path())
    (stream,) = (each for each in source.discover() if each.name == name)
    batches = (batch for _, batch in source.read([stream], {}) if isinstance(batch, pa.RecordBatch))
    return stream.schema, batches


def delta_append(url: str, name: str, path: str) -> None:
    """Give the batches of a PostgreSQL table to the library's own write, into a new Delta table."""
    import pyarrow as pa
    from deltalake import write_deltalake

    schema, batches = _stream_of(url, name)
    plain = pa.schema([field.remove_metadata() for field in schema])
    plain = pa.schema([pa.field(each.name, pa.string() if each.type == pa.json_() else each.type) for each in plain])
    made = (
        pa.record_batch([each.cast(own.type) for each, own in zip(batch.columns, plain, strict=True)], schema=plain)
        for batch in batches
    )
    write_deltalake(path, pa.RecordBatchReader.from_batches(plain, made), mode="append")


def delta_merge(url: str, name: str, path: str) -> None:
    """Merge the records of a PostgreSQL table into a Delta table by the library's own call."""
    import pyarrow as pa
    from deltalake import DeltaTable

    schema, batches = _stream_of(url, name)
    table = DeltaTable(path)
    own = pa.schema(table.schema().to_arrow())
    records = pa.Table.from_batches(batches, schema).cast(own)
    merger = table.merge(records, "t.id = s.id", source_alias="s", target_alias="t")
    merger.when_matched_update_all().when_not_matched_insert_all().execute()


def delta_check(one: str, other: str, records: str) -> None:
    """Compare two Delta tables, as the library reads them."""
    import pyarrow as pa
    from deltalake import DeltaTable, QueryBuilder

    session = QueryBuilder().register("one", DeltaTable(one)).register("other", DeltaTable(other))
    sides = [f"select {{}} from {name}" for name in ("one", "other")]
    for what in (
        "count(*)",
        *(f"sum(id % 1009 * (1 + coalesce({column}, 0)))" for column in ("amount_cents", "price")),
    ):
        found = [list(pa.table(session.execute(side.format(f"{what} as v"))).column("v")) for side in sides]
        assert found[0] == found[1], (what, found)
        assert what != "count(*)" or found[0][0].as_py() == int(records), found
    for way in (sides, sides[::-1]) if int(records) <= 1_000_000 else ():  # it holds one of them in memory
        query = " except ".join(side.format("*") for side in way)
        assert not pa.table(session.execute(f"{query} limit 1")).num_rows, query


PROGRAMS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (
        adbc_to_duckdb,
        connectorx_to_adbc,
        ask_for_new,
        copy_csv,
        copy_tables,
        delta_append,
        delta_check,
        delta_merge,
        duckdb_execute,
        export_duckdb,
        log_to_arrow,
        merge_new,
        stream_parquet,
    )
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
