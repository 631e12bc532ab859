"""MySQL and MariaDB: values, names, locks, and the server's own habits, looked at through pymysql."""

from __future__ import annotations

import re
import secrets
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import pyarrow as pa
import pytest

from syncblocks.connectors.errors import (
    ConnectorConfigError,
    ConnectorError,
    FatalConnectorError,
    Interrupted,
    TakenOver,
)
from syncblocks.connectors.mysql import session
from syncblocks.connectors.mysql.failures import failure
from syncblocks.connectors.registry import make_destination, make_source
from syncblocks.connectors.stream import Event
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import ConflictMethod, WriteDisposition
from tests.connectors.mysql.mysql_databases import connect, database, is_mariadb, numbers, query, run, tables
from tests.connectors.mysql.mysql_pair import (
    APPEND,
    FINAL,
    MERGE,
    PEOPLE,
    REPLACE,
    destination_of,
    load_of,
    people,
    read,
    write,
)

pytest.importorskip("pymysql")


def test_an_error_for_lack_of_room_names_the_disk(mariadb_url: str) -> None:
    import pymysql

    destination = destination_of(mariadb_url)
    with connect(mariadb_url) as connection, connection.cursor() as cursor:
        cursor.execute("set max_heap_table_size = 16384")
        cursor.execute("create table small (a varchar(1000)) engine = memory")
        with pytest.raises(pymysql.err.OperationalError, match="1114") as full:
            cursor.execute(f"insert into small select repeat('x', 1000) from {numbers(100)}")
    assert "disk" in str(failure(full.value, destination.address))


# -- values ----------------------------------------------------------------------------------------------------------


def test_keys_that_differ_in_case_or_a_space_at_the_end_stay_apart(mariadb_url: str) -> None:
    schema = pa.schema([pa.field("id", pa.string(), nullable=False), ("n", pa.int64())])
    batch = pa.RecordBatch.from_pylist([{"id": key, "n": 1} for key in ("a", "A", "a ", "á")], schema=schema)
    destination = destination_of(mariadb_url)
    for disposition in (REPLACE, MERGE):
        write(destination, load_of(schema, disposition), [batch, FINAL])
    destination.close()
    assert sorted(query(mariadb_url, "select id from people")[1]) == [("A",), ("a",), ("a ",), ("á",)]


#: Collation of a key's column -> texts that its index takes for equal.
BLURRED = {
    "utf8mb4_general_ci": ("a", "A"),
    "utf8mb4_bin": ("a", "a "),
    "latin1_swedish_ci": ("é", "É"),
    "utf8mb3_unicode_ci": ("a", "á"),
}


@pytest.mark.parametrize("method", [ConflictMethod.UPDATE, ConflictMethod.IGNORE], ids=str)
@pytest.mark.parametrize("collation", BLURRED)
def test_keys_that_a_tables_own_collation_takes_for_one_are_not_merged_into_one(
    mariadb_url: str, collation: str, method: ConflictMethod
) -> None:
    schema = pa.schema([pa.field("id", pa.string(), nullable=False), ("n", pa.int64())])
    key = f"id varchar(200) collate {collation} primary key"
    run(mariadb_url, "set names utf8mb4", f"create table people ({key}, n bigint)")
    held, arriving = BLURRED[collation]
    run(mariadb_url, f"insert into people values ('{held}', 1), ('z', 1)")
    destination = destination_of(mariadb_url)
    for keys in ([arriving], [held, arriving]):
        batch = pa.RecordBatch.from_pylist([{"id": each, "n": 2} for each in keys], schema=schema)
        with pytest.raises(ConnectorError, match="Duplicate entry"):
            write(destination, load_of(schema, MERGE, conflict_method=method), [batch, FINAL])
    batch = pa.RecordBatch.from_pylist([{"id": each, "n": 3} for each in (held, "z", "y")], schema=schema)
    write(destination, load_of(schema, MERGE, conflict_method=method), [batch, FINAL])
    destination.close()
    kept = 3 if method is ConflictMethod.UPDATE else 1
    assert sorted(query(mariadb_url, "select * from people")[1]) == sorted([(held, kept), ("z", kept), ("y", 3)])


