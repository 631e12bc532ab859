"""`verify` between real systems: equal copies are equal, whatever is in them, and each kind of damage is named."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from connectors.registry import make_destination
from connectors.stream import Checkpoint, LedgerKey, Load, Stream, WriteDisposition
from connectors.testing import VALUES, Feature
from sync import load_pipeline, run_pipeline
from sync.inspection import existing_store, opened
from sync.session import make_plan
from sync.store import Store
from sync.store.model import AttemptPlan
from sync.verification import StreamVerification, verify_streams
from tests import services
from tests.conftest import RunCLI

SYSTEMS = ["postgres", "mysql", "sqlite", "duckdb", "parquet", "csv", "jsonl"]

#: Every kind of value, as many records as the kind with most of them has.
LENGTH = max(len(case.values) for case in VALUES.values())
#: Doubles that two systems may write in two ways: powers of ten at the edges, and halfway between two doubles.
DOUBLES = (1e15, 1e16, 9.5e14, 1e-4, 9.99e-5, 1e-5, 1e22, 1e23, 123456789.0, -0.0, 2.0**60, 1e300)


@dataclass(frozen=True)
class Places:
    """A place of each system for sources, and one for destinations."""

    source: Mapping[str, dict[str, Any]]
    destination: Mapping[str, dict[str, Any]]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, tuple[str, str]]]:
    """Two databases of each server for the whole module; every test has tables of its own."""
    with (
        services.fresh_postgres_database() as one,
        services.fresh_postgres_database() as two,
        services.fresh_mariadb_database() as three,
        services.fresh_mariadb_database() as four,
    ):
        yield {"postgres": (one, two), "mysql": (three, four)}


@pytest.fixture
def places(tmp_path: Path, servers: dict[str, tuple[str, str]]) -> Places:
    def of(side: int) -> dict[str, dict[str, Any]]:
        folder = tmp_path / str(side)
        folder.mkdir()
        return {
            "postgres": {"url": servers["postgres"][side]},
            "mysql": {"url": servers["mysql"][side]},
            "sqlite": {"path": str(folder / "a.db")},
            "duckdb": {"path": str(folder / "a.duckdb")},
            **{name: {"path": str(folder / name)} for name in ("parquet", "csv", "jsonl")},
        }

    return Places(of(0), of(1))


@dataclass
class Pair:
    """A pipeline between two places, with one stream."""

    folder: Path
    destination: str
    config: dict[str, Any]
    table: str

    def run(self, **options: Any) -> None:
        result = run_pipeline(self.folder / "p.yaml", **options)
        assert result.status == "success", result

    def verify(self, **options: Any) -> StreamVerification:
        pipeline = load_pipeline(self.folder / "p.yaml")
        with opened(pipeline) as session, existing_store(pipeline) as store:
            (found,) = verify_streams(session, make_plan(session, store), **options)
        return found

    def repair(self) -> int:
        """Mend what differs; return how many records were synced."""
        found = self.verify(with_repairs=True)
        assert found.repair is not None, found.notes
        result = run_pipeline(self.folder / "p.yaml", repairs={found.stream: found.repair})
        assert result.status == "success", result
        return result.streams[0].records or 0

    def write(self, **changes: Any) -> None:
        path = self.folder / "p.yaml"
        document = yaml.safe_load(path.read_text())
        document["streams"][0] |= changes
        path.write_text(yaml.safe_dump(document))


def seed(name: str, config: Mapping[str, Any], table: str, stream: Stream, batch: pa.RecordBatch) -> str:
    """Make a table in a source's place; return the name of its stream."""
    token = secrets.token_hex(16)
    destination = make_destination(name, config, Path.cwd())
    key = LedgerKey(pipeline="seed", stream=table, destination_table=table)
    destination.take_over(key, token=token, owner="seed", source="seed://")
    load = Load(key=key, stream=stream, write_disposition=WriteDisposition.REPLACE, token=token, run="1:1")
    list(destination.load(load, iter([batch, Checkpoint(is_final=True)])))
    offered = destination.describe([table])[table].stream_name
    destination.close()
    return offered


