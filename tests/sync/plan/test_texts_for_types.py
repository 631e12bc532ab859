"""Columns of PostgreSQL that get texts from now on: `plan` says what they become, and the values arrive as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from syncblocks import RunResult, run_pipeline
from syncblocks.connectors.field_facts import is_unseen
from syncblocks.connectors.files.csv_source import CSVSource
from tests.conftest import RunCLI

UPPER = "123E4567-E89B-12D3-A456-426614174000"


class Bench:
    """A table `s.items` that is merged into `d.items` of the same database, and compared after each run."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.stream: dict[str, Any] = {"stream": "s.items", "destination_table": "d.items", "verify": True}
        self.stream |= {"write_disposition": "merge", "key_properties": ["id"]}
        self.source: dict[str, Any] = {"connector": "postgres", "config": {"url": url}}
        self.sql("create schema s; create schema d")

    def sql(self, statements: str) -> list[Any]:
        with psycopg.connect(self.url) as connection:
            cursor = connection.execute(statements.encode())
            return cursor.fetchall() if cursor.description else []

    def file(self) -> Path:
        document = {
            "pipeline": "items",
            "source": self.source,
            "destination": {"connector": "postgres", "config": {"url": self.url}},
            "streams": [self.stream],
        }
        file = self.folder / "items.yaml"
        file.write_text(yaml.safe_dump(document), encoding="utf-8")
        return file

    def run(self) -> RunResult:
        return run_pipeline(self.file())

    def succeeds(self) -> None:
        result = self.run()
        assert (result.status, result.streams[0].error) == ("success", None)

    def column(self) -> str:
        sql = (
            "select format_type(atttypid, atttypmod) from pg_attribute "
            "where attrelid = 'd.items'::regclass and attname = 'v'"
        )
        return str(self.sql(sql)[0][0])


@pytest.fixture
def bench(tmp_path: Path, postgres_url: str) -> Bench:
    return Bench(tmp_path, postgres_url)


CHANGES = [
    ("uuid", "text", UPPER.lower(), UPPER, "text"),
    ("jsonb", "text", '{"a": 1}', '{"b":1,  "b":2}', "text"),
    ("varchar(3)", "char(5)", "x", "y", "character varying(5)"),
]


@pytest.mark.one_of
@pytest.mark.parametrize(("held", "now", "first", "second", "made"), CHANGES)
def test_values_arrive_as_they_are(
    bench: Bench, run_cli: RunCLI, held: str, now: str, first: str, second: str, made: str
) -> None:
    bench.sql(f"create table s.items (id int primary key, v {held}); insert into s.items values (1, '{first}')")
    bench.succeeds()
    bench.sql(f"alter table s.items alter v type {now}; insert into s.items values (2, '{second}')")
    shown = json.loads(run_cli(["plan", bench.file(), "--json"], bench.folder).stdout)["streams"][0]
    assert f"v: {bench.column()} becomes {made}" in shown["changes"]
    bench.succeeds()
    assert bench.column() == made
    # Nothing is cast: that would drop the blanks of a `character`.
    sizes = "select id, octet_length(v), md5(rtrim(v)) from {}.items"
    assert bench.sql(f"{sizes.format('s')} except {sizes.format('d')}") == []
    bench.succeeds()


def test_a_column_without_any_value_leaves_the_tables_type(bench: Bench) -> None:
    """JSON lines have no types: what is null in every record could be anything."""
    file = bench.folder / "items.jsonl"
    bench.source = {"connector": "jsonl", "config": {"path": str(file)}}
    bench.stream["stream"] = "items"
    file.write_text('{"id": 1, "v": {"a": 1}, "n": 5}\n')
    bench.succeeds()
    bench.sql("alter table d.items alter v type jsonb using v::jsonb")
    file.write_text('{"id": 2, "v": null, "n": null}\n')
    bench.succeeds()
    assert bench.column() == "jsonb"
    assert bench.sql("select id, v, n from d.items order by id") == [(1, {"a": 1}, 5), (2, None, None)]


def test_a_csv_column_that_is_empty_today_is_of_the_type_it_was(bench: Bench) -> None:
    file = bench.folder / "items.csv"
    bench.source = {"connector": "csv", "config": {"path": str(file)}}
    bench.stream |= {"stream": "items", "key_properties": ["id"], "on_schema_change": "freeze"}
    file.write_text("id,n,d\n1,5,2020-01-01\n2,6,2020-01-02\n")
    bench.succeeds()
    file.write_text("id,n,d\n1,,\n3,,\n")
    bench.succeeds()
    file.write_text("id,n,d\n4,7,2020-01-04\n")
    bench.succeeds()
    found = bench.sql("select id, n, d::text from d.items order by id")
    assert found == [(1, None, None), (2, 6, "2020-01-02"), (3, None, None), (4, 7, "2020-01-04")]


def test_a_csv_column_of_empty_texts_is_of_texts_and_a_declared_one_of_its_type(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text('a,b,c\n,"",\n,,\n')
    source = CSVSource({"path": "items.csv", "types": {"c": "int64"}}, tmp_path)
    (stream,) = source.discover()
    assert [(field.type, is_unseen(field)) for field in stream.schema] == [
        (pa.string(), True),
        (pa.string(), False),
        (pa.int64(), False),
    ]


def test_a_key_of_filled_up_texts_still_finds_its_records(bench: Bench) -> None:
    bench.sql("create table s.items (id varchar(3) primary key, v int); insert into s.items values ('x', 1)")
    del bench.stream["verify"]
    bench.succeeds()
    bench.sql("alter table s.items alter id type char(5); update s.items set v = 2")
    bench.succeeds()
    assert bench.sql("select id, v from d.items") == [("x", 2)]


def test_blanks_stay_in_a_table_that_is_only_refilled(bench: Bench) -> None:
    bench.stream["write_disposition"] = "replace"
    bench.sql("create table s.items (id int primary key, v varchar(3)); insert into s.items values (1, 'x')")
    bench.succeeds()
    bench.sql("create index items_v on d.items (v); alter table s.items alter v type char(5)")
    bench.succeeds()
    assert bench.sql("select octet_length(v) from d.items") == [(5,)]
    assert bench.column() == "character varying(5)"


def test_a_file_that_such_a_column_is_written_to_knows_it_as_text(bench: Bench) -> None:
    """What is not known of lines must not stay unknown for ever."""
    (bench.folder / "items.jsonl").write_text('{"id": 1, "v": null}\n')
    document = {
        "source": {"connector": "jsonl", "config": {"path": "items.jsonl"}},
        "destination": {"connector": "parquet", "config": {"path": "out"}},
        "streams": [{"stream": "items"}],
    }
    (bench.folder / "p.yaml").write_text(yaml.safe_dump(document))
    assert run_pipeline(bench.folder / "p.yaml").status == "success"
    (file,) = (bench.folder / "out").rglob("*.parquet")
    field = pq.read_schema(file).field("v")
    assert (field.type, is_unseen(field)) == (pa.string(), False)
