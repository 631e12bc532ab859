"""Any source as a Singer tap, on singer-sdk's `Tap`: its command line, catalog, selection and state.

Records go from Arrow to the pipe in whole batches. With stream maps, flattening or a dry run, they go through the SDK
one by one. Importing this module imports singer-sdk, which takes about a second: a normal run does not do it.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast
from uuid import uuid4

import pyarrow as pa
from singer_sdk import Stream as SdkStream
from singer_sdk import Tap
from singer_sdk.mapper import SameRecordTransform
from singer_sdk.singerlib.encoding import SimpleSingerWriter

from ..arrow.decimals import as_number
from ..errors import ConnectorConfigError
from ..incremental.bookmarks import BOUNDARY, values
from ..protocols import Source
from ..read_spec import NullBookmarks, ReplicationMethod
from ..stream import Bookmark, Checkpoint, Event, Stream
from ..struct_helpers import replace
from .json_schema import json_schema
from .lines import RecordLines, to_line
from .plugin_config import ConfigWithoutValues, config_jsonschema, make_connector

#: Key in the STATE, beside the SDK's `replication_key_value`, of the bookmark with the hashes of its records.
BOOKMARK = "syncblocks_bookmark"


def tap_class(connector: str) -> type[Tap]:
    """Return the tap class of a source."""
    attributes = {
        "name": f"tap-syncblocks-{connector}",
        "package_name": "syncblocks",
        "connector": connector,
        "config_jsonschema": config_jsonschema(connector, "source"),
        "__doc__": f"Reads with the {connector} connector of syncblocks.",
    }
    return type(f"Tap{connector.title()}", (SourceTap,), attributes)


class SourceTap(ConfigWithoutValues, Tap):
    """A tap over a `Source`; `tap_class` makes one for each connector."""

    name = "tap-syncblocks"
    package_name = "syncblocks"
    connector = ""
    dynamic_catalog = True

    _source: Source | None = None

    @property
    def source(self) -> Source:
        """The source, made at first use."""
        if self._source is None:
            self._source = make_connector(self.connector, "source", self.config)
        return self._source

    def discover_streams(self) -> Sequence[SdkStream]:
        """Return one stream of the tap for each stream of the source."""
        found = self.source.discover()
        singer_names = singer_stream_names(found)
        return [SourceStream(self, stream, singer_names[stream.name]) for stream in found]


class SourceStream(SdkStream):
    """One stream of the source."""

    def __init__(self, tap: SourceTap, stream: Stream, name: str) -> None:
        self._source_tap = tap
        self._ours = stream
        super().__init__(tap, schema=cast("dict[str, Any]", _floats(json_schema(stream))), name=name)
        self.primary_keys = list(stream.key_properties)

    # -- what is read --------------------------------------------------------------------------------------------

    def selected_stream(self) -> Stream:
        """Return the stream with the selected columns, read as the catalog says."""
        method = ReplicationMethod(self.replication_method)
        if method is ReplicationMethod.LOG_BASED:
            raise ConnectorConfigError(
                f"stream {self.name!r}: LOG_BASED is not supported; use INCREMENTAL or FULL_TABLE"
            )
        keys = tuple(self.primary_keys or ())
        is_incremental = method is ReplicationMethod.INCREMENTAL
        if is_incremental and not self.replication_key:
            raise ConnectorConfigError(f"stream {self.name!r}: INCREMENTAL needs a replication key in the catalog")
        bookmark_properties = (str(self.replication_key),) if is_incremental else ()
        needed = {*keys, *bookmark_properties}
        fields = [f for f in self._ours.schema if f.name in needed or self.mask.get(("properties", f.name), True)]
        return replace(
            self._ours,
            schema=pa.schema(fields),
            key_properties=keys,
            read=replace(
                self._ours.read,
                method=method,
                bookmark_properties=bookmark_properties,
                null_bookmarks=NullBookmarks.ONCE,
            ),
            # A Singer catalog has no word for it.
        )

    def bookmark(self, stream: Stream) -> Bookmark | None:
        """Return the bookmark in the STATE."""
        state = self.stream_state
        if not stream.read.bookmark_properties:
            return None
        (key,) = stream.read.bookmark_properties
        ours = state.get(BOOKMARK)
        if isinstance(ours, Mapping) and key in ours:
            return ours
        if state.get("replication_key") in (None, key) and state.get("replication_key_value") is not None:
            return {key: state["replication_key_value"]}
        return None

    def events(self) -> Iterator[Event]:
        """Read the stream; its STATE moves with each checkpoint, after the records before it."""
        stream = self.selected_stream()
        start = self.bookmark(stream)
        for _, event in self._source_tap.source.read([stream], {stream.name: start}):
            if not isinstance(event, pa.RecordBatch | Checkpoint | Stream):
                raise TypeError(f"the wire `arrow` yields no {type(event).__name__}")
            if isinstance(event, Checkpoint):
                self._move_state(stream, event.bookmark)
            yield event

    def _move_state(self, stream: Stream, bookmark: Bookmark | None) -> None:
        shown = values(bookmark)
        if not shown or not stream.read.bookmark_properties or bookmark is None:
            return
        (key,) = stream.read.bookmark_properties
        state = self.stream_state
        state.update({"replication_key": key, "replication_key_value": shown[key]})
        state[BOOKMARK] = dict(bookmark) if BOUNDARY in bookmark else shown
        self.state_manager.is_flushed = False

    # -- how it is written ---------------------------------------------------------------------------------------

    @property
    def is_plain(self) -> bool:
        """Whether nothing between the source and the pipe needs single records."""
        is_same = all(isinstance(stream_map, SameRecordTransform) for stream_map in self.stream_maps)
        is_pipe = type(self._tap.message_writer) is SimpleSingerWriter
        return is_same and is_pipe and self.ABORT_AT_RECORD_COUNT is None and not self.child_streams

    def _sync_records(self, context: Any = None, *, write_messages: bool = True) -> Generator[dict[str, Any], Any, Any]:
        if not (write_messages and self.is_plain and self.selected):
            yield from super()._sync_records(context, write_messages=write_messages)
            return
        lines = RecordLines(self.name, version=self._stream_version)
        with self.get_record_counter() as counter, self.get_sync_timer():
            for event in self.events():
                if isinstance(event, pa.RecordBatch):
                    for piece in lines.write(event, _now()):
                        write_out(piece)
                    counter.increment(event.num_rows)
                    self.state_manager.is_flushed = False
                elif isinstance(event, Stream):
                    self._write_changed(event)
                else:
                    sys.stdout.flush()
                    self._write_state_message()
        sys.stdout.flush()
        self._write_state_message()

    def _write_changed(self, stream: Stream) -> None:
        """Declare columns that were added or changed while the source was read."""
        message = {
            "type": "SCHEMA",
            "stream": self.name,
            "schema": json_schema(stream),
            "key_properties": list(stream.key_properties),
            "bookmark_properties": list(stream.read.bookmark_properties),
        }
        write_out(memoryview(to_line(message)))

    def get_records(self, context: Any) -> Iterable[dict[str, Any]]:
        """Yield single records, for the SDK."""
        import json

        lines = RecordLines(self.name, is_wrapped=False)
        for event in self.events():
            if isinstance(event, pa.RecordBatch):
                for piece in lines.write(event):
                    for line in bytes(piece).splitlines():
                        yield json.loads(line, parse_float=Decimal)

    def _increment_stream_state(self, latest_record: Any, *, context: Any = None) -> None:
        """Do nothing: checkpoints move the state, since not all sources are sorted."""

    def _write_starting_replication_value(self, context: Any) -> None:
        """The source keeps its own starting point."""

    def get_batches(self, batch_config: Any, context: Any = None) -> Iterable[tuple[Any, list[str]]]:
        """Write the files of BATCH messages straight from Arrow: Parquet, or JSON lines with gzip."""
        if not self.is_plain:
            yield from super().get_batches(batch_config, context)
            return
        run = f"{batch_config.storage.prefix or ''}{self.tap_name}--{self.name}-{uuid4()}"
        held: list[pa.RecordBatch] = []
        count = number = 0
        for event in self.events():
            if isinstance(event, pa.RecordBatch):
                for start in range(0, event.num_rows, batch_config.batch_size):
                    piece = event.slice(start, batch_config.batch_size)
                    if held and count + piece.num_rows > batch_config.batch_size:
                        number += 1
                        yield self._file(batch_config, held, f"{run}-{number}")
                        held, count = [], 0
                    held.append(piece)
                    count += piece.num_rows
            elif held:  # the records of a checkpoint are written before its STATE
                number += 1
                yield self._file(batch_config, held, f"{run}-{number}")
                held, count = [], 0
        if held:
            yield self._file(batch_config, held, f"{run}-{number + 1}")

    def _file(self, batch_config: Any, batches: Sequence[pa.RecordBatch], stem: str) -> tuple[Any, list[str]]:
        encoding, storage = batch_config.encoding, batch_config.storage
        if encoding.format == "parquet":
            import pyarrow.parquet

            name = f"{stem}.parquet"
            with storage.open(name, "wb") as file:
                pyarrow.parquet.write_table(
                    pa.Table.from_batches(batches), file, compression=encoding.compression or "snappy"
                )
        elif encoding.format == "jsonl":
            lines, name = RecordLines(self.name, is_wrapped=False), f"{stem}.json.gz"
            with storage.open(name, "wb") as file, gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1) as packed:
                for batch in batches:
                    for piece in lines.write(batch):
                        packed.write(piece)
        else:
            raise ConnectorConfigError(f"batch_config: unknown format {encoding.format!r}; known: jsonl, parquet")
        return encoding, [storage.get_url(name)]


def singer_stream_names(streams: Sequence[Stream]) -> dict[str, str]:
    """Return `schema-table` for `schema.table`, as targets read it; names that would be equal stay as they are."""
    wanted = {stream.name: stream.name.replace(".", "-") for stream in streams}
    taken = list(wanted.values())
    return {name: singer if taken.count(singer) == 1 else name for name, singer in wanted.items()}


def write_out(piece: memoryview) -> None:
    """Write whole lines to stdout, past the text layer if stdout is a real file."""
    raw = getattr(sys.stdout, "buffer", None)
    if raw is None:
        sys.stdout.write(bytes(piece).decode())
        return
    sys.stdout.flush()
    raw.write(piece)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _floats(value: Any) -> Any:
    """Return the schema without Decimals, which the SDK's catalog cannot write."""
    if isinstance(value, dict):
        return {key: _floats(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_floats(part) for part in value]
    if isinstance(value, Decimal):
        return as_number(value)
    return value


__all__ = ["SourceStream", "SourceTap", "singer_stream_names", "tap_class", "write_out"]
