"""Files on local disk, opened inside a folder while others replace them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from syncblocks.connectors.local_files import open_inside, write_beside


def test_a_file_that_is_replaced_meanwhile_is_opened_anew(tmp_path: Path) -> None:
    path, is_over = tmp_path / "manifest.json", threading.Event()
    path.write_bytes(b"0")

    def replace() -> None:
        while not is_over.is_set():
            write_beside(path, b"1").replace(path)

    writers = [threading.Thread(target=replace) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        found = set()
        for _ in range(500):
            with open_inside(path, tmp_path) as file:
                found.add(file.read())
    finally:
        is_over.set()
        for writer in writers:
            writer.join()
    assert found <= {b"0", b"1"}


def test_a_file_that_cannot_be_written_is_named_as_the_user_knows_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"missing/a\.json'$"):
        write_beside(tmp_path / "missing" / "a.json", b"1")
