"""What a small file of a BATCH may become in memory is known, and bounded, before it is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.singer import batches
from syncblocks.connectors.singer.batches import BadBatch, BatchFiles

KINDS = [pa.ipc.new_file, pa.ipc.new_stream]
TEXTS = pa.schema([pa.field("note", pa.string())])


def write(path: Path, made: Callable[..., Any], *tables: pa.RecordBatch, codec: str | None = "zstd") -> str:
    with made(path, tables[0].schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        for table in tables:
            writer.write_batch(table)
    return str(path)


def read(file: str, schema: pa.Schema = TEXTS) -> list[pa.RecordBatch]:
    folder = Path(file).parent
    return list(BatchFiles([str(folder)], folder).read_tables(file, {"format": "arrow"}, schema))


def texts(*values: str, kind: pa.DataType | None = None) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(values, kind or pa.string())], names=["note"])


@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_a_batch_that_is_too_large_once_decompressed_is_not_decompressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[..., Any], codec: str
) -> None:
    monkeypatch.setattr(batches, "MAX_BATCH_BYTES", 1 << 20)
    file = write(tmp_path / "a", made, texts("small"), texts("x" * (8 << 20)), codec=codec)
    assert (tmp_path / "a").stat().st_size < 100_000
    before = pa.total_allocated_bytes()
    with pytest.raises(BadBatch, match=r"batch 2: a record batch of 8,388,\d\d\d bytes after decompression.*1,048,576"):
        read(file)
    assert pa.total_allocated_bytes() - before < 1 << 20
    monkeypatch.undo()
    assert [len(batch["note"][0].as_py()) for batch in read(file)] == [5, 8 << 20]


@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize("codec", ["zstd", "lz4", None])
def test_what_is_not_too_large_is_read(tmp_path: Path, made: Callable[..., Any], codec: str | None) -> None:
    part = pa.record_batch(
        {
            "id": pa.array(range(1000)),
            "note": pa.array(["a" * (n % 50) for n in range(1000)]),
            "kind": pa.array([None if n % 9 == 0 else f"k{n % 3}" for n in range(1000)]).dictionary_encode(),
            "gone": pa.nulls(1000),
            "tags": pa.array([["x"] * (n % 4) for n in range(1000)]),
        }
    )
    schema = pa.schema([*list(part.schema)[:2], pa.field("kind", pa.string()), pa.field("gone", pa.string())])
    file = write(tmp_path / "a", made, part, part, part.slice(0, 0), codec=codec)
    found = pa.Table.from_batches(read(file, schema))
    wanted = part.select(["id", "note"]).to_pylist()
    assert found.select(["id", "note"]).to_pylist() == wanted * 2
    assert found["kind"].to_pylist() == part["kind"].to_pylist() * 2
    assert found["gone"].null_count == 2000


@pytest.mark.parametrize("made", KINDS)
def test_dictionaries_count_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[..., Any]) -> None:
    monkeypatch.setattr(batches, "MAX_BATCH_BYTES", 1 << 20)
    wide = [
        texts("x" * (700 << 10)).column(0).dictionary_encode(),
        texts("y" * (700 << 10)).column(0).dictionary_encode(),
    ]
    with pytest.raises(BadBatch, match=r"batch 2: dictionaries of 1,433,6\d\d bytes"):
        read(write(tmp_path / "a", made, pa.record_batch({"note": wide[0], "other": wide[1]})))


def test_a_value_that_many_records_share_is_not_there_for_all_of_them_at_once(tmp_path: Path) -> None:
    """Kilobytes of indices or views, and one value of a megabyte: 2 GB of texts, in pieces."""
    value, count = "x" * (1 << 20), 2000
    for kind in (pa.dictionary(pa.int32(), pa.string()), pa.string_view()):
        if pa.types.is_dictionary(kind):
            column = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([value]))
        else:
            one = pa.array([value], kind)
            views = pa.py_buffer(one.buffers()[1].to_pybytes() * count)
            column = pa.Array.from_buffers(kind, count, [None, views, *one.buffers()[2:]])
        file = write(tmp_path / "a", pa.ipc.new_file, pa.record_batch({"note": column}))
        folder, records, largest = tmp_path, 0, 0
        for batch in BatchFiles([str(folder)], folder).read_tables(file, {"format": "arrow"}, TEXTS):
            records, largest = records + batch.num_rows, max(largest, batch.nbytes)
        assert records == count
        assert largest <= 20 << 20


def test_records_without_any_value_are_not_made_up(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a", pa.ipc.new_file, pa.record_batch({"note": pa.Array.from_buffers(pa.null(), 1 << 30, [None])})
    )
    with pytest.raises(BadBatch, match="1,073,741,824 records, but has no values"):
        read(file)
