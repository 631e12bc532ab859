"""Firebird's embedded engine, for tests: a database that has no connector of its own here, and is unlike the others.

It folds names to upper case, shows a new table only after the commit, keeps tenths of milliseconds, and has no LIMIT.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests import services

TYPES = {
    "int64": "bigint",
    "int16": "smallint",
    "decimal128(38, 10)": "numeric(38, 10)",
    "decimal128(20, 4)": "numeric(20, 4)",
    "bool": "boolean",
    "double": "double precision",
    "timestamp[us, tz=UTC]": "timestamp with time zone",
    "timestamp[us]": "timestamp",
    "date32[day]": "date",
    "time64[us]": "time",
    "binary": "blob",
    "string": "blob sub_type text",
}


@cache
def load_engine() -> None:
    """Load the engine out of its wheel, which leaves one library to the system.

    That one (libtommath) is for passwords over a network only. Where the system lacks it, an empty one stands in.
    """
    try:
        from firebird.driver import driver_config
        from firebird.embedded.provider import FirebirdProvider
    except ModuleNotFoundError as error:
        services.missing(f"{error.name} is not installed: Firebird's embedded engine comes for Linux only")
    provider = FirebirdProvider()
    root = provider.root
    os.environ["FIREBIRD"] = str(root)
    try:
        ctypes.CDLL("libtommath.so.1", mode=ctypes.RTLD_GLOBAL)
    except OSError:
        ctypes.CDLL(str(_stand_in(root)), mode=ctypes.RTLD_GLOBAL)
    for library in sorted(root.glob("libtomcrypt.so.1")):
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    driver_config.fb_client_library.value = str(provider.client_library)
    driver_config.server_defaults.host.value = None


def _stand_in(root: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        services.missing("Firebird's engine needs libtommath: apt-get install libtommath1")
    folder = Path(tempfile.mkdtemp(prefix="syncblocks-firebird-"))
    libraries = [path for path in root.rglob("*.so*") if path.is_file()]
    names = sorted(
        {match.decode() for path in libraries for match in re.findall(rb"\bmp_[a-z0-9_]+\b", path.read_bytes())}
    )
    code, library = folder / "empty.c", folder / "libtommath.so.1"
    code.write_text("\n".join(f"int {name}(void) {{ return -1; }}" for name in names))
    flags = ["-shared", "-fPIC", "-Wl,-soname,libtommath.so.1", "-o", str(library), str(code)]
    subprocess.run([str(compiler), *flags], check=True, capture_output=True)
    return library


@cache
def _empty() -> Path:
    """Make one empty database, to be copied: that takes a tenth of the time."""
    load_engine()
    from firebird.driver import create_database

    path = Path(tempfile.mkdtemp(prefix="syncblocks-firebird-"), "empty.fdb")
    with closing(create_database(str(path), user="sysdba", charset="UTF8")):
        pass
    # Held open: after a minute without a connection the engine unloads itself, and does not come back.
    held = path.with_name("held.fdb")
    shutil.copy(path, held)
    atexit.register(connect(held).close)
    return path


def create(path: Path) -> str:
    """Make an empty database and return its URL."""
    shutil.copy(_empty(), path)
    return f"firebird+firebird://sysdba@/{path}?charset=UTF8"


def connect(path: Path) -> Any:
    from firebird.driver import connect

    return connect(str(path), user="sysdba", charset="UTF8")


def quoted(name: str) -> str:
    return '"' + _stored_name(name).replace('"', '""') + '"'


def put(path: Path, table: str, records: pa.Table, key: Sequence[str] = ()) -> None:
    with closing(connect(path)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("select 1 from rdb$relations where rdb$relation_name = ?", (_stored_name(table),))
        if not cursor.fetchall():
            columns = [
                f"{quoted(field.name)} {TYPES[str(field.type)]}{' not null' if field.name in key else ''}"
                for field in records.schema
            ]
            if key:
                columns.append(f"primary key ({', '.join(map(quoted, key))})")
            cursor.execute(f"create table {quoted(table)} ({', '.join(columns)})")
            connection.commit()
        holes = ", ".join("?" * records.num_columns)
        rows = [tuple(map(_stored, record.values())) for record in records.to_pylist()]
        if rows:
            cursor.executemany(f"insert into {quoted(table)} values ({holes})", rows)
            connection.commit()


def _stored(value: Any) -> Any:
    from firebird.driver import get_timezone

    return value.replace(tzinfo=get_timezone("UTC")) if isinstance(value, datetime) and value.tzinfo else value


def _stored_name(name: str) -> str:
    return name.upper() if re.fullmatch("[a-z][a-z0-9_]*", name) else name


def query(path: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    with closing(connect(path)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(sql)
        names = [column[0] for column in cursor.description]
        return list(map(shown, names)), [tuple(map(_read, row)) for row in cursor.fetchall()]


def shown(name: str) -> str:
    """Return a name of the catalog as users know it: plain ones in upper case are any case."""
    return name.lower() if re.fullmatch("[A-Z][A-Z0-9_]*", name) else name


def _read(value: Any) -> Any:
    if hasattr(value, "read"):
        return value.read()
    return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo else value


def tables(path: Path) -> set[str]:
    _, rows = query(path, "select trim(rdb$relation_name) from rdb$relations where rdb$system_flag = 0")
    return {shown(name) for (name,) in rows}
