"""The SQL statements that a process sends, taken at the drivers or in the server's log."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql

from tests.services import OwnPostgres

if TYPE_CHECKING:
    from tests.comparison.cases import Case

#: A message of PostgreSQL's log that holds a statement.
_LOGGED = re.compile(r"^(?P<database>[^,]*),(?P<pid>\d+),LOG:  (?:statement|execute [^:]*): (?P<sql>.*)$")


def record_statements(trace: Path) -> None:
    """Write each statement of this process into a file, with a number for the connection."""
    handle = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(connection: int, sql: str) -> None:
        os.write(handle, json.dumps([os.getpid(), connection, str(sql)]).encode() + b"\n")

    _record_sqlite(note)
    _record_duckdb(note)
    _record_mysql(note)


def _record_sqlite(note: Any) -> None:
    import sqlite3

    connect = sqlite3.connect

    def traced(database: Any, *arguments: Any, **options: Any) -> Any:
        connection = connect(database, *arguments, **options)
        if ".syncblocks" not in str(database):  # the run store is compared by its rows
            connection.set_trace_callback(lambda sql: note(id(connection), sql))
        return connection

    sqlite3.connect = traced


def _record_duckdb(note: Any) -> None:
    import duckdb

    connect = duckdb.connect

    class Traced:
        def __init__(self, connection: Any) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> Any:
            return getattr(self._connection, name)

        def cursor(self) -> Traced:
            return Traced(self._connection.cursor())

        def execute(self, sql: Any, *arguments: Any, **options: Any) -> Any:
            note(id(self), sql)
            self._connection.execute(sql, *arguments, **options)
            return self

        def __enter__(self) -> Traced:
            return self

        def __exit__(self, *_: object) -> None:
            self._connection.close()

    duckdb.connect = lambda *arguments, **options: Traced(connect(*arguments, **options))


def _record_mysql(note: Any) -> None:
    execute = pymysql.connections.Connection._execute_command

    def traced(connection: Any, command: int, sql: Any) -> Any:
        text = sql.decode(errors="replace") if isinstance(sql, (bytes, bytearray)) else sql
        note(id(connection), text)
        return execute(connection, command, sql)

    pymysql.connections.Connection._execute_command = traced


def written(trace: Path) -> str:
    """Return and clear a trace. Statements keep their order within a connection; connections are sorted by content."""
    if not trace.exists():
        return ""
    connections: dict[tuple[int, int], list[str]] = {}
    for line in trace.read_text().splitlines():
        pid, connection, sql = json.loads(line)
        connections.setdefault((pid, connection), []).append(" ".join(sql.split()))
    trace.unlink()
    return "\n\n".join(sorted("\n".join(statements) for statements in connections.values()))


class Servers:
    """The servers of a recording, with a database of its own for each case."""

    def __init__(self, postgres: OwnPostgres) -> None:
        self._postgres, self._lock = postgres, threading.Lock()
        self._log = postgres.data / "log" / "all.log"
        self.mysql: dict[str, Any] = {"host": "127.0.0.1", "user": "root"}

    def database(self, case: Case) -> str:
        return f"compared_{case.number}"

    def postgres_url(self, case: Case) -> str:
        return self._postgres.url.rpartition("/")[0] + f"/{self.database(case)}"

    def mysql_url(self, case: Case) -> str:
        return f"mysql://root@127.0.0.1:3306/{self.database(case)}"

    def create(self, case: Case) -> str:
        """Create the databases of a case, and return their name."""
        name = self.database(case)
        self._each(case, f"drop database if exists {name}", f"create database {name}")
        return name

    def drop(self, case: Case) -> None:
        name = self.database(case)
        self._each(case, f"drop database if exists {name}")

    def _each(self, case: Case, *statements: str) -> None:
        systems = {case.source, case.destination}
        if "postgres" in systems:
            with psycopg.connect(self._postgres.url, autocommit=True) as connection:
                for sql in statements:
                    connection.execute(sql.encode())
        if "mysql" in systems:
            with pymysql.connect(**self.mysql) as server, server.cursor() as cursor:
                for sql in statements:
                    cursor.execute(sql)

    @contextmanager
    def logged(self, case: Case, trace: Path) -> Iterator[None]:
        """Add what PostgreSQL logs of a case's database meanwhile to a trace."""
        if "postgres" not in {case.source, case.destination}:
            yield
            return
        time.sleep(0.1)  # the collector writes a moment later
        before = self._log.stat().st_size
        yield
        time.sleep(0.1)
        with self._log.open(errors="replace") as log, trace.open("a") as into:
            log.seek(before)
            for line in log:
                match = _LOGGED.match(line.rstrip("\n"))
                if match is not None and match["database"] == self.database(case):
                    into.write(json.dumps([int(match["pid"]), 0, match["sql"]]) + "\n")
