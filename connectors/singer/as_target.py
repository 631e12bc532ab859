"""Any of our destinations as a Singer target, on singer-sdk's `Target`.

Each drain of a stream is one load with one commit; the SDK echoes a STATE only after all streams were drained, so that
it never runs ahead of what was committed. Importing this module imports singer-sdk: never in a normal run.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import click
import msgspec
import pyarrow as pa
from singer_sdk import Target
from singer_sdk.helpers.capabilities import PluginCapabilities, TargetCapabilities
from singer_sdk.sinks import BatchSink

from ..errors import FatalConnectorError
from ..protocols import Destination
from ..stream import Checkpoint, Event, LedgerKey, Load, ReplicationMethod, Stream, WriteDisposition
from .batches import BadBatch, read_lines, read_tables
from .plugin_config import config_jsonschema, make_connector
from .records import BadRecord, Parser, Wider
from .types import Column, columns_of

#: Records of a stream that are written at once; config `batch_size_rows` changes it.
BATCH_RECORDS = 50_000

#: Connectors that keep their tables in schemas: `schema-table` of a tap means both there.
_WITH_SCHEMAS = frozenset({"postgres"})

_encoder = msgspec.json.Encoder(decimal_format="number")

_LOAD_METHOD = {
    "type": "string",
    "enum": ["upsert", "append-only", "overwrite"],
    "default": "upsert",
    "title": "Load method",
    "description": "upsert: a record replaces the one with its key (streams without keys: append); append-only: every "
    "record is kept; overwrite: the table is replaced",
}

_SANITIZE = {
    "type": "boolean",
    "default": False,
    "title": "Sanitize null text characters",
    "description": "take NUL characters out of texts, which PostgreSQL refuses; otherwise they are an error",
}


def target_class(connector: str) -> type[Target]:
    """Return the target class of one of our destinations."""
    schema = config_jsonschema(connector, "destination")
    own = {"load_method": _LOAD_METHOD, "sanitize_null_text_characters": _SANITIZE}
    schema["properties"] = {**schema["properties"], **own}
    attributes = {
        "name": f"target-syncblocks-{connector}",
        "package_name": "syncblocks",
        "connector": connector,
        "config_jsonschema": schema,
        "__doc__": f"Writes with the {connector} connector of syncblocks.",
    }
    return type(f"Target{connector.title()}", (DestinationTarget,), attributes)


class DestinationSink(BatchSink):
    """One stream on its way to a table."""

    MAX_SIZE_DEFAULT = BATCH_RECORDS

    def __init__(
        self, target: Target, stream_name: str, schema: dict[str, Any], key_properties: Sequence[str] | None
    ) -> None:
        super().__init__(target=target, stream_name=stream_name, schema=schema, key_properties=key_properties)
        assert isinstance(target, DestinationTarget)
        self._ours = target
        self._columns = columns_of(self.schema)
        self.table = table_name(stream_name, target.connector, self.config)

    def _parse_timestamps_in_record(self, record: Any, schema: Any, treatment: Any) -> None:
        """Leave texts as they are: they are read with the columns' types, all records at once."""

    def process_batch(self, context: dict[str, Any]) -> None:
        """Write the records held; they are committed when this returns."""
        records = context["records"]
        if self._columns and records:
            self._write([self._parsed(records)])

    def process_batch_files(self, encoding: Any, files: Sequence[str]) -> None:
        """Load the files of a BATCH message, after the records that came before it."""
        self._ours.drain_one(self)
        form = {"format": encoding.format, "compression": encoding.compression}
        try:
            for file in files:
                if encoding.format == "jsonl":
                    self._write(self._parse(block, lines) for block, lines in read_lines(file, form))
                else:
                    self._write(read_tables(file, form, self._schema()))
        except BadBatch as error:
            raise FatalConnectorError(f"stream {self.stream_name!r}: a BATCH cannot be read: {error}") from error

    def clean_up(self) -> None:
        """An `overwrite` of a stream without records still empties its table."""
        if self._columns and self._disposition() is WriteDisposition.REPLACE:
            self._write([])
        super().clean_up()

    def _write(self, batches: Iterable[pa.RecordBatch]) -> None:
        disposition = self._disposition()
        self._ours.load(self, batches, disposition)

    def _disposition(self) -> WriteDisposition:
        method = self.config.get("load_method", "upsert")
        if method == "overwrite" and self.table not in self._ours.overwritten:
            return WriteDisposition.REPLACE
        return WriteDisposition.MERGE if method == "upsert" and self.key_properties else WriteDisposition.APPEND

    # -- from records to Arrow -----------------------------------------------------------------------------------

    def _schema(self) -> pa.Schema:
        keys = set(self.key_properties)
        return pa.schema([column.field(nullable=column.name not in keys) for column in self._columns])

    def stream(self, schema: pa.Schema) -> Stream:
        """Return the stream as it arrives."""
        return Stream(
            name=self.stream_name,
            schema=schema,
            key_properties=tuple(self.key_properties),
            replication_method=ReplicationMethod.INCREMENTAL,
        )

    def _parsed(self, records: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
        if self.config.get("sanitize_null_text_characters"):
            records = [_without_nul(record) for record in records]
        block = b"\n".join(_encoder.encode(record) for record in records) + b"\n"
        return self._parse(block, range(1, len(records) + 1))

    def _parse(self, block: bytes, lines: Sequence[int]) -> pa.RecordBatch:
        while True:
            parser = Parser(self._columns, frozenset(self.key_properties), stream=self.stream_name, is_wrapped=False)
            try:
                return parser.parse(block, lines)
            except Wider as wider:
                self._columns = [_widened(column, wider) for column in self._columns]
            except BadRecord as error:
                raise FatalConnectorError(
                    f"stream {self.stream_name!r}: record {error.line} of a batch {error}", stream=self.stream_name
                ) from error


class DestinationTarget(Target):
    """A target over a `Destination`; `target_class` makes one for each connector."""

    name = "target-syncblocks"
    package_name = "syncblocks"
    connector = ""
    default_sink_class = DestinationSink
    capabilities: ClassVar[Any] = [
        PluginCapabilities.ABOUT,
        PluginCapabilities.STREAM_MAPS,
        PluginCapabilities.FLATTENING,
        PluginCapabilities.BATCH,
        PluginCapabilities.STRUCTURED_LOGGING,
        TargetCapabilities.VALIDATE_RECORDS,
    ]

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._destination: Destination | None = None
        self._run = secrets.token_hex(16)
        #: Tables that this run has replaced: what comes later is added.
        self.overwritten: set[str] = set()

    @classmethod
    def get_singer_command(cls) -> click.Command:
        """Read `--input` as what messages are in, whatever the locale says."""
        command = super().get_singer_command()
        for parameter in command.params:
            if parameter.name == "file_input":
                parameter.type = click.File("r", encoding="utf-8")
        return command

    @property
    def destination(self) -> Destination:
        """The connector, made when it is first needed."""
        if self._destination is None:
            self._destination = make_connector(self.connector, "destination", self.config)
            self.max_parallelism = self._destination.max_loads or 4
        return self._destination

    def load(self, sink: DestinationSink, batches: Iterable[pa.RecordBatch], disposition: WriteDisposition) -> None:
        """Write batches of one stream and commit them."""
        key = LedgerKey(pipeline=self.name, stream=sink.stream_name, destination_table=sink.table)
        token = secrets.token_hex(16)
        owner = f"{self.name} on {socket.gethostname()}, process {os.getpid()}"
        row = self.destination.take_over(key, token=token, owner=owner, source=f"singer://{sink.stream_name}")
        batches = iter(batches)
        first = next(batches, None)
        schema = sink._schema() if first is None else first.schema

        def events() -> Iterable[Event]:
            current = schema
            if first is not None:
                yield first
            for batch in batches:
                if batch.schema != current:
                    current = batch.schema
                    yield sink.stream(current)
                yield batch
            yield Checkpoint(is_final=True)

        load = Load(
            key=key,
            stream=sink.stream(schema),
            write_disposition=disposition,
            token=token,
            run=f"{self._run}:1",
            columns=row.columns,
        )
        for _ in self.destination.load(load, iter(events())):
            pass
        if disposition is WriteDisposition.REPLACE:
            self.overwritten.add(sink.table)

    def process_endofpipe(self) -> None:
        """Write what is left, then let go of the destination."""
        super().process_endofpipe()
        if self._destination is not None:
            self._destination.close()


def table_name(stream: str, connector: str, config: Mapping[str, Any]) -> str:
    """Return the table of a stream: `schema-table`, as SQL taps write it, names both where there are schemas."""
    if connector not in _WITH_SCHEMAS or "-" not in stream:
        return stream
    schema, _, table = stream.rpartition("-")
    return table if config.get("schema") else f"{schema.rpartition('-')[2]}.{table}"


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [_without_nul(part) for part in value]
    if isinstance(value, dict):
        return {key: _without_nul(part) for key, part in value.items()}
    return value


def _widened(column: Column, wider: Wider) -> Column:
    return column.widened(wider.kind) if column.name == wider.column.name else column


__all__ = ["DestinationSink", "DestinationTarget", "table_name", "target_class"]
