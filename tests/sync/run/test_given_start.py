"""Where an INCREMENTAL run starts: at what the command line gives, and at or above the bookmark."""

from __future__ import annotations

import json
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from syncblocks import load_pipeline, run_pipeline
from syncblocks.connectors.memory import database
from syncblocks.sync.errors import ConfigError
from tests.conftest import RunCLI

INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["day"], "key_properties": ["id"]}
ABOVE = {"bookmark_property_operators": {"day": ">"}}


class Bench:
    """Orders in a DuckDB file, copied to another one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source("create table orders (id int, day date, note varchar)")
        self.source("insert into orders select i, date '2026-01-01' + i::int, 'old' from range(1, 6) as r(i)")

    def source(self, statement: str) -> None:
        with closing(duckdb.connect(self.folder / "source.db")) as database:
            database.execute(statement)

    def file(self, **stream: Any) -> Path:
        path = self.folder / "orders.yaml"
        path.write_text(
            json.dumps(
                {
                    "pipeline": "orders",
                    "source": {"connector": "duckdb", "config": {"path": "source.db"}},
                    "destination": {"connector": "duckdb", "config": {"path": "out.db"}},
                    "streams": [{"stream": "orders", **INCREMENTAL, **stream}],
                }
            )
        )
        return path

    def run(self, **stream: Any) -> None:
        result = run_pipeline(self.file(**stream))
        assert result.status == "success", result.streams[0].error

    def notes(self) -> list[tuple[int, str]]:
        with closing(duckdb.connect(self.folder / "out.db")) as database:
            return database.execute("select id, note from orders order by all").fetchall()

    def bookmark(self) -> str:
        with closing(duckdb.connect(self.folder / "out.db")) as database:
            ((found,),) = database.execute("select bookmark from _syncblocks_ledger").fetchall()
        return str(json.loads(found)["day"])


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.full
def test_a_run_that_starts_below_leaves_the_bookmark_where_it_was(bench: Bench, run_cli: RunCLI) -> None:
    bench.run()
    bench.source("update orders set note = 'new'")
    found = run_cli(["run", bench.file(), "--bookmark", "orders", "day=2026-01-04"], bench.folder)
    assert found.returncode == 0, found.stderr
    assert bench.notes() == [(1, "old"), (2, "old"), (3, "new"), (4, "new"), (5, "new")]
    assert bench.bookmark() == "2026-01-06"
    bench.source("insert into orders values (6, '2026-01-06', 'late')")
    bench.run()
    assert bench.notes()[-1] == (6, "late"), "what was at the bookmark is still known"


def test_a_run_may_start_past_the_bookmark(bench: Bench) -> None:
    result = run_pipeline(bench.file(), bookmarks={"orders": {"day": "2026-01-05"}})
    assert result.status == "success", result.streams[0].error
    assert bench.notes() == [(4, "old"), (5, "old")]


@pytest.mark.full
def test_a_value_of_another_type_is_a_mistake_of_the_command_line_and_no_run(bench: Bench, run_cli: RunCLI) -> None:
    """Also after an earlier run, where a mistake that lies in source or destination is a failed run."""
    file = bench.file()
    for runs in ([], [True]):
        found = run_cli(["run", file, "--bookmark", "orders", "day=yesterday"], bench.folder)
        assert found.returncode == 2, found.stderr
        assert "--bookmark orders: 'yesterday' is no value of column 'day' (date)" in found.stderr
        listed = run_cli(["runs", "list", file, "--json"], bench.folder)
        assert len(json.loads(listed.stdout)["runs"]) == len(runs), listed.stderr
        bench.run()


@pytest.mark.full
def test_an_append_is_not_started_below(bench: Bench) -> None:
    appended = {"write_disposition": "append"}
    bench.run(**appended)
    with pytest.raises(ConfigError, match="has been read up to day=2026-01-06: records below would be there twice"):
        run_pipeline(bench.file(**appended), bookmarks={"orders": {"day": "2026-01-04"}})
    bench.source("insert into orders values (6, '2026-01-06', 'late')")
    result = run_pipeline(bench.file(**appended), bookmarks={"orders": {"day": "2026-01-06"}})
    assert result.status == "success", result.streams[0].error
    assert [key for key, _ in bench.notes()] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("disposition", ["merge", "append"])
def test_another_try_begins_where_the_command_line_said(tmp_path: Path, disposition: str) -> None:
    name = uuid.uuid4().hex
    columns = {"id": "int64", "day": "int64", "note": "string"}

    def document(note: str, numbers: range, **source: Any) -> dict[str, Any]:
        records = [{"id": n, "day": n, "note": note} for n in numbers]
        tables = {"orders": {"columns": columns, "records": records, "key": ["id"]}}
        return {
            "pipeline": name,
            "retries": 1,
            "retry_delay_s": 0,
            "source": {
                "connector": "memory",
                "config": {"tables": tables, "batch_size": 1, "checkpoint_records": 1, **source},
            },
            "destination": {"connector": "memory", "config": {"database": name}},
            "streams": [{"stream": "orders", **INCREMENTAL, "write_disposition": disposition}],
        }

    assert run_pipeline(load_pipeline(document("old", range(1, 7)), folder=tmp_path)).status == "success"
    at, last = ("3", 6) if disposition == "merge" else ("8", 11)
    again = load_pipeline(document("new", range(1, last + 1), fail_at={"orders": 3}), folder=tmp_path)
    result = run_pipeline(again, bookmarks={"orders": {"day": at}})
    assert result.status == "success", result.streams[0].error
    found = sorted((record["id"], record["note"]) for record in database(name).tables["orders"].to_pylist())
    new = [(n, "new") for n in range(int(at), last + 1)]
    assert found == [*((n, "old") for n in range(1, min(int(at), 7))), *new]
    (row,) = database(name).ledger.values()
    assert row.bookmark is not None
    assert row.bookmark["day"] == last


@pytest.mark.parametrize(
    ("bookmarks", "message"),
    [
        ({"order": {"day": "2026-01-04"}}, "'order' is not a stream of this run.*did you mean 'orders'"),
        ({"orders": {"dai": "2026-01-04"}}, "'dai' is not a bookmark property.*did you mean 'day'"),
        ({"orders": {"day": "soon"}}, "'soon' is no value of column 'day'"),
    ],
)
def test_a_start_that_cannot_be_meant_is_refused(bench: Bench, bookmarks: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_pipeline(bench.file(), bookmarks=bookmarks)


@pytest.mark.full
def test_above_the_bookmark_leaves_out_what_has_come_to_be_at_it(bench: Bench) -> None:
    bench.run(**ABOVE)
    bench.source("insert into orders values (6, '2026-01-06', 'at it'), (7, '2026-01-07', 'above')")
    bench.run(**ABOVE)
    assert [key for key, _ in bench.notes()] == [1, 2, 3, 4, 5, 7]
    bench.run()
    bench.source("insert into orders values (8, '2026-01-07', 'at it')")
    bench.run()
    assert [key for key, _ in bench.notes()] == [1, 2, 3, 4, 5, 7, 8], "`>=` is the default"


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ({"bookmark_property_operators": {"day": "<="}}, "`where:` takes the other operators"),
        (
            {"bookmark_property_operators": {"dy": ">"}},
            "'dy' is not one of the bookmark_properties.*did you mean 'day'",
        ),
        ({**ABOVE, "lookback": 3600}, "contradict each other"),
        ({**ABOVE, "bookmark_properties": ["day", "id"]}, "compared together"),
    ],
)
def test_an_operator_that_cannot_be_meant_is_refused(bench: Bench, stream: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_pipeline(bench.file(**stream))
