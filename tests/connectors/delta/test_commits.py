"""A commit carries data and ledger row, whatever others write in between; one that was taken over carries nothing."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from syncblocks.connectors.delta.destination import DeltaDestination
from syncblocks.connectors.delta.storage import translated
from syncblocks.connectors.errors import ConnectorConfigError, FatalConnectorError, RetriableError, TableLost, TakenOver
from syncblocks.connectors.stream import Checkpoint, Event, Load
from syncblocks.connectors.struct_helpers import replace
from tests.connectors.delta.delta_loads import FINAL, ITEMS, begin, destination_of, items, load_of, run
from tests.connectors.delta.delta_tables import opened, plain_table, read_table, table_names, unnamed_files
from tests.connectors.delta.disturbances import disturbed
from tests.file_limit import file_limit

DISPOSITIONS = pytest.mark.parametrize("disposition", ["append", "merge", "replace"])


def held(folder: Path) -> list[tuple[int, str | None]]:
    """Return the records, in which the library and the plain files agree."""
    plain = sorted((row["id"], row["name"]) for row in plain_table(folder, "items") or [])
    assert plain == sorted((row["id"], row["name"]) for row in read_table(folder, "items") or [])
    return plain


def table_of(folder: Path) -> DeltaTable:
    table = opened(folder, "items")
    assert table is not None
    return table


def foreign(folder: Path, *records: tuple[int, str | None]) -> None:
    write_deltalake(table_of(folder), pa.Table.from_batches([items(*records)]), mode="append")


def fail_at(monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    monkeypatch.setattr("syncblocks.connectors.failpoints._ON", True)
    monkeypatch.setattr("syncblocks.connectors.failpoints._ARMED", point)
    monkeypatch.setattr("syncblocks.connectors.failpoints._hits", Counter())


@DISPOSITIONS
@pytest.mark.parametrize("is_begun", [False, True])
def test_of_two_writers_with_one_row_only_the_later_takeover_commits(
    tmp_path: Path, disposition: str, is_begun: bool
) -> None:
    if is_begun:
        run(destination_of(tmp_path), load_of(disposition, "t0"), items((0, "old")), FINAL)
    zombie = begin(destination_of(tmp_path), load_of(disposition, "t1"), [items((1, "zombie")), FINAL])
    row = destination_of(tmp_path).take_over(load_of(disposition, "t2").key, token="t2", owner="the second", source="s")
    with pytest.raises(TakenOver, match="taken over by the second"):
        list(zombie)
    assert row.token == "t2"
    assert held(tmp_path) == ([(0, "old")] if is_begun else [])
    assert unnamed_files(tmp_path, "items") == set()


@DISPOSITIONS
def test_a_takeover_between_look_and_commit_wins(tmp_path: Path, disposition: str) -> None:
    """The zombie has read its own token, and has planned its commit on that version."""
    run(destination_of(tmp_path), load_of(disposition, "t0"), items((0, "old")), FINAL)
    wider = pa.schema([*ITEMS, ("more", pa.int64())])
    batch = pa.RecordBatch.from_pylist([{"id": 1, "name": "zombie", "more": 1}], schema=wider)

    def take_over(*_: Any) -> None:
        destination_of(tmp_path).take_over(load_of(disposition, "t2").key, token="t2", owner="the second", source="s")

    zombie = replace(load_of(disposition, "t1", wider), announce=take_over)
    with pytest.raises(TakenOver):
        run(destination_of(tmp_path), zombie, batch, FINAL)
    assert held(tmp_path) == [(0, "old")]


@DISPOSITIONS
@pytest.mark.parametrize("point", ["before", "after"])
@pytest.mark.parametrize("hit", [1, 2])
def test_a_commit_whose_answer_is_lost_is_made_once(
    tmp_path: Path, disposition: str, point: str, hit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`after`: it has landed, and the caller hears of a broken connection; the first one is of the takeover."""
    run(destination_of(tmp_path), load_of(disposition, "t0"), items((0, "old")), FINAL)
    monkeypatch.setattr("syncblocks.connectors.delta.table._FINAL", frozenset())  # here the error is of a network
    fail_at(monkeypatch, f"delta.commit.{point}:{hit}:enospc")
    (commit,) = run(destination_of(tmp_path), load_of(disposition, "t1"), items((1, "new")), FINAL)
    assert (commit.records, held(tmp_path)) == (
        1,
        [(1, "new")] if disposition == "replace" else [(0, "old"), (1, "new")],
    )
    versions = [each.get("_syncblocks") for each in table_of(tmp_path).history()]
    assert len(versions) == len(set(versions)) == 4, "two takeovers, two commits"


