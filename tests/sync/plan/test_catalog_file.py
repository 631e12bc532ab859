"""The catalog file: written by `discover --save`, read where the pipeline says so, and held against what is found."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from syncblocks import discover, load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from tests.conftest import RunCLI


class Bench:
    """A file `people` that goes to DuckDB."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.document: dict[str, Any] = {
            "source": {"connector": "csv", "config": {"path": "in"}},
            "destination": {"connector": "duckdb", "config": {"path": "out.duckdb"}},
            "streams": [{"stream": "*"}],
        }
        (folder / "in").mkdir()
        (folder / "in" / "people.csv").write_text("id,zip,total,empty\n1,70173,1.5,\n2,10115,2,\n")

    def file(self, **keys: Any) -> Path:
        self.document |= keys
        file = self.folder / "shop.yaml"
        file.write_text(yaml.safe_dump(self.document), encoding="utf-8")
        return file

    @property
    def catalog(self) -> Path:
        return self.folder / "shop.catalog.yaml"

    def types(self) -> dict[str, str]:
        with duckdb.connect(str(self.folder / "out.duckdb"), read_only=True) as connection:
            sql = "select column_name, data_type from duckdb_columns() where table_name = 'people'"
            return dict(connection.execute(sql).fetchall())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.full
def test_it_is_written_edited_read_and_compared(bench: Bench, run_cli: RunCLI) -> None:
    done = run_cli(["discover", bench.file(), "--save"], bench.folder)
    assert done.returncode == 0, done.stderr
    assert "catalog: shop.catalog.yaml" in done.stdout
    written = yaml.safe_load(bench.catalog.read_text())
    assert written == {
        "streams": {"people": {"columns": {"id": "int64", "zip": "int64", "total": "double", "empty": None}}}
    }
    people = written["streams"]["people"]
    people["key_properties"] = ["id"]
    people["columns"] |= {"zip": "string", "total": "decimal(18,2)", "gone": "date"}
    bench.catalog.write_text(yaml.safe_dump(written))
    assert run_pipeline(bench.file()).status == "success"
    assert bench.types()["zip"] == "BIGINT", "no pipeline file names it yet"
    bench.document["streams"] = [{"stream": "people", "write_disposition": "merge", "types": {"total": "string"}}]
    file = bench.file(catalog="shop.catalog.yaml")
    assert run_pipeline(file, full_refresh=True).status == "success"
    assert bench.types() == {"id": "BIGINT", "zip": "VARCHAR", "total": "VARCHAR", "empty": "VARCHAR"}
    document = json.loads(run_cli(["plan", file, "--json"], bench.folder).stdout)
    assert document["streams"][0]["key_properties"] == ["id"]
    for difference in (
        "'zip' is string, found is int64",
        "'total' is decimal(18,2), found is double",
        "'gone' is gone",
        "keys are (id), found are ()",
    ):
        assert any(difference in warning for warning in document["warnings"]), (difference, document["warnings"])
    (bench.folder / "in" / "more.csv").write_text("id,x\n1,2\n")
    bench.document["streams"] = [{"stream": "*"}]
    warnings = json.loads(run_cli(["plan", bench.file(), "--json"], bench.folder).stdout)["warnings"]
    assert any("more: shop.catalog.yaml does not have the stream" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (None, "discover --save"),
        ("streams: {people: {columns: {zip: strin}}}", "no type 'strin'"),
        ("streams: {people: {column: {}}}", "unknown key 'column'"),
        ("tables: {}", "unknown key 'tables'"),
        ("streams: [people]", "must be a mapping"),
        ("streams: {people: {key_properties: id}}", "must be a list"),
    ],
)
def test_mistakes_have_file_and_line(bench: Bench, text: str | None, part: str) -> None:
    if text is not None:
        bench.catalog.write_text(text)
    with pytest.raises(ConfigError) as raised:
        run_pipeline(bench.file(catalog="shop.catalog.yaml"))
    assert part in raised.value.message
    assert str(raised.value.path).endswith("shop.yaml" if text is None else "shop.catalog.yaml")
    assert raised.value.line is not None


def test_types_of_a_database_stay_its_own(bench: Bench, run_cli: RunCLI) -> None:
    with closing(sqlite3.connect(bench.folder / "in.db")) as lite, lite:
        lite.execute("create table people (id integer primary key, at timestamp, doc json, n decimal(9,2), b blob)")
    bench.document["source"] = {"connector": "sqlite", "config": {"path": "in.db"}}
    assert run_cli(["discover", bench.file(), "--save"], bench.folder).returncode == 0
    (stream,) = discover(load_pipeline(bench.file(catalog="shop.catalog.yaml")))
    assert yaml.safe_load(bench.catalog.read_text())["streams"]["people"]["key_properties"] == ["id"]
    document = json.loads(run_cli(["plan", bench.file(), "--json"], bench.folder).stdout)
    assert not document["warnings"]
    assert [column["type"] for column in document["streams"][0]["fidelity"]] == [
        (field.metadata or {})[b"native_type"].decode() for field in stream.schema
    ]
