"""What a source of files can be told about how they are written."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.errors import ConnectorConfigError, ConnectorError, FatalConnectorError
from syncblocks.connectors.field_facts import notices_of
from syncblocks.connectors.files.csv_source import CSVSource
from syncblocks.connectors.files.destination import CSVDestination
from syncblocks.connectors.files.json_source import JSONSource
from syncblocks.connectors.files.jsonl_source import JSONLSource
from syncblocks.connectors.files.parquet_source import ParquetSource
from syncblocks.connectors.files.source import FileSource
from syncblocks.connectors.rejected.limits import TooManyRejected
from syncblocks.connectors.stream import Checkpoint, Rejected
from syncblocks.connectors.struct_helpers import replace
from tests.connectors.files.files_load import load_of, run
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


@pytest.mark.parametrize("kind", [CSVSource, JSONLSource, JSONSource])
def test_a_compression_that_is_not_known_is_told(tmp_path: Path, kind: type[FileSource]) -> None:
    path = tmp_path / f"a.{kind.connector}.xz"
    path.write_bytes(lzma.compress(b"{}"))
    with pytest.raises(ConnectorError, match=r"compression is not supported: .* as \.gz"):
        source_of(path, kind).discover()


@pytest.mark.parametrize(
    ("line", "delimiter", "more"),
    [
        ("sep=;\n", ";", {}),
        ("SEP=,\r\n", ",", {}),
        ("sep=\\t\r", "\t", {}),
        ("sep=\t\n", "\t", {"encoding": "utf-16"}),
        ("\ufeffsep=^\r\n", "^", {}),
        ("sep=;\n", ";", {"delimiter": ";"}),
        ("sep=;\n", ";", {"short_rows": "null"}),
    ],
)
def test_a_first_line_that_says_the_delimiter_is_no_record(
    tmp_path: Path, line: str, delimiter: str, more: dict[str, Any]
) -> None:
    lines = ["id,name", *(f"{number},x" for number in range(300))]
    text = line + "".join(f"{each}\n" for each in lines).replace(",", delimiter)
    (tmp_path / "a.csv").write_bytes(text.encode(more.get("encoding", "utf-8")))
    source = source_of(tmp_path / "a.csv", range_bytes=200, **more)
    wanted = [{"id": number, "name": "x"} for number in range(300)]
    assert records_of(source) == wanted
    stream = only(source)
    assert source.count(stream) == 300
    with source.open_ranges(stream, 3, "arrow") as ranges:
        assert len(ranges.ranges) > 2 or "encoding" in more
        batches = [batch for part in ranges.ranges for batch in ranges.read(part)]
    assert [record for batch in batches for record in batch.to_pylist()] == wanted
    bare = source_of(tmp_path / "a.csv", header=False, **more)
    assert records_of(bare)[1] == {"column_1": "0", "column_2": "x"}


def test_the_line_that_says_the_delimiter_counts_in_errors_and_in_each_file(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a.csv").write_text("sep=;\nid;name\n1;x,y\n")
    (tmp_path / "m" / "b.csv").write_text("id,name\n2,z\n")
    source = CSVSource({"path": ".", "streams": {"m": "m/*.csv"}}, tmp_path)
    assert records_of(source) == [{"id": 1, "name": "x,y"}, {"id": 2, "name": "z"}]
    (tmp_path / "c.csv").write_text("sep=;\nid;name\n1;x;y\n")
    with pytest.raises(ConnectorError, match=r"c\.csv:3: 3 fields"):
        records_of(source_of(tmp_path / "c.csv"))
    (tmp_path / "d.csv").write_text("sep=;\n1;1\n1;x\n")
    with pytest.raises(ConnectorError, match=r"d\.csv:2: two columns have one name"):
        only(source_of(tmp_path / "d.csv"))


def test_a_record_of_a_table_that_looks_like_the_line_stays_one(tmp_path: Path) -> None:
    destination = CSVDestination({"path": str(tmp_path), "header": False, "quoting": "needed"}, tmp_path)
    schema = pa.schema([pa.field("t", pa.string())])
    load = load_of("append", "t", schema)
    run(destination, load, pa.record_batch([["sep=^", "b"]], schema=schema), Checkpoint(bookmark={}, is_final=True))
    assert records_of(source_of(tmp_path, header=False)) == [{"t": "sep=^"}, {"t": "b"}]


@pytest.mark.parametrize("said", [{"delimiter": ","}, {"skip_lines": 1}])
def test_settings_come_before_the_line_that_says_the_delimiter(tmp_path: Path, said: dict[str, Any]) -> None:
    (tmp_path / "a.csv").write_text("some\n" * said.get("skip_lines", 0) + "sep=;\nx\n")
    assert records_of(source_of(tmp_path / "a.csv", **{"delimiter": ",", **said})) == [{"sep=;": "x"}]


@pytest.mark.parametrize("kind", [CSVSource, JSONLSource])
def test_a_glob_types_all_columns_that_match(tmp_path: Path, kind: type[FileSource]) -> None:
    path = tmp_path / ("a.csv" if kind is CSVSource else "a.jsonl")
    record = {"id": 1, "x_id": 2, "n": 3}
    path.write_text("id,x_id,n\n1,2,3\n" if kind is CSVSource else json.dumps(record))
    source = source_of(path, kind, types={"*id": "string", "id": "int32"})
    assert types_of(source) == {"id": "int32", "x_id": "string", "n": "int64"}
    assert records_of(source) == [{"id": 1, "x_id": "2", "n": 3}]


@pytest.mark.parametrize("empty", ["", "a"])
def test_a_said_type_that_no_column_has_today_is_told_of(tmp_path: Path, empty: str) -> None:
    """A header says that there is no such column; of an empty file, and of JSON lines, another day may have it."""
    (tmp_path / "b.csv").write_text("x\n1\n")
    (tmp_path / "b.jsonl").write_text('{"x": 1}\n')
    said = "config.types: no stream has a column 'y*'"
    if empty:
        for kind in ("csv", "jsonl"):
            (tmp_path / f"a.{kind}").touch()
    else:
        with pytest.raises(ConnectorError, match=re.escape(said)):
            source_of(tmp_path, CSVSource, types={"y*": "string"}).discover()
    for kind in (CSVSource, JSONLSource) if empty else (JSONLSource,):
        source = source_of(tmp_path, kind, types={"y*": "string"})
        for streams in (source.discover(), source.open_streams(["a", "b"])):
            (told,) = [notice for stream in streams for notice in notices_of(stream.schema)]
            assert told.startswith(said)


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


def test_a_file_in_an_archive_is_read_as_its_own_name_says(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.csv.gz", gzip.compress(b"n,t\n1,a\n"))
        archive.writestr("2.tsv", "n\tt\tx,y\n2\tb\t3\n")
    assert records_of(source_of(tmp_path / "a.zip")) == [
        {"n": 1, "t": "a", "x,y": None},
        {"n": 2, "t": "b", "x,y": 3},
    ]


def numbered(kind: type[FileSource]) -> tuple[str, str]:
    """Return the suffix of a format, and a file of it."""
    if kind is CSVSource:
        return "csv", "".join(f"{number}\n" for number in range(20_000))
    return "jsonl", "".join(f'{{"n": {number}}}\n' for number in range(20_000))


@pytest.mark.parametrize("kind", [CSVSource, JSONLSource, JSONSource])
@pytest.mark.parametrize(("pack", "end"), [(gzip.compress, "gz"), (bz2.compress, "bz2")])
def test_what_is_compressed_and_does_not_say_so_is_told(
    tmp_path: Path, kind: type[FileSource], pack: Callable[[bytes], bytes], end: str
) -> None:
    (tmp_path / "a.txt").write_bytes(pack(b'{"id": 1}\n'))
    with pytest.raises(ConnectorError, match=rf"a\.txt.*its name must end in \.{end}"):
        records_of(source_of(tmp_path / "a.txt", kind))


@pytest.mark.parametrize("kind", [JSONLSource, JSONSource])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_json_in_an_encoding_of_wider_signs_is_told(tmp_path: Path, kind: type[FileSource], encoding: str) -> None:
    (tmp_path / "a.json").write_text('{"id": "é"}\n', encoding)
    with pytest.raises(
        FatalConnectorError, match=f"it is {encoding[:6].upper()}: save the file in UTF-8, which JSON requires"
    ):
        records_of(source_of(tmp_path / "a.json", kind))


@pytest.mark.parametrize("kind", [CSVSource, JSONLSource])
@pytest.mark.parametrize("damage", ["deflated", "lzma", "checksum"])
def test_a_damaged_archive_is_an_error_that_names_the_file(tmp_path: Path, kind: type[FileSource], damage: str) -> None:
    suffix, text = numbered(kind)
    packed = zipfile.ZIP_LZMA if damage == "lzma" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(tmp_path / "a.zip", "w", packed) as made:
        made.writestr(f"b.{suffix}", text)
    archive = bytearray((tmp_path / "a.zip").read_bytes())
    archive[archive.rindex(b"PK\x01\x02") + 16 if damage == "checksum" else 60] ^= 0x20
    (tmp_path / "a.zip").write_bytes(archive)
    with pytest.raises(FatalConnectorError, match=rf"a\.zip:b\.{suffix}: cannot be read: "):
        records_of(source_of(tmp_path / "a.zip", kind))


@pytest.mark.parametrize("kind", [CSVSource, JSONLSource])
def test_a_file_of_bzip2_with_an_empty_member_is_told_as_such(tmp_path: Path, kind: type[FileSource]) -> None:
    suffix, text = numbered(kind)
    (tmp_path / f"a.{suffix}.bz2").write_bytes(bz2.compress(text.encode()) + bz2.compress(b"") * 2)
    with pytest.raises(FatalConnectorError, match=rf"a\.{suffix}\.bz2: cannot be read: one of .* empty"):
        records_of(source_of(tmp_path / f"a.{suffix}.bz2", kind))


@pytest.mark.parametrize("kind", [CSVSource, JSONLSource, ParquetSource])
def test_an_archive_without_such_files_is_an_error(tmp_path: Path, kind: type[FileSource]) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "no data")
    with pytest.raises(ConnectorError, match=r"a\.zip"):
        records_of(source_of(tmp_path / "a.zip", kind))


SHORT = 'a,b,c\n1\n2,x\n3,"y\nz",w\n4,\n5,"",v\n6,p,q\n7\n'
READ = [
    {"a": 1, "b": None, "c": None},
    {"a": 2, "b": "x", "c": None},
    {"a": 3, "b": "y\nz", "c": "w"},
    {"a": 4, "b": None, "c": None},
    {"a": 5, "b": "", "c": "v"},
    {"a": 6, "b": "p", "c": "q"},
    {"a": 7, "b": None, "c": None},
]


def test_the_columns_that_a_short_record_lacks_are_null(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(SHORT)
    with pytest.raises(ConnectorError, match=r"a\.csv:2: 1 fields"):
        records_of(source_of(tmp_path / "a.csv"))
    source = source_of(tmp_path / "a.csv", short_rows=None)  # as YAML reads `short_rows: null`
    assert records_of(source) == READ
    assert source.count(only(source)) == 7
    other = source_of(tmp_path / "a.csv", short_rows="null", null_values=["-"], batch_size=2)
    assert [record["c"] for record in records_of(other)] == [None, None, "w", None, "v", "q", None]
    (tmp_path / "a.csv").write_text(SHORT + "8,a,b,c\n")
    with pytest.raises(ConnectorError, match=r"a\.csv:10: 4 fields"):
        records_of(source)


@pytest.mark.full
def test_short_records_keep_their_places_across_blocks(tmp_path: Path) -> None:
    lines = [f"{number},{'x' * (number % 90)}" if number % 7 else f"{number}" for number in range(60_000)]
    (tmp_path / "a.csv").write_text("n,t\n" + "\n".join(lines) + "\nbad,x\n")
    source = source_of(tmp_path / "a.csv", short_rows="null", types={"n": "int64"})
    stream = only(source)
    with pytest.raises(ConnectorError, match=r"a\.csv:60002: column 'n': 'bad'"):
        records_of(source)
    (tmp_path / "a.csv").write_text("n,t\n" + "\n".join(lines))
    read = [record for _, event in source.read([stream], {}) if isinstance(event, pa.RecordBatch)
            for record in event.to_pylist()]  # fmt: skip
    assert [record["n"] for record in read] == list(range(60_000))
    assert all((record["t"] is None) == (record["n"] % 7 == 0 or record["n"] % 90 == 0) for record in read)


def test_long_records_are_rejected_and_short_ones_are_not(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1\n2\n3,x,y\n4\n5,z\nsix\n")
    source = source_of(tmp_path / "a.csv", short_rows="null", types={"a": "int64"})
    stream = only(source)
    stream = replace(stream, read=replace(stream.read, max_rejected=2))
    events = [event for _, event in source.read([stream], {})]
    kept = [record["a"] for event in events if isinstance(event, pa.RecordBatch) for record in event.to_pylist()]
    rejected = [each.place for event in events if isinstance(event, Rejected) for each in event.records]
    assert kept == [1, 2, 4, 5]
    assert [place.rpartition("/")[2] for place in rejected] == ["a.csv:4", "a.csv:7"]


@pytest.mark.parametrize("kind", [CSVSource, JSONLSource])
@pytest.mark.parametrize("batch_size", [3, 1000])
def test_each_record_with_a_value_that_does_not_fit_is_rejected_once(
    tmp_path: Path, kind: type[FileSource], batch_size: int
) -> None:
    records = [{"a": str(number), "b": str(number), "c": "c"} for number in range(200)]
    for number in (0, 5, 6, 7, 100, 199):
        records[number]["a"] = "x"
    for number in (6, 50, 199):
        records[number]["b"] = "y"
    path = tmp_path / "a.txt"
    lines = [",".join(each.values()) if kind is CSVSource else json.dumps(each) for each in records]
    path.write_text("\n".join(["a,b,c", *lines] if kind is CSVSource else lines))
    source = source_of(path, kind, types={"a": "int64", "b": "int64", "c": "string"}, batch_size=batch_size)
    stream = only(source)
    stream = replace(stream, read=replace(stream.read, max_rejected=7))
    events = [event for _, event in source.read([stream], {})]
    kept = [record["a"] for event in events if isinstance(event, pa.RecordBatch) for record in event.to_pylist()]
    bad = [0, 5, 6, 7, 50, 100, 199]
    assert kept == [number for number in range(200) if number not in bad]
    rejected = [each for event in events if isinstance(event, Rejected) for each in event.records]
    first = 2 if kind is CSVSource else 1
    assert [int(each.place.rpartition(":")[2]) - first for each in rejected] == bad
    assert [each.reason.partition(":")[0] for each in rejected] == [f"column '{'b' if n == 50 else 'a'}'" for n in bad]
    assert [json.loads(each.record) for each in rejected] == [records[number] for number in bad]
    with pytest.raises(TooManyRejected, match="more than 6"):
        list(source.read([replace(offered := only(source), read=replace(offered.read, max_rejected=6))], {}))


@pytest.mark.parametrize("levels", [700, 5_000])  # Python 3.11 parses the first, later ones both
def test_a_rejected_record_is_kept_however_deeply_it_is_nested(tmp_path: Path, levels: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1, "v": []}\n')
    source = source_of(path, JSONLSource, types={"id": "int64", "v": "json"})
    stream = replace(offered := only(source), read=replace(offered.read, max_rejected=1))
    deep = "[" * levels + "]" * levels
    path.write_text(f'{{"id": 1, "v": []}}\n{{"id": "x", "v": {deep}}}\n{{"id": 3, "v": []}}\n')
    events = [event for _, event in source.read([stream], {})]
    kept = [record["id"] for event in events if isinstance(event, pa.RecordBatch) for record in event.to_pylist()]
    (rejected,) = [each for event in events if isinstance(event, Rejected) for each in event.records]
    assert kept == [1, 3]
    assert rejected.place.endswith("a.jsonl:2")
    assert deep in rejected.record.replace(", ", "")
    assert "x" in rejected.record


@pytest.mark.parametrize("end", ["csv", "jsonl", "json"])
def test_times_without_a_zone_are_times_of_the_zone_that_is_said(tmp_path: Path, end: str) -> None:
    texts = ["2024-07-01 12:00:00", "2024-01-01T12:00:00.5", "2024-01-01T12:00:00+00:00", "2024-10-27 02:30:00"]

    def source(texts: list[str], **config: Any) -> FileSource:
        records = [{"at": text, "day": "2024-07-01"} for text in texts]
        path = tmp_path / f"a.{end}"
        if end == "csv":
            path.write_text("at,day\n" + "".join(f"{record['at']},{record['day']}\n" for record in records))
        else:
            path.write_text(json.dumps(records) if end == "json" else "\n".join(map(json.dumps, records)))
        kind = {"csv": CSVSource, "jsonl": JSONLSource, "json": JSONSource}[end]
        return source_of(path, kind, **config)

    assert types_of(source(texts)) == {"at": pa.string(), "day": pa.date32()}
    berlin = source(texts, timezone="Europe/Berlin")
    assert {name: str(kind) for name, kind in types_of(berlin).items()} == {
        "at": "timestamp[us, tz=UTC]",
        "day": "date32[day]",
    }
    found = [record["at"].isoformat() for record in records_of(berlin)]
    assert found == [
        "2024-07-01T10:00:00+00:00",
        "2024-01-01T11:00:00.500000+00:00",
        "2024-01-01T12:00:00+00:00",
        "2024-10-27T01:30:00+00:00",
    ]
    said = records_of(source(texts, timezone="Europe/Berlin", types={"day": "timestamptz"}))
    assert said[0]["day"].isoformat() == "2024-06-30T22:00:00+00:00"
    naive = records_of(source(texts[:1], timezone="Europe/Berlin", types={"at": "timestamp"}))
    assert naive[0]["at"].isoformat() == "2024-07-01T12:00:00"
    with pytest.raises(ConnectorError, match=r"a\.\S+.*'at'.*2024-03-31 02:30:00"):
        records_of(source([*texts, "2024-03-31 02:30:00"], timezone="Europe/Berlin"))
    with pytest.raises(ConnectorError, match="'Europe/Berlim' is not a time zone; did you mean 'Europe/Berlin'"):
        source(texts, timezone="Europe/Berlim")


FORMATS = {"at": "%d.%m.%Y %H:%M", "d*": "%d/%m/%Y", "u": "unix", "z": "%b %d %Y %I:%M %p %z"}


@pytest.mark.parametrize("end", ["csv", "jsonl"])
def test_dates_and_times_are_read_in_the_forms_that_are_said(tmp_path: Path, end: str) -> None:
    rows = [
        {"at": "31.01.2024 13:05", "day": "31/01/2024", "u": 1700000000.5, "z": "Jan 31 2024 01:05 PM +0200"},
        {"at": None, "day": None, "u": None, "z": None},
    ]
    with (tmp_path / f"a.{end}").open("w") as file:
        if end == "jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            lines = [list(rows[0]), *(list(row.values()) for row in rows)]
            file.writelines(",".join("" if each is None else str(each) for each in line) + "\n" for line in lines)
    kind = {"csv": CSVSource, "jsonl": JSONLSource}[end]
    source = kind({"path": f"a.{end}", "formats": FORMATS}, tmp_path)
    (stream,) = source.discover()
    assert stream.schema.types == [
        pa.timestamp("us"),
        pa.date32(),
        pa.timestamp("us", "UTC"),
        pa.timestamp("us", "UTC"),
    ]
    assert records_of(source) == [
        {
            "at": datetime(2024, 1, 31, 13, 5),  # noqa: DTZ001
            "day": date(2024, 1, 31),
            "u": datetime(2023, 11, 14, 22, 13, 20, 500_000, UTC),
            "z": datetime(2024, 1, 31, 11, 5, tzinfo=UTC),
        },
        dict.fromkeys(rows[0]),
    ]
    berlin = kind({"path": f"a.{end}", "formats": FORMATS, "timezone": "Europe/Berlin"}, tmp_path)
    assert records_of(berlin)[0]["at"] == datetime(2024, 1, 31, 12, 5, tzinfo=UTC)
    path = tmp_path / f"a.{end}"
    path.write_text(path.read_text().replace("31.01.2024", "31.02.2024"))
    with pytest.raises(
        FatalConnectorError, match=r"a\.\w+:[12]: column 'at': '?\"?31.02.2024 13:05\"?'? is no timestamp"
    ):
        records_of(source)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("%d.%m.", "does not contain the full date"),
        ("%Y-%q", "%q is not supported"),
        ("iso", "does not contain the full date"),
    ],
)
def test_a_format_that_says_no_day_is_refused(tmp_path: Path, said: str, why: str) -> None:
    with pytest.raises(ConnectorConfigError, match=why):
        CSVSource({"path": "a.csv", "formats": {"at": said}}, tmp_path)


def test_records_have_their_number_in_their_file_however_they_are_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("v\n" + "".join(f"{name}{n}\n" for n in range(1, 6)))
    config = {"path": ".", "streams": {"s": "*.csv"}, "file_columns": True, "file_rows": True, "batch_size": 2}
    source = CSVSource({**config, "range_bytes": 1}, tmp_path)
    (stream,) = source.discover()
    assert stream.schema.names == ["v", "_file", "_file_modified", "_file_row"]
    batches = [batch for _, batch in source.read([stream], {}) if isinstance(batch, pa.RecordBatch)]
    with source.open_ranges(stream, 4, "arrow") as ranges:
        parts = [batch for part in ranges.ranges for batch in ranges.read(part)]
    for read in (batches, parts):
        found = pa.Table.from_batches(read).to_pydict()
        assert found["v"] == [f"{file[0]}{row}" for file, row in zip(found["_file"], found["_file_row"], strict=True)]
        assert len(found["v"]) == 10
