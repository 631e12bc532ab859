"""File sources: what a path means, which types come out, and what an error tells."""

from __future__ import annotations

import gzip
import io
import json
import os
import queue
import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.bookmarks import values
from connectors.errors import ConnectorConfigError, ConnectorError, FatalConnectorError, Interrupted
from connectors.files.csv_input import Input
from connectors.files.source import CSVSource, FileSource, JSONLSource, ParquetSource
from connectors.files.storage import LocalStorage
from connectors.stream import Checkpoint, ReplicationMethod, Stream
from connectors.wide import RecordTooWide

UTC_US = pa.timestamp("us", "UTC")


def source_of(path: Path, kind: type[FileSource] = CSVSource, **config: Any) -> FileSource:
    return kind({"path": str(path), **config}, path.parent)


def only(source: FileSource) -> Stream:
    (stream,) = source.discover()
    return stream


def types_of(source: FileSource) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in only(source).schema}


def records_of(source: FileSource, stream: Stream | None = None) -> list[dict[str, Any]]:
    stream = stream or only(source)
    events = [event for _, event in source.read([stream], {})]
    return [record for event in events if isinstance(event, pa.RecordBatch) for record in event.to_pylist()]


def column(path: Path, texts: list[str]) -> pa.DataType:
    path.write_text("v,end\n" + "".join(f"{text},x\n" for text in texts))
    return types_of(source_of(path))["v"]


# CSV types


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1", "-5", ""], pa.int64()),
        (["007", "123"], pa.string()),
        (["0", "10"], pa.int64()),
        (["9223372036854775807"], pa.int64()),
        (["9223372036854775808", "1"], pa.decimal128(38, 0)),
        (["9" * 39], pa.string()),
        (["1.5", "2"], pa.float64()),
        (["00.5"], pa.string()),
        (["0.1", "12345678901234567890.12"], pa.decimal128(38, 2)),
        (["1e5"], pa.float64()),
        (["1.5", "-1e400"], pa.string()),
        (["1.5", "1e-400"], pa.string()),
        (["1.5", "9" * 310], pa.string()),
        (["0.0", "0e-400", "5e-324", "-Infinity"], pa.float64()),
        (["0x10"], pa.string()),
        (["+5"], pa.string()),
        (["nan", "1.5"], pa.float64()),
        (["nan"], pa.string()),
        (["true", "FALSE"], pa.bool_()),
        (["true", "1"], pa.string()),
        (["2024-02-29"], pa.date32()),
        (["2023-02-29"], pa.string()),
        (["2024-02-29T10:00:00Z", "2024-02-29 10:00:00.5+02:00"], UTC_US),
        (["2024-02-29 10:00"], pa.timestamp("us")),
        (["2024-02-29 10:00:00.123456789"], pa.timestamp("ns")),
        (["2024-02-29", "2024-02-29 10:00:00"], pa.string()),
        (["", ""], pa.string()),
        (["1", "x"], pa.string()),
    ],
)
def test_csv_types_are_the_narrowest_that_lose_nothing(tmp_path: Path, texts: list[str], kind: pa.DataType) -> None:
    assert column(tmp_path / "t.csv", texts) == kind


def test_csv_values_keep_all_their_digits(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "zip,big,amount,at,day\n007,99999999999999999999,0.30,2024-01-01T00:00:00+02:00,2024-02-29\n"
    )
    assert records_of(source_of(tmp_path / "t.csv", types={"amount": "decimal(12,2)"})) == [
        {
            "zip": "007",
            "big": Decimal("99999999999999999999"),
            "amount": Decimal("0.30"),
            "at": datetime(2023, 12, 31, 22, tzinfo=UTC),
            "day": date(2024, 2, 29),
        }
    ]


