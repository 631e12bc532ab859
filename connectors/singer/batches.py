"""Read the files of a BATCH message in pieces: JSON lines, Parquet, Arrow."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from .values import shown

BLOCK_BYTES = 4 << 20
_GZIP = b"\x1f\x8b"


class BadBatch(Exception):
    """A file of a batch is missing, has an unknown format, or does not fit its stream."""


def read_lines(file: Any, encoding: Mapping[str, Any]) -> Iterator[tuple[bytes, Sequence[int]]]:
    """Yield `(whole lines, their numbers)` of a file of JSON lines, each a record; detect gzip.

    Raises:
        BadBatch: the file cannot be read.
    """
    compression = encoding.get("compression") or "none"
    if compression not in ("gzip", "none"):
        raise BadBatch(f"compression {compression!r} is unknown; known: gzip, none")
    with _opened(file) as raw:
        is_gzip = raw.read(2) == _GZIP
        raw.seek(0)
        source: Any = gzip.GzipFile(fileobj=raw, mode="rb") if is_gzip else raw
        yield from _blocks(source, file)


def read_tables(file: Any, encoding: Mapping[str, Any], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a Parquet or Arrow file, in the columns and types of the stream.

    Raises:
        BadBatch: the file cannot be read, or a value does not fit.
    """
    form = encoding.get("format")
    with _opened(file) as raw:
        try:
            for batch in _arrow(raw) if form == "arrow" else _parquet(raw, form):
                # An Arrow file is taken as it lies there: lengths that are wrong would read other memory.
                batch.validate(full=True)
                yield _fitted(batch, schema)
        except (pa.ArrowException, ValueError, OSError) as error:
            raise BadBatch(f"{file}: {error}") from error


@contextmanager
def _opened(file: Any) -> Iterator[IO[bytes]]:
    if not isinstance(file, str) or not file:
        raise BadBatch(f"{shown(repr(file).encode())} is no file")
    try:
        if "://" not in file or file.startswith("file://"):
            path = unquote(urlsplit(file).path) if file.startswith("file://") else file
            with open(path, "rb") as opened:  # noqa: PTH123 -- a path as the tap wrote it
                yield opened
            return
        import fsspec

        with fsspec.open(file, "rb") as opened:
            yield opened
    except (OSError, ImportError, ValueError) as error:
        raise BadBatch(f"{file}: {error}") from error


def _blocks(source: Any, file: str) -> Iterator[tuple[bytes, Sequence[int]]]:
    rest, line = b"", 1
    while True:
        try:
            chunk = source.read(BLOCK_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            raise BadBatch(f"{file}: {error}") from error
        cut = chunk.rfind(b"\n") + 1
        block, rest = (rest + chunk[:cut], chunk[cut:]) if cut else (b"", rest + chunk)
        if not chunk:
            block, rest = rest, b""
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

    yield from pyarrow.parquet.ParquetFile(raw).iter_batches()


def _arrow(raw: IO[bytes]) -> Iterator[pa.RecordBatch]:
    magic = raw.read(6)
    raw.seek(0)
    if magic == b"ARROW1":
        file = pa.ipc.open_file(raw)
        for number in range(file.num_record_batches):
            yield file.get_batch(number)
    else:
        yield from pa.ipc.open_stream(raw)


def _fitted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    from ..arrow.conform import conformed
    from .text_values import from_texts

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
