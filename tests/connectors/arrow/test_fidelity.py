"""How exactly a column is kept: what the comparison says, held against what casting does."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncblocks.connectors.arrow.fidelity import Fidelity, Kept, as_text, compare, cut, fidelity
from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.registry import make_destination
from syncblocks.connectors.stream import Stream, TableState
from syncblocks.connectors.write_spec import WriteDisposition

EXACT, WIDENED, TEXT, LOSSY = Fidelity

INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
FLOATS = [pa.float32(), pa.float64()]
DECIMALS = [pa.decimal128(p, s) for p, s in ((3, 0), (10, 2), (18, 9), (19, 0), (20, 0), (38, 0), (38, 19))]
TIMES = [pa.timestamp(unit) for unit in ("s", "ms", "us", "ns")]


def extremes(kind: Any) -> list[Any]:
    if pa.types.is_integer(kind):
        bits = kind.bit_width
        return [0, 2**bits - 1] if pa.types.is_unsigned_integer(kind) else [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1]
    if pa.types.is_floating(kind):
        return [0.1, 2.0**24 + 1]
    if pa.types.is_decimal(kind):
        nines = "9" * kind.precision
        return [Decimal(f"{digits}E-{kind.scale}") for digits in (nines, f"-{nines}", "1")]
    return [1]


@settings(deadline=None)
@given(
    st.sampled_from([*INTEGERS, *FLOATS, *DECIMALS, *TIMES]), st.sampled_from([*INTEGERS, *FLOATS, *DECIMALS, *TIMES])
)
def test_what_is_exact_or_widened_survives_the_way_there_and_back(kind: pa.DataType, kept: pa.DataType) -> None:
    if compare(kind, kept) in (EXACT, WIDENED):
        array = pa.array(extremes(kind), kind)
        there = pc.cast(array, kept)
        if pa.types.is_timestamp(kind):
            assert pc.cast(there, kind).equals(array)
        else:
            assert [Decimal(value) for value in there.to_pylist()] == [Decimal(value) for value in array.to_pylist()]


@pytest.mark.parametrize(
    ("kind", "kept", "expected"),
    [
        (pa.int64(), pa.float64(), LOSSY),
        (pa.int32(), pa.float64(), WIDENED),
        (pa.uint64(), pa.int64(), LOSSY),
        (pa.uint64(), pa.decimal128(20, 0), WIDENED),
        (pa.uint64(), pa.decimal128(19, 0), LOSSY),
        (pa.float64(), pa.float32(), LOSSY),
        (pa.float64(), pa.decimal128(38, 10), LOSSY),
        (pa.decimal128(12, 2), pa.decimal128(12, 4), LOSSY),
        (pa.decimal128(12, 2), pa.float64(), LOSSY),
        (pa.timestamp("ns"), pa.timestamp("us"), LOSSY),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), LOSSY),
        (pa.timestamp("us", "Europe/Berlin"), pa.timestamp("us", "UTC"), EXACT),
        (pa.time64("ns"), pa.time64("us"), LOSSY),
        (pa.date32(), pa.timestamp("us"), WIDENED),
        (pa.uuid(), pa.string(), TEXT),
        (pa.json_(), pa.string(), TEXT),
        (pa.list_(pa.int32()), pa.json_(), TEXT),
        (pa.list_(pa.timestamp("ns")), pa.list_(pa.timestamp("us")), LOSSY),
        (pa.struct([("a", pa.int64())]), pa.struct([("a", pa.float64())]), LOSSY),
        (pa.struct([("a", pa.int64())]), pa.struct([("b", pa.int64())]), LOSSY),
        (pa.dictionary(pa.int8(), pa.large_string()), pa.string(), EXACT),
        (pa.duration("us"), pa.int64(), LOSSY),
        (pa.null(), pa.string(), EXACT),
    ],
    ids=str,
)
def test_compares_types(kind: pa.DataType, kept: pa.DataType, expected: Fidelity) -> None:
    assert compare(kind, kept) is expected


CONFIGS: dict[str, dict[str, Any]] = {
    "postgres": {"url": "postgresql://nobody@127.0.0.1/nowhere"},
    "mysql": {"url": "mysql://nobody@127.0.0.1/nowhere"},
    **{name: {"path": "nowhere"} for name in ("sqlite", "duckdb", "csv", "jsonl", "parquet")},
}

#: A column -> postgres, mysql, sqlite, duckdb, csv, jsonl, parquet.
ANSWERS: list[tuple[pa.Field, str]] = [
    (pa.field("c", pa.int16()), "exact exact widened exact text exact exact"),
    (pa.field("c", pa.uint64()), "widened exact text exact text exact exact"),
    (pa.field("c", pa.decimal128(38, 10)), "exact exact text exact text exact exact"),
    (pa.field("c", pa.decimal256(76, 40)), "exact lossy text text text exact exact"),
    (pa.field("c", pa.timestamp("ns")), "lossy lossy text exact text text exact"),
    (pa.field("c", pa.timestamp("ns", "UTC")), "lossy lossy text lossy text text exact"),
    (pa.field("c", pa.duration("us")), "exact lossy text exact text text exact"),
    (pa.field("c", pa.month_day_nano_interval()), "exact lossy text exact text text text"),
    (pa.field("c", pa.uuid()), "exact text text exact text text exact"),
    (pa.field("c", pa.string()), "exact exact exact exact exact exact exact"),
    (pa.field("c", pa.list_(pa.int32())), "exact text text exact text exact exact"),
    # A type that Arrow does not have: its own system keeps it, all others its text.
    (
        pa.field("c", pa.string(), metadata={"native_type": "inet", "native_system": "postgres"}),
        "exact text text text text text text",
    ),
    (
        pa.field("c", pa.string(), metadata={"native_type": "character varying(9)", "native_system": "postgres"}),
        "exact exact exact exact exact exact exact",
    ),
    (
        pa.field("c", pa.string(), metadata={"native_type": "text[]", "native_system": "postgres"}),
        "exact text text text text text text",
    ),
]


@pytest.mark.parametrize(("field", "answers"), ANSWERS, ids=lambda value: str(value)[:40])
def test_every_destination_states_what_it_keeps(field: pa.Field, answers: str) -> None:
    found = []
    for name, config in CONFIGS.items():
        destination: Any = make_destination(name, config, Path("/nowhere"))
        stream = Stream(name="s", schema=pa.schema([field]))
        (kept,) = destination.keeps(stream, TableState(), WriteDisposition.REPLACE)
        found.append(str(fidelity(field, kept)))
    assert " ".join(found) == answers


def test_a_table_that_is_there_has_types_of_its_own() -> None:
    destination: Any = make_destination("postgres", CONFIGS["postgres"], Path("/nowhere"))
    stream = Stream(name="s", schema=pa.schema([("n", pa.int64()), ("Other", pa.string())]))
    for held, arrow, expected in [
        ("integer", pa.int32(), ("bigint", EXACT)),
        ("numeric(20,2)", pa.decimal128(20, 2), ("numeric(21,2)", WIDENED)),
        ("boolean", pa.bool_(), ("boolean", LOSSY)),
    ]:
        table = TableState(schema=pa.schema([pa.field("n", arrow, metadata={"native_type": held})]))
        first, second = destination.keeps(stream, table, WriteDisposition.APPEND)
        assert (first.type, fidelity(stream.schema.field(0), first)) == expected
        assert (first.held, second.held) == (held, None)
        replaced, _ = destination.keeps(stream, table, WriteDisposition.REPLACE)
        assert (replaced.type, replaced.held) == ("bigint", held)


def test_cutting_cuts_digits_and_refuses_what_does_not_fit() -> None:
    moments = pa.array([1_234_567_891, None], pa.timestamp("ns"))
    assert cut(moments, pa.timestamp("us"), "c").cast(pa.int64()).to_pylist() == [1_234_567, None]
    before_1970 = pa.array(["1969-12-31T23:59:59.999999999", "1969-12-31T23:59:59.5"]).cast(pa.timestamp("ns"))
    assert list(map(str, cut(before_1970, pa.timestamp("us"), "c"))) == [
        "1969-12-31 23:59:59.999999",
        "1969-12-31 23:59:59.500000",
    ]
    with pytest.raises(FatalConnectorError, match="'c'"):
        cut(pa.array([300]), pa.int8(), "c")


TEXTS = ["text", "character varying(3)", "varchar(9)", "enum('a','b')", "set('a')", '"char"', "LONGTEXT", "VARCHAR2(9)"]
OTHERS = ["text[]", "character varying(3)[]", "int4range", "mood", "my_text", "public.char_range", "geometry", "inet"]


@pytest.mark.parametrize("native", [*TEXTS, *OTHERS])
def test_a_text_that_stands_for_another_type_is_not_exact(native: str) -> None:
    field = pa.field("c", pa.string(), metadata={"native_type": native, "native_system": "elsewhere"})
    kept = Kept(column="c", type="VARCHAR", arrow=pa.string())
    assert fidelity(field, kept) is (EXACT if native in TEXTS else TEXT)


def test_text_keeps_every_digit() -> None:
    moments = pa.array([1_234_567_891, None], pa.timestamp("ns", "UTC"))
    assert as_text(moments, "c").to_pylist() == ["1970-01-01T00:00:01.234567891Z", None]
    assert as_text(pa.array([Decimal("1E-40")], pa.decimal256(76, 40)), "c").to_pylist() == ["0." + "0" * 39 + "1"]