def test_config_types_win_over_what_the_values_look_like(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,007\n")
    assert records_of(source_of(tmp_path / "t.csv", types={"a": "string", "b": "int64"})) == [{"a": "1", "b": 7}]


def test_an_unknown_type_or_column_in_config_types_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n")
    with pytest.raises(ConnectorConfigError, match="no type 'strin'"):
        source_of(tmp_path / "t.csv", types={"a": "strin"})
    with pytest.raises(ConnectorConfigError, match="'zpi'"):
        source_of(tmp_path / "t.csv", types={"zpi": "string"}).discover()


# Hostile CSV


@pytest.mark.parametrize(
    ("content", "config", "records"),
    [
        (b'\xef\xbb\xbfa,b\r\n1,"x\r\ny"\r\n', {}, [{"a": 1, "b": "x\r\ny"}]),
        (b'a,b\n"","x"\n,\n', {}, [{"a": "", "b": "x"}, {"a": None, "b": None}]),
        (b"a\n1\n\n2\n", {}, [{"a": 1}, {"a": None}, {"a": 2}]),
        (b"a,b\n1,2\n\n3,4", {}, [{"a": 1, "b": 2}, {"a": 3, "b": 4}]),
        (b"a,b\r1,2\r3,4\r", {}, [{"a": 1, "b": 2}, {"a": 3, "b": 4}]),
        (b'"a\nb","c""d"\n1,2\n', {}, [{"a\nb": 1, 'c"d': 2}]),
        (b",a\n1,2\n", {}, [{"column_1": 1, "a": 2}]),
        (b"1;2\n", {"delimiter": ";", "header": False}, [{"column_1": 1, "column_2": 2}]),
        (b"a;b\n1;'2,5'\n", {}, [{"a": 1, "b": "'2,5'"}]),
        (b'"a;b"|c\n1|2\n', {}, [{"a;b": 1, "c": 2}]),
        (b"a;b,c\n1,2\n", {}, [{"a;b": 1, "c": 2}]),
        (b"a;b\n1\n", {"delimiter": ","}, [{"a;b": 1}]),
        (b'a,b\n5" disk,1\n"x""y",2\n', {}, [{"a": '5" disk', "b": 1}, {"a": 'x"y', "b": 2}]),
        (b"1,2\n", {"header": ["x", "y"]}, [{"x": 1, "y": 2}]),
        (b"a,b\nN,'x,y'\n", {"quote": "'", "null_values": ["N"]}, [{"a": None, "b": "x,y"}]),
        (b'a,b\n"x\\"y",1\n', {"escape": "\\"}, [{"a": 'x"y', "b": 1}]),
        (b'a,b\n5",6"\n', {"quote": ""}, [{"a": '5"', "b": '6"'}]),
        ("a,b\né,1\n".encode("latin-1"), {"encoding": "latin-1"}, [{"a": "é", "b": 1}]),
        ("a,b\né,1\n".encode("utf-16"), {"encoding": "utf-16"}, [{"a": "é", "b": 1}]),
        (b"", {}, []),
        (b"a,b", {}, []),
        (b"a,b\n", {}, []),
        (b"a,b\nx\x00y,1\n", {}, [{"a": "x\0y", "b": 1}]),
    ],
)
def test_odd_csv_files_are_read_as_meant(
    tmp_path: Path, content: bytes, config: Mapping[str, Any], records: list[dict[str, Any]]
) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    source = source_of(tmp_path / "t.csv", **config)
    assert records_of(source) == records
    assert source.count(only(source)) == len(records)


@pytest.mark.parametrize(
    ("content", "config", "words"),
    [
        (b'a,b\n"x\ny",1\n3\n', {}, ["t.csv:4:", "1 fields", "2 columns"]),
        (b"a,b\n1,2\n3,4,5\n", {}, ["t.csv:3:", "3 fields"]),
        (b"a,b,a\n1,2,3\n", {}, ["t.csv:1:", "'a'", "twice", "config.header"]),
        (b"a,b\n1,2\n\xff,4\n", {}, ["t.csv:3:", "utf-8", "config.encoding"]),
        (b"\xff,b\n1,2\n", {}, ["t.csv:1:", "config.encoding"]),
        ("a,b\n1,2\n".encode("utf-16"), {}, ["t.csv:", "`config.encoding: utf-16`"]),
        (b'a,b\n1,2\n3,"x\n4,5\n', {}, ["t.csv:3:", "no end", "4,5", "config.quote"]),
        (b'a\n5\n"x', {}, ["t.csv:3:", "no end", "config.quote"]),
        (b'a,b\n1,"', {}, ["t.csv:2:", "no end"]),
        (b"a\n1\nx\n", {"types": {"a": "int64"}}, ["t.csv:3:", "'a'", "'x'", "config.types"]),
        (b'a,b\n"1\n",2\n5,4,\n', {}, ["t.csv:4:"]),
        (b"a\n1\n" + b"y" * 500 + b"\n", {"types": {"a": "date"}}, ["t.csv:2:", "'1'"]),
        (b"a\n1.255\n", {"types": {"a": "decimal(12,2)"}}, ["t.csv:2:", "1.255"]),
        (b"a\n2024-01-01T00:00:00Z\n", {"types": {"a": "timestamp"}}, ["t.csv:2:", "timestamp"]),
    ],
)
def test_what_is_wrong_in_a_csv_file_is_told_with_file_and_line(
    tmp_path: Path, content: bytes, config: Mapping[str, Any], words: list[str]
) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(FatalConnectorError) as caught:
        records_of(source_of(tmp_path / "t.csv", **config))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("late", ["1e400", "-1e400", "1e-400", "9" * 310])
def test_a_number_that_no_double_holds_is_an_error_and_not_infinity_or_zero(tmp_path: Path, late: str) -> None:
    for place in (tmp_path / "t.csv", tmp_path / "t.jsonl"):
        is_csv = place.suffix == ".csv"
        place.write_text("n,t\n0.5,x\n" if is_csv else '{"n": 0.5}\n')
        source = source_of(place, CSVSource if is_csv else JSONLSource)
        stream = only(source)
        with place.open("a") as file:
            file.write(f"{late},y\n" if is_csv else f'{{"n": {late}}}\n')
        with pytest.raises(FatalConnectorError, match=rf"{place.name}:[23]: column 'n': .*is no double.*config\.types"):
            records_of(source, stream)


@pytest.mark.parametrize(("late", "shown"), [("x", "'x'"), ("007", "'007'"), ("9223372036854775808", "92233")])
def test_a_value_that_does_not_fit_later_is_an_error_with_its_line(tmp_path: Path, late: str, shown: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text('n,t\n1,"a\nb"\n')
    source = source_of(path)
    stream = only(source)
    with path.open("a") as file:
        file.write(f"5,y\n{late},z\n")
    with pytest.raises(FatalConnectorError, match=rf"t\.csv:5: column 'n': .*{shown[:4]}.*config\.types") as caught:
        records_of(source, stream)
    assert caught.value.stream == "t"


def test_a_record_longer_than_a_block_is_read(tmp_path: Path) -> None:
    long = "x" * 9_000_000
    (tmp_path / "t.csv").write_text(f"a,b\n1,y\n2,{long}\n3,z\n")
    assert [(record["a"], len(record["b"])) for record in records_of(source_of(tmp_path / "t.csv"))] == [
        (1, 1),
        (2, 9_000_000),
        (3, 1),
    ]


def test_tsv_files_are_split_at_tabs(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "t.tsv.gz", "wt") as file:
        file.write("a\tb\n1,5\t2\n")
    assert records_of(source_of(tmp_path / "t.tsv.gz")) == [{"a": "1,5", "b": 2}]


def test_a_truncated_archive_is_an_error_that_names_it(tmp_path: Path) -> None:
    data = gzip.compress(b"a,b\n" + os.urandom(5000).hex().encode() + b",1\n")
    (tmp_path / "t.csv.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(FatalConnectorError, match=r"t\.csv\.gz"):
        records_of(source_of(tmp_path / "t.csv.gz"))


# JSON lines


def jsonl(path: Path, *records: Any) -> FileSource:
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in records))
    return source_of(path, JSONLSource)


def test_json_types_come_from_all_keys_and_values(tmp_path: Path) -> None:
    source = jsonl(
        tmp_path / "t.jsonl",
        '{"i":1,"f":1.5,"b":true,"t":"x","at":"2024-01-01T00:00:00+01:00","big":99999999999999999999}\n',
        '{"i":null,"f":2,"o":{"x":[1, 2]},"m":1,"e":null,"exact":12345678901234567890.12}\n\n{"m":"x"}\n',
    )
    assert {name: str(kind) for name, kind in types_of(source).items()} == {
        "i": "int64",
        "f": "double",
        "b": "bool",
        "t": "string",
        "at": "timestamp[us, tz=UTC]",
        "big": "decimal128(38, 0)",
        "o": "extension<arrow.json>",
        "m": "extension<arrow.json>",
        "e": "string",
        "exact": "decimal128(38, 2)",
    }
    records = records_of(source)
    assert records[0]["at"] == datetime(2023, 12, 31, 23, tzinfo=UTC)
    assert [record["m"] for record in records] == [None, "1", '"x"']
    assert records[1]["o"] == '{"x":[1, 2]}', "the text as it stood there"
    assert records[1]["exact"] == Decimal("12345678901234567890.12")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"a": "x"}', ["t.jsonl:4", "'a'", "config.types"]),
        ('{"a": 1.5}', ["t.jsonl:4", "'a'", "1.5"]),
        ('{"a": true}', ["t.jsonl:4", "'a'"]),
        ('{"a": 9223372036854775808}', ["t.jsonl:4", "'a'"]),
        ('{"a": 1', ["t.jsonl:4"]),
        ("[1]", ["t.jsonl:4", "no JSON object"]),
        ('{"a": NaN}', ["t.jsonl:4"]),
        ('{"t": "\\ud800"}', ["t.jsonl:4"]),
    ],
)
def test_what_is_wrong_in_json_is_told_with_file_and_line(tmp_path: Path, line: str, words: list[str]) -> None:
    source = jsonl(tmp_path / "t.jsonl", {"a": 1, "t": "x"})
    stream = only(source)
    jsonl(tmp_path / "t.jsonl", {"a": 1, "t": "x"}, "\n", {"a": 2, "t": "x"}, line + "\n")
    with pytest.raises(FatalConnectorError) as caught:
        records_of(source, stream)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_json_numbers_that_no_type_holds_stay_as_they_are_written(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "t.jsonl", f'{{"n": {"9" * 39}, "f": 1e400}}\n', {"n": 5, "f": 0.5})
    assert {str(kind) for kind in types_of(source).values()} == {"extension<arrow.json>"}
    assert records_of(source) == [{"n": "9" * 39, "f": "1e400"}, {"n": "5", "f": "0.5"}]


