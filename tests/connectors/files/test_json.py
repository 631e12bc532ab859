"""Documents of JSON: an array of records within a document of any size, and what is wrong in one."""

from __future__ import annotations

import gzip
import json
import re
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncblocks.connectors.arrow.record_size import RecordTooWide
from syncblocks.connectors.errors import ConnectorConfigError, FatalConnectorError
from syncblocks.connectors.field_facts import facts_of
from syncblocks.connectors.files.json_document import JSONDocument
from syncblocks.connectors.files.json_elements import MOST_BYTES, demand_size
from syncblocks.connectors.files.json_format import JSONFormat
from syncblocks.connectors.files.json_source import JSONSource
from syncblocks.connectors.files.jsonl_format import _BlockParser
from syncblocks.connectors.files.jsonl_source import JSONLSource
from syncblocks.connectors.files.local import LocalStorage
from syncblocks.connectors.files.paths import DataFile
from syncblocks.connectors.files.settings import JSONSourceSettings
from syncblocks.connectors.files.source import FileSource
from tests.connectors.files.files_pair import only, records_of, source_of, types_of


def document(path: Path, text: Any, **config: Any) -> FileSource:
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return source_of(path, JSONSource, **config)


def test_the_array_at_the_path_is_read_wherever_it_stands(tmp_path: Path) -> None:
    said = {"meta": {"items": [{"x": 1}]}, "data": {"n": 1, "items": [{"a": 1}, {"a": 2, "b": "x"}]}, "z": "]"}
    for indent in (None, 4):
        source = document(tmp_path / "t.json", json.dumps(said, indent=indent), records="data.items")
        assert records_of(source) == [{"a": 1, "b": None}, {"a": 2, "b": "x"}]
        assert source.count(only(source)) == 2
    assert records_of(document(tmp_path / "t.json", [{"a": 1}])) == [{"a": 1}], "the top is the default"
    dotted = document(tmp_path / "t.json", {"a.b": [{"a": 1}]}, records=["a.b"])
    assert records_of(dotted) == [{"a": 1}]


def test_types_are_those_of_json_lines(tmp_path: Path) -> None:
    records = '{"i":1,"f":1.5,"big":99999999999999999999,"o":{"x":[1, 2]},"exact":12345678901234567890.12},{"i":2}'
    (tmp_path / "t.jsonl").write_text(records.replace("},{", "}\n{"))
    lines, source = source_of(tmp_path / "t.jsonl", JSONLSource), document(tmp_path / "t.json", f"[{records}]")
    assert types_of(source) == types_of(lines)
    assert records_of(source) == records_of(lines)
    assert records_of(source)[0]["exact"] == Decimal("12345678901234567890.12")


@pytest.mark.parametrize("levels", [0, 1])
@pytest.mark.parametrize(
    ("odd", "is_odd"),
    [
        ('{"i": 9, "o": {"x": null}, "t": "é\\n", "l": ["\\ud83d\\ude00"], "f": 3, "b": null}', False),
        ('{"\\u0069": 9, "l": {"y": 1}}', None),
        ('{"i": 9, "new": [1]}', True),
        ('{"i": 9, "f": 0.12345678901234567, "i": 8}', False),
        ('{"i": 9, "f": "NaN"}', True),
        ('{"i": 9, "o": "scalar"}', None),
    ],
)
def test_nested_records_are_parsed_a_block_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: str, is_odd: bool | None, levels: int
) -> None:
    usual = '{"i": 1, "f": 1.5, "t": "x", "b": true, "o": {"x": 1}, "l": [1, {"z": "null"}]}'
    (tmp_path / "usual.json").write_text(f"[{usual}]")
    (tmp_path / "t.json").write_text(f"[{usual}, {usual},\n {odd}]")
    storage, made = LocalStorage(tmp_path), JSONFormat(JSONSourceSettings(path="."))
    schema = made.schema([DataFile(storage, "usual.json", levels=levels)], 1)
    singly: list[int] = []
    found = JSONFormat._found

    def counting(self: JSONFormat, file: DataFile, start: int, *rest: Any) -> Any:
        singly.append(start)
        return found(self, file, start, *rest)

    def read() -> list[dict[str, Any]]:
        batches = made.read(DataFile(storage, "t.json", levels=levels), schema, frozenset(schema.names))
        return [record for batch in batches for record in batch.to_pylist()]

    monkeypatch.setattr(JSONFormat, "_found", counting)
    records = read()
    assert bool(singly) is (is_odd if is_odd is not None else levels == 1)
    monkeypatch.setattr(_BlockParser, "batch", lambda parser, block: None)
    assert (repr(records), len(records)) == (repr(read()), 3)  # NaN equals nothing


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("size", [150, 400, 2000])
def test_pieces_of_an_array_are_parsed_into_the_batches_of_its_lines(
    tmp_path: Path, size: int, indent: int | None
) -> None:
    inner = {"x": [1, {"y": "},{"}, {"z": None}], "e": 1e-300}
    records = [
        {"i": n, "f": n / 7, "t": 'x"},{"i": 1' if n % 3 else None, "o": inner if n % 5 else None, "l": [[], {}, "}"]}
        for n in range(60)
    ]
    text = json.dumps(records, indent=indent, separators=(",", ": " if indent else ":"))
    (tmp_path / "t.json").write_text(text)
    made, file = JSONFormat(JSONSourceSettings(path=".")), DataFile(LocalStorage(tmp_path), "t.json")
    schema = made.schema([file], 1 << 20)
    parser = _BlockParser(made, file)
    parser.use(schema, frozenset(schema.names))
    chunks = (text[at : at + size].encode() for at in range(0, len(text), size))
    found: list[dict[str, Any]] = []
    wholes = 0
    for place, block in JSONDocument(chunks, "t.json", [], 1 << 20, parser.array).blocks():
        wholes += isinstance(block, pa.RecordBatch)
        batch = block if isinstance(block, pa.RecordBatch) else parser.batch(block)
        assert batch is not None
        assert place == len(found)
        found += batch.to_pylist()
    assert wholes
    assert found == [
        record for batch in made.read(file, schema, frozenset(schema.names)) for record in batch.to_pylist()
    ]
    assert [json.loads(record["o"]) if record["o"] else None for record in found] == [each["o"] for each in records]


