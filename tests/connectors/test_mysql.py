"""MySQL and MariaDB: types, names, locks, and the server's own habits, looked at through pymysql."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from connectors.errors import ConnectorConfigError, ConnectorError, FatalConnectorError, Interrupted, TakenOver
from connectors.registry import make_destination, make_source
from connectors.stream import Checkpoint, ConflictMethod, Event, LedgerKey, Load, Stream, WriteDisposition

from .mysql_databases import connect, database, query, run, tables

pytest.importorskip("pymysql")

FINAL = Checkpoint(is_final=True)
PEOPLE = pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string())])
APPEND, MERGE, REPLACE = WriteDisposition.APPEND, WriteDisposition.MERGE, WriteDisposition.REPLACE


def destination_of(url: str, **config: Any) -> Any:
    return make_destination("mysql", {"url": url, **config}, Path.cwd())


def people(*records: tuple[int, str | None]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"id": number, "name": name} for number, name in records], schema=PEOPLE)


def load_of(
    schema: pa.Schema, disposition: WriteDisposition, table: str = "people", key: Sequence[str] = ("id",), **more: Any
) -> Load:
    token = secrets.token_hex(16)
    return Load(
        key=LedgerKey(pipeline="p", stream="s", destination_table=table),
        stream=Stream(name="s", schema=schema, key_properties=tuple(key)),
        write_disposition=disposition,
        token=token,
        run=token,
        **more,
    )


def write(destination: Any, load: Load, events: Iterable[Event]) -> list[Any]:
    destination.take_over(load.key, token=load.token, owner="test", source="test://")
    return list(destination.load(load, iter(events)))


def read(url: str, table: str, **config: Any) -> tuple[Stream, list[dict[str, Any]]]:
    source = make_source("mysql", {"url": url, **config}, Path.cwd())
    try:
        stream = next(stream for stream in source.discover() if stream.name == f"{database(url)}.{table}")
        batches = [event for _, event in source.read([stream], {}) if isinstance(event, pa.RecordBatch)]
    finally:
        source.close()
    return stream, [record for batch in batches for record in batch.to_pylist()]


# -- types -----------------------------------------------------------------------------------------------------------

#: Declared type -> constant, what it is read as, and what its value is.
TYPES: dict[str, tuple[str, pa.DataType, Any]] = {
    "tinyint unsigned": ("255", pa.uint8(), 255),
    "smallint unsigned": ("65535", pa.uint16(), 65535),
    "mediumint": ("-8388608", pa.int32(), -8388608),
    "int unsigned": ("4294967295", pa.uint32(), 4294967295),
    "bigint unsigned": ("18446744073709551615", pa.uint64(), 2**64 - 1),
    "tinyint(1)": ("1", pa.bool_(), True),
    "bit(1)": ("b'1'", pa.bool_(), True),
    "bit(64)": ("b'1111111111111111111111111111111111111111111111111111111111111111'", pa.uint64(), 2**64 - 1),
    "float": ("0.1", pa.float32(), 0.10000000149011612),
    "double": ("1.7976931348623157e308", pa.float64(), 1.7976931348623157e308),
    "decimal(38,10)": ("-1234567890123456789012345678.0123456789", pa.decimal128(38, 10), None),
    "decimal(65,30)": ("12345678901234567890123456789012345.123456789012345678901234567890", pa.string(), None),
    "year": ("2024", pa.int16(), 2024),
    "timestamp(6)": ("'2024-03-31 02:30:00.123456'", pa.timestamp("us", "UTC"), None),
    "datetime(6)": ("'9999-12-31 23:59:59.999999'", pa.timestamp("us"), None),
    "datetime": ("'2024-01-01 00:00:01'", pa.timestamp("us"), None),
    "time(3)": ("'23:59:59.999'", pa.time64("us"), None),
    "enum('a','it''s, \"q\"')": ("'it''s, \"q\"'", pa.string(), 'it\'s, "q"'),
    "set('x','y')": ("'x,y'", pa.string(), "x,y"),
    "char(5)": ("'ab'", pa.string(), "ab"),
    "varchar(20) character set latin1": ("'é'", pa.string(), "é"),
    "binary(4)": ("x'00ff'", pa.binary(), b"\x00\xff\x00\x00"),
    "mediumblob": ("x'00ff0a'", pa.binary(), b"\x00\xff\n"),
    "json": ("'{\"a\": 1.0}'", pa.json_(), '{"a": 1.0}'),
}


@pytest.mark.parametrize("declared", TYPES)
def test_a_type_is_read_exactly_and_kept_on_the_way_to_another_table(mariadb_url: str, declared: str) -> None:
    constant, kind, value = TYPES[declared]
    run(
        mariadb_url,
        "set names utf8mb4",
        f"create table things (id bigint primary key, v {declared} null)",
        f"insert into things values (1, {constant}), (2, null)",
    )
    stream, records = read(mariadb_url, "things")
    assert stream.schema.field("v").type == kind
    by_id = {record["id"]: record["v"] for record in records}
    assert by_id[2] is None
    if value is not None:
        assert by_id[1] == value
    destination = destination_of(mariadb_url)
    write(
        destination,
        replace(load_of(stream.schema, REPLACE, "copied"), stream=replace(stream, name="s")),
        [pa.RecordBatch.from_pylist(records, schema=stream.schema), FINAL],
    )
    destination.close()
    same = "select count(*) from things t join copied c on t.id = c.id and (t.v = c.v or t.v is null and c.v is null)"
    if not declared.startswith(("bit(64)", "float")):
        assert query(mariadb_url, same)[1] == [(2,)]
    assert read(mariadb_url, "copied")[1] == records


#: Type of the table's column, of the stream's -> what the table's becomes.
MEMBERS = [
    ("enum('a','b')", "enum('a','b','c')", "enum('a','b','c')"),
    ("enum('a','b')", "enum('c','it''s','b')", "enum('a','b','c','it''s')"),
    ("enum('a','b')", "enum('b')", "enum('a','b')"),
    ("set('a','b')", "set('b','c')", "set('a','b','c')"),
    ("enum('a','bcd')", "varchar(2)", "varchar(3)"),
    ("set('a','bcd')", "char(2)", "varchar(5)"),
    ("enum('a')", "set('a','b')", "varchar(3)"),
    ("enum('a')", "longtext", "longtext"),
]


@pytest.mark.parametrize(("held", "arriving", "wider"), MEMBERS)
def test_a_column_of_members_takes_new_ones(mariadb_url: str, held: str, arriving: str, wider: str) -> None:
    last = arriving.split("'")[-2] if "'" in arriving else "xx"
    for table, kind, value in (("old", held, "a"), ("new", arriving, last)):
        number = 1 if table == "old" else 2
        run(
            mariadb_url,
            f"create table {table} (id bigint primary key, v {kind})",
            f"insert into {table} values ({number}, '{value}')",
        )
    destination = destination_of(mariadb_url)
    for table, disposition in (("old", REPLACE), ("new", MERGE)):
        stream, records = read(mariadb_url, table)
        load = replace(load_of(stream.schema, disposition, "kept"), stream=replace(stream, name="s"))
        write(destination, load, [pa.RecordBatch.from_pylist(records, schema=stream.schema), FINAL])
    destination.close()
    assert query(mariadb_url, "select v from kept order by id")[1] == [("a",), (last,)]
    assert query(mariadb_url, "show columns from kept like 'v'")[1][0][1] == wider


@pytest.mark.parametrize("can_load", [True, False], ids=["LOAD DATA", "INSERT"])
def test_the_year_zero_does_not_become_2000(mariadb_url: str, monkeypatch: pytest.MonkeyPatch, can_load: bool) -> None:
    """As a text it would, which is what LOAD DATA carries; and 5 would become 2005, however it comes."""
    from connectors.mysql.session import MySQLSession

    monkeypatch.setattr(
        MySQLSession, "can_load", property(lambda _: can_load, lambda _self, _value: None), raising=False
    )
    run(
        mariadb_url,
        "create table things (id bigint primary key, v year)",
        "insert into things values (1, 0), (2, 2024)",
    )
    stream, records = read(mariadb_url, "things")
    destination = destination_of(mariadb_url)
    for disposition in (REPLACE, MERGE, APPEND):
        load = replace(load_of(stream.schema, disposition, f"to_{disposition}"), stream=replace(stream, name="s"))
        write(destination, load, [pa.RecordBatch.from_pylist(records, schema=stream.schema), FINAL])
        assert query(mariadb_url, f"select v from to_{disposition} order by id")[1] == [(0,), (2024,)]
        five = pa.RecordBatch.from_pylist([{"id": 3, "v": 5}], schema=stream.schema)
        with pytest.raises(FatalConnectorError, match="'v': a year of MySQL cannot be 5"):
            write(destination, load, [five, FINAL])
    destination.close()


@pytest.mark.parametrize(
    ("declared", "constant", "said"),
    [
        ("date", "'0000-00-00'", "zero date"),
        ("datetime", "'0000-00-00 00:00:00'", "zero date"),
        ("date", "'2024-00-10'", "zero date"),
        ("time", "'838:59:59'", "span of time"),
        ("time", "'-00:00:01'", "span of time"),
        ("tinyint(1)", "2", "tinyint1_as_bool"),
    ],
)
def test_what_no_other_system_has_is_refused_by_name(mariadb_url: str, declared: str, constant: str, said: str) -> None:
    run(
        mariadb_url,
        f"create table things (id bigint primary key, odd {declared})",
        f"set statement sql_mode = '' for insert into things values (1, {constant})",
    )
    with pytest.raises(FatalConnectorError, match=f"(?s)'odd'.*{said}"):
        read(mariadb_url, "things")


def test_tinyint_is_an_integer_where_told(mariadb_url: str) -> None:
    run(mariadb_url, "create table things (id bigint primary key, v tinyint(1))", "insert into things values (1, -7)")
    stream, records = read(mariadb_url, "things", tinyint1_as_bool=False)
    assert (stream.schema.field("v").type, records) == (pa.int8(), [{"id": 1, "v": -7}])


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_nan_and_infinity_are_refused(mariadb_url: str, value: float) -> None:
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("v", pa.float64())])
    destination = destination_of(mariadb_url)
    with pytest.raises(FatalConnectorError, match="NaN or an infinity"):
        write(
            destination,
            load_of(schema, APPEND),
            [pa.RecordBatch.from_pylist([{"id": 1, "v": value}], schema=schema), FINAL],
        )
    destination.close()
    assert "people" not in tables(mariadb_url)


def test_a_value_that_does_not_fit_is_an_error_and_not_cut(mariadb_url: str) -> None:
    run(mariadb_url, "create table people (id bigint primary key, name varchar(200))")
    destination = destination_of(mariadb_url)
    with pytest.raises(FatalConnectorError, match="Data too long"):
        write(destination, load_of(PEOPLE, APPEND), [people((1, "x" * 201)), FINAL])
    destination.close()
    assert query(mariadb_url, "select * from people")[1] == []


def test_keys_that_differ_in_case_or_a_space_at_the_end_stay_apart(mariadb_url: str) -> None:
    schema = pa.schema([pa.field("id", pa.string(), nullable=False), ("n", pa.int64())])
    batch = pa.RecordBatch.from_pylist([{"id": key, "n": 1} for key in ("a", "A", "a ", "á")], schema=schema)
    destination = destination_of(mariadb_url)
    for disposition in (REPLACE, MERGE):
        write(destination, load_of(schema, disposition), [batch, FINAL])
    destination.close()
    assert sorted(query(mariadb_url, "select id from people")[1]) == [("A",), ("a",), ("a ",), ("á",)]


def test_large_values_go_through(mariadb_url: str) -> None:
    destination = destination_of(mariadb_url)
    text = "é\t\n\\'" * 1_000_000 + '"' * 100
    write(destination, load_of(PEOPLE, APPEND), [people((1, text), (2, "")), FINAL])
    destination.close()
    assert query(mariadb_url, "select name from people where id = 1")[1] == [(text,)]
    assert {record["id"]: record["name"] for record in read(mariadb_url, "people")[1]} == {1: text, 2: ""}


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
    from connectors.mysql.session import MySQLSession

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
    batch = people((2, "first"), (3, "c"), (2, "last"))
    write(destination, load_of(PEOPLE, MERGE, conflict_method=method), [batch, FINAL])
    destination.close()
    second = (2, "b", 2) if method is ConflictMethod.IGNORE else (2, "last", None)
    assert sorted(query(mariadb_url, "select * from people")[1]) == [(1, "a", 1), second, (3, "c", None)]


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


# -- locks and ends --------------------------------------------------------------------------------------------------


def test_a_takeover_waits_for_the_commit_under_way_and_finds_it(mariadb_url: str) -> None:
    from connectors.mysql import session as module

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


def test_a_writer_that_sleeps_between_commit_and_rename_undoes_nothing(mariadb_url: str) -> None:
    """Others rename for it; what it does late finds nothing to rename."""
    from connectors.mysql import swaps

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
    from .mysql_databases import connect

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


def test_wrong_settings_are_named_and_secrets_are_not(mariadb_url: str) -> None:
    for config in ({"url": "mysql://u:s3cret@h/"}, {"url": "postgres://u:s3cret@h/x"}, {"url": "mysql://h/x?nope=1"}):
        with pytest.raises(ConnectorConfigError) as caught:
            make_destination("mysql", config, Path.cwd())
        assert "s3cret" not in str(caught.value)