def test_a_json_column_that_is_said_to_be_text_takes_every_value_as_text(tmp_path: Path) -> None:
    lines = '{"v": 1.50}\n{"v": "x"}\n{"v": true}\n{"v": {"a":  1}}\n{"v": null}\n{}\n{"v": "1.50"}\n'
    (tmp_path / "t.jsonl").write_text(lines)
    source = source_of(tmp_path / "t.jsonl", JSONLSource, types={"v": "string"})
    assert [record["v"] for record in records_of(source)] == ["1.50", "x", "true", '{"a":  1}', None, None, "1.50"]


def test_a_json_line_larger_than_memory_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    lines = [json.dumps({"id": number, "doc": "x" * size}) for number, size in enumerate((1, 9 << 20, 1, 20 << 20, 1))]
    path.write_text("\n".join(lines))
    source = source_of(path, JSONLSource)
    assert [len(record["doc"]) for record in records_of(source)] == [1, 9 << 20, 1, 20 << 20, 1]
    source.limit_record(10 << 20)
    with pytest.raises(RecordTooWide, match=r"docs\.jsonl:4: a record is larger than all of `memory`, 10 MB"):
        records_of(source)


def test_an_integer_written_with_a_fraction_of_zero_is_an_integer(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "t.jsonl", {"a": 1})
    stream = only(source)
    jsonl(tmp_path / "t.jsonl", {"a": 5.0})
    assert records_of(source, stream) == [{"a": 5}]


