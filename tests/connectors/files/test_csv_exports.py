"""CSV as other programs export it: decimal commas, comments, blanks, odd headers, long delimiters, names of encodings.

DuckDB or pandas read the same files, where they read them as is meant here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from syncblocks.connectors.errors import ConnectorConfigError, FatalConnectorError
from syncblocks.connectors.field_facts import notices_of
from syncblocks.connectors.files.csv_plain import PlainCSV
from syncblocks.connectors.stream import Rejected
from syncblocks.connectors.struct_helpers import replace
from tests.connectors.files.files_pair import only, records_of, source_of, types_of

COMMAS = 'id;price;rate;note\n1;1.002,25;0,5;a,b\n2;"-3,5";-1e3;1.000\n3;;1.234.567,8;31.12.2024\n'


def test_numbers_with_a_decimal_comma_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(COMMAS)
    source = source_of(path, decimal=",", thousands=".")
    assert types_of(source) == {"id": pa.int64(), "price": pa.float64(), "rate": pa.float64(), "note": pa.string()}
    rows = duckdb.sql(f"from read_csv('{path}', delim=';', decimal_separator=',', thousands='.')").fetchall()
    assert [tuple(record.values()) for record in records_of(source)] == rows
    exact = source_of(path, decimal=",", thousands=".", types={"price": "decimal(12,2)"})
    assert [str(record["price"]) for record in records_of(exact)] == ["1002.25", "-3.50", "None"]


@pytest.mark.parametrize(
    ("text", "config", "kind"),
    [
        ("1.5", {"decimal": ","}, pa.string()),
        ("1.5", {"decimal": ",", "thousands": "."}, pa.string()),
        ("12.34.567", {"decimal": ",", "thousands": "."}, pa.string()),
        ("1.234", {"decimal": ",", "thousands": "."}, pa.int64()),
        ("1 234 567,25", {"decimal": ",", "thousands": " "}, pa.float64()),
        ("1'234.25", {"thousands": "'"}, pa.float64()),
        ("007,5", {"decimal": ","}, pa.string()),
        ("2024-01-31 10:00:00.5", {"decimal": ","}, pa.timestamp("us")),
        ("12345678901234567,25", {"decimal": ","}, pa.decimal128(38, 2)),
    ],
)
def test_a_number_has_only_the_signs_that_the_settings_say(
    tmp_path: Path, text: str, config: dict[str, Any], kind: pa.DataType
) -> None:
    (tmp_path / "t.csv").write_text(f"v;w\n{text};x\n")
    assert types_of(source_of(tmp_path / "t.csv", **config))["v"] == kind


def test_a_number_with_a_point_in_a_column_of_commas_is_told_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("v;w\n1,5;x\n2.5;y\n")
    source = source_of(tmp_path / "t.csv", decimal=",", types={"v": "double"})
    with pytest.raises(FatalConnectorError, match=r"t\.csv:3: column 'v': '2\.5' is no double"):
        records_of(source)
    stream = only(source)
    stream = replace(stream, read=replace(stream.read, max_rejected=5))
    events = [event for _, event in source.read([stream], {})]
    (found,) = [record for event in events if isinstance(event, Rejected) for record in event.records]
    assert ("t.csv:3" in found.place, '"2.5"' in found.record) == (True, True)


def test_a_column_of_decimal_commas_is_told_with_the_setting_that_reads_it(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('price;place\n;""\n1.002,25;"1,234"\n-3,5;"5,678"\n')
    (notice,) = notices_of(only(source_of(tmp_path / "t.csv")).schema)
    assert "'price'" in notice
    assert "`decimal: ','`" in notice
    assert not notices_of(only(source_of(tmp_path / "t.csv", decimal=",", thousands=".")).schema)


def test_numbers_with_all_their_digits_may_have_commas(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("v;w\n1,25;x\n0,123456789012345678;y\n")
    source = source_of(tmp_path / "t.csv", decimal=",", numbers="exact")
    assert [str(record["v"]) for record in records_of(source)] == ["1.250000000000000000", "0.123456789012345678"]


# Comments, blanks and long delimiters

NOTED = '# made "by us\nx,y\n1,"a\n#no,comment"\n# second\n\n2,"say ""#"""\n  # no comment\n#last'