def test_a_full_disk_ends_the_load_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    destination, load = destination_of(tmp_path), load_of("append", "t1")
    commits = begin(destination, load, [items((1, "new")), FINAL])
    fail_at(monkeypatch, "delta.commit.before:1:enospc")
    with pytest.raises(FatalConnectorError, match="No space left"):
        list(commits)
    assert unnamed_files(tmp_path, "items") == set()


@pytest.mark.parametrize("group_bytes", [1, 1 << 30], ids=["during a batch", "at the end of the file"])
def test_a_data_file_without_room_names_the_disk_and_gives_its_space_back(tmp_path: Path, group_bytes: int) -> None:
    schema = pa.schema([("id", pa.int64()), ("name", pa.string())])
    texts = [f"{number * 2**200:0100x}" for number in range(20_000)]
    batch = pa.RecordBatch.from_pydict({"id": range(20_000), "name": texts}, schema=schema)
    destination, load = destination_of(tmp_path), load_of("append", "t1")
    destination._group_bytes = group_bytes
    run(destination, load_of("append", "t0"), items((0, "old")), FINAL)
    with file_limit(100_000), pytest.raises(FatalConnectorError, match="File too large"):
        list(begin(destination, load, [batch, FINAL]))
    assert unnamed_files(tmp_path, "items") == set()
    opened_files = [os.path.realpath(each) for each in Path("/proc/self/fd").glob("*")]
    assert not [each for each in opened_files if ".parquet" in each], "a deleted file that is open keeps its space"


