"""Every type as Delta keeps it: what is stated, what the log says, and what three readers see."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field, Schema

from syncblocks.connectors.arrow.fidelity import Fidelity, fidelity
from syncblocks.connectors.delta.reader import DeltaReader
from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.field_facts import facts_of, with_facts
from syncblocks.connectors.stream import Stream, TableState
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition
from tests.connectors.delta.delta_loads import FINAL, ITEMS, destination_of, items, load_of, run
from tests.connectors.delta.delta_tables import opened, plain_table, read_table, unnamed_files

MOMENT = datetime(2024, 2, 29, 23, 59, 59, 999999)  # noqa: DTZ001 (naive on purpose)
EARLY = datetime(1, 1, 2, tzinfo=UTC)
WHO = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")

EXACT, WIDENED, TEXT, LOSSY = Fidelity.EXACT, Fidelity.WIDENED, Fidelity.TEXT, Fidelity.LOSSY

#: Arrow type, type in the log, fidelity, value, value in the table.
GOLDEN: list[tuple[pa.DataType, Any, Fidelity, Any, Any]] = [
    (pa.bool_(), "boolean", EXACT, True, True),
    (pa.int8(), "byte", EXACT, -128, -128),
    (pa.int16(), "short", EXACT, -32768, -32768),
    (pa.int32(), "integer", EXACT, -(2**31), -(2**31)),
    (pa.int64(), "long", EXACT, 2**63 - 1, 2**63 - 1),
    (pa.uint8(), "short", WIDENED, 255, 255),
    (pa.uint16(), "integer", WIDENED, 2**16 - 1, 2**16 - 1),
    (pa.uint32(), "long", WIDENED, 2**32 - 1, 2**32 - 1),
    (pa.uint64(), "decimal(20,0)", WIDENED, 2**64 - 1, Decimal(2**64 - 1)),
    (pa.float16(), "float", WIDENED, 0.5, 0.5),
    (pa.float32(), "float", EXACT, 0.25, 0.25),
    (pa.float64(), "double", EXACT, 1 / 3, 1 / 3),
    (pa.decimal128(38, 10), "decimal(38,10)", EXACT, Decimal("-1.0000000001"), Decimal("-1.0000000001")),
    (pa.decimal256(20, 2), "decimal(20,2)", EXACT, Decimal("1.25"), Decimal("1.25")),
    (pa.decimal128(5, -2), "decimal(7,0)", WIDENED, Decimal("1200"), Decimal("1200")),
    (pa.string(), "string", EXACT, "é\0'", "é\0'"),
    (pa.large_string(), "string", EXACT, "é", "é"),
    (pa.dictionary(pa.int8(), pa.string()), "string", EXACT, "x", "x"),
    (pa.binary(), "binary", EXACT, b"\0\xff", b"\0\xff"),
    (pa.binary(2), "binary", WIDENED, b"ab", b"ab"),
    (pa.date32(), "date", EXACT, date(1582, 10, 10), date(1582, 10, 10)),
    (pa.date64(), "date", EXACT, date(2024, 2, 29), date(2024, 2, 29)),
    (pa.timestamp("s"), "timestamp_ntz", WIDENED, MOMENT.replace(microsecond=0), MOMENT.replace(microsecond=0)),
    (pa.timestamp("us"), "timestamp_ntz", EXACT, MOMENT, MOMENT),
    (pa.timestamp("ns"), "timestamp_ntz", LOSSY, MOMENT, MOMENT),
    (pa.timestamp("us", "Europe/Berlin"), "timestamp", EXACT, EARLY, EARLY),
    (pa.timestamp("ns", "UTC"), "timestamp", LOSSY, MOMENT.replace(tzinfo=UTC), MOMENT.replace(tzinfo=UTC)),
    (pa.time64("us"), "string", TEXT, time(12, 30, 0, 5), "12:30:00.000005"),
    (pa.duration("us"), "string", TEXT, timedelta(days=1, seconds=2), "86402000000"),
    (pa.uuid(), "string", TEXT, WHO, str(WHO)),
    (pa.json_(pa.string()), "string", TEXT, '{"a": 1}', '{"a": 1}'),
    (pa.null(), "string", EXACT, None, None),
    (
        pa.list_(pa.uint32()),
        {"type": "array", "elementType": "long", "containsNull": True},
        WIDENED,
        [1, None],
        [1, None],
    ),
    (
        pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]),
        None,
        EXACT,
        {"a": 1, "b": ["x", None]},
        {"a": 1, "b": ["x", None]},
    ),
    (pa.map_(pa.string(), pa.decimal128(9, 2)), None, EXACT, [("k", Decimal("1.50"))], [("k", Decimal("1.50"))]),
]


@pytest.mark.parametrize(("kind", "written", "kept", "value", "there"), GOLDEN, ids=[str(case[0]) for case in GOLDEN])
def test_each_type_is_kept_as_stated(
    tmp_path: Path, kind: Any, written: Any, kept: Fidelity, value: Any, there: Any
) -> None:
    schema = pa.schema([("id", pa.int64()), ("v", kind)])
    destination, load = destination_of(tmp_path), load_of("append", "t0", schema)
    (_, stated) = destination.keeps(load.stream, TableState(), WriteDisposition.APPEND)
    assert fidelity(schema.field("v"), stated) is kept
    batch = pa.RecordBatch.from_arrays([pa.array([1, 2]), _array([value, None], kind)], schema=schema)
    run(destination, load, batch, FINAL)
    table = opened(tmp_path, "items")
    assert table is not None
    field = json.loads(table.schema().to_json())["fields"][1]
    assert written is None or field["type"] == written
    state = destination.describe(["items"])["items"]
    assert state.schema is not None
    assert state.schema.field("v").type == stated.arrow
    for records in (read_table(tmp_path, "items"), plain_table(tmp_path, "items"), _read(tmp_path)):
        assert records is not None
        assert [record["v"] for record in sorted(records, key=lambda record: record["id"])] == [there, None]


def _array(values: list[Any], kind: Any) -> pa.Array:
    return (
        pa.array(values, kind.value_type).dictionary_encode().cast(kind)
        if pa.types.is_dictionary(kind)
        else pa.array(values, kind)
    )


def _read(folder: Path, count: int = 2) -> list[dict[str, Any]]:
    reader = DeltaReader({"path": str(folder)}, folder)
    (stream,) = reader.discover()
    assert reader.count(stream) == count
    return [row for _, batch in reader.read([stream], {}) for row in batch.to_pylist()]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "kind",
    [pa.decimal256(50, 2), pa.list_(pa.time64("us")), pa.struct([]), pa.list_(pa.uuid())],
    ids=str,
)
def test_a_type_that_delta_lacks_is_refused(tmp_path: Path, kind: pa.DataType) -> None:
    load = load_of("append", "t0", pa.schema([("id", pa.int64()), ("v", kind)]))
    (_, stated) = destination_of(tmp_path).keeps(load.stream, TableState(), WriteDisposition.APPEND)
    assert stated.arrow is None
    with pytest.raises(FatalConnectorError, match="no type"):
        run(destination_of(tmp_path), load, FINAL)


def test_times_past_the_years_of_python_are_written_and_merged(tmp_path: Path) -> None:
    schema = pa.schema([("id", pa.timestamp("us", "UTC")), ("day", pa.date32())])
    columns = [pa.array([2**62, 0], pa.int64()).cast(schema.field(0).type), pa.array([2**30, 1], pa.int32())]
    batch = pa.RecordBatch.from_arrays([columns[0], columns[1].cast(pa.date32())], schema=schema)
    for token in ("t0", "t1"):
        run(destination_of(tmp_path), load_of("merge", token, schema), batch, FINAL)
    table = opened(tmp_path, "items")
    assert table is not None
    assert pa.table(table.scan()).num_rows == 2


def test_a_nanosecond_is_refused_and_not_cut(tmp_path: Path) -> None:
    schema = pa.schema([("v", pa.timestamp("ns"))])
    batch = pa.RecordBatch.from_arrays([pa.array([1], pa.timestamp("ns"))], schema=schema)
    with pytest.raises(FatalConnectorError, match="column 'v'"):
        run(destination_of(tmp_path), load_of("append", "t0", schema), batch, FINAL)


def test_a_time_without_zone_in_an_older_table_is_judged_before_the_run(tmp_path: Path) -> None:
    destination = destination_of(tmp_path)
    run(destination, load_of("append", "t0"), items((1, "a")), FINAL)
    wider = pa.schema([*ITEMS, ("at", pa.timestamp("us"))])
    state = destination.describe(["items"])["items"]
    stated = destination.keeps(Stream(name="items", schema=wider), state, WriteDisposition.APPEND)[2]
    assert (stated.arrow, "reader 3, writer 7" in stated.note) == (None, True)
    batch = pa.RecordBatch.from_pylist([{"id": 2, "name": "b", "at": MOMENT}], schema=wider)
    run(destination, load_of("append", "t1", wider), batch, FINAL)  # as when a stream gets the column on the way
    table = DeltaTable((tmp_path / "items").as_uri())
    assert table.protocol().writer_features == ["timestampNtz"]
    assert sorted((row["id"], row["at"]) for row in read_table(tmp_path, "items") or []) == [(1, None), (2, MOMENT)]


def test_what_arrives_without_a_type_is_null_in_a_column_of_any(tmp_path: Path) -> None:
    destination = destination_of(tmp_path)
    run(destination, load_of("append", "t0"), items((1, "a")), FINAL)
    empty = pa.schema([("id", pa.null()), ("name", pa.int8())])
    batch = pa.RecordBatch.from_pylist([{"id": None, "name": 7}], schema=empty)
    run(destination, load_of("append", "t1", empty), batch, FINAL)
    assert {(row["id"], row["name"]) for row in plain_table(tmp_path, "items") or []} == {(1, "a"), (None, "7")}
    assert {(row["id"], row["name"]) for row in read_table(tmp_path, "items") or []} == {(1, "a"), (None, "7")}


WIDER = [
    (pa.int32(), 2**31 - 1, pa.int64(), 2**40, pa.int64()),
    (pa.int8(), -128, pa.int32(), 2**20, pa.int32()),
    (pa.float32(), 0.25, pa.float64(), 1 / 3, pa.float64()),
    (pa.int32(), -(2**31), pa.float64(), 0.5, pa.float64()),
    (pa.decimal128(5, 2), Decimal("999.99"), pa.decimal128(7, 3), Decimal("-1234.567"), pa.decimal128(7, 3)),
    (pa.decimal128(5, 3), Decimal("1.125"), pa.decimal128(6, 1), Decimal("12345.5"), pa.decimal128(8, 3)),
    (pa.int32(), 2**31 - 1, pa.decimal128(9, 2), Decimal("1.25"), pa.decimal128(12, 2)),
]


def _numbers(kind: pa.DataType, key: int, value: Any) -> pa.RecordBatch:
    schema = pa.schema([("id", pa.int64()), ("v", kind)])
    return pa.RecordBatch.from_pylist([{"id": key, "v": value}, {"id": key + 1, "v": None}], schema=schema)


@pytest.mark.parametrize(("before", "old", "arriving", "new", "after"), WIDER, ids=str)
def test_a_column_of_numbers_becomes_wider_and_the_files_are_written_anew(
    tmp_path: Path, before: Any, old: Any, arriving: Any, new: Any, after: Any
) -> None:
    destination, batches = destination_of(tmp_path), (_numbers(before, 1, old), _numbers(arriving, 3, new))
    run(destination, load_of("append", "t0", batches[0].schema), batches[0], FINAL)
    state = destination.describe(["items"])["items"]
    stated = destination.keeps(Stream(name="items", schema=batches[1].schema), state, WriteDisposition.APPEND)[1]
    assert (stated.arrow, fidelity(batches[1].schema.field("v"), stated) is Fidelity.LOSSY) == (after, False)
    told: list[Any] = []
    load = replace(load_of("append", "t1", batches[1].schema), announce=lambda _, changes: told.extend(changes))
    run(destination, load, batches[1], FINAL)
    assert [(each["column"], each["after"]) for each in told] == [("v", str(after))]
    for records in (read_table(tmp_path, "items"), plain_table(tmp_path, "items"), _read(tmp_path, 4)):
        found = sorted((row["id"], row["v"]) for row in records or [] if row["v"] is not None)
        assert found == [(1, old), (3, new)]
    assert unnamed_files(tmp_path, "items") == set()


@pytest.mark.parametrize("disposition", ["append", "merge"])
def test_a_wider_column_comes_with_new_ones_and_keeps_partitions(tmp_path: Path, disposition: str) -> None:
    first = pa.schema([("id", pa.int32()), ("part", pa.int16()), ("gone", pa.string())])
    second = pa.schema([("id", pa.int64()), ("part", pa.int32()), ("more", pa.timestamp("us"))])
    destination = destination_of(tmp_path, partition_by=["part"])
    rows = [{"id": n, "part": n % 2 or None, "gone": "x"} for n in range(4)]
    run(destination, load_of(disposition, "t0", first), pa.RecordBatch.from_pylist(rows, schema=first), FINAL)
    more = [{"id": 2**40, "part": 2**20, "more": MOMENT}, {"id": 3, "part": 1, "more": None}]
    batch = pa.RecordBatch.from_pylist(more, schema=second)
    (commit,) = run(destination, load_of(disposition, "t1", second), batch, FINAL)
    assert {each["column"] for each in commit.schema_changes} == {"id", "part", "more"}
    rows = read_table(tmp_path, "items") or []
    found = sorted(((row["id"], row["part"], row["gone"], row["more"]) for row in rows), key=lambda row: row[0])
    old = [(0, None, "x", None), (1, 1, "x", None), (2, None, "x", None)]
    threes = [(3, 1, "x", None)] if disposition == "append" else []
    assert found[:3] == old
    assert sorted(found[3:], key=str) == sorted([*threes, (3, 1, None, None), (2**40, 2**20, None, MOMENT)], key=str)
    table = opened(tmp_path, "items")
    assert table is not None
    assert table.metadata().partition_columns == ["part"]
    assert unnamed_files(tmp_path, "items") == set()


@pytest.mark.parametrize(
    ("before", "arriving"),
    [
        (pa.int64(), pa.float64()),
        (pa.decimal128(38, 0), pa.decimal128(38, 2)),
        (pa.float64(), pa.decimal128(9, 2)),
        (pa.date32(), pa.int32()),
        (pa.int64(), pa.string()),
        (pa.bool_(), pa.dictionary(pa.int8(), pa.string())),
        (pa.list_(pa.int32()), pa.list_(pa.int64())),
    ],
    ids=str,
)
def test_no_column_becomes_what_may_not_hold_its_values(tmp_path: Path, before: Any, arriving: Any) -> None:
    destination, schemas = destination_of(tmp_path), [pa.schema([("v", kind)]) for kind in (before, arriving)]
    run(destination, load_of("append", "t0", schemas[0]), pa.RecordBatch.from_pylist([], schema=schemas[0]), FINAL)
    state = destination.describe(["items"])["items"]
    (stated,) = destination.keeps(Stream(name="items", schema=schemas[1]), state, WriteDisposition.APPEND)
    assert (stated.arrow, "does not become wider" in stated.note) == (None, True)


@pytest.mark.parametrize(
    ("before", "old", "text"),
    [(pa.int64(), 7, "7"), (pa.bool_(), True, "true"), (pa.date32(), date(2024, 2, 29), "2024-02-29")],
    ids=str,
)
def test_a_partition_column_becomes_text(tmp_path: Path, before: Any, old: Any, text: str) -> None:
    destination = destination_of(tmp_path, partition_by=["v"])
    batch = _numbers(before, 1, old)
    run(destination, load_of("append", "t0", batch.schema), batch, FINAL)
    texts = pa.schema([("id", pa.int64()), with_facts(pa.field("v", pa.string()), becomes_text=True)])
    more = pa.RecordBatch.from_pylist([{"id": 3, "v": "x"}], schema=texts)
    run(destination, load_of("append", "t1", texts), more, FINAL)
    for records in (read_table(tmp_path, "items"), _read(tmp_path, 3)):
        assert sorted((row["id"], row["v"]) for row in records or []) == [(1, text), (2, None), (3, "x")]


def test_a_large_table_does_not_become_wider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncblocks.connectors.delta.table.WIDENED_BYTES", 100)
    destination = destination_of(tmp_path)
    narrow = pa.schema([("id", pa.int32()), ("name", pa.string())])
    run(destination, load_of("append", "t0", narrow), pa.RecordBatch.from_pylist([{"id": 1}], schema=narrow), FINAL)
    state = destination.describe(["items"])["items"]
    stated = destination.keeps(Stream(name="items", schema=ITEMS), state, WriteDisposition.APPEND)[0]
    assert (stated.arrow, "written anew" in stated.note) == (None, True)
    with pytest.raises(FatalConnectorError, match=r"column 'id' .* int32, and int64 .*--full-refresh"):
        run(destination, load_of("append", "t1"), items((2, "b")), FINAL)
    texts = pa.schema([with_facts(pa.field("id", pa.string()), becomes_text=True), ("name", pa.string())])
    assert destination.keeps(Stream(name="items", schema=texts), state, WriteDisposition.APPEND)[0].arrow is None
    with pytest.raises(FatalConnectorError, match=r"column 'id' .* int32, and string .*--full-refresh"):
        run(destination, load_of("append", "t4", texts), FINAL)
    small = pa.schema([("id", pa.int16()), ("name", pa.string())])
    assert fidelity(
        small.field(0), destination.keeps(Stream(name="i", schema=small), state, WriteDisposition.APPEND)[0]
    )
    run(destination, load_of("append", "t2", small), pa.RecordBatch.from_pylist([{"id": 3}], schema=small), FINAL)
    run(destination, load_of("replace", "t3"), items((2**40, "b")), FINAL)
    assert read_table(tmp_path, "items") == [{"id": 2**40, "name": "b"}]


@pytest.mark.parametrize("disposition", ["append", "merge"])
def test_a_column_that_refuses_null_gets_none_and_is_relaxed_where_nothing_arrives(
    tmp_path: Path, disposition: str
) -> None:
    columns = [Field("id", "long", nullable=False), Field("name", "string", nullable=False)]
    made = DeltaTable.create((tmp_path / "items").as_uri(), Schema([*columns, Field("more", "short", nullable=False)]))
    made.create_write_transaction([], "append", made.schema())
    destination = destination_of(tmp_path)
    held = destination.describe(["items"])["items"].schema
    assert [facts_of(field).needed for field in held or ()] == [True] * 3
    with pytest.raises(FatalConnectorError, match="'name' may not be NULL"):
        run(destination, load_of(disposition, "t0"), items((1, None)), FINAL)
    run(destination, load_of(disposition, "t1"), items((1, "a")), FINAL)
    table = opened(tmp_path, "items")
    assert table is not None
    assert [field.nullable for field in table.schema().fields] == [False, False, True], "nothing arrives for the last"
    wider = pa.schema(
        [with_facts(ITEMS.field(0), relaxed=True), with_facts(ITEMS.field(1), relaxed=True), ("more", pa.int64())]
    )
    batch = pa.RecordBatch.from_pylist([{"id": 2, "name": None, "more": 2**40}], schema=wider)
    run(destination, load_of(disposition, "t2", wider), batch, FINAL)
    table = opened(tmp_path, "items")
    assert table is not None
    assert [field.nullable for field in table.schema().fields] == [False, True, True], "a key stays"
    assert sorted((row["id"], row["name"], row["more"]) for row in read_table(tmp_path, "items") or []) == [
        (1, "a", None),
        (2, None, 2**40),
    ]


@pytest.mark.parametrize("disposition", ["append", "replace", "merge"])
def test_a_type_that_widens_within_the_first_load_is_kept_in_all_files(tmp_path: Path, disposition: str) -> None:
    narrow, wide = (pa.schema([("id", kind), ("name", pa.string())]) for kind in (pa.int32(), pa.int64()))
    first = pa.RecordBatch.from_pylist([{"id": 1, "name": "a"}], schema=narrow)
    second = pa.RecordBatch.from_pylist([{"id": 2**40, "name": "b"}], schema=wide)
    load = load_of(disposition, "t0", narrow)
    run(destination_of(tmp_path), load, first, load_of(disposition, "t0", wide).stream, second, FINAL)
    assert sorted(row["id"] for row in plain_table(tmp_path, "items") or []) == [1, 2**40]
    assert sorted(row["id"] for row in read_table(tmp_path, "items") or []) == [1, 2**40]
    files = [pa.parquet.read_schema(path) for path in (tmp_path / "items").glob("*.parquet")]
    assert {str(schema.field("id").type) for schema in files} == {"int64"}
