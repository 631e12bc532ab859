"""What a plan says of a mistake helps: it names what can be said here, and what was meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from syncblocks import PipelineFailed, run_pipeline
from syncblocks.sync.config import load_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.session.inspection import count_streams, opened
from syncblocks.sync.session.session import make_plan
from tests.services import connect_mariadb
from tests.sync.pipelines import Bench
from tests.sync.run.targets import open_target


def warnings(document: dict[str, Any], folder: Path) -> Sequence[str]:
    with opened(load_pipeline({**document, "store": f"sqlite:///{folder / 'store.db'}"})) as session:
        return make_plan(session, None).warnings


def into_duckdb(folder: Path, **settings: Any) -> Bench:
    bench = Bench(folder)
    bench.document["destination"] = {"connector": "duckdb", "config": {"path": str(folder / "x.duckdb")}}
    bench.document["streams"] = [{"stream": "a", **settings}]
    bench.seed("a", [{"id": 1, "v": "x"}])
    return bench


def refusal(bench: Bench) -> str:
    with pytest.raises((ConfigError, PipelineFailed)) as caught:  # after a first run it is a recorded one
        bench.run().raise_for_status()
    return str(caught.value)


@pytest.mark.parametrize("system", ["postgres", "mysql"])
def test_a_filter_names_a_value_that_an_enum_has(tmp_path: Path, request: pytest.FixtureRequest, system: str) -> None:
    if system == "postgres":
        url = request.getfixturevalue("postgres_url")
        with psycopg.connect(url) as connection:
            connection.execute("create type state as enum ('open', 'it''s late')")
            connection.execute("create table t (id int primary key, state state)")
            connection.execute("insert into t values (1, 'open'), (2, 'it''s late')")
    else:
        url = request.getfixturevalue("mariadb_url")
        with connect_mariadb(url) as connection, connection.cursor() as cursor:
            cursor.execute("create table t (id int primary key, state enum('open', 'it''s late'))")
            cursor.execute("insert into t values (1, 'open'), (2, 'it''s late')")
            connection.commit()
    bench = into_duckdb(tmp_path, write_disposition="replace")
    bench.document["source"] = {"connector": system, "config": {"url": url}}
    stream = bench.document["streams"][0]
    stream["stream"] = "*.t"
    for where in ({"state": "Open"}, {"state": ["open", "opne"]}, {"state": {"!=": "opne"}}):
        stream["where"] = where
        error = refusal(bench)
        assert "'state' is an enum without the value" in error
        assert "open" in error
    stream["where"] = {"state": ["open", "it's late"]}
    assert bench.run().streams[0].records == 2


def test_a_column_of_the_pipelines_own_gets_another_type(tmp_path: Path) -> None:
    added = {"part": {"value": "5", "type": "bigint"}}
    bench = into_duckdb(tmp_path, write_disposition="append", add_columns=added)
    assert bench.run().status == "success"
    added["part"]["type"] = "string"
    error = refusal(bench)
    assert "types: {part: ...}" in error
    assert "exclude" not in error
    bench.document["streams"][0]["types"] = {"part": "bigint"}
    assert bench.run().status == "success"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_times_of_a_history_are_not_left_out(tmp_path: Path) -> None:
    bench = into_duckdb(tmp_path, write_disposition="history", key_properties=["id"])
    with open_target("firebird", tmp_path) as target:
        bench.document["destination"] = target.document
        error = refusal(bench)
    assert "_valid_from" in error
    assert "on_lossy: text" in error
    assert "exclude" not in error


def test_settings_of_bookmarks_of_a_whole_stream_are_warned_of(tmp_path: Path) -> None:
    bench = into_duckdb(tmp_path, lookback=5, null_bookmarks="once")
    (warning,) = warnings(bench.document, tmp_path)
    assert warning.startswith("streams[0]: `lookback`, `null_bookmarks` of a says nothing: it is FULL_TABLE")
    bench.document["streams"] = [{"stream": "*", "lookback": 5}]
    assert not warnings(bench.document, tmp_path)


def test_count_names_optional_streams_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("id\n1\n")
    bench = into_duckdb(tmp_path)
    streams = {"a": "a.csv", "gone": "gone*.csv"}
    bench.document["source"] = {"connector": "csv", "config": {"path": str(tmp_path / "data"), "streams": streams}}
    bench.document["streams"] = [{"stream": "*", "optional": True}]
    with opened(load_pipeline(bench.document)) as session:
        counts = count_streams(session)
    assert [each.stream for each in counts.streams] == ["a"]
    assert "matches no file" in counts.absent["gone"]
    assert run_pipeline(load_pipeline(bench.document)).status == "success"
