"""CSV files: the types that their values have, odd and hostile files, and how far a parser reads ahead."""

from __future__ import annotations

import codecs
import gzip
import os
import queue
import re
import threading
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.errors import ConnectorConfigError, FatalConnectorError
from syncblocks.connectors.files.csv_input import Input
from syncblocks.connectors.files.csv_source import CSVSource
from syncblocks.connectors.files.destination import CSVDestination
from syncblocks.connectors.files.jsonl_source import JSONLSource
from tests.connectors.files.files_pair import column, only, records_of, source_of

UTC_US = pa.timestamp("us", "UTC")

# Types


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


def test_a_value_that_does_not_fit_advises_a_line_that_names_its_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("'1'\nx\n")
    source = source_of(tmp_path / "t.csv", types={"'1'": "int64"})
    with pytest.raises(FatalConnectorError, match=re.escape("""types: {"'1'": string}`""")):
        records_of(source)


def test_an_unknown_type_or_column_in_config_types_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a\n1\n")
    with pytest.raises(ConnectorConfigError, match=r"no type 'strin'; did you mean 'string'\? Known: "):
        source_of(tmp_path / "t.csv", types={"a": "strin"})
    with pytest.raises(ConnectorConfigError, match="'zpi'"):
        source_of(tmp_path / "t.csv", types={"zpi": "string"}).discover()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"delimiter": "§"}, "delimiter: .*ASCII"),
        ({"delimiter": "\n"}, "delimiter: .*line end"),
        ({"quote": "«"}, "quote: .*ASCII"),
        ({"escape": "§"}, "escape: .*ASCII"),
        ({"escape": '"'}, "escape: .*remove it"),
        ({"delimiter": ";", "quote": ";"}, "delimiter: .*must differ"),
        ({"delimiter": ";", "escape": ";"}, "delimiter: .*must differ"),
    ],
)
def test_marks_that_tell_nothing_apart_are_refused(tmp_path: Path, said: dict[str, str], message: str) -> None:
    (tmp_path / "t.csv").write_text('a,b\n1,"x,y"\n2,z\n')
    with pytest.raises(ConnectorConfigError, match=message):
        source_of(tmp_path / "t.csv", **said)


@pytest.mark.parametrize("said", [{"escape": ","}, {"quote": ","}, {"escape": ";"}, {"quote": "'", "escape": "|"}])
def test_a_found_delimiter_that_is_another_mark_as_well_is_refused(tmp_path: Path, said: dict[str, str]) -> None:
    mark = list(said.values())[-1]
    (tmp_path / "t.csv").write_text(f"a{mark}b\n1{mark}2\n")
    with pytest.raises(FatalConnectorError, match=f"'[{mark}]' is both `config.{list(said)[-1]}` and the delimiter"):
        source_of(tmp_path / "t.csv", **said).discover()


@pytest.mark.parametrize(("text", "wanted"), [("|a|\n|1|\n", {"a": 1}), ("|a|;|b|\n|1|;|2|\n", {"a": 1, "b": 2})])
def test_a_quote_that_could_be_a_delimiter_is_a_quote(tmp_path: Path, text: str, wanted: dict[str, int]) -> None:
    (tmp_path / "t.csv").write_text(text)
    assert records_of(source_of(tmp_path / "t.csv", quote="|")) == [wanted]


@pytest.mark.parametrize("delimiter", ["§", "\r", '"'])
def test_a_delimiter_that_cannot_be_written_is_refused(tmp_path: Path, delimiter: str) -> None:
    with pytest.raises(ConnectorConfigError, match="delimiter: "):
        CSVDestination({"path": "out", "delimiter": delimiter}, tmp_path)


def test_a_null_value_that_the_escape_sign_would_change_is_refused(tmp_path: Path) -> None:
    """As MySQL and PostgreSQL write NULL, which came as the text N."""
    path, options = tmp_path / "t.tsv", {"escape": "\\", "null_values": ["\\N"]}
    path.write_text('a\tb\n\\N\t"N"\n')
    with pytest.raises(
        ConnectorConfigError, match=r"null_values: no field can be .*N', since `escape` turns it into 'N'"
    ):
        source_of(path, **options)
    assert records_of(source_of(path, **options | {"null_values": ["N"]})) == [{"a": None, "b": "N"}]
    assert records_of(source_of(path, null_values=["\\N"])) == [{"a": None, "b": "N"}]


# Hostile files


