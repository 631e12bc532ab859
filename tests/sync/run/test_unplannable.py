"""Streams that source or destination cannot serve: they stop nobody who does not need them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks import load_pipeline
from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.sync.errors import ConfigError, NothingToRetry
from syncblocks.sync.session.inspection import count_streams, opened
from tests.sync.pipelines import Bench, statuses
from tests.sync.pipelines import bench as bench

BROKEN = "id,v\n1,2,3\n4,5,6,7\n"


@pytest.fixture
def files(bench: Bench) -> Bench:
    """Three CSV files into memory; the second cannot be read."""
    folder = bench.folder / "data"
    folder.mkdir()
    for name, text in {"a": "id,v\n1,x\n", "broken": BROKEN, "c": "id,v\n2,y\n"}.items():
        (folder / f"{name}.csv").write_text(text)
    bench.document["source"] = {"block": "load", "connector": "csv", "config": {"path": "data"}}
    return bench


def test_a_broken_file_that_is_not_selected_stops_nothing(files: Bench) -> None:
    files.document["streams"] = [{"stream": "*"}, {"stream": "broken", "selected": False}]
    assert statuses(files.run()) == {"a": "success", "c": "success"}
    files.document["streams"] = [{"stream": "*"}]
    assert statuses(files.run(streams=["a"])) == {"a": "success"}
    with opened(load_pipeline(files.write())) as session:
        assert [count.source for count in count_streams(session, ["c"]).streams] == [1]
        with pytest.raises(FatalConnectorError, match=r"broken\.csv"):
            count_streams(session)


def test_a_broken_file_beside_the_tables_stops_neither_verify_nor_count(files: Bench) -> None:
    files.document["destination"] = {"connector": "csv", "config": {"path": "out"}}
    files.document["streams"] = [{"stream": "a", "verify": True}]
    (files.folder / "out").mkdir()
    (files.folder / "out" / "other.csv").write_text(BROKEN)
    assert [stream.verdict for stream in files.run().streams] == ["equal"]
    with opened(load_pipeline(files.write())) as session:
        assert [count.destination for count in count_streams(session).streams] == [1]


def test_a_broken_file_that_is_selected_ends_a_run_before_its_first_stream(files: Bench) -> None:
    result = files.run()
    assert (result.exit_code, result.streams) == (1, ())
    assert "broken.csv" in str(result.error)


@pytest.mark.parametrize(("streams", "expected"), [(None, {"a", "broken", "c"}), (("[ab]*",), {"a", "broken"})])
def test_a_retry_of_a_run_that_was_never_planned_runs_what_the_file_selects(
    files: Bench, streams: tuple[str, ...] | None, expected: set[str]
) -> None:
    """It was a success of no streams."""
    files.run()
    (files.folder / "data" / "broken.csv").write_text("id,v\n3,z\n")
    result = files.run(retry=True, streams=streams)
    assert (result.run_id, statuses(result)) == (1, dict.fromkeys(expected, "success"))
    with pytest.raises(NothingToRetry):
        files.run(retry=True)


def test_where_blocks_may_fail_a_broken_file_fails_in_its_turn(files: Bench) -> None:
    files.document["allow_blocks_to_fail"] = True
    files.document["streams"] = [{"stream": "*", "key_properties": ["id"], "write_disposition": "merge"}]
    files.record(on=["load", "stream"])
    result = files.run()
    assert (result.exit_code, statuses(result)) == (1, {"a": "success", "broken": "failure", "c": "success"})
    calls = [call for call in files.calls() if call["parent_block_uuid"] == "load"]
    assert [(c["stream"], c["status"], c["index"], c["is_last_block_run"]) for c in calls] == [
        ("a", "success", 0, False),
        ("broken", "failure", 1, False),
        ("c", "success", 2, True),
    ]
    assert "broken.csv" in calls[1]["error"]
    (files.folder / "data" / "broken.csv").write_text("id,v\n3,z\n")
    assert statuses(files.run(retry=True)) == {"broken": "success"}


@pytest.mark.parametrize("folders", ["day=%FF", "day=1/day=2"])
def test_folders_that_are_no_columns_are_the_failure_of_their_stream(files: Bench, folders: str) -> None:
    (files.folder / "data" / "broken.csv").unlink()
    (files.folder / "data" / "bad" / folders).mkdir(parents=True)
    (files.folder / "data" / "bad" / folders / "1.csv").write_text("id,v\n1,x\n")
    assert statuses(files.run(streams=["a"])) == {"a": "success"}
    files.document["allow_blocks_to_fail"] = True
    result = files.run()
    assert statuses(result) == {"a": "success", "bad": "failure", "c": "success"}
    assert f"bad/{folders}/1.csv: " in str(result.streams["bad"].error)


@pytest.fixture
def lossy(bench: Bench) -> Bench:
    """Three tables into DuckDB, which has no type for the times of the first two."""
    moments = pa.array([1_700_000_000_123_456_789], pa.timestamp("ns", "UTC"))
    for name in ("a", "b"):
        bench.source.tables[name] = pa.table({"id": [1], "v": moments, "w": moments})
    bench.seed("c", 1)
    bench.document["destination"] = {"block": "export", "connector": "duckdb", "config": {"path": "w.duckdb"}}
    return bench


def test_all_streams_and_columns_that_cannot_be_kept_are_named_at_once(lossy: Bench) -> None:
    with pytest.raises(ConfigError) as caught:
        lossy.run()
    message = str(caught.value)
    assert message.startswith(f"{lossy.folder / 'bench.yaml'}:")
    for part in ("2 streams", "stream 'a': column 'v'", "stream 'b': column 'v'", "'w'", "allow_blocks_to_fail: true"):
        assert part in message


def test_where_blocks_may_fail_the_destination_fails_for_a_column_that_it_cannot_keep(lossy: Bench) -> None:
    lossy.document["allow_blocks_to_fail"] = True
    lossy.record(on=["stream"])
    assert statuses(lossy.run()) == {"a": "failure", "b": "failure", "c": "success"}
    assert [(call["stream"], call["error_block"], call["is_last_block_run"]) for call in lossy.calls()] == [
        ("a", "export", False),
        ("b", "export", False),
        ("c", None, True),
    ]


def test_a_column_that_no_database_can_name_is_named_with_the_way_out(lossy: Bench) -> None:
    lossy.source.tables = {"a": pa.table({"id": [1], "v\0": [2]}), "b": pa.table({"id": [1]})}
    with pytest.raises(ConfigError, match=r"stream 'a': column 'v\\x00' contains a NUL.*exclude: \['v\?'\]"):
        lossy.run()
    lossy.document["allow_blocks_to_fail"] = True
    assert statuses(lossy.run()) == {"a": "failure", "b": "success"}
    lossy.document["streams"] = [{"stream": "*", "columns": {"exclude": ["v?"]}}]
    assert statuses(lossy.run()) == {"a": "success", "b": "success"}


@pytest.mark.parametrize("entry", [{"key_properties": ["v"]}, {"bookmark_properties": ["v"]}])
def test_all_streams_that_lack_a_column_are_named_at_once(bench: Bench, entry: dict[str, Any]) -> None:
    for name in ("a", "b"):
        bench.seed(name, [{"id": 1}])
    bench.seed("c", 1)
    bench.document["allow_blocks_to_fail"] = True  # a mistake in the file all the same
    bench.document["streams"] = [{"stream": "*", "replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}]
    bench.document["streams"][0] |= entry
    with pytest.raises(ConfigError, match=r"(?s)2 streams.*stream 'a': 'v' is no.*stream 'b': 'v' is no"):
        bench.run()


def test_the_summary_counts_streams_that_were_not_started(
    bench: Bench, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from syncblocks.sync.cli import invoke

    for name in "abcdefghi":
        bench.seed(name, 3)
    bench.document["source"]["config"]["fail_at"] = {"b": 1}
    assert invoke(["run", str(bench.write())]) == 1
    out = capfd.readouterr().out
    assert "7 streams not started: c, d, e, f, g and 2 more; with `allow_blocks_to_fail: true`" in out
