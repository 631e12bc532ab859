"""Read the files of a BATCH message in pieces: JSON lines, Parquet, Arrow.

A message comes from a tap, and may name any file: only those below the roots of the pipeline file are opened.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from ..arrow.batch_validation import DAMAGE, demand_valid
from ..errors import ConnectorError
from ..local_files import open_inside
from ..programs.values import shown
from ..settings import SFTP_SCHEMES, is_url, resolve_path, url_scheme

BLOCK_BYTES = 4 << 20
BUFFER_BYTES = 64 << 10
BATCH_RECORDS = 65_536
#: Longest line of a file: a file of a few bytes may unpack to one without end.
MAX_LINE_BYTES = 256 << 20
#: Largest record batch of an Arrow file, decompressed.
MAX_BATCH_BYTES = 256 << 20
#: Most bytes of a piece of such a batch whose values are as wide as the widest one.
MAX_PIECE_BYTES = 16 << 20
_GZIP = b"\x1f\x8b"


class BadBatch(Exception):
    """A file of a batch is missing or not allowed, has an unknown format, or does not fit its stream."""


class BatchFiles:
    """Opens the files of BATCH messages.

    Args:
        roots: folders, and URLs of folders, that the files must be below.
        folder: folder from which relative paths count.
    """

    def __init__(self, roots: Sequence[str], folder: Path) -> None:
        self._folder = folder
        self._urls = [f"{root.rstrip('/')}/" for root in roots if is_url(root) and not _is_local(root)]
        self._roots = [_local_path(root, folder) for root in roots if not is_url(root) or _is_local(root)]
        for url in self._urls:
            url_scheme(url)

    def read_lines(self, file: Any, encoding: Mapping[str, Any]) -> Iterator[tuple[bytes, Sequence[int]]]:
        """Yield `(whole lines, their numbers)` of a file of JSON lines, each a record; detect gzip.

        Raises:
            BadBatch: the file cannot be read.
        """
        compression = encoding.get("compression") or "none"
        if compression not in ("gzip", "none"):
            raise BadBatch(f"compression {compression!r} is unknown; known: gzip, none")
        with self._opened(file) as raw:
            is_gzip = raw.read(2) == _GZIP
            raw.seek(0)
            source: Any = gzip.GzipFile(fileobj=raw, mode="rb") if is_gzip else raw
            yield from _blocks(source, file)

    def read_tables(self, file: Any, encoding: Mapping[str, Any], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Yield the batches of a Parquet or Arrow file, in the columns and types of the stream.

        Raises:
            BadBatch: the file cannot be read, or a value does not fit.
        """
        form = encoding.get("format")
        with self._opened(file) as raw:
            try:
                for batch in _arrow(raw) if form == "arrow" else _parquet(raw, form):
                    demand_valid(batch)
                    for piece in _pieces(batch):
                        yield _fitted(piece, schema)
            except (*DAMAGE, ValueError) as error:
                raise BadBatch(f"{file}: {error}") from error

    @contextmanager
    def _opened(self, file: Any) -> Iterator[IO[bytes]]:
        if not isinstance(file, str) or not file or "\0" in file:
            raise BadBatch(f"{shown(repr(file).encode())} is no file")
        try:
            with self._open(file) as opened:
                yield opened
        except (OSError, ImportError, ValueError, ConnectorError) as error:
            raise BadBatch(f"{file}: {error}") from error

    def _open(self, file: str) -> Any:
        if not is_url(file) or _is_local(file):
            path = _local_path(file, self._folder)
            root = next((root for root in self._roots if path.is_relative_to(root)), None)
            if root is not None:
                return open_inside(path, root)
        root_url = next((url for url in self._urls if file.startswith(url)), None)
        if root_url is None:
            raise BadBatch(
                f"{file} is outside of all folders and URLs for files of a BATCH; name its folder in "
                "`batch_roots`, or as `batch_config.storage.root` in the plugin's config"
            )
        name = file.removeprefix(root_url)
        if any(part in ("", ".", "..") for part in unquote(name).split("/")):
            raise BadBatch(f"{file} has parts that could lead out of {root_url}")
        import fsspec.core

        # The name is not opened as a URL: fsspec takes `a::b` for a chain of file systems.
        if url_scheme(root_url) in SFTP_SCHEMES:
            from ..sftp import open_sftp

            fs, root_path = open_sftp(root_url, {}, self._folder)
        else:
            fs, root_path = fsspec.core.url_to_fs(root_url)
        return fs.open(f"{root_path.rstrip('/')}/{name}", "rb")


