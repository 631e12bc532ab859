"""`types: {code: string(4)}`: what a new column is, what becomes of longer texts, and of columns that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from tests.sync.run.targets import Target, open_target


def run(folder: Path, to: dict[str, Any], records: str, **stream: Any) -> RunResult:
    (folder / "t.csv").write_text(f"id,code\n{records}")
    document = {
        "pipeline": "p",
        "source": {"connector": "csv", "config": {"path": "t.csv"}},
        "destination": to,
        "streams": [{"stream": "t", "key_properties": ["id"], "write_disposition": "merge", **stream}],
    }
    return run_pipeline(load_pipeline(document, folder=folder))


def declared(target: Target) -> str:
    """Return the type of the column."""
    ((kind, length),) = target.query(
        "select data_type, character_maximum_length from information_schema.columns "
        "where table_name = 't' and column_name = 'code'"
    )
    return f"{kind}({length})"


@pytest.mark.parametrize("kind", ["duckdb", "mysql", "postgres"])
def test_a_text_of_a_length_is_a_column_of_it_and_a_longer_text_is_rejected(kind: str, tmp_path: Path) -> None:
    kept = {"on_rejected": "keep"}
    known = {"postgres": "character varying", "mysql": "varchar"}
    with open_target(kind, tmp_path) as target:
        result = run(tmp_path, target.document, "1,abcé\n2,\n3,007\n", types={"code": "varchar(4)"}, verify=True)
        assert (result.status, result.streams[0].verdict) == ("success", "equal")
        assert declared(target) == (f"{known[kind]}(4)" if kind in known else "VARCHAR(None)")
        result = run(tmp_path, target.document, "4,abcde\n5,x\n", types={"code": "string(4)"}, **kept)
        assert result.status == "success"
        assert sorted(target.query("select * from t")) == [(1, "abcé"), (2, None), (3, "007"), (5, "x")]
        ((_, reason),) = target.rejected()
        assert reason == "column 'code': 'abcde' fails the check `code max_length 4`"
        assert run(tmp_path, target.document, "4,abcde\n", types={"code": "string(6)"}).status == "success"
        assert declared(target) == (f"{known[kind]}(6)" if kind in known else "VARCHAR(None)")


def test_a_table_that_is_there_is_not_replaced_where_the_stream_says_so(tmp_path: Path) -> None:
    to = {"connector": "duckdb", "config": {"path": "out.db"}}
    once: dict[str, Any] = {"write_disposition": "replace", "replace_existing": False, "verify": True}
    first = run(tmp_path, to, "1,a\n", **once)
    assert [(each.status, each.records, each.verdict) for each in first.streams] == [("success", 1, "equal")]
    second = run(tmp_path, to, "1,b\n2,c\n", **once)
    assert (second.status, second.streams) == ("success", ())
    document = {"pipeline": "p", "source": {"connector": "csv", "config": {"path": "t.csv"}}, "destination": to}
    pipeline = load_pipeline({**document, "streams": [{"stream": "t", **once}]}, folder=tmp_path)
    anew = run_pipeline(pipeline, full_refresh=True)
    assert [each.records for each in anew.streams] == [2]
    with pytest.raises(ConfigError, match="is for FULL_TABLE and `write_disposition: replace`"):
        run(tmp_path, to, "1,b\n", replace_existing=False)