def test_times_among_objects_are_read_as_their_format_says(tmp_path: Path) -> None:
    said = [{"d": "2024-01-02", "o": {"x": 1}}, {"d": "2024-03-04", "o": {"x": 2}}]
    source = document(tmp_path / "t.json", said, formats={"d": "%Y-%d-%m"})
    assert [str(record["d"])[:10] for record in records_of(source)] == ["2024-02-01", "2024-04-03"]


def test_texts_among_objects_take_other_values_as_they_are_written(tmp_path: Path) -> None:
    text = '[{"t": "x", "o": {}}, {"t": 1.50, "o": {}}, {"t": {"a":  1}, "o": {}}, {"t": null, "o": {}}]'
    source = document(tmp_path / "t.json", text, types={"t": "string"})
    assert [record["t"] for record in records_of(source)] == ["x", "1.50", '{"a":  1}', None]


def test_texts_of_one_file_are_not_forgotten_for_a_nan_in_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    folder.mkdir()
    for number, text in enumerate(('[{"n": "x"}, {"n": 1.5}]', '[{"n": "NaN"}]')):
        (folder / f"{number}.json").write_text(text)
    assert [record["n"] for record in records_of(source_of(tmp_path, JSONSource))] == ['"x"', "1.5", '"NaN"']


def test_an_empty_array_is_no_records_and_an_object_is_one(tmp_path: Path) -> None:
    assert records_of(document(tmp_path / "t.json", '{"data": [ ]}', records="data")) == []
    assert records_of(document(tmp_path / "t.json", '{"data": {"a": 1,\n "b": "x"}}', records="data")) == [
        {"a": 1, "b": "x"}
    ]
    stream = only(document(tmp_path / "t.json", {"page": 1, "data": [{"a": 1}]}))
    assert "`records: data`" in facts_of(stream.schema.field("data")).notice
    assert not facts_of(stream.schema.field("page")).notice


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"data": {"rows": []}}', "data has no 'items', but 'rows'"),
        ('{"date": []}', "its top has no 'data', but 'date'"),
        ('{"data": [{"items": []}]}', "data is an array, and has no 'items'"),
        ('{"data": {"items": null}}', "data.items is null, not an array or an object"),
        ('{"data": {"items": "x"}}', "data.items is 'x', not an array"),
        ('{"data": {"items": [], "items": []}}', "data.items is there twice"),
        ('{"data": {"items": [{"a": 1}, 5, {"a": 2}]}}', "data.items[1] is '5', not an object"),
        ('{"data": {"items": ["x, y"]}}', "data.items[0] is "),
        ('{"data": {"items": [{"a": 1}, [{"a": 1}]]}}', "data.items[1] is an array, not an object"),
        ('{"data": {"items": [{"a": 1},]}}', "byte 30: expected an object after the comma"),
        ('{"data": {"items": [{"a": 1} {"a": 2}]}}', "byte 30"),
        ('{"data": {"items": [{"a": 1},,{"a": 2}]}}', "byte 30"),
        ('{"data": {"items": [{"a": 1}', "data.items[0]: broken JSON: the document ends before its last bracket"),
        ('{"data": {"items": [{"a": 1}, {"a": "x', "data.items[1]: broken JSON:"),
        ('{"data": {"items": [{"a": 1}]', "the document ends"),
        ('{"data": {"items": [{"a": 1}]}}\n{"data": 1}', "another document follows; `connector: jsonl`"),
        ('{"data": {"items": [{"a": 1}, {"a": 2 "b": 3}]}}', "data.items[1]: broken JSON: "),
        ('{"data": {"items": [{"a": 1}, {"a": [2}]}}', "broken JSON"),
        ('{"data": {"items": [{"a": "x}, {"a": "y"}]}}', "broken JSON"),
        ('{"data": {"items": [{"a": "x\ny"}]}}', "data.items[0]: broken JSON: invalid character (byte "),
        ('{"meta": tru, "data": {"items": []}}', "'tru' is no value"),
        ('{"meta": {"a": [1}, "data": {"items": []}}', "broken JSON"),
        ('{\n "data": {"items": []},\n x: 1}', "line 3, byte 2"),
        ("", "is empty, so not a JSON document"),
    ],
)
def test_what_is_wrong_in_a_document_fails_with_place_and_reason(tmp_path: Path, text: str, words: str) -> None:
    source = document(tmp_path / "t.json", text, records="data.items")
    with pytest.raises(FatalConnectorError, match=re.escape(words)) as caught:
        list(records_of(source))
    assert "t.json" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ('{"x": [{"a": 1}', "x[0]: broken JSON: the document ends before its last bracket"),
        ('{"a": "x', "byte 7: the document ends within the text that begins here"),
        ('{"a": [1', "byte 9: the document ends before its last bracket"),
        ('{"x": [{"a": 1}, {"a": 2]', "x[1]: broken JSON: "),
    ],
)
def test_a_document_that_was_cut_off_is_said_to_end_once(tmp_path: Path, text: str, end: str) -> None:
    with pytest.raises(FatalConnectorError) as caught:
        list(records_of(document(tmp_path / "t.json", text, records="x")))
    assert end in str(caught.value)
    assert str(caught.value).count("the document ends") == 1, caught.value