@pytest.mark.one_of
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
        ("\ufeffa,b\n\ufeffx,1\n\ufeffy,2\n".encode(), {}, [{"a": "\ufeffx", "b": 1}, {"a": "\ufeffy", "b": 2}]),
        ("\ufeff\ufeffx\n".encode(), {"header": ["a"]}, [{"a": "\ufeffx"}]),
        (f"a\n\ufeff{'x' * 9_000_000}\n".encode(), {}, [{"a": "\ufeff" + "x" * 9_000_000}]),
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
        (b"1,2,1\n1,2,3\n", {}, ["t.csv:1:", "one name", "config.header"]),
        (b"a,b\n1,2\n\xff,4\n", {}, ["t.csv:3:", "utf-8", "config.encoding"]),
        (b"\xff,b\n1,2\n", {}, ["t.csv:1:", "config.encoding"]),
        ("a,b\n1,2\n".encode("utf-16"), {}, ["t.csv:", "`config.encoding: utf-16`"]),
        ("a,b\n1,2\n".encode("utf-32"), {}, ["t.csv:", "`config.encoding: utf-32`"]),
        (codecs.BOM_UTF32_BE + "a,b\n".encode("utf-32-be"), {}, ["t.csv:", "`config.encoding: utf-32`"]),
        ("a,b\né,2\n".encode("utf-16-le"), {}, ["t.csv:", "`config.encoding: utf-16-le`"]),
        ("a,b\né,2\n".encode("utf-16-be"), {}, ["t.csv:", "`config.encoding: utf-16-be`"]),
        (b'a,b\n1,2\n3,"x\n4,5\n', {}, ["t.csv:3:", "does not end", "4,5", "config.quote"]),
        (b'a\n5\n"x', {}, ["t.csv:3:", "does not end", "config.quote"]),
        (b'a,b\n1,"', {}, ["t.csv:2:", "does not end"]),
        (b"a\n1\nx\n", {"types": {"a": "int64"}}, ["t.csv:3:", "'a'", "'x'", "`types: {a: string}` in this stream"]),
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
        with pytest.raises(
            FatalConnectorError, match=rf"{place.name}:[23]: column 'n': .*is no double.*in this stream"
        ):
            records_of(source, stream)


@pytest.mark.parametrize("late", ["9007199254740993", "-12345678901234567890.5", "0.12345678901234567890"])
def test_a_number_that_a_double_would_round_is_an_error_unless_it_is_said_to_be_one(tmp_path: Path, late: str) -> None:
    for place in (tmp_path / "t.csv", tmp_path / "t.jsonl"):
        is_csv = place.suffix == ".csv"
        place.write_text("n,t\n0.5,x\n" if is_csv else '{"n": 0.5}\n')
        kind = CSVSource if is_csv else JSONLSource
        source, stream = source_of(place, kind), only(source_of(place, kind))
        with place.open("a") as file:
            file.writelines(
                f"{text},y\n" if is_csv else f'{{"n": {text}}}\n' for text in ("0.1000000000000000056e5", late)
            )
        with pytest.raises(
            FatalConnectorError, match=rf"{place.name}:[34]: column 'n': .*is no double.*in this stream"
        ):
            records_of(source, stream)
        said = records_of(source_of(place, kind, types={"n": "double"}))
        assert [record["n"] for record in said] == [0.5, 10000.0, float(late)]


@pytest.mark.parametrize(("late", "shown"), [("x", "'x'"), ("007", "'007'"), ("9223372036854775808", "92233")])
def test_a_value_that_does_not_fit_later_is_an_error_with_its_line(tmp_path: Path, late: str, shown: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text('n,t\n1,"a\nb"\n')
    source = source_of(path)
    stream = only(source)
    with path.open("a") as file:
        file.write(f"5,y\n{late},z\n")
    with pytest.raises(FatalConnectorError, match=rf"t\.csv:5: column 'n': .*{shown[:4]}.*in this stream") as caught:
        records_of(source, stream)
    assert caught.value.stream == "t"


@pytest.mark.parametrize("late", ["1", "0"])
def test_a_number_in_a_column_of_truth_values_is_an_error_unless_it_is_said_to_be_one(
    tmp_path: Path, late: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("b,t\ntrue,x\n,x\nFALSE,x\n")
    source, stream = source_of(path), only(source_of(path))
    assert [record["b"] for record in records_of(source)] == [True, None, False]
    with path.open("a") as file:
        file.write(f"{late},y\n")
    with pytest.raises(FatalConnectorError, match=rf"t\.csv:5: column 'b': '{late}' is no bool; `types: "):
        records_of(source, stream)
    said = records_of(source_of(path, types={"b": "bool"}))
    assert [record["b"] for record in said] == [True, None, False, late == "1"]


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


def test_a_file_that_is_not_compressed_as_its_name_says_fails_with_the_whole_reason(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_text("a,b\n1,2\n")
    with pytest.raises(FatalConnectorError, match=r"t\.csv\.gz: cannot be read: .*incorrect header check$"):
        records_of(source_of(tmp_path / "t.csv.gz"))


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


@pytest.mark.parametrize(
    ("text", "way_out"),
    [
        ("1,1\n2,3\n", "`config.header: false`"),
        ("a,b\n1\n", "`config.short_rows: null`"),
        ("an export\na,b\n1,2\n", "`config.skip_lines`"),
        ("# all orders, by day\na,b,c\n1,2,3\n", "`config.comment`"),
        ("a,b\n1,2,3\n", "name the missing column in the header"),
    ],
)
def test_a_file_that_is_not_as_its_settings_say_is_an_error_that_names_the_setting(
    text: str, way_out: str, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(FatalConnectorError, match=re.escape(way_out)):
        records_of(source_of(tmp_path / "t.csv"))
