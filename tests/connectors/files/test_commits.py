"""Commits of file destinations: what counts after a crash at any step, and who may commit."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from syncblocks.connectors.errors import FatalConnectorError, TakenOver
from syncblocks.connectors.stream import Event
from tests.connectors.files import files_load, files_readback
from tests.connectors.files.files_load import batch_of, key_of, load_of, run
from tests.connectors.files.files_pair import FINAL, PAIRS, destination_of, every_format, looked_at, read, row_of
from tests.file_limit import file_limit
from tests.zygote import Zygote

# A crash at every step


def crash(zygote: Zygote, name: str, folder: Path, disposition: str, number: int, **how: Any) -> int:
    arguments = (name, str(folder), disposition, str(number))
    return zygote.module("tests.connectors.files.files_load", *arguments, **how).returncode


def expected(before: PAIRS, number: int, disposition: str, parts: int) -> PAIRS:
    """What the table holds after so many commits of one run."""
    sent: list[PAIRS] = [[(1, f"a{number}"), (10 * number, "b")], [(10 * number + 1, "c")]]
    if disposition == "replace":
        return sorted(before if not parts else [record for part in sent for record in part])
    records = before
    for part in sent[:parts]:
        keys = {record[0] for record in part} if disposition == "merge" else set()
        records = [record for record in records if record[0] not in keys] + part
    return sorted(records)


@pytest.mark.thinned(1)
@pytest.mark.full
@pytest.mark.parametrize("disposition", ["replace", "append", "merge"])
@pytest.mark.parametrize("name", ["csv", "parquet"])
@pytest.mark.parametrize("column", ["", "name"])
def test_a_kill_at_every_failpoint_leaves_what_the_ledger_says(
    zygote: Zygote, tmp_path: Path, name: str, disposition: str, column: str
) -> None:
    first = tmp_path / "first"
    trace = tmp_path / "trace"
    written, config = (f"{name}:{column}", {"partition_by": [column]}) if column else (name, {})
    assert crash(zygote, written, first, "append" if disposition == "append" else "replace", 1) == 0
    before = looked_at(name, first)
    assert crash(zygote, written, _copy(first, tmp_path / "traced"), disposition, 2, trace=trace) == 0
    points = trace.read_text().split()
    assert len(points) > 10
    for place, point in enumerate(points):
        folder = _copy(first, tmp_path / str(place))
        assert crash(zygote, written, folder, disposition, 2, failpoint=f"{point}:kill") == -9, point
        destination = destination_of(name, folder, **config)
        row = row_of(destination)
        committed = 0
        if row.token == "token2" and row.committed_at and row.bookmark == {"part": 1}:
            committed = 1
        elif row.completed_by == "token2:1":
            committed = 1 if disposition == "replace" else 2
        after = expected(before, 2, disposition, committed)
        assert sorted((r["id"], r["name"]) for r in read(name, folder)) == after, f"{point}: our source"
        row = destination.take_over(key_of(), token="recovery", owner="recovery")
        destination.drop_staging(["token2"])
        assert looked_at(name, folder) == after, f"{point}: after recovery"
        assert files_readback.tables(folder) == {"orders"}, point
        run(destination, load_of(disposition, "token3"), *files_load.generation(3, disposition))
        assert looked_at(name, folder) == expected(after, 3, disposition, 1 if disposition == "replace" else 2), point


def _copy(folder: Path, target: Path) -> Path:
    import shutil

    shutil.copytree(folder, target)
    return target


@every_format
def test_a_kill_between_the_manifest_and_the_move_is_mended_by_the_next_load(
    zygote: Zygote, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "out"
    run(destination_of(name, folder), load_of("replace", "t0"), batch_of((9, "old")), FINAL)
    assert crash(zygote, name, folder, "replace", 1, failpoint="files.move.before:1:kill") == -9
    assert looked_at(name, folder) == [(9, "old")], "not moved yet"
    assert [record["id"] for record in read(name, folder)] == [1, 10, 11], "but committed"
    run(destination_of(name, folder), load_of("append", "t2"), batch_of((5, "e")), FINAL)
    assert [pair[0] for pair in looked_at(name, folder)] == [1, 5, 10, 11]


@every_format
def test_a_full_disk_keeps_the_former_table_and_names_the_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = destination_of(name, tmp_path)
    run(destination, load_of("replace", "t0"), batch_of((9, "old")), FINAL)
    monkeypatch.setattr("syncblocks.connectors.failpoints._ON", True)
    monkeypatch.setattr("syncblocks.connectors.failpoints._ARMED", "files.replace.inside:2:enospc")
    monkeypatch.setattr("syncblocks.connectors.failpoints._hits", __import__("collections").Counter())
    with pytest.raises(FatalConnectorError, match=r"orders\.\w+\.json.*space"):
        run(destination, load_of("replace", "t1"), batch_of((1, "new")), FINAL)
    assert looked_at(name, tmp_path) == [(9, "old")]
    assert files_readback.tables(tmp_path) == {"orders"}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no list of open files")
@every_format
def test_a_file_that_cannot_be_finished_is_closed_before_it_is_deleted(tmp_path: Path, name: str) -> None:
    """A deleted file takes its space on the disk as long as it is open, and the ledger finds no room."""
    batch = batch_of(*((number, f"{number * 7919**3}") for number in range(2000)))
    # What failed is held by its traceback, as a stream holds it until its end.
    with file_limit(4096), pytest.raises(FatalConnectorError) as failed:
        run(destination_of(name, tmp_path), load_of("replace", "t0"), batch, FINAL)
    left = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    assert [path for path in left if str(tmp_path) in path] == [], failed.value


# Tokens


@every_format
def test_a_takeover_during_a_load_fences_it_off(tmp_path: Path, name: str) -> None:
    destination, other = destination_of(name, tmp_path), destination_of(name, tmp_path)

    def events() -> Iterator[Event]:
        yield batch_of((1, "a"))
        other.take_over(key_of(), token="second", owner="run 12 on host-3")
        yield FINAL

    load = load_of("append", "first")
    destination.take_over(load.key, token="first", owner="run 11", source="tests://")
    with pytest.raises(TakenOver, match="run 12 on host-3"):
        list(destination.load(load, events()))
    assert looked_at(name, tmp_path) == []
    assert row_of(destination).token == "second"
    assert files_readback.tables(tmp_path) == set()


def _append(folder: str, stream: str, times: int) -> None:
    for number in range(times):
        load = load_of("append", f"{stream}{number}", key=key_of(stream=stream))
        run(destination_of("parquet", Path(folder)), load, batch_of((number, stream)), FINAL)


@pytest.mark.full
def test_processes_that_append_to_one_table_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append, args=(str(tmp_path), stream, 8)) for stream in ("left", "right")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert looked_at("parquet", tmp_path) == sorted((n, s) for n in range(8) for s in ("left", "right"))


def test_a_merge_that_another_commit_overtakes_is_worked_out_anew(tmp_path: Path) -> None:
    destination = destination_of("csv", tmp_path)
    run(destination, load_of("merge", "t0"), batch_of((1, "old"), (2, "old")), FINAL)
    threads = []
    for stream, number in (("left", 1), ("right", 2)):
        load = load_of("merge", stream, key=key_of(stream=stream))
        arguments = (destination, load, batch_of((number, stream)), FINAL)
        threads.append(threading.Thread(target=run, args=arguments))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert looked_at("csv", tmp_path) == [(1, "left"), (2, "right")]
