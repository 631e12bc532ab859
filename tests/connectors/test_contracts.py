"""Every shipped connector under its contract: nothing but subclasses that look through plain drivers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pytest

from connectors.memory import MemoryDestination, MemorySource, database, databases
from connectors.testing import DestinationContract, SourceContract


class InMemory:
    """A database of this test's own."""

    @pytest.fixture
    def place(self) -> Iterator[str]:
        name = uuid.uuid4().hex
        yield name
        databases.pop(name, None)

    def config(self, place: str) -> Mapping[str, Any]:
        return {"database": place}


class TestMemorySource(InMemory, SourceContract):
    connector = MemorySource

    def config(self, place: str) -> Mapping[str, Any]:
        return {"database": place, "batch_size": 3, "checkpoint_records": 1}

    def put(self, place: str, table: str, records: pa.Table, key: Sequence[str] = ()) -> None:
        tables = database(place).tables
        tables[table] = pa.concat_tables([tables[table], records]) if table in tables else records
        database(place).keys[table] = tuple(key)


class TestMemoryDestination(InMemory, DestinationContract):
    connector = MemoryDestination

    def read_back(self, place: str, table: str, schema: pa.Schema) -> list[dict[str, Any]] | None:
        found = database(place).tables.get(table)
        return None if found is None else found.to_pylist()

    def tables(self, place: str) -> set[str]:
        return {*database(place).tables, *(f"{table} (staging)" for table, _ in database(place).staging)}
