"""Files that are split: the parts in their order are the file, or the split is refused; never anything else."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncblocks.connectors.errors import ConnectorError, RetriableError
from syncblocks.connectors.files.csv_source import CSVSource
from syncblocks.connectors.files.jsonl_source import JSONLSource
from syncblocks.connectors.files.parquet_source import ParquetSource
from syncblocks.connectors.files.source import FileRanges, FileSource
from syncblocks.connectors.ranges import RangesRefused, SnapshotLost
from syncblocks.connectors.struct_helpers import replace
from tests.tiers import examples

#: Texts of a CSV file that make it hard: quotes, line ends, delimiters, long ones, four bytes, byte order marks.
TEXTS = st.text(st.sampled_from('a"\n\r,;\U0001f4e6\ufeff \\'), max_size=12)
FEW = settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def whole(source: FileSource) -> list[Mapping[str, Any]]:
    (stream,) = source.discover()
    return [row for _, batch in source.read([stream], {}) for row in batch.to_pylist()]  # type: ignore[union-attr]


def by_ranges(source: FileSource, readers: int = 3) -> tuple[int, list[Mapping[str, Any]]]:
    (stream,) = source.discover()
    with source.open_ranges(stream, readers, "arrow") as opened:
        return len(opened.ranges), [
            row for part in opened.ranges for batch in opened.read(part) for row in batch.to_pylist()
        ]


def csv_source(folder: Path, data: bytes, **config: Any) -> CSVSource:
    (folder / "f.csv").write_bytes(data)
    return CSVSource({"path": "f.csv", "range_bytes": 20, **config}, folder)


@pytest.mark.sampled
@FEW
@given(records=st.lists(st.tuples(TEXTS, TEXTS), min_size=3, max_size=40), ends=st.sampled_from(["\n", "\r\n"]))
def test_a_well_made_csv_file_is_its_parts(tmp_path: Path, records: list[tuple[str, str]], ends: str) -> None:
    sink = io.StringIO(newline="")
    csv.writer(sink, lineterminator=ends, quoting=csv.QUOTE_ALL).writerows([("x", "y"), *records])
    source = csv_source(tmp_path, sink.getvalue().encode())
    count, rows = by_ranges(source)
    assert (rows == whole(source)) if count else (rows == [])


@pytest.mark.sampled
@FEW
@given(data=st.text(st.sampled_from('a"\n'), min_size=60, max_size=400))
def test_a_wild_file_is_its_parts_or_is_refused(tmp_path: Path, data: str) -> None:
    """Of one column, so that the parser does not notice by the number of fields."""
    source = csv_source(tmp_path, b"x\n" + data.encode())
    try:
        count, found = by_ranges(source)
    except RangesRefused:
        return
    except ConnectorError:
        with pytest.raises(ConnectorError):
            whole(source)
        return
    if count:
        assert found == whole(source)


def test_a_stray_quote_that_would_lead_the_split_astray_is_noticed(tmp_path: Path) -> None:
    inside = '"' + "1,2\n" * 30 + '"'
    source = csv_source(tmp_path, f'x,y\n5" pipe,1\n{inside},2\n{inside},3\n'.encode())
    with pytest.raises(RangesRefused, match=r"does not begin a quoted field|fields for "):
        by_ranges(source)
    assert len(whole(source)) == 3


def test_a_csv_file_without_quotes_is_cut_into_even_parts(tmp_path: Path) -> None:
    source = csv_source(tmp_path, b"id\n" + b"".join(b"%d\n" % n for n in range(-500, 500)), range_bytes=300)
    count, rows = by_ranges(source)
    assert count == 12
    assert [row["id"] for row in rows] == list(range(-500, 500))
    (stream,) = source.discover()
    assert source.plan_ranges(stream, 3) == (12, "by files and bytes, 4,285 bytes in 1 file")


def test_the_parts_of_a_file_have_the_delimiter_of_its_first_line(tmp_path: Path) -> None:
    source = csv_source(tmp_path, b"a;b\n" + b"1;x|y|z|w\n" * 40)
    count, rows = by_ranges(source)
    assert count > 1
    assert rows == whole(source) == [{"a": 1, "b": "x|y|z|w"}] * 40


@pytest.mark.parametrize("data", [b"id,v\n", b"id,v\n1,2\n", b"", b"id,v\n1,2"])
def test_a_small_csv_file_is_read_as_a_whole(tmp_path: Path, data: bytes) -> None:
    source = csv_source(tmp_path, data, range_bytes=1000)
    if source.discover():
        assert by_ranges(source) == (0, [])


def test_what_does_not_fit_is_found_out_by_reading_the_file_as_a_whole(tmp_path: Path) -> None:
    source = csv_source(tmp_path, b"id\n" + b"1\n" * 50 + b"x\n" + b"1\n" * 50, types={"id": "int64"})
    with pytest.raises(RangesRefused, match="is no int64"):
        by_ranges(source)
    with pytest.raises(ConnectorError, match=r"f\.csv:52"):
        whole(source)


def test_several_files_and_formats_are_split(tmp_path: Path) -> None:
    table = pa.table({"id": range(1000), "v": ["x" * 50] * 1000})
    for connector, source_class in (("csv", CSVSource), ("jsonl", JSONLSource), ("parquet", ParquetSource)):
        folder = tmp_path / connector
        (folder / "t").mkdir(parents=True)
        for number in range(3):
            part = table.slice(number * 300, 300 if number < 2 else 400)
            if connector == "parquet":
                pyarrow.parquet.write_table(part, folder / "t" / f"{number}.parquet", row_group_size=50)
            elif connector == "csv":
                text = "id,v\n" + "".join(f"{row['id']},{row['v']}\n" for row in part.to_pylist())
                (folder / "t" / f"{number}.csv.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
            else:
                lines = "".join(f'{{"id": {row["id"]}, "v": "{row["v"]}"}}\n' for row in part.to_pylist())
                (folder / "t" / f"{number}.jsonl").write_text(lines)
        source = source_class({"path": ".", "range_bytes": 100}, folder)
        count, rows = by_ranges(source)
        assert rows == table.to_pylist(), connector
        assert (count > 6) if connector == "parquet" else (count == 3)
        assert rows == whole(source)


def test_a_column_that_only_one_file_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "1.csv").write_text("id\n" + "1\n" * 50)
    (tmp_path / "t" / "2.csv").write_text("id\n" + "2\n" * 50)
    source = CSVSource({"path": ".", "range_bytes": 20}, tmp_path)
    (stream,) = source.discover()
    (tmp_path / "t" / "2.csv").write_text("id,new\n" + "2,3\n" * 50)
    with pytest.raises(RangesRefused, match="has a new column 'new'"), source.open_ranges(stream, 3, "arrow"):
        pass


def test_a_file_that_changes_meanwhile_is_not_of_one_moment(tmp_path: Path) -> None:
    source = csv_source(tmp_path, b"id\n" + b"1\n" * 100)
    (stream,) = source.discover()
    with source.open_ranges(stream, 3, "arrow") as opened:
        list(opened.read(opened.ranges[0]))
        (tmp_path / "f.csv").write_bytes(b"id\n" + b"2\n" * 101)
        with pytest.raises(SnapshotLost, match="changed while it was read"):
            list(opened.read(opened.ranges[1]))


@pytest.mark.parametrize(
    ("name", "data"), [("f.csv.gz", gzip.compress(b"id\n" + b"1\n" * 900, mtime=0)), ("f.csv", b"id\n1\n")]
)
def test_a_file_that_is_not_split_is_one_range_in_the_plan(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    source = CSVSource({"path": name, "range_bytes": 2}, tmp_path)
    (stream,) = source.discover()
    assert source.plan_ranges(stream, 2)[0] == (1 if name.endswith("gz") else 2)


def test_a_plan_counts_the_ranges_of_files_that_are_split_and_of_others(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    for number in range(20):
        (tmp_path / "t" / f"{number}.csv.gz").write_bytes(gzip.compress(b"id\n1\n", mtime=0))
    (tmp_path / "t" / "large.csv").write_bytes(b"id\n" + b"1\n" * 5000)
    source = CSVSource({"path": ".", "range_bytes": 1000}, tmp_path)
    (stream,) = source.discover()
    planned, _ = source.plan_ranges(stream, 3)
    count, rows = by_ranges(source)
    assert planned == count == 1 + 10
    assert rows == whole(source) == [{"id": 1}] * 5020


def records(opened: FileRanges, place: int) -> list[Mapping[str, Any]]:
    return [row for batch in opened.read(opened.ranges[place]) for row in batch.to_pylist()]


@pytest.mark.parametrize("change", ["bytes", "grown", "other", "gone"])
@pytest.mark.parametrize("has_begun", [False, True])
def test_files_that_have_changed_are_not_those_that_were_opened(tmp_path: Path, change: str, has_begun: bool) -> None:
    (tmp_path / "data").mkdir()
    for name in "ab":
        (tmp_path / "data" / f"{name}.csv").write_bytes(b"id\n" + b"1\n" * 100)
    source = CSVSource({"path": "data", "streams": {"t": "*.csv"}, "range_bytes": 20}, tmp_path)
    (stream,) = source.discover()
    file = tmp_path / "data" / "a.csv"
    with source.open_ranges(stream, 3, "arrow") as opened:
        if has_begun:
            assert records(opened, 0)
        if change == "bytes":
            file.write_bytes(b"id\n" + b"2\n" * 100)
        elif change == "grown":
            with file.open("ab") as opened_file:
                opened_file.write(b"2\n")
        elif change == "other":
            file.rename(tmp_path / "old")
            file.write_bytes((tmp_path / "old").read_bytes())
        else:
            file.unlink()
        with pytest.raises(RetriableError):
            records(opened, 0)


def test_files_of_which_their_store_tells_neither_time_nor_hash_are_read_by_ranges(tmp_path: Path) -> None:
    source = csv_source(tmp_path, b"id\n" + b"1\n" * 100)
    (stream,) = source.discover()
    with source.open_ranges(stream, 3, "arrow") as opened:
        told = [replace(one, stamp=None) for one in opened.split.seen]
        opened = replace(opened, split=replace(opened.split, seen=told))
        assert sum(len(records(opened, place)) for place in range(len(opened.ranges))) == 100


def test_a_file_of_a_store_that_changes_is_noticed_and_the_others_are_read(tmp_path: Path) -> None:
    path = f"memory://ranges{tmp_path.name}"
    store = fsspec.filesystem("memory")
    for number in range(5):
        store.pipe_file(f"{path}/t/{number}.csv", b"id\n" + b"%d\n" % number * 100)
    source = CSVSource({"path": path, "range_bytes": 20}, tmp_path)
    (stream,) = source.discover()
    assert source.plan_ranges(stream, 3) == (5, "by files and bytes, 1,015 bytes in 5 files")
    with source.open_ranges(stream, 3, "arrow") as opened:
        assert records(opened, 3) == [{"id": 3}] * 100
        store.pipe_file(f"{path}/t/4.csv", b"id\n" + b"7\n" * 100)
        with pytest.raises(SnapshotLost):
            records(opened, 4)
        assert records(opened, 2) == [{"id": 2}] * 100
