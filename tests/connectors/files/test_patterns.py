"""Streams that are named by patterns, and the columns that a file's name and time give."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest

from syncblocks.connectors.errors import ConnectorConfigError, ConnectorError
from syncblocks.connectors.files.csv_source import CSVSource
from syncblocks.connectors.files.jsonl_source import JSONLSource
from syncblocks.connectors.files.local import LocalStorage
from syncblocks.connectors.files.parquet_source import ParquetSource
from syncblocks.connectors.files.patterns import Matches
from syncblocks.connectors.files.source import FileSource

NAMES = (
    "a.csv",
    "met/1.csv",
    "met/2.txt",
    "met/2024/2.csv",
    "met/2024/x/3.csv",
    "met/_tmp.csv",
    ".h/4.csv",
    "m[1].csv",
)

MATCHES = {
    "met/**/*.csv": {"met/1.csv", "met/2024/2.csv", "met/2024/x/3.csv"},
    "met/*.csv": {"met/1.csv"},
    "met/**": {"met/1.csv", "met/2.txt", "met/2024/2.csv", "met/2024/x/3.csv"},
    "**/[1-2].*": {"met/1.csv", "met/2.txt", "met/2024/2.csv"},
    "**/[!1-2].csv": {"a.csv", "met/2024/x/3.csv"},
    "m[[]1].csv": {"m[1].csv"},
    "met/????/?.csv": {"met/2024/2.csv"},
    "a.csv": {"a.csv"},
    "met/_tmp.csv": {"met/_tmp.csv"},
    "met": set(),
    "b.csv": set(),
    "*/2024/../*.csv": set(),
}


def write(folder: Path, name: str, text: str, at: datetime | None = None) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if at is not None:
        os.utime(path, (at.timestamp(), at.timestamp()))


@pytest.mark.parametrize("pattern", MATCHES)
def test_a_pattern_matches_names_of_files(tmp_path: Path, pattern: str) -> None:
    for name in NAMES:
        write(tmp_path, name, "n\n1\n")
    assert {entry.name for entry in Matches(LocalStorage(tmp_path)).of([pattern])} == MATCHES[pattern]


def records(source: FileSource, name: str) -> list[dict[str, Any]]:
    (stream,) = source.open_streams([name])
    assert not stream.unreadable, stream.unreadable
    batches = [event for _, event in source.read([stream], {}) if isinstance(event, pa.RecordBatch)]
    return [record for batch in batches for record in batch.to_pylist()]


AT = datetime(2026, 4, 26, 20, 28, tzinfo=UTC)


@pytest.mark.parametrize(("kind", "end"), [(CSVSource, "csv"), (JSONLSource, "jsonl"), (ParquetSource, "parquet")])
def test_the_files_of_a_pattern_are_one_stream_with_their_names(
    tmp_path: Path, kind: type[FileSource], end: str
) -> None:
    def put(name: str, columns: dict[str, list[Any]]) -> None:
        table = pa.table(columns)
        write(tmp_path, name, "")
        if end == "parquet":
            pyarrow.parquet.write_table(table, tmp_path / name)
        elif end == "jsonl":
            lines = [str(record).replace("'", '"') for record in table.to_pylist()]
            (tmp_path / name).write_text("\n".join(lines))
        else:
            lines = [",".join(map(str, record.values())) for record in table.to_pylist()]
            (tmp_path / name).write_text("\n".join([",".join(columns), *lines]))
        os.utime(tmp_path / name, (AT.timestamp(), AT.timestamp()))

    put(f"met/1.{end}", {"a": [1], "b": ["x"]})
    put(f"met/y=5/2.{end}", {"c": [2.5], "a": [2]})
    (tmp_path / f"broken.{end}").write_bytes(b'\xff"{')
    source = kind({"path": str(tmp_path), "streams": {"met": f"met/**/*.{end}", "x": [f"broken.{end}"]}}, tmp_path)
    assert source.list_streams() == ["met", "x"]
    expected = [{"a": 1, "b": "x", "c": None, "y": None}, {"a": 2, "b": None, "c": 2.5, "y": 5}]
    assert records(source, "met") == expected, "the broken file was not opened"
    named = kind({"path": str(tmp_path), "streams": {"met": f"met/**/*.{end}"}, "file_columns": True}, tmp_path)
    files = [f"met/1.{end}", f"met/y=5/2.{end}"]
    assert records(named, "met") == [
        {**record, "_file": file, "_file_modified": AT} for record, file in zip(expected, files, strict=True)
    ]


def test_a_store_gives_names_and_times_too(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/patterns/met/1.csv", b"n\n1\n")
    try:
        source = CSVSource(
            {"path": "memory://patterns", "streams": {"met": "**/*.csv"}, "file_columns": True}, tmp_path
        )
        (record,) = records(source, "met")
    finally:
        fs.rm("/patterns", recursive=True)
    assert (record["n"], record["_file"]) == (1, "met/1.csv")
    assert abs((datetime.now(UTC) - record["_file_modified"]).total_seconds()) < 60


@pytest.mark.parametrize(
    ("streams", "why"),
    [
        ({"a.b": "x.csv"}, "'a.b'.*must not be empty or contain a dot"),
        ({"a": "/x.csv"}, "'/x.csv' does not name files below `path`"),
        ({"a": ["x.csv", "../y.csv"]}, "not name files"),
        ({"a": []}, "no pattern"),
        ({"a": "s3://b/x.csv"}, "not name files"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(tmp_path: Path, streams: dict[str, Any], why: str) -> None:
    with pytest.raises(ConnectorConfigError, match=why):
        CSVSource({"path": str(tmp_path), "streams": streams}, tmp_path)


def test_patterns_count_from_a_folder_and_a_column_of_ours_is_not_theirs(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", "n,_file\n1,x\n")
    of_a_file = CSVSource({"path": str(tmp_path / "a.csv"), "streams": {"a": "*.csv"}}, tmp_path)
    with pytest.raises(ConnectorConfigError, match=r"a\.csv is not a folder"):
        of_a_file.open_streams(["a"])
    (stream,) = CSVSource({"path": str(tmp_path), "file_columns": True}, tmp_path).open_streams(["a"])
    assert "already have a column '_file'" in stream.unreadable


@pytest.mark.parametrize("other", ["orders_2024.csv", "orders_2024/1.csv", "orders.2024.csv.gz"])
def test_two_files_of_one_name_are_an_error(tmp_path: Path, other: str) -> None:
    write(tmp_path, "orders.2024.csv", "n\n1\n")
    assert [stream.name for stream in CSVSource({"path": str(tmp_path)}, tmp_path).discover()] == ["orders_2024"]
    write(tmp_path, other, "n\n1\n")
    with pytest.raises(ConnectorError, match="'orders_2024'"):
        CSVSource({"path": str(tmp_path)}, tmp_path).discover()
