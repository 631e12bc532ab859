"""Records of both protocols, as decoded here and by the driver's own cursor; and what may happen to them on the way."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncblocks.connectors.struct_helpers import replace

pytest.importorskip("pymysql")

from syncblocks.connectors.errors import FatalConnectorError, Interrupted, RetriableError
from syncblocks.connectors.filters import condition_of
from syncblocks.connectors.mysql.packets import Packets
from syncblocks.connectors.mysql.results import select, select_texts
from syncblocks.connectors.mysql.source import MySQLSource
from syncblocks.connectors.mysql.types import selected
from syncblocks.connectors.read_spec import Condition, NullBookmarks, ReplicationMethod
from syncblocks.connectors.stream import Rejected, Stream
from tests.connectors.mysql.mysql_databases import connect, database, numbers, query, run

#: Lengths around those where the protocol writes a length in another way.
LENGTHS = st.sampled_from([0, 1, 250, 251, 252, 65_535, 65_536]) | st.integers(0, 300)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20) | LENGTHS.map("é".ljust)

MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))  # noqa: DTZ001 -- the server has no zones
SECONDS = MOMENTS.map(lambda moment: moment.replace(microsecond=0))

#: Declared type -> values.
COLUMNS: dict[str, st.SearchStrategy[Any]] = {
    "tinyint": st.integers(-(2**7), 2**7 - 1),
    "tinyint unsigned": st.integers(0, 2**8 - 1),
    "smallint": st.integers(-(2**15), 2**15 - 1),
    "mediumint": st.integers(-(2**23), 2**23 - 1),
    "mediumint unsigned": st.integers(0, 2**24 - 1),
    "int unsigned zerofill": st.integers(0, 2**32 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "bigint unsigned": st.integers(0, 2**64 - 1),
    "year": st.integers(1901, 2155),
    "double": st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False),
    "decimal(65,30)": st.decimals(-(10**34), 10**34, allow_nan=False, places=30),
    "decimal(5,0)": st.integers(-99_999, 99_999),
    "date": st.dates(date(1, 1, 1)),
    "datetime": SECONDS,
    "datetime(6)": MOMENTS,
    "timestamp(6) null": st.datetimes(datetime(1970, 1, 2), datetime(2037, 12, 31)),  # noqa: DTZ001
    "time(6)": st.timedeltas(timedelta(0), timedelta(days=1) - timedelta(microseconds=1)),
    "varchar(300)": st.text(st.characters(codec="utf-8"), max_size=300),
    "longtext": TEXT,
    "text character set latin1": st.text(st.characters(codec="utf-8"), max_size=300),
    "longblob": st.binary(max_size=20) | LENGTHS.map(lambda length: b"\xff" * length),
    "enum('a','it''s')": st.sampled_from(["a", "it's"]),
    "json": st.sampled_from(["{}", '{"a": [1, null]}']),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[tuple[Any, ...]]]:
    kinds = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=12))
    record = st.tuples(*(st.none() | COLUMNS[kind] for kind in kinds))
    return kinds, draw(st.lists(record, min_size=0, max_size=8))


def as_driver(value: Any) -> Any:
    """Return a value as the driver's cursor would."""
    return datetime.combine(date.min, value) - datetime.min if isinstance(value, time) else value  # noqa: DTZ901


@pytest.fixture
def connection(mariadb_url: str) -> Iterator[Any]:
    with connect(mariadb_url) as made, made.cursor() as cursor:
        cursor.execute("set session sql_mode = ''")
        yield made


#: How a SELECT is run: prepared, or as text.
PROTOCOLS = [select, select_texts]


def rows(connection: Any, sql: str, run: Callable[..., Iterator[pa.RecordBatch]] = select) -> list[tuple[Any, ...]]:
    return [
        tuple(map(as_driver, record))
        for batch in run(connection, sql)
        for record in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    ]


def shown(records: Any) -> list[tuple[Any, ...]]:
    return [tuple(format(each, "f") if isinstance(each, Decimal) else each for each in record) for record in records]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables())
