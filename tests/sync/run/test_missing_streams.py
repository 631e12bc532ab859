"""A stream that was synced and leaves a glob: every run says so, until somebody says that this is right."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from syncblocks import load_pipeline, verify
from syncblocks.sync.session.inspection import existing_store, opened
from syncblocks.sync.session.session import make_plan
from syncblocks.sync.state.stream_state import reset_state
from tests.conftest import RunCLI
from tests.sync.pipelines import Bench
from tests.sync.pipelines import bench as bench

from .nights import postgres_place

TELL = """
import json
from pathlib import Path

@callback
@callback("failure")
def tell(missing_streams):
    with Path(__file__).with_suffix(".log").open("a") as log:
        log.write(json.dumps(missing_streams) + "\\n")
"""


@pytest.fixture
def shrunk(bench: Bench) -> Bench:
    """Two tables under a glob were synced, and the second is gone."""
    for name in ("a", "b"):
        bench.seed(name, 2)
    (bench.folder / "tell.py").write_text(TELL)
    bench.document["callbacks"] = [{"file": "tell.py", "on": ["pipeline"]}]
    assert bench.run(inline_callbacks=True).missing_streams == ()
    del bench.source.tables["b"]
    return bench


def said(bench: Bench) -> list[list[str]]:
    return [json.loads(line) for line in (bench.folder / "tell.log").read_text().splitlines()]


def missing(bench: Bench, **options: Any) -> list[str]:
    pipeline = load_pipeline(bench.write())
    with existing_store(pipeline) as store, opened(pipeline) as session:
        return [each.stream for each in make_plan(session, store, **options).missing]


def reset(bench: Bench, *, forget: bool) -> None:
    pipeline = load_pipeline(bench.write())
    with existing_store(pipeline) as store, opened(pipeline) as session:
        reset_state(session, store, "b", forget=forget)


def test_run_plan_and_verify_and_callbacks_say_it(shrunk: Bench) -> None:
    for _ in range(2):
        result = shrunk.run(inline_callbacks=True)
        assert (result.status, result.exit_code, result.missing_streams) == ("success", 0, ("b",))
    assert said(shrunk) == [[], ["b"], ["b"]]
    assert missing(shrunk) == ["b"]
    gone, there = verify(shrunk.write())
    assert (gone.stream, gone.verdict, there.verdict) == ("b", "differs", "equal")
    assert gone.notes == ("was synced before and is not offered by the source any more",)


def test_a_stream_that_is_back_is_missing_no_more(shrunk: Bench) -> None:
    assert shrunk.run().missing_streams == ("b",)
    shrunk.seed("b", 3)
    assert shrunk.run().missing_streams == ()


@pytest.mark.parametrize("forget", [False, True])
def test_a_reset_says_that_it_is_right(shrunk: Bench, forget: bool) -> None:
    reset(shrunk, forget=forget)
    assert missing(shrunk) == []


@pytest.mark.parametrize(
    ("streams", "expected"),
    [
        ([{"stream": "*", "optional": True}], []),
        ([{"stream": "*"}, {"stream": "[b]*", "selected": False}, {"stream": "a"}], None),
        ([{"stream": "a"}], []),
        ([{"stream": "[a]"}], []),
        ([{"stream": "*", "when": "stream == 'a'"}], []),
        ([{"stream": "*", "tags": ["t"]}], ["b"]),
        ([{"stream": "*", "replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}], ["b"]),
    ],
)
def test_what_the_file_does_not_want_is_not_missing(
    shrunk: Bench, streams: list[dict[str, Any]], expected: list[str] | None
) -> None:
    shrunk.document["streams"] = streams
    if expected is None:  # a pattern that finds nothing is an error as ever
        assert shrunk.run().exit_code == 1
        return
    assert missing(shrunk) == expected


def test_a_stream_that_was_left_out_before_it_went_is_not_missing(shrunk: Bench) -> None:
    shrunk.seed("bb", 1)
    shrunk.document["streams"] = [{"stream": "*"}, {"stream": "b*", "selected": False}]
    assert missing(shrunk) == []


def test_a_command_with_limits_tells_of_what_is_within_them(shrunk: Bench) -> None:
    shrunk.seed("bb", 1)
    assert missing(shrunk, streams=["a"]) == []
    assert missing(shrunk, streams=["b*"]) == ["b"]
    shrunk.document["streams"] = [{"stream": "*", "tags": ["t"]}, {"stream": "a", "tags": ["u"]}]
    assert missing(shrunk, tags=["u"]) == []
    assert missing(shrunk, tags=["t"]) == ["b"]


def test_the_only_stream_of_a_command_that_is_gone_is_a_failed_run(shrunk: Bench) -> None:
    result = shrunk.run(streams=["b"])
    assert (result.run_id, result.exit_code) == (2, 1)
    assert "'b' matches no stream" in str(result.error)


def test_the_ledger_knows_it_where_the_run_store_is_new(shrunk: Bench) -> None:
    for path in (shrunk.folder / ".syncblocks").glob("store.db*"):
        path.unlink()
    assert shrunk.run().missing_streams == ("b",)
    reset(shrunk, forget=False)
    assert missing(shrunk) == []


def test_a_table_in_another_schema_is_known_by_the_run_store(tmp_path: Path, postgres_url: str) -> None:
    with closing(sqlite3.connect(tmp_path / "s.db", isolation_level=None)) as source:
        for name in ("a", "b"):
            source.execute(f"create table {name}(id integer primary key)")
        one = Bench(tmp_path)
        one.document["source"] = {"connector": "sqlite", "config": {"path": "s.db"}}
        one.document["destination"] = {"connector": "postgres", "config": {"url": postgres_url}}
        one.document["streams"] = [{"stream": "*"}, {"stream": "b*", "destination_table": "far.b"}]
        source.execute("create table bb(id integer primary key)")
        one.document["streams"].append({"stream": "bb", "destination_table": "far.bb"})
        assert one.run().status == "success"
        source.execute("drop table b")
        source.execute("create table bc(id integer primary key)")
        one.document["streams"][1]["destination_table"] = "{{ stream }}_near"
        assert one.run().missing_streams == ("b",)


def test_a_refused_run_says_it_too(shrunk: Bench) -> None:
    shrunk.document["streams"] = [{"stream": "*"}, {"stream": "gone"}]
    result = shrunk.run(inline_callbacks=True)
    assert (result.exit_code, result.missing_streams) == (1, ("b",))
    assert said(shrunk)[-1] == ["b"]


@pytest.mark.full
def test_the_command_line_says_it(tmp_path: Path, run_cli: RunCLI) -> None:
    one = Bench(tmp_path)
    one.document["source"] = {"connector": "sqlite", "config": {"path": "s.db"}}
    one.document["destination"] = {"connector": "sqlite", "config": {"path": "d.db"}}
    one.write()
    with closing(sqlite3.connect(tmp_path / "s.db", isolation_level=None)) as source:
        for name in ("a", "b"):
            source.execute(f"create table {name}(id integer primary key)")
        assert run_cli(["run"], tmp_path).returncode == 0
        source.execute("drop table b")

    def call(*words: str, code: int = 0) -> str:
        done = run_cli(list(words), tmp_path)
        assert done.returncode == code, done.stderr
        return done.stdout if "--json" in words else done.stdout + done.stderr

    text = "stream 'b' was synced before and is not offered by the source any more: table 'b' stays as it is"
    assert text in call("plan")
    assert text in call("check")
    shown = call("run")
    assert text in shown
    assert "1 stream synced before, missing at the source now: b" in shown
    assert json.loads(call("run", "--json").splitlines()[-1])["missing_streams"] == ["b"]
    assert json.loads(call("plan", "--json"))["missing_streams"] == ["b"]
    assert "synced before, missing at the source then: b" in call("runs", "show")
    assert json.loads(call("runs", "show", "--json"))["missing_streams"] == ["b"]
    assert "was synced before" in call("verify", code=1)
    call("state", "reset", "b")
    assert "synced before" not in call("run")


def test_tables_that_the_role_may_not_read_are_counted(tmp_path: Path, postgres_url: str) -> None:
    with postgres_place(postgres_url) as place:
        for number in range(7):
            place.run(f"create table t{number}(id bigint primary key)")
        one = Bench(tmp_path)
        one.document["source"] = {key: place.source[key] for key in ("connector", "config")}
        one.document["streams"] = [{"stream": "public.t*"}]
        assert one.run().missing_streams == ()
        for number in range(1, 7):
            place.run(f"revoke select on t{number} from {place.source['role']}")
        place.run("create view v as select 1 as id")
        place.run(f"revoke select on v from {place.source['role']}")
        pipeline = load_pipeline(one.write())
        with existing_store(pipeline) as store, opened(pipeline) as session:
            plan = make_plan(session, store)
        shown = "public.t1, public.t2, public.t3, public.t4, public.t5, ..."
        assert plan.unreadable == (f"6 tables under 'public.t*' may not be read by this user: {shown}",)
        assert [each.why for each in plan.missing] == ["may not be read by this user any more"] * 6
        assert plan.unreadable[0] in plan.warnings
        one.document["streams"] = [{"stream": "public.t*", "optional": True}]
        with existing_store(pipeline) as store, opened(load_pipeline(one.write())) as session:
            assert make_plan(session, store).unreadable == ()


def test_a_table_that_has_become_a_view_is_missing(tmp_path: Path, postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for name in ("a", "b"):
            connection.execute(f"create table {name}(id bigint primary key)")
        one = Bench(tmp_path)
        one.document["source"] = {"connector": "postgres", "config": {"url": postgres_url}}
        assert one.run().status == "success"
        connection.execute("alter table b rename to old; create view b as select * from old")
        pipeline = load_pipeline(one.write())
        with existing_store(pipeline) as store, opened(pipeline) as session:
            (found,) = make_plan(session, store).missing
    assert (found.stream, found.why) == ("public.b", "is a view now, which no glob finds")