def test_a_new_json_key_is_a_change_of_schema(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "t.jsonl", {"a": 1, "hidden": "x"})
    stream = only(source)
    chosen = replace(stream, schema=stream.schema.remove(1))
    jsonl(tmp_path / "t.jsonl", {"a": 1, "hidden": "x"}, {"a": 2, "new": 7, "hidden": "y"})
    events = [event for _, event in source.read([chosen], {})]
    assert isinstance(events[0], Stream)
    assert events[0].schema == pa.schema([("a", pa.int64()), ("new", pa.int64())])
    assert isinstance(events[1], pa.RecordBatch)
    assert events[1].to_pylist() == [{"a": 1, "new": None}, {"a": 2, "new": 7}]


# Paths


def test_each_file_and_each_subfolder_of_a_folder_is_a_stream(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv.gz", "notes.txt", ".hidden.csv", "_tmp.csv", "sub/2.csv", "sub/1.csv", "empty/x.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(b"n\n1\n") if name.endswith("gz") else f"n\n{len(name)}\n".encode())
    source = source_of(tmp_path)
    assert [stream.name for stream in source.discover()] == ["a", "b", "sub"]
    assert [stream.name for stream in source_of(tmp_path / "*.csv").discover()] == ["_tmp", "b"]
    assert [stream.name for stream in source_of(tmp_path / "notes.txt").discover()] == ["notes"]


