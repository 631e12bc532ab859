"""What others do to a table between and during our commits: appends, OPTIMIZE, VACUUM, checkpoints, log cleanup."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from deltalake.exceptions import CommitFailedError

from syncblocks.connectors.delta.destination import DeltaDestination
from syncblocks.connectors.errors import TakenOver
from syncblocks.connectors.stream import Checkpoint, Event
from tests.connectors.delta.delta_loads import FINAL, begin, items, load_of, run

#: Commits of a load.
COMMITS = 25


def disturbed(
    make: Callable[[], DeltaDestination], uri: str, options: Mapping[str, str], disposition: str
) -> Counter[str]:
    """Load into a table that others change and clear up at the same time, beside a zombie; assert what is there then.

    Returns:
        How often each disturbance has happened.
    """
    run(make(), load_of(disposition, "t0"), items((0, "0")), FINAL)
    _open(uri, options).alter.set_table_properties({"delta.logRetentionDuration": "interval 0 days"})
    added, done, stop, permits = list[int](), Counter[str](), threading.Event(), threading.Semaphore(0)

    def others() -> None:
        for number in range(1000, 2000):
            permits.acquire()
            if stop.is_set():
                return
            name, act = _DISTURBANCES[number % len(_DISTURBANCES)]
            with suppress(CommitFailedError, OSError):  # ours came first, or its cleanup of the log
                act(_open(uri, options), number)
                done[name] += 1
                if name == "append":
                    added.append(number)

    def events() -> Iterator[Event]:
        for number in range(1, COMMITS):
            yield items((number, "first"), (number, f"{number}"))
            permits.release(2)
            if disposition != "replace":
                yield Checkpoint(bookmark={"n": number})
        yield FINAL

    zombie = begin(make(), load_of(disposition, "t1"), [items((77, "zombie")), FINAL])
    thread = threading.Thread(target=others)
    thread.start()
    try:
        list(begin(make(), load_of(disposition, "t2"), events()))
    finally:
        stop.set()
        permits.release()
        thread.join()
    try:
        list(zombie)
    except TakenOver:
        done["zombie refused"] += 1
    found = pa.table(QueryBuilder().register("t", _open(uri, options)).execute("select id, name from t")).to_pylist()
    rows = sorted((row["id"], row["name"]) for row in found)
    mine = [row for row in rows if row[1] != "foreign"]
    pairs = [(n, name) for n in range(1, COMMITS) for name in ("first", str(n))]
    expected = {
        "append": [(0, "0"), *pairs],
        "merge": [(n, str(n)) for n in range(COMMITS)],
        "replace": pairs,
    }[disposition]
    assert mine == sorted(expected)
    theirs = [row[0] for row in rows if row[1] == "foreign"]
    # Of a replace a foreign append is lost or stays as a whole, as if one came after the other.
    assert theirs == added if disposition != "replace" else set(theirs) <= set(added)
    (row,) = make().describe(["items"])["items"].ledger
    assert row.completed_by == "t2:1"
    return done


def _open(uri: str, options: Mapping[str, str]) -> DeltaTable:
    return DeltaTable(uri, storage_options=dict(options))


def _append(table: DeltaTable, number: int) -> None:
    write_deltalake(table, pa.Table.from_batches([items((number, "foreign"))]), mode="append")


def _vacuum(table: DeltaTable, _: int) -> None:
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)


_DISTURBANCES: list[tuple[str, Callable[[Any, int], Any]]] = [
    ("append", _append),
    ("optimize", lambda table, _: table.optimize.compact()),
    ("append", _append),
    ("vacuum", _vacuum),
    ("checkpoint", lambda table, _: table.create_checkpoint()),
    ("log cleanup", lambda table, _: table.cleanup_metadata()),
]

__all__ = ["disturbed"]
