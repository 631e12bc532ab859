"""INCREMENTAL by `_file_modified`: only files that are new or changed, each with its records in one transaction."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.connectors.files.local import LocalStorage
from syncblocks.connectors.files.tracking import file_read
from syncblocks.connectors.stream import Checkpoint, Load
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec
from syncblocks.sync.errors import ConfigError
from syncblocks.sync.session.inspection import opened
from syncblocks.sync.session.session import make_plan
from tests.conftest import RunCLI
from tests.sync.run.test_columns_by_case import config, records

DAY = datetime(2026, 4, 1, tzinfo=UTC)
APPEND = {"write_disposition": "append"}
MERGE = {"key_properties": ["id"]}
DUCKDB = {"connector": "duckdb", "config": {"path": "out.db"}}


class Bucket:
    """A folder of files, and a pipeline that reads those that are new."""

    def __init__(self, folder: Path, destination: Mapping[str, Any] = DUCKDB, **entry: Any) -> None:
        self.folder, self.destination = folder, destination
        self.source: dict[str, Any] = {"path": "data", "streams": {"t": "**/*.csv"}}
        self.entry = {
            "stream": "t",
            "replication_method": "INCREMENTAL",
            "bookmark_properties": ["_file_modified"],
            **(entry or APPEND),
        }

    def put(self, name: str, text: str, day: int = 0) -> None:
        path = self.folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        moment = (DAY + timedelta(days=day)).timestamp()
        os.utime(path, (moment, moment))

    def file(self, **entry: Any) -> Path:
        document = {
            "pipeline": "bucket",
            "source": {"connector": "csv", "config": self.source},
            "destination": self.destination,
            "streams": [{**self.entry, **entry}],
        }
        path = self.folder / "bucket.yaml"
        path.write_text(json.dumps(document))
        return path

    def run(self, *, full_refresh: bool = False, **entry: Any) -> RunResult:
        return run_pipeline(self.file(**entry), full_refresh=full_refresh)

    def rows(self, **entry: Any) -> int:
        """Run, and return how many records were written."""
        result = self.run(**entry)
        assert result.status == "success", result.streams
        return result.streams["t"].records or 0

    def ids(self) -> list[int]:
        return sorted(int(record["id"]) for record in records(self.destination, self.folder))


@pytest.mark.full
@pytest.mark.parametrize("system", ["duckdb", "postgres", "mysql", "jsonl"])
def test_each_file_is_read_once_whatever_its_time(tmp_path: Path, request: pytest.FixtureRequest, system: str) -> None:
    bucket = Bucket(tmp_path, config(system, request, tmp_path))
    bucket.put("a.csv", "id\n1\n", 5)
    bucket.put("b/b.csv", "id\n2\n3\n", 7)
    assert (bucket.rows(), bucket.rows()) == (3, 0)
    bucket.put("late.csv", "id,x\n4,y\n", 1)
    assert (bucket.rows(), bucket.rows()) == (1, 0)
    (tmp_path / "data/a.csv").unlink()
    assert (bucket.rows(), bucket.ids()) == (0, [1, 2, 3, 4])
    bucket.put("b/b.csv", "id\n2\n3\n5\n", 8)
    bucket.put("new.csv", "id\n6\n", 9)
    failed = bucket.run().streams["t"]
    assert failed.status == "failure"
    assert "b/b.csv has changed since it was read" in str(failed.error)
    assert "changed_files: append" in str(failed.error)
    assert bucket.ids() == [1, 2, 3, 4]
    assert (bucket.rows(changed_files="ignore"), bucket.ids()) == (1, [1, 2, 3, 4, 6])
    assert bucket.rows(changed_files="append") == 3
    assert (bucket.rows(), bucket.ids()) == (0, [1, 2, 2, 3, 3, 4, 5, 6])
    assert bucket.run(full_refresh=True).streams["t"].records == 5
    assert (bucket.rows(), bucket.ids()) == (0, [2, 3, 4, 5, 6])


@pytest.mark.full
def test_a_changed_file_is_merged_by_key(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path, **MERGE)
    bucket.put("a.csv", "id,v\n1,x\n2,x\n")
    bucket.rows()
    bucket.put("a.csv", "id,v\n1,y\n3,y\n", 1)
    assert (bucket.rows(), bucket.rows()) == (2, 0)
    assert {record["id"]: record["v"] for record in records(DUCKDB, tmp_path)} == {1: "y", 2: "x", 3: "y"}


def test_the_last_written_file_is_read_last(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path, **MERGE)
    for name, day in (("a", 2), ("b", 3), ("c", 1)):
        bucket.put(f"{name}.csv", f"id,v\n1,{name}\n", day)
    bucket.rows()
    assert [record["v"] for record in records(DUCKDB, tmp_path)] == ["b"]


@pytest.mark.full
def test_one_new_file_of_many_opens_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket(tmp_path)
    bucket.put("a.csv", "id\n1\n")
    bucket.rows()
    with opened(load_pipeline(bucket.file())) as session:
        (planned,) = make_plan(session, None).streams
        for number in range(2000):  # as if they had been read
            (tmp_path / f"data/{number}.csv").write_text("no CSV")
        found = [file_read(entry) for entry in LocalStorage(tmp_path / "data").entries()]
        load = Load(
            key=planned.key,
            stream=planned.arriving,
            write=WriteSpec(disposition=WriteDisposition.APPEND),
            token="x",
            run="x:1",
        )
        row = session.destination.take_over(planned.key, token="x", owner="test")
        final = Checkpoint(bookmark=row.bookmark, is_final=True, files=tuple(found))
        list(session.destination.load(load, iter([final])))
    listed: list[str] = []
    open_input, list_folder = LocalStorage.open_input, LocalStorage.listing
    touched: list[str] = []

    def opening(storage: LocalStorage, name: str) -> BinaryIO:
        touched.append(name)
        return open_input(storage, name)

    def listing(storage: LocalStorage, folder: str = "") -> Any:
        listed.append(folder)
        return list_folder(storage, folder)

    monkeypatch.setattr(LocalStorage, "open_input", opening)
    monkeypatch.setattr(LocalStorage, "listing", listing)
    bucket.put("new.csv", "id\n9999\n", -900)
    assert bucket.rows() == 1
    assert ({Path(name).name for name in touched}, listed) == ({"new.csv"}, [""])
    touched.clear()
    assert (bucket.rows(), touched) == (0, [])


@pytest.mark.full
def test_a_file_that_grows_while_it_is_read_fails_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = Bucket(tmp_path)
    bucket.source["checkpoint_records"] = 1
    bucket.put("a.csv", "id\n1\n", 1)
    bucket.put("b.csv", "id\n2\n", 2)
    check, grown = LocalStorage.entry, []

    def growing(storage: LocalStorage, name: str) -> Any:
        found = check(storage, name)
        if name == "b.csv" and not grown:  # after it was looked at, before it is read
            grown.append(name)
            with (tmp_path / "data/b.csv").open("a") as file:
                file.write("3\n")
        return found

    monkeypatch.setattr(LocalStorage, "entry", growing)
    failed = bucket.run().streams["t"]
    assert "b.csv changed while it was read" in str(failed.error)
    assert bucket.ids() == [1], "the commit of the file before stays"
    assert (bucket.rows(), bucket.ids()) == (2, [1, 2, 3])


def test_a_broken_file_is_the_failure_of_its_stream_alone(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path)
    bucket.source["streams"] = {"t": "t/*.csv", "u": "u/*.csv"}
    bucket.put("t/a.csv", "id\n1\n")
    bucket.put("u/a.csv", "id\n2\n")
    document = json.loads(bucket.file(stream="*").read_text()) | {"allow_blocks_to_fail": True}
    pipeline = load_pipeline(document, folder=tmp_path)
    assert run_pipeline(pipeline).status == "success"
    bucket.put("t/b.csv", "id\n3,4\n")
    bucket.put("u/b.csv", "id\n5\n")
    result = run_pipeline(pipeline)
    assert [(each.status, each.records) for each in result.streams] == [("failure", 0), ("success", 1)]
    assert "t/b.csv" in str(result.streams["t"].error)


@pytest.mark.full
def test_columns_of_new_files_join_those_that_are_known(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path, **MERGE, on_schema_change="freeze")
    bucket.source["file_columns"] = True
    bucket.put("a.csv", "id,a,b\n1,x,2\n", 1)
    bucket.rows()
    bucket.put("b.csv", "id,a\n2,y\n", 2)
    assert bucket.rows() == 1, "a file may lack a column"
    bucket.put("c.csv", "id,c\n3,z\n", 3)
    assert bucket.run().status == "failure"
    assert bucket.rows(on_schema_change="evolve") == 1
    bucket.put("d.csv", "id\n4\n", 4)
    assert bucket.rows() == 1
    found = {record["id"]: record for record in records(DUCKDB, tmp_path)}
    assert [found[number].get(name) for number, name in ((1, "b"), (2, "a"), (3, "c"), (4, "_file"))] == [
        2, "y", "z", "d.csv"
    ]  # fmt: skip


def test_no_file_is_no_error_once_files_were_read(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(ConfigError, match="matches no file"):
        bucket.run()
    bucket.put("a.csv", "id\n1\n")
    bucket.rows()
    (tmp_path / "data/a.csv").unlink()
    assert bucket.run().status == "success"
    assert bucket.ids() == [1]


@pytest.mark.full
def test_a_table_that_is_gone_is_read_anew(tmp_path: Path) -> None:
    import duckdb

    bucket = Bucket(tmp_path)
    bucket.put("a.csv", "id\n1\n")
    bucket.rows()
    with duckdb.connect(tmp_path / "out.db") as connection:
        connection.execute("drop table t")
    bucket.put("b.csv", "id\n2\n")
    assert (bucket.rows(), bucket.rows(), bucket.ids()) == (2, 0, [1, 2])


@pytest.mark.full
def test_state_rewind_forgets_files_by_time_or_name(tmp_path: Path, run_cli: RunCLI) -> None:
    bucket = Bucket(tmp_path, **MERGE)
    for day in range(1, 5):
        bucket.put(f"d{day}.csv", f"id\n{day}\n", day)
    bucket.rows()
    file = bucket.file()

    def rewind(*options: str) -> tuple[int, str]:
        done = run_cli(["state", "rewind", *options, str(file), "t"], tmp_path)
        return done.returncode, done.stdout + done.stderr

    code, text = rewind("--to", "2026-04-04")
    assert (code, "reads again: d3.csv, d4.csv" in text) == (0, True), text
    assert bucket.rows() == 2
    code, text = rewind("--files", "d[12].csv")
    assert (code, bucket.rows()) == (0, 2)
    assert rewind("--files", "nothing*")[0] == 2
    assert rewind("--to", "yesterday")[0] == 2
    assert rewind("--by", "1d")[0] == 2
    done = run_cli(["state", "set", str(file), "t", "_file_modified=2026-04-04"], tmp_path)
    assert (done.returncode, "reads the files that are new" in done.stderr) == (2, True)
    assert run_cli(["state", "reset", str(file), "t"], tmp_path).returncode == 0
    assert bucket.rows() == 4


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"lookback": 3, **MERGE}, "lookback.*is not for"),
        ({"null_bookmarks": "once"}, "null_bookmarks.*is not for"),
        ({"bookmark_properties": ["_file_modified", "id"]}, "stands alone"),
        ({"changed_files": "append", **MERGE}, "merge replaces the records"),
        ({"bookmark_properties": ["id"], "changed_files": "ignore"}, "changed_files.*needs INCREMENTAL"),
    ],
)
def test_what_files_do_not_have_is_refused(tmp_path: Path, entry: dict[str, Any], why: str) -> None:
    bucket = Bucket(tmp_path)
    bucket.put("a.csv", "id\n1\n")
    disposition = {"write_disposition": "merge"} if "key_properties" in entry else {}
    pipeline = load_pipeline(bucket.file(**{**disposition, **entry}))
    with opened(pipeline) as session, pytest.raises(ConfigError, match=why):
        make_plan(session, None)


def test_a_source_or_a_destination_that_cannot_is_told_so(tmp_path: Path) -> None:
    entry = {"replication_method": "INCREMENTAL", "bookmark_properties": ["_file_modified"], **APPEND}
    pipeline = load_pipeline(
        {
            "pipeline": "told",
            "source": {"connector": "memory", "config": {"tables": {"t": {"columns": {"id": "int64"}}}}},
            "destination": {"connector": "memory", "config": {"database": "told"}},
            "streams": [{"stream": "t", **entry}],
        }
    )
    with opened(pipeline) as session, pytest.raises(ConfigError, match="'_file_modified' is no column"):
        make_plan(session, None)
    bucket = Bucket(tmp_path, {"connector": "singer", "config": {"executable": "true"}})
    bucket.put("a.csv", "id\n1\n")
    with opened(load_pipeline(bucket.file())) as session, pytest.raises(ConfigError, match="singer does not"):
        make_plan(session, None)