@pytest.mark.parametrize("kind", [JSONSource, JSONLSource])
@pytest.mark.parametrize("half", ["\\ud83d", "\\ude00", "\\ud83dx", "\\ud83d\\ud83d"])
def test_half_a_surrogate_pair_is_told_as_such(tmp_path: Path, kind: type[FileSource], half: str) -> None:
    (tmp_path / "t.json").write_text(f'{{"a": "{half}"}}\n')
    with pytest.raises(FatalConnectorError, match="a text contains half a surrogate pair"):
        records_of(source_of(tmp_path / "t.json", kind))


def test_a_record_that_no_column_of_texts_holds_is_told_whatever_the_memory() -> None:
    demand_size(MOST_BYTES, sys.maxsize, "a.json: [3]")
    with pytest.raises(FatalConnectorError, match=re.escape("a.json: [3]: a record is longer than 2 GB")):
        demand_size(MOST_BYTES + 1, sys.maxsize, "a.json: [3]")
    with pytest.raises(RecordTooWide):
        demand_size(MOST_BYTES + 1, 64_000_000, "a.json: [3]")


def test_a_broken_document_that_is_one_record_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(FatalConnectorError, match=r"t\.json: broken JSON: expected ':'"):
        records_of(document(tmp_path / "t.json", '{"a" 1}'))


