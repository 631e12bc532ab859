"""`kill -9` while new files are read: each file's records are in the table once, whatever was committed."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from tests.connectors.files import files_readback
from tests.faults.conftest import Count
from tests.zygote import Zygote

RECORDS = 25


def write(folder: Path, system: str, disposition: str) -> Path:
    (folder / "data").mkdir()
    document = {
        "pipeline": "bucket",
        "source": {"connector": "csv", "config": {"path": "data", "streams": {"t": "*.csv"}, "checkpoint_records": 60}},
        "destination": {"connector": system, "config": {"path": "out.db" if system != "parquet" else "out"}},
        "streams": [
            {
                "stream": "t",
                "replication_method": "INCREMENTAL",
                "bookmark_properties": ["_file_modified"],
                "write_disposition": disposition,
                "key_properties": ["id"],
            }
        ],
    }
    path = folder / "bucket.json"
    path.write_text(json.dumps(document))
    return path


def put(folder: Path, name: str, first: int, chance: random.Random) -> None:
    """Move a finished file into the folder, as old as it may be."""
    draft = folder / "draft"
    draft.write_text("id,file\n" + "".join(f"{number},{name}\n" for number in range(first, first + RECORDS)))
    moment = time.time() - chance.randrange(0, 10_000_000)
    os.utime(draft, (moment, moment))
    draft.rename(folder / "data" / name)


def ids(folder: Path, system: str) -> list[int]:
    schema = pa.schema([("id", pa.int64())])
    if system == "parquet":
        return sorted(
            record["id"] for record in files_readback.read_table(folder / "out", "t", ".parquet", schema) or []
        )
    database: Any = (duckdb if system == "duckdb" else sqlite3).connect(folder / "out.db")
    with closing(database):
        return sorted(number for (number,) in database.execute("select id from t").fetchall())


@pytest.mark.full
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("system", "disposition"), [("duckdb", "append"), ("sqlite", "merge"), ("parquet", "append"), ("sqlite", "append")]
)
def test_each_new_file_arrives_once_whenever_the_process_is_killed(
    zygote: Zygote, folder: Path, injected: Count, is_full: bool, system: str, disposition: str
) -> None:
    chance, file = random.Random(f"{system} {disposition}"), write(folder, system, disposition)
    kills, hit, count, usual_s = 50 if is_full else 3, 0, 0, 1.0
    while hit < kills:
        for _ in range(12):
            put(folder, f"{count}.csv", count * RECORDS, chance)
            count += 1
        for _ in range(2):
            process = zygote.start(folder, ("run", file.name))
            process.zygote.read_until(lambda ended=process: ended.code is not None, chance.uniform(0, usual_s))
            process.kill()
            hit += process.code == -signal.SIGKILL
        began = time.monotonic()
        last = zygote.start(folder, ("run", file.name))
        last.wait()
        usual_s = time.monotonic() - began
        assert last.code == 0, last.log()[-3000:]
        assert ids(folder, system) == list(range(count * RECORDS))
    injected(hit)


#: Around the list of files, the manifest that names it, and what is moved and deleted after that.
MANIFEST = [
    "replace.before:3",
    "replace.after:3",
    "manifest.before:4",
    "manifest.after:4",
    "move.before:3",
    "move.after:4",
]


@pytest.mark.full
@pytest.mark.one_of
@pytest.mark.parametrize(
    ("system", "place"),
    [
        *(("duckdb", f"duckdb.commit.{place}") for place in ("before:2", "inside:3", "after:3", "after:4")),
        *(("parquet", f"files.{place}") for place in [*MANIFEST, "delete.before:1", "delete.after:2"]),
    ],
)
def test_a_kill_around_the_commit_of_some_files_loses_and_doubles_none(
    zygote: Zygote, folder: Path, injected: Count, system: str, place: str
) -> None:
    chance, file = random.Random(place), write(folder, system, "append")
    for number in range(12):
        put(folder, f"{number}.csv", number * RECORDS, chance)
    killed = zygote.start(folder, ("run", file.name), failpoint=f"{place}:kill")
    killed.wait()
    assert killed.code == -signal.SIGKILL
    last = zygote.start(folder, ("run", file.name))
    last.wait()
    assert last.code == 0, last.log()[-3000:]
    assert ids(folder, system) == list(range(12 * RECORDS))
    assert not [*(folder / "out").rglob("staging/*/*")]
    injected(1)
