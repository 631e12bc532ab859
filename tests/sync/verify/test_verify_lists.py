"""Lists in two systems: equal copies are equal, and one item that changed is found."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.sync.verify.verify_pairs import Places, damage, found_damage, make_pair
from tests.sync.verify.verify_pairs import places as places
from tests.sync.verify.verify_pairs import servers as servers

TEXTS = ["", "null", "it's", 'a "quote"', "back\\slash", "{a,b}", "line\nbreak\t\x1f", "é\U0001f600", None]
MOMENTS = [datetime(2024, 2, 29, 23, 59, 59, 120_000, tzinfo=UTC), datetime(1, 1, 2, tzinfo=UTC), None]

LISTS: dict[str, tuple[pa.DataType, list[Any]]] = {
    "ints": (pa.int64(), [1, -(2**63), 2**63 - 1, None]),
    "bools": (pa.bool_(), [True, False, None]),
    "floats": (pa.float64(), [0.1, -0.0, 1e15, 1e16, 1e23, 5e-324, math.nan, math.inf, -math.inf, None]),
    "reals": (pa.float32(), [0.1, math.nan, None]),
    "decimals": (pa.decimal128(38, 10), [Decimal("12345678901234567890.0000000001"), Decimal("-0.5"), None]),
    "texts": (pa.string(), TEXTS),
    "dates": (pa.date32(), [date(1, 1, 1), date(9999, 12, 31), None]),
    "times": (pa.time64("us"), [time(0), time(23, 59, 59, 999_999), None]),
    "stamps": (pa.timestamp("us"), [moment and moment.replace(tzinfo=None) for moment in MOMENTS]),
    "moments": (pa.timestamp("us", "UTC"), MOMENTS),
    "bytes": (pa.binary(), [b"\0\xff" * 50, b"", None]),
    "uuids": (pa.string(), ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", None]),
}

#: What is not equal any more in each kind of destination: the list of record 3, in this column.
CHANGES = {
    "postgres": {
        "texts": "array_replace(texts, 'null', null)",
        "moments": "array_replace(moments, null, '2024-02-29 23:59:59.12+00')",
        "floats": "array_replace(floats, 0.1, 0.1000000000000001)",
        "decimals": "decimals || null::numeric",
    },
    "mysql": {
        "texts": """replace(texts, '"null"', 'null')""",
        "decimals": "replace(decimals, '0.0000000001', '0.0000000002')",
        "ints": "replace(ints, '1,', '2,')",
    },
}
CHANGES["sqlite"] = CHANGES["mysql"]


def records(*, has_specials: bool) -> pa.RecordBatch:
    columns: dict[str, pa.Array] = {"id": pa.array(range(5), pa.int64())}
    for name, (item, items) in LISTS.items():
        items = [each for each in items if has_specials or not (isinstance(each, float) and not math.isfinite(each))]
        values = [None, [], [None], items, items[::-1]]
        columns[name] = pa.array(values, pa.list_(item))
    schema = pa.schema([pa.field(name, each.type, name != "id") for name, each in columns.items()])
    return pa.RecordBatch.from_pydict(columns, schema=schema)


@pytest.mark.full
@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("destination", ["postgres", "mysql", "sqlite", "parquet", "csv"])
@pytest.mark.parametrize("source", ["duckdb", "parquet", "jsonl"])
def test_lists_are_compared_item_by_item(tmp_path: Path, places: Places, source: str, destination: str) -> None:
    pair = make_pair(tmp_path, places, source, destination, records(has_specials=True))
    pair.write(on_lossy="text")
    pair.run()
    found = pair.verify()
    assert (found.verdict, found.comparison and found.comparison.records, found.notes) == ("equal", [], ())
    for column, value in CHANGES.get(destination, {}).items():
        damage(pair, [f"update {{}} set {column} = {value} where id = 3"], list)
    if destination in CHANGES:
        expected = tuple(name for name in LISTS if name in CHANGES[destination])
        assert found_damage(pair.verify()) == {("3", "different", expected)}


@pytest.mark.one_of("destination")
@pytest.mark.parametrize("destination", ["mysql", "sqlite", "duckdb", "parquet"])
def test_arrays_of_postgres_are_compared_as_the_texts_that_they_were_read_as(
    tmp_path: Path, places: Places, destination: str
) -> None:
    pair = make_pair(tmp_path, places, "postgres", destination, records(has_specials=True))
    pair.run()
    found = pair.verify()
    assert (found.verdict, found.comparison and found.comparison.records, found.notes) == ("equal", [], ())
    if destination != "parquet":
        damage(pair, ["update {} set decimals = replace(decimals, '0.5', '0.6') where id = 3"], list)
        assert found_damage(pair.verify()) == {("3", "different", ("decimals",))}


def test_json_that_is_written_in_another_way_holds_the_same_list(tmp_path: Path, places: Places) -> None:
    pair = make_pair(tmp_path, places, "duckdb", "sqlite", records(has_specials=False))
    pair.run()
    damage(
        pair,
        ["update {} set ints = replace(ints, ',', ', '), decimals = replace(decimals, '-0.5000000000', '-0.5')"],
        list,
    )
    assert pair.verify().verdict == "equal"


def test_lists_that_cannot_be_compared_are_named(tmp_path: Path, places: Places) -> None:
    """JSON is a text among DuckDB's lists."""
    kind = pa.list_(pa.json_())
    documents = pa.array([["{}"]], pa.list_(pa.string())).cast(kind)
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("docs", kind)])
    batch = pa.RecordBatch.from_arrays([pa.array([1], pa.int64()), documents], schema=schema)
    pair = make_pair(tmp_path, places, "parquet", "duckdb", batch)
    pair.run()
    found = pair.verify()
    assert found.verdict == "equal"
    assert found.notes == (f"column 'docs' is not compared: {kind} and JSON[] have no common form",)
