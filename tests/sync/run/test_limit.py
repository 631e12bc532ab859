"""`limit`: how many records of a stream a run reads at most, of every kind of source."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from tests.connectors.singer.singer_helpers import full_table, record, schema, small

LIMITED: list[dict[str, Any]] = [{"stream": "*", "verify": True}, {"stream": "a", "limit": 3}]


def run(folder: Path, source: dict[str, Any], streams: list[dict[str, Any]]) -> RunResult:
    to = {"connector": "duckdb", "config": {"path": "out.db"}}
    document = {"pipeline": "p", "source": source, "destination": to, "streams": streams}
    return run_pipeline(load_pipeline(document, folder=folder))


def ids(folder: Path, table: str) -> list[int]:
    with closing(duckdb.connect(folder / "out.db")) as database:
        return [number for (number,) in database.execute(f"select id from {table} order by 1").fetchall()]


def test_no_more_records_are_read_and_the_rest_of_another_stream_is(tmp_path: Path) -> None:
    said = [schema("a"), schema("b"), *(record(name, id=n) for n in range(50) for name in "ab")]
    taps = small(tmp_path, *said, streams=[full_table("a"), full_table("b")])
    result = run(tmp_path, {"connector": "singer", "config": taps}, LIMITED)
    assert [(each.status, each.records, each.verdict) for each in result.streams] == [
        ("success", 3, "counted"),
        ("success", 50, "equal"),
    ]
    assert (len(ids(tmp_path, "a")), ids(tmp_path, "b")) == (3, list(range(50)))
    assert run(tmp_path, {"connector": "singer", "config": taps}, LIMITED[1:]).status == "success"


def test_the_limit_is_one_of_the_records_that_the_filter_lets_in(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\n" + "".join(f"{n}\n" for n in range(5000)))
    source = {"connector": "csv", "config": {"path": "a.csv", "batch_size": 2}}
    where = {"stream": "a", "limit": 3, "where": {"id": {">=": 100}}, "parallel_reads": 4}
    assert run(tmp_path, source, [where]).status == "success"
    assert ids(tmp_path, "a") == [100, 101, 102]
    assert run(tmp_path, source, [{"stream": "a"}]).status == "success"
    assert len(ids(tmp_path, "a")) == 5000


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        ({"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}, "would never read what is beyond"),
        (
            {"write_disposition": "merge", "key_properties": ["id"], "deletes": "hard"},
            ": `limit` and `deletes` exclude each other",
        ),
        ({"write_disposition": "history", "key_properties": ["id"]}, "history` exclude each other"),
    ],
)
def test_where_a_record_that_is_not_read_would_be_lost_a_limit_is_refused(
    stream: dict[str, Any], why: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("id\n1\n")
    with pytest.raises(ConfigError, match=why):
        run(tmp_path, {"connector": "csv", "config": {"path": "a.csv"}}, [{"stream": "a", "limit": 1, **stream}])
