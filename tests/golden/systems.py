"""Making the golden tables in each system, and reading what arrived: with the system's own client, none of our code."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pymysql

from tests.golden.values import Column

FILES = ("csv", "jsonl", "parquet")


def rows(columns: Sequence[Column], place: int) -> list[list[Any]]:
    """The records: as many as the column with the most values has, and one of NULLs; `place` 0: put in, 1: expected."""
    length = max(len(column.values) for column in columns)
    found = [[column.values[n][place] if n < len(column.values) else None for column in columns] for n in range(length)]
    return [*found, [None] * len(columns)]


def mysql_connection(url: str) -> Any:
    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname or "",
        port=parts.port or 3306,
        user=parts.username or "",
        password=parts.password or "",
        database=parts.path[1:],
        charset="utf8mb4",
        autocommit=True,
    )


def make(system: str, place: str, columns: Sequence[Column]) -> None:
    """Make the table `golden` (or the file) with an id from 0 and these columns."""
    if system in FILES:
        _make_file(system, Path(place), columns)
        return
    listed = ", ".join(f"{column.name} {column.type}" for column in columns)
    statements = [f"create table golden (id integer primary key, {listed})"]
    for number, row in enumerate(rows(columns, 0)):
        values = ", ".join("null" if value is None else value for value in row)
        statements.append(f"insert into golden values ({number}, {values})")
    if system == "postgres":
        with psycopg.connect(place) as connection:
            for sql in ["create type mood as enum ('sad', 'so so')", *statements]:
                connection.execute(sql.encode())
    elif system == "mysql":
        with mysql_connection(place) as connection, connection.cursor() as cursor:
            for sql in ["set time_zone = '+00:00'", *statements]:
                cursor.execute(sql)
    elif system == "sqlite":
        sqlite = sqlite3.connect(place)
        for sql in statements:
            sqlite.execute(sql)
        sqlite.commit()
        sqlite.close()
    else:
        with duckdb.connect(place) as connection:
            connection.execute("set timezone = 'UTC'")
            for sql in statements:
                connection.execute(sql)


def _make_file(system: str, folder: Path, columns: Sequence[Column]) -> None:
    folder.mkdir()
    names, records = ["id", *(column.name for column in columns)], rows(columns, 0)
    if system == "parquet":
        arrays = [pa.array(range(len(records)), pa.int32())]
        for place, column in enumerate(columns):
            storage = column.type.storage_type if isinstance(column.type, pa.BaseExtensionType) else column.type
            array = pa.array([row[place] for row in records], storage)
            arrays.append(array if storage is column.type else column.type.wrap_array(array))
        pq.write_table(pa.table(arrays, names=names), folder / "golden.parquet")
    elif system == "csv":
        with (folder / "golden.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            for number, row in enumerate(records):
                # A NULL is nothing at all, and the text NULL has quotes: `csv` puts none around it, and needs none.
                writer.writerow([number, *("" if value is None else value for value in row)])
    else:
        bare = {place for place, column in enumerate(columns) if column.kind in ("int", "decimal", "double", "bool")}
        lines = []
        for number, row in enumerate(records):
            texts = ["null" if v is None else v if n in bare else json.dumps(v) for n, v in enumerate(row)]
            items = (f"{json.dumps(name)}: {text}" for name, text in zip(names, [str(number), *texts], strict=True))
            lines.append("{" + ", ".join(items) + "}")
        (folder / "golden.jsonl").write_text("\n".join(lines), encoding="utf-8")


def read_back(system: str, place: str, columns: Sequence[Column]) -> list[list[Any]]:
    """Return the records of the destination's table `golden`, by id, without it."""
    names = [column.name for column in columns]
    if system in FILES:
        records = sorted(_file_records(system, Path(place)), key=lambda record: int(record["id"]))
        return [[record[name] for name in names] for record in records]
    sql = f"select {', '.join(_selected(system, column) for column in columns)} from golden order by id"
    if system == "postgres":
        with psycopg.connect(place) as connection:
            return [list(row) for row in connection.execute(sql.encode())]
    if system == "mysql":
        with mysql_connection(place) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return [list(row) for row in cursor.fetchall()]
    if system == "sqlite":
        sqlite = sqlite3.connect(place)
        found = [list(row) for row in sqlite.execute(sql)]
        sqlite.close()
        return found
    with duckdb.connect(place, read_only=True) as connection:
        connection.execute("set timezone = 'UTC'")
        return [list(row) for row in connection.execute(sql).fetchall()]


def _selected(system: str, column: Column) -> str:
    """A driver's own types for ranges, intervals and the like say nothing more than their text, or less."""
    name, kind = column.name, column.kind
    if system == "postgres":
        return {"text": f"{name}::text", "interval": f"{name}::text", "json": f"to_json({name})::text"}.get(kind, name)
    if system == "duckdb":
        as_json = f"case when typeof({name}) = 'JSON' then {name}::varchar else to_json({name})::varchar end"
        return {"json": as_json, **dict.fromkeys(("text", "interval", "moment"), f"{name}::varchar")}.get(kind, name)
    if system == "mysql":
        # By itself it shows six digits of a float, and the bytes of bits and of a geometry.
        sums = {"float": "0e0", "int": "0", "bool": "0"}
        return f"st_astext({name})" if column.type == "geometry" else f"{name} + {sums[kind]}" if kind in sums else name
    return name


def _file_records(system: str, folder: Path) -> list[Mapping[str, Any]]:
    file = folder / f"golden.{system}"
    if system == "csv":
        with file.open(newline="", encoding="utf-8") as opened:
            return [{name: value or None for name, value in row.items()} for row in csv.DictReader(opened)]
    if system == "jsonl":
        with file.open(encoding="utf-8", newline="\n") as opened:
            return [json.loads(line, parse_float=Decimal) for line in opened]
    table = pq.read_table(file)
    for place, field in enumerate(table.schema):
        table = table.set_column(place, field.name, _shown(table.column(place)))
    return table.to_pylist()


def _shown(column: Any) -> Any:
    """Times and durations as texts: `to_pylist` knows no nanoseconds."""
    kind = column.type
    if pa.types.is_duration(kind):
        return column.cast(pa.duration("us")).cast(pa.int64())
    if pa.types.is_timestamp(kind) and kind.tz:
        return column.cast(pa.timestamp(kind.unit, "UTC")).cast(pa.string())
    return column.cast(pa.string()) if pa.types.is_timestamp(kind) or pa.types.is_time(kind) else column
