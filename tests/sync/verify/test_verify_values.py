"""`verify` between real systems: copies are equal, whatever is in them."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pytest
import yaml

from syncblocks.connectors.testing import VALUES, Feature
from tests import services
from tests.sync.verify.verify_pairs import SYSTEMS, Pair, Places, found_damage, make_pair
from tests.sync.verify.verify_pairs import places as places
from tests.sync.verify.verify_pairs import servers as servers

#: Every kind of value, as many records as the kind with most of them has.
LENGTH = max(len(case.values) for case in VALUES.values())
#: Doubles that two systems may write in two ways: powers of ten at the edges, and halfway between two doubles.
DOUBLES = (1e15, 1e16, 9.5e14, 1e-4, 9.99e-5, 1e-5, 1e22, 1e23, 123456789.0, -0.0, 2.0**60, 1e300)


def all_kinds(systems: Sequence[str]) -> pa.RecordBatch:
    lacking = {name for name, case in VALUES.items() if case.feature is Feature.SPECIAL_FLOATS and "mysql" in systems}
    cases = {name: case for name, case in VALUES.items() if name not in lacking}
    number = max(LENGTH, len(DOUBLES))
    records = [
        {"id": n, "doubles": DOUBLES[n % len(DOUBLES)]} | {k: c.values[n % len(c.values)] for k, c in cases.items()}
        for n in range(number)
    ]
    fields = [pa.field("id", pa.int64(), nullable=False), pa.field("doubles", pa.float64())]
    schema = pa.schema([*fields, *((name, case.kind) for name, case in cases.items())])
    return pa.RecordBatch.from_pylist(records, schema=schema)


@pytest.mark.one_of("destination")
@pytest.mark.parametrize(
    ("source", "destination"),
    [
        *itertools.product(["postgres", "mysql", "csv"], SYSTEMS),
        *itertools.pairwise(["duckdb", "sqlite", "parquet", "jsonl"]),
    ],
)
def test_copies_of_every_kind_of_value_are_equal(tmp_path: Path, places: Places, source: str, destination: str) -> None:
    pair = make_pair(tmp_path, places, source, destination, all_kinds([source, destination]))
    pair.run()
    found = pair.verify()
    assert (found.verdict, found.comparison and found.comparison.records) == ("equal", []), found
    assert found.source_records == found.destination_records == max(LENGTH, len(DOUBLES))
    assert not found.notes  # nothing was left out


ODD_POSTGRES = """
    id int primary key, c char(5), v varchar(10), n numeric, wide numeric(40,5), m money, j json, b jsonb, a int[],
    ta text[], i inet, u uuid, r int4range, bits bit(3), f real, d double precision, big numeric(20,0), nm name, p point
"""
ODD_POSTGRES_ROWS = """
    (1,'ab','x ',1.50,1.5,12.5,'{"b": 1,"a":2}','{"b":1,"a":2}','{1,2}','{"a,b",c}','10.0.0.1/8',
     'A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11','[1,5)','101',0.1,1e23,12345678901234567890,'nm','(1,2)'),
    (2,'','',0.00001,-0.00001,-1,'[]','[]','{}','{}','::1',null,'empty','000','-0','-0',0,'',null),
    (3,null,null,null,null,null,null,null,null,null,null,null,null,null,1.5e30,1e-300,null,null,null)
"""
ODD_MYSQL = """
    id int unsigned primary key, e enum('a','B'), s set('x','y'), y year, bi bit(1), b9 bit(9), t1 tinyint(1),
    wide decimal(65,30), z int(5) zerofill, tm time(3), ts timestamp(2) null, dt datetime(6), j json, bn binary(4),
    ch char(5) character set latin1, tx text, f float, d double, n decimal(10,2), bl blob, g point
"""
ODD_MYSQL_ROWS = """
    (1,'B','x,y',2024,b'1',b'101010101',1,1.5,42,'10:00:00.25','2024-01-01 10:00:00.5','2024-01-01 10:00:00.000001',
     '{"b": 1,  "a":2}','ab','é',repeat('ü€😀',10),0.1,1e-300,-0.50,x'00ff',point(1,2)),
    (2,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null),
    (4294967295,'a','',1901,b'0',b'0',0,-1e-30,0,'00:00:00','1970-01-02 00:00:00','1000-01-01 00:00:00','[]','','','',
     -1.5e30,1.7976931348623157e308,0,'',null)
