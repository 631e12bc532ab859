"""Objects as columns: in JSON lines, documents of JSON and Parquet files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from syncblocks.connectors.errors import ConnectorConfigError, FatalConnectorError
from syncblocks.connectors.files import jsonl_format
from syncblocks.connectors.files.json_source import JSONSource
from syncblocks.connectors.files.jsonl_source import JSONLSource
from syncblocks.connectors.files.parquet_source import ParquetSource
from syncblocks.connectors.files.source import ObjectSource
from syncblocks.connectors.struct_helpers import replace
from tests.connectors.files.files_pair import only, records_of

NESTED = [
    {"id": 1, "a": {"b": 1, "c": {"d": "x"}, "l": [{"e": 1}]}},
    {"id": 2, "a": None},
    {"id": 3, "a": {"c": {"d": "y"}}},
    {"id": 4},
]


def source(path: Path, records: Sequence[Any], levels: int, **config: Any) -> ObjectSource:
    kind: type[ObjectSource] = {".json": JSONSource, ".jsonl": JSONLSource, ".parquet": ParquetSource}[path.suffix]
    if path.suffix == ".json":
        path.write_text(json.dumps(records))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        pyarrow.parquet.write_table(pa.Table.from_pylist(list(records)), path)
    made = kind({"path": str(path), **config}, path.parent)
    made.flatten(lambda _: levels)
    return made


@pytest.mark.parametrize("end", ["json", "jsonl", "parquet"])
def test_objects_are_columns_down_to_a_level(tmp_path: Path, end: str) -> None:
    found = records_of(source(tmp_path / f"t.{end}", NESTED, 2))
    listed = "a__l"
    arrays = [record.pop(listed) for record in found]
    assert arrays[0] == ('[{"e": 1}]' if end != "parquet" else [{"e": 1}])
    assert arrays[1:] == [None] * 3
    assert found == [
        {"id": 1, "a__b": 1, "a__c__d": "x"},
        {"id": 2, "a__b": None, "a__c__d": None},
        {"id": 3, "a__b": None, "a__c__d": "y"},
        {"id": 4, "a__b": None, "a__c__d": None},
    ]
    one = records_of(source(tmp_path / f"t.{end}", NESTED, 1))
    assert one[0]["a__c"] == ('{"d": "x"}' if end != "parquet" else {"d": "x"})
    assert set(records_of(source(tmp_path / f"t.{end}", NESTED, 0))[0]) == {"id", "a"}


def test_blocks_of_flat_objects_are_parsed_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [{"id": number, "a": {"b": number / 2, "c": {"d": "x"}} if number % 3 else None} for number in range(9)]
    made = source(tmp_path / "t.jsonl", records, 2)
    stream = only(made)
    monkeypatch.setattr(jsonl_format, "_lines", lambda *_: pytest.fail("record by record"))
    found = records_of(made, stream)
    assert found[1] == {"id": 1, "a__b": 0.5, "a__c__d": "x"}
    assert found[3] == {"id": 3, "a__b": None, "a__c__d": None}
    # Columns that are left out are parsed, too.
    fewer = replace(stream, schema=pa.schema([field for field in stream.schema if field.name != "a__b"]))
    assert records_of(made, fewer)[1] == {"id": 1, "a__c__d": "x"}


def test_a_scalar_where_others_have_an_object_stays_in_the_parents_column(tmp_path: Path) -> None:
    records = [{"a": {"b": 1}}, {"a": 5}, {"a": [1]}, {"a": {"b": 2}}]
    assert records_of(source(tmp_path / "t.jsonl", records, 1)) == [
        {"a": None, "a__b": 1},
        {"a": "5", "a__b": None},
        {"a": "[1]", "a__b": None},
        {"a": None, "a__b": 2},
    ]


def test_a_name_that_comes_while_it_is_read_is_a_new_column(tmp_path: Path) -> None:
    made = source(tmp_path / "t.jsonl", [{"a": {"b": 1}}], 1)
    stream = only(made)
    source(tmp_path / "t.jsonl", [{"a": {"b": 1}}, {"a": {"b": 2, "n": "x"}}, {"a": None}], 1)
    assert records_of(made, stream) == [
        {"a__b": 1, "a__n": None},
        {"a__b": 2, "a__n": "x"},
        {"a__b": None, "a__n": None},
    ]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    for end in ("json", "jsonl", "parquet"):
        records = [{"a": {"b": 1}, "a__b": 2}]
        with pytest.raises(ConnectorConfigError, match=r"two columns the name 'a__b': .*\"a\"\.\"b\".*`nested: text`"):
            source(tmp_path / f"t.{end}", records, 1).discover()
    made = source(tmp_path / "u.jsonl", [{"a": {"b": 1}}], 1)
    stream = only(made)
    for later in ([{"a": {"b": 1}, "a__b": 2}], [{"a": {"b": 1}}, {"a__b": 2}]):
        source(tmp_path / "u.jsonl", later, 1)
        with pytest.raises(FatalConnectorError, match="two columns the name 'a__b'"):
            records_of(made, stream)


def test_types_are_said_of_flat_columns(tmp_path: Path) -> None:
    made = source(tmp_path / "t.jsonl", [{"a": {"b": 1.5}}, {"a": {"b": 2}}], 1, types={"a__b": "decimal(9,2)"})
    assert [str(record["a__b"]) for record in records_of(made)] == ["1.50", "2.00"]
    exact = source(tmp_path / "t.jsonl", [{"a": {"b": 1.25}}], 1, numbers="exact")
    assert str(records_of(exact)[0]["a__b"]) == "1.25"
