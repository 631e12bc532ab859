"""Rejected records are set aside beside the good ones, in the same commit, and counted everywhere."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from syncblocks import RunResult
from syncblocks.sync.errors import ConfigError
from tests.conftest import RunCLI
from tests.connectors.singer.singer_targets import make_target
from tests.sync.cli.cli_pipelines import write_shop
from tests.sync.pipelines import Bench, statuses
from tests.sync.run.targets import DESTINATIONS, Target, open_target

KEEP = {"stream": "a", "on_rejected": "keep"}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.document["streams"] = [KEEP]
    made.record(on=["stream", "load"])
    return made


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    with open_target(request.param, tmp_path) as opened:
        yield opened


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("target", DESTINATIONS, indirect=True)
@pytest.mark.parametrize("disposition", ["replace", "merge"])
def test_a_null_key_is_set_aside(bench: Bench, target: Target, disposition: str) -> None:
    bench.document["destination"] = target.document
    bench.document["streams"] = [{**KEEP, "key_properties": ["id"], "write_disposition": disposition}]
    bench.seed("a", [{"id": 1, "v": "x"}, {"id": None, "v": "y"}, {"id": 3, "v": None}], key=())
    result = bench.run()
    assert statuses(result) == {"a": "success"}
    assert target.query("select id, v from a order by id") == [(1, "x"), (3, None)]
    assert target.rejected() == [({"id": None, "v": "y"}, "column 'id': NULL in the key")]
    ((pipeline, stream, table, place),) = target.query(
        "select pipeline, stream, destination_table, place from _syncblocks_rejected"
    )
    assert (pipeline, stream, table, place) == ("bench", "a", "a", "")
    assert result.streams[0].records == 2
    assert result.streams[0].records_rejected == 1
    assert [(call["parent_block_uuid"], call["rows"], call["rows_rejected"]) for call in bench.calls()] == [
        ("load", 3, 0),
        ("export", 2, 1),
    ]


@pytest.mark.full
@pytest.mark.parametrize("target", ["postgres"], indirect=True)
@pytest.mark.parametrize("disposition", ["replace", "merge", "append"])
def test_what_the_database_refuses_is_found_among_many(bench: Bench, target: Target, disposition: str) -> None:
    bench.document["destination"] = target.document
    bench.document["streams"] = [{**KEEP, "key_properties": ["id"], "write_disposition": disposition}]
    names = [f"name {number}" for number in range(5000)]
    names[17], names[4711] = "\0", "a\0b"
    bench.seed("a", [{"id": number, "v": name} for number, name in enumerate(names)])
    bench.document["source"]["config"]["batch_size"] = 2000
    bench.record_frames("stream")
    assert statuses(bench.run()) == {"a": "success"}
    assert target.query("select count(*), sum(id) from a") == [(4998, sum(range(5000)) - 17 - 4711)]
    assert [record for record, _ in target.rejected()] == [{"id": 17, "v": "\0"}, {"id": 4711, "v": "a\0b"}]
    assert all("0x00" in reason for _, reason in target.rejected())
    ((_, ids, rows),) = bench.calls("frames")
    assert (ids, rows) == ([number for number in range(5000) if number not in (17, 4711)], 4998)


@pytest.mark.full
@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("target", DESTINATIONS, indirect=True)
@pytest.mark.parametrize("disposition", ["replace", "merge"])
def test_callbacks_get_what_was_written(bench: Bench, target: Target, disposition: str) -> None:
    """Without the record that the destination itself rejected, whatever it makes of its values."""
    bench.document["destination"] = target.document
    bench.document["streams"] = [{**KEEP, "key_properties": ["id"], "write_disposition": disposition}]
    bench.record_frames("load", "export", "stream")
    values = {"n": Decimal("1.50"), "at": datetime(2024, 1, 2, 3, 4, 5, 6, UTC), "is": True, "x": 0.1}
    key = {"replace": 1, "merge": None}[disposition]
    bench.seed("a", [{"id": 1, "v": "x"} | values, {"id": key, "v": "y"} | values, {"id": 3, "v": "x"} | values], ())
    assert statuses(bench.run()) == {"a": "success"}
    assert target.query("select count(*) from a") == [(2,)]
    frames = {block: (ids, rows) for block, ids, rows in bench.calls("frames")}
    assert frames == {"load": ([1, key, 3], 3), "export": ([1, 3], 2)}
    assert len(bench.calls("frames")) == 3


@pytest.mark.one_of
@pytest.mark.parametrize("connector", ["memory", "csv", "parquet"])
def test_callbacks_get_what_other_destinations_wrote(bench: Bench, connector: str) -> None:
    config = bench.document["destination"]["config"] if connector == "memory" else {"path": "out"}
    bench.document["destination"] = {"block": "export", "connector": connector, "config": config}
    bench.document["streams"] = [{**KEEP, "key_properties": ["id"]}]
    bench.record_frames("stream")
    bench.seed("a", [{"id": 1, "v": "x"}, {"id": None, "v": "x"}, {"id": 3, "v": "y"}], ())
    bench.document["source"]["config"]["batch_size"] = 2
    bench.run()
    assert bench.calls("frames") == [["export", [1, 3], 2]]


@pytest.mark.one_of("target")
@pytest.mark.parametrize("target", DESTINATIONS, indirect=True)
def test_too_many_fail_the_stream_and_nothing_is_kept(bench: Bench, target: Target) -> None:
    bench.document["destination"] = target.document
    bench.document["streams"] = [{**KEEP, "key_properties": ["id"], "max_rejected": 1}]
    bench.seed("a", [{"id": None, "v": "x"}, {"id": None, "v": "y"}, {"id": 3, "v": None}], key=())
    result = bench.run()
    assert statuses(result) == {"a": "failure"}
    assert "more than 1 rejected records (`max_rejected`)" in (result.streams[0].error or "")
    assert "NULL in the key" in (result.streams[0].error or "")
    assert target.rejected() == []
    bench.document["streams"][0]["max_rejected"] = 2
    assert statuses(bench.run()) == {"a": "success"}


@pytest.mark.thinned(1)
@pytest.mark.parametrize("target", DESTINATIONS, indirect=True)
@pytest.mark.parametrize("disposition", ["replace", "merge"])
def test_without_it_a_null_key_fails_the_stream_with_the_ways_out(
    bench: Bench, target: Target, disposition: str
) -> None:
    bench.document["destination"] = target.document
    bench.document["streams"] = [{"stream": "a", "key_properties": ["v", "id"], "write_disposition": disposition}]
    bench.seed("a", [{"id": 1, "v": "x"}, {"id": None, "v": "y"}], key=())
    result = bench.run()
    assert statuses(result) == {"a": "failure"}
    error = result.streams[0].error or ""
    assert "streams[0].key_properties: column 'id' of the key is NULL in a record" in error
    for way_out in ("key_properties", "where: {id: {is_null: false}}", "on_rejected: keep", "append"):
        assert f"`{way_out}`" in error or f": {way_out}`" in error


def test_without_it_a_bad_record_fails_the_stream(bench: Bench) -> None:
    bench.document["streams"] = [{"stream": "a", "key_properties": ["id"], "write_disposition": "merge"}]
    bench.seed("a", [{"id": None, "v": "x"}], key=())
    assert statuses(bench.run()) == {"a": "failure"}
    assert bench.destination.rejected == []


def test_a_destination_without_a_place_for_them_is_refused(bench: Bench) -> None:
    config = {"executable": str(make_target(bench.folder)), "config": {"out": "out.jsonl"}}
    bench.document["destination"] = {"block": "export", "connector": "singer", "config": config}
    bench.seed("a", 1)
    with pytest.raises(ConfigError, match="`on_rejected: keep` needs a destination that keeps rejected records"):
        bench.run()


@pytest.mark.parametrize("connector", ["csv", "jsonl", "parquet"])
def test_files_keep_bad_records_in_a_folder_beside_the_table(bench: Bench, connector: str) -> None:
    bench.document["destination"] = {"block": "export", "connector": connector, "config": {"path": "out"}}
    result = from_files(bench, "csv", CSV, types={"n": "int64"})
    assert statuses(result) == {"a": "success"}
    assert (result.streams[0].records, result.streams[0].records_rejected) == (2, 4)
    found = duckdb.sql(f"select record, place, pipeline from '{bench.folder}/out/_syncblocks_rejected/a/*.{connector}'")
    rows = sorted(found.fetchall(), key=lambda row: row[1])
    assert [(Path(place).name, pipeline) for _, place, pipeline in rows] == [
        (f"a.csv:{line}", "bench") for line in (3, 5, 6, 9)
    ]
    assert str(rows[1][0]).strip('"') == "3,30"


# Out of files


CSV = """id,n,name
1,10,a
2,ten,"b
c"
3,30
4,40,d,e