def test_comment_lines_are_no_records_but_count_as_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(NOTED.replace("  # no comment\n", ""))
    source = source_of(path, comment="#")
    assert records_of(source) == [{"x": 1, "y": "a\n#no,comment"}, {"x": 2, "y": 'say "#"'}]
    assert source.count(only(source)) == 2
    path.write_text(NOTED)
    with pytest.raises(FatalConnectorError, match=r"t\.csv:8: 1 fields"):
        records_of(source_of(path, comment="#"))
    assert len(records_of(source_of(path, comment="#", trim=True))) == 2
    path.write_text('# a\nx,y\n1, "b\n# "c\n2,d \n')
    assert records_of(source_of(path, comment="#", trim=True, quote="")) == [{"x": 1, "y": '"b'}, {"x": 2, "y": "d"}]
    path.write_text("// ids\nid\n1\n\n// more\n2\n")
    assert records_of(source_of(path, comment="//")) == [{"id": 1}, {"id": 2}]
    path.write_text("// ids\na;b\n1;2\n")
    assert records_of(source_of(path, comment="//")) == [{"a": 1, "b": 2}]


def test_blanks_around_values_are_no_part_of_them(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(' x ,\ty, z\n 1 , "a, b " ,\n2,   ,5" disk  \n   3,"", \n')
    found = records_of(source_of(path, trim=True))
    assert found == [
        {"x": 1, "y": "a, b ", "z": None},
        {"x": 2, "y": None, "z": '5" disk'},
        {"x": 3, "y": "", "z": None},
    ]
    path.write_text("a \t b\n 1\t\t\n".replace("\t\t", "\t "))
    assert records_of(source_of(path, trim=True)) == [{"a": 1, "b": None}]


def test_a_delimiter_may_have_several_characters(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('x||y||z\n1||"a||b"||c|d\n2||"q""||\n"||\n')
    source = source_of(path, delimiter="||")
    assert records_of(source) == [{"x": 1, "y": "a||b", "z": "c|d"}, {"x": 2, "y": 'q"||\n', "z": None}]
    rows = duckdb.sql(f"from read_csv('{path}', delim='||')").fetchall()
    assert [tuple(record.values()) for record in records_of(source)] == rows
    path.write_text("x~|~y\n1~|~2~|~3\n4~|~5\n")
    with pytest.raises(FatalConnectorError, match=r"t\.csv:2: 3 fields for 2 .*1~\|~2~\|~3"):
        records_of(source_of(path, delimiter="~|~"))
    stream = only(source_of(path, delimiter="~|~"))
    stream = replace(stream, read=replace(stream.read, max_rejected=5))
    events = [event for _, event in source_of(path, delimiter="~|~").read([stream], {})]
    (found,) = [record for event in events if isinstance(event, Rejected) for record in event.records]
    assert "1~|~2~|~3" in found.record
    path.write_text("x||y\n1||\x1f\n")
    with pytest.raises(FatalConnectorError, match=r"t\.csv:2: the character U\+001F"):
        records_of(source_of(path, delimiter="||"))


def test_parts_of_a_file_that_is_made_plain_are_its_records(tmp_path: Path) -> None:
    lines = [f'{number} || "a||{number}" \n# {number}\n' for number in range(2000)]
    (tmp_path / "a.csv").write_text("# some\nn||t\n" + "".join(lines))
    source = source_of(tmp_path / "a.csv", delimiter="||", trim=True, comment="#", range_bytes=8000)
    stream = only(source)
    with source.open_ranges(stream, 3, "arrow") as ranges:
        found = [record for part in ranges.ranges for batch in ranges.read(part) for record in batch.to_pylist()]
        assert len(ranges.ranges) > 2
    wanted = [{"n": number, "t": f"a||{number}"} for number in range(2000)]
    assert found == records_of(source) == wanted


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_the_pieces_in_which_a_file_is_read_change_nothing(ends: str) -> None:
    text = ends.join(['a || "b', '# x"" ||"|| c', '#"c" || d', '5" || "e', 'f" || g""', "# last", 'h ||"i||'])
    wanted = ends.join(['a\x1f"b', '# x"" ||"\x1fc', "", '5"\x1f"e', 'f"\x1fg""', "", 'h\x1f"i||'])
    for size in (1, 2, 3, 7, 100):
        plain = PlainCSV(delimiter="||", quote='"', trim=True, comment="#", label="t", line=1)
        pieces = [text[place : place + size] for place in range(0, len(text), size)]
        made = [plain.made(piece.encode(), is_last=False) for piece in pieces]
        assert b"".join([*made, plain.made(b"", is_last=True)]).decode() == wanted


def test_a_line_that_would_be_held_is_refused_beyond_a_limit() -> None:
    plain = PlainCSV(delimiter=",", quote='"', trim=True, comment="", label="t", line=3)
    assert plain.made(b'1\n2,"', is_last=False) == b"1\n"
    with pytest.raises(FatalConnectorError, match="t:4: the line has more than 16 MiB"):
        plain.made(b"x" * (17 << 20), is_last=False)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"thousands": "."}, "thousands: is the decimal sign"),
        ({"thousands": "5", "decimal": ","}, "thousands: .*a letter, digit"),
        ({"decimal": ";"}, "decimal: "),
        ({"delimiter": " ", "trim": True}, "trim: would remove the blanks"),
        ({"delimiter": ";", "comment": ";"}, "comment: could begin a field"),
        ({"escape": "\\", "comment": "#"}, "escape: cannot be combined"),
        ({"escape": "\\", "delimiter": "||"}, "escape: cannot be combined"),
        ({"delimiter": '|"|'}, "delimiter: must differ"),
        ({"encoding": "cp12522"}, "encoding: .*did you mean cp1252"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path: Path, said: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConnectorConfigError, match=message):
        source_of(tmp_path / "t.csv", **said)


