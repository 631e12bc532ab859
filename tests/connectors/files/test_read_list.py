"""The list of files that were read stands beside the manifest: a commit writes what it adds, and loses nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.registry import make_destination
from syncblocks.connectors.stream import Checkpoint, FileRead
from syncblocks.connectors.struct_helpers import replace
from tests.connectors.files import files_load

KEY = files_load.key_of()


def destination_of(folder: Path) -> Any:
    return make_destination("parquet", {"path": "."}, folder)


def files_of(numbers: Sequence[int], size_bytes: int = 1) -> list[FileRead]:
    return [FileRead(f"{number}.csv", size_bytes, "2024-01-01T00:00:00.000000+00:00", "") for number in numbers]


def load(destination: Any, token: str, *parts: Sequence[FileRead]) -> None:
    how = files_load.load_of("append", token)
    how = replace(how, stream=replace(how.stream, read=replace(how.stream.read, tracks_files=True)))
    points = [Checkpoint(bookmark={}, files=tuple(part)) for part in parts]
    files_load.run(destination, how, *points[:-1], replace(points[-1], is_final=True))


def ledger(folder: Path) -> Path:
    return folder / "_syncblocks_ledger"


def segments(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in ledger(folder).glob("*.arrow")}


def manifest(folder: Path) -> Path:
    return ledger(folder) / "orders.parquet.json"


@pytest.mark.full
def test_a_commit_writes_what_it_adds_and_segments_stay_few(tmp_path: Path) -> None:
    destination = destination_of(tmp_path)
    load(destination, "first", files_of(range(3000)))
    (large,) = segments(tmp_path)
    before = manifest(tmp_path).stat().st_size
    for number in range(3000, 3060):
        load(destination, f"t{number}", files_of([number]))
        assert large in segments(tmp_path)
    load(destination, "many", *([each] for each in files_of(range(3060, 3100))))
    assert len(segments(tmp_path)) <= 4
    assert manifest(tmp_path).stat().st_size < before + 2000
    assert sorted(destination.files_read(KEY)) == sorted(files_of(range(3100)))
    load(destination, "changed", files_of([5], size_bytes=9))
    assert {each.size_bytes for each in destination.files_read(KEY) if each.path == "5.csv"} == {9}
    assert len(destination.files_read(KEY)) == 3100
    load(destination, "doubled", files_of(range(3000, 6000)))
    assert large not in segments(tmp_path), "it is put together with those behind it"
    destination.set_bookmark(KEY, None, forget=True)
    load(destination, "anew", files_of([1]))
    assert len(segments(tmp_path)) == 1


def test_a_list_in_the_manifest_itself_goes_on(tmp_path: Path) -> None:
    destination = destination_of(tmp_path)
    load(destination, "first", files_of([1, 2]))
    document = json.loads(manifest(tmp_path).read_text())
    del document["ledger"][0]["read_segments"]
    document["version"] = 1
    document["ledger"][0]["files_read"] = json.dumps([list(each[:4]) for each in files_of([1, 2])])
    manifest(tmp_path).write_text(json.dumps(document))
    assert sorted(destination.files_read(KEY)) == files_of([1, 2])
    load(destination, "second", files_of([2, 3], size_bytes=9))
    assert sorted(destination.files_read(KEY)) == [*files_of([1]), *files_of([2, 3], size_bytes=9)]
    destination.forget_files(KEY, ["2.csv"])
    load(destination, "third", files_of([4]))
    assert sorted(destination.files_read(KEY)) == [*files_of([1]), *files_of([3], size_bytes=9), *files_of([4])]


@pytest.mark.parametrize("damage", [b"", b"ARROW1", None])
def test_a_segment_that_is_damaged_or_gone_fails_the_stream(tmp_path: Path, damage: bytes | None) -> None:
    destination = destination_of(tmp_path)
    load(destination, "first", files_of([1]))
    (name,) = segments(tmp_path)
    (ledger(tmp_path) / name).unlink() if damage is None else (ledger(tmp_path) / name).write_bytes(damage)
    with pytest.raises(FatalConnectorError, match="the list of files already read is lost"):
        destination.files_read(KEY)
    with pytest.raises(FatalConnectorError, match="the list of files already read is lost"):
        load(destination, "second", files_of([2]))


@pytest.mark.full
def test_who_reads_the_list_while_others_put_it_together_sees_one_state(tmp_path: Path) -> None:
    destination, seen = destination_of(tmp_path), []
    load(destination, "first", files_of([0]))
    is_done = threading.Event()

    def read() -> None:
        while not is_done.is_set():
            seen.append(len(destination.files_read(KEY)))

    reading = threading.Thread(target=read)
    reading.start()
    try:
        for number in range(1, 60):
            load(destination_of(tmp_path), f"t{number}", files_of([number]))
    finally:
        is_done.set()
        reading.join()
    assert seen == sorted(seen)
    assert len(destination.files_read(KEY)) == 60
