"""Streams of many files: named by patterns, skipped where there are none, and under the names of earlier versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from syncblocks import run_pipeline
from syncblocks.connectors.stream import LedgerKey
from syncblocks.sync.config import load_pipeline
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.session.inspection import opened
from syncblocks.sync.session.session import make_plan


def shop(folder: Path, *streams: dict[str, Any], destination: dict[str, Any] | None = None, **source: Any) -> Any:
    config = {
        "pipeline": "shop",
        "source": {"connector": "csv", "config": {"path": str(folder / "data"), **source}},
        "destination": destination or {"connector": "duckdb", "config": {"path": str(folder / "w.duckdb")}},
        "streams": list(streams) or [{"stream": "*"}],
        "store": f"sqlite:///{folder / 'store.db'}",
    }
    return load_pipeline(config)


def write(folder: Path, name: str, text: str) -> None:
    path = folder / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def rows(folder: Path, sql: str) -> list[Any]:
    with duckdb.connect(folder / "w.duckdb", read_only=True) as connection:
        return connection.sql(sql).fetchall()


def test_a_stream_without_files_is_an_error_unless_it_is_optional(tmp_path: Path) -> None:
    write(tmp_path, "met/1.csv", "a\n1\n")
    streams = {"met": "met/*.csv", "gone": ["gone/*.csv", "x.csv"]}
    with pytest.raises(ConfigError, match=r"gone/\*\.csv and .*x\.csv matches no file; `optional: true`"):
        run_pipeline(shop(tmp_path, {"stream": "*"}, streams=streams))
    assert run_pipeline(shop(tmp_path, {"stream": "met"}, streams=streams)).status == "success"
    optional = shop(tmp_path, {"stream": "*"}, {"stream": "gone", "optional": True}, streams=streams)
    result = run_pipeline(optional)
    assert (result.status, [stream.stream for stream in result.streams]) == ("success", ["met"])
    with opened(optional) as session:
        assert any(
            "'gone' is skipped" in text and "matches no file" in text for text in make_plan(session, None).warnings
        )


def test_an_empty_folder_is_named_with_the_pattern_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(ConfigError, match=rf"{tmp_path}/data has no file \*\.csv or \*\.tsv"):
        run_pipeline(shop(tmp_path, {"stream": "*"}))


def test_a_new_column_of_a_later_file_follows_on_schema_change(tmp_path: Path) -> None:
    write(tmp_path, "met/1.csv", "a\n1\n")
    streams = {"met": "met/*.csv"}
    run_pipeline(shop(tmp_path, streams=streams))
    write(tmp_path, "met/2.csv", "b,a\nx,2\n")
    frozen = run_pipeline(shop(tmp_path, {"stream": "met", "on_schema_change": "freeze"}, streams=streams))
    assert frozen.status == "failure"
    run_pipeline(shop(tmp_path, streams=streams))
    assert rows(tmp_path, "select a, b from met order by a") == [(1, None), (2, "x")]


@pytest.mark.parametrize("template", [None, "raw_{{ stream | table }}"])
def test_a_dot_in_a_files_name_is_no_schema(tmp_path: Path, template: str | None) -> None:
    write(tmp_path, "orders.2023.csv", "a\n1\n")
    write(tmp_path, "orders.2024.csv", "a\n2\n")
    entry = {"stream": "*"} if template is None else {"stream": "*", "destination_table": template}
    run_pipeline(shop(tmp_path, entry))
    start = "" if template is None else "raw_"
    assert rows(tmp_path, f"select * from {start}orders_2023 union all from {start}orders_2024") == [(1,), (2,)]


def test_a_stream_with_a_ledger_row_under_its_former_name_keeps_it(tmp_path: Path) -> None:
    write(tmp_path, "orders.2024.csv", "a\n1\n")
    entry = {
        "stream": "*",
        "replication_method": "INCREMENTAL",
        "bookmark_properties": ["a"],
        "write_disposition": "append",
    }
    run_pipeline(shop(tmp_path, entry))
    with duckdb.connect(tmp_path / "w.duckdb") as connection:  # as an earlier version wrote it
        connection.execute("update _syncblocks_ledger set stream = 'orders.2024'")
    (tmp_path / "store.db").unlink()
    write(tmp_path, "orders.2024.csv", "a\n1\n2\n")
    pipeline = shop(tmp_path, entry)
    with opened(pipeline) as session:
        plan = make_plan(session, None)
    (planned,) = plan.streams
    assert planned.key == LedgerKey(pipeline="shop", stream="orders.2024", destination_table="orders_2024")
    assert any("'orders.2024' goes on under this name" in text and "'orders_2024'" in text for text in plan.warnings)
    assert run_pipeline(pipeline).streams["orders.2024"].rows == 1
    assert rows(tmp_path, "select a from orders_2024 order by a") == [(1,), (2,)]


def test_a_run_whose_streams_all_have_no_files_succeeds(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "a\n1\n")
    result = run_pipeline(shop(tmp_path, {"stream": "*", "optional": True}, streams={"gone": "gone/*.csv"}))
    assert (result.status, list(result.streams)) == ("success", [])
