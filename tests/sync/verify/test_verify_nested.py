"""What is nested, and JSON, in two systems: equal copies are equal, and what changed deep inside is found."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pytest
import yaml

from syncblocks.connectors.mysql.source import MySQLSource
from tests.sync.verify.verify_pairs import Pair, Places, damage, found_damage, make_pair
from tests.sync.verify.verify_pairs import places as places
from tests.sync.verify.verify_pairs import servers as servers

TEXTS = ["", "null", "it's", 'a "quote"', "back\\slash", "{a,b}", "line\nbreak\t\x1f", "é\U0001f600", None]
MOMENT = datetime(2024, 2, 29, 23, 59, 59, 120_000, tzinfo=UTC)
INNER = pa.struct([("bb", pa.list_(pa.float64())), ("a", pa.string()), ("at", pa.timestamp("us", "UTC"))])

#: Type, and the values of records 0 to 5: NULL, an empty list, a list of NULL, and more.
NESTED: dict[str, tuple[pa.DataType, list[Any]]] = {
    "ints": (pa.list_(pa.list_(pa.int64())), [None, [], [None], [[]], [[None], [1, 2]], [[1, 2], [None]]]),
    "texts": (pa.list_(pa.list_(pa.string())), [None, [], [None], [[]], [TEXTS, ["a"]], [[]]]),
    "deep": (
        pa.list_(pa.list_(pa.list_(pa.float64()))),
        [None, [], [[]], [[[]]], [[[0.1, 1e23, -2.5e-9, 1e16]]], [[None]]],
    ),
    "pairs": (
        pa.list_(pa.struct([("x", pa.decimal128(30, 10)), ("y", pa.int32())])),
        [None, [], [None], [{"x": None, "y": None}], [{"x": Decimal("12345678901234567890.5"), "y": 1}], []],
    ),
    "object": (
        INNER,
        [
            None,
            *({"a": "x", "bb": b, "at": MOMENT} for b in ([], None, [None], [0.5, 2.0])),
            {"a": None, "bb": None, "at": None},
        ],
    ),
    "counts": (pa.map_(pa.string(), pa.int64()), [None, [], [("k", None)], [("k", 1)], [("k", 1), ("a", 2)], []]),
}  # fmt: skip

#: What is another value in record 4, in each kind of destination.
CHANGES = {
    "mysql": {
        "ints": "replace(ints, '[null]', '[]')",
        "texts": """replace(texts, '"null"', 'null')""",
        "deep": "replace(deep, '0.1', '0.1000000000000001')",
        "pairs": "replace(pairs, '7890.5', '7890.6')",
        "object": "replace(object, '0.5,2.0', '2.0,0.5')",
        "counts": """replace(counts, '["k",1]', '["k","1"]')""",
    },
    "postgres": {
        "ints": "jsonb_set(ints, '{0,0}', '[]')",
        "texts": "jsonb_set(texts, '{0,1}', 'null')",
        "deep": "jsonb_set(deep, '{0,0,0}', '0.1000000000000001')",
        "pairs": "jsonb_set(pairs, '{0,y}', 'true')",
        "object": "object - 'bb'",
        "counts": "counts || '[[\"b\",3]]'",
    },
}
CHANGES["sqlite"] = CHANGES["mysql"]

#: What is not another value, though it is written otherwise.
REWRITTEN = {
    "mysql": ["ints = replace(ints, ',', ' , ')", "pairs = replace(pairs, '.5000000000', '.5')"],
    "postgres": ["""pairs = jsonb_set(pairs, '{{0,x}}', '12345678901234567890.50') where id = 4"""],
}
REWRITTEN["sqlite"] = REWRITTEN["mysql"]


def records() -> pa.RecordBatch:
    columns = {"id": pa.array(range(6), pa.int64())}
    columns |= {name: pa.array(values, kind) for name, (kind, values) in NESTED.items()}
    return pa.RecordBatch.from_pydict(
        columns, schema=pa.schema([pa.field(name, each.type, name != "id") for name, each in columns.items()])
    )


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("destination", ["postgres", "mysql", "sqlite", "duckdb", "parquet", "csv", "jsonl"])
@pytest.mark.parametrize("source", ["duckdb", "parquet", "jsonl"])
def test_what_is_nested_is_compared_to_its_depth(tmp_path: Path, places: Places, source: str, destination: str) -> None:
    pair = make_pair(tmp_path, places, source, destination, records())
    pair.run()
    found = pair.verify()
    assert (found.verdict, found.comparison and found.comparison.records, found.notes) == ("equal", [], ())
    # Checksums alone find nothing to look at.
    assert found.comparison is not None
    assert found.comparison.source == found.comparison.destination
    if destination not in CHANGES:
        return
    for change in REWRITTEN[destination]:
        damage(pair, [f"update {{0}} set {change}"], list)
    assert pair.verify().verdict == "equal"
    for column, value in CHANGES[destination].items():
        value = value.replace("{", "{{").replace("}", "}}")
        damage(pair, [f"update {{0}} set {column} = {value} where id = 4"], list)
    assert found_damage(pair.verify()) == {("4", "different", tuple(NESTED))}


@pytest.mark.one_of
@pytest.mark.thinned(1)
@pytest.mark.parametrize("destination", ["postgres", "sqlite", "mysql"])
@pytest.mark.parametrize("column", NESTED)
def test_null_an_empty_list_and_a_list_of_null_are_three_things(
    tmp_path: Path, places: Places, column: str, destination: str
) -> None:
    pair = make_pair(tmp_path, places, "parquet", destination, records().select(["id", column]))
    pair.run()
    for changed, other in ((0, 1), (1, 2), (2, 3)):
        value = f"(select v from (select {column} as v from {{0}} where id = {other}) as x)"
        damage(pair, [f"update {{0}} set {column} = {value} where id = {changed}"], list)
    assert found_damage(pair.verify()) == {(key, "different", (column,)) for key in ("0", "1", "2")}


DOCUMENTS = [
    None,
    "null",
    "[]",
    '{"b": 1,  "aa": [1.50, 1e3], "a": {"z": null, "b": true}}',
    '{"é\\u0001": "\\ud83d\\ude00\\"\\\\/"}',
    "[[], {}, 0.1, -0.0, 12345678901234567890.123456789]",
    '{"a": 1, "b": 2, "a": 3}',
    '"text"',
    "17",
]


def documents() -> pa.RecordBatch:
    kind = pa.json_()
    values = kind.wrap_array(pa.array(DOCUMENTS, pa.string()))
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("doc", kind)])
    return pa.RecordBatch.from_arrays([pa.array(range(len(DOCUMENTS)), pa.int64()), values], schema=schema)


@pytest.mark.full
@pytest.mark.one_of("source")
@pytest.mark.parametrize("source", ["mysql", "sqlite", "duckdb", "parquet", "csv", "jsonl"])
def test_json_is_compared_with_what_jsonb_makes_of_it(tmp_path: Path, places: Places, source: str) -> None:
    pair = make_pair(tmp_path, places, source, "postgres", documents(), write_disposition="merge")
    pair.run()
    with psycopg.connect(places.destination["postgres"]["url"], autocommit=True) as connection:
        connection.execute(f"truncate {pair.table}")
        connection.execute(f"alter table {pair.table} alter column doc type jsonb using doc::jsonb")
    pair.run()
    found = pair.verify()
    assert (found.verdict, found.comparison and found.comparison.records, found.notes) == ("equal", [], ())
    # As good as it was: jsonb takes it for the same.
    damage(pair, ["update {0} set doc = jsonb_set(doc, '{{aa,0}}', '1.5') where id = 3"], list)
    assert pair.verify().verdict == "equal"
    damage(pair, ["update {0} set doc = jsonb_set(doc, '{{aa,1}}', '1000.0001') where id = 3"], list)
    damage(pair, ["update {0} set doc = jsonb_set(doc, '{{2}}', '\"0.1\"') where id = 5"], list)
    damage(pair, ["update {0} set doc = '{{}}' where id = 2"], list)
    assert found_damage(pair.verify()) == {(key, "different", ("doc",)) for key in ("2", "3", "5")}
    pair.repair()
    assert pair.verify().verdict == "equal"


@pytest.mark.one_of("source")
@pytest.mark.parametrize("source", ["parquet", "duckdb", "mysql", "postgres"])
def test_json_that_the_destination_writes_anew_is_compared_by_what_it_says(
    tmp_path: Path, places: Places, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MariaDB stands for MySQL: it is told to write its JSON anew, as that does by itself."""
    documents = ["null", "[]", '{"b": 1,  "aa": [1.5, 1e3], "a": {"z": null, "b": true}}', '"te\\"xt"', None]
    kind = pa.json_()
    nested = pa.list_(pa.struct([("b", pa.float64()), ("a", pa.string())]))
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("doc", kind), ("l", nested)])
    arrays = [
        pa.array(range(5), pa.int64()),
        kind.wrap_array(pa.array(documents, pa.string())),
        pa.array([[{"b": 0.5, "a": "x"}, None], [], [None], None, [{"b": 100.0, "a": None}]], nested),
    ]
    pair = make_pair(tmp_path, places, source, "mysql", pa.RecordBatch.from_arrays(arrays, schema=schema))
    pair.run()
    keeps = itertools.cycle([True, False] if source == "mysql" else [False])  # the source, and the destination
    monkeypatch.setattr(MySQLSource, "keeps_json", lambda _: next(keeps))
    damage(pair, [f"update {{0}} set {name} = json_loose(json_normalize({name}))" for name in ("doc", "l")], list)
    found = pair.verify()
    assert (found.verdict, found.comparison and found.comparison.records, found.notes) == ("equal", [], ())
    assert found.comparison is not None
    assert found.comparison.source == found.comparison.destination
    damage(pair, ["update {0} set doc = replace(doc, 'true', '1') where id = 2"], list)
    damage(pair, ["update {0} set l = '[{{\"a\": null}}]' where id = 4"], list)
    assert found_damage(pair.verify()) == {("2", "different", ("doc",)), ("4", "different", ("l",))}


