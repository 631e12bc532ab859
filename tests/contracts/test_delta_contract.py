"""Delta tables under the contract of destinations, looked at through the library's own reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.delta.destination import DeltaDestination
from syncblocks.connectors.testing import DestinationContract, Feature, Quirks
from tests.connectors.delta.delta_tables import read_table, table_names


class TestDeltaDestination(DestinationContract):
    connector = DeltaDestination
    quirks = Quirks(
        lacks={
            Feature.UNIQUE_KEYS: "Delta has no index, and all keys of a table do not fit into memory",
            Feature.CASE_PAIRS: "Delta takes two such columns for one",
        }
    )
    capabilities = (
        "drops_deleted",
        "examines_tables",
        "holds_memory",
        "keeps_first",
        "keeps_latest",
        "knows_place",
        "lists_ledger",
        "lists_leftovers",
        "marks_records",
        "notes_log",
        "removes_records",
        "states_types",
        "updates_only",
    )

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path

    def config(self, place: Path) -> Mapping[str, Any]:
        return {"path": "lake"}

    def bad_configs(self, place: Path) -> Sequence[Mapping[str, Any]]:
        (place / "file").write_text("no folder")
        return [{"path": str(place / "file")}]

    def read_back(self, place: Path, table: str, schema: pa.Schema) -> Sequence[Mapping[str, Any]] | None:
        found = read_table(place / "lake", table)
        times = {field.name for field in schema if pa.types.is_time(field.type)}
        return (
            None
            if found is None
            else [
                {name: time.fromisoformat(value) if name in times and value else value for name, value in row.items()}
                for row in found
            ]
        )

    def tables(self, place: Path) -> set[str]:
        return table_names(place / "lake")
