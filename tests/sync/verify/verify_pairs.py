"""Pairs of places with a copy to verify, and ways to damage it."""

from __future__ import annotations

import contextlib
import csv
import json
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from syncblocks import load_pipeline, run_pipeline
from syncblocks.connectors.registry import make_destination
from syncblocks.connectors.stream import Checkpoint, LedgerKey, Load, Stream
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec
from syncblocks.sync.session.inspection import existing_store, opened
from syncblocks.sync.session.session import make_plan
from syncblocks.sync.verify.verification import StreamVerification, verify_streams
from tests import services

SYSTEMS = ["postgres", "mysql", "sqlite", "duckdb", "parquet", "csv", "jsonl"]


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
    load = Load(key=key, stream=stream, write=WriteSpec(disposition=WriteDisposition.REPLACE), token=token, run="1:1")
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
        records = rewrite([json.loads(line) for line in path.read_text("utf-8").splitlines()])
        path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    else:
        with path.open(newline="", encoding="utf-8") as file:
            records = rewrite(list(csv.DictReader(file)))
        with path.open("w", newline="", encoding="utf-8") as file:
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


@pytest.fixture
def pair(tmp_path: Path, places: Places) -> Pair:
    """SQLite to DuckDB: nothing to start."""
    return make_pair(tmp_path, places, "sqlite", "duckdb", plain_records())


def in_source(places: Places, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(places.source["sqlite"]["path"], isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
