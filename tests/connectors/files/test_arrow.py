"""Arrow IPC files and streams as a source."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pytest

pytest.importorskip("duckdb")
import duckdb

from syncblocks import run_pipeline
from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.files.arrow_source import ArrowSource
from syncblocks.sync.config import load_pipeline
from tests.connectors.files.files_pair import only, records_of

TABLE = pa.table(
    {
        "id": pa.array([1, 2, 3]),
        "word": pa.array(["a", None, "a"]).dictionary_encode(),
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["x", "y"])),
        "view": pa.array(["v", "w", None], pa.string_view()),
        "at": pa.array([0, 1_000, None], pa.timestamp("ns")),
        "who": pa.array([{"name": "n", "age": 1}, None, {"name": "m", "age": None}]),
    }
)
VALUES = [
    (1, "a", "x", "v", datetime(1970, 1, 1), "n", 1),  # noqa: DTZ001
    (2, None, "x", "w", datetime(1970, 1, 1, 0, 0, 0, 1), None, None),  # noqa: DTZ001
    (3, "a", "y", None, None, "m", None),
]


def source_of(path: Path, levels: int = 0) -> ArrowSource:
    source = ArrowSource({"path": str(path), "batch_size": 2}, path.parent)
    source.flatten(lambda _: levels)
    return source


@pytest.mark.parametrize("is_stream", [False, True])
def test_every_encoding_of_a_file_or_stream_is_read(tmp_path: Path, is_stream: bool) -> None:
    path = tmp_path / ("t.arrows" if is_stream else "t.arrow")
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with (pa.ipc.new_stream if is_stream else pa.ipc.new_file)(str(path), TABLE.schema, options=options) as writer:
        writer.write_table(TABLE, max_chunksize=2)
    source = source_of(path, levels=1)
    stream = only(source)
    assert stream.schema.names == ["id", "word", "runs", "view", "at", "who__name", "who__age"]
    assert [tuple(record.values()) for record in records_of(source)] == VALUES
    assert source.count(stream) == 3
    assert source.nanoseconds(stream, ["at"]) == frozenset()


def test_a_feather_file_of_pandas_is_synced_with_its_times_in_microseconds(tmp_path: Path) -> None:
    pyarrow.feather.write_feather(
        pa.table({"id": [1], "at": pa.array([1_000], pa.timestamp("ns", "UTC"))}), tmp_path / "t.feather"
    )
    document = {
        "pipeline": "p",
        "source": {"connector": "arrow", "config": {"path": "t.feather"}},
        "destination": {"connector": "duckdb", "config": {"path": "out.duckdb"}},
        "streams": [{"stream": "t"}],
    }
    assert run_pipeline(load_pipeline(document, folder=tmp_path)).status == "success"
    with duckdb.connect(tmp_path / "out.duckdb") as database:
        assert database.execute('select id, typeof("at"), epoch_us("at") from t').fetchall() == [
            (1, "TIMESTAMP WITH TIME ZONE", 1)
        ]


def test_what_is_no_arrow_file_or_is_damaged_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "old.feather").write_bytes(b"FEA1" + bytes(60))
    with pytest.raises(FatalConnectorError, match=r"old\.feather: is a Feather file of version 1"):
        source_of(tmp_path / "old.feather").discover()
    (tmp_path / "none.arrow").write_bytes(b"id,name\n1,x\n")
    with pytest.raises(FatalConnectorError, match=r"none\.arrow: not an Arrow IPC file"):
        source_of(tmp_path / "none.arrow").discover()
    with pa.ipc.new_file(str(tmp_path / "t.arrow"), pa.schema([("v", pa.string())])) as writer:
        writer.write_table(pa.table({"v": ["abcdefgh", "ijklmnop"]}))
    whole = (tmp_path / "t.arrow").read_bytes()
    (tmp_path / "t.arrow").write_bytes(whole.replace(b"ijklmnop", b"\xff\xfe\xfd\xfcmnop"))
    with pytest.raises(FatalConnectorError, match=r"t\.arrow: cannot be read: .*UTF"):
        records_of(source_of(tmp_path / "t.arrow"))


def test_a_length_that_no_file_has_is_damage_wherever_it_stands(tmp_path: Path) -> None:
    with pa.ipc.new_stream(str(tmp_path / "t.arrow"), pa.schema([("v", pa.string())])) as writer:
        writer.write_table(pa.table({"v": ["abcdefgh", "ijklmnop"]}))
    whole = (tmp_path / "t.arrow").read_bytes()
    refused = 0
    for place in range(0, len(whole), 8):
        (tmp_path / "t.arrow").write_bytes(whole[:place] + (2**63 - 1).to_bytes(8, "little") + whole[place + 8 :])
        try:
            records_of(source_of(tmp_path / "t.arrow"))
        except FatalConnectorError:
            refused += 1
    assert refused


@pytest.mark.parametrize(
    "kind", [pa.decimal32(5, 10), pa.decimal64(5, -19), pa.decimal128(12, 39), pa.decimal256(5, 77)], ids=str
)
def test_a_decimal_of_more_digits_than_its_bits_hold_is_refused(tmp_path: Path, kind: pa.DataType) -> None:
    schema = pa.schema([("v", kind)])
    number = pa.Array.from_buffers(kind, 1, [None, pa.py_buffer((5).to_bytes(kind.bit_width // 8, "little"))])
    with pa.ipc.new_file(str(tmp_path / "t.arrow"), schema) as writer:
        writer.write_table(pa.table([number], schema=schema))
    with pytest.raises(FatalConnectorError, match=r"t\.arrow: column 'v' has an unsupported type"):
        records_of(source_of(tmp_path / "t.arrow"))


@pytest.mark.parametrize("is_nested", [False, True])
def test_a_union_is_told_with_a_way_out_and_an_empty_one_ends_nothing(tmp_path: Path, is_nested: bool) -> None:
    union: pa.Array = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])
    column = pa.ListArray.from_arrays([0, 1, 2], union) if is_nested else union
    batch = pa.record_batch({"id": [1, 2], "u": column})
    path = tmp_path / "t.arrow"
    with pa.ipc.new_stream(path, batch.schema) as writer:
        writer.write_batch(batch.slice(0, 0))
        writer.write_batch(batch)
    pipeline = {
        "pipeline": "p",
        "source": {"connector": "arrow", "config": {"path": str(path)}},
        "destination": {"connector": "jsonl", "config": {"path": str(tmp_path / "out")}},
        "streams": [{"stream": "t"}],
    }
    result = run_pipeline(load_pipeline(pipeline, folder=tmp_path))
    assert "unions cannot be read" in str(result.streams["t"].error)
    assert "columns: {exclude: [u]}" in str(result.streams["t"].error)
    pipeline["streams"] = [{"stream": "t", "columns": {"exclude": ["u"]}}]
    assert run_pipeline(load_pipeline(pipeline, folder=tmp_path)).streams["t"].records == 2