@pytest.mark.parametrize("disposition", ["append", "merge"])
@pytest.mark.parametrize("point", ["before", "after"])
def test_a_table_that_becomes_wider_keeps_what_others_write_in_between(
    tmp_path: Path, disposition: str, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer is lost, and a compaction or an append of another comes before the second try."""
    wider = pa.schema([("id", pa.int64()), ("name", pa.string()), ("n", pa.int64())])
    narrow = wider.set(2, pa.field("n", pa.int32()))
    for number in (0, 1):
        batch = pa.RecordBatch.from_pylist([{"id": number, "name": "old", "n": number}], schema=narrow)
        run(destination_of(tmp_path), load_of(disposition, f"t{number}", narrow), batch, FINAL)
    monkeypatch.setattr("syncblocks.connectors.delta.table._FINAL", frozenset())
    fail_at(monkeypatch, f"delta.commit.{point}:2:enospc")
    record = pa.Table.from_pylist([{"id": 9, "name": "foreign", "n": None}], schema=narrow)
    others: list[Callable[[], Any]] = [
        lambda: table_of(tmp_path).optimize.compact(),
        lambda: write_deltalake(table_of(tmp_path), record, mode="append"),
        lambda: table_of(tmp_path).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False),
    ]

    def pause(_: float) -> None:
        if others:
            others.pop(0)()

    monkeypatch.setattr("syncblocks.connectors.delta.table.time.sleep", pause)
    monkeypatch.setattr("syncblocks.connectors.delta.load.failpoint", lambda _: pause(0))
    batch = pa.RecordBatch.from_pylist([{"id": 2, "name": "new", "n": 2**40}], schema=wider)
    run(destination_of(tmp_path), load_of(disposition, "t2", wider), batch, FINAL)
    assert others == []
    assert held(tmp_path) == [(0, "old"), (1, "old"), (2, "new"), (9, "foreign")]
    assert sorted(row["n"] for row in read_table(tmp_path, "items") or [] if row["n"] is not None) == [0, 1, 2**40]
    assert [name for name in unnamed_files(tmp_path, "items") if not name.startswith("part-00000-")] == [], "of ours"


@pytest.mark.full
@DISPOSITIONS
def test_foreign_appends_and_compactions_at_any_moment_lose_and_double_nothing(
    tmp_path: Path, disposition: str
) -> None:
    """Of a replace a foreign append is lost or stays as a whole, as if one came after the other."""
    destination = destination_of(tmp_path)
    run(destination, load_of(disposition, "t0"), items((0, "0")), FINAL)
    added, stop, permits = list[int](), threading.Event(), threading.Semaphore(0)

    def others() -> None:
        for number in range(1000, 2000):
            permits.acquire()
            if stop.is_set():
                return
            with suppress(CommitFailedError):  # ours came first
                foreign(tmp_path, (number, "foreign"))
                added.append(number)
                if number % 4 == 0:
                    table_of(tmp_path).optimize.compact()

    def commits() -> Iterator[Event]:
        for number in range(1, 25):
            yield items((number, "first"), (number, f"{number}"))
            permits.release(3)
            if disposition != "replace":
                yield Checkpoint(bookmark={"n": number})
        yield FINAL

    thread = threading.Thread(target=others)
    thread.start()
    try:
        list(begin(destination, load_of(disposition, "t1"), commits()))
    finally:
        stop.set()
        permits.release()
        thread.join()
    found = held(tmp_path)
    mine = [each for each in found if each[1] != "foreign"]
    if disposition == "append":
        assert mine == sorted([(0, "0"), *((n, "first") for n in range(1, 25)), *((n, str(n)) for n in range(1, 25))])
    elif disposition == "merge":
        assert mine == [(n, str(n)) for n in range(25)]
    else:
        assert len(mine) == 48
    others_found = [each[0] for each in found if each[1] == "foreign"]
    assert len(others_found) == len(set(others_found))
    assert disposition == "replace" or others_found == added
    assert [name for name in unnamed_files(tmp_path, "items") if not name.startswith("part-00000-")] == [], "of ours"


@pytest.mark.full
@DISPOSITIONS
def test_whoever_clears_up_a_table_under_a_load_takes_nothing(tmp_path: Path, disposition: str) -> None:
    done = disturbed(lambda: destination_of(tmp_path), (tmp_path / "items").as_uri(), {}, disposition)
    assert done["zombie refused"]
    others = {"append", "optimize", "vacuum", "checkpoint", "log cleanup"}
    assert disposition == "replace" or done.keys() >= others, "a replace has one commit"


@pytest.mark.full
def test_streams_that_share_a_table_wait_for_each_other(tmp_path: Path) -> None:
    def loads(stream: str) -> None:
        events: list[Event] = []
        for number in range(8):
            events += [items((number, stream)), Checkpoint(bookmark={"n": number})]
        run(destination_of(tmp_path), load_of("append", stream, stream=stream), *events, FINAL)

    threads = [threading.Thread(target=loads, args=(f"s{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert held(tmp_path) == sorted((number, f"s{stream}") for number in range(8) for stream in range(4))
    rows = destination_of(tmp_path).describe(["items"])["items"].ledger
    assert sorted((row.key.stream, row.rows) for row in rows) == [(f"s{number}", 8) for number in range(4)]


def test_files_of_a_commit_that_may_still_land_are_left_to_the_next_takeover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The load gives up; its last request may be on its way to the store, and names the files."""
    destination = destination_of(tmp_path)
    run(destination, load_of("append", "t0"), items((0, "old")), FINAL)
    commits = begin(destination, load_of("append", "t1"), [items((1, "new")), FINAL])
    log = tmp_path / "items" / "_delta_log"
    monkeypatch.setattr("syncblocks.connectors.delta.table.TRIES", 1)
    (log / f"{3:020}.json").mkdir()
    with pytest.raises((RetriableError, FatalConnectorError)):
        list(commits)
    (log / f"{3:020}.json").rmdir()
    assert len(unnamed_files(tmp_path, "items")) == 2, "a data file, and the list that has it"
    destination.take_over(load_of("append", "t2").key, token="t2", owner="next", source="s")
    assert unnamed_files(tmp_path, "items") == set()
    assert held(tmp_path) == [(0, "old")]


@DISPOSITIONS
def test_files_that_a_vacuum_takes_before_their_commit_are_not_named_by_it(
    tmp_path: Path, disposition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncblocks.connectors.delta.table.TRIES", 2)
    run(destination_of(tmp_path), load_of(disposition, "t0"), items((0, "old")), FINAL)

    wider = pa.schema([*ITEMS, ("n", pa.int64())])

    def vacuum(*_: Any) -> None:
        table_of(tmp_path).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True)

    def events() -> Iterator[Event]:
        yield items((1, "new"))
        yield load_of(disposition, "t1", wider).stream
        yield pa.RecordBatch.from_pylist([{"id": 2, "name": "new", "n": 1}], schema=wider)
        yield FINAL

    load = replace(load_of(disposition, "t1"), announce=vacuum)
    destination = destination_of(tmp_path)
    destination.take_over(load.key, token="t1", owner="o", source="s")
    if disposition != "merge":  # which writes its files later
        with pytest.raises(RetriableError, match=r"deleted .*VACUUM"):
            list(destination.load(load, events()))
        assert held(tmp_path) == [(0, "old")]
        load = replace(load, announce=lambda *_: None)
    list(destination.load(load, events()))
    expected = [] if disposition == "replace" else [(0, "old")]
    assert held(tmp_path) == [*expected, (1, "new"), (2, "new")]


# RESTORE, and tables that go


def test_after_a_restore_the_stream_stops_until_somebody_decides(tmp_path: Path) -> None:
    destination, load = destination_of(tmp_path), load_of("append", "t0")
    run(destination, load, items((1, "a")), Checkpoint(bookmark={"n": 1}), items((2, "b")), FINAL)
    foreign(tmp_path, (9, "foreign"))
    assert not destination.describe(["items"])["items"].rolled_back, "an append of another is no rollback"
    table_of(tmp_path).restore(1)
    assert destination.describe(["items"])["items"].rolled_back == {load.key}
    with pytest.raises(FatalConnectorError, match="rolled back by RESTORE"):
        run(destination, load_of("append", "t1"), items((3, "c")), FINAL)
    destination.set_bookmark(load.key, {"n": 1})
    assert not destination.describe(["items"])["items"].rolled_back
    run(destination, load_of("append", "t2"), items((2, "b")), FINAL)
    assert held(tmp_path) == [(1, "a"), (2, "b")]


def test_a_restore_during_a_load_stops_it(tmp_path: Path) -> None:
    commits = begin(
        destination_of(tmp_path),
        load_of("append", "t0"),
        [items((1, "a")), Checkpoint(bookmark={"n": 1}), items((2, "b")), Checkpoint(bookmark={"n": 2}), FINAL],
    )
    next(commits)
    next(commits)
    table_of(tmp_path).restore(1)
    with pytest.raises(FatalConnectorError, match="rolled back"):
        list(commits)


def test_a_table_that_is_dropped_or_made_anew_on_the_way_is_lost(tmp_path: Path) -> None:
    def load(token: str) -> Load:
        return replace(
            load_of("append", token), begun_in=destination_of(tmp_path).describe(["items"])["items"].identity
        )

    run(destination_of(tmp_path), load_of("append", "t0"), items((1, "a")), FINAL)
    mine = load("t1")
    commits = begin(destination_of(tmp_path), mine, [items((2, "b")), FINAL])
    (tmp_path / "items").rename(tmp_path / "elsewhere")
    with pytest.raises(TableLost, match="dropped"):
        list(commits)
    commits = begin(destination_of(tmp_path), mine, [items((2, "b")), FINAL])
    with pytest.raises(TableLost, match="dropped"):
        list(commits)
    run(destination_of(tmp_path), load_of("append", "t2"), items((3, "c")), FINAL)
    with pytest.raises(TableLost, match="made anew"):
        list(begin(destination_of(tmp_path), mine, [items((2, "b")), FINAL]))
    assert held(tmp_path) == [(3, "c")]


# The ledger's files


def test_a_row_has_one_file_and_survives_a_checkpoint_and_vacuum(tmp_path: Path) -> None:
    destination, load = destination_of(tmp_path), load_of("append", "t0")
    for number in range(5):
        run(
            destination,
            replace(load, token=f"t{number}"),
            items((number, "x")),
            Checkpoint(bookmark={"n": number}, is_final=True),
        )
    table = table_of(tmp_path)
    table.optimize.compact()
    table.create_checkpoint()
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False, full=True)
    (row,) = destination.describe(["items"])["items"].ledger
    assert (row.bookmark, row.rows) == ({"n": 4}, 1)
    assert len(list((tmp_path / "items").glob("_syncblocks/*/*.json"))) == 1
    assert len(read_table(tmp_path, "items") or []) == 5