def make_pair(
    folder: Path, places: Places, source: str, destination: str, batch: pa.RecordBatch, **stream: Any
) -> Pair:
    table = f"t{secrets.token_hex(4)}"
    key = tuple(stream.pop("key_properties", ["id"]))
    shape = Stream(name=table, schema=batch.schema, key_properties=key)
    offered = seed(source, places.source[source], table, shape, batch)
    document = {
        "pipeline": table,
        "source": {"connector": source, "config": places.source[source]},
        "destination": {"connector": destination, "config": places.destination[destination]},
        "streams": [{"stream": offered, "destination_table": table, "key_properties": list(key), **stream}],
    }
    (folder / "p.yaml").write_text(yaml.safe_dump(document))
    return Pair(folder, destination, places.destination[destination], table)


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


# -- damage ----------------------------------------------------------------------------------------------------------

Rewrite = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


def damage(
    pair: Pair, statements: Sequence[str], rewrite: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
) -> None:
    """Change a destination's table behind our back: SQL for databases, other records for files."""
    config, table = pair.config, pair.table
    if pair.destination == "postgres":
        with psycopg.connect(config["url"], autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.format(table))
    elif pair.destination == "mysql":
        with contextlib.closing(services.connect_mariadb(config["url"])) as connection:
            for statement in statements:
                connection.cursor().execute(statement.format(table))
    elif pair.destination == "sqlite":
        with contextlib.closing(sqlite3.connect(config["path"], isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement.format(table))
    elif pair.destination == "duckdb":
        with duckdb.connect(config["path"]) as connection:
            for statement in statements:
                connection.execute(statement.format(table))
    else:
        damage_file(Path(config["path"]) / f"{table}.{pair.destination}", rewrite)


def damage_file(path: Path, rewrite: Rewrite) -> None:
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        pq.write_table(pa.Table.from_pylist(rewrite(table.to_pylist()), schema=table.schema), path)
    elif path.suffix == ".jsonl":
        records = rewrite([json.loads(line) for line in path.read_text().splitlines()])
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        with path.open(newline="") as file:
            records = rewrite(list(csv.DictReader(file)))
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(records[0]), quoting=csv.QUOTE_MINIMAL)
            writer.writeheader()
            writer.writerows(records)


RECORDS = 5000


def plain_records() -> pa.RecordBatch:
    ids = range(1, RECORDS + 1)
    return pa.RecordBatch.from_pydict(
        {
            "id": pa.array(ids, pa.int64()),
            "name": pa.array([f"näme {n}" for n in ids], pa.string()),
            "part": pa.array([n / 7 for n in ids], pa.float64()),
        },
        schema=pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string()), ("part", pa.float64())]),
    )


