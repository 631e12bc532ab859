"""What only source or destination show is, after a first run, a recorded run that failed, and somebody is told."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from syncblocks import PipelineFailed, finish_run, load_pipeline, open_run, sync_stream
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.session.inspection import existing_store, opened
from syncblocks.sync.session.session import make_plan
from syncblocks.sync.store import Store
from tests.conftest import RunCLI
from tests.sync.pipelines import Bench, statuses

INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["u"]}


class Files(Bench):
    """A pipeline from one SQLite file into another."""

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        super().__init__(folder)
        self.sql = connection.execute
        self.document["source"] = {"block": "load", "connector": "sqlite", "config": {"path": "s.db"}}
        self.document["destination"] = {"block": "export", "connector": "sqlite", "config": {"path": "d.db"}}
        for name in ("a", "b"):
            self.sql(f"create table {name}(id integer primary key, u integer, v text)")
            self.sql(f"insert into {name} values (1, 1, 'x')")
        self.document["streams"] = [{"stream": "a"}, {"stream": "b"}]

    def in_destination(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.folder / "d.db", isolation_level=None)) as connection:
            for sql in statements:
                connection.execute(sql)

    def runs(self) -> int:
        url = f"sqlite:///{self.folder}/.syncblocks/store.db"
        if not Store.exists(url):
            return 0
        with Store.open(url) as store:
            return len(store.runs("bench"))


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    with closing(sqlite3.connect(tmp_path / "s.db", isolation_level=None)) as connection:
        yield Files(tmp_path, connection)


def rename(files: Files) -> None:
    files.sql("alter table a rename column u to w")


def drop_key(files: Files) -> None:
    files.sql("drop table a")
    files.sql("create table a(id integer, u integer, v text)")


def drop_column(files: Files) -> None:
    files.sql("alter table a drop column v")


def add_own_column(files: Files) -> None:
    files.sql("alter table a add column mine text")


def put_view(files: Files) -> None:
    files.in_destination("drop table a", "create view a as select 1 as id")


def drop_table(files: Files) -> None:
    files.sql("drop table a")


#: Settings of stream a, what changes, whose block fails, and a part of the message.
CHANGES: dict[str, tuple[dict[str, Any], Callable[[Files], None], str, str]] = {
    "bookmark": (INCREMENTAL, rename, "load", "'u' is no column"),
    "key": ({"write_disposition": "merge"}, drop_key, "load", "merge needs key_properties"),
    "derived key": ({**INCREMENTAL, "lookback": 1}, drop_key, "load", "`append` would double them"),
    "included column": ({"columns": {"include": ["id", "v"]}}, drop_column, "load", "'v' matches no column"),
    "masked column": ({"columns": {"mask": {"v": "hash"}}}, drop_column, "load", "'v' matches no column"),
    "filtered column": ({"where": {"v": "x"}}, drop_column, "load", "'v' is no column"),
    "checked column": ({"checks": {"v": "x"}}, drop_column, "load", "'v' is no column"),
    "added column": ({"add_columns": {"mine": "1"}}, add_own_column, "load", "the stream has a column 'mine'"),
    "view": ({}, put_view, "export", "is no table of the destination"),
    "table": ({}, drop_table, "load", "'a' matches no stream"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_a_recorded_run_that_tells_somebody(files: Files, name: str) -> None:
    settings, change, _, text = CHANGES[name]
    files.document["streams"][0] |= settings
    files.document["mask_key"] = "k" * 40
    files.record(on=["load", "export", "pipeline"])
    assert files.run().status == "success"
    log = len(files.calls())
    change(files)
    result = files.run(inline_callbacks=True)
    assert (result.run_id, result.status, result.exit_code, result.streams) == (2, "failure", 1, ())
    assert text in str(result.error)
    (call,) = files.calls()[log:]
    assert (call["parent_block_uuid"], call["status"], text in call["error"]) == ("pipeline", "failure", True)
    result = files.run(retry=True, inline_callbacks=True)
    assert (result.run_id, result.exit_code) == (2, 1)


@pytest.mark.parametrize("name", CHANGES)
def test_where_blocks_may_fail_only_the_stream_fails(files: Files, name: str) -> None:
    settings, change, block, text = CHANGES[name]
    files.document["allow_blocks_to_fail"] = True
    files.document["streams"][0] |= settings
    files.document["mask_key"] = "k" * 40
    files.record(on=["load", "export", "pipeline"])
    assert files.run().status == "success"
    log = len(files.calls())
    change(files)
    result = files.run(inline_callbacks=True)
    assert (result.exit_code, statuses(result)) == (1, {"a": "failure", "b": "success"})
    assert text in str(result.streams["a"].error)
    calls = files.calls()[log:]
    assert [(c["parent_block_uuid"], c["status"], c["index"]) for c in calls if c["stream"] == "a"] == [
        (each, "failure" if each == block else "cancelled", 0) for each in ("load", "export")
    ]
    last = {c["parent_block_uuid"]: c["index"] for c in calls if c["is_last_block_run"]}
    assert last == {"load": 1, "export": 1}
    assert [(c["status"], c["stream"]) for c in calls if c["parent_block_uuid"] == "pipeline"] == [("failure", None)]


def test_what_comes_back_goes_on_where_it_was(files: Files) -> None:
    """The refused runs leave neither shape nor bookmark behind."""
    files.document["allow_blocks_to_fail"] = True
    files.document["streams"][0] |= {**INCREMENTAL, "on_schema_change": "freeze"}
    assert files.run().status == "success"
    rename(files)
    assert files.run().exit_code == 1
    files.sql("alter table a rename column w to u")
    files.sql("insert into a values (2, 2, 'y')")
    result = files.run()
    assert (result.status, result.streams["a"].records) == ("success", 1)


@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize("name", CHANGES)
def test_a_pipeline_that_never_ran_records_nothing(files: Files, name: str, in_turn: bool) -> None:
    settings, change, _, text = CHANGES[name]
    files.document["allow_blocks_to_fail"] = in_turn
    files.document["streams"][0] |= settings
    files.document["mask_key"] = "k" * 40
    if name == "view":
        files.in_destination("create view a as select 1 as id")
    else:
        change(files)
    with pytest.raises(ConfigError) as raised:
        files.run()
    assert text in str(raised.value)
    assert files.runs() == 0


@pytest.mark.parametrize("in_turn", [False, True])
@pytest.mark.parametrize(
    ("streams", "options"),
    [
        ([{"stream": "a", "replication_method": "INCREMENTAL"}], {}),
        ([{"stream": "a", **INCREMENTAL, "write_disposition": "replace"}], {}),
        ([{"stream": "a", **INCREMENTAL, "lookback": 1, "write_disposition": "append"}], {}),
        ([{"stream": "a", "latest_by": "u"}], {}),
        ([{"stream": "a", **INCREMENTAL, "limit": 3, "deletes": "hard"}], {}),
        ([{"stream": "a", "write_disposition": "replace_range"}], {}),
        ([{"stream": "a", "types": {"v": "nonsense"}}], {}),
        ([{"stream": "a", "when": "stream < 3"}], {}),
        ([{"stream": "a", "destination_table": "t"}, {"stream": "b", "destination_table": "t"}], {}),
        ([{"stream": "a"}, {"stream": "b"}], {"streams": ["nothing"]}),
        ([{"stream": "a"}, {"stream": "b"}], {"tags": ["nothing"]}),
        ([{"stream": "a"}, {"stream": "b"}], {"bookmarks": {"a": {"u": "1"}}}),
        ([{"stream": "a"}, {"stream": "b"}], {"deletes": True}),
    ],
)
def test_what_file_or_command_show_alone_is_a_mistake_as_ever(
    files: Files, streams: list[dict[str, Any]], options: dict[str, Any], in_turn: bool
) -> None:
    files.document["allow_blocks_to_fail"] = in_turn
    assert files.run().status == "success"
    files.document["streams"] = streams
    with pytest.raises(ConfigError):
        files.run(**options)
    assert files.runs() == 1


def test_plan_says_which_stream_will_fail(files: Files) -> None:
    files.document["allow_blocks_to_fail"] = True
    files.document["streams"][0] |= INCREMENTAL
    assert files.run().status == "success"
    rename(files)
    pipeline = load_pipeline(files.write())
    with existing_store(pipeline) as store, opened(pipeline) as session:
        plan = make_plan(session, store)
    assert [bool(each.verdict.refusal) for each in plan.streams] == [True, False]
    assert "did you mean" not in plan.streams[0].verdict.refusal
    assert "bench.yaml:" in plan.streams[0].verdict.refusal
    assert "streams[0].bookmark_properties" in plan.streams[0].verdict.refusal


def test_a_renamed_column_of_a_transformer_fails_its_streams(files: Files) -> None:
    files.document["allow_blocks_to_fail"] = True
    files.document["transformers"] = [{"block": "names", "rename": {"v": "value"}, "streams": ["a"]}]
    assert files.run().status == "success"
    drop_column(files)
    result = files.run()
    assert (result.exit_code, statuses(result)) == (1, {"a": "failure", "b": "success"})
    assert "no stream of block 'names' has a column 'v'" in str(result.streams["a"].error)


def test_a_mapped_run_is_recorded_or_its_task_fails(files: Files) -> None:
    files.document["streams"][0] |= {"columns": {"include": ["id", "v"]}}
    assert files.run().status == "success"
    drop_column(files)
    with pytest.raises(PipelineFailed, match="'v' matches no column"):
        open_run(files.write())
    assert files.runs() == 2
    files.document["allow_blocks_to_fail"] = True
    held = open_run(files.write())
    assert held.streams == ("a", "b")
    results = {name: sync_stream(files.write(), held.id, name) for name in held.streams}
    assert {name: result.status for name, result in results.items()} == {"a": "failure", "b": "success"}
    assert "'v' matches no column" in str(results["a"].error)
    assert finish_run(files.write(), held.id).exit_code == 1


def test_sync_records_it_too(tmp_path: Path, run_cli: RunCLI) -> None:
    command = ["sync", "s.db", "d.db", "--incremental", "u", "--yes"]
    with closing(sqlite3.connect(tmp_path / "s.db", isolation_level=None)) as connection:
        connection.execute("create table a(id integer primary key, u integer)")
        done = run_cli(command, tmp_path)
        assert done.returncode == 0, done.stderr
        connection.execute("alter table a rename column u to w")
        done = run_cli(command, tmp_path)
    assert done.returncode == 1, done.stderr
    assert "'u'" in done.stdout + done.stderr
    assert "run 2: failure" in done.stdout
