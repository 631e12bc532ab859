"""The hooks of a destination's contract, and the helpers of its tests."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest

from ..errors import ConnectorError
from ..protocols import Destination
from ..stream import Checkpoint, Commit, Event, LedgerKey, LedgerRow, Load, Stream, TableState
from ..struct_helpers import replace
from ..write_spec import ConflictMethod, WriteDisposition, WriteSpec
from .promises import Promises

APPEND, REPLACE, MERGE = WriteDisposition.APPEND, WriteDisposition.REPLACE, WriteDisposition.MERGE
FINAL = Checkpoint(is_final=True)
PEOPLE = pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string())])
WIDER = PEOPLE.append(pa.field("age", pa.int64()))

Records = Sequence[Mapping[str, Any]]


def people(*records: tuple[int, str | None]) -> pa.RecordBatch:
    """Return a batch of `PEOPLE`."""
    return pa.RecordBatch.from_pylist([{"id": number, "name": name} for number, name in records], schema=PEOPLE)


class DestinationPromises(Promises):
    """The hooks that a subclass fills in, and helpers."""

    def read_back(self, place: Any, table: str, schema: pa.Schema) -> Records | None:
        """Return the table's records, read without the connector under test; None: no such table.

        All columns of the table, by name. Values have the Python types of `schema`, which a system without types (text
        files, SQLite) cannot know.
        """
        raise NotImplementedError

    def tables(self, place: Any) -> set[str]:
        """Return every table that a user would see, but the ledger; a staging table left behind shows here."""
        raise NotImplementedError

    # What the tests are made of

    @pytest.fixture
    def destination(self, place: Any) -> Iterator[Destination]:
        destination: Destination = self.make(place)
        yield destination
        destination.close()

    def load_of(
        self,
        schema: pa.Schema,
        disposition: WriteDisposition,
        *,
        table: str = "people",
        key: Sequence[str] = ("id",),
        conflict: ConflictMethod = ConflictMethod.UPDATE,
    ) -> Load:
        token = secrets.token_hex(16)
        return Load(
            key=LedgerKey(pipeline="contract", stream="source." + table, destination_table=table),
            stream=Stream(name="source." + table, schema=schema, key_properties=tuple(key)),
            write=WriteSpec(disposition=disposition, conflict_method=conflict),
            token=token,
            run=f"{token}:1",
        )

    def start(self, destination: Destination, load: Load, events: Iterable[Event]) -> Iterator[Commit]:
        row = destination.take_over(load.key, token=load.token, owner="contract", source="contract://source")
        return destination.load(replace(load, columns=row.columns), iter(events))

    def run(self, destination: Destination, load: Load, *events: Event) -> list[Commit]:
        return list(self.start(destination, load, events))

    def people(self, place: Any) -> list[tuple[int, str | None]] | None:
        records = self.read_back(place, "people", PEOPLE)
        return None if records is None else sorted(((r["id"], r["name"]) for r in records), key=repr)

    def state(self, destination: Destination, table: str = "people") -> TableState:
        return destination.describe([table])[table]

    def row(self, destination: Destination, table: str = "people") -> LedgerRow:
        (row,) = self.state(destination, table).ledger
        return row

    def refused(self, destination: Destination, load: Load, *events: Event) -> None:
        """Demand an error for a lacking feature: no value may change in silence."""
        with pytest.raises(ConnectorError):
            self.run(destination, load, *events)
