"""What the plan says of a column is what the table's own catalog says after the run: every type into every system."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow.parquet as pq
import pytest

from syncblocks import load_pipeline, run_pipeline
from syncblocks.sync.plan.plan import Plan
from syncblocks.sync.session.inspection import existing_store, opened
from syncblocks.sync.session.session import make_plan
from tests.golden.systems import mysql_connection
from tests.golden.test_golden_types import other_mariadb_url, other_postgres_url, places  # noqa: F401 -- fixtures

#: Type -> a value of it, as SQL.
POSTGRES = {
    "smallint": "1", "integer": "1", "bigint": "1", "oid": "1", "real": "0.5", "double precision": "0.5",
    "numeric": "1.5", "numeric(9)": "1", "numeric(12,2)": "1.5", "numeric(38,10)": "1.5", "numeric(60,20)": "1.5",
    "numeric(3,-2)": "100", "numeric(2,4)": "0.0012", "money": "'1.50'", "boolean": "true", "text": "'a'",
    "varchar": "'a'", "varchar(12)": "'a'", "char(5)": "'a'", "bpchar": "'a'", "name": "'a'", '"char"': "'a'",
    "bytea": "'a'", "date": "'2024-02-29'", "time": "'12:00'", "time(3)": "'12:00'", "timetz": "'12:00+02'",
    "timestamp": "'2024-02-29'", "timestamp(3)": "'2024-02-29'", "timestamptz": "'2024-02-29'",
    "timestamptz(0)": "'2024-02-29'", "interval": "'1 day'", "interval day to second": "'1 day'",
    "interval(3)": "'1 day'", "uuid": "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "json": "'{}'", "jsonb": "'{}'",
    "jsonpath": "'$.a'", "xml": "'<a/>'", "inet": "'10.0.0.1'", "cidr": "'10.0.0.0/8'",
    "macaddr": "'08:00:2b:01:02:03'", "macaddr8": "'08:00:2b:01:02:03:04:05'", "bit(5)": "B'10101'", "bit": "B'1'",
    "varbit": "B'101'", "varbit(7)": "B'101'", "tsvector": "'a b'", "tsquery": "'a & b'", "point": "'(1,2)'",
    "line": "'{1,2,3}'", "lseg": "'[(1,2),(3,4)]'", "box": "'(1,2),(3,4)'", "path": "'((1,2),(3,4))'",
    "polygon": "'((1,2),(3,4))'", "circle": "'<(1,2),3>'", "int4range": "'[1,2)'", "int8range": "'[1,2)'",
    "numrange": "'[1,2)'", "tsrange": "'[2024-01-01,)'", "tstzrange": "'[2024-01-01,)'", "daterange": "'[2024-01-01,)'",
    "int4multirange": "'{[1,2)}'", "datemultirange": "'{}'", "pg_lsn": "'0/0'", "tid": "'(0,1)'", "xid8": "'1'",
    "regclass": "'pg_class'", "pg_snapshot": "'10:20:'", "int[]": "'{1}'", "text[]": "'{a}'", "varchar(3)[]": "'{a}'",
    "char(3)[]": "'{a}'", "uuid[]": "'{}'", "jsonb[]": "'{}'", "numeric(5,2)[]": "'{1.5}'", "timestamptz[]": "'{}'",
    "int4range[]": "'{}'", "inet[]": "'{}'", "own_mood": "'sad'", "own_mood[]": "'{sad}'", "own_year": "2006",
    "own_text": "'a'", "own_texts": "'{a}'", "own_pair": "'(1,a)'", "own_range": "'[1,2)'",
}  # fmt: skip
MYSQL = {
    "tinyint": "1", "tinyint unsigned": "1", "smallint": "1", "smallint unsigned": "1", "mediumint": "1",
    "mediumint unsigned": "1", "int": "1", "int unsigned": "1", "int(5) zerofill": "1", "bigint": "1",
    "bigint unsigned": "1", "tinyint(1)": "1", "bit": "1", "bit(8)": "7", "bit(64)": "7", "decimal(12,2)": "1.5",
    "decimal(60,20)": "1.5", "decimal(5)": "1", "float": "0.5", "float(7,3)": "0.5", "double": "0.5", "year": "2006",
    "date": "'2024-02-29'", "datetime": "'2024-02-29'", "datetime(3)": "'2024-02-29'", "datetime(6)": "'2024-02-29'",
    "timestamp null": "'2024-02-29'", "timestamp(6) null": "'2024-02-29'", "time": "'12:00'", "time(6)": "'12:00'",
    "char(5)": "'a'", "varchar(20)": "'a'", "tinytext": "'a'", "text": "'a'", "mediumtext": "'a'", "longtext": "'a'",
    "enum('sad','so so')": "'sad'", "set('a','b')": "'a,b'", "binary(4)": "'a'", "varbinary(9)": "'a'",
    "tinyblob": "'a'", "blob": "'a'", "mediumblob": "'a'", "longblob": "'a'", "json": "'{}'",
    "uuid": "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "inet4": "'10.0.0.1'", "inet6": "'::1'",
    "vector(2)": "vec_fromtext('[1,2]')", "geometry": "point(1,2)", "point": "point(1,2)",
    "linestring": "st_geomfromtext('linestring(0 0,1 1)')",
    "polygon": "st_geomfromtext('polygon((0 0,1 1,1 0,0 0))')",
    "multipoint": "null", "multilinestring": "null", "multipolygon": "null", "geometrycollection": "null",
}  # fmt: skip
SQLITE = {
    "INTEGER": "1", "INT": "1", "BIGINT": "1", "REAL": "0.5", "DOUBLE": "0.5", "FLOAT": "0.5", "NUMERIC": "1.5",
    "DECIMAL(12,2)": "1.5", "DECIMAL(30,2)": "1.5", "DECIMAL_TEXT(30,2)": "'1.50'", "BOOLEAN": "1", "TEXT": "'a'",
    "VARCHAR(20)": "'a'", "NCHAR(5)": "'a'", "CLOB": "'a'", "STRING": "'a'", "BLOB": "x'00'", "DATE": "'2024-02-29'",
    "TIME": "'12:00:00'", "DATETIME": "'2024-02-29 00:00:00'", "TIMESTAMP": "'2024-02-29 00:00:00'",
    "TIMESTAMPTZ": "'2024-02-29 00:00:00+00:00'", "TIMESTAMP(9)": "'2024-02-29 00:00:00.123456789'",
    "TIMESTAMPTZ(9)": "'2024-02-29 00:00:00.123456789+00:00'", "UUID": "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
    "JSON": "'{}'", "JSON_TEXT": "'{}'", "INTERVAL": "'P1M'", "MONEY": "1.5", "": "'a'",
}  # fmt: skip
DUCKDB = {
    "BOOLEAN": "true", "TINYINT": "1", "SMALLINT": "1", "INTEGER": "1", "BIGINT": "1", "HUGEINT": "1",
    "UTINYINT": "1", "USMALLINT": "1", "UINTEGER": "1", "UBIGINT": "1", "UHUGEINT": "1", "FLOAT": "0.5",
    "DOUBLE": "0.5", "DECIMAL(12,2)": "1.5", "DECIMAL(38,10)": "1.5", "VARCHAR": "'a'", "BLOB": "'a'::blob",
    "DATE": "'2024-02-29'", "TIME": "'12:00'", "TIMETZ": "'12:00:00+02'", "TIMESTAMP": "'2024-02-29'",
    "TIMESTAMP_S": "'2024-02-29'", "TIMESTAMP_MS": "'2024-02-29'", "TIMESTAMP_NS": "'2024-02-29'",
    "TIMESTAMPTZ": "'2024-02-29 00:00:00+00'", "INTERVAL": "interval '1 day'",
    "UUID": "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "JSON": "'{}'", "BIT": "'101'", "INTEGER[]": "[1]",
    "VARCHAR[]": "['a']", "INTEGER[2]": "[1,2]", "STRUCT(a INTEGER, b VARCHAR)": "{'a': 1, 'b': 'x'}",
    "MAP(VARCHAR, INTEGER)": "map {'a': 1}", "ENUM('sad', 'so so')": "'sad'", "UUID[]": "[]", "TIMESTAMPTZ[]": "[]",
    "STRUCT(a INTEGER)[]": "[{'a': 1}]", "UNION(num INTEGER, str VARCHAR)": "1",
}  # fmt: skip
TYPES = {"postgres": POSTGRES, "mysql": MYSQL, "sqlite": SQLITE, "duckdb": DUCKDB}

OWN = [
    "create type own_mood as enum ('sad', 'so so')",
    "create domain own_year as integer check (value between 1901 and 2155)",
    "create domain own_text as varchar(20) not null",
    "create domain own_texts as text[]",
    "create type own_pair as (a int, b text)",
    "create type own_range as range (subtype = float8)",
]


def connected(system: str, place: str) -> Callable[[str], list[Any]]:
    """Return what runs a statement with the system's own client."""
    if system == "postgres":

        def execute(sql: str) -> list[Any]:
            with psycopg.connect(place) as connection:
                cursor = connection.execute(sql.encode())
                return cursor.fetchall() if cursor.description else []

    elif system == "mysql":

        def execute(sql: str) -> list[Any]:
            with mysql_connection(place) as connection, connection.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall())

    elif system == "sqlite":

        def execute(sql: str) -> list[Any]:
            connection = sqlite3.connect(place)
            found = connection.execute(sql).fetchall()
            connection.commit()
            connection.close()
            return found

    else:

        def execute(sql: str) -> list[Any]:
            with duckdb.connect(place) as connection:
                return connection.execute(sql).fetchall()

    return execute