def damage_everything(pair: Pair) -> None:
    """One value changed, one record gone, one too many, and a range of keys gone."""

    def rewrite(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        kept = [r for r in records if int(r["id"]) != 77 and not 3001 <= int(r["id"]) <= 3020]
        for record in kept:
            if int(record["id"]) == 4242:
                record["name"] = "changed"
        return [*kept, {**kept[0], "id": type(kept[0]["id"])(9000)}]

    damage(
        pair,
        [
            "update {} set name = 'changed' where id = 4242",
            "delete from {} where id = 77 or id between 3001 and 3020",
            "insert into {} (id, name, part) select 9000, name, part from (select * from {0} where id = 1) x".replace(
                "{}", "{0}"
            ),
        ],
        rewrite,
    )


def expected_damage() -> set[tuple[str, str, tuple[str, ...]]]:
    missing = {(str(n), "missing", ()) for n in (77, *range(3001, 3021))}
    return {*missing, ("4242", "different", ("name",)), ("9000", "extra", ())}


def found_damage(found: StreamVerification) -> set[tuple[str, str, tuple[str, ...]]]:
    assert found.comparison is not None
    return {(str(each.key[0]), each.kind, each.columns) for each in found.comparison.records}


@pytest.mark.parametrize(
    ("source", "destination"),
    [*(("postgres", name) for name in SYSTEMS), ("mysql", "postgres"), ("mysql", "mysql"), ("sqlite", "sqlite")],
)
def test_each_kind_of_damage_is_found_and_named(tmp_path: Path, places: Places, source: str, destination: str) -> None:
    pair = make_pair(tmp_path, places, source, destination, plain_records())
    pair.run()
    assert pair.verify().verdict == "equal"
    damage_everything(pair)
    found = pair.verify()
    assert found.verdict == "differs"
    assert (found.source_records, found.destination_records) == (RECORDS, RECORDS - 20)
    assert found_damage(found) == expected_damage()
    assert found.comparison is not None
    assert found.comparison.is_complete
    # Narrowed down to less than what there is: pieces of at most a thousand records.
    assert all(each.source_records <= 1000 for each in found.comparison.ranges)
    assert len(found.comparison.ranges) == 4
    # A repair syncs those ranges, and nothing else.
    assert pair.repair() == sum(each.source_records for each in found.comparison.ranges)
    mended = pair.verify()
    assert (mended.verdict, mended.destination_records) == ("equal", RECORDS)
    pair.run()
    assert pair.verify().verdict == "equal"


KEYS = {
    "text": (pa.string(), lambda n: ["a", "A", "ä", "Z", "z", "_", " ", "'", "é"][n % 9] + f"{n * 7919 % 3000}"),
    "date": (pa.date32(), lambda n: date.fromordinal(719_000 + n)),
    "moment": (pa.timestamp("us", "UTC"), lambda n: 1_700_000_000_000_001 + n * 500_000),
    "uuid": (pa.uuid(), lambda n: UUID(int=(n * 2**117 + n) % 2**128).bytes),
    "decimal": (pa.decimal128(20, 2), lambda n: Decimal(n * 37 - 40_000) / 100),
    "bytes": (pa.binary(), lambda n: (n * 40_503 % 2**16).to_bytes(2, "big") + b"\xff"),
}


@pytest.mark.parametrize(
    ("source", "destination", "kind"),
    [
        *(("postgres", "mysql", kind) for kind in ("text", "moment", "decimal")),
        *(("duckdb", "sqlite", k) for k in KEYS),
    ],
)
def test_keys_of_every_kind_are_split_at_the_same_places_in_every_system(
    tmp_path: Path, places: Places, source: str, destination: str, kind: str
) -> None:
    """Behind a first column with few values; texts in an order that no collation has."""
    arrow, make = KEYS[kind]
    number = 3000
    schema = pa.schema([pa.field("part", pa.int32(), False), pa.field("k", arrow, False), ("v", pa.int64())])
    storage = arrow.storage_type if isinstance(arrow, pa.BaseExtensionType) else arrow
    keys = pa.array([make(n) for n in range(number)], storage)
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array([n % 2 for n in range(number)], pa.int32()),
            arrow.wrap_array(keys) if storage is not arrow else keys,
            pa.array(range(number), pa.int64()),
        ],
        schema=schema,
    )
    pair = make_pair(tmp_path, places, source, destination, batch, key_properties=["part", "k"])
    pair.run()
    assert pair.verify().verdict == "equal"
    damage(pair, ["update {} set v = -1 where v in (5, 1500, 2999)", "delete from {} where v = 1234"], list)
    found = pair.verify()
    assert found.comparison is not None
    kinds = sorted((each.kind, each.columns) for each in found.comparison.records)
    assert kinds == [("different", ("v",))] * 3 + [("missing", ())], found.notes
    assert found.comparison.is_complete
    assert all(each.source_records <= 1000 for each in found.comparison.ranges)
    damage(pair, ["insert into {0} (part, k, v) select 7, k, v from (select * from {0} where v = 100) x"], list)
    assert 0 < pair.repair() <= number
    assert pair.verify().verdict == "equal"


# -- what counts -----------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path, places: Places) -> Pair:
    """SQLite to DuckDB: nothing to start."""
    return make_pair(tmp_path, places, "sqlite", "duckdb", plain_records())


