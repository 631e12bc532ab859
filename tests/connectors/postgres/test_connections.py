"""Connections: interrupted, cut, given up and used again; what is said of them tells no secret."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pyarrow as pa
import pytest

from syncblocks.connectors.errors import (
    ConnectorConfigError,
    ConnectorError,
    FatalConnectorError,
    Interrupted,
    RetriableError,
)
from syncblocks.connectors.postgres.asyncpg_session import AsyncpgSession
from syncblocks.connectors.postgres.destination import PostgresDestination
from syncblocks.connectors.postgres.failures import connect_failure, failure
from syncblocks.connectors.postgres.settings import PostgresSettings, parse_address
from syncblocks.connectors.postgres.source import PostgresSource
from syncblocks.connectors.registry import make_source
from syncblocks.connectors.sql.identifiers import TableName
from syncblocks.connectors.stream import Checkpoint, Event, Stream
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition
from tests.connectors.postgres.postgres_pair import PLAIN, batch_of, copy, find, order, rows, script, write
from tests.connectors.postgres.postgres_pair import destination as destination
from tests.connectors.postgres.postgres_proxy import proxy

BATCH = batch_of({"id": [1, 2]})
STREAM = Stream(name="s", schema=BATCH.schema, key_properties=("id",))

SLOW = "create function wait() returns bigint language sql volatile as 'select 1::bigint from pg_sleep(20)'; "


def interrupted_within_a_second(interrupt: Callable[[], None], call: Callable[[], object], url: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(call)
        active = (
            "select count(*) from pg_stat_activity where datname = current_database() and state = 'active' "
            "and wait_event = 'PgSleep'"
        )
        while rows(url, active) == [(0,)]:
            assert not running.done(), running.exception()
        started = time.monotonic()
        interrupt()
        with pytest.raises(Interrupted):
            running.result(20)
        assert time.monotonic() - started < 15
    assert rows(url, active) == [(0,)]


@pytest.mark.parametrize("wire", ["arrow", "pgcopy"])
def test_a_long_read_is_interrupted_within_a_second(postgres_url: str, wire: str) -> None:
    script(postgres_url, SLOW + "create view v as select wait() as id")
    source = PostgresSource({"url": postgres_url}, Path())
    stream = find(source, "public.v")
    interrupted_within_a_second(
        lambda: source.interrupt("public.v"), lambda: list(source.read([stream], {}, wire)), postgres_url
    )
    source.interrupt("public.v")
    source.interrupt("another stream")
    script(postgres_url, "create or replace view v as select 5::bigint as id")
    assert list(source.read([stream], {}, wire))
    source.close()


@pytest.mark.parametrize("disposition", PLAIN)
def test_a_long_write_is_interrupted_within_a_second(
    postgres_url: str, destination: PostgresDestination, disposition: WriteDisposition
) -> None:
    script(
        postgres_url,
        SLOW + "create table t (id bigint primary key); "
        "create function slow() returns trigger language plpgsql as 'begin perform wait(); return new; end'; "
        "create trigger slowly before insert on t for each row execute function slow()",
    )
    load = order(destination, STREAM, "t", disposition)
    interrupted_within_a_second(
        lambda: destination.interrupt("s"),
        lambda: list(destination.load(load, iter([BATCH, Checkpoint(is_final=True)]))),
        postgres_url,
    )
    script(postgres_url, "drop trigger slowly on t")
    list(destination.load(load, iter([BATCH, Checkpoint(is_final=True)])))
    assert rows(postgres_url, "select count(*) from t") == [(2,)]


def test_a_raw_write_is_interrupted_within_a_second(postgres_url: str) -> None:
    script(
        postgres_url,
        SLOW + "create table a (id bigint primary key); insert into a values (1); create table t (id bigint); "
        "create function slow() returns trigger language plpgsql as 'begin perform wait(); return new; end'; "
        "create trigger slowly before insert on t for each row execute function slow()",
    )
    source, destination = (
        PostgresSource({"url": postgres_url}, Path()),
        PostgresDestination({"url": postgres_url}, Path()),
    )
    stream = find(source, "public.a")
    blocks = [event for _, event in source.read([stream], {}, "pgcopy")]
    load = order(destination, stream, "t")
    interrupted_within_a_second(
        lambda: destination.interrupt("public.a"),
        lambda: list(destination.load(load, iter([*blocks, Checkpoint(is_final=True)]), "pgcopy")),
        postgres_url,
    )
    source.close()
    destination.close()


def test_a_read_that_is_given_up_leaves_nothing_open(postgres_url: str) -> None:
    script(postgres_url, "create table t as select g as id, repeat('x', 200) as v from generate_series(1, 200000) g")
    source = PostgresSource({"url": postgres_url, "batch_size_bytes": 100_000}, Path())
    stream = find(source, "public.t")
    for wire in ("arrow", "pgcopy"):
        events = source.read([stream], {}, wire)
        next(events)
        started = time.monotonic()
        events.close()  # type: ignore[attr-defined]  # a generator
        assert time.monotonic() - started < 30
        assert source.count(stream) == 200000
    source.close()
    script(postgres_url, "drop table t")


def test_closing_ends_every_connection(postgres_url: str) -> None:
    script(postgres_url, "create table a (id int primary key)")
    source, destination = (
        PostgresSource({"url": postgres_url}, Path()),
        PostgresDestination({"url": postgres_url}, Path()),
    )
    stream = find(source, "public.a")
    for wire in ("arrow", "pgcopy"):
        load = order(destination, stream, f"t_{wire}")
        events = [event for _, event in source.read([stream], {}, wire)]
        list(destination.load(load, iter([*events, Checkpoint(is_final=True)]), wire))
    count = (
        "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'syncblocks'"
    )
    assert rows(postgres_url, count)[0][0] > 0
    source.close()
    destination.close()
    deadline = time.monotonic() + 5
    while rows(postgres_url, count) != [(0,)]:
        assert time.monotonic() < deadline
    assert destination.describe(["t_arrow"])["t_arrow"].schema is not None
    destination.close()


def test_connections_are_reused_and_replaced_when_they_died(postgres_url: str) -> None:
    destination = PostgresDestination({"url": postgres_url}, Path())
    destination.prepare("arrow", is_whole=True)
    pids = (
        "select array_agg(pid) from pg_stat_activity where application_name = 'syncblocks' "
        "and datname = current_database()"
    )
    write(destination, [BATCH], "t")
    before = rows(postgres_url, pids)
    write(destination, [BATCH], "t")
    assert rows(postgres_url, pids) == before
    assert len(before[0][0]) == 1
    script(
        postgres_url,
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'syncblocks' "
        "and datname = current_database()",
    )
    write(destination, [BATCH], "t")
    assert rows(postgres_url, "select count(*) from t") == [(6,)]
    destination.close()


@pytest.mark.parametrize("wire", ["arrow", "pgcopy"])
def test_a_server_that_is_gone_since_its_catalog_was_read_is_retriable(postgres_url: str, wire: str) -> None:
    script(postgres_url, "create table t (id int)")
    with proxy(postgres_url) as server:
        source = PostgresSource({"url": server.url}, Path())
        stream = find(source, "public.t")
        server.close()
        with pytest.raises(RetriableError, match="cannot connect"):
            list(source.read([stream], {}, wire))
        source.close()


def test_a_connection_cut_in_the_middle_is_retriable(postgres_url: str, destination: PostgresDestination) -> None:
    load = order(destination, STREAM, "t")

    def events() -> Iterator[Event]:
        yield BATCH
        script(
            postgres_url,
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'syncblocks' "
            "and datname = current_database()",
        )
        for _ in range(2000):
            yield batch_of({"id": list(range(1000))})
        yield Checkpoint(is_final=True)

    with pytest.raises(RetriableError):
        list(destination.load(load, events()))
    assert rows(postgres_url, "select to_regclass('t')") == [(None,)]


def test_deadlocks_and_lock_timeouts_are_retriable(postgres_url: str, destination: PostgresDestination) -> None:
    script(postgres_url, "create table t (id bigint primary key)")
    script(
        postgres_url,
        "do 'begin execute format(''alter database %I set lock_timeout = 100'', current_database()); end'",
    )
    with psycopg.connect(postgres_url) as other:
        other.execute("lock table t")
        with pytest.raises(RetriableError, match="lock timeout"):
            write(destination, [BATCH], "t", WriteDisposition.MERGE, key=["id"])


#: What a database may be set to and its texts, or ours, would read differently by.
SETTINGS = {
    "client_encoding": "latin1",
    "datestyle": "German, DMY",
    "intervalstyle": "iso_8601",
    "timezone": "Asia/Kathmandu",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "xmloption": "document",
    "search_path": "",
    "default_transaction_isolation": "serializable",
}


@pytest.mark.parametrize("wire", ["arrow", "pgcopy"])
def test_what_a_database_is_set_to_changes_no_value(postgres_url: str, wire: str) -> None:
    script(
        postgres_url,
        r"""create table t (id bigint primary key, v text, a text[], n int[], b bytea, d date, f double precision,
              at timestamptz, span interval, x xml);
            insert into t select g, 'it''s \ ' || chr(128512) || g, array['a,"', null, '\'], array[null, g],
              '\x00ff5c27', date '2024-02-03' + g, g / 3.0, timestamptz '2024-01-01 03:04:05.678901+02',
              interval '1 mon -2 days 3.5 s', 'no document'
            from generate_series(1, 20) g""",
    )
    name = postgres_url.rpartition("/")[2]
    script(postgres_url, "; ".join(f"alter database {name} set {key} = '{value}'" for key, value in SETTINGS.items()))
    copy(postgres_url, "public.t", "public.copied", WriteDisposition.REPLACE, wire)
    copy(postgres_url, "public.t", "public.copied", WriteDisposition.MERGE, wire)
    sql = "select count(*), md5(string_agg(r::text, ',' order by id)) from public.{} r"
    assert rows(postgres_url, sql.format("copied")) == rows(postgres_url, sql.format("t"))
    assert rows(postgres_url, "select a, n from public.copied where id = 1") == [(['a,"', None, "\\"], [None, 1])]


PASSWORD = "p@ss w/rd:?#%41"


@pytest.mark.parametrize(
    "config",
    [
        {"host": "127.0.0.1", "port": 1, "user": "u", "password": PASSWORD, "dbname": "d"},
        {"url": "postgresql://u:p%40ss%20w%2Frd%3A%3F%23%2541@127.0.0.1:1/d"},
        {"url": "postgresql://u:p%40ss@127.0.0.1:1/d?sslmode=wrong", "password": PASSWORD},
        {"url": "postgresql://u@nowhere.invalid/d", "password": PASSWORD},
        {"url": f"postgresql://u:{PASSWORD}@127.0.0.1:1/d"},
        {"host": "127.0.0.1", "password": PASSWORD, "dbname": "nope", "user": "nobody at all"},
        {"url": "mysql://u:p%40ss@127.0.0.1/d", "password": PASSWORD},
        {"password": PASSWORD},
        {"url": "postgresql://u@h/d", "port": PASSWORD, "password": PASSWORD},
    ],
)
def test_no_password_is_ever_shown(config: dict[str, Any]) -> None:
    for connector in (PostgresSource, PostgresDestination):
        caught, made = None, None
        try:
            made = connector(config, Path())
            made.check()
        except ConnectorError as raised:
            caught = raised
        assert caught is not None
        texts = [repr(made), repr(made.__dict__ if made else "")]
        error: BaseException | None = caught
        while error is not None:
            texts += [str(error), repr(error.__dict__)]
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        for text in texts:
            for secret in (PASSWORD, "p%40ss", "w%2Frd", "p@ss"):
                assert secret not in text


def test_wrong_settings_and_places_that_do_not_exist_are_config_errors(postgres_url: str) -> None:
    for url in (
        postgres_url + "_missing",
        postgres_url.replace("postgres@", "nobody_at_all@"),
        postgres_url + "?sslmode=verify-full&sslrootcert=/nonexistent",
    ):
        with pytest.raises(ConnectorConfigError):
            PostgresSource({"url": url}, Path()).check()
    with pytest.raises(RetriableError):
        PostgresSource({"url": "postgresql://postgres@127.0.0.1:1/postgres"}, Path()).check()
    with pytest.raises(ConnectorConfigError, match="schema"):
        PostgresSource({"url": postgres_url, "schemas": "x"}, Path())


def test_tls_that_the_server_lacks_is_a_config_error_whatever_the_driver() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as thread:

        def refuse() -> None:
            for _ in range(2):
                with server.accept()[0] as connection:
                    connection.recv(8)
                    connection.sendall(b"N")

        refusing = thread.submit(refuse)
        url = f"postgresql://me@127.0.0.1:{server.getsockname()[1]}/db?sslmode=require"
        with pytest.raises(ConnectorConfigError, match="SSL"):
            PostgresSource({"url": url}, Path()).check()
        with pytest.raises(ConnectorConfigError, match="SSL"):
            AsyncpgSession(PostgresSettings(url=url).address, "begin")
        refusing.result(10)


def test_a_certificate_of_another_name_is_a_config_error() -> None:
    address = parse_address("postgresql://me@127.0.0.1/crm?sslmode=verify-full")
    for text in (  # of libpq and of asyncpg
        'server certificate for "localhost" does not match host name "127.0.0.1"',
        "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: IP address mismatch",
    ):
        assert isinstance(connect_failure(OSError(text), address), ConnectorConfigError)


def test_a_password_that_is_escaped_in_its_file_is_left_to_libpq(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The raw wire's driver does not undo the escapes: `check` could log in, and `run` could not."""
    file = tmp_path / "pgpass"
    monkeypatch.setenv("PGPASSFILE", str(file))
    address = parse_address("postgresql://me@db/crm")
    file.write_text("db:5432:crm:me:plain\n")
    assert address.is_plain
    file.write_text("db:5432:crm:me:colon\\:ed\n")
    assert not address.is_plain
    assert replace(address, password="given").is_plain


@pytest.mark.parametrize("url", ["postgresql://me@db/crm", "postgresql://me:given@db/crm"])
def test_a_login_without_a_password_says_where_to_give_one(url: str) -> None:
    text = str(connect_failure(OSError("fe_sendauth: no password supplied"), parse_address(url)))
    assert ("no password was given: set `password`" in text) is ("given" not in url)


def test_a_server_whose_name_sounds_like_a_mistake_is_retriable() -> None:
    text = 'connection to server at "password.invalid" (10.0.0.1), port 5432 failed: Connection refused'
    address = parse_address("postgresql://me@password.invalid/crm")
    assert isinstance(connect_failure(OSError(text), address), RetriableError)


@pytest.mark.parametrize("role", ["login", "nologin"])
def test_a_role_that_may_not_connect_is_a_config_error_whatever_the_driver(postgres_url: str, role: str) -> None:
    name = f"stranger_{uuid.uuid4().hex[:8]}"
    database = urlsplit(postgres_url).path[1:]
    script(postgres_url, f"create role {name} {role}; revoke connect on database {database} from public")
    try:
        settings = PostgresSettings(url=postgres_url, user=name)
        with pytest.raises(ConnectorConfigError, match="cannot connect"):
            PostgresSource({"url": postgres_url, "user": name}, Path()).check()
        with pytest.raises(ConnectorConfigError, match="cannot connect"):
            AsyncpgSession(settings.address, "begin")
    finally:
        script(postgres_url, f"drop role {name}")


@pytest.mark.parametrize(("connector", "scheme"), [("postgres", "postgresql"), ("mysql", "mysql")])
def test_an_error_shows_the_host_as_the_file_writes_it(connector: str, scheme: str) -> None:
    source = make_source(connector, {"url": f"{scheme}://me:secret@127.0.0.1:1/crm"}, Path())
    with pytest.raises(ConnectorError) as raised:
        source.check()
    source.close()
    assert "127.0.0.1:1/crm" in str(raised.value)
    assert "localhost" in source.identity()


def test_identity_is_the_same_however_the_place_is_written() -> None:
    spellings = [
        {"url": "postgresql://u:secret@localhost/crm"},
        {"url": "postgres://127.0.0.1:5432/crm?sslmode=disable"},
        {"url": "postgresql:///crm"},
        {"host": "localhost", "dbname": "crm", "user": "x", "password": "secret"},
        {"url": "postgresql://db.example:5433/other", "host": "LOCALHOST", "port": 5432, "dbname": "crm"},
    ]
    identities = {PostgresSource(config, Path()).identity() for config in spellings}
    assert identities == {"postgres://localhost/crm"}
    other = PostgresDestination({"url": "postgresql://u:secret@db.example:5433/crm"}, Path())
    assert other.identity() == "postgres://db.example:5433/crm"


def test_a_raw_session_refuses_what_it_cannot_send(postgres_url: str) -> None:
    session = AsyncpgSession(PostgresSettings(url=postgres_url).address, "begin")
    try:
        with pytest.raises(FatalConnectorError):
            session.execute("select 'a\0b'")
        script(postgres_url, "create table t (id int)")
        session.begin()
        with pytest.raises(FatalConnectorError):
            session.ingest(TableName("public", "t"), pa.schema([("id", pa.int32())]), iter([b"nonsense"]), "pgcopy")
        session.rollback()
        assert session.query("select 1") == [(1,)]

        def blocks() -> Iterator[bytes]:
            yield b"PGCOPY\n\xff\r\n\0"
            raise KeyError("mine")

        session.begin()
        with pytest.raises(KeyError, match="mine"):
            session.ingest(TableName("public", "t"), pa.schema([("id", pa.int32())]), blocks(), "pgcopy")
        session.rollback()
        assert session.query("select 1") == [(1,)]
    finally:
        session.close()
        with suppress(RetriableError):
            session.execute("select 1")


@pytest.mark.parametrize("sort", [connect_failure, failure])
def test_a_catalog_file_that_cannot_be_written_hints_at_a_full_disk(sort: Any) -> None:
    """PostgreSQL 15 reports a full disk this way when a connection begins."""
    address = parse_address("postgresql://me@127.0.0.1/crm")
    assert "disk is probably full" in str(sort(OSError("FATAL: could not write init file"), address))
    assert "disk" not in str(sort(OSError("FATAL: the database system is starting up"), address))
