"""Real databases as destinations, read back by their own drivers."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb

from tests import services
from tests.connectors.sqlalchemy import firebird_files

DESTINATIONS = ("sqlite", "duckdb", "postgres", "mysql")

#: Databases that the connector `sqlalchemy` writes.
ALCHEMY = ("firebird", "psycopg")


class Target:
    """A real database as the destination, read back by its own driver."""

    def __init__(self, kind: str, folder: Path, url: str) -> None:
        self.kind, self.folder, self.url = kind, folder, url

    @property
    def document(self) -> dict[str, Any]:
        place = {"url": self.url} if self.url else {"path": self._path}
        if self.kind in ALCHEMY:
            place["url"] = self.url.replace("postgresql:", "postgresql+psycopg:")
        return {"block": "export", "connector": "sqlalchemy" if self.kind in ALCHEMY else self.kind, "config": place}

    @property
    def _path(self) -> str:
        return "target" if self.kind == "parquet" else f"target.{self.kind}"  # a folder, or a file

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(self._connect()) as connection:
            cursor = connection.cursor()
            cursor.execute(sql)
            rows = [tuple(map(_read, row)) for row in cursor.fetchall()] if cursor.description else []
            connection.commit()
            cursor.close()
            return rows

    def _connect(self) -> Any:
        path = str(self.folder / self._path)
        if self.kind == "sqlite":
            return sqlite3.connect(path)
        if self.kind == "duckdb":
            return duckdb.connect(path)
        if self.kind == "parquet":  # of which `t` is read
            database = duckdb.connect()
            database.execute(f"create view t as from read_parquet('{path}/t.parquet')")
            return database
        if self.kind == "firebird":
            return firebird_files.connect(self.folder / "target.fdb")
        if self.kind in ("postgres", "psycopg"):
            import psycopg

            return psycopg.connect(self.url)
        import pymysql

        parts = self.url.rpartition("/")
        return pymysql.connect(host="127.0.0.1", user="root", database=parts[2])

    def rejected(self) -> list[tuple[Any, str]]:
        quote = "`" if self.kind == "mysql" else '"'
        rows = self.query(f"select record, reason from {quote}_syncblocks_rejected{quote}")
        return [(json.loads(record), reason) for record, reason in sorted(rows)]


@contextmanager
def open_target(kind: str, folder: Path) -> Iterator[Target]:
    """Yield a destination of this test's own."""
    if kind in ("postgres", "psycopg"):
        with services.fresh_postgres_database() as url:
            yield Target(kind, folder, url)
    elif kind == "mysql":
        with services.fresh_mariadb_database() as url:
            yield Target(kind, folder, url)
    elif kind == "firebird":
        yield Target(kind, folder, firebird_files.create(folder / "target.fdb"))
    else:
        yield Target(kind, folder, "")


def _read(value: Any) -> Any:
    return value.read() if hasattr(value, "read") else value
