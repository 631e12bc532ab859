"""Types of Parquet and Arrow files that Arrow gives no meaning to: enums, variants, extensions, intervals."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from syncblocks.connectors.arrow.type_names import type_text
from syncblocks.connectors.field_facts import notices_of
from syncblocks.connectors.files.arrow_source import ArrowSource
from syncblocks.connectors.files.parquet_source import ParquetSource
from tests.connectors.files.files_pair import only, records_of, source_of


def parquet_with_enums(path: Path, table: pa.Table, leaf: bytes) -> None:
    """Write a file that says of a text that it is an ENUM, as other writers do; Arrow writes none."""
    pq.write_table(table, path, store_schema=False)
    name = b"\x18" + bytes([len(leaf)]) + leaf
    assert path.read_bytes().count(name + b"\x25\x00\x4c\x1c\x00\x00") == 1
    path.write_bytes(path.read_bytes().replace(name + b"\x25\x00\x4c\x1c\x00\x00", name + b"\x25\x08\x4c\x4c\x00\x00"))
    assert pq.read_schema(path) != table.schema, "Arrow takes an ENUM for bytes"


@pytest.mark.parametrize(
    ("leaf", "value", "kind"),
    [
        (b"v", "größe", pa.string()),
        (b"element", ["a", None], pa.list_(pa.string())),
        (b"mood", {"n": 1, "mood": "sad", "raw": b"\xff"}, None),
        (b"value", [("a", "b")], pa.map_(pa.string(), pa.string())),
    ],
)
def test_an_enum_of_parquet_is_text(tmp_path: Path, leaf: bytes, value: object, kind: pa.DataType | None) -> None:
    kind = kind or pa.struct({"n": pa.int64(), "mood": pa.string(), "raw": pa.binary()})
    table = pa.table({"id": pa.array([1]), "v": pa.array([value], kind), "end": pa.array([b"\xff"])})
    parquet_with_enums(tmp_path / "t.parquet", table, leaf)
    source = source_of(tmp_path / "t.parquet", ParquetSource)
    assert only(source).schema.field("end").type == pa.binary()
    assert records_of(source) == [{"id": 1, "v": value, "end": b"\xff"}]


def test_an_enum_in_an_object_that_becomes_columns_is_text(tmp_path: Path) -> None:
    table = pa.table({"v": pa.array([{"mood": "sad", "raw": b"\xff"}])})
    parquet_with_enums(tmp_path / "t.parquet", table, b"mood")
    source = source_of(tmp_path / "t.parquet", ParquetSource)
    source.flatten(lambda stream: 1)
    assert records_of(source) == [{"v__mood": "sad", "v__raw": b"\xff"}]


def test_types_that_have_no_meaning_here_are_read_as_they_are_stored_and_said(tmp_path: Path) -> None:
    variant = pa.struct([pa.field("metadata", pa.binary(), nullable=False), ("value", pa.binary())])
    period = pa.field("period", pa.int64(), metadata={"ARROW:extension:name": "pandas.period"})
    known = pa.array(["[1]"], pa.json_(pa.string()))
    table = pa.table(
        {"v": pa.array([{"metadata": b"\1\0\0", "value": b"\0"}], variant), "period": pa.array([648]), "known": known}
        | {"opaque": pa.array([5], pa.int32()).cast(pa.opaque(pa.int32(), "x", "y"))},
    ).cast(pa.schema([("v", variant), period, ("known", known.type), ("opaque", pa.opaque(pa.int32(), "x", "y"))]))
    pq.write_table(table, tmp_path / "t.parquet")
    feather.write_feather(table, tmp_path / "t.arrow", compression="uncompressed")
    for place, kind in ((tmp_path / "t.parquet", ParquetSource), (tmp_path / "t.arrow", ArrowSource)):
        source = source_of(place, kind)
        stream = only(source)
        assert [type_text(each.type) for each in stream.schema][1:] == ["int64", "json", "int32"]
        said = notices_of(stream.schema)
        assert [" ".join(text.split()[:6]).rstrip(",") for text in said] == [
            "column 'v' is a Parquet VARIANT",
            "column 'period' is of the unknown",
            "column 'opaque' is of the unknown",
        ]
        assert "pandas.period" in said[1]
        assert records_of(source, stream)[0]["opaque"] == 5


def test_an_interval_of_parquet_is_said_to_arrive_as_bytes(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    duckdb.execute(f"copy (select 1 as id, interval 3 day as pause) to '{tmp_path / 't.parquet'}'")
    (said,) = notices_of(only(source_of(tmp_path / "t.parquet", ParquetSource)).schema)
    assert said.startswith("column 'pause' is a Parquet INTERVAL")
