"""What is nested as DuckDB writes it for checksums: the JSON of this package, and what jsonb makes of that."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import psycopg
import pyarrow as pa
import pytest

from syncblocks.connectors.arrow.text import to_json
from syncblocks.connectors.checksums import EVERYTHING, ComparedColumn, Digest, Side, compared_columns, no_item
from syncblocks.connectors.checksums.json_values import jsonb_text
from syncblocks.connectors.compared_values import TextForm
from syncblocks.connectors.duckdb.checksums import DuckDBCanonical
from syncblocks.connectors.duckdb.record_checksums import checksums_of_records
from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.memory.database import database
from syncblocks.connectors.memory.source import MemorySource
from syncblocks.connectors.postgres.types import array_item
from tests.connectors.checksums.test_list_checksums import ITEMS

RANDOM = random.Random(3)

TEXTS = ["", "null", 'a"b', "c\\d", "{", "}", "{}", "%s", "é\U0001f600", "'", *map(chr, range(1, 0x80))]
ODD_NAMES = ["b", "a", "aa", 'q"', "b\\", "{}", "{0}", "é", "'", " "]


def doubles() -> list[float]:
    drawn = [struct.unpack("<d", RANDOM.randbytes(8))[0] for _ in range(2000)]
    drawn += (RANDOM.random() * 10 ** RANDOM.randint(-10, 30) for _ in range(2000))
    return [0.0, -0.0, 1e16, 1e15, 1e-4, 1e-5, 1.5e-7, -2.5e22, 1e23, 1.2345678901234567e16, 5e-324, 1.8e308, *drawn]


LIST, STRUCT = pa.list_, pa.struct
NESTED: dict[str, tuple[pa.DataType, list[Any]]] = {
    "lists of lists": (LIST(LIST(pa.int64())), [None, [], [None], [[]], [[None]], [[1, None], [], None, [-(2**63)]]]),
    "four levels": (
        LIST(LIST(LIST(LIST(pa.string())))),
        [[[[TEXTS]]], [[[[]]], [[]], []], [None, [None, [None, [None]]]]],
    ),
    "doubles": (LIST(LIST(pa.float64())), [[doubles()]]),
    "structs": (
        STRUCT([("a", pa.int64()), ("b", pa.string())]),
        [None, {"a": None, "b": None}, {"a": 1, "b": "x"}, *({"a": 0, "b": text} for text in TEXTS)],
    ),
    "odd names": (
        LIST(STRUCT([(name, pa.int32()) for name in ODD_NAMES])),
        [[dict.fromkeys(ODD_NAMES, 7), None], [dict.fromkeys(ODD_NAMES)]],
    ),
    "structs in structs": (
        STRUCT([("s", STRUCT([("t", LIST(STRUCT([("u", pa.bool_())])))]))]),
        [None, {"s": None}, {"s": {"t": None}}, {"s": {"t": []}}, {"s": {"t": [None, {"u": True}, {"u": None}]}}],
    ),
    "maps": (
        pa.map_(pa.string(), LIST(pa.float64())),
        [None, [], [("k", None)], [("k", []), ("a", [1.0, None])], *([(text, [0.5])] for text in TEXTS)],
    ),
    "maps in lists": (LIST(pa.map_(pa.int64(), pa.map_(pa.string(), pa.int64()))), [[[(1, [("a", None)])], None, []]]),
    "large lists": (pa.large_list(pa.large_list(pa.large_string())), [[["a"], None]]),
    "fixed lists": (LIST(LIST(pa.int64(), 2), 2), [None, [[1, 2], [3, None]], [None, None]]),
    "nanoseconds": (LIST(pa.timestamp("ns")), [[0, 1, -1, 1_700_000_000_123_456_789, None]]),
}
NESTED |= {
    f"{name} in structs": (
        STRUCT([("v", LIST(item))]),
        [{"v": [each for each in items if each == each]}, {"v": [None]}],
    )
    for name, (item, _, items) in ITEMS.items()
    if "reals" not in name
}


def written(values: pa.Array, form: TextForm) -> list[str | None]:
    column = ComparedColumn(name="v", field=pa.field("v", values.type), form=form)
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        connection.register("t", pa.table({"v": values}))
        return [
            text for (text,) in connection.execute(f"select {DuckDBCanonical().text('t.v', column)} from t").fetchall()
        ]


@pytest.mark.parametrize("name", NESTED)
def test_duckdb_writes_what_is_nested_as_this_package_does(name: str) -> None:
    kind, items = NESTED[name]
    values = pa.array(items, kind)
    expected = [None if value is None else to_json(value, kind) for value in values.to_pylist()]
    assert written(values, TextForm.NESTED) == expected
    assert written(values, TextForm.NESTED_JSONB) == [text and jsonb_text(text) for text in expected]


@pytest.mark.parametrize("name", ["four levels", "doubles", "odd names", "maps"])
def test_it_is_what_jsonb_makes_of_it(name: str, postgres_url: str) -> None:
    kind, items = NESTED[name]
    values = pa.array(items, kind)
    texts = [to_json(value, kind) for value in values.to_pylist() if value is not None]
    with psycopg.connect(postgres_url) as connection:
        sql = "select t::jsonb::text from unnest(%s::text[]) with ordinality as u(t, n) order by n"
        expected = [text for (text,) in connection.execute(sql, (texts,)).fetchall()]
    assert [text for text in written(values, TextForm.NESTED_JSONB) if text is not None] == expected


def compared(source: pa.DataType, destination: pa.DataType, native: str = "", system: str = "duckdb") -> Any:
    metadata = {b"native_type": native.encode(), b"native_system": system.encode()} if native else None
    found = compared_columns(
        pa.field("v", source),
        pa.field("v", destination, metadata=metadata),
        systems=("duckdb", "duckdb" if system == "sqlalchemy" else system),
        array_items=(no_item, array_item if system == "postgres" else no_item),
    )
    return found if isinstance(found, str) else found[0].form


def test_nested_types_have_a_form_in_common_if_the_same_values_are_the_same_json() -> None:
    two = LIST(LIST(pa.int64()))
    assert compared(two, pa.json_(), "jsonb", "postgres") is TextForm.NESTED_JSONB
    assert compared(two, pa.json_(), "json", "postgres") is TextForm.NESTED
    assert compared(two, pa.json_(), "json", "mysql") is TextForm.JSON_VALUE, "MySQL writes JSON anew"
    assert compared(two, pa.json_(), "json", "sqlalchemy") is TextForm.JSON_VALUE, "nobody knows which system that is"
    assert compared(two, pa.string(), "text", "postgres") is TextForm.NESTED
    assert compared(two, pa.large_list(LIST(pa.int32()))) is TextForm.NESTED
    assert compared(STRUCT([("u", LIST(pa.uuid()))]), STRUCT([("u", LIST(pa.string()))])) is TextForm.NESTED
    for other in (
        LIST(pa.int64()),
        LIST(LIST(pa.float64())),
        LIST(STRUCT([("a", pa.int64())])),
        pa.map_(pa.int64(), pa.int64()),
    ):
        assert "have no common form" in compared(two, other)
    assert "have no common form" in compared(STRUCT([("a", pa.timestamp("s"))]), STRUCT([("a", pa.timestamp("us"))]))
    assert "have no common form" in compared(LIST(pa.json_()), LIST(pa.string()), "VARCHAR[]")
    assert "have no common form" in compared(two, pa.string(), "int4range", "postgres")


def test_json_that_mysql_has_written_anew_is_compared_by_value() -> None:
    """Neither side's SQL can tell, so that both are read."""
    kind = LIST(STRUCT([("b", pa.float64()), ("a", LIST(pa.int64()))]))
    copied = pa.field("v", pa.json_(), metadata={b"native_type": b"json", b"native_system": b"mysql"})
    columns = compared_columns(pa.field("v", kind), copied, systems=("duckdb", "mysql"))
    assert not isinstance(columns, str)
    assert [(column.form, column.is_read) for column in columns] == [(TextForm.JSON_VALUE, True)] * 2
    source = digest(pa.array([[{"b": 100.0, "a": [1, None]}, None], [], None], kind), columns[0])

    def copy(text: str | None) -> Digest:
        return digest(pa.json_().wrap_array(pa.array([text, "[]", None], pa.string())), columns[1])

    assert copy('[{"a": [1, null], "b": 100}, null]') == source
    for change in ('[{"a": [1, null], "b": 101}, null]', '[{"a": [1], "b": 100}, null]', "[null]", None):
        assert copy(change) != source