def test_two_files_of_one_stem_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n\n1\n")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"n\n1\n"))
    with pytest.raises(ConnectorConfigError, match=r"a\.csv.*a\.csv.*'a'"):
        source_of(tmp_path).discover()


@pytest.mark.parametrize("name", ["missing.csv", "*.csv", "missing/x.csv"])
def test_a_path_where_nothing_is_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConnectorConfigError, match="path"):
        source_of(tmp_path / name).check()


def test_files_of_one_stream_are_united_by_column_name(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "1.csv").write_text("a,b\n1,x\n")
    (tmp_path / "s" / "2.csv").write_text("c,a\n5,2.5\n")
    assert records_of(source_of(tmp_path)) == [{"a": 1.0, "b": "x", "c": None}, {"a": 2.5, "b": None, "c": 5}]


def test_partition_folders_add_columns(tmp_path: Path) -> None:
    for year, place in (("2023", "a%2Fb"), ("2024", "__HIVE_DEFAULT_PARTITION__")):
        folder = tmp_path / "s" / f"year={year}" / f"place={place}"
        folder.mkdir(parents=True)
        pyarrow.parquet.write_table(pa.table({"n": [int(year)]}), folder / "0.parquet")
    expected = [{"n": 2023, "year": 2023, "place": "a/b"}, {"n": 2024, "year": 2024, "place": None}]
    assert records_of(source_of(tmp_path, ParquetSource)) == expected
    assert only(source_of(tmp_path / "s", ParquetSource)).name == "s"
    assert records_of(source_of(tmp_path / "s", ParquetSource)) == expected


