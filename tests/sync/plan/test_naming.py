"""`naming` of a destination: names of tables and columns, collisions, and a table that was named otherwise."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from syncblocks import PipelineFailed, load_pipeline, preview, run_pipeline, verify
from syncblocks.sync.config.naming import name_by
from syncblocks.sync.errors import ConfigError
from tests.sync.pipelines import Bench
from tests.sync.pipelines import bench as bench


@pytest.mark.parametrize(
    ("name", "lower", "snake_case", "mage"),
    [
        ("OrderID", "orderid", "order_id", "orderid"),
        ("HTTPServer", "httpserver", "http_server", "httpserver"),
        ("Unit Price ($)", "unit price ($)", "unit_price", "unit_price____"),
        ("address2Line", "address2line", "address2_line", "address2line"),
        ("_airbyte__id", "_airbyte__id", "_airbyte_id", "_airbyte__id"),
        ("Größe", "größe", "größe", "größe"),
        ("Order", "order", "order", "_order"),
        ("%", "%", "_", "_"),
    ],
)
def test_a_name_in_each_naming(name: str, lower: str, snake_case: str, mage: str) -> None:
    found = [name_by(naming, name) for naming in ("keep", "lower", "snake_case", "mage")]
    assert found == [name, lower, snake_case, mage]


@pytest.fixture
def named(bench: Bench) -> Bench:
    bench.seed("Orders", [{"Id": 1, "Unit Price": 2}, {"Id": 2, "Unit Price": 3}], key=["Id"])
    bench.document["destination"]["naming"] = "snake_case"
    return bench


def test_tables_and_columns_get_the_names_behind_the_transformers(named: Bench) -> None:
    (named.folder / "more.py").write_text('@transformer\ndef more(df):\n    return df.assign(VatRate=df["Id"])\n')
    named.document["transformers"] = [{"file": "more.py"}]
    named.document["streams"] = [
        {
            "stream": "Orders",
            "replication_method": "INCREMENTAL",
            "bookmark_properties": ["Id"],
            "columns": {"include": ["Id", "Unit*"]},
        }
    ]
    named.record("recorder", on=["destination"])
    assert named.run().status == "success"
    assert named.rows("orders") == [
        {"id": 1, "unit_price": 2, "vat_rate": 1},
        {"id": 2, "unit_price": 3, "vat_rate": 2},
    ]
    assert [call["destination_table"] for call in named.calls()] == ["orders"]
    named.seed("Orders", [{"Id": 2, "Unit Price": 9}, {"Id": 3, "Unit Price": 4}], key=["Id"])
    assert named.run().status == "success"
    assert [row["unit_price"] for row in named.rows("orders")] == [2, 9, 4]
    assert list(preview(named.write(), "Orders").columns) == ["id", "unit_price", "vat_rate"]


def test_an_explicit_table_stays(named: Bench) -> None:
    named.document["streams"] = [{"stream": "Orders", "destination_table": "My Orders"}]
    assert named.run().status == "success"
    assert named.rows("My Orders")[0] == {"id": 1, "unit_price": 2}


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ({"T": [{"id": 1, "Unit Price": 1, "unit_price": 2}]}, ["'Unit Price' and 'unit_price'", "rename"]),
        ({"Order Items": 1, "order_items": 1}, ["'Order Items' and 'order_items'", "destination_table"]),
    ],
)
def test_two_that_become_one_name_are_refused_by_both_names(
    named: Bench, seeds: dict[str, Any], words: list[str]
) -> None:
    for name, records in seeds.items():
        named.seed(name, records)
    with pytest.raises(ConfigError) as caught:
        named.run()
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not named.destination.tables


def test_columns_of_a_function_that_become_one_name_fail_the_stream(named: Bench) -> None:
    (named.folder / "twice.py").write_text("@transformer\ndef twice(df):\n    return df.assign(ID=1)\n")
    named.document["transformers"] = [{"file": "twice.py"}]
    result = named.run()
    assert result.status == "failure"
    assert "'Id' and 'ID'" in str(result.streams["Orders"].error)


def test_a_changed_naming_needs_a_full_refresh(named: Bench) -> None:
    named.document["streams"] = [{"stream": "Orders", "destination_table": "orders"}]
    assert named.run().status == "success"
    for naming in ("keep", "mage"):
        named.document["destination"]["naming"] = naming
        with pytest.raises(PipelineFailed, match="was written with `naming: snake_case`, now it is"):
            named.run().raise_for_status()
    assert named.run(full_refresh=True).status == "success"
    assert named.rows("orders")[0] == {"id": 1, "unit_price": 2}
    assert named.run().status == "success"


def test_a_database_merges_and_verifies_under_its_names(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection, connection:
        connection.execute('create table "Order Details" ("OrderID" integer primary key, "Unit Price" real)')
        connection.executemany('insert into "Order Details" values (?, ?)', [(1, 2.5), (2, 3.5)])
    document = {
        "source": {"connector": "sqlite", "config": {"path": "a.db"}},
        "destination": {"connector": "duckdb", "config": {"path": "b.duckdb"}, "naming": "snake_case"},
        "streams": [{"stream": "*", "replication_method": "INCREMENTAL", "bookmark_properties": ["OrderID"]}],
    }
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(document))
    for _ in range(2):
        result = run_pipeline(path).raise_for_status()
    assert result.streams["Order Details"].destination_table == "order_details"
    assert [each.verdict for each in verify(path)] == ["equal"]


def test_a_table_that_is_the_same_in_other_letters_keeps_its_naming(tmp_path: Path) -> None:
    (tmp_path / "Orders.csv").write_text("Id,Unit Price\n1,2.5\n")
    document: dict[str, Any] = {
        "pipeline": "orders",
        "source": {"connector": "csv", "config": {"path": "Orders.csv"}},
        "destination": {"connector": "duckdb", "config": {"path": "b.duckdb"}},
        "streams": [{"stream": "Orders", "write_disposition": "merge", "key_properties": ["Id"]}],
    }
    run_pipeline(load_pipeline(document, folder=tmp_path)).raise_for_status()
    kept, document["destination"] = document["destination"], {**document["destination"], "naming": "mage"}
    renamed = load_pipeline(document, folder=tmp_path)
    with pytest.raises(PipelineFailed, match="table 'orders' was written with `naming: keep`, now it is `mage`"):
        run_pipeline(renamed).raise_for_status()
    for more in ({"full_refresh": True}, {}):
        run_pipeline(renamed, **more).raise_for_status()
    with pytest.raises(PipelineFailed, match="table 'Orders' was written with `naming: mage`, now it is `keep`"):
        run_pipeline(load_pipeline({**document, "destination": kept}, folder=tmp_path)).raise_for_status()
    with closing(duckdb.connect(tmp_path / "b.duckdb")) as database:
        assert database.execute("describe orders").fetchall()[1][0] == "unit_price"