def test_json_without_a_key_is_compared_by_one_checksum(tmp_path: Path, places: Places) -> None:
    pair = make_pair(tmp_path, places, "jsonl", "postgres", documents())
    pair.write(key_properties=[])
    pair.run()
    assert pair.verify().verdict == "equal"
    damage(pair, ["update {0} set doc = '\"Text\"' where id = 7"], list)
    assert pair.verify().verdict == "differs"


FINE = {
    "at": (pa.timestamp("ns"), [1_700_000_000_123_456_789, 0, None]),
    "zoned": (pa.timestamp("ns", "UTC"), [1_700_000_000_123_456_789, -1, None]),
    "time": (pa.time64("ns"), [1, 86_399_999_999_999, None]),
    "times": (pa.list_(pa.timestamp("ns")), [[1, None], [], None]),
}


@pytest.mark.one_of("destination")
@pytest.mark.parametrize("destination", ["postgres", "mysql", "sqlite", "parquet", "csv", "jsonl"])
def test_lists_of_json_are_compared(tmp_path: Path, places: Places, destination: str) -> None:
    items = pa.list_(pa.json_())
    documents = ['{"a":{"b":[1.50,1e3,null]}}', "true", '"te\\"xt"', "12345678901234567890.123", None]
    values = pa.array([documents, [], [None], None], pa.list_(pa.string())).cast(items)
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("docs", items)])
    batch = pa.RecordBatch.from_arrays([pa.array(range(4), pa.int64()), values], schema=schema)
    pair = make_pair(tmp_path, places, "parquet", destination, batch)
    pair.run()
    found = pair.verify()
    assert (found.verdict, found.comparison and found.comparison.records, found.notes) == ("equal", [], ())
    if destination in ("mysql", "sqlite"):
        damage(pair, ["update {0} set docs = replace(docs, '1.50', '1.51') where id = 0"], list)
        assert found_damage(pair.verify()) == {("0", "different", ("docs",))}


