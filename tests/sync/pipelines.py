"""Pipelines for tests of the engine: written as files, run as a user would, and read back."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from syncblocks import Progress, RunResult, run_pipeline
from syncblocks.connectors.memory import MemoryDatabase, database

#: A callback file that writes down every call, one JSON line each, whatever the status.
RECORDER = """
import json, os
from pathlib import Path

def _write(kwargs, status):
    line = {name: kwargs.get(name) for name in
            ("stream", "destination_table", "index", "is_last_block_run", "parent_block_uuid", "idempotency_key",
             "block_uuid", "never_started")}
    line["status"] = status
    line["error"] = str(kwargs["__error"]) if "__error" in kwargs else None
    line["error_block"] = kwargs["__error"].block if "__error" in kwargs else None
    line["run_status"] = kwargs["pipeline_run"].status
    line["run_id"] = kwargs["pipeline_run"].id
    line["attempt"] = kwargs["pipeline_run"].attempt
    run = kwargs.get("block_run")
    line["block_status"] = None if run is None else run.status
    line["rows"] = None if run is None else run.rows
    line["rows_rejected"] = None if run is None else run.rows_rejected
    with open(Path(__file__).with_suffix(".log"), "ab", buffering=0) as log:
        log.write(json.dumps(line).encode() + b"\\n")
        os.fsync(log.fileno())

@callback("success")
def success(**kwargs):
    _write(kwargs, "success")

@callback("failure")
def failure(**kwargs):
    _write(kwargs, "failure")

@callback("cancelled")
def cancelled(**kwargs):
    _write(kwargs, "cancelled")
"""


#: A callback file that writes down the ids in each frame, and how many records the block run says.
FRAMES = """
import json
from pathlib import Path

@callback("success")
def frame(df, parent_block_uuid, block_run):
    ids = None if df is None else df["id"].astype(object).where(df["id"].notna(), None).tolist()
    with Path(__file__).with_suffix(".log").open("a") as log:
        log.write(json.dumps([parent_block_uuid, ids, block_run.rows]) + "\\n")
"""


class Bench:
    """A folder with one pipeline over memory tables; `run` runs it in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source_name = f"source-{uuid.uuid4().hex}"
        self.destination_name = f"destination-{uuid.uuid4().hex}"
        self.document: dict[str, Any] = {
            "pipeline": "bench",
            "concurrency": 1,
            "source": {"block": "load", "connector": "memory", "config": {"database": self.source_name}},
            "destination": {"block": "export", "connector": "memory", "config": {"database": self.destination_name}},
            "streams": [{"stream": "*"}],
        }

    @property
    def source(self) -> MemoryDatabase:
        return database(self.source_name)

    @property
    def destination(self) -> MemoryDatabase:
        return database(self.destination_name)

    def seed(self, name: str, records: int | Sequence[Mapping[str, Any]], key: Sequence[str] = ("id",)) -> None:
        """Put a table into the source; a number makes so many records of id and v."""
        if isinstance(records, int):
            records = [{"id": number, "v": f"{name}-{number}"} for number in range(records)]
        schema = pa.schema([("id", pa.int64()), ("v", pa.string())]) if not records else None
        self.source.tables[name] = pa.Table.from_pylist(list(records), schema=schema)
        self.source.keys[name] = tuple(key)

    def record(self, block: str = "recorder", **settings: Any) -> None:
        """Attach a callback block that writes down every call."""
        (self.folder / f"{block}.py").write_text(RECORDER, encoding="utf-8")
        self.document.setdefault("callbacks", []).append({"file": f"{block}.py", **settings})

    def record_frames(self, *parents: str) -> None:
        """Attach a callback block that writes down what is in the data of these parents."""
        (self.folder / "frames.py").write_text(FRAMES, encoding="utf-8")
        self.document.setdefault("callbacks", []).append({"file": "frames.py", "on": list(parents)})

    def calls(self, block: str = "recorder") -> list[dict[str, Any]]:
        """Return what a recorder has written down, in order."""
        log = self.folder / f"{block}.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def write(self) -> Path:
        path = self.folder / "bench.yaml"
        path.write_text(yaml.safe_dump(self.document, sort_keys=False), encoding="utf-8")
        return path

    def run(self, progress: Progress | None = None, **options: Any) -> RunResult:
        return run_pipeline(self.write(), progress=progress, **options)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return a destination table's records, sorted by id."""
        return sorted(self.destination.tables[table].to_pylist(), key=lambda row: (row["id"] is None, row["id"]))


def statuses(result: RunResult) -> dict[str, str | None]:
    """Return stream -> status."""
    return {stream.stream: stream.status for stream in result.streams}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)