def batch_roots(config: Mapping[str, Any]) -> list[str]:
    """Return the folder or URL for BATCH files in a plugin's config: `batch_config.storage.root`."""
    found: Any = config
    for key in ("batch_config", "storage", "root"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return [found] if isinstance(found, str) and found else []


def _is_local(url: str) -> bool:
    return url.startswith("file://")


def _local_path(path: str, folder: Path) -> Path:
    """Return the absolute path of a path or of a `file://` URL, without `..`; links stay as they are."""
    text = unquote(urlsplit(path).path) if _is_local(path) else path
    return Path(os.path.normpath(resolve_path(text, folder)))


def _blocks(source: Any, file: str) -> Iterator[tuple[bytes, Sequence[int]]]:
    pieces: list[bytes] = []
    held, line = 0, 1
    while True:
        try:
            chunk = source.read(BLOCK_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            raise BadBatch(f"{file}: {error}") from error
        cut = chunk.rfind(b"\n") + 1
        if chunk and not cut:
            pieces.append(chunk)
            held += len(chunk)
            if held > MAX_LINE_BYTES:
                raise BadBatch(f"{file}: line {line} has more than {MAX_LINE_BYTES >> 20} MB")
            continue
        block = b"".join((*pieces, chunk[:cut]))
        pieces, held = [chunk[cut:]], len(chunk) - cut
        texts = block.split(b"\n")
        numbers = [number for number, text in enumerate(texts, line) if text.strip()]
        line += len(texts) - 1
        if numbers:
            yield block, numbers
        if not chunk:
            return


def _parquet(raw: IO[bytes], form: Any) -> Iterator[pa.RecordBatch]:
    if form != "parquet":
        raise BadBatch(f"format {form!r} is unknown; known: jsonl, parquet, arrow")
    import pyarrow.parquet

    from ..arrow.parquet_size import fitting_records

    opened = pyarrow.parquet.ParquetFile(raw, pre_buffer=False, buffer_size=BUFFER_BYTES)
    size = fitting_records(
        opened,
        None,
        BLOCK_BYTES,
        BATCH_RECORDS,
        lambda path: pyarrow.parquet.ParquetFile(
            raw, metadata=opened.metadata, read_dictionary=[path], arrow_extensions_enabled=False
        ),
    )
    yield from opened.iter_batches(batch_size=size)


def _arrow(raw: IO[bytes]) -> Iterator[pa.RecordBatch]:
    from ..arrow.ipc_size import check_decompressed, is_file

    check_decompressed(raw, MAX_BATCH_BYTES)
    if is_file(raw):
        file = pa.ipc.open_file(raw)
        for number in range(file.num_record_batches):
            yield file.get_batch(number)
    else:
        yield from pa.ipc.open_stream(raw)


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cut a batch, since its columns grow where they lose an encoding: a dictionary's value may be in each record."""
    from ..arrow.encoded_size import widest_values

    if batch.num_rows > MAX_BATCH_BYTES and not batch.nbytes:
        raise ValueError(f"a record batch claims {batch.num_rows:,} records, but has no values")
    widest = sum(map(widest_values, batch.columns))
    if widest > MAX_BATCH_BYTES:
        raise ValueError(f"a record may have {widest:,} bytes; the maximum is {MAX_BATCH_BYTES:,}")
    records = min(BATCH_RECORDS, MAX_PIECE_BYTES // max(widest, 1)) or 1
    for start in range(0, batch.num_rows, records):
        yield batch.slice(start, records)


def _fitted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    from ..arrow.conform import conformed
    from ..programs.text_values import from_texts

    columns = []
    for field in schema:
        place = batch.schema.get_field_index(field.name)
        if place < 0:
            columns.append(pa.nulls(batch.num_rows, field.type))
            continue
        column = batch.column(place)
        if (
            pa.types.is_string(column.type)
            and not pa.types.is_string(field.type)
            and (pa.types.is_temporal(field.type) or isinstance(field.type, pa.BaseExtensionType))
        ):
            column = from_texts(column, field.type)
        columns.append(column)
    loose = pa.RecordBatch.from_arrays(columns, names=schema.names)
    return conformed(loose, schema)