def test_a_value_that_does_not_fit_is_told_with_its_place_in_the_array(tmp_path: Path) -> None:
    source = document(tmp_path / "t.json", {"data": [{"a": 1}]}, records="data")
    stream = only(source)
    document(tmp_path / "t.json", {"data": [{"a": 1}, {"a": "x"}]}, records="data")
    with pytest.raises(FatalConnectorError, match=re.escape("t.json: data[1]: column 'a': '\"x\"' is no int64")):
        records_of(source, stream)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab"\\[]{},:\n\u00e9 '),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"\\[{', max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.full
@settings(max_examples=80, deadline=None)
@given(
    records=st.lists(st.dictionaries(st.text('a"\\[{', max_size=3), _VALUES, max_size=3), max_size=6),
    beside=_VALUES,
    size=st.integers(1, 40),
    indent=st.sampled_from([None, 1]),
    is_ascii=st.booleans(),
)
def test_every_chunk_may_end_anywhere(
    records: list[Any], beside: Any, size: int, indent: int | None, is_ascii: bool
) -> None:
    said = {"before": beside, "data": {"b": beside, "items": records, "c": beside}, "after": beside}
    text = json.dumps(said, indent=indent, ensure_ascii=is_ascii).encode()
    chunks = iter([text[at : at + size] for at in range(0, len(text), size)])
    found, expected = [], 0
    for place, block in JSONDocument(chunks, "t.json", ["data", "items"], 1 << 20).blocks():
        assert place == expected
        lines = [line for line in bytes(block).split(b"\n") if line.strip()]
        expected += len(lines)
        found += [json.loads(line) for line in lines]
    assert found == records


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(1, 20),
    at=st.integers(0, 200),
    put=st.sampled_from([b"", *(b"%c" % each for each in b'"\\[]{},:x ')]),
)
def test_damage_is_an_error_or_harmless(size: int, at: int, put: bytes) -> None:
    text = json.dumps(
        {"m": [{"k": "v"}, 1], "d": [{"a": 'x"y'}, {"b": [1, {"c": "]"}]}, {"a": "z"}], "e": None}
    ).encode()
    at %= len(text)
    damaged = text[:at] + put + text[at + 1 :]
    chunks = iter([damaged[place : place + size] for place in range(0, len(damaged), size)])
    try:
        expected = json.loads(damaged)
    except ValueError:
        expected = None
    try:
        blocks = list(JSONDocument(chunks, "t.json", ["d"], 1 << 20).blocks())
        found = [json.loads(line) for _, block in blocks for line in bytes(block).split(b"\n") if line.strip()]
    except (FatalConnectorError, ValueError):
        return
    if expected is not None:
        assert found == expected["d"]
    else:  # what is beside the records is not looked at closely
        assert found == json.loads(text)["d"]


@pytest.mark.full
def test_a_document_may_be_packed_and_a_record_may_not_be_larger_than_memory(tmp_path: Path) -> None:
    text = json.dumps([{"id": number, "doc": "x" * size} for number, size in enumerate((1, 9 << 20, 1, 20 << 20, 1))])
    (tmp_path / "docs.json.gz").write_bytes(gzip.compress(text.encode(), 1))
    source = source_of(tmp_path / "docs.json.gz", JSONSource)
    assert [len(record["doc"]) for record in records_of(source)] == [1, 9 << 20, 1, 20 << 20, 1]
    source.limit_record(10 << 20)
    with pytest.raises(RecordTooWide, match=r"docs\.json\.gz: \[3\]: a record is larger than `memory`, 10 MB"):
        records_of(source)


def test_other_connectors_name_this_one(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"a": 1}]')
    with pytest.raises(ConnectorConfigError, match="`connector: json` reads documents of JSON"):
        source_of(tmp_path, JSONLSource).discover()
    with pytest.raises(FatalConnectorError, match="`connector: json` reads a document"):
        source_of(tmp_path / "a.json", JSONLSource).discover()


@pytest.mark.parametrize("lines", ['null\n{"a": 1}\n', '{"a": 1}\n null\n', 'null {"a": 1}\n'])
def test_a_line_of_null_is_no_record_of_json_lines(tmp_path: Path, lines: str) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n')
    source = source_of(tmp_path / "t.jsonl", JSONLSource)
    stream = only(source)
    (tmp_path / "t.jsonl").write_text(lines)
    with pytest.raises(FatalConnectorError, match="not a JSON object"):
        records_of(source, stream)


def test_new_columns_come_as_in_json_lines(tmp_path: Path) -> None:
    source = document(tmp_path / "t.json", [{"a": 1}])
    stream = only(source)
    document(tmp_path / "t.json", [{"a": 1}, {"a": 2, "n": 7}])
    schemas = [event.schema for _, event in source.read([stream], {}) if isinstance(event, pa.RecordBatch)]
    assert schemas[-1].names == ["a", "n"]


@pytest.mark.parametrize("text", ['[{"":' * 50_000, "[[" * 50_000, '[{"a":' + "[" * 50_000 + "]" * 50_000 + "}, 1]"])
def test_values_that_are_nested_too_deeply_are_an_error_with_their_place(tmp_path: Path, text: str) -> None:
    with pytest.raises((ConnectorConfigError, FatalConnectorError), match=r"t\.json"):
        records_of(document(tmp_path / "t.json", text))