def test_a_row_whose_file_is_lost_is_no_row(tmp_path: Path) -> None:
    destination = destination_of(tmp_path)
    run(destination, load_of("append", "t0"), items((1, "a")), FINAL)
    (file,) = (tmp_path / "items").glob("_syncblocks/*/*.json")
    file.write_text("{")
    with pytest.raises(FatalConnectorError, match=r"_syncblocks.*is damaged"):
        destination.describe(["items"])
    file.unlink()
    assert destination.describe(["items"])["items"].ledger == ()
    run(destination, load_of("append", "t1"), items((2, "b")), FINAL)
    assert held(tmp_path) == [(1, "a"), (2, "b")]


def test_what_a_killed_load_has_written_is_deleted_by_recovery(tmp_path: Path) -> None:
    destination = destination_of(tmp_path)
    run(destination, load_of("append", "t0"), items((1, "a")), FINAL)
    commits = begin(
        destination,
        load_of("append", "t1"),
        [items((2, "b")), Checkpoint(bookmark={"n": 1}), items(*((n, "x" * 1000) for n in range(100))), FINAL],
    )
    next(commits)
    path = tmp_path / "items"
    (path / "part-dead.parquet").write_bytes(b"")
    live = next(path.glob("part-*.snappy.parquet")).name
    (path / "_syncblocks" / "written" / "t1.json").write_text(f'["part-dead.parquet", "{live}"]')
    (path / "part-foreign.parquet").write_bytes(b"")
    destination.drop_staging(["t1", "t9"])
    assert unnamed_files(tmp_path, "items") == {"part-foreign.parquet"}
    assert table_names(tmp_path) == {"items"}
    assert len(held(tmp_path)) == 2


