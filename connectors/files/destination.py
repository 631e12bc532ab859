"""Destinations of CSV, JSON lines and Parquet files.

`path` is a folder. `replace` and `merge` write one file for each table, `append` a folder with a part for each commit.
The manifest (`manifest.py`) names the current files and holds the ledger rows: one atomic replacement changes both.
Object stores have no lock: two runs that commit to one table at the same instant may overwrite each other.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from ..arrow.fidelity import Kept
from ..errors import ConnectorConfigError, ConnectorError, FatalConnectorError, taken_over
from ..interrupts import Calls
from ..protocols import Capability
from ..read_spec import Condition
from ..settings import parse_settings
from ..stream import Block, Bookmark, Commit, Event, FileRead, LedgerKey, LedgerRow, Load, Place, Stream, TableState
from ..struct_helpers import replace
from ..write_spec import WriteDisposition
from .columns import kept
from .csv_format import CSVFormat
from .formats import Format
from .jsonl_format import JSONLFormat
from .layout import MOST_OPEN, Layout
from .load import FilesLoad
from .manifest import STAGING, manifest_files, quote, read_manifest, roll_forward
from .opening import open_storage
from .parquet_format import GROUP_BYTES, ParquetFormat
from .partitions import parse_partitions
from .paths import identity, reach, unverified
from .settings import (
    CSVDestinationSettings,
    CSVSourceSettings,
    FileDestinationSettings,
    ParquetDestinationSettings,
    TextDestinationSettings,
)
from .storage import Storage, translated
from .table import FilesTable

#: Bytes of a row group at least, where many files are written at once.
LEAST_GROUP = 1 << 18


class FileDestination:
    """Writes one file, or one folder of files, for each table."""

    connector: ClassVar[str]
    settings: ClassVar[type[FileDestinationSettings]]
    has_ledger = True
    capabilities = frozenset(
        {
            Capability.KEEPS_FIRST,
            Capability.KEEPS_HISTORY,
            Capability.MARKS_RECORDS,
            Capability.REMOVES_RECORDS,
            Capability.REPLACES_RANGES,
            Capability.UPDATES_ONLY,
        }
    )
    max_loads: int | None = None

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self._settings = parse_settings(self.settings, config, self.connector)
        self._folder = folder
        self._calls = Calls()
        self._layout = Layout(
            parse_partitions(self._settings.partition_by), self._settings.file_records, self._settings.file_bytes
        )
        self._format, self._extension, self._codec = self._formats()

    def identity(self) -> str:
        return identity(self.connector, self._settings.path, self._folder)

    def place(self) -> Place:
        """Tell a URL from a path of this machine."""
        return reach(self._settings.path)

    def unverified_server(self) -> str:
        """Warn of ftp and http; the keys of sftp and the certificates of https are checked."""
        return unverified(self._settings.path)

    def check(self) -> None:
        storage = self._storage()
        with translated(storage.label()):
            storage.check_writable()

    def describe(self, tables: Sequence[str]) -> Mapping[str, TableState]:
        storage = self._storage()
        return {name: self._table(storage, name).state() for name in tables}

    def rows_of(self, pipeline: str, tables: Sequence[str]) -> Sequence[LedgerRow]:
        """See `ListsLedger`: the ledgers of all tables stand in one folder."""
        storage = self._storage()
        with translated(storage.label()):
            manifests = [read_manifest(storage, name) for name in manifest_files(storage, "", self._format.suffix)]
        return [row for each in manifests if each for row in each.rows if row.key.pipeline == pipeline]

    def limits(self, destination_table: str, columns: Sequence[str]) -> Mapping[str, tuple[Any, Any]]:
        """See `ReadsLimits`."""
        return self._table(self._storage(), destination_table).limits(columns)

    def keeps_rejected(self) -> str:
        """Keep them all."""
        return ""

    def keeps_latest(self, field: pa.Field) -> bool:
        """Compare as Arrow does."""
        return True

    def drops_deleted(self, condition: Condition) -> bool:
        """Compare as Arrow does."""
        return True

    def keeps(self, stream: Stream, table: TableState, disposition: WriteDisposition) -> Sequence[Kept]:
        """Return how each column is kept; REPLACE ignores the types of the old table."""
        stored = self._format.stored(stream.schema)
        is_new = table.schema is None or disposition is WriteDisposition.REPLACE
        return [kept(field, stored.field(field.name), table, self._format, is_new=is_new) for field in stream.schema]

    def accepts(self, stream: Stream, disposition: WriteDisposition) -> Sequence[str]:
        """See `Destination`."""
        for partition in self._layout.partitions:
            partition.demand(stream.schema)
        return ("arrow",)

    def take_over(self, key: LedgerKey, *, token: str, owner: str, source: str | None = None) -> LedgerRow:
        def taken(row: LedgerRow | None) -> LedgerRow:
            row = row or LedgerRow(key=key, source="", token=token)
            return replace(row, token=token, owner=owner, source=row.source if source is None else source)

        with self._calls.under_way(key.stream) as call:
            row = self._table(self._storage(), key.destination_table).change_row(key, taken, call.is_stopped)
        assert row is not None
        return row

    def set_bookmark(self, key: LedgerKey, bookmark: Bookmark | None, *, forget: bool = False) -> None:
        def changed(row: LedgerRow | None) -> LedgerRow | None:
            token = secrets.token_hex(16)
            row = row or LedgerRow(key=key, source="", token=token)
            rows = None if bookmark is None else row.rows
            return None if forget else replace(row, token=token, bookmark=bookmark, rows=rows)

        with self._calls.under_way(key.stream) as call:
            table = self._table(self._storage(), key.destination_table)
            table.change_row(key, changed, call.is_stopped, forgets_files=bookmark is None)

    def note_log(self, key: LedgerKey, token: str, log: Mapping[str, Any]) -> None:
        """See `NotesLog`."""

        def noted(row: LedgerRow | None) -> LedgerRow:
            if row is None or row.token != token:
                raise taken_over(key.stream, row.owner if row else "")
            return replace(row, log=dict(log))

        with self._calls.under_way(key.stream) as call:
            self._table(self._storage(), key.destination_table).change_row(key, noted, call.is_stopped)

    def files_read(self, key: LedgerKey) -> Sequence[FileRead]:
        """See `KeepsFiles`."""
        return self._table(self._storage(), key.destination_table).files_read(key)

    def forget_files(self, key: LedgerKey, paths: Collection[str]) -> None:
        """See `KeepsFiles`."""
        self.take_over(key, token=secrets.token_hex(16), owner="set by hand")
        self._table(self._storage(), key.destination_table).forget_files(key, frozenset(paths))

    def load(self, load: Load, events: Iterator[Event | Block], wire: str = "arrow") -> Iterator[Commit]:
        if wire != "arrow":
            raise ConnectorConfigError(
                f"connector {self.connector!r} does not accept the transfer format {wire!r}", connector=self.connector
            )
        storage = self._storage()
        with self._calls.under_way(load.key.stream) as call, translated(storage.label()):
            yield from FilesLoad(self._table(storage, load.key.destination_table), load, call, self._layout).run(events)

    def drop_staging(self, tokens: Sequence[str]) -> None:
        """Finish the commits of dead runs, then delete their staged files."""
        storage = self._storage()
        with translated(storage.label()):
            for token in tokens:
                folder = f"{STAGING}/{quote(token)}"
                if storage.kind(folder) is None:
                    continue
                for name in manifest_files(storage, "", self._format.suffix):
                    with storage.lock(name.removesuffix(".json") + ".lock", lambda: False):
                        manifest = read_manifest(storage, name)
                        if manifest is not None:
                            roll_forward(storage, name, manifest)
                storage.delete_folder(folder)

    def interrupt(self, stream: str) -> None:
        self._calls.interrupt(stream)

    def close(self) -> None:
        """Nothing stays open: files are open only while they are written."""

    def _storage(self) -> Storage:
        try:
            storage = open_storage(self._settings.path, self._folder, self._settings.storage_options)
            storage.demand_destination()
            return storage
        except ConnectorError as error:
            raise error.with_traceback(None)  # noqa: B904 (of frames whose variables hold the URL with its password)

    def _table(self, storage: Storage, name: str) -> FilesTable:
        return FilesTable(storage, name, self._format, self._extension, self._codec, self._layout.written)

    def _formats(self) -> tuple[Format, str, str | None]:
        """Return the format, the suffix of its files and their codec."""
        raise FatalConnectorError("a file destination needs a format")


class _TextDestination(FileDestination):
    """A destination of CSV or JSON lines, whose files may be compressed."""

    settings = TextDestinationSettings

    def _format_of(self) -> Format:
        raise FatalConnectorError("a destination of texts needs a format")

    def _formats(self) -> tuple[Format, str, str | None]:
        assert isinstance(self._settings, TextDestinationSettings)
        made = self._format_of()
        ends = {"none": "", "gzip": ".gz", "zstd": ".zst"}
        codec = self._settings.compression
        return made, f".{made.suffix}{ends[codec]}", None if codec == "none" else codec


class CSVDestination(_TextDestination):
    """Writes CSV; `arrow.text` writes the types."""

    connector = "csv"
    settings = CSVDestinationSettings

    def _format_of(self) -> Format:
        # Its own files are read as they were written.
        said = self._settings.model_dump(include={"delimiter", "quote", "header", "encoding"})
        assert isinstance(self._settings, CSVDestinationSettings)
        return CSVFormat(CSVSourceSettings(path=".", **said), self._settings.quoting)


class JSONLDestination(_TextDestination):
    """Writes one JSON object a line; `arrow.text` writes the types."""

    connector = "jsonl"

    def _format_of(self) -> Format:
        return JSONLFormat()


class ParquetDestination(FileDestination):
    """Writes Parquet files."""

    connector = "parquet"
    settings = ParquetDestinationSettings

    def limit_memory(self, size_bytes: int, *, is_strict: bool) -> None:
        """Give each of up to eight streams an equal part for its row groups."""
        assert isinstance(self._format, ParquetFormat)
        share = min(GROUP_BYTES, size_bytes // 8)
        share = min(share, self._settings.file_bytes or share)
        self._format.group_bytes = max(LEAST_GROUP, share // MOST_OPEN) if self._layout.partitions else share

    def _formats(self) -> tuple[Format, str, str | None]:
        assert isinstance(self._settings, ParquetDestinationSettings)
        made = ParquetFormat(compression=self._settings.compression)
        made.group_bytes = min(GROUP_BYTES, self._settings.file_bytes or GROUP_BYTES)
        return made, ".parquet", None