# Headers and encodings


def test_names_that_are_empty_or_there_twice_are_numbered_and_told(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,id,,x,id,id_1\n1,2,3,4,5,6\n")
    source = source_of(path)
    (stream,) = source.discover()
    assert stream.schema.names == ["id", "id_2", "column_3", "x", "id_3", "id_1"]
    assert list(records_of(source)[0].values()) == [1, 2, 3, 4, 5, 6]
    (notice,) = notices_of(stream.schema)
    assert "t.csv: column 2 is another 'id' and is read as 'id_2'; column 3 has no name and is read as" in notice
    path.write_text("a,a,b,a\n1,2,3,4\n")
    assert only(source).schema.names == duckdb.sql(f"from read_csv('{path}')").columns
    with pytest.raises(FatalConnectorError, match=r"config\.header: column 'a' exists twice"):
        source_of(path, header=["a", "a", "b", "c"]).discover()


@pytest.mark.parametrize("name", ["windows1252", "Windows-1252", "cp1252", "win1252"])
def test_an_encoding_has_its_usual_names(tmp_path: Path, name: str) -> None:
    (tmp_path / "t.csv").write_bytes("a,b\n1,€é\n".encode("cp1252"))
    (record,) = records_of(source_of(tmp_path / "t.csv", encoding=name))
    assert record == pd.read_csv(tmp_path / "t.csv", encoding="cp1252").to_dict("records")[0] == {"a": 1, "b": "€é"}


@pytest.mark.parametrize("name", ["latin1", "iso88591", "utf8", "utf16", "latin-9", "UTF-8-BOM", "koi8r"])
def test_other_names_are_those_of_encodings(tmp_path: Path, name: str) -> None:
    source_of(tmp_path / "t.csv", encoding=name)
