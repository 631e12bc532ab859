"""One table of a file destination: its manifest, its files, and the lock around both."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, cast

import pyarrow as pa
from msgspec import Struct

from ..arrow import compute as pc
from ..arrow.conform import conformed
from ..errors import FatalConnectorError
from ..known_files import KnownFiles
from ..stream import FileRead, LedgerKey, LedgerRow, TableState
from ..write_spec import WriteDisposition
from .formats import Format
from .manifest import (
    STAGING,
    Manifest,
    ReadList,
    TableFile,
    file_stem,
    manifest_name,
    quote,
    read_manifest,
    roll_forward,
    write_manifest,
)
from .paths import DataFile, stem_of
from .read_list import add_known, known_by, listed_again
from .storage import Storage, translated


class Staged(Struct, frozen=True):
    """A written file that no manifest names yet."""

    name: str
    schema: pa.Schema
    records: int
    size_bytes: int
    #: Its folder below the table's; empty: it has none of its own.
    folder: str = ""


class FilesTable:
    """Files and ledger rows of one table."""

    def __init__(
        self,
        storage: Storage,
        name: str,
        made: Format,
        extension: str,
        codec: str | None,
        partitioned: Mapping[str, Any] | None = None,
    ) -> None:
        self.storage = storage
        #: How all of its files are written.
        self.written: Mapping[str, Any] = {**made.written, **(partitioned or {})}
        self.name = name
        self.format = made
        self.extension = extension
        self.quoted = quote(name)
        #: What its files are called, without suffix.
        self.stem = file_stem(name)
        self._codec = codec
        self._manifest = manifest_name(name, made.suffix)

    def read(self) -> Manifest:
        """Read the manifest; empty if there is none."""
        with translated(self.storage.label(self._manifest)):
            return read_manifest(self.storage, self._manifest) or Manifest(table=self.name)

    @contextmanager
    def locked(self, is_interrupted: Callable[[], bool]) -> Iterator[Manifest]:
        """Hold the table's lock and yield the manifest, after moves and deletions of earlier commits."""
        lock = self._manifest.removesuffix(".json") + ".lock"
        with translated(self.storage.label(self._manifest)), self.storage.lock(lock, is_interrupted):
            yield roll_forward(self.storage, self._manifest, self.read())

    def commit(self, manifest: Manifest) -> None:
        """Replace the manifest, then move and delete files; under the lock."""
        with translated(self.storage.label(self._manifest)):
            write_manifest(self.storage, self._manifest, manifest)
            roll_forward(self.storage, self._manifest, manifest)

    def forget_files(self, key: LedgerKey, paths: Collection[str]) -> None:
        """Forget that some files were read, under the lock."""
        with self.locked(lambda: False) as manifest:
            known = known_by(self.storage, lambda: manifest, key)
            kept = listed_again([each for each in known if each.path not in paths])
            self.commit(manifest.with_read_list(key, kept))

    def files_read(self, key: LedgerKey) -> KnownFiles:
        """Return the files that were read for a key."""
        with translated(self.storage.label(self._manifest)):
            return known_by(self.storage, self.read, key)

    def with_files(self, manifest: Manifest, key: LedgerKey, files: Sequence[FileRead]) -> tuple[Manifest, str]:
        """Return a manifest that knows some more files as read, and the list's staged file; under the lock."""
        return add_known(self.storage, manifest, key, files, self.format.suffix)

    def change_row(
        self,
        key: LedgerKey,
        changed: Callable[[LedgerRow | None], LedgerRow | None],
        is_interrupted: Callable[[], bool],
        *,
        forgets_files: bool = False,
    ) -> LedgerRow | None:
        """Write one ledger row under the lock; None deletes it, with the files that were read for it."""
        with self.locked(is_interrupted) as manifest:
            before = manifest.row(key)
            row = changed(before)
            manifest = manifest.without_row(key) if row is None else manifest.with_row(row)
            if forgets_files:
                manifest = manifest.with_read_list(key, ReadList())
            if row != before:
                write_manifest(self.storage, self._manifest, manifest)
            return row

    def state(self) -> TableState:
        """Return the state of the table; create and change nothing."""
        manifest = self.read()
        with translated(self.storage.label(self.stem)):
            if self.storage.kind(self.stem + self.extension) == "other":
                return TableState(ledger=manifest.rows, is_table=False)
            schema = manifest.schema if self.has_files(manifest) else None
            strangers = self.strangers() if manifest.schema is None else []
            if strangers:
                schema = self._schema_of(strangers)
        # A source that reads the folder calls files of others without their dots.
        name = self.name if manifest.schema is not None else self.name.replace(".", "_")
        name = "" if schema is None else name
        return TableState(
            schema=schema,
            ledger=manifest.rows,
            stream_name=name,
            refuses=self._refuses(manifest, strangers),
            is_adoptable=False,
        )

    def _schema_of(self, strangers: Sequence[str]) -> pa.Schema:
        """Return the schema of files that the manifest does not name; of such as cannot be read, no column."""
        try:
            return self.format.schema([DataFile(self.storage, name) for name in strangers], 1)
        except FatalConnectorError:
            return pa.schema([])

    def _refuses(self, manifest: Manifest, strangers: Sequence[str]) -> Mapping[WriteDisposition, str]:
        """Refuse to add to files that were written in another way, or that no ledger names."""
        before, now = manifest.written, self.written
        if strangers:
            why = (
                f"has files that no ledger names ({self.storage.label(strangers[0])}), so records cannot be added "
                "to them: restore the `_syncblocks_ledger` of these files, move them away (the next run then "
                "writes all records), use `write_disposition: replace` in this stream, or another "
                "`destination_table`"
            )
        elif manifest.schema is None or before == now:
            return {}
        else:
            changed = ", ".join(f"`{key}`" for key in sorted({*before, *now}) if before.get(key) != now.get(key))
            why = (
                f"was written with another {changed}: restore the former one, or replace the table once with "
                "--full-refresh"
            )
        return {disposition: why for disposition in WriteDisposition if disposition is not WriteDisposition.REPLACE}

    def has_files(self, manifest: Manifest) -> bool:
        """Tell whether any file of the table still exists."""
        return any(
            self.storage.kind(place) == "file"
            for file in manifest.files
            for place in (file.name, file.moved_from)
            if place is not None
        )

    def strangers(self) -> list[str]:
        """List files with the table's name that the manifest does not name."""
        found = []
        for name, is_folder in self.storage.names():
            if not name.startswith((self.stem, self.quoted)):
                continue  # at once: the folder may hold thousands of other tables
            if not is_folder and stem_of(name, self.format.suffixes) in (self.stem, self.quoted):
                found.append(name)
            elif is_folder and name in (self.stem, self.quoted):
                inner = [entry.name for entry in self.storage.entries(name)]
                found += [name for name in inner if stem_of(name, self.format.suffixes)]
        return found

    def data_file(self, file: TableFile, schema: pa.Schema) -> DataFile:
        """Return a file of the table as a source's file; `schema` is the table's."""
        own = pa.schema([schema.field(name) for name in file.columns])
        return DataFile(self.storage, file.name, file.moved_from, schema=own)

    def batches(self, file: DataFile, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Read a file of the table in its new columns; a value that a type would change is an error."""
        own = file.schema if file.schema is not None else schema
        for batch in self.format.read(file, own, frozenset(own.names)):
            yield conformed(batch, schema)

    def limits(self, columns: Sequence[str]) -> Mapping[str, tuple[Any, Any]]:
        """Return the least and the greatest value of some columns, without columns of only NULL."""
        manifest, found = self.read(), dict[str, tuple[Any, Any]]()
        schema = pa.schema([]) if manifest.schema is None else manifest.schema
        for file in manifest.files:
            own = pa.schema([schema.field(name) for name in columns if name in file.columns])
            data = DataFile(self.storage, file.name, file.moved_from, schema=own)
            for batch in self.format.read(data, own, frozenset(file.columns)) if own.names else ():
                for name in own.names:
                    ends = [each for each in pc.min_max(batch.column(name)).as_py().values() if each is not None]
                    ends = [*ends, *found.get(name, ())]
                    found |= {name: (min(ends), max(ends))} if ends else {}
        return found

    def stage(self, token: str, schema: pa.Schema, folder: str = "") -> Staging:
        """Create a file in the token's staging folder; `folder`: where it will be below the table's."""
        return Staging(self, self._staged_name(token), schema, self._codec, folder)

    def _staged_name(self, token: str) -> str:
        return f"{STAGING}/{quote(token)}/{uuid.uuid4().hex}{self.extension}"

    def placed(self, staged: Staged, name: str) -> TableFile:
        """Return a staged file's entry in the manifest."""
        return TableFile(
            name=name,
            moved_from=staged.name,
            records=staged.records,
            size_bytes=staged.size_bytes,
            columns=tuple(staged.schema.names),
        )

    def whole_name(self) -> str:
        """Return the name of the table's single file."""
        return self.stem + self.extension

    def part_name(self, number: int, whole: str | None = None, folder: str = "") -> str:
        """Return the name of a new part, or of `whole` as one; parts of a folder sort in the order of commits."""
        former = self.stem if whole is None or whole.startswith(self.stem) else self.quoted
        extension = self.extension if whole is None else whole[len(former) :]
        inside = f"{self.stem}/{folder}" if folder else self.stem
        return f"{inside}/part-{number:06d}-{uuid.uuid4().hex[:12]}{extension}"


class Staging:
    """One file being written."""

    def __init__(self, table: FilesTable, name: str, schema: pa.Schema, codec: str | None, folder: str = "") -> None:
        self.schema = schema
        self._folder = folder
        self.records = 0
        self._table = table
        self.name = name
        with translated(table.storage.label(name)):
            self._raw = table.storage.open_output(name)
            self._sink: Any = self._raw
            if codec is not None:
                self._sink = pa.CompressedOutputStream(pa.PythonFile(_Unclosed(self._raw), mode="w"), codec)
            self._writer = table.format.writer(cast("BinaryIO", self._sink), schema)

    def write(self, batch: pa.RecordBatch) -> None:
        with _refused(self._table, self.name):
            self._writer.write(batch)
        self.records += batch.num_rows

    def size_bytes(self) -> int:
        """Return how many bytes are in the file by now; more may be on their way into it."""
        return self._raw.tell()

    def finish(self) -> Staged:
        """Make the file durable."""
        with _refused(self._table, self.name):
            self._writer.close()
            if self._sink is not self._raw:
                self._sink.close()
            size_bytes = self._raw.tell()
            self._table.storage.finish_output(self._raw)
        return Staged(self.name, self.schema, self.records, size_bytes, self._folder)

    def abandon(self) -> None:
        """Close the file as it is; raise nothing that would hide the first error."""
        self._writer.abandon()
        with suppress(OSError, ValueError, pa.ArrowException):
            if self._sink is not self._raw:
                self._sink.close()
        with suppress(OSError):
            self._raw.close()


class _Unclosed:
    """A file that Arrow may close: the file below stays open for its fsync."""

    closed = False

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw

    def write(self, data: Any) -> int:
        return self._raw.write(data)

    def tell(self) -> int:
        return self._raw.tell()

    def flush(self) -> None:
        self._raw.flush()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        self._raw.flush()


@contextmanager
def _refused(table: FilesTable, name: str) -> Iterator[None]:
    try:
        with translated(table.storage.label(name)):
            yield
    except pa.ArrowException as error:
        raise FatalConnectorError(f"table {table.name!r}: a batch cannot be written: {error}") from error