def test_records_are_what_the_drivers_cursor_returns(
    connection: Any, table: tuple[list[str], list[tuple[Any, ...]]]
) -> None:
    kinds, records = table
    columns = ", ".join(f"c{place} {kind}" for place, kind in enumerate(kinds))
    with connection.cursor() as cursor:
        cursor.execute("drop temporary table if exists t")
        cursor.execute(f"create temporary table t ({columns}) character set utf8mb4")
        holes = ", ".join(["%s"] * len(kinds))
        if records:
            cursor.executemany(f"insert into t values ({holes})", records)
        cursor.execute("select * from t")
        expected = shown(cursor.fetchall())
        assert rows(connection, "select * from t") == expected
        assert rows(connection, "select * from t", select_texts) == expected
        types = [[batch.schema for batch in run(connection, "select * from t")] for run in PROTOCOLS]
        assert types[0] == types[1]


@pytest.mark.parametrize("run", PROTOCOLS)
def test_a_float_has_all_of_its_digits(connection: Any, run: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("create temporary table t (v float, w float(7,3))")
        values = "(16777215, 0.1), (0.1, 1234.567), (3.4028234e38, -0.001), (-1.17549435e-38, 0), (null, null)"
        cursor.execute(f"insert into t values {values}")
    floats = [16777215, 0.1, 3.4028234e38, -1.17549435e-38, None], [0.1, 1234.567, -0.001, 0, None]
    exact = [pa.array(each, pa.float32()).to_pylist() for each in floats]
    found = rows(connection, f"select {selected('v', 'float')}, {selected('w', 'float(7,3)')} from t", run)
    assert [list(column) for column in zip(*found, strict=True)] == exact


@pytest.mark.parametrize("run", PROTOCOLS)
@pytest.mark.parametrize("declared", ["date", "datetime(6)", "time(6)"])
def test_what_arrow_has_no_value_for_comes_as_text(connection: Any, declared: str, run: Any) -> None:
    texts = {
        "date": ["0000-00-00", "2024-00-10", "2024-02-00", "2023-02-31", "2024-02-29", "0000-01-01", None],
        "datetime(6)": ["0000-00-00 00:00:00", "2024-00-10 01:02:03.000004", "2023-02-29 23:59:59", None],
        "time(6)": ["838:59:59", "-00:00:01", "24:00:00.000001", "23:59:59", "00:00:00", None],
    }[declared]
    with connection.cursor() as cursor:
        cursor.execute("set session sql_mode = 'ALLOW_INVALID_DATES'")
        cursor.execute(f"create temporary table t (v {declared})")
        cursor.executemany("insert into t values (%s)", [(text,) for text in texts])
    found = [value for (value,) in rows(connection, "select v from t", run)]
    # As text it has all the digits that are declared.
    assert [text and text.removesuffix(".000000") for text in found] == texts


@pytest.mark.parametrize("run", PROTOCOLS)
@pytest.mark.parametrize("size", [2**24 - 8, 2**24 - 7, 2**24 - 6, 2**24 - 5, 2**24 - 4])
def test_a_record_as_long_as_a_packet_or_longer_comes_whole(connection: Any, size: int, run: Any) -> None:
    """A payload is some bytes longer than its text: at 2**24 - 1 bytes the packet is full, and an empty one follows."""
    found = rows(connection, f"select 'x' union all select repeat('y', {size}) union all select 'z'", run)
    assert [(len(text), set(text)) for (text,) in found] == [(1, {"x"}), (size, {"y"}), (1, {"z"})]


@pytest.mark.one_of
@pytest.mark.parametrize("run", PROTOCOLS)
def test_a_record_of_many_packets_comes_whole(connection: Any, run: Any) -> None:
    sizes = [16_000_000, 300, 16_700_000, 0, 15_000_000, 16_000_000]
    sql = "select " + ", ".join(f"repeat('{chr(97 + place)}', {size})" for place, size in enumerate(sizes))
    with connection.cursor() as cursor:
        cursor.execute(sql)
        expected = list(cursor.fetchall())
    assert [len(text) for text in expected[0]] == sizes
    assert rows(connection, sql, run) == expected


@pytest.mark.full
@given(
    st.lists(st.integers(1, 40) | st.sampled_from([0xFFFFFE, 0xFFFFFF, 0x1000000, 5 << 20]), max_size=5),
    st.lists(st.integers(1, 100) | st.just(1 << 23), min_size=1, max_size=5),
    st.integers(0, 50),
    st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_packets_are_the_same_however_they_arrive(
    lengths: list[int], pieces: list[int], first: int, is_text: bool
) -> None:
    payloads = [(b"\xfb" if is_text else b"\0") * length for length in lengths]
    stream = b"".join(map(framed, [*payloads, b"\xfe\0\0\0\0"]))
    place, sizes = first, itertools.cycle(pieces)

    def read_into(view: memoryview) -> int:
        nonlocal place
        # Small pieces, but not of what is megabytes long.
        part = stream[place : place + min(max(next(sizes), len(stream) // 1000), len(view))]
        view[: len(part)] = part
        place += len(part)
        return len(part)

    packets = Packets(stream[:first], read_into, is_text=is_text)
    count = 0
    for buffer, places, ends in packets:
        assert (buffer[places] == (0xFB if is_text else 0)).all()
        for start, end, payload in zip(places.tolist(), ends.tolist(), payloads[count:], strict=False):
            assert buffer[start:end].tobytes() == payload
        count += len(places)
    assert (count, packets.error, place) == (len(payloads), b"", max(len(stream), first))


def framed(payload: bytes) -> bytes:
    """Return a payload in packets."""
    parts = [payload[start : start + 0xFFFFFF] for start in range(0, len(payload) + 1, 0xFFFFFF)]
    return b"".join(len(part).to_bytes(3, "little") + b"\0" + part for part in parts)


# -- ends of another kind --------------------------------------------------------------------------------------------


@pytest.fixture
def stream(mariadb_url: str) -> Iterator[tuple[MySQLSource, Stream]]:
    """A table of some megabytes: more than is on the way before it is read."""
    run(
        mariadb_url,
        "create table t (id int primary key, v longtext)",
        f"insert into t select seq, repeat('x', 40000) from {numbers(1500)}",
    )
    source = MySQLSource({"url": mariadb_url}, Path())
    with closing(source):
        yield source, next(each for each in source.discover() if each.name == f"{database(mariadb_url)}.t")


@pytest.mark.parametrize(("kill", "error"), [("kill", RetriableError), ("kill query", Interrupted)])
def test_a_killed_statement_ends_in_an_error_that_says_so(
    mariadb_url: str, stream: tuple[MySQLSource, Stream], kill: str, error: type[Exception]
) -> None:
    source, orders = stream
    events = source.read([orders], {})
    next(events)
    reading = "info like '%select%`t`%' and id <> connection_id()"
    sql = f"select id from information_schema.processlist where db = '{database(mariadb_url)}' and {reading}"
    ((number,),) = query(mariadb_url, sql)[1]
    run(mariadb_url, f"{kill} {number}")
    with pytest.raises(error):
        list(events)
    assert source.count(orders) == 1500


def test_an_interrupt_between_two_blocks_ends_the_statement(stream: tuple[MySQLSource, Stream]) -> None:
    source, orders = stream
    events = source.read([orders], {})
    next(events)
    source.interrupt(orders.name)
    with pytest.raises(Interrupted):
        list(events)
    assert source.count(orders) == 1500


@pytest.mark.parametrize("run", PROTOCOLS)
def test_an_error_behind_some_records_is_raised_with_the_servers_words(connection: Any, run: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "create function odd(n int) returns int deterministic begin if n = 70000 then signal sqlstate '45000' "
            "set message_text = 'no more'; end if; return n; end"
        )
    batches: list[pa.RecordBatch] = []
    with pytest.raises(Exception, match="no more"):
        batches.extend(run(connection, f"select odd(seq) from {numbers(100_000)}"))
    assert sum(map(len, batches)) == 69_999
    assert rows(connection, "select 1", run) == [(1,)]


def test_no_statement_is_left_prepared(mariadb_url: str, stream: tuple[MySQLSource, Stream]) -> None:
    source, orders = stream
    for _ in range(2):
        assert sum(len(batch) for _, batch in source.read([orders], {}) if isinstance(batch, pa.RecordBatch)) == 1500
    with closing(source.connect()) as session:
        for _ in session.fetch("select 1"):
            pass
        ((_, count),) = session.query("show session status like 'Com_stmt_close'")
        assert int(count) == 1


def test_a_table_is_read_over_a_socket_of_the_machine(mariadb_url: str, stream: tuple[MySQLSource, Stream]) -> None:
    ((path,),) = query(mariadb_url, "select @@socket")[1]
    if not Path(str(path)).is_socket():
        pytest.skip("the server is on another machine")
    source = MySQLSource({"url": f"{mariadb_url}?unix_socket={path}"}, Path())
    with closing(source):
        batches = [batch for _, batch in source.read([stream[1]], {}) if isinstance(batch, pa.RecordBatch)]
    assert pa.Table.from_batches(batches).column("id").to_pylist() == list(range(1, 1501))


def test_zero_dates_and_spans_of_time_are_set_aside_where_told(mariadb_url: str) -> None:
    run(
        mariadb_url,
        "create table t (id int primary key, day date, span time, name text)",
        "set sql_mode = ''",
        "insert into t values (1, '2024-01-02', '01:02:03', 'a'), "
        "(2, '0000-00-00', '01:00:00', 'b'), (3, null, '30:00:00', 'c'), (4, '2024-02-29', null, null)",
    )
    source = MySQLSource({"url": mariadb_url}, Path())
    with closing(source):
        found = next(each for each in source.discover() if each.name == f"{database(mariadb_url)}.t")
        events = [event for _, event in source.read([replace(found, read=replace(found.read, max_rejected=5))], {})]
    good = [row for event in events if isinstance(event, pa.RecordBatch) for row in event.to_pylist()]
    assert [(row["id"], row["day"], row["span"], row["name"]) for row in good] == [
        (1, date(2024, 1, 2), time(1, 2, 3), "a"),
        (4, date(2024, 2, 29), None, None),
    ]
    bad = [record for event in events if isinstance(event, Rejected) for record in event.records]
    assert [json.loads(record.record) for record in bad] == [
        {"id": 2, "day": "0000-00-00", "span": "01:00:00", "name": "b"},
        {"id": 3, "day": None, "span": "30:00:00", "name": "c"},
    ]
    assert "zero date" in bad[0].reason
    assert "time span" in bad[1].reason


def test_the_error_of_a_zero_date_in_a_key_asks_for_more_than_the_setting(mariadb_url: str) -> None:
    run(
        mariadb_url,
        "create table t (day date primary key)",
        "set sql_mode = ''",
        "insert into t values ('0000-00-00')",
    )
    source = MySQLSource({"url": mariadb_url, "zero_dates_as_null": True}, Path())
    with (
        closing(source),
        pytest.raises(FatalConnectorError, match="it as NULL, except in a primary key: there, correct"),
    ):
        list(source.read(source.discover(), {}))


def test_zero_dates_are_null_where_told_for_filters_and_bookmarks_too(mariadb_url: str) -> None:
    run(
        mariadb_url,
        "create table t (id int primary key, day date not null, at datetime(6) not null)",
        "set sql_mode = ''",
        "insert into t values (1, '2024-01-02', '2024-01-02 03:04:05.6'), (2, '0000-00-00', '0000-00-00'), "
        "(3, '2024-00-10', '2024-01-02')",
    )
    source = MySQLSource({"url": mariadb_url, "zero_dates_as_null": True}, Path())
    with closing(source):
        found = next(each for each in source.discover() if each.name == f"{database(mariadb_url)}.t")
        is_null = replace(
            found, read=replace(found.read, where=(Condition(field=found.schema.field("day"), operator="is_null"),))
        )
        is_first = replace(
            found, read=replace(found.read, where=(condition_of(found.schema.field("day"), "<", ["2024-01-01"]),))
        )
        late = replace(
            found,
            read=replace(
                found.read,
                method=ReplicationMethod.INCREMENTAL,
                bookmark_properties=("at",),
                null_bookmarks=NullBookmarks.NEVER,
            ),
        )
        tables = [
            pa.Table.from_batches(
                [each for _, each in source.read([one], {}) if isinstance(each, pa.RecordBatch)], found.schema
            )
            for one in (found, is_null, is_first, late)
        ]
    assert found.schema.field("day").nullable
    whole, null, first, marked = (sorted(each.to_pylist(), key=lambda row: row["id"]) for each in tables)
    assert [row["day"] for row in whole] == [date(2024, 1, 2), None, None]
    assert [row["at"] for row in whole] == [datetime(2024, 1, 2, 3, 4, 5, 600_000), None, datetime(2024, 1, 2)]  # noqa: DTZ001
    assert [row["id"] for row in null] == [2, 3]
    assert first == []
    assert [row["id"] for row in marked] == [1, 3]
