"""What a source of files can be told about how they are written."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.files.source import CSVSource, FileSource, JSONLSource, ParquetSource
from tests.connectors.files.files_pair import only, records_of, source_of, types_of

PREFACE = 'made by "us\n\non 2026-04-01\n'


def test_lines_before_the_header_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{PREFACE}a;b\n1;x\n2;y\n")
    source = source_of(tmp_path / "a.csv", skip_lines=3)
    assert records_of(source) == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    assert source.count(only(source)) == 2
    bare = source_of(tmp_path / "a.csv", skip_lines=4, header=["n", "t"])
    assert records_of(bare) == [{"n": 1, "t": "x"}, {"n": 2, "t": "y"}]
    (tmp_path / "b.csv").write_text(f"{PREFACE}a,b\n1,x\n2\n")
    with pytest.raises(ConnectorError, match=r"b\.csv:6: 1 fields"):
        records_of(source_of(tmp_path / "b.csv", skip_lines=3))
    (tmp_path / "short.csv").write_text("a\n")
    assert source_of(tmp_path / "short.csv", skip_lines=3).open_streams(["short"])[0].schema.names == []


def test_only_the_first_part_of_a_file_has_lines_to_pass_over(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("some\nlines\na,b\n" + "".join(f"{number},x\n" for number in range(2000)))
    source = source_of(tmp_path / "a.csv", skip_lines=2, range_bytes=2000)
    stream = only(source)
    with source.open_ranges(stream, 3, "arrow") as ranges:
        assert len(ranges.ranges) > 2
        numbers = [number for part in ranges.ranges for batch in ranges.read(part) for number in batch["a"].to_pylist()]
    assert sorted(numbers) == list(range(2000))


@pytest.mark.parametrize("kind", [CSVSource, JSONLSource])
def test_a_glob_types_all_columns_that_match(tmp_path: Path, kind: type[FileSource]) -> None:
    path = tmp_path / ("a.csv" if kind is CSVSource else "a.jsonl")
    record = {"id": 1, "x_id": 2, "n": 3}
    path.write_text("id,x_id,n\n1,2,3\n" if kind is CSVSource else json.dumps(record))
    source = source_of(path, kind, types={"*id": "string", "id": "int32"})
    assert types_of(source) == {"id": "int32", "x_id": "string", "n": "int64"}
    assert records_of(source) == [{"id": 1, "x_id": "2", "n": 3}]
    with pytest.raises(ConnectorError, match="no stream has a column 'y"):
        source_of(path, kind, types={"y*": "string"}).discover()


def test_the_files_in_an_archive_are_read(tmp_path: Path) -> None:
    (tmp_path / "days").mkdir()
    with zipfile.ZipFile(tmp_path / "days" / "1.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b.csv", "n,t\n2,b\n")
        archive.writestr("in/a.csv", "n\n" + "".join(f"{number}\n" for number in range(10, 2000)))
        archive.writestr("readme.txt", "no data")
        archive.writestr("__MACOSX/._b.csv", b"\0\1")
    (tmp_path / "days" / "2.csv").write_text("n\n3\n")
    source = source_of(tmp_path, streams={"days": "days/*"}, file_columns=True, range_bytes=500)
    found = records_of(source)
    assert sorted(record["n"] for record in found) == [2, 3, *range(10, 2000)]
    assert {record["_file"] for record in found} == {"days/1.zip", "days/2.csv"}
    assert source.count(only(source)) == 1992
    with source.open_ranges(only(source), 4, "arrow") as ranges:
        read = [number for part in ranges.ranges for batch in ranges.read(part) for number in batch["n"].to_pylist()]
    assert sorted(read) == [2, 3, *range(10, 2000)]


@pytest.mark.parametrize("kind", [CSVSource, JSONLSource, ParquetSource])
def test_an_archive_without_such_files_is_an_error(tmp_path: Path, kind: type[FileSource]) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "no data")
    with pytest.raises(ConnectorError, match=r"a\.zip"):
        records_of(source_of(tmp_path / "a.zip", kind))
