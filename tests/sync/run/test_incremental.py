"""INCREMENTAL as the pipeline file orders it: what lacks a bookmark, and what comes late."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest

from syncblocks.sync.errors import ConfigError
from tests.conftest import RunCLI
from tests.sync.pipelines import Bench, statuses
from tests.sync.pipelines import bench as bench

ENTRY = {"stream": "a", "replication_method": "INCREMENTAL", "bookmark_properties": ["t"]}
FIRST = [{"id": 1, "t": None}, {"id": 2, "t": 10}]
SECOND = [*FIRST, {"id": 3, "t": None}, {"id": 4, "t": 4}, {"id": 5, "t": 20}]


def ids(bench: Bench) -> list[int]:
    return [row["id"] for row in bench.rows("a")]


def test_a_record_without_a_bookmark_fails_the_stream_and_names_the_ways_out(bench: Bench) -> None:
    bench.document["streams"] = [ENTRY]
    bench.record(on=["stream"])
    bench.seed("a", FIRST)
    result = bench.run()
    assert statuses(result) == {"a": "failure"}
    (call,) = bench.calls()
    for part in ("'a'", "1 in 't'", "once", "always", "never"):
        assert part in call["error"]
    assert "a" not in bench.destination.tables


@pytest.mark.parametrize(
    ("policy", "first", "then", "records"),
    [("once", [1, 2], [1, 2, 5], 1), ("always", [1, 2], [1, 2, 3, 5], 3), ("never", [2], [2, 5], 1)],
)
def test_the_stream_says_what_becomes_of_them(
    bench: Bench, policy: str, first: list[int], then: list[int], records: int
) -> None:
    bench.document["streams"] = [{**ENTRY, "null_bookmarks": policy}]
    bench.seed("a", FIRST)
    bench.run()
    assert ids(bench) == first
    bench.seed("a", SECOND)
    result = bench.run()
    assert ids(bench) == then
    assert result.streams[0].records == records


def test_a_lookback_finds_what_came_late(bench: Bench) -> None:
    bench.document["streams"] = [{**ENTRY, "lookback": 6}]
    bench.seed("a", [{"id": 2, "t": 10}])
    bench.run()
    bench.seed("a", [{"id": 2, "t": 10}, {"id": 3, "t": 3}, {"id": 4, "t": 4}, {"id": 5, "t": 9}])
    result = bench.run()
    assert ids(bench) == [2, 4, 5]
    assert result.streams[0].bookmark == {"t": 10}


def test_a_lookback_to_before_the_year_1_reads_everything(bench: Bench, postgres_url: str) -> None:
    from tests.connectors.postgres.postgres_pair import script

    script(
        postgres_url, "create table a (id int primary key, t timestamp); insert into a values (1, '0001-01-01 01:00')"
    )
    bench.document["source"] = {"connector": "postgres", "config": {"url": postgres_url}}
    bench.document["streams"] = [{**ENTRY, "stream": "public.a", "lookback": 7200}]
    bench.run()
    script(postgres_url, "insert into a values (2, '0001-01-01')")
    assert statuses(bench.run()) == {"public.a": "success"}
    assert ids(bench) == [1, 2]


@pytest.mark.parametrize(
    ("settings", "key", "what"),
    [
        ({"null_bookmarks": "always", "write_disposition": "append"}, "null_bookmarks", "merge by keys"),
        ({"lookback": 5, "write_disposition": "append"}, "lookback", "merge by keys"),
        ({"lookback": 5, "bookmark_properties": ["v"]}, "lookback", "'v' is string"),
        ({"lookback": 0}, "lookback", "more than 0"),
        ({"bookmark_properties": ["is_paid"]}, "bookmark_properties", "'is_paid' (bool) cannot be ordered"),
        ({"null_bookmarks": "allways"}, "null_bookmarks", "always"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(bench: Bench, settings: dict[str, Any], key: str, what: str) -> None:
    bench.document["streams"] = [{**ENTRY, **settings}]
    bench.seed("a", [{"id": 2, "t": 10, "v": "x", "is_paid": True}])
    with pytest.raises(ConfigError, match=rf"bench.yaml:\d+.*streams\[0\]\.{key}") as caught:
        bench.run()
    assert what in str(caught.value)


def test_the_plan_says_which_records_the_bookmark_does_not_tell_of(
    tmp_path: Path, mariadb_url: str, run_cli: RunCLI
) -> None:
    from tests.connectors.mysql.mysql_databases import database, run

    user = f"u{uuid.uuid4().hex[:12]}"
    run(mariadb_url, *(f"create table {name} (id bigint primary key, t datetime)" for name in "abc"))
    run(mariadb_url, f"create user {user} identified by 'pass'", f"grant select on {database(mariadb_url)}.* to {user}")
    entry = {"replication_method": "INCREMENTAL", "bookmark_properties": ["t"]}
    document = {
        "source": {"connector": "mariadb", "config": {"url": mariadb_url, "user": user, "password": "pass"}},
        "destination": {"connector": "duckdb", "config": {"path": "d.duckdb"}},
        "streams": [
            {**entry, "stream": f"{database(mariadb_url)}.a", "null_bookmarks": "once"},
            {**entry, "stream": f"{database(mariadb_url)}.b", "lookback": 60},
            {**entry, "stream": f"{database(mariadb_url)}.c", "bookmark_properties": ["id"]},
        ],
    }
    (tmp_path / "p.yaml").write_text(json.dumps(document))
    try:
        shown = run_cli(["plan", "p.yaml"], tmp_path)
        (first, _, third) = json.loads(run_cli(["plan", "p.yaml", "--json"], tmp_path).stdout)["streams"]
        run(mariadb_url, f"grant process on *.* to {user}")
        privileged = run_cli(["plan", "p.yaml"], tmp_path)
    finally:
        run(mariadb_url, f"drop user {user}")
    assert ".a: new records by t; records without it are read once; records that commit late may be sk" in shown.stdout
    assert ".b: new records by t; records without it are an error; read again from 60 below the bookm" in shown.stdout
    assert ".c: new records by id; records that commit late may be skipped" in shown.stdout
    (warning,) = [line for line in shown.stderr.splitlines() if "may be skipped" in line]
    assert re.search(r"\.a, \S+\.c: .*PROCESS.*`lookback`", warning)
    assert first["incremental"]["null_bookmarks"] == "once"
    assert third["incremental"]["null_bookmarks"] is None
    assert ".c: new records by id; records that commit late are read as well" in privileged.stdout
    assert "may be skipped" not in privileged.stdout + privileged.stderr


def test_the_plan_knows_what_postgres_waits_for(tmp_path: Path, postgres_url: str, run_cli: RunCLI) -> None:
    from tests.connectors.postgres.postgres_pair import script

    script(postgres_url, "create table a (id bigint primary key, t text not null)")
    document: dict[str, Any] = {
        "source": {"connector": "postgres", "config": {"url": postgres_url}},
        "destination": {"connector": "duckdb", "config": {"path": "d.duckdb"}},
    }
    for column, is_safe in (("id", True), ("t", False)):
        document["streams"] = [{**ENTRY, "stream": "public.a", "bookmark_properties": [column]}]
        (tmp_path / "p.yaml").write_text(json.dumps(document))
        shown = run_cli(["plan", "p.yaml"], tmp_path)
        assert ("records that commit late are read as well" in shown.stdout) is is_safe
        assert ("a time or a number" in shown.stderr) is not is_safe


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ("create table b (id bigint); create materialized view a as select * from b", "when it is refreshed"),
        (
            "create extension file_fdw; create server s foreign data wrapper file_fdw; "
            "create foreign table a (id bigint) server s options (filename '/dev/null')",
            "on another server",
        ),
    ],
)
def test_the_plan_does_not_promise_what_postgres_cannot_tell(
    tmp_path: Path, postgres_url: str, run_cli: RunCLI, made: str, why: str
) -> None:
    from tests.connectors.postgres.postgres_pair import script

    script(postgres_url, made)
    document = {
        "source": {"connector": "postgres", "config": {"url": postgres_url}},
        "destination": {"connector": "duckdb", "config": {"path": "d.duckdb"}},
        "streams": [{**ENTRY, "stream": "public.a", "bookmark_properties": ["id"], "key_properties": ["id"]}],
    }
    (tmp_path / "p.yaml").write_text(json.dumps(document))
    shown = run_cli(["plan", "p.yaml"], tmp_path)
    assert "records that commit late may be skipped" in shown.stdout
    assert why in shown.stderr
