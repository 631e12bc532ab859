"""A disk without room: the error names the file and the cause, where SQLite says no more than `disk I/O error`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncblocks.connectors.errors import StatementRefused
from syncblocks.connectors.sqlite import SQLiteDestination
from tests import services
from tests.connectors.sqlite.sqlite_files import APPEND, FINAL, PEOPLE, load, people, query


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True)
    if done.returncode:
        services.missing("a small disk needs root, and the right to mount it")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def append(destination: SQLiteDestination, *records: tuple[int, str]) -> None:
    load(destination, "people", APPEND, [people(*records), FINAL], PEOPLE)


@pytest.mark.parametrize(("left", "file"), [(0, "-shm"), (65536, "")])
def test_a_full_disk_is_named_with_the_file_and_the_next_load_succeeds(small_disk: Path, left: int, file: str) -> None:
    path = small_disk / "d.db"
    destination = SQLiteDestination({"path": path.name}, small_disk)
    append(destination, (1, "a"))
    destination.close()
    other = small_disk / "other"
    other.write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize - left))
    with pytest.raises(StatementRefused) as refused:
        append(destination, *((number, "x" * 1000) for number in range(2, 500)))
    assert f"{path}{file}: no space left on its disk" in str(refused.value)
    destination.close()
    other.unlink()
    append(destination, (2, "b"))
    destination.close()
    assert query(path, "select id from people order by id") == [(1,), (2,)]


def test_a_disk_without_room_for_a_new_file_is_named(small_disk: Path) -> None:
    disk = os.statvfs(small_disk)
    (small_disk / "other").write_bytes(b"x" * (disk.f_bavail * disk.f_frsize - 4096))
    destination = SQLiteDestination({"path": "d.db"}, small_disk)
    with pytest.raises(StatementRefused, match=r"d\.db: no space left on its disk"):
        append(destination, (1, "a"))
    destination.close()


@pytest.mark.full
def test_a_limit_of_the_size_of_files_is_not_called_a_full_disk(tmp_path: Path) -> None:
    script = f"""
import resource
from pathlib import Path
from syncblocks.connectors.errors import StatementRefused
from syncblocks.connectors.sqlite.session import SQLiteSession
session = SQLiteSession(Path({str(tmp_path / "d.db")!r}), is_writer=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384))
try:
    session.begin()
    session.execute("create table t (a text)")
    session.execute("insert into t select hex(zeroblob(100000))")
    session.commit()
except StatementRefused as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "SQLITE_IOERR" in done.stdout
    assert "a file size limit" in done.stdout
