"""Makes taps, catalogs and pipelines for the tests of `connector: singer`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.connectors.programs.types import columns_of
from syncblocks.connectors.read_spec import ReadSpec, ReplicationMethod
from syncblocks.connectors.registry import make_source
from syncblocks.connectors.singer.batches import BatchFiles
from syncblocks.connectors.singer.reader import TapReader
from syncblocks.connectors.stream import Bookmark, Checkpoint, Event, Stream

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": ["integer"]},
        "stamp": {"type": ["null", "string"]},
        "note": {"type": ["null", "string"]},
    },
}

SQLITE = {"connector": "sqlite", "config": {"path": "out.db"}}


def tap_program(folder: Path, name: str = "tap-small") -> Path:
    """Write the scripted tap as a program."""
    path = folder / name
    if path.exists():
        return path
    script = Path(__file__).with_name("singer_tap.py").read_text()
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o755)
    return path


def entry(stream: str, schema: Mapping[str, Any] = SCHEMA, **changed: Any) -> dict[str, Any]:
    """Return a stream of a catalog; by default INCREMENTAL by `stamp`."""
    return {
        "tap_stream_id": stream,
        "stream": stream,
        "schema": dict(schema),
        "key_properties": ["id"],
        "replication_method": "INCREMENTAL",
        "replication_key": "stamp",
        "metadata": [{"breadcrumb": [], "metadata": {"inclusion": "available"}}],
        **changed,
    }


def full_table(stream: str, schema: Mapping[str, Any] = SCHEMA) -> dict[str, Any]:
    return entry(stream, schema, replication_method="FULL_TABLE", replication_key=None)


def lines(*messages: Any) -> bytes:
    """Return messages as lines; bytes stay as they are."""
    texts = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in messages]
    return b"\n".join(texts) + b"\n"


def schema(stream: str, of: Mapping[str, Any] = SCHEMA, key: Sequence[str] = ("id",)) -> dict[str, Any]:
    return {"type": "SCHEMA", "stream": stream, "schema": of, "key_properties": list(key)}


def record(stream: str, **values: Any) -> dict[str, Any]:
    return {"type": "RECORD", "stream": stream, "record": values}


def state(**bookmarks: Any) -> dict[str, Any]:
    return {"type": "STATE", "value": {"bookmarks": bookmarks}}


def stream_of(name: str, of: Mapping[str, Any] = SCHEMA, *bookmarks: str, key: Sequence[str] = ("id",)) -> Stream:
    return Stream(
        name=name,
        schema=pa.schema([column.field(nullable=column.name not in key) for column in columns_of(of)]),
        key_properties=tuple(key),
        read=ReadSpec(
            method=ReplicationMethod.INCREMENTAL if bookmarks else ReplicationMethod.FULL_TABLE,
            bookmark_properties=bookmarks,
        ),
        keeps_own_bookmark=True,
    )


def read(
    *blocks: bytes, streams: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None] | None = None, **options: Any
) -> list[tuple[str, Event]]:
    """Read blocks of lines through a `TapReader`."""
    names = {stream.name: (stream.name,) for stream in streams} | options.pop("names", {})
    options.setdefault("adds_columns", [stream.name for stream in streams])
    options.setdefault("batch_files", BatchFiles([], Path.cwd()))
    return list(TapReader("tap-x", streams, names, bookmarks or {}, **options).read(blocks))


def records(events: Sequence[tuple[str, Event]], stream: str) -> list[dict[str, Any]]:
    """Return the records of one stream; each batch has been checked."""
    found = []
    for name, event in events:
        if name == stream and isinstance(event, pa.RecordBatch):
            event.validate(full=True)
            found += event.to_pylist()
    return found


def checkpoints(events: Sequence[tuple[str, Event]], stream: str) -> list[Bookmark | None]:
    return [event.bookmark for name, event in events if name == stream and isinstance(event, Checkpoint)]


def pipeline(folder: Path, config: Mapping[str, Any], destination: Mapping[str, Any], **more: Any) -> Path:
    """Write a pipeline file; return its path."""
    document = {
        "pipeline": "small",
        "source": {"connector": "singer", "config": dict(config)},
        "destination": dict(destination),
        "streams": [{"stream": "*"}],
        **more,
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def run(path: Path, **options: Any) -> RunResult:
    return run_pipeline(load_pipeline(path), **options)


ORDERS = stream_of("orders")


def small(folder: Path, *messages: Any, streams: list[dict[str, Any]] | None = None, **config: Any) -> dict[str, Any]:
    """Return the source's config of a tap that says these messages."""
    (folder / "lines").write_bytes(lines(*messages))
    catalog = {"streams": streams or [full_table("orders"), full_table("users")]}
    own = {"catalog": catalog, "lines": str(folder / "lines"), "password": "tell-nobody", **config.pop("own", {})}
    return {"executable": str(tap_program(folder)), "config": own, **config}


BOTH = [
    schema("orders"),
    schema("users"),
    *(record(name, id=n, note=name) for n in range(9) for name in ("orders", "users")),
]


def source_of(folder: Path, *messages: Any, **config: Any) -> Any:
    return make_source("singer", small(folder, *messages, **config), folder)