def make(system: str, place: str) -> None:
    """Make the table `wide` with a column of every type, and a record."""
    execute = connected(system, place)
    for sql in OWN if system == "postgres" else ():
        execute(sql)
    types = TYPES[system]
    listed = ", ".join(f"c{n} {kind}" for n, kind in enumerate(types))
    execute(f"create table wide (id integer primary key, {listed})")
    execute(f"insert into wide values (1, {', '.join(types.values())})")


def catalog(system: str, place: str, table: str = "wide") -> dict[str, str]:
    """Return the type of every column, in the words of the system's catalog."""
    if system == "parquet":
        file = next(Path(place).rglob("*.parquet"))
        # An item of a list is called `element` there, and one of a map as its column.
        listed = {field.name: str(field.type).replace("<element: ", "<item: ") for field in pq.read_schema(file)}
        return {name: re.sub(r" \('\w+'\)>", ">", kind) for name, kind in listed.items()}
    execute = connected(system, place)
    if system == "postgres":
        return dict(
            execute(
                "select attname::text, format_type(atttypid, atttypmod) from pg_attribute "
                f"where attrelid = 'public.{table}'::regclass and attnum > 0 and not attisdropped"
            )
        )
    if system == "sqlite":
        return {row[1]: row[2] for row in execute(f"pragma table_info({table})")}
    if system == "duckdb":
        return dict(execute(f"select column_name, data_type from duckdb_columns() where table_name = '{table}'"))
    shown = execute(
        "select c.column_name, c.column_type, c.column_comment, coalesce(k.check_clause, '') "
        "from information_schema.columns c left join information_schema.check_constraints k "
        "on k.constraint_schema = c.table_schema and k.table_name = c.table_name and k.constraint_name = c.column_name "
        f"where c.table_schema = database() and c.table_name = '{table}'"
    )
    return {name: _mysql_type(*rest) for name, *rest in shown}