def test_large_values_go_through(mariadb_url: str) -> None:
    destination = destination_of(mariadb_url)
    text = "é\t\n\\'" * 1_000_000 + '"' * 100
    write(destination, load_of(PEOPLE, APPEND), [people((1, text), (2, "")), FINAL])
    destination.close()
    assert query(mariadb_url, "select name from people where id = 1")[1] == [(text,)]
    assert {record["id"]: record["name"] for record in read(mariadb_url, "people")[1]} == {1: text, 2: ""}


def test_what_a_server_is_set_to_changes_nothing(mariadb_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as it is a session's, which spares the server that other tests use: it is set before all of ours."""
    hostile = (
        "set session sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT,PAD_CHAR_TO_FULL_LENGTH', time_zone = '+05:45'",
        "set session sql_select_limit = 1, sql_big_selects = 0, max_join_size = 1, sql_safe_updates = 1",
        "set session default_storage_engine = MyISAM, div_precision_increment = 0, group_concat_max_len = 4",
        "set session sql_auto_is_null = 1, completion_type = 1, max_sort_length = 8, innodb_strict_mode = 0",
    )
    monkeypatch.setattr(session, "_SETUP", (*hostile, *session._SETUP))
    sent = people((1, "it's \\"), (2, '"b"'), (3, None))
    destination = destination_of(mariadb_url)
    for disposition in (REPLACE, MERGE):
        write(destination, load_of(PEOPLE, disposition), [sent, FINAL])
    destination.close()
    stream, records = read(mariadb_url, "people")
    assert (records, stream.key_properties) == (sent.to_pylist(), ("id",))
    engines = "select distinct engine from information_schema.tables where table_schema = database()"
    assert query(mariadb_url, engines)[1] == [("InnoDB",)]


def test_a_table_that_is_dropped_while_the_catalog_is_read_is_not_there(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = session.MySQLSession.query

    def look_too_early(self: Any, sql: str, *parameters: Any) -> Any:
        found = look(self, sql, *parameters)
        if "information_schema.tables" in sql:
            run(mariadb_url, "drop table if exists people")
        return found

    run(mariadb_url, "create table people (id bigint primary key)", "create table others (id bigint primary key)")
    monkeypatch.setattr(session.MySQLSession, "query", look_too_early)
    destination = destination_of(mariadb_url)
    described = destination.describe(["people", "others"])
    destination.close()
    assert described["people"].schema is None
    assert described["others"].schema is not None


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("charset", ["utf8mb4", "latin1", "utf16"])
def test_texts_full_of_quotes_come_whole(mariadb_url: str, charset: str) -> None:
    """To double them in the server would take minutes."""
    texts = ['"', '"' * 1_000_000, 'é"' * 4_000, None]
    values = ", ".join(f"({place}, %s)" for place in range(len(texts)))
    run(mariadb_url, f"create table people (id bigint primary key, name longtext character set {charset})")
    with connect(mariadb_url) as connection, connection.cursor() as cursor:
        cursor.execute(f"insert into people values {values}", texts)
    _, records = read(mariadb_url, "people")
    assert [record["name"] for record in sorted(records, key=lambda record: record["id"])] == texts


def test_a_partition_whose_comment_has_a_quote_spoils_no_table(mariadb_url: str) -> None:
    """MariaDB cannot open such a table without escapes, and with it each look at the keys of all schemas failed."""
    partitions = "partition by range (n) (partition p0 values less than (10) comment 'it''s one', partition p1 values "
    run(mariadb_url, "create table plain (n int primary key, name text)", "insert into plain values (1, 'it''s \\\\')")
    run(
        mariadb_url,
        f"create table parts (n int primary key, name text) {partitions} less than maxvalue comment '\\\\')",
    )
    run(mariadb_url, "insert into parts values (5, '\\\\n'), (50, 'x_y')")
    destination = destination_of(mariadb_url)
    for name, expected in (("plain", [(1, "it's \\")]), ("parts", [(5, "\\n"), (50, "x_y")])):
        run(mariadb_url, "flush tables")  # each is opened anew
        records = read(mariadb_url, name)[1]
        assert [(record["n"], record["name"]) for record in records] == expected
        run(mariadb_url, "flush tables")
        write(destination, load_of(PEOPLE, REPLACE), [people((1, "a")), FINAL])
    destination.close()


def test_names_that_are_no_identifiers_here_are_told_apart_by_a_hash(mariadb_url: str) -> None:
    odd = ["emoji\U0001f600", "emoji\U0001f601", "x" * 65, "x" * 66, "trailing ", "é" * 64]
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), *((name, pa.string()) for name in odd)])
    record = {"id": 1, **{name: name for name in odd}}
    destination = destination_of(mariadb_url)
    for disposition in (APPEND, MERGE, REPLACE):
        load = load_of(schema, disposition, f"table \U0001f600 {disposition}")
        for _ in range(2):
            write(destination, load, [pa.RecordBatch.from_pylist([record], schema=schema), FINAL])
        table = next(name for name in tables(mariadb_url) if str(disposition) in name)
        names, rows = query(mariadb_url, f"select * from `{table}`")
        assert len(rows) == (2 if disposition is APPEND else 1)
        assert len(set(names)) == len(odd) + 1
        assert list(rows[0]) == list(record.values())
        assert "é" * 64 in names
    destination.close()


