"""Tables of the destination that foreign keys connect: parents are written first, one stream after another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from syncblocks import load_pipeline, run_pipeline
from syncblocks.sync.plan.foreign_key_order import in_order
from syncblocks.sync.session.inspection import opened
from syncblocks.sync.session.session import make_plan
from tests.conftest import RunCLI
from tests.golden.systems import mysql_connection
from tests.sync.run.test_columns_by_case import config, records

#: Children stand before their parents, as an alphabet has them.
TABLES = (
    "create table zones (id bigint primary key, name varchar(20))",
    "create table cities (id bigint primary key, zone bigint references zones (id))",
    "create table addresses (id bigint primary key, city bigint references cities (id))",
    "create table alone (id bigint primary key)",
)
STREAMS = ("addresses", "alone", "cities", "zones")


def execute(destination: dict[str, Any], folder: Path, *statements: str) -> None:
    system, opened_with = destination["connector"], destination["config"]
    if system == "mysql":
        with mysql_connection(opened_with["url"]) as mysql, mysql.cursor() as cursor:
            for each in statements:
                cursor.execute(each)
    else:
        with psycopg.connect(opened_with["url"]) as postgres:
            for each in statements:
                postgres.execute(each.encode())


def write(folder: Path, destination: dict[str, Any], days: int) -> Path:
    rows = {
        "zones": [{"id": n, "name": f"z{n}"} for n in range(5 * days)],
        "cities": [{"id": n, "zone": n % (5 * days)} for n in range(40 * days)],
        "addresses": [{"id": n, "city": n % (40 * days)} for n in range(300 * days)],
        "alone": [{"id": n} for n in range(days)],
    }
    (folder / "in").mkdir(exist_ok=True)
    for name, found in rows.items():
        (folder / "in" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    document = {
        "source": {"connector": "jsonl", "config": {"path": "in"}},
        "destination": destination,
        "concurrency": 4,
        "streams": [{"stream": "*", "key_properties": ["id"], "write_disposition": "merge"}],
    }
    path = folder / "p.yaml"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("system", ["postgres", "mysql"])
def test_a_parent_without_primary_key_is_replaced_by_its_unique_key(
    tmp_path: Path, request: pytest.FixtureRequest, system: str
) -> None:
    destination = config(system, request, tmp_path)
    zones = "create table zones (name varchar(20), code varchar(4) not null, unique (code))"
    cities = "create table cities (zone varchar(4), foreign key (zone) references zones (code))"
    execute(destination, tmp_path, zones, cities)
    path = write(tmp_path, destination, 1)
    document = json.loads(path.read_text())
    document["streams"] = [{"stream": "zones", "write_disposition": "replace"}]
    path.write_text(json.dumps(document))
    for name in ("north", "south"):
        (tmp_path / "in" / "zones.jsonl").write_text(json.dumps({"name": name, "code": "z1"}))
        result = run_pipeline(path)
        assert result.status == "success", [stream.error for stream in result.streams]
        assert [record["name"] for record in records(destination, tmp_path, "zones")] == [name]
        execute(destination, tmp_path, "delete from cities", "insert into cities values ('z1')")


@pytest.mark.one_of
@pytest.mark.parametrize("system", ["postgres", "mysql"])
def test_parents_come_first_whatever_their_names(
    tmp_path: Path, request: pytest.FixtureRequest, run_cli: RunCLI, system: str
) -> None:
    destination = config(system, request, tmp_path)
    execute(destination, tmp_path, *TABLES)
    for days in (1, 3):
        path = write(tmp_path, destination, days)
        result = run_pipeline(path)
        assert result.status == "success", [stream.error for stream in result.streams]
        assert [len(records(destination, tmp_path, name)) for name in STREAMS] == [
            300 * days,
            days,
            40 * days,
            5 * days,
        ]
    planned = json.loads(run_cli(["plan", path, "--json"], tmp_path).stdout)
    assert {each["stream"]: each["after"] for each in planned["streams"]} == {
        "zones": [],
        "cities": ["zones"],
        "addresses": ["cities"],
        "alone": [],
    }
    names = [each["stream"] for each in planned["streams"]]
    assert names.index("zones") < names.index("cities") < names.index("addresses")


def test_a_cycle_is_named(tmp_path: Path, postgres_url: str) -> None:
    destination = {"connector": "postgres", "config": {"url": postgres_url}}
    execute(
        destination,
        tmp_path,
        "create table zones (id bigint primary key, name text)",
        "create table cities (id bigint primary key, zone bigint references zones (id))",
        "alter table zones add column capital bigint references cities (id)",
    )
    with opened(load_pipeline(write(tmp_path, destination, 1))) as session:
        plan = make_plan(session, None)
        assert in_order(plan.streams, {}, None).cycles == ()
    (warning,) = [text for text in plan.warnings if "form a cycle" in text]
    assert "cities, zones" in warning
    assert "drop one of the keys for the time of the load" in warning
    assert {each.name: bool(each.placement.chain) for each in plan.streams}["alone"] is False


def test_keys_of_partitions_are_those_of_their_table(tmp_path: Path, postgres_url: str, run_cli: RunCLI) -> None:
    destination = {"connector": "postgres", "config": {"url": postgres_url}}
    execute(
        destination,
        tmp_path,
        "create table zones (id bigint primary key, name text) partition by range (id)",
        "create table zones_all partition of zones default",
        "create table cities (id bigint primary key, zone bigint) partition by range (id)",
        "create table cities_low partition of cities for values from (0) to (20)",
        "create table cities_rest partition of cities default partition by range (id)",
        "create table cities_high partition of cities_rest for values from (20) to (10000)",
        "alter table cities_high add foreign key (zone) references zones_all (id)",
        "alter table cities_low add foreign key (zone) references cities_low (id)",
        "create table addresses (id bigint primary key, city bigint)",
        "create table alone (id bigint primary key)",
    )
    planned = json.loads(run_cli(["plan", write(tmp_path, destination, 1), "--json"], tmp_path).stdout)
    after = {each["stream"]: each["after"] for each in planned["streams"]}
    assert after == {"addresses": [], "alone": [], "cities": ["zones"], "zones": []}
    result = run_pipeline(tmp_path / "p.yaml")
    assert result.status == "success", [stream.error for stream in result.streams]
    document = json.loads((tmp_path / "p.yaml").read_text())
    document["streams"] = [{"stream": "zones", "key_properties": ["id"], "write_disposition": "replace"}]
    (tmp_path / "p.yaml").write_text(json.dumps(document))
    result = run_pipeline(tmp_path / "p.yaml")
    assert result.status == "success", [stream.error for stream in result.streams]