5,50,f
6,6.5,g
"""


def from_files(bench: Bench, connector: str, text: str, **config: Any) -> RunResult:
    (bench.folder / f"a.{connector}").write_text(text, encoding="utf-8")
    bench.document["source"] = {
        "block": "load",
        "connector": connector,
        "config": {"path": f"a.{connector}", **config},
    }
    return bench.run()


@pytest.mark.parametrize("batch_size", [1, 1000])
def test_lines_of_a_csv_file_that_are_no_records(bench: Bench, batch_size: int) -> None:
    result = from_files(bench, "csv", CSV, types={"n": "int64"}, batch_size=batch_size)
    assert statuses(result) == {"a": "success"}
    assert [(row["id"], row["n"]) for row in bench.rows("a")] == [(1, 10), (5, 50)]
    assert [
        (json.loads(each.record), each.reason, Path(each.place).name) for _, _, each in bench.destination.rejected
    ] == [
        ({"id": "2", "n": "ten", "name": "b\nc"}, "column 'n': 'ten' is no int64", "a.csv:3"),
        ("3,30", "2 fields for 3 columns", "a.csv:5"),
        ("4,40,d,e", "4 fields for 3 columns", "a.csv:6"),
        ({"id": "6", "n": "6.5", "name": "g"}, "column 'n': '6.5' is no int64", "a.csv:9"),
    ]
    assert [(call["parent_block_uuid"], call["rows"], call["rows_rejected"]) for call in bench.calls()] == [
        ("load", 2, 4),
        ("export", 2, 4),
    ]


def test_lines_that_are_no_json_objects(bench: Bench) -> None:
    lines = [
        '{"id": 1, "n": 10}',
        '{"id": 2, "n": "ten"}',
        "{oops",
        "[1]",
        '{"id": 5, "n": 50, "new": [1]}',
        '{"id": 6}',
    ]
    result = from_files(bench, "jsonl", "\n".join(lines), types={"n": "int64"})
    assert statuses(result) == {"a": "success"}
    assert [(row["id"], row["n"]) for row in bench.rows("a")] == [(1, 10), (5, 50), (6, None)]
    found = [(json.loads(each.record), Path(each.place).name) for _, _, each in bench.destination.rejected]
    assert sorted(found, key=lambda each: each[1]) == [
        ({"id": 2, "n": "ten"}, "a.jsonl:2"),
        ("{oops", "a.jsonl:3"),
        ("[1]", "a.jsonl:4"),
    ]
    reasons = {Path(each.place).name: each.reason for _, _, each in bench.destination.rejected}
    assert reasons["a.jsonl:2"].startswith("column 'n': '\"ten\"' is no int64")


@pytest.mark.parametrize(("connector", "text"), [("csv", CSV), ("jsonl", '{"n": 1}\n{\n{"n": 2}\n')])
def test_too_many_bad_lines_fail_the_stream(bench: Bench, connector: str, text: str) -> None:
    bench.document["streams"] = [{**KEEP, "max_rejected": 0}]
    result = from_files(bench, connector, text, types={"n": "int64"})
    assert statuses(result) == {"a": "failure"}
    assert "more than 0 rejected records" in (result.streams[0].error or "")
    assert "a" not in bench.destination.tables
    bench.document["streams"] = [{"stream": "a"}]
    result = from_files(bench, connector, text, types={"n": "int64"})
    assert statuses(result) == {"a": "failure"}
    assert f"a.{connector}:" in (result.streams[0].error or "")


def test_bad_lines_of_an_incremental_read_come_before_its_checkpoint(bench: Bench) -> None:
    bench.document["streams"] = [
        {**KEEP, "replication_method": "INCREMENTAL", "bookmark_properties": ["id"], "key_properties": ["id"]}
    ]
    from_files(bench, "csv", CSV, types={"n": "int64"})
    assert len(bench.destination.rejected) == 4
    result = from_files(bench, "csv", CSV + "7,70,h\n", types={"n": "int64"})
    assert [row["id"] for row in bench.rows("a")] == [1, 5, 7]
    assert result.streams[0].records == 1


@pytest.mark.one_of("target")
@pytest.mark.parametrize("target", DESTINATIONS, indirect=True)
def test_a_bad_record_past_the_bookmark_is_set_aside_once(bench: Bench, target: Target) -> None:
    """The bookmark does not move to it, so each run reads it again."""
    with closing(sqlite3.connect(bench.folder / "s.db")) as connection, connection:
        connection.execute("create table a (id integer primary key, n integer)")
        connection.execute("insert into a values (1, 10), (2, 'x'), (3, 'x')")
    bench.document["source"] = {"block": "load", "connector": "sqlite", "config": {"path": "s.db"}}
    bench.document["destination"] = target.document
    bench.document["streams"] = [{**KEEP, "replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}]
    counts = [bench.run().streams[0].records_rejected for _ in range(2)]
    assert counts == [2, 0]
    assert [record["id"] for record, _ in target.rejected()] == ["2", "3"]


def test_values_that_only_their_own_system_has(bench: Bench, postgres_url: str) -> None:
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("create table a (id int primary key, at timestamptz, n numeric(5, 1))")
        connection.execute(
            "insert into a select g, case g when 7 then 'infinity' else now() end, "
            "case g when 70 then 'NaN'::numeric else 1 end from generate_series(1, 100) g"
        )
    bench.document["source"] = {"block": "load", "connector": "postgres", "config": {"url": postgres_url}}
    for settings in ({}, {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}):
        bench.document["streams"] = [{**KEEP, "stream": "public.a", **settings}]
        bench.destination.rejected.clear()
        result = bench.run(full_refresh=True)
        assert statuses(result) == {"public.a": "success"}
        assert [row["id"] for row in bench.rows("a")] == [g for g in range(1, 101) if g not in (7, 70)]
        found = [each for _, _, each in bench.destination.rejected]
        assert [json.loads(each.record)["id"] for each in found] == [7, 70]
        assert ["'at' contains" in found[0].reason, "'n' contains NaN" in found[1].reason] == [True, True]


def test_a_bookmark_that_only_its_own_system_has_is_not_the_newest(bench: Bench, postgres_url: str) -> None:
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("create table a (id int primary key, at timestamptz)")
        connection.execute("insert into a values (1, now()), (2, 'infinity'), (3, 'infinity')")
        config = {"url": postgres_url, "settle_s": 0}
        bench.document["source"] = {"block": "load", "connector": "postgres", "config": config}
        bench.document["streams"] = [
            {**KEEP, "stream": "public.a", "replication_method": "INCREMENTAL", "bookmark_properties": ["at"]}
        ]
        with psycopg.connect(postgres_url) as writer:  # the newest is looked up while somebody writes
            writer.execute("insert into a values (4, now())")
            assert statuses(bench.run()) == {"public.a": "success"}
    bench.run()
    assert [row["id"] for row in bench.rows("a")] == [1, 4]
    assert [json.loads(each.record)["id"] for _, _, each in bench.destination.rejected] == [2, 3]


def test_the_command_line_shows_how_many(run_cli: RunCLI, tmp_path: Path) -> None:
    text = "on_rejected: keep, "
    file = write_shop(tmp_path, files={"data/customers.csv": "id,name\n1,Ada\n2\n3,Grace\n"})
    file.write_text(file.read_text().replace("{stream: customers, ", "{stream: customers, " + text))
    done = run_cli(["run"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 records" not in done.stdout
    assert "5 records, 1 rejected" in done.stdout
    assert "customers: rejected records: 1, kept in _syncblocks_rejected beside customers" in done.stderr
    assert "rejected" in run_cli(["runs", "show"], tmp_path).stdout
    shown = json.loads(run_cli(["runs", "show", "--json"], tmp_path).stdout)
    assert {run["uuid"]: run["rows_rejected"] for run in shown["block_runs"]} == {
        "load:customers": 1,
        "export:customers": 1,
        "load:orders": 0,
        "export:orders": 0,
    }
    with closing(duckdb.connect(str(tmp_path / "warehouse.duckdb"))) as connection:
        ((record, place),) = connection.execute("select record, place from _syncblocks_rejected").fetchall()
    assert (json.loads(record), Path(place).name) == ("2", "customers.csv:3")


def test_values_of_sqlite_that_are_not_of_their_column(bench: Bench) -> None:
    with closing(sqlite3.connect(bench.folder / "source.db")) as connection:
        connection.execute("create table a (id integer primary key, n integer, at timestamp, s text, d date not null)")
        connection.executemany(
            "insert into a values (?, ?, ?, ?, ?)",
            [
                (1, 1, "2024-01-01 00:00:00", "x", "2024-01-01"),
                (2, "ten", "2024-01-01 00:00:00", b"\xff", "2024-01-01"),
                (3, 3, "yesterday", "x", "2024-01-01"),
                (4, None, None, None, "2024-01-01"),
                (5, 5, "2024-01-01 00:00:00", "x", "2024-13-01"),
                (6, 6, "2024-01-01 00:00:00", "y", "2024-01-02"),
            ],
        )
        connection.commit()
    bench.document["source"] = {"block": "load", "connector": "sqlite", "config": {"path": "source.db"}}
    incremental = {"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
    for settings in ({}, incremental):
        bench.document["streams"] = [{**KEEP, **settings}]
        bench.destination.rejected.clear()
        assert statuses(bench.run(full_refresh=True)) == {"a": "success"}
        assert [row["id"] for row in bench.rows("a")] == [1, 4, 6]
        found = sorted(((json.loads(e.record), e.reason) for _, _, e in bench.destination.rejected), key=str)
        records = sorted(int(record["id"]) for record, _ in found)
        assert records == [2, 3, 5]
        reasons = " ".join(reason for _, reason in found)
        for part in ("'n': 'ten' does not fit int64", "'s': X'FF' does not fit string", "'at'", "'d'"):
            assert part in reasons
    bench.document["streams"] = [{"stream": "a", **incremental}]
    assert statuses(bench.run(full_refresh=True)) == {"a": "failure"}


def test_two_keys_that_the_table_takes_for_one_fail_the_stream_and_reject_neither(bench: Bench) -> None:
    """Neither record is at fault, but the key's type: whichever was set aside would be missing by chance."""
    path = bench.folder / "x.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table a (id text collate nocase primary key, v text)")
    bench.document["destination"] = {"connector": "sqlite", "config": {"path": "x.db"}}
    bench.document["streams"] = [{**KEEP, "key_properties": ["id"], "write_disposition": "merge"}]
    bench.seed("a", [{"id": "a", "v": "1"}, {"id": "z", "v": "2"}, {"id": "A", "v": "3"}])
    (stream,) = bench.run().streams
    assert stream.status == "failure"
    assert "a treats the keys 'A' and 'a' (column 'id') as equal" in str(stream.error)
    assert "distinguishes them" in str(stream.error)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select * from a").fetchall() == []
