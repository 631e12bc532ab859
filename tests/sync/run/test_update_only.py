"""`unique_conflict_method: UPDATE_ONLY`: records that are there are updated, and none is inserted."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncblocks.sync.api import count, verify
from syncblocks.sync.config import load_pipeline
from syncblocks.sync.errors import ConfigError
from tests.sync.pipelines import Bench, statuses
from tests.sync.run.targets import ALCHEMY, DESTINATIONS, open_target

# Firebird's own cursors complain about the order in which they are freed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

STREAM = {"stream": "a", "write_disposition": "merge", "key_properties": ["id"]}


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("kind", [*DESTINATIONS, *ALCHEMY, "parquet"])
@pytest.mark.parametrize("more", [{}, {"latest_by": "n"}, {"on_rejected": "keep"}], ids=str)
def test_only_records_that_are_there_are_written(tmp_path: Path, kind: str, more: dict[str, str]) -> None:
    with open_target(kind, tmp_path) as target:
        bench = Bench(tmp_path)
        bench.document["destination"] = target.document
        bench.document["streams"] = [STREAM]
        bench.seed("a", [{"id": 1, "v": "a", "n": 5}, {"id": 2, "v": "b", "n": 5}])
        assert statuses(bench.run()) == {"a": "success"}
        bench.document["streams"] = [{**STREAM, **more, "unique_conflict_method": "UPDATE_ONLY"}]
        bench.seed("a", [{"id": 2, "v": "B", "n": 6}, {"id": 3, "v": "c", "n": 6}])
        result = bench.run()
        assert statuses(result) == {"a": "success"}, result.streams[0].error
        table = "read_parquet('target/a.parquet')" if kind == "parquet" else "a"
        table = table.replace("'target", f"'{tmp_path}/target")
        if kind == "parquet":
            import duckdb

            assert duckdb.sql(f"select id, v from {table} order by id").fetchall() == [(1, "a"), (2, "B")]
        else:
            assert target.query("select id, v from a order by id") == [(1, "a"), (2, "B")]


@pytest.mark.full
def test_what_would_insert_is_refused_and_what_is_left_out_is_no_difference(tmp_path: Path) -> None:
    with open_target("duckdb", tmp_path) as target:
        bench = Bench(tmp_path)
        bench.document["destination"] = target.document
        bench.document["streams"] = [{**STREAM, "unique_conflict_method": "UPDATE_ONLY"}]
        bench.seed("a", [{"id": 1, "v": "a"}, {"id": 2, "v": "b"}])
        with pytest.raises(ConfigError, match="there is no table 'a'"):
            bench.run()
        bench.document["streams"] = [{**STREAM, "write_disposition": "append", "unique_conflict_method": "UPDATE_ONLY"}]
        with pytest.raises(ConfigError, match="`UPDATE_ONLY` says which records a merge leaves out"):
            bench.run()
        bench.document["streams"] = [{**STREAM, "where": {"id": 1}}]
        assert statuses(bench.run()) == {"a": "success"}
        bench.document["streams"] = [{**STREAM, "unique_conflict_method": "UPDATE_ONLY"}]
        assert statuses(bench.run()) == {"a": "success"}
        with pytest.raises(ConfigError, match="--full-refresh exclude each other"):
            bench.run(full_refresh=True)
        pipeline = load_pipeline(bench.write())
        (found,) = verify(pipeline)
        assert (found.verdict, found.source_records, found.destination_records) == ("counted", 2, 1)
        assert "UPDATE_ONLY leaves out records" in found.notes[0]
        assert count(pipeline).streams[0].destination == 1
