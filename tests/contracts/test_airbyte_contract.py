"""An Airbyte connector under what the contract says of records; where it goes on, only the connector knows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.airbyte.source import AirbyteSource
from syncblocks.connectors.singer.json_schema import json_schema
from syncblocks.connectors.singer.lines import RecordLines
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.testing import Feature, Quirks
from syncblocks.connectors.testing.source_records import RecordPromises
from tests.connectors.airbyte.airbyte_helpers import offered, program

#: Each of its tests starts processes, and waits for them.
pytestmark = pytest.mark.full


class TestAirbyteSource(RecordPromises):
    connector = AirbyteSource
    quirks = Quirks(lacks={Feature.SPECIAL_FLOATS: "JSON has no NaN and no infinities"})

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        program(tmp_path)
        return tmp_path

    def config(self, place: Path) -> Mapping[str, Any]:
        return {
            "executable": str(place / "source-small"),
            "config": {"folder": str(place), "password": "tell-nobody"},
            "discovery_cache_s": 0,
        }

    def secrets(self, place: Path) -> Sequence[str]:
        return ["tell-nobody"]

    def bad_configs(self, place: Path) -> Sequence[Mapping[str, Any]]:
        good = self.config(place)
        refused = {**good["config"], "check": "tell-nobody is wrong"}
        return [{**good, "executable": str(place / "missing")}, {**good, "config": refused}]

    def put(self, place: Path, table: str, records: pa.Table, key: Sequence[str] = ()) -> None:
        schema = json_schema(Stream(name=table, schema=records.schema, key_properties=tuple(key)))
        entry = offered(table, cursor=None, key=None, json_schema=schema)
        entry["source_defined_primary_key"] = [[name] for name in key]
        (place / f"{table}.stream").write_text(json.dumps(entry, default=str))
        with (place / f"{table}.jsonl").open("ab") as file:
            for batch in records.to_batches():
                file.writelines(RecordLines(table, is_wrapped=False).write(batch))