def test_a_merge_writes_anew_only_the_files_that_hold_its_keys(tmp_path: Path) -> None:
    destination = destination_of(tmp_path)
    for first in (0, 10, 20):
        run(destination, load_of("append", f"t{first}"), items(*((first + n, "old") for n in range(10))), FINAL)
    before = {each["path"]: each for each in pa.table(table_of(tmp_path).get_add_actions()).to_pylist()}
    (commit,) = run(destination, load_of("merge", "t9"), items((12, "new"), (99, "new")), FINAL)
    after = {each["path"]: each for each in pa.table(table_of(tmp_path).get_add_actions()).to_pylist()}
    assert commit.records == 2
    assert len(before.keys() & after.keys()) == 2
    assert {number for number, name in held(tmp_path) if name == "new"} == {12, 99}
    assert isinstance(destination, DeltaDestination)


def test_a_file_in_the_place_of_a_table_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "items").write_text("no table")
    with pytest.raises(ConnectorConfigError, match=r"items: .*Not a directory"):
        run(destination_of(tmp_path), load_of("append", "t1"), items((1, "a")), FINAL)


def test_a_null_in_the_key_names_no_way_out_that_delta_lacks(tmp_path: Path) -> None:
    records = pa.RecordBatch.from_pylist([{"id": None, "name": "a"}], schema=ITEMS)
    with pytest.raises(FatalConnectorError, match="'id' of the key is NULL") as caught:
        run(destination_of(tmp_path), load_of("merge", "t1"), records, FINAL)
    assert "on_rejected" not in str(caught.value)


def test_a_file_system_without_writes_is_no_error_that_may_pass() -> None:
    with pytest.raises(ConnectorConfigError, match=r"items: .*Read-only"), translated("items"):
        raise OSError(errno.EROFS, "Read-only file system")