def in_source(places: Places, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(places.source["sqlite"]["path"], isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_incremental_counts_what_was_read_and_not_what_has_changed_since(pair: Pair, places: Places) -> None:
    in_source(places, f"alter table {pair.table} add column at integer", f"update {pair.table} set at = id")
    pair.write(replication_method="INCREMENTAL", bookmark_properties=["at"])
    pair.run()
    in_source(
        places,
        f"update {pair.table} set at = 10000 + id, name = 'newer' where id % 100 = 0",
        f"insert into {pair.table} (id, name, at) values (20000, 'new', 20000)",
    )
    found = pair.verify()
    assert (found.verdict, found.source_records) == ("equal", RECORDS - 50), found
    assert found.comparison is not None
    assert found.comparison.changed_since == 51
    # Committed late, below the bookmark: no run will read it.
    in_source(places, f"insert into {pair.table} (id, name, at) values (30000, 'late', 17)")
    found = pair.verify()
    assert (found.verdict, found_damage(found)) == ("differs", {("30000", "missing", ())})


def test_a_float_that_two_systems_write_differently_is_no_difference(tmp_path: Path, places: Places) -> None:
    """PostgreSQL writes 1e23 as 9.999999999999999e+22, which reads back as the same double."""
    batch = plain_records()
    batch = batch.set_column(2, "part", pa.array([1e23 if n < 1500 else n / 3 for n in range(RECORDS)]))
    pair = make_pair(tmp_path, places, "postgres", "duckdb", batch)
    pair.run()
    assert pair.verify().verdict == "equal"


def test_append_is_counted_unless_it_is_equal(pair: Pair) -> None:
    pair.write(write_disposition="append")
    pair.run()
    assert pair.verify().verdict == "equal"
    pair.run()
    found = pair.verify()
    assert (found.verdict, found.destination_records) == ("counted", 2 * RECORDS)
    assert found.notes == ("append: the destination holds every record 2 times, and nothing else",)
    damage(pair, ["update {} set name = 'older' where id = 7"], list)
    assert pair.verify().notes == ("append: the destination may hold a record several times, and in older versions",)
    damage(pair, ["delete from {}"], list)
    assert pair.verify().verdict == "differs"


def test_without_a_key_all_records_together_are_compared(pair: Pair) -> None:
    pair.write(key_properties=[])
    pair.run()
    assert pair.verify().verdict == "equal"
    damage(pair, ["update {} set name = 'changed' where id = 7"], list)
    found = pair.verify()
    assert (found.verdict, found.key) == ("differs", ())
    assert any("no key" in note for note in found.notes)


def test_columns_of_one_side_are_left_out(pair: Pair) -> None:
    pair.write(columns={"exclude": ["part"]})
    pair.run()
    damage(pair, ["alter table {} add column mine integer", "update {} set name = 'x' where id = 4000"], list)
    found = pair.verify()
    assert found_damage(found) == {("4000", "different", ("name",))}
    assert found.notes == ("only in the destination: mine",)


def test_what_a_transformer_changes_is_counted(pair: Pair) -> None:
    (pair.folder / "t.py").write_text("@transformer\ndef change(df):\n    return df.assign(name='x')\n")
    path = pair.folder / "p.yaml"
    document = yaml.safe_load(path.read_text())
    document["transformers"] = [{"block": "change", "file": "t.py"}]
    path.write_text(yaml.safe_dump(document))
    pair.run()
    found = pair.verify()
    assert (found.verdict, found.source_records, found.destination_records) == ("counted", RECORDS, RECORDS)
    assert any("transformer" in note for note in found.notes)


def test_a_table_that_is_not_there_differs(pair: Pair) -> None:
    found = pair.verify()
    assert (found.verdict, found.source_records, found.destination_records) == ("differs", RECORDS, 0)


def test_everything_differs_in_bounded_work(pair: Pair) -> None:
    """One by one only the first thousand are named; the rest as ranges."""
    pair.run()
    damage(pair, ["update {} set name = name || '!'"], list)
    found = pair.verify()
    assert found.comparison is not None
    assert not found.comparison.is_complete
    assert sum(each.source_records for each in found.comparison.ranges) == RECORDS
    assert 1000 <= len(found.comparison.records) < RECORDS


def test_an_empty_copy_is_one_range(pair: Pair) -> None:
    pair.run()
    damage(pair, ["delete from {}"], list)
    found = pair.verify()
    assert found.comparison is not None
    (gone,) = found.comparison.ranges
    assert (gone.source_records, gone.destination_records) == (RECORDS, 0)


def test_a_run_that_is_told_to_verifies_what_it_has_synced(pair: Pair) -> None:
    pair.write(verify=True)
    result = run_pipeline(pair.folder / "p.yaml")
    assert (result.streams[0].verdict, result.exit_code) == ("equal", 0)
    pair.write(write_disposition="merge")
    damage(pair, ["insert into {} (id, name) values (-5, 'stray')"], list)
    result = run_pipeline(pair.folder / "p.yaml")  # a merge leaves it where it is
    assert (result.status, result.streams[0].verdict, result.exit_code) == ("success", "differs", 1)
    pair.write(verify=False)
    assert run_pipeline(pair.folder / "p.yaml").streams[0].verdict is None


# -- repair ----------------------------------------------------------------------------------------------------------


def test_a_repair_leaves_the_bookmark_where_it_is(pair: Pair, places: Places) -> None:
    in_source(places, f"alter table {pair.table} add column at integer", f"update {pair.table} set at = id")
    pair.write(replication_method="INCREMENTAL", bookmark_properties=["at"])
    pair.run()
    in_source(
        places,
        f"insert into {pair.table} (id, name, at) values (30000, 'late', 17), (40000, 'next', 9999)",
    )
    damage(pair, ["delete from {} where id = 5", "insert into {} (id, name, \"at\") values (6000, 'stray', 4)"], list)
    assert 0 < pair.repair() < RECORDS
    found = pair.verify()
    assert (found.verdict, found.source_records) == ("equal", RECORDS + 1)
    pair.run()
    with duckdb.connect(pair.config["path"]) as connection:
        assert connection.execute(f'select count(*), max("at") from {pair.table}').fetchall() == [(RECORDS + 2, 9999)]


def test_a_repair_of_an_emptied_copy_fills_it_again(pair: Pair) -> None:
    pair.run()
    damage(pair, ["delete from {}"], list)
    assert pair.repair() == RECORDS
    assert pair.verify().verdict == "equal"


def test_what_cannot_be_repaired_says_why(pair: Pair) -> None:
    pair.write(key_properties=[])
    pair.run()
    damage(pair, ["delete from {} where id = 5"], list)
    found = pair.verify(with_repairs=True)
    assert found.repair is None
    assert any("--full-refresh" in note for note in found.notes)


def test_the_command_says_what_differs_mends_it_and_is_in_the_history(pair: Pair, run_cli: RunCLI) -> None:
    pair.run()
    assert run_cli(["verify", "p.yaml"], pair.folder).returncode == 0
    damage(pair, ["delete from {} where id = 5", "update {} set name = 'x' where id = 6"], list)
    done = run_cli(["verify", "p.yaml"], pair.folder)
    assert done.returncode == 1
    assert "id=5: missing" in done.stdout
    assert "id=6: different in name" in done.stdout
    done = run_cli(["verify", "p.yaml", "--repair", "--json"], pair.folder)
    assert done.returncode == 0, done.stdout
    document = json.loads(done.stdout)
    assert [each["verdict"] for each in document["before"]] == ["differs"]
    assert [each["verdict"] for each in document["streams"]] == ["equal"]
    (named,) = (each["records"] for each in document["before"])
    assert {"key": {"id": "5"}, "kind": "missing", "columns": []} in named
    runs = json.loads(run_cli(["runs", "list", "p.yaml", "--json"], pair.folder).stdout)["runs"]
    assert len(runs) == 2


def test_a_repair_is_refused_while_the_pipeline_runs(pair: Pair, run_cli: RunCLI) -> None:
    pair.run()
    damage(pair, ["delete from {} where id = 5"], list)
    pipeline = load_pipeline(pair.folder / "p.yaml")
    with Store.open(pipeline.store_url) as store:
        store.begin_run(pipeline.pipeline, execution_date=pipeline.execution_date, plan=AttemptPlan(streams=()))
        done = run_cli(["verify", "p.yaml", "--repair"], pair.folder)
    assert done.returncode == 2
    assert "already running" in done.stderr
