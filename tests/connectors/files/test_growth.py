"""Work grows with the files and columns that are read: what is seen of folders and columns is counted."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.files import csv_format, formats, jsonl_format
from syncblocks.connectors.files.csv_source import CSVSource
from syncblocks.connectors.files.jsonl_source import JSONLSource
from tests.connectors.files.files_pair import source_of, types_of


def test_the_folder_is_not_listed_for_each_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    listed = os.scandir

    @contextmanager
    def counted(path: Any) -> Iterator[Iterator[os.DirEntry[str]]]:
        with listed(path) as entries:
            yield (entry for entry in entries if seen.append(entry.name) is None)

    counts = []
    for files in (3, 30):
        folder = tmp_path / str(files)
        folder.mkdir()
        for number in range(files):
            (folder / f"t{number}.csv").write_text("id\n1\n")
        source = CSVSource({"path": str(folder)}, tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(os, "scandir", counted)
            streams = source.open_streams(source.list_streams())
            assert len(set(seen)) == files, "a look at the folder is counted"
            seen.clear()
            for stream in streams[:3]:
                assert [name for name, _ in source.read([stream], {})] == [stream.name]
        counts.append(len(seen))
        seen.clear()
    assert counts[0] == counts[1]


@pytest.mark.parametrize("seed", range(4))
def test_blocks_of_a_wide_file_are_examined_together_with_the_same_types(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    kinds = {f"c{number}": chance.sample([7, "x", 1.5, None, True, "2024-02-29", {"a": 1}], 2) for number in range(60)}
    lines = [{name: chance.choice(kind) for name, kind in kinds.items() if chance.random() < 0.8} for _ in range(40)]
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    added, add = [0], jsonl_format._Column.add

    def counted(column: Any, values: list[Any]) -> None:
        added[0] += 1
        add(column, values)

    monkeypatch.setattr(formats, "_CHUNK_BYTES", 1000)
    monkeypatch.setattr(jsonl_format._Column, "add", counted)
    found = []
    for enough in (500, 0):
        monkeypatch.setattr(jsonl_format, "_ENOUGH_VALUES", enough)
        found.append((types_of(source_of(path, JSONLSource)), added[0]))
        added[0] = 0
    (together, few), (one_by_one, many) = found
    assert together == one_by_one
    assert few <= 2 * len(kinds) < many


def test_a_csv_file_is_read_in_as_many_batches_whatever_its_number_of_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_format, "BLOCK_BYTES", 10_000)
    batches = []
    for columns in (20, 200):
        lines = [f"c{number}" for number in range(columns)], *[["x" * 40] * columns] * 50
        path = tmp_path / f"t{columns}.csv"
        path.write_text("".join(",".join(line) + "\n" for line in lines))
        source = CSVSource({"path": str(path)}, tmp_path)
        (stream,) = source.discover()
        events = [event for _, event in source.read([stream], {}) if isinstance(event, pa.RecordBatch)]
        assert sum(event.num_rows for event in events) == 50
        batches.append(len(events))
    assert batches[0] == batches[1] > 1
