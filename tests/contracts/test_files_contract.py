"""Files under the contracts of sources and destinations, seeded and looked at through other libraries."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet
import pytest

from syncblocks.connectors.files.arrow_source import ArrowSource
from syncblocks.connectors.files.csv_source import CSVSource
from syncblocks.connectors.files.destination import CSVDestination, JSONLDestination, ParquetDestination
from syncblocks.connectors.files.json_source import JSONSource
from syncblocks.connectors.files.jsonl_source import JSONLSource
from syncblocks.connectors.files.parquet_source import ParquetSource
from syncblocks.connectors.rejected.records import REJECTED_TABLE
from syncblocks.connectors.testing import DestinationContract, Feature, Quirks, SourceContract
from tests.connectors.files import files_readback

NO_KEYS = {Feature.KEYS: "files know no keys"}


class FileSourceContract(SourceContract):
    """One folder, one file a table."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        (tmp_path / "data").mkdir()
        return tmp_path

    def config(self, place: Path) -> Mapping[str, Any]:
        return {"path": "data", "checkpoint_records": 1}

    def bad_configs(self, place: Path) -> Sequence[Mapping[str, Any]]:
        return [{"path": str(place / "missing")}, {"path": str(place / "missing-*.csv")}]

    def range_config(self, place: Path) -> Mapping[str, Any] | None:
        return {**self.config(place), "range_bytes": 500}


class TestCSVSource(FileSourceContract):
    connector = CSVSource
    quirks = Quirks(lacks={**NO_KEYS, Feature.TYPES: "CSV has no types"})

    def put(self, place: Path, table: str, records: pa.Table, key: Sequence[str] = ()) -> None:
        path = place / "data" / f"{table}.csv"
        is_new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(records.column_names)
            writer.writerows(
                [value.isoformat() if isinstance(value, datetime) else value for value in record.values()]
                for record in records.to_pylist()
            )


class TestJSONLSource(FileSourceContract):
    connector = JSONLSource

    def range_config(self, place: Path) -> None:
        """A JSON lines file is not split."""

    quirks = Quirks(
        lacks={
            **NO_KEYS,
            Feature.TYPES: "JSON has few types",
            Feature.EMPTY_STREAMS: "without records there are no keys",
        }
    )

    def put(self, place: Path, table: str, records: pa.Table, key: Sequence[str] = ()) -> None:
        with (place / "data" / f"{table}.jsonl").open("a", encoding="utf-8") as file:
            for record in records.to_pylist():
                file.write(json.dumps(record, default=_json) + "\n")


class TestJSONSource(FileSourceContract):
    connector = JSONSource
    quirks = TestJSONLSource.quirks

    def range_config(self, place: Path) -> None:
        """A document is not split."""

    def config(self, place: Path) -> Mapping[str, Any]:
        return {**super().config(place), "records": "data.items"}

    def put(self, place: Path, table: str, records: pa.Table, key: Sequence[str] = ()) -> None:
        path = place / "data" / f"{table}.json"
        before = json.loads(path.read_text())["data"]["items"] if path.exists() else []
        said = {"data": {"items": [*before, *records.to_pylist()]}}
        path.write_text(json.dumps(said, default=_json, indent=1), encoding="utf-8")


class TestParquetSource(FileSourceContract):
    connector = ParquetSource
    quirks = Quirks(lacks=NO_KEYS)

    def put(self, place: Path, table: str, records: pa.Table, key: Sequence[str] = ()) -> None:
        path = place / "data" / f"{table}.parquet"
        before = [pyarrow.parquet.read_table(path, partitioning=None)] if path.exists() else []
        pyarrow.parquet.write_table(pa.concat_tables([*before, records]), path, row_group_size=100)


class TestArrowSource(FileSourceContract):
    connector = ArrowSource
    quirks = Quirks(lacks=NO_KEYS)

    def range_config(self, place: Path) -> None:
        """A file is read as a whole."""

    def put(self, place: Path, table: str, records: pa.Table, key: Sequence[str] = ()) -> None:
        path = place / "data" / f"{table}.arrow"
        before = [pa.ipc.open_file(path).read_all()] if path.exists() else []
        with pa.ipc.new_file(path, records.schema) as writer:
            writer.write_table(pa.concat_tables([*before, records]), max_chunksize=100)


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return float(value) if isinstance(value, Decimal) else value.isoformat()


class FileDestinationContract(DestinationContract):
    """One folder, written anew."""

    suffix: ClassVar[str]
    quirks = Quirks(lacks={Feature.UNIQUE_KEYS: "files have no index, and all keys of a table do not fit into memory"})

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path

    def config(self, place: Path) -> Mapping[str, Any]:
        return {"path": "out"}

    def bad_configs(self, place: Path) -> Sequence[Mapping[str, Any]]:
        (place / "file").write_text("no folder")
        return [{"path": str(place / "file")}]

    def read_back(self, place: Path, table: str, schema: pa.Schema) -> Sequence[Mapping[str, Any]] | None:
        return files_readback.read_table(place / "out", table, self.suffix, schema)

    def read_rejected(self, place: Path) -> list[tuple[str, str, str]]:
        schema = pa.schema([(name, pa.string()) for name in ("run", "record", "reason")])
        folder = place / "out" / REJECTED_TABLE
        found = files_readback.read_table(folder, "people", self.suffix, schema) or []
        return [(each["run"], each["record"], each["reason"]) for each in found]

    def tables(self, place: Path) -> set[str]:
        return files_readback.tables(place / "out")


class TestCSVDestination(FileDestinationContract):
    connector = CSVDestination
    suffix = ".csv"


class TestJSONLDestination(FileDestinationContract):
    connector = JSONLDestination
    suffix = ".jsonl"


class TestParquetDestination(FileDestinationContract):
    connector = ParquetDestination
    suffix = ".parquet"
