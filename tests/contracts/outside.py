"""A destination as somebody else might write it: no base class of ours, no ledger, a few capabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from syncblocks.connectors.arrow.fidelity import Kept
from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.ranges import RangeReads
from syncblocks.connectors.settings import Settings, parse_settings
from syncblocks.connectors.stream import (
    Block,
    Bookmark,
    Checkpoint,
    Commit,
    Event,
    LedgerKey,
    LedgerRow,
    Load,
    Rejected,
    RejectedRecord,
    Stream,
    TableState,
)
from syncblocks.connectors.write_spec import WriteDisposition


class OutsideSettings(Settings):
    store: str


class Store:
    """What a server would keep."""

    def __init__(self) -> None:
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.rejected: list[RejectedRecord] = []
        self.calls: list[str] = []


STORES: dict[str, Store] = {}


class OutsideDestination:
    """Folds the case of table names, keeps integers of 32 bits, and has no place for a ledger."""

    settings = OutsideSettings
    has_ledger = False
    max_loads = None

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self._store = STORES.setdefault(parse_settings(OutsideSettings, config, "outside").store, Store())

    def identity(self) -> str:
        return "outside://"

    def check(self) -> None:
        return None

    def describe(self, tables: Sequence[str]) -> Mapping[str, TableState]:
        return {table: TableState(is_described=False) for table in tables}

    def accepts(self, stream: Stream, disposition: WriteDisposition) -> Sequence[str]:
        return ("arrow",)

    def take_over(self, key: LedgerKey, *, token: str, owner: str, source: str | None = None) -> LedgerRow:
        raise AssertionError("without a ledger the engine asks its own store")

    def set_bookmark(self, key: LedgerKey, bookmark: Bookmark | None, *, forget: bool = False) -> None:
        raise AssertionError("without a ledger the engine asks its own store")

    def load(self, load: Load, events: Iterator[Event | Block], wire: str = "arrow") -> Iterator[Commit]:
        self._store.calls.append("load")
        staged: list[dict[str, Any]] = []
        rejected: list[RejectedRecord] = []
        for event in events:
            if isinstance(event, pa.RecordBatch):
                staged += event.to_pylist()
            elif isinstance(event, Rejected):
                rejected += event.records
            elif isinstance(event, Checkpoint):
                self._write(load, staged)
                self._store.rejected += rejected
                yield Commit(checkpoint=event, records=len(staged), size_bytes=0, rejected=len(rejected))
                staged, rejected = [], []

    def drop_staging(self, tokens: Sequence[str]) -> None:
        return None

    def interrupt(self, stream: str) -> None:
        return None

    def close(self) -> None:
        return None

    # Capabilities

    def keeps(self, stream: Stream, table: TableState, disposition: WriteDisposition) -> Sequence[Kept]:
        narrow = {pa.int64(): pa.int32()}
        return [
            Kept(column=field.name, type=str(field.type), arrow=narrow.get(field.type, field.type))
            for field in stream.schema
        ]

    def keeps_rejected(self) -> str:
        return "it forgets them at the end of the month"

    def one_name(self, destination_table: str) -> str:
        return destination_table.lower()

    def refusal(self, key: LedgerKey) -> str:
        return "no ledger, no rows"

    def load_ranges(self, load: Load, reads: RangeReads, loaders: int, wire: str) -> Iterator[Commit]:
        self._store.calls.append("load_ranges")
        staged: list[dict[str, Any]] = []
        for part in reads.ranges:
            while True:
                try:
                    found = [record for batch in reads.read(part) for record in batch.to_pylist()]  # type: ignore[union-attr]
                    break
                except ConnectorError as error:
                    if not reads.may_repeat(part, error):
                        reads.give_up()
                        raise
            staged += found
        final = reads.final()
        self._write(load, staged)
        yield Commit(checkpoint=final, records=len(staged), size_bytes=0)

    def drop_ranges(self, pipeline: str, is_wanted: Callable[[LedgerKey], bool]) -> None:
        self._store.calls.append("drop_ranges")

    def _write(self, load: Load, records: list[dict[str, Any]]) -> None:
        name = self.one_name(load.key.destination_table)
        before = [] if load.write.disposition is WriteDisposition.REPLACE else self._store.tables.get(name, [])
        self._store.tables[name] = [*before, *records]