def _mysql_type(declared: str, comment: str, check: str) -> str:
    if check.startswith("json_valid"):
        return "json"
    if declared != "tinyint(1)":  # the width for showing an integer says nothing of its values
        declared = re.sub(r"^(\w*int|year)\(\d+\)", r"\1", declared).removesuffix(" zerofill")
    return f"{declared} comment 'UTC'" if comment == "UTC" else declared


def document(source: str, destination: str, places: tuple[str, str], **stream: Any) -> dict[str, Any]:  # noqa: F811
    def config(system: str, place: str) -> dict[str, Any]:
        return {"url": place} if system in ("postgres", "mysql") else {"path": place}

    names = {"postgres": "public.wide", "mysql": f"{places[0].rpartition('/')[2]}.wide"}
    return {
        "pipeline": "planned",
        "source": {"connector": source, "config": config(source, places[0])},
        "destination": {"connector": destination, "config": config(destination, places[1])},
        "on_lossy": "text",
        "streams": [{"stream": names.get(source, "wide"), "destination_table": "wide", **stream}],
    }


def planned(file: Path) -> Plan:
    pipeline = load_pipeline(file)
    with opened(pipeline) as session, existing_store(pipeline) as store:
        return make_plan(session, store)


def said(plan: Plan) -> dict[str, str]:
    """Return what a plan says of each column: the type that it will have."""
    return {each.kept.column: each.kept.type for each in plan.streams[0].mapping.columns if each.kept is not None}


def wrongly_planned(file: Path, source: str, destination: str, place: str) -> dict[str, Any]:
    """Plan and run; return the columns whose type in the catalog is not what the plan said."""
    words = said(planned(file))
    result = run_pipeline(file)
    assert result.status == "success", [result.error, *(stream.error for stream in result.streams)]
    there, kinds = catalog(destination, place), [None, *TYPES[source]]
    return {
        f"{name} ({kinds[n]})": (word, there.get(name))
        for n, (name, word) in enumerate(words.items())
        if word != there.get(name) and not _is_decimal(word, str(there.get(name)))
    }


def _is_decimal(word: str, kind: str) -> bool:
    """Tell whether a column is what the first load makes of a numeric without a precision."""
    return word == "decided at the first load" and kind.lower().startswith(("decimal", "numeric"))


