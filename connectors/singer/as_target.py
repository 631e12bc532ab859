"""Any destination as a Singer target, on singer-sdk's `Target`.

Each drain of a stream is one load with one commit. The SDK echoes a STATE after all streams were drained, so the STATE
is never ahead of the commits. Importing this module imports singer-sdk: a normal run does not do it.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import click
import msgspec
import pyarrow as pa
from singer_sdk import Target
from singer_sdk.exceptions import SyncError
from singer_sdk.helpers.capabilities import PluginCapabilities, TargetCapabilities
from singer_sdk.io_base import SingerReader
from singer_sdk.singerlib.exceptions import SingerReadError
from singer_sdk.sinks import BatchSink

from ..arrow.fidelity import Fidelity, as_text, fidelity
from ..capabilities import capabilities_of
from ..errors import ConnectorConfigError, ConnectorError, FatalConnectorError
from ..programs.records import MalformedRecord, Parser, Wider
from ..programs.types import PropertyColumn, columns_of
from ..protocols import Capability, Destination
from ..read_spec import ReadSpec, ReplicationMethod
from ..stream import Checkpoint, Event, LedgerKey, Load, Stream
from ..struct_helpers import replace
from ..write_spec import WriteDisposition, WriteSpec
from .batches import BadBatch, BatchFiles, batch_roots
from .plugin_config import ConfigWithoutValues, config_jsonschema, make_connector
from .versions import VERSION, OlderVersions, version_column

#: Records of a stream in one load; config `batch_size_rows` changes it.
BATCH_RECORDS = 50_000

#: Schemas of streams that changed since; their records are written before there are more.
MAX_EARLIER_SINKS = 100

#: Errors of singer-sdk for a line that is no message, and for a record that does not match its SCHEMA.
UNREADABLE = (SyncError, SingerReadError)

#: Connectors with schemas: there, a tap's `schema-table` names schema and table.
_WITH_SCHEMAS = frozenset({"postgres"})

#: Connectors of files -> how such a file's name ends.
_FILES = {name: tuple(f".{name}{end}" for end in ("", ".gz", ".zst")) for name in ("csv", "jsonl", "parquet")}

#: What errors of connectors advise for a pipeline -> the same for a target, in the order of replacement.
_ADVICE = {
    "`--full-refresh`": "--full-refresh",
    "--full-refresh": "`load_method: overwrite` and without a state of the tap",
    "exclude it with `columns`": "leave it out with `stream_maps`",
    "`write_disposition: merge`": "`load_method: upsert` for a stream with keys",
    "`write_disposition: replace` in this stream": "`load_method: overwrite`",
    "write_disposition append": "`load_method: append-only`",
    "give another `destination_table`": "give the stream another name by `__alias__` in `stream_maps`",
    "choose another destination_table": "give the stream another name by `__alias__` in `stream_maps`",
    ", or let `on_rejected: keep` set such records aside": "",
}

_encoder = msgspec.json.Encoder(decimal_format="number")

_LOAD_METHOD = {
    "type": "string",
    "enum": ["upsert", "append-only", "overwrite"],
    "default": "upsert",
    "title": "Load method",
    "description": "upsert: a record replaces the record with its key (streams without keys: append); append-only: "
    "all records are kept; overwrite: the table is replaced",
}

_SANITIZE = {
    "type": "boolean",
    "default": False,
    "title": "Sanitize null text characters",
    "description": "remove NUL characters from texts, which PostgreSQL refuses; otherwise they are an error",
}


def target_class(connector: str) -> type[Target]:
    """Return the target class of a destination."""
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
        #: Integer columns that the table has as text; None: not known yet.
        self._texts: frozenset[str] | None = None
        #: Whether BATCH files have arrived.
        self._has_files = False
        self.table = table_name(stream_name, target.connector, self.config)
        target.claim(self.table, stream_name)

    def preprocess_record(self, record: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
        """Add the version to a record, if the stream has versions."""
        version = self._ours.version
        if self._heeds_versions and isinstance(version, int):
            if all(column.name != VERSION for column in self._columns):
                self._columns = [*self._columns, version_column()]
            record[VERSION] = version
        return record

    @property
    def _heeds_versions(self) -> bool:
        """Whether ACTIVATE_VERSION removes records: not with append-only, and not where the table is replaced."""
        return self.process_activate_version_messages and self.config.get("load_method", "upsert") == "upsert"

    def activate_version(self, new_version: int) -> None:
        """Write the buffered records, then remove the table's records of older versions."""
        if not self._heeds_versions:
            return
        self._ours.drain_stream(self)
        if self._has_files:
            self.logger.warning("ACTIVATE_VERSION of %s: records in BATCH files have no version", self.stream_name)
            return
        older = OlderVersions(self._ours.connector, self.config, self._ours.destination, self.table)
        if not older.is_there:
            return
        if self.key_properties and Capability.REMOVES_RECORDS in capabilities_of(self._ours.destination):
            removed = older.keys(self.key_properties, new_version)
            if removed is not None:
                self._ours.load(self, [], WriteDisposition.MERGE, removed=removed)
            return
        with older.rest(new_version) as rest:
            if rest is not None:
                self._ours.load(self, rest[1], WriteDisposition.REPLACE, stream=rest[0])

    def _parse_timestamps_in_record(self, record: Any, schema: Any, treatment: Any) -> None:
        """Leave texts as they are: all records are converted at once, later."""

    def process_batch(self, context: dict[str, Any]) -> None:
        """Write and commit the buffered records."""
        self._ours.drain_earlier(self)
        records = context["records"]
        if self._columns and records:
            self._write([self._parsed(records)])

    def process_batch_files(self, encoding: Any, files: Sequence[str]) -> None:
        """Load the files of a BATCH message, after the records before it."""
        self._ours.drain_stream(self)
        self._has_files = True
        opener = BatchFiles(batch_roots(self.config), Path.cwd())
        form = {"format": encoding.format, "compression": encoding.compression}
        try:
            for file in files:
                if encoding.format == "jsonl":
                    self._write(self._parse(block, lines) for block, lines in opener.read_lines(file, form))
                else:
                    self._write(opener.read_tables(file, form, self._schema()))
        except BadBatch as error:
            raise FatalConnectorError(f"stream {self.stream_name!r}: a BATCH cannot be read: {error}") from error

    def clean_up(self) -> None:
        """Empty the table of an `overwrite` stream without records."""
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

    def fitted(self, schema: pa.Schema, disposition: WriteDisposition) -> pa.Schema:
        """Return the schema as the table takes it: as in a pipeline, an integer enters a text column as its text."""
        if self._texts is None:
            self._texts = frozenset(self._found_texts(schema, disposition))
        return pa.schema([pa.field(f.name, pa.string(), f.nullable) if f.name in self._texts else f for f in schema])

    def _found_texts(self, schema: pa.Schema, disposition: WriteDisposition) -> Iterable[str]:
        destination = self._ours.destination
        types = capabilities_of(destination).states_types
        integers = [field for field in schema if pa.types.is_integer(field.type)]
        if types is None or not integers:
            return
        stream, table = self.stream(schema), destination.describe([self.table])[self.table]
        texts = [pa.field(f.name, pa.string(), f.nullable) if f in integers else f for f in schema]
        as_they_are = types.keeps(stream, table, disposition)
        as_texts = types.keeps(replace(stream, schema=pa.schema(texts)), table, disposition)
        for field, own, text in zip(schema, as_they_are, as_texts, strict=True):
            if field in integers and fidelity(field, own) is Fidelity.LOSSY and text.held == text.type:
                yield field.name

    def stream(self, schema: pa.Schema) -> Stream:
        """Return the stream as it arrives."""
        return Stream(
            name=self.stream_name,
            schema=schema,
            key_properties=tuple(self.key_properties),
            read=ReadSpec(method=ReplicationMethod.INCREMENTAL),
        )

    def _parsed(self, records: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
        if self.config.get("sanitize_null_text_characters"):
            records = [_without_nul(record) for record in records]
        try:
            block = b"\n".join(_encoder.encode(record) for record in records) + b"\n"
        except UnicodeEncodeError as error:
            raise _no_text("RECORD", self.stream_name) from error
        return self._parse(block, range(1, len(records) + 1))

    def _parse(self, block: bytes, lines: Sequence[int]) -> pa.RecordBatch:
        while True:
            parser = Parser(self._columns, frozenset(self.key_properties), stream=self.stream_name, envelope=None)
            try:
                return parser.parse(block, lines)
            except Wider as wider:
                self._columns = [_widened(column, wider) for column in self._columns]
            except MalformedRecord as error:
                raise FatalConnectorError(
                    f"stream {self.stream_name!r}: record {error.line} of a batch {error}", stream=self.stream_name
                ) from error


def _shared(stream: str, other: str, table: str, way_out: str = "") -> FatalConnectorError:
    return FatalConnectorError(
        f"streams {stream!r} and {other!r} would both be written into table {table!r}, where records with equal "
        f"keys replace each other: {way_out}rename one of them by `__alias__` in `stream_maps`, or send each to a "
        "separate target",
        stream=other,
    )


class _Reader(SingerReader):
    def _process_unknown_message(self, message_dict: dict[str, Any]) -> None:
        raise FatalConnectorError(f"a message of the tap has the unknown type {message_dict['type']!r}")


class DestinationTarget(ConfigWithoutValues, Target):
    """A target over a `Destination`; `target_class` makes one for each connector."""

    name = "target-syncblocks"
    package_name = "syncblocks"
    connector = ""
    default_sink_class = DestinationSink
    message_reader_class = _Reader
    capabilities: ClassVar[Any] = [
        PluginCapabilities.ABOUT,
        PluginCapabilities.STREAM_MAPS,
        PluginCapabilities.FLATTENING,
        PluginCapabilities.BATCH,
        PluginCapabilities.ACTIVATE_VERSION,
        PluginCapabilities.STRUCTURED_LOGGING,
        TargetCapabilities.VALIDATE_RECORDS,
    ]

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._destination: Destination | None = None
        self._run = secrets.token_hex(16)
        #: Tables that this run has replaced: later records are appended.
        self.overwritten: set[str] = set()
        #: One name of each table (`NamesTables.one_name`) -> the stream written into it.
        self._streams: dict[str, str] = {}
        #: Name after `stream_maps` -> the stream of the tap that has it.
        self._sources: dict[str, str] = {}
        #: Version in the message of the current record.
        self.version: Any = None
        #: Stream without a SCHEMA yet -> the version that its last ACTIVATE_VERSION has.
        self._early_versions: dict[str, int] = {}

    @classmethod
    def get_singer_command(cls) -> click.Command:
        """Read `--input` as UTF-8, whatever the locale."""
        command = super().get_singer_command()
        for parameter in command.params:
            if parameter.name == "file_input":
                parameter.type = click.File("r", encoding="utf-8")
        return command

    @property
    def destination(self) -> Destination:
        """The connector, made when it is first needed."""
        if self._destination is None:
            _demand_folder(self.connector, self.config)
            self._destination = make_connector(self.connector, "destination", self.config)
            self.max_parallelism = self._destination.max_loads or 4
        return self._destination

    def claim(self, table: str, stream: str) -> None:
        """Note that a stream is written into a table.

        Raises:
            FatalConnectorError: another stream is written into it, and records with the same key would be lost.
        """
        names = capabilities_of(self.destination).names_tables
        other = self._streams.setdefault(table if names is None else names.one_name(table), stream)
        if other != stream:
            way_out = "remove `schema` from the target's config, so that each stream keeps its own schema; or " * (
                self.connector in _WITH_SCHEMAS and bool(self.config.get("schema"))
            )
            raise _shared(other, stream, table, way_out)

    def _process_schema_message(self, message_dict: dict[str, Any]) -> None:
        """Let no two streams of the tap share a sink: `stream_maps` may give them one name.

        Raises:
            FatalConnectorError: two streams have one name.
        """
        stream = message_dict.get("stream", "")
        try:
            _encoder.encode(message_dict)
        except UnicodeEncodeError as error:
            raise _no_text("SCHEMA", stream) from error
        super()._process_schema_message(message_dict)
        if len(self._sinks_to_clear) >= MAX_EARLIER_SINKS:
            for sink in self._sinks_to_clear:
                self.drain_one(sink)
            self._sinks_to_clear = []
        for stream_map in self.mapper.stream_maps[stream]:
            other = self._sources.setdefault(stream_map.stream_alias, stream)
            if other != stream and self.sink_exists(stream_map.stream_alias):
                raise _shared(other, stream, table_name(stream_map.stream_alias, self.connector, self.config))
        if stream in self._early_versions:
            self._activate(stream, self._early_versions.pop(stream))

    def _process_record_message(self, message_dict: dict[str, Any]) -> None:
        self.version = message_dict.get("version")
        super()._process_record_message(message_dict)

    def _process_activate_version_message(self, message_dict: dict[str, Any]) -> None:
        """Let the sinks of a stream remove older versions; before its SCHEMA the message waits for it.

        Raises:
            FatalConnectorError: the message has no stream or no version.
        """
        stream, version = message_dict.get("stream"), message_dict.get("version")
        if not isinstance(stream, str) or isinstance(version, bool) or not isinstance(version, int):
            raise FatalConnectorError(
                f"an ACTIVATE_VERSION of stream {stream!r} has version {version!r}, which is not an integer"
            )
        if stream in self.mapper.stream_maps:
            self._activate(stream, version)
        else:
            self._early_versions[stream] = version

    def _activate(self, stream: str, version: int) -> None:
        for stream_map in self.mapper.stream_maps[stream]:
            if self.sink_exists(stream_map.stream_alias):  # `stream_maps` may leave the stream out
                self.get_sink(stream_map.stream_alias).activate_version(version)

    def drain_stream(self, sink: DestinationSink) -> None:
        """Write all buffered records of a stream, also those with an earlier schema."""
        self.drain_earlier(sink)
        self.drain_one(sink)

    def drain_earlier(self, sink: DestinationSink) -> None:
        """Write the buffered records of a stream that came with an earlier schema than the sink's."""
        for each in self._sinks_to_clear:
            if each is sink:
                return
            if each.stream_name == sink.stream_name:
                self.drain_one(each)

    def load(
        self,
        sink: DestinationSink,
        batches: Iterable[pa.RecordBatch],
        disposition: WriteDisposition,
        *,
        stream: Stream | None = None,
        removed: pa.Table | None = None,
    ) -> None:
        """Write batches of one stream and commit them.

        Args:
            sink: the sink of the stream.
            batches: batches of the stream's schema, or of several schemas in turn.
            disposition: the write disposition.
            stream: the stream as it arrives, if not as in the sink.
            removed: keys whose records are removed.

        Raises:
            ConnectorError: as of the destination, with advice for a target.
        """
        try:
            self._load(sink, batches, disposition, stream, removed)
        except ConnectorError as error:
            for told, here in _ADVICE.items():
                error.renamed(told, here)
            raise
        if disposition is WriteDisposition.REPLACE and stream is None:
            self.overwritten.add(sink.table)

    def _load(
        self,
        sink: DestinationSink,
        batches: Iterable[pa.RecordBatch],
        disposition: WriteDisposition,
        stream: Stream | None,
        removed: pa.Table | None,
    ) -> None:
        key = LedgerKey(pipeline=self.name, stream=sink.stream_name, destination_table=sink.table)
        token = secrets.token_hex(16)
        owner = f"{self.name} on {socket.gethostname()}, process {os.getpid()}"
        row = self.destination.take_over(key, token=token, owner=owner, source=f"singer://{sink.stream_name}")
        batches = (
            iter(batches) if stream else (_as_texts(each, sink.fitted(each.schema, disposition)) for each in batches)
        )
        first = next(batches, None)
        if first is not None:
            schema = first.schema
        else:
            schema = stream.schema if stream else sink.fitted(sink._schema(), disposition)

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
            stream=stream or sink.stream(schema),
            write=WriteSpec(disposition=disposition),
            token=token,
            run=f"{self._run}:1",
            removed=removed,
            columns=row.columns,
            compared_at=row.compared_at,
        )
        for _ in self.destination.load(load, iter(events())):
            pass

    def process_endofpipe(self) -> None:
        """Write the remaining records, then close the destination."""
        super().process_endofpipe()
        for stream, version in self._early_versions.items():
            self.logger.warning("ACTIVATE_VERSION %d of %s: the stream has no SCHEMA; skipped", version, stream)
        if self._destination is not None:
            self._destination.close()