@pytest.mark.full
@pytest.mark.one_of("destination")
@pytest.mark.parametrize(
    ("source", "destination"),
    [("parquet", "postgres"), ("parquet", "mysql"), ("parquet", "duckdb"), ("duckdb", "postgres")],
)
def test_what_went_over_as_text_is_compared_by_that(
    tmp_path: Path, places: Places, source: str, destination: str
) -> None:
    names = [name for name in FINE if source == "parquet" or name in ("at", "times")]
    columns = {"id": pa.array(range(3), pa.int64()), **{name: pa.array(FINE[name][1], FINE[name][0]) for name in names}}
    schema = pa.schema([pa.field(name, each.type, name != "id") for name, each in columns.items()])
    pair = make_pair(tmp_path, places, source, destination, pa.RecordBatch.from_pydict(columns, schema=schema))
    pair.write(on_lossy="text")
    pair.run()
    found = pair.verify()
    assert (found.verdict, found.comparison and found.comparison.records, found.notes) == ("equal", [], ())
    if destination != "duckdb":
        damage(pair, ["update {0} set at = replace(at, '789', '788') where id = 0"], list)
        assert found_damage(pair.verify()) == {("0", "different", ("at",))}


@pytest.mark.full
@pytest.mark.parametrize("unit", ["s", "us"])
def test_durations_are_the_intervals_that_they_became(tmp_path: Path, places: Places, unit: str) -> None:
    kind = pa.duration(unit)
    counts = [0, 1, -1, 90_000_000_000, -86_400_000_000 * 40, None]
    counts = counts if unit == "us" else [count and count // 1_000_000 for count in counts]
    values, lists = pa.array(counts, kind), pa.array([counts, [], None, [None], counts[:2], counts[3:]], pa.list_(kind))
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("v", kind), pa.field("l", lists.type)])
    batch = pa.RecordBatch.from_arrays([pa.array(range(6), pa.int64()), values, lists], schema=schema)
    for destination in ("postgres", "sqlite", "duckdb", "parquet", "csv"):
        pair = make_pair(tmp_path, places, "parquet", destination, batch)
        pair.run()
        found = pair.verify()
        assert (found.verdict, found.comparison and found.comparison.records, found.notes) == ("equal", [], ())
        if destination == "postgres":
            damage(pair, ["update {0} set v = v + interval '1 microsecond' where id = 3"], list)
            damage(pair, ["update {0} set l = array[l[1], l[2] + interval '1 microsecond'] where id = 4"], list)
            assert found_damage(pair.verify()) == {("3", "different", ("v",)), ("4", "different", ("l",))}


