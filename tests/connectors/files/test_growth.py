"""Reading one stream costs the same beside many other files: what is seen of folders is counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from syncblocks.connectors.files.csv_source import CSVSource


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
