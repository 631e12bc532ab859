"""Types of MySQL and MariaDB: read exactly, kept on the way to another table, widened, or refused."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.mysql import session
from syncblocks.connectors.mysql.session import MySQLSession
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition
from tests.connectors.mysql.mysql_databases import is_mariadb, query, run, tables
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
    r"enum('a','it''s \\ \n\r\\n')": (r"'it''s \\ \n\r\\n'", pa.string(), "it's \\ \n\r\\n"),
    r"set('x','\\''')": (r"'x,\\'''", pa.string(), r"x,\'"),
    "char(5)": ("'ab'", pa.string(), "ab"),
    "varchar(20) character set latin1": ("'é'", pa.string(), "é"),
    "binary(4)": ("x'00ff'", pa.binary(), b"\x00\xff\x00\x00"),
    "vector(2)": ("x'0000000000000000'", pa.binary(), bytes(8)),
    "vector(3)": ("x'cdcccc3d0000a0c07f96984b'", pa.binary(), bytes.fromhex("cdcccc3d0000a0c07f96984b")),
    "mediumblob": ("x'00ff0a'", pa.binary(), b"\x00\xff\n"),
    "text compressed": ("'ab'", pa.string(), "ab"),
    "varbinary(9) compressed": ("x'00ff'", pa.binary(), b"\x00\xff"),
    "json": ("'{\"a\": 1.0}'", pa.json_(), '{"a": 1.0}'),
}


@pytest.mark.parametrize("declared", TYPES)
def test_a_type_is_read_exactly_and_kept_on_the_way_to_another_table(mariadb_url: str, declared: str) -> None:
    if declared.endswith("compressed") and not is_mariadb(mariadb_url):
        pytest.skip("only MariaDB compresses columns")
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
    ("set('a','b','c')", "set('c','d','b')", "varchar(5)"),
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


def test_members_of_a_set_keep_the_order_that_the_source_shows_them_in(mariadb_url: str) -> None:
    run(
        mariadb_url,
        "create table new (id bigint primary key, v set('b','a'))",
        "insert into new values (1, 'b,a')",
        "create table kept (id bigint primary key, v set('a','b'))",
    )
    stream, records = read(mariadb_url, "new")
    assert records == [{"id": 1, "v": "b,a"}]
    destination = destination_of(mariadb_url)
    load = replace(load_of(stream.schema, MERGE, "kept"), stream=replace(stream, name="s"))
    write(destination, load, [pa.RecordBatch.from_pylist(records, schema=stream.schema), FINAL])
    destination.close()
    assert query(mariadb_url, "select v from kept")[1] == [("b,a",)]


#: The same of types that pad their values, or cut the spaces at their end off, and the value that arrives.
PADDED = [
    ("char(5)", "varchar(4)", "'ab  '", "varchar(5)"),
    ("char(200)", "longtext", "'ab  '", "varchar(200)"),
    ("char(5)", "varchar(8)", "'ab  '", "varchar(8)"),
    ("char(5)", "char(4)", "'ab'", "char(5)"),
    ("char(5)", "enum('ab')", "'ab'", "char(5)"),
    ("binary(4)", "varbinary(3)", "x'01'", "varbinary(4)"),
    ("binary(4)", "binary(3)", "x'01'", "varbinary(4)"),
    ("binary(4)", "binary(4)", "x'01'", "binary(4)"),
    ("binary(200)", "longblob", "x'01'", "varbinary(200)"),
]


@pytest.mark.parametrize(("held", "arriving", "value", "wider"), PADDED)
def test_what_arrives_is_neither_padded_nor_cut(
    mariadb_url: str, held: str, arriving: str, value: str, wider: str
) -> None:
    run(
        mariadb_url,
        f"create table new (id bigint primary key, v {arriving})",
        f"insert into new values (1, {value})",
        f"create table kept (id bigint primary key, v {held})",
    )
    stream, records = read(mariadb_url, "new")
    destination = destination_of(mariadb_url)
    load = replace(load_of(stream.schema, MERGE, "kept"), stream=replace(stream, name="s"))
    write(destination, load, [pa.RecordBatch.from_pylist(records, schema=stream.schema), FINAL])
    destination.close()
    same = "select hex(new.v) = hex(kept.v) from new join kept on new.id = kept.id"
    assert query(mariadb_url, same)[1] == [(1,)]
    assert query(mariadb_url, "show columns from kept like 'v'")[1][0][1] == wider


#: Declared before and after; MODIFY forgets what it is not told.
SAID = [
    (
        "int(11) NOT NULL AUTO_INCREMENT COMMENT 'it''s \\\\ me'",
        "bigint(20) NOT NULL AUTO_INCREMENT COMMENT 'it''s \\\\ me'",
    ),
    ("int(11) DEFAULT (1 + 2) CHECK (`v` > 1)", "bigint(20) DEFAULT (1 + 2) CHECK (`v` > 1)"),
    ("int(11) DEFAULT 7 INVISIBLE", "bigint(20) DEFAULT 7 INVISIBLE"),
    (
        "varchar(5) CHARACTER SET latin1 COLLATE latin1_bin NOT NULL DEFAULT 'd''\\\\' CHECK (`v` <> '\\\\d')",
        "varchar(50) CHARACTER SET latin1 COLLATE latin1_bin NOT NULL DEFAULT 'd''\\\\' CHECK (`v` <> '\\\\d')",
    ),
    (
        "timestamp NOT NULL DEFAULT current_timestamp() ON UPDATE current_timestamp()",
        "timestamp(6) NOT NULL DEFAULT current_timestamp(6) ON UPDATE current_timestamp(6)",
    ),
    ("enum('a comment b') DEFAULT 'a comment b'", "enum('a comment b','b') DEFAULT 'a comment b'"),
]


@pytest.mark.parametrize(("before", "after"), SAID)
def test_a_column_that_widens_keeps_all_else_that_is_said_of_it(mariadb_url: str, before: str, after: str) -> None:
    if "CHECK (`v` <> '" in before and not is_mariadb(mariadb_url):
        pytest.skip("MySQL itself writes such a check's constant anew in the mode of whoever changes the table")
    wide = after.partition(")")[0] + ")"
    run(
        mariadb_url,
        f"create table new (id bigint primary key, v {wide} null)",
        *(
            f"create table {name} (id bigint primary key, v {declared}, key (v)) character set utf8mb4"
            for name, declared in (("kept", before), ("meant", after))
        ),
    )
    stream, _ = read(mariadb_url, "new")
    destination = destination_of(mariadb_url)
    write(destination, replace(load_of(stream.schema, MERGE, "kept"), stream=replace(stream, name="s")), [FINAL])
    destination.close()
    made, meant = (query(mariadb_url, f"show create table {name}")[1][0][1] for name in ("kept", "meant"))
    assert made.replace("kept", "meant").replace(" CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci", "") == meant


@pytest.mark.parametrize("disposition", [APPEND, MERGE, REPLACE], ids=str)
def test_a_column_that_the_table_computes_stays_one(mariadb_url: str, disposition: WriteDisposition) -> None:
    """Whatever type comes for it: nothing is written there, so nothing has to fit."""
    run(
        mariadb_url,
        "create table people (id bigint primary key, name varchar(9) as (concat('n', id)) stored, key (name))",
        "create table kin (id int, name varchar(9) as (concat('n', id)) virtual, at int as (id + 1) virtual)",
    )
    schema = pa.schema([*PEOPLE, ("at", pa.string())])
    records = pa.RecordBatch.from_pylist([{"id": 1, "name": "x" * 99, "at": "x"}], schema=schema)
    destination = destination_of(mariadb_url)
    (_, kept, _) = destination.keeps(
        Stream(name="s", schema=schema, key_properties=("id",)), destination.describe(["people"])["people"], disposition
    )
    assert (kept.type, kept.held, kept.is_computed) == ("varchar(9)", "varchar(9)", True)
    write(destination, load_of(schema, disposition), [records, FINAL])
    write(destination, load_of(schema, APPEND, "kin"), [records, FINAL])
    destination.close()
    assert query(mariadb_url, "select * from people")[1] == [(1, "n1", "x")]
    assert query(mariadb_url, "select * from kin")[1] == [(1, "n1", 2)]
    assert "GENERATED ALWAYS" in query(mariadb_url, "show create table people")[1][0][1]


@pytest.mark.parametrize("declared", ["bigint auto_increment unique", "timestamp(6) not null default now(6)"])
def test_nothing_does_not_become_a_number_or_the_current_time(mariadb_url: str, declared: str) -> None:
    kind = "bigint" if "bigint" in declared else "timestamp(6)"
    run(
        mariadb_url,
        f"create table new (id bigint primary key, v {kind} null)",
        f"insert into new values (1, null), (2, {7 if kind == 'bigint' else 20240101000000})",
        f"create table kept (id bigint primary key, v {declared}, key other (id))",
    )
    stream, records = read(mariadb_url, "new")
    batch = pa.RecordBatch.from_pylist(records, schema=stream.schema)
    destination = destination_of(mariadb_url)
    for disposition in (APPEND, MERGE, REPLACE):
        load = replace(load_of(stream.schema, disposition, "kept"), stream=replace(stream, name="s"))
        with pytest.raises(FatalConnectorError, match="kept refuses NULL"):
            write(destination, load, [batch, FINAL])
        keeping = replace(load, write=replace(load.write, max_rejected=1))
        commits = write(destination, keeping, [batch, FINAL])
        assert [(commit.records, commit.rejected) for commit in commits] == [(1, 1)]
        assert query(mariadb_url, "select id from kept")[1] == [(2,)]
        run(mariadb_url, "delete from kept")
    destination.close()


@pytest.mark.parametrize("can_load", [True, False], ids=["LOAD DATA", "INSERT"])
def test_spaces_that_have_no_room_are_refused_as_all_else_is(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch, can_load: bool
) -> None:
    """The server cuts them off, in strict mode too, with no more than a note; and a session may go without notes."""
    monkeypatch.setattr(session, "_SETUP", ("set session sql_notes = 0, max_error_count = 0", *session._SETUP))
    monkeypatch.setattr(
        MySQLSession, "can_load", property(lambda _: can_load, lambda _self, _value: None), raising=False
    )
    run(mariadb_url, "create table people (id bigint primary key, name varchar(200), key (name))")
    schema = pa.schema([pa.field("id", pa.string(), nullable=False), ("n", pa.int64())])
    long = pa.RecordBatch.from_pylist([{"id": "x" + " " * 600, "n": 1}], schema=schema)
    destination = destination_of(mariadb_url)
    for disposition in (APPEND, MERGE, REPLACE):
        load = load_of(PEOPLE, disposition)
        with pytest.raises(FatalConnectorError, match="truncated for column 'name'"):
            write(destination, load, [people((1, "x" + " " * 300)), FINAL])
        load = replace(load, write=replace(load.write, max_rejected=1))
        commits = write(destination, load, [people((1, "x" + " " * 300), (2, "y ")), FINAL])
        assert [(commit.records, commit.rejected) for commit in commits] == [(1, 1)]
        assert query(mariadb_url, "select id, name from people")[1] == [(2, "y ")]
        run(mariadb_url, "delete from people")
        if disposition is not APPEND:
            with pytest.raises(FatalConnectorError, match="truncated for column 'id'"):
                write(destination, load_of(schema, disposition, "keyed"), [long, FINAL])
    destination.close()


@pytest.mark.parametrize("can_load", [True, False], ids=["LOAD DATA", "INSERT"])
def test_the_year_zero_does_not_become_2000(mariadb_url: str, monkeypatch: pytest.MonkeyPatch, can_load: bool) -> None:
    """As a text it would, which is what LOAD DATA carries; and 5 would become 2005, however it comes."""
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
        with pytest.raises(FatalConnectorError, match="'v': a year of MySQL and MariaDB cannot be 5"):
            write(destination, load, [five, FINAL])
    destination.close()


@pytest.mark.parametrize(
    ("declared", "constant", "said"),
    [
        ("date", "'0000-00-00'", "zero date"),
        ("datetime", "'0000-00-00 00:00:00'", "zero date"),
        ("date", "'2024-00-10'", "zero date"),
        ("time", "'838:59:59'", "time span"),
        ("time", "'-00:00:01'", "time span"),
        ("tinyint(1)", "2", "tinyint1_as_bool"),
    ],
)
def test_what_no_other_system_has_is_refused_by_name(mariadb_url: str, declared: str, constant: str, said: str) -> None:
    run(
        mariadb_url,
        f"create table things (id bigint primary key, odd {declared})",
        "set sql_mode = ''",
        f"insert into things values (1, {constant})",
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
