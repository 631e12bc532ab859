"""MariaDB looked at through pymysql, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa

TYPES = {
    "int64": "bigint",
    "int16": "smallint",
    "decimal128(38, 10)": "decimal(38, 10)",
    "decimal128(20, 4)": "decimal(20, 4)",
    "bool": "tinyint(1)",
    "double": "double",
    # `timestamp` ends in 2038: this is how zoned values are kept.
    "timestamp[us, tz=UTC]": "datetime(6) comment 'UTC'",
    "timestamp[us]": "datetime(6)",
    "date32[day]": "date",
    "time64[us]": "time(6)",
    "binary": "longblob",
    "string": "longtext",
}


def connect(url: str) -> Any:
    import pymysql

    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=unquote(parts.username or "root"),
        password=unquote(parts.password or ""),
        database=parts.path.strip("/"),
        charset="utf8mb4",
        autocommit=True,
        init_command="set time_zone = '+00:00'",
    )


def query(url: str, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return [column[0] for column in cursor.description or ()], list(cursor.fetchall())


def run(url: str, *statements: str) -> None:
    with connect(url) as connection, connection.cursor() as cursor:
        for sql in statements:
            cursor.execute(sql)


def numbers(count: int) -> str:
    """Return a table of the numbers from 1, in the column `seq`, for any of these servers."""
    return f"json_table(concat('[0', repeat(',0', {count - 1}), ']'), '$[*]' columns (seq for ordinality)) as numbers"


def is_mariadb(url: str) -> bool:
    return "mariadb" in query(url, "select version()")[1][0][0].lower()


def database(url: str) -> str:
    return urlsplit(url).path.strip("/")


def quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def put(url: str, table: str, records: pa.Table, key: Sequence[str] = ()) -> None:
    columns = [f"{quoted(field.name)} {TYPES[str(field.type)]}" for field in records.schema]
    if key:
        columns.append(f"primary key ({', '.join(map(quoted, key))})")
    holes = ", ".join(["%s"] * records.num_columns)
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("create table if not exists " + quoted(table) + f" ({', '.join(columns)})")
        rows = [tuple(map(_stored, record.values())) for record in records.to_pylist()]
        cursor.executemany("insert into " + quoted(table) + f" values ({holes})", rows)


def _stored(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(sep=" ")
    return repr(value) if isinstance(value, float) else value


def as_python(value: Any, kind: pa.DataType) -> Any:
    """Return what the driver gave in Python's type for an Arrow type."""
    if value is None:
        return None
    if pa.types.is_boolean(kind):
        return bool(value)
    if pa.types.is_time(kind):
        assert isinstance(value, timedelta)
        return (datetime(1, 1, 1) + value).time()  # noqa: DTZ001 -- a time of day
    if pa.types.is_timestamp(kind) and kind.tz:
        return value.replace(tzinfo=UTC)
    return value


def tables(url: str) -> set[str]:
    sql = f"select table_name from information_schema.tables where table_schema = '{database(url)}'"
    return {name for (name,) in query(url, sql)[1]}