def _demand_folder(connector: str, config: Mapping[str, Any]) -> None:
    """Refuse a place that is named like a file, which a pipeline's destination writes as one.

    Raises:
        ConnectorConfigError: see above.
    """
    path = str(config.get("path") or "")
    if connector not in _FILES or not path.lower().endswith(_FILES[connector]):
        return
    if "://" in path or not Path(path).is_dir():
        raise ConnectorConfigError(
            f"path {path!r} looks like one file, but a target writes a file or a folder for each stream, in parts: "
            "name a folder; `syncblocks run` and `syncblocks sync` can write one file",
            connector=connector,
            key="path",
        )


def table_name(stream: str, connector: str, config: Mapping[str, Any]) -> str:
    """Return the table of a stream; `schema-table`, as SQL taps write it, names both if there are schemas."""
    if connector not in _WITH_SCHEMAS or "-" not in stream:
        return stream
    schema, _, table = stream.rpartition("-")
    return table if config.get("schema") else f"{schema.rpartition('-')[2]}.{table}"


def _as_texts(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch with the integers as text that are text in the schema."""
    if batch.schema == schema:
        return batch
    columns = [
        column if column.type == field.type else as_text(column, field.name)
        for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _no_text(kind: str, stream: Any) -> FatalConnectorError:
    return FatalConnectorError(f"a {kind} of stream {stream!r} contains half a surrogate pair, which is not text")


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [_without_nul(part) for part in value]
    if isinstance(value, dict):
        return {key: _without_nul(part) for key, part in value.items()}
    return value


def _widened(column: PropertyColumn, wider: Wider) -> PropertyColumn:
    return column.widened(wider.kind) if column.name == wider.column.name else column


__all__ = ["UNREADABLE", "DestinationSink", "DestinationTarget", "table_name", "target_class"]