def test_a_link_out_of_the_folder_is_refused_and_one_named_as_path_is_not(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("n\n1\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(ConnectorConfigError, match="outside"):
        records_of(source_of(tmp_path / "data"))
    assert records_of(source_of(tmp_path / "data" / "link.csv")) == [{"n": 1}]


@pytest.mark.parametrize("url", ["evil://x/y.csv", "simplecache::memory://x.csv", "zip://a.csv::x.zip"])
def test_urls_of_other_schemes_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConnectorConfigError, match="scheme"):
        CSVSource({"path": url}, tmp_path).check()


def test_urls_are_read_through_fsspec(tmp_path: Path) -> None:
    root = f"memory://source{tmp_path.name}"
    with fsspec.open(f"{root}/in/a.csv", "wt") as file:
        file.write("n\n1\n")
    with fsspec.open(f"{root}/in/s/1.csv.gz", "wb") as file:
        file.write(gzip.compress(b"n\n2\n"))
    source = CSVSource({"path": f"{root}/in"}, tmp_path)
    assert {stream.name: records_of(source, stream) for stream in source.discover()} == {
        "a": [{"n": 1}],
        "s": [{"n": 2}],
    }
    assert records_of(CSVSource({"path": f"{root}/in/*.csv"}, tmp_path)) == [{"n": 1}]
    assert records_of(CSVSource({"path": f"{root}/in/a.csv"}, tmp_path)) == [{"n": 1}]
    (tmp_path / "b.csv").write_text("n\n3\n")
    assert records_of(CSVSource({"path": f"file://{tmp_path}/b.csv"}, tmp_path)) == [{"n": 3}]


def test_identity_holds_no_credentials(tmp_path: Path) -> None:
    source = CSVSource(
        {"path": "s3://user:canary@bucket/in?token=canary", "storage_options": {"key": "canary"}}, tmp_path
    )
    assert source.identity() == "csv:s3://bucket/in"


# Reading


def test_a_stream_that_gains_a_file_with_more_columns_says_so(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "1.csv").write_text("a\n1\n")
    source = source_of(tmp_path)
    stream = only(source)
    (tmp_path / "s" / "2.csv").write_text("a,b\n2,x\n")
    kinds = [type(event) for _, event in source.read([stream], {})]
    assert kinds == [pa.RecordBatch, Stream, pa.RecordBatch]


def test_incremental_reads_commit_once_at_their_end(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,at\n3,9\n1,5\n2,7\n")
    source = source_of(tmp_path / "t.csv", batch_size=1)
    stream = replace(only(source), replication_method=ReplicationMethod.INCREMENTAL, bookmark_properties=("at",))
    events = [event for _, event in source.read([stream], {"t": None})]
    assert [type(event) for event in events] == [pa.RecordBatch] * 3 + [Checkpoint]
    assert isinstance(events[-1], Checkpoint)
    assert values(events[-1].bookmark) == {"at": 9}


def test_a_file_without_the_bookmark_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "1.csv").write_text("a,at\n1,1\n")
    (tmp_path / "s" / "2.csv").write_text("a\n2\n")
    source = source_of(tmp_path)
    stream = replace(only(source), replication_method=ReplicationMethod.INCREMENTAL, bookmark_properties=("at",))
    with pytest.raises(FatalConnectorError, match=r"2\.csv.*'at'"):
        list(source.read([stream], {}))


def test_batches_hold_no_more_records_than_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("n\n" + "1\n" * 25)
    source = source_of(tmp_path / "t.csv", batch_size=10)
    sizes = [event.num_rows for _, event in source.read([only(source)], {}) if isinstance(event, pa.RecordBatch)]
    assert sizes == [10, 10, 5]


def test_an_interrupt_from_another_thread_ends_the_read_at_the_next_batch(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("n\n" + "1\n" * 25)
    source = source_of(tmp_path / "t.csv", batch_size=10)
    events = source.read([only(source)], {})
    next(events)
    thread = threading.Thread(target=source.interrupt, args=("t",))
    thread.start()
    thread.join()
    with pytest.raises(Interrupted):
        next(events)


def test_a_file_that_is_no_parquet_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(FatalConnectorError, match=r"t\.parquet"):
        source_of(tmp_path / "t.parquet", ParquetSource).discover()


def test_parquet_columns_keep_their_types_and_odd_names(tmp_path: Path) -> None:
    table = pa.table(
        {
            "dot.name": pa.array([1], pa.int8()),
            "coded": pa.array(["x"]).dictionary_encode(),
            "list": pa.array([[1, None]], pa.list_(pa.int32())),
            "struct": pa.array([{"dot": {"name": 5}}]),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    source = source_of(tmp_path / "t.parquet", ParquetSource)
    assert types_of(source)["coded"] == pa.string()
    assert records_of(source) == [{"dot.name": 1, "coded": "x", "list": [1, None], "struct": {"dot": {"name": 5}}}]
    assert only(source).estimated_records == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_a_storage_that_gives_a_byte_at_a_time_gives_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(1)

    content = 'a,b\n1,\U0001f4e6\n2,"\ufeffx"\n'.encode(encoding)
    (tmp_path / "t.csv").write_bytes(content)
    monkeypatch.setattr(LocalStorage, "open_input", lambda *_: Slow(content))
    records = records_of(source_of(tmp_path / "t.csv", encoding=encoding))
    assert records == [{"a": 1, "b": "\U0001f4e6"}, {"a": 2, "b": "\ufeffx"}]


# How far a parser reads ahead


def test_a_csv_parser_reads_no_further_ahead_than_it_must(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"x" * (1 << 20))
    source = source_of(tmp_path / "t.csv")
    (file,) = source._files("t")
    got: queue.Queue[bytes] = queue.Queue()

    def read(opened: Input) -> None:
        while block := opened.read(1 << 16):
            got.put(block)

    with Input(file, "utf-8", ahead=3) as opened, closing(opened.parsed(iter([pa.record_batch({})] * 2))) as batches:
        next(batches)  # nobody waits for the next one
        reader = threading.Thread(target=read, args=(opened,))
        reader.start()
        for _ in range(4):
            assert got.get(timeout=60)
        next(batches)
        assert got.get(timeout=60)
    reader.join(60)
    assert not reader.is_alive()
    assert got.empty()


# Anything at all


def _outcome(source: FileSource) -> str:
    """Return the connector's error; any other one passes."""
    try:
        records_of(source)
    except ConnectorError as error:
        return str(error)
    return "no error in t.csv or t.jsonl"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=200), st.text('ab,"\n\r 10.-', max_size=60).map(str.encode)))
def test_whatever_is_in_a_csv_file_gives_records_or_one_error_naming_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    assert "t.csv" in _outcome(source_of(tmp_path / "t.csv"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(
        st.binary(max_size=100), st.lists(st.text('{}[]":,a1 e.-\n', max_size=20)).map("\n".join).map(str.encode)
    )
)
def test_whatever_is_in_a_json_file_gives_records_or_one_error_naming_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.jsonl").write_bytes(content)
    assert "t.jsonl" in _outcome(source_of(tmp_path / "t.jsonl", JSONLSource))