def test_a_table_whose_name_differs_in_case_is_another(mariadb_url: str) -> None:
    run(mariadb_url, "create table people (other int)", "create table PEOPLE (more int)")
    destination = destination_of(mariadb_url)
    assert destination.describe(["People", "pets"])["People"].schema is None
    states = destination.describe(["people", "PEOPLE"])
    destination.close()
    assert {name: state.schema.names for name, state in states.items()} == {"people": ["other"], "PEOPLE": ["more"]}


def test_nothing_of_ours_is_offered(mariadb_url: str) -> None:
    destination = destination_of(mariadb_url)
    write(destination, load_of(PEOPLE, APPEND), [people((1, "a")), FINAL])
    destination.close()
    run(mariadb_url, "create view seen as select * from people")
    source = make_source("mariadb", {"url": mariadb_url}, Path.cwd())
    found = source.discover()
    source.close()
    name = database(mariadb_url)
    assert [(s.name, s.is_view) for s in found] == [(f"{name}.people", False), (f"{name}.seen", True)]


# -- ways of writing -------------------------------------------------------------------------------------------------


def test_where_load_data_is_off_inserts_carry_the_same_values(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from syncblocks.connectors.mysql.session import MySQLSession

    def refuse(*_: object) -> int:
        raise AssertionError("LOAD DATA was used")

    destination = destination_of(mariadb_url)
    connect = destination.connect

    def without() -> MySQLSession:
        session: MySQLSession = connect()
        session.can_load = False
        return session

    monkeypatch.setattr(MySQLSession, "_load", refuse)
    monkeypatch.setattr(destination._sessions, "_connect", without)
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            ("t", pa.string()),
            ("b", pa.binary()),
            ("d", pa.decimal128(20, 4)),
            ("at", pa.timestamp("us", "UTC")),
            ("ok", pa.bool_()),
        ]
    )
    records = [
        {
            "id": 1,
            "t": 'it\'s \\ "q"\n\t\0\U0001f600',
            "b": bytes(range(256)),
            "d": Decimal("-1.5000"),
            "at": datetime(2024, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
            "ok": False,
        },
        {"id": 2, "t": "", "b": b"", "d": None, "at": None, "ok": None},
        *({"id": n, "t": "x" * 5000, "b": None, "d": None, "at": None, "ok": True} for n in range(3, 1000)),
    ]
    write(destination, load_of(schema, MERGE), [pa.RecordBatch.from_pylist(records, schema=schema), FINAL])
    destination.close()
    assert sorted(read(mariadb_url, "people")[1], key=lambda record: record["id"]) == records


def test_a_table_with_an_index_is_refilled_and_keeps_it(mariadb_url: str) -> None:
    run(
        mariadb_url,
        "create table people (id bigint primary key, name varchar(200), key by_name (name))",
        "insert into people values (1, 'old'), (2, 'old')",
    )
    destination = destination_of(mariadb_url)
    write(destination, load_of(PEOPLE, REPLACE), [people((2, "new"), (3, "new")), FINAL])
    destination.close()
    assert sorted(query(mariadb_url, "select * from people")[1]) == [(2, "new"), (3, "new")]
    assert "by_name" in query(mariadb_url, "show create table people")[1][0][1]
    assert tables(mariadb_url) == {"people", "_syncblocks_ledger", "_syncblocks_swaps"}


def test_a_table_that_keeps_its_history_is_refilled(mariadb_url: str) -> None:
    if not is_mariadb(mariadb_url):
        pytest.skip("only MariaDB keeps a table's history")
    run(
        mariadb_url,
        "create table people (id bigint primary key, name longtext) with system versioning",
        "insert into people values (1, 'old')",
    )
    destination = destination_of(mariadb_url)
    write(destination, load_of(PEOPLE, REPLACE), [people((2, "new")), FINAL])
    rekeyed = load_of(PEOPLE, REPLACE, key=["name"], former_key=("id",))
    with pytest.raises(ConnectorError, match="its history"):
        write(destination, rekeyed, [people((2, "new")), FINAL])
    destination.close()
    assert query(mariadb_url, "select * from people")[1] == [(2, "new")]
    history = "select id, name, row_end < now(6) from people for system_time all order by id"
    assert query(mariadb_url, history)[1] == [(1, "old", 1), (2, "new", 0)]


def test_a_table_that_foreign_keys_point_at_is_replaced_in_place(mariadb_url: str) -> None:
    run(
        mariadb_url,
        "create table people (id bigint primary key, name varchar(200))",
        "create table pets (owner bigint, foreign key (owner) references people (id))",
        "insert into people values (1, 'old'), (2, 'old')",
        "insert into pets values (2)",
    )
    destination = destination_of(mariadb_url)
    write(destination, load_of(PEOPLE, REPLACE), [people((2, "new"), (3, "new")), FINAL])
    destination.close()
    assert sorted(query(mariadb_url, "select * from people")[1]) == [(2, "new"), (3, "new")]
    assert query(mariadb_url, "select * from pets")[1] == [(2,)]


@pytest.mark.parametrize("key", ["id bigint auto_increment", "id varchar(9) character set latin1 not null default 'x'"])
def test_records_are_removed_by_a_key_of_which_more_is_said(mariadb_url: str, key: str) -> None:
    run(mariadb_url, f"create table people ({key}, name varchar(200), primary key (id))")
    run(mariadb_url, "insert into people values (1, 'gone'), (2, 'old'), (3, 'c')")
    kind = pa.int64() if "bigint" in key else pa.string()
    schema = pa.schema([pa.field("id", kind, nullable=False), ("name", pa.string())])
    arriving = pa.table({"id": pa.array([2]).cast(kind), "name": ["new"]}, schema=schema)
    removed = pa.table({"id": pa.array([1, 2]).cast(kind)})
    destination = destination_of(mariadb_url)
    write(destination, load_of(schema, MERGE, removed=removed), [*arriving.to_batches(), FINAL])
    destination.close()
    assert query(mariadb_url, "select id + 0, name from people order by id")[1] == [(2, "new"), (3, "c")]


@pytest.mark.parametrize("disposition", [APPEND, MERGE], ids=str)
def test_a_text_that_the_character_set_of_a_table_lacks_is_an_error_with_a_way_out(
    mariadb_url: str, disposition: WriteDisposition
) -> None:
    run(mariadb_url, "create table people (id bigint primary key, name varchar(200)) character set latin1")
    run(mariadb_url, "insert into people values (1, 'old')")
    destination = destination_of(mariadb_url)
    with pytest.raises(FatalConnectorError, match="set lacks") as caught:
        write(destination, load_of(PEOPLE, disposition), [people((2, "łoś")), FINAL])
    destination.close()
    assert "`alter table ... convert to character set utf8mb4`" in str(caught.value)
    assert query(mariadb_url, "select * from people")[1] == [(1, "old")]


@pytest.mark.thinned(1)
@pytest.mark.parametrize("method", list(ConflictMethod), ids=str)
@pytest.mark.parametrize("index", ["", "unique key other (name)", "primary key (id), unique key other (name)"])
def test_merge_by_any_set_of_indexes(mariadb_url: str, index: str, method: ConflictMethod) -> None:
    columns = "id bigint not null, name varchar(200), gone int"
    run(
        mariadb_url,
        f"create table people ({', '.join(filter(None, [columns, index]))})",
        "insert into people values (1, 'a', 1), (2, 'b', 2)",
    )
    destination = destination_of(mariadb_url)
    batch = people((2, "first"), (3, "c"), (3, "d"), (2, "last"))
    write(destination, load_of(PEOPLE, MERGE, conflict_method=method), [batch, FINAL])
    destination.close()
    is_ignored = method is ConflictMethod.IGNORE
    second = (2, "b", 2) if is_ignored else (2, "last", None)
    third = [] if method is ConflictMethod.UPDATE_ONLY else [(3, "c" if is_ignored else "d", None)]
    assert sorted(query(mariadb_url, "select * from people")[1]) == [(1, "a", 1), second, *third]


def test_a_column_that_comes_in_the_middle_of_an_append_commits_nothing_early(mariadb_url: str) -> None:
    wider = PEOPLE.append(pa.field("age", pa.int64()))
    destination = destination_of(mariadb_url)
    write(destination, load_of(PEOPLE, APPEND), [people((1, "a")), FINAL])
    load = load_of(PEOPLE, APPEND)

    def events() -> Iterator[Event]:
        yield people((2, "b"))
        yield replace(load.stream, schema=wider)
        yield pa.RecordBatch.from_pylist([{"id": 3, "name": "c", "age": 7}], schema=wider)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write(destination, load, events())
    destination.close()
    assert query(mariadb_url, "select id from people")[1] == [(1,)]


def test_nothing_is_written_into_a_table_without_transactions(mariadb_url: str) -> None:
    destination = destination_of(mariadb_url)
    write(destination, load_of(PEOPLE, MERGE), [people((1, "a")), FINAL])
    run(mariadb_url, "alter table people engine = MyISAM, add key by_name (name(9))")
    for disposition in (APPEND, MERGE, REPLACE):
        with pytest.raises(ConnectorError, match="people uses the engine MyISAM"):
            write(destination, load_of(PEOPLE, disposition), [people((2, "b")), FINAL])
    destination.close()
    assert query(mariadb_url, "select * from people")[1] == [(1, "a")]


# -- locks and ends --------------------------------------------------------------------------------------------------


def test_a_takeover_waits_for_the_commit_under_way_and_finds_it(mariadb_url: str) -> None:
    from syncblocks.connectors.mysql import session as module

    first, second = destination_of(mariadb_url), destination_of(mariadb_url)
    load = load_of(PEOPLE, REPLACE)
    inside, go_on, found = threading.Event(), threading.Event(), []
    commit = module.MySQLSession.commit

    def slow(self: Any) -> None:
        if self._swap_schemas:
            inside.set()
            assert go_on.wait(20)
        commit(self)

    module.MySQLSession.commit = slow  # type: ignore[method-assign]
    try:
        loading = threading.Thread(target=write, args=(first, load, [people((1, "a")), FINAL]))
        loading.start()
        assert inside.wait(20)
        token = secrets.token_hex(16)
        taking = threading.Thread(target=lambda: found.append(second.take_over(load.key, token=token, owner="second")))
        taking.start()
        taking.join(0.5)
        assert taking.is_alive()
        go_on.set()
        loading.join(20)
        taking.join(20)
    finally:
        module.MySQLSession.commit = commit  # type: ignore[method-assign]
    assert (found[0].completed_by, found[0].token) == (load.run, token)
    assert query(mariadb_url, "select * from people")[1] == [(1, "a")]
    with pytest.raises(TakenOver, match="second"):
        list(first.load(load, iter([people((9, "late")), FINAL])))
    first.close()
    second.close()
    assert query(mariadb_url, "select * from people")[1] == [(1, "a")]


def test_a_load_that_fails_after_a_takeover_leaves_the_other_run_its_token(mariadb_url: str) -> None:
    first, second = destination_of(mariadb_url), destination_of(mariadb_url)
    load, other = load_of(PEOPLE, APPEND), secrets.token_hex(16)
    first.take_over(load.key, token=load.token, owner="first", source="s")

    def events() -> Iterator[Event]:
        yield people((1, "a"))
        second.take_over(load.key, token=other, owner="second", source="s")
        raise ConnectorError("the source fails")

    with pytest.raises(ConnectorError, match="the source fails"):
        list(first.load(load, events()))
    first.close()
    second.close()
    assert query(mariadb_url, "select token, owner from _syncblocks_ledger")[1] == [(other, "second")]


def test_a_writer_that_sleeps_between_commit_and_rename_undoes_nothing(mariadb_url: str) -> None:
    """Others rename for it; what it does late finds nothing to rename."""
    from syncblocks.connectors.mysql import swaps

    first, second = destination_of(mariadb_url), destination_of(mariadb_url)
    finish, asleep, go_on = swaps.finish, threading.Event(), threading.Event()
    sleeper: list[int] = []

    def late(session: Any, schema: str, staging: str, target: str) -> None:
        if threading.get_ident() in sleeper:
            asleep.set()
            assert go_on.wait(20)
        finish(session, schema, staging, target)

    def load_late() -> None:
        sleeper.append(threading.get_ident())
        write(first, load_of(PEOPLE, REPLACE), [people((1, "first")), FINAL])

    swaps.finish = late
    try:
        loading = threading.Thread(target=load_late)
        loading.start()
        assert asleep.wait(20)
        load = load_of(PEOPLE, REPLACE)
        second.take_over(load.key, token=load.token, owner="second", source="s")
        assert query(mariadb_url, "select * from people")[1] == [(1, "first")]
        go_on.set()
        loading.join(20)
        list(second.load(load, iter([people((2, "second")), FINAL])))
    finally:
        swaps.finish = finish
    first.close()
    second.close()
    assert query(mariadb_url, "select * from people")[1] == [(2, "second")]
    assert tables(mariadb_url) == {"people", "_syncblocks_ledger", "_syncblocks_swaps"}
    assert query(mariadb_url, "select * from _syncblocks_swaps")[1] == []


def test_an_interrupt_ends_a_statement_that_waits_for_a_lock(mariadb_url: str) -> None:
    from tests.connectors.mysql.mysql_databases import connect

    destination = destination_of(mariadb_url)
    load = load_of(PEOPLE, MERGE)
    write(destination, load, [people((1, "a")), FINAL])
    caught: list[BaseException] = []

    def merge() -> None:
        try:
            write(destination, load_of(PEOPLE, MERGE), [people((1, "b")), FINAL])
        except ConnectorError as error:
            caught.append(error)

    with connect(mariadb_url) as other, other.cursor() as cursor:
        other.begin()
        cursor.execute("select * from people where id = 1 for update")
        merging = threading.Thread(target=merge)
        merging.start()
        waits = "select count(*) from information_schema.innodb_trx where trx_state = 'LOCK WAIT'"
        while query(mariadb_url, waits)[1] == [(0,)]:
            assert merging.is_alive()
            # InnoDB answers from a cache that is renewed only when nobody has asked for 0.1 s.
            merging.join(0.2)
        destination.interrupt("s")
        merging.join(20)
        other.rollback()
    destination.close()
    assert [type(error) for error in caught] == [Interrupted]
    assert query(mariadb_url, "select name from people")[1] == [("a",)]


@pytest.fixture
def user(mariadb_url: str) -> Iterator[Callable[..., str]]:
    """Makes a user whose password is full of special characters; returns the URL with it."""
    name = f"u_{uuid.uuid4().hex[:8]}"
    password = "p@ss:w/o?r#d&%25 +\"'`{}=;,[]\u00e9\u20ac\\"

    def url(options: str, *, has_privileges: bool = True) -> str:
        quoted = password.replace("\\", "\\\\").replace("'", "''")
        query(mariadb_url, f"create user {name} identified by '{quoted}' {options}")
        if has_privileges:
            query(mariadb_url, f"grant all on `{urlsplit(mariadb_url).path[1:]}`.* to {name}")
        return urlunsplit(urlsplit(mariadb_url)._replace(netloc=f"{name}:{quote(password, safe='')}@127.0.0.1"))

    yield url
    query(mariadb_url, f"drop user {name}")


def test_a_login_without_a_password_says_where_to_give_one(mariadb_url: str, user: Callable[..., str]) -> None:
    parts = urlsplit(user(""))
    for login, is_told in ((parts.username, True), (f"{parts.username}:wrong", False)):
        url = urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1"))
        with pytest.raises(ConnectorConfigError, match="Access denied") as refused:
            make_source("mysql", {"url": url}, Path()).check()
        assert ("no password was given: set `password`" in str(refused.value)) is is_told


def test_a_password_may_have_any_character(mariadb_url: str, user: Callable[..., str]) -> None:
    url = user("")
    make_destination("mysql", {"url": url}, Path.cwd()).check()
    make_source("sqlalchemy", {"url": url.replace("mysql://", "mysql+pymysql://")}, Path.cwd()).check()
    alone = {"url": mariadb_url, "user": urlsplit(url).username, "password": unquote(urlsplit(url).password or "")}
    make_destination("mysql", alone, Path.cwd()).check()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("account lock", "locked"),
        ("password expire", "SET PASSWORD"),
        ("require x509", "Access denied"),
    ],
)
def test_a_user_who_may_not_log_in_is_a_config_error(user: Callable[..., str], options: str, said: str) -> None:
    with pytest.raises(ConnectorConfigError, match=said):
        make_destination("mysql", {"url": user(options)}, Path.cwd()).check()


