"""Loads wide records into DuckDB under a small budget, here or in a process of its own that a failpoint kills."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from syncblocks.connectors.duckdb import DuckDBDestination
from syncblocks.connectors.stream import Checkpoint, Event, LedgerKey, Load, Stream
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec
from tests.zygote import Zygote

SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), ("doc", pa.string())])
BUDGET_BYTES = 32_000_000
RECORDS, WIDTH_BYTES = 24, 2_000_000
KEY = LedgerKey(pipeline="p", stream="s", destination_table="docs")


def document(owner: str, number: int) -> str:
    return md5(f"{owner}{number}".encode()).hexdigest() * (WIDTH_BYTES // 32)


def digests(owner: str, records: int = RECORDS) -> list[tuple[int, str]]:
    return [(number, md5(document(owner, number).encode()).hexdigest()) for number in range(records)]


def documents(owner: str, records: int = RECORDS) -> Iterator[Event]:
    for number in range(records):
        yield pa.RecordBatch.from_arrays([pa.array([number]), pa.array([document(owner, number)])], schema=SCHEMA)
    yield Checkpoint(bookmark={"id": owner}, is_final=True)


def make(path: Path) -> DuckDBDestination:
    destination = DuckDBDestination({"path": path.name, "threads": 2}, path.parent)
    destination.limit_memory(BUDGET_BYTES, is_strict=True)
    return destination


def order(disposition: str, owner: str) -> Load:
    return Load(
        key=KEY,
        stream=Stream(name="s", schema=SCHEMA, key_properties=("id",)),
        write=WriteSpec(disposition=WriteDisposition(disposition)),
        token=owner,
        run=owner,
    )


def look(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """Ask a file that nobody has open; with room for the widest row groups."""
    with duckdb.connect(str(path), config={"memory_limit": "1GB"}) as connection:
        return list(connection.execute(sql).fetchall())


def held(path: Path) -> list[tuple[int, str]]:
    """Return key and digest of every record that is there."""
    return look(path, "select id, md5(doc) from docs order by all")


def main(path: str, disposition: str, owner: str) -> None:
    """Load all documents of an owner, in one commit."""
    destination = make(Path(path))
    destination.take_over(KEY, token=owner, owner=owner, source="test://")
    for _ in destination.load(order(disposition, owner), documents(owner)):
        pass
    destination.close()


def load_in_a_process(zygote: Zygote, path: Path, disposition: str, owner: str, **how: Any) -> int:
    """Do the same in a process; `how` is a failpoint or a trace. Return its exit code."""
    done = zygote.module("tests.connectors.duckdb.wide_worker", str(path), disposition, owner, **how)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


if __name__ == "__main__":
    main(*sys.argv[1:])
