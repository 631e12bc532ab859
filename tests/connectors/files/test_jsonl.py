"""JSON lines: types out of all keys and values, numbers as they are written, and what is wrong in a line."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.arrow.record_size import RecordTooWide
from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.files.jsonl_source import JSONLSource
from syncblocks.connectors.files.source import FileSource
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.struct_helpers import replace
from tests.connectors.files.files_pair import only, records_of, source_of, types_of


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
        ('{"a": "x"}', ["t.jsonl:4", "'a'", "`types: {a: string}` in this stream"]),
        ('{"a": 1.5}', ["t.jsonl:4", "'a'", "1.5"]),
        ('{"a": true}', ["t.jsonl:4", "'a'"]),
        ('{"a": 9223372036854775808}', ["t.jsonl:4", "'a'"]),
        ('{"a": 1', ["t.jsonl:4"]),
        ("[1]", ["t.jsonl:4", "not a JSON object"]),
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


@pytest.mark.parametrize(
    "text",
    [
        '{"id": 1, "o": {}}\n{"id": 2, "o": {}}{"id": 3, "o": {}}\n',
        '\n{"id": 1, "o": {}}{"id": 2, "o": {}}',
        '{"id": 1, "o": {}}\n{"id": 2,\n"o": {}}\n',
        '{"id": 1, "o": {}\n}{"id": 2, "o": {}}\n',
    ],
)
def test_each_record_has_a_line_of_its_own_beside_objects_too(tmp_path: Path, text: str) -> None:
    source = jsonl(tmp_path / "t.jsonl", {"id": 1, "o": {}})
    stream = only(source)
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(FatalConnectorError, match=r"t\.jsonl:[12]: not a JSON object"):
        records_of(source, stream)


def test_floats_beside_objects_keep_their_digits_or_are_refused(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "t.jsonl", {"f": 0.5, "o": {}})
    stream = only(source)
    good = ["0.5", "1", "-0", "-0.0", "1e5", "null", "1.50000000000000000000", "1.4142135623730951"]
    jsonl(tmp_path / "t.jsonl", *(f'{{"f": {each}, "o": {{}}}}\n' for each in good), {"o": {}})
    found = [record["f"] for record in records_of(source, stream)]
    assert [str(each) for each in found] == [
        *["0.5", "1.0", "0.0", "-0.0", "100000.0", "None", "1.5", "1.4142135623730951", "None"]
    ]
    for bad in ("0.12345678901234567891", "9007199254740993", "1e400", "1e-400", '"x"'):
        jsonl(tmp_path / "t.jsonl", {"f": 1.5, "o": {}}, f'{{"f": {bad}, "o": {{}}}}\n')
        with pytest.raises(FatalConnectorError, match=r"t\.jsonl:2: "):
            records_of(source, stream)


def test_json_numbers_that_no_type_holds_stay_as_they_are_written(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "t.jsonl", f'{{"n": {"9" * 39}, "f": 1e400}}\n', {"n": 5, "f": 0.5})
    assert {str(kind) for kind in types_of(source).values()} == {"extension<arrow.json>"}
    assert records_of(source) == [{"n": "9" * 39, "f": "1e400"}, {"n": "5", "f": "0.5"}]


def test_a_json_column_that_is_said_to_be_text_takes_every_value_as_text(tmp_path: Path) -> None:
    lines = '{"v": 1.50}\n{"v": "x"}\n{"v": true}\n{"v": {"a":  1}}\n{"v": null}\n{}\n{"v": "1.50"}\n'
    (tmp_path / "t.jsonl").write_text(lines)
    source = source_of(tmp_path / "t.jsonl", JSONLSource, types={"v": "string"})
    assert [record["v"] for record in records_of(source)] == ["1.50", "x", "true", '{"a":  1}', None, None, "1.50"]


def test_texts_of_numbers_and_booleans_are_values_of_the_types_that_are_said(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"n": "5", "d": "1.50", "b": "true"}\n{"n": 6.0, "d": 2, "b": false}\n')
    said = {"n": "bigint", "d": "decimal(6,2)", "b": "bool"}
    source = source_of(tmp_path / "t.jsonl", JSONLSource, types=said)
    assert [tuple(record.values()) for record in records_of(source)] == [
        (5, Decimal("1.50"), True),
        (6, Decimal("2.00"), False),
    ]
    for line in ('{"n": "05"}', '{"n": "5.5"}', '{"n": ""}', '{"n": true}', '{"b": "yes"}', '{"b": 1}'):
        (tmp_path / "t.jsonl").write_text(f"{line}\n")
        kept = {name: kind for name, kind in said.items() if f'"{name}"' in line}
        with pytest.raises(FatalConnectorError, match=r"t\.jsonl:1: column"):
            records_of(source_of(tmp_path / "t.jsonl", JSONLSource, types=kept))


@pytest.mark.full
def test_a_json_line_larger_than_memory_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    lines = [json.dumps({"id": number, "doc": "x" * size}) for number, size in enumerate((1, 9 << 20, 1, 20 << 20, 1))]
    path.write_text("\n".join(lines))
    source = source_of(path, JSONLSource)
    assert [len(record["doc"]) for record in records_of(source)] == [1, 9 << 20, 1, 20 << 20, 1]
    source.limit_record(10 << 20)
    with pytest.raises(RecordTooWide, match=r"docs\.jsonl:4: a record is larger than `memory`, 10 MB"):
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


@pytest.mark.full
def test_more_columns_than_a_stream_may_have_are_refused(tmp_path: Path) -> None:
    keys = json.dumps({f"k{number}": 1 for number in range(20_000)})
    (tmp_path / "first.jsonl").write_text(keys + "\n")
    with pytest.raises(FatalConnectorError, match=r"first\.jsonl: more than 10,000 columns; `config\.max_columns`"):
        source_of(tmp_path / "first.jsonl", JSONLSource).discover()
    path = tmp_path / "later.jsonl"
    path.write_text('{"id": 1}\n')
    source = source_of(path, JSONLSource)
    stream = only(source)
    path.write_text("".join(f'{{"k{number}": 1}}\n' for number in range(10_500)))
    with pytest.raises(FatalConnectorError, match="more than 10,000 columns"):
        list(source.read([stream], {}))


@pytest.mark.full
def test_many_new_columns_make_batches_of_few_records(tmp_path: Path) -> None:
    path = tmp_path / "wide.jsonl"
    path.write_text('{"id": 1}\n')
    source = source_of(path, JSONLSource)
    stream = only(source)
    path.write_text("".join(f'{{"k{number % 1500}": 1}}\n' for number in range(4500)))
    batches = [event for _, event in source.read([stream], {}) if isinstance(event, pa.RecordBatch)]
    assert sum(batch.num_rows for batch in batches) == 4500
    assert max(batch.num_rows * batch.num_columns for batch in batches) <= 4 << 20


@pytest.mark.parametrize("other", [b'"x"', b"2", b"[1]"])
def test_a_line_that_is_no_utf_8_is_no_record(other: bytes, tmp_path: Path) -> None:
    """Arrow's parser takes any bytes for a text, and destinations would be blamed for them."""
    (tmp_path / "t.jsonl").write_bytes(
        b'{"id": 1, "v": %b}\n{"id": 2, "v": "caf\xe9"}\n{"id": 3, "v": "\xc3\xa9"}\n' % other
    )
    for types in ({}, {"v": "string"}):
        with pytest.raises(FatalConnectorError, match=r"t\.jsonl:2: not a JSON object in UTF-8"):
            records_of(source_of(tmp_path / "t.jsonl", JSONLSource, types=types))