@pytest.mark.full
@pytest.mark.one_of("destination")
@pytest.mark.parametrize("destination", [*TYPES, "parquet"])
@pytest.mark.parametrize("source", TYPES)
def test_the_table_has_the_planned_types(
    tmp_path: Path,
    source: str,
    destination: str,
    places: tuple[str, str],  # noqa: F811
) -> None:
    make(source, places[0])
    file = tmp_path / "planned.yaml"
    for disposition in ("append", "merge"):
        step = document(source, destination, places, write_disposition=disposition)
        file.write_text(json.dumps(step), encoding="utf-8")
        assert not wrongly_planned(file, source, destination, places[1]), disposition


#: What keeps a table where it is when it is replaced.
DEPENDENT = {
    "postgres": "create view on_wide as select * from wide",
    "mysql": "create index on_wide on wide (c0)",
    "sqlite": "create index on_wide on wide (c0)",
    "duckdb": "create index on_wide on wide (c0)",
}


@pytest.mark.full
@pytest.mark.one_of("destination")
@pytest.mark.parametrize("disposition", ["append", "replace"])
@pytest.mark.parametrize(("source", "destination"), [(system, system) for system in TYPES])
def test_a_table_of_its_own_schema_has_the_planned_types(
    tmp_path: Path,
    source: str,
    destination: str,
    disposition: str,
    places: tuple[str, str],  # noqa: F811
) -> None:
    for place in places:
        make(source, place)
    execute = connected(destination, places[1])
    execute("delete from wide")
    if disposition == "replace":
        execute(DEPENDENT[destination])
    file = tmp_path / "planned.yaml"
    step = document(source, destination, places, write_disposition=disposition)
    file.write_text(json.dumps(step), encoding="utf-8")
    assert not wrongly_planned(file, source, destination, places[1])


@pytest.mark.parametrize(("source", "destination"), [("postgres", "postgres")])
def test_an_enum_arrives_in_the_type_that_the_destination_has(
    tmp_path: Path,
    source: str,
    destination: str,
    places: tuple[str, str],  # noqa: F811
) -> None:
    there, here = (connected("postgres", place) for place in places)
    there("create type mood as enum ('sad', 'so so')")
    there("create table wide (id int primary key, m mood)")
    there("insert into wide values (1, 'so so'), (2, null)")
    here("create type mood as enum ('so so', 'glad', 'sad')")
    file = tmp_path / "planned.yaml"
    for disposition in ("replace", "merge"):
        step = document(source, destination, places, write_disposition=disposition)
        file.write_text(json.dumps(step), encoding="utf-8")
        assert said(planned(file))["m"] == "mood"
        assert run_pipeline(file).status == "success"
        assert catalog("postgres", places[1])["m"] == "mood"
    assert here("select id, m::text from wide order by id") == [(1, "so so"), (2, None)]
    # A label that the type there lacks: a new table has texts.
    there("alter type mood add value 'new'")
    there("insert into wide values (3, 'new')")
    file.write_text(json.dumps(document(source, destination, places, write_disposition="replace")), encoding="utf-8")
    assert said(planned(file))["m"] == "text"
    assert run_pipeline(file).status == "success"
    assert here("select m from wide where id = 3") == [("new",)]


@pytest.mark.parametrize(("source", "destination"), [("mysql", "mysql")])
def test_geometry_and_bits_arrive_in_their_own_types(
    tmp_path: Path,
    source: str,
    destination: str,
    places: tuple[str, str],  # noqa: F811
) -> None:
    there, here = (connected("mysql", place) for place in places)
    for execute in (there, here):
        execute("create table wide (id int primary key, g geometry, b bit(8), o bit, v varchar(9))")
    there("insert into wide values (1, st_geomfromtext('POINT(0.1 2)', 4326), 200, 1, 'a'), (2, null, null, null, 'b')")
    there("insert into wide values (3, st_geomfromtext('POLYGON((0 0,1 1,1 0,0 0))'), 0, 0, 'c')")
    file = tmp_path / "planned.yaml"
    shown = "select id, st_astext(g), st_srid(g), b + 0, o + 0, v from wide order by id"
    for disposition in ("append", "replace", "merge"):
        file.write_text(json.dumps(document(source, destination, places, write_disposition=disposition)))
        result = run_pipeline(file)
        assert result.status == "success", [stream.error for stream in result.streams]
        assert here(shown) == there(shown)
        there("update wide set v = concat(v, 'x'), b = 7, o = 0")
    assert catalog("mysql", places[1])["g"] == "geometry"
