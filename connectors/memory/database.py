"""A database in memory: tables, a ledger, calls under way, and faults on purpose."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
from msgspec import Struct

from ..errors import FatalConnectorError, RetriableError
from ..stream import Block, FileRead, LedgerKey, LedgerRow, RejectedRecord


@dataclass
class MemoryDatabase:
    """The content of one database; `lock` is its transaction."""

    tables: dict[str, pa.Table] = field(default_factory=dict)
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)
    views: set[str] = field(default_factory=set)
    ledger: dict[LedgerKey, LedgerRow] = field(default_factory=dict)
    #: What was read of streams of files, by path.
    files: dict[LedgerKey, dict[str, FileRead]] = field(default_factory=dict)
    #: Stream, run and record of each rejected record.
    rejected: list[tuple[str, str, RejectedRecord]] = field(default_factory=list)
    #: (table, token) -> batches that are not committed.
    staging: dict[tuple[str, str], list[pa.RecordBatch]] = field(default_factory=dict)
    #: How often each knob has failed, over all connectors of this database; compared with `fail_times`.
    failures: Counter[str] = field(default_factory=Counter)
    lock: threading.RLock = field(default_factory=threading.RLock)


databases: dict[str, MemoryDatabase] = {}


def database(name: str) -> MemoryDatabase:
    """Return the database of a name; make an empty one if there is none."""
    return databases.setdefault(name, MemoryDatabase())


class MemoryCalls:
    """The calls under way by stream, each with the event that ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, set[threading.Event]] = {}

    @contextmanager
    def under_way(self, streams: Iterable[str]) -> Iterator[threading.Event]:
        """Register one call for some streams while the context lasts."""
        interrupted, names = threading.Event(), list(streams)
        with self._lock:
            for name in names:
                self._under_way.setdefault(name, set()).add(interrupted)
        try:
            yield interrupted
        finally:
            with self._lock:
                for name in names:
                    self._under_way[name].discard(interrupted)

    def interrupt(self, stream: str) -> None:
        with self._lock:
            for interrupted in self._under_way.get(stream, ()):
                interrupted.set()


FailKind = Literal["retriable", "fatal", "crash"]


class Knob(Struct, frozen=True):
    """Fails on purpose, `times` times for each stream."""

    role: str
    kind: FailKind
    times: int

    def turn(self, database: MemoryDatabase, stream: str, is_due: bool) -> None:
        if not is_due:
            return
        with database.lock:
            if database.failures[f"{self.role}:{stream}"] >= self.times:
                return
            database.failures[f"{self.role}:{stream}"] += 1
        message = f"{self.role} of {stream!r} fails on purpose"
        if self.kind == "crash":
            raise RuntimeError(message)
        raise (RetriableError if self.kind == "retriable" else FatalConnectorError)(message, stream=stream)


def to_block(batch: pa.RecordBatch) -> bytes:
    """Write a batch in the transfer format `ipc`."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def from_block(block: Block) -> pa.RecordBatch:
    """Read one block of the transfer format `ipc`."""
    return pa.ipc.open_stream(block).read_next_batch()