def test_a_user_without_privileges_is_told_which_one_lets_it_in(user: Callable[..., str]) -> None:
    grant = r"an administrator must run at least: grant select on `.*`\.\* to 'u_.*'@'%'"
    with pytest.raises(ConnectorConfigError, match=grant):
        make_destination("mysql", {"url": user("", has_privileges=False)}, Path.cwd()).check()


def test_a_file_of_certificates_that_cannot_be_read_is_named(mariadb_url: str, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for options in ("ssl_ca=/not/there.pem", f"ssl_ca={tmp_path}/ca.pem", "ssl_cert=/not/there.pem&ssl_key=/k.pem"):
        named = re.escape(options.partition("&")[0])
        with pytest.raises(ConnectorConfigError, match=named):
            make_destination("mysql", {"url": f"{mariadb_url}?{options}"}, Path.cwd()).check()


def test_wrong_settings_are_named_and_secrets_are_not(mariadb_url: str) -> None:
    for config in ({"url": "mysql://u:s3cret@h/"}, {"url": "postgres://u:s3cret@h/x"}, {"url": "mysql://h/x?nope=1"}):
        with pytest.raises(ConnectorConfigError) as caught:
            make_destination("mysql", config, Path.cwd())
        assert "s3cret" not in str(caught.value)
