"""Two names of one table: streams must not replace each other's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from syncblocks import run_pipeline
from syncblocks.sync.errors import ConfigError
from tests.sync.pipelines import Bench
from tests.sync.pipelines import bench as bench


def file(folder: Path, url: str, destination: dict[str, Any], *streams: dict[str, Any]) -> Path:
    document = {
        "pipeline": "twice",
        "source": {"connector": "postgres", "config": {"url": url}},
        "destination": destination,
        "streams": list(streams),
    }
    path = folder / "twice.yaml"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.fixture
def source_url(postgres_url: str) -> str:
    with psycopg.connect(postgres_url) as connection:
        connection.execute('create table "Id" (a int); create table "ID" (a int); insert into "Id" values (1)')
        connection.execute("create schema out; create table other (a int)")
    return postgres_url


@pytest.mark.parametrize("connector", ["sqlite", "duckdb"])
def test_names_that_differ_in_case_are_one_table_where_case_counts_nothing(
    tmp_path: Path, source_url: str, connector: str
) -> None:
    destination = {"connector": connector, "config": {"path": "out.db"}}
    with pytest.raises(ConfigError, match="one table to this destination") as caught:
        run_pipeline(file(tmp_path, source_url, destination, {"stream": "public.I*"}))
    for part in ("'Id'", "'ID'", "'public.Id'", "'public.ID'", "destination_table"):
        assert part in str(caught.value)
    assert not (tmp_path / "out.db").exists()
    told_apart = [{"stream": "public.Id"}, {"stream": "public.ID", "destination_table": "ID2"}]
    assert run_pipeline(file(tmp_path, source_url, destination, *told_apart)).status == "success"


@pytest.mark.full
def test_a_table_with_and_without_its_schema_is_one(tmp_path: Path, source_url: str) -> None:
    destination = {"connector": "postgres", "config": {"url": source_url, "schema": "out"}}
    streams = [
        {"stream": "public.Id", "destination_table": "t"},
        {"stream": "public.other", "destination_table": "out.t"},
    ]
    with pytest.raises(ConfigError, match="one table to this destination"):
        run_pipeline(file(tmp_path, source_url, destination, *streams))
    apart = [{"stream": "public.Id"}, {"stream": "public.ID"}]
    assert run_pipeline(file(tmp_path, source_url, destination, *apart)).status == "success"
    with psycopg.connect(source_url) as connection:
        assert connection.execute(
            'select (select count(*) from out."Id"), (select count(*) from out."ID")'
        ).fetchall() == [(1, 0)]


def test_shortened_names_stay_apart_and_are_one_with_themselves(tmp_path: Path, source_url: str) -> None:
    destination = {"connector": "postgres", "config": {"url": source_url, "schema": "out"}}
    first, second = "t" * 69 + "1", "t" * 69 + "2"
    streams = [
        {"stream": "public.Id", "destination_table": first},
        {"stream": "public.ID", "destination_table": second},
    ]
    assert run_pipeline(file(tmp_path, source_url, destination, *streams)).status == "success"
    with psycopg.connect(source_url) as connection:
        names = connection.execute("select tablename from pg_tables where schemaname = 'out' and tablename like 'tt%'")
        assert len({name[:46] for (name,) in names.fetchall()}) == 1, "both begin as they were named, and end in a hash"
    streams[1]["destination_table"] = first
    with pytest.raises(ConfigError, match="is written by"):
        run_pipeline(file(tmp_path, source_url, destination, *streams))


SHARED = {
    "stream": "*",
    "destination_table": "both",
    "replication_method": "INCREMENTAL",
    "bookmark_properties": ["id"],
    "write_disposition": "append",
}


@pytest.mark.parametrize("disposition", ["append", "merge"])
def test_a_full_refresh_does_not_replace_what_other_streams_wrote(bench: Bench, disposition: str) -> None:
    bench.document["streams"] = [{**SHARED, "write_disposition": disposition}]
    bench.seed("a", [{"id": 1, "v": "of a"}])
    bench.seed("b", [{"id": 2, "v": "of b"}])
    bench.run()
    for streams in (None, ["a"]):
        with pytest.raises(ConfigError, match="full-refresh") as caught:
            bench.run(full_refresh=True, streams=streams)
        assert "drop the table" in str(caught.value)
    assert [row["id"] for row in bench.rows("both")] == [1, 2]


def test_a_full_refresh_of_one_table_for_two_streams_is_refused_before_its_first_run(bench: Bench) -> None:
    bench.document["streams"] = [SHARED]
    bench.seed("a", 1)
    bench.seed("b", 1)
    with pytest.raises(ConfigError, match="full-refresh"):
        bench.run(full_refresh=True)


def test_streams_of_a_dropped_table_all_start_over_also_one_by_one(bench: Bench) -> None:
    bench.document["streams"] = [SHARED]
    bench.seed("a", [{"id": 1, "v": "of a"}])
    bench.seed("b", [{"id": 2, "v": "of b"}])
    bench.run()
    del bench.destination.tables["both"]
    bench.run(streams=["a"])
    assert [row["id"] for row in bench.rows("both")] == [1]
    bench.run()
    assert [row["id"] for row in bench.rows("both")] == [1, 2]


def test_a_stream_that_fails_after_its_table_was_dropped_starts_over_later(bench: Bench) -> None:
    bench.document["streams"] = [SHARED]
    bench.seed("a", [{"id": 1, "v": "of a"}])
    bench.seed("b", [{"id": 2, "v": "of b"}])
    bench.run()
    del bench.destination.tables["both"]
    settings = bench.document["source"]["config"]
    bench.document["source"]["config"] = {**settings, "fail_at": {"b": 1}}
    assert bench.run().status == "failure"
    bench.document["source"]["config"] = settings
    bench.run()
    assert [row["id"] for row in bench.rows("both")] == [1, 2]