def test_json_lines_are_damaged_deep_inside(tmp_path: Path, places: Places) -> None:
    pair = make_pair(tmp_path, places, "duckdb", "jsonl", records().drop_columns(["pairs"]))
    pair.run()

    def rewrite(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        found[4]["deep"][0][0][1] = 2e23
        return found

    damage(pair, [], rewrite)
    assert found_damage(pair.verify()) == {("4", "different", ("deep",))}


@pytest.mark.one_of("destination")
@pytest.mark.parametrize("destination", ["duckdb", "sqlite", "postgres", "mysql", "csv"])
def test_decimals_of_many_digits_are_compared(tmp_path: Path, places: Places, destination: str) -> None:
    kind = pa.decimal256(60, 20)
    values = [Decimal(0), Decimal("1e-20"), Decimal("-1.5"), Decimal("9" * 40), None]
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("v", kind), ("l", pa.list_(kind))])
    columns = {"id": list(range(5)), "v": values, "l": [[], None, [None], values, values[::-1]]}
    pair = make_pair(tmp_path, places, "parquet", destination, pa.RecordBatch.from_pydict(columns, schema=schema))
    pair.run()
    found = pair.verify()
    assert (found.verdict, found.comparison and found.comparison.records, found.notes) == ("equal", [], ())
    assert found.comparison is not None
    assert found.comparison.source == found.comparison.destination
    if destination == "duckdb":
        damage(pair, ["update {0} set v = '1E-20' where id = 1"], list)
        assert pair.verify().verdict == "equal"
        damage(pair, ["update {0} set v = '2E-20', l = replace(l, '00000001', '00000002') where id in (1, 3)"], list)
        assert found_damage(pair.verify()) == {("1", "different", ("v",)), ("3", "different", ("v", "l"))}


@pytest.mark.full
@pytest.mark.one_of("destination")
@pytest.mark.parametrize("destination", ["postgres", "mysql", "sqlite", "duckdb", "parquet", "csv", "jsonl"])
def test_lists_of_intervals_are_compared(tmp_path: Path, places: Places, destination: str) -> None:
    config = places.source["duckdb"]
    with duckdb.connect(config["path"]) as connection:
        connection.execute("create table t (id int primary key, v interval[], s struct(i interval))")
        connection.execute(
            "insert into t values (1, [interval 1 month, interval '-1 day', interval '1 microsecond', null], null), "
            "(2, [], {'i': interval '100 hours'}), (3, null, {'i': null})"
        )
    document = {
        "source": {"connector": "duckdb", "config": config},
        "destination": {"connector": destination, "config": places.destination[destination]},
        "streams": [{"stream": "t"}],
    }
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(document))
    pair = Pair(tmp_path, destination, places.destination[destination], "t")
    for _ in range(2):
        pair.run()
        found = pair.verify()
        assert (found.verdict, found.comparison and found.comparison.records, found.notes) == ("equal", [], ())
    with duckdb.connect(config["path"]) as connection:
        connection.execute("update t set v = [interval 1 month, interval '-24 hours'] where id = 1")
    assert found_damage(pair.verify()) == {("1", "different", ("v",))}