def digest(values: pa.Array, column: ComparedColumn) -> Digest:
    name = uuid4().hex
    database(name).tables["t"] = pa.table({"v": values})
    source = MemorySource({"database": name}, Path())
    side = Side(stream=source.discover()[0], key=(), columns=(column,))
    with checksums_of_records(source, side) as checksums:
        return checksums.digests([EVERYTHING])[0]


def test_a_value_that_ends_the_database_is_an_error_of_its_stream() -> None:
    """DuckDB writes no time below midnight: an internal error, after which its database refuses everything."""
    times = pa.array([-53_940_000], pa.time32("ms"))
    with pytest.raises(FatalConnectorError, match="checksums cannot be computed"):
        digest(times, ComparedColumn(name="v", field=pa.field("v", times.type), form=TextForm.TIME))


def test_json_of_mariadb_and_of_mysql_is_no_text_in_common() -> None:
    field = pa.field("v", pa.json_(), metadata={b"native_type": b"json", b"native_system": b"mysql"})
    forms = {
        keeps: compared_columns(field, field, systems=("mysql", "mysql"), keeps_json=keeps)[0].form  # type: ignore[union-attr]  # there is one for all
        for keeps in ((True, True), (True, False), (False, True), (False, False))
    }
    assert forms == {
        (True, True): TextForm.JSON,
        (True, False): TextForm.JSON_VALUE,
        (False, True): TextForm.JSON,
        (False, False): TextForm.JSON,
    }