"""


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("destination", ["postgres", "mysql", "duckdb", "parquet"])
@pytest.mark.parametrize("source", ["postgres", "mysql"])
def test_types_that_only_one_system_has_are_equal_in_the_copy(
    tmp_path: Path, places: Places, source: str, destination: str
) -> None:
    table = f"t{secrets.token_hex(4)}"
    if source == "postgres":
        with psycopg.connect(places.source[source]["url"], autocommit=True) as connection:
            connection.execute(f"create table {table} ({ODD_POSTGRES})")
            connection.execute(f"insert into {table} values {ODD_POSTGRES_ROWS}")
    else:
        with contextlib.closing(services.connect_mariadb(places.source[source]["url"])) as connection:
            connection.cursor().execute(f"create table {table} ({ODD_MYSQL})")
            connection.cursor().execute(f"insert into {table} values {ODD_MYSQL_ROWS}")
    document = {
        "source": {"connector": source, "config": places.source[source]},
        "destination": {"connector": destination, "config": places.destination[destination]},
        "on_lossy": "text",
        "streams": [{"stream": f"*.{table}", "destination_table": table}],
    }
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(document))
    pair = Pair(tmp_path, destination, places.destination[destination], table)
    pair.run()
    found = pair.verify()
    assert (found.verdict, found.comparison and found.comparison.records) == ("equal", []), found
    assert found.source_records == 3
    assert found.notes == ()


#: Months, days and microseconds, each with a sign of its own; the first record is changed by one microsecond.
INTERVALS = (
    "1 year 2 mons", "-14 mons 3 days -04:05:06.000007", "-1 days 00:00:00.5", "1000000:00:00", "-00:00:00.000001",
    "178000000 years", "0", "1 mon -1 days", "-2562047:47:16.854775",
)  # fmt: skip


@pytest.mark.one_of("destination")
@pytest.mark.parametrize(
    ("source", "destination"),
    [
        *(("postgres", name) for name in SYSTEMS),
        *(("duckdb", name) for name in ("postgres", "sqlite", "duckdb")),
    ],
)
def test_intervals_are_compared_by_months_days_and_microseconds(
    tmp_path: Path, places: Places, source: str, destination: str
) -> None:
    table = f"t{secrets.token_hex(4)}"
    values = ", ".join(f"({place}, interval '{text}')" for place, text in enumerate(INTERVALS))
    config = places.source[source]
    connected: Any = psycopg.connect(config["url"]) if source == "postgres" else duckdb.connect(config["path"])
    with connected as connection:
        connection.execute(f"create table {table} (id int primary key, v interval)")
        connection.execute(f"insert into {table} values {values}, (100, null)")
    stream = f"public.{table}" if source == "postgres" else table
    document = {
        "source": {"connector": source, "config": config},
        "destination": {"connector": destination, "config": places.destination[destination]},
        "on_lossy": "text",  # MySQL has no intervals
        "streams": [{"stream": stream, "destination_table": table, "key_properties": ["id"]}],
    }
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(document))
    pair = Pair(tmp_path, destination, places.destination[destination], table)
    pair.run()
    found = pair.verify()
    assert (found.verdict, found.source_records, found.notes) == ("equal", len(INTERVALS) + 1, ())
    connected = psycopg.connect(config["url"]) if source == "postgres" else duckdb.connect(config["path"])
    with connected as connection:
        connection.execute(f"update {table} set v = v + interval '1 microsecond' where id = 0")
    assert found_damage(pair.verify()) == {("0", "different", ("v",))}


#: DuckDB's own ways to write: no zero before the point, BC before the hour.
ODD_DUCKDB = (
    "id int primary key, n decimal(2,2), w decimal(30,30), l decimal(2,2)[], s struct(n decimal(2,2)), m timestamp"
)
ODD_DUCKDB_ROWS = """
    (1, 0.50, -0.5, [0.05, -0.05, 0], {'n': -0.25}, '0044-03-15 (BC) 10:00:00.5'),
    (2, 0, 0, [], {'n': 0}, '0001-01-01'), (3, null, null, null, null, null),
    (4, -0.01, 0.1, [null], null, '0001-12-31 (BC)')
"""


@pytest.mark.one_of("destination")
@pytest.mark.parametrize("destination", ["postgres", "mysql", "sqlite", "parquet"])
def test_what_duckdb_writes_in_its_own_way_is_equal_in_the_copy(
    tmp_path: Path, places: Places, destination: str
) -> None:
    table = f"t{secrets.token_hex(4)}"
    is_modern = destination in ("mysql", "sqlite")  # they know no years before the first
    with duckdb.connect(places.source["duckdb"]["path"]) as connection:
        connection.execute(f"create table {table} ({ODD_DUCKDB}); insert into {table} values {ODD_DUCKDB_ROWS}")
        if is_modern:
            connection.execute(f"update {table} set m = null where m < '0001-01-01'")
    document = {
        "source": {"connector": "duckdb", "config": places.source["duckdb"]},
        "destination": {"connector": destination, "config": places.destination[destination]},
        "streams": [{"stream": table}],
    }
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(document))
    pair = Pair(tmp_path, destination, places.destination[destination], table)
    pair.run()
    found = pair.verify()
    assert (found.verdict, found.source_records, found.notes) == ("equal", 4, ())
    with duckdb.connect(places.source["duckdb"]["path"]) as connection:
        connection.execute(f"update {table} set w = 0.2 where id = 4")
    assert found_damage(pair.verify()) == {("4", "different", ("w",))}


@pytest.mark.parametrize("source", ["sqlite", "duckdb"])
def test_a_boolean_equals_the_number_that_the_table_has_for_it(tmp_path: Path, places: Places, source: str) -> None:
    batch = pa.RecordBatch.from_pydict({"id": [1, 2, 3], "v": [True, False, None]})
    pair = make_pair(tmp_path, places, source, "sqlite", batch, write_disposition="merge")
    pair.run()
    with contextlib.closing(sqlite3.connect(pair.config["path"])) as connection:
        connection.executescript(f"""
            alter table {pair.table} rename to old; create table {pair.table} (id integer primary key, v integer);
            insert into {pair.table} select * from old
        """)
    found = pair.verify()
    assert (found.verdict, found.source_records, found.notes) == ("equal", 3, ())
