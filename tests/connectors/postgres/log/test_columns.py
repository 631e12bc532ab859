"""Columns of a change are found by their names and order between two moments of the table, or not at all."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.postgres.log.columns import Columns, TableFacts, is_wider, noted_columns, refusals, unlogged
from syncblocks.connectors.postgres.log.messages import Column, Relation
from syncblocks.connectors.postgres.log.slot import demand_planned
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.struct_helpers import replace

INT, TEXT = 23, 25
NAMES = {INT: "integer", TEXT: "text", 20: "bigint"}


def table(last: int, **numbers: int) -> TableFacts:
    """Return a table whose columns are integers, keyed by the first one."""
    return TableFacts(
        oid=1,
        name="t",
        kind="r",
        is_permanent=True,
        is_owned=True,
        identity="d",
        primary_key="t_pkey",
        has_identity_index=False,
        unique_index=None,
        columns={name: (number, INT, -1) for name, number in numbers.items()},
        large=frozenset(),
        generated={},
        last=last,
        key=(1,),
        has_children=False,
        hides_records=False,
        versions=dict.fromkeys(numbers, "1"),
        unreadable=frozenset(),
        valued=frozenset(),
        file=1,
        labels={},
    )


def stream(facts: TableFacts, **locator: Any) -> Stream:
    schema = pa.schema([pa.field(name, pa.int32()) for name in facts.columns])
    return Stream(name="public.t", schema=schema, key_properties=("id",), locator={"deletes": "hard", **locator})


def places(before: TableFacts, now: TableFacts, *names: str, kind: int = INT) -> dict[str, int]:
    found = [Column("id", INT, -1, is_key=True), *(Column(name, kind, -1, is_key=False) for name in names)]
    columns = Columns(stream(now), noted_columns(before, {}), now, lambda type_id, _: NAMES[type_id])
    return dict(columns.of(Relation(1, "public", "t", "d", tuple(found))).places)


START = table(3, id=1, a=2, b=3)


@pytest.mark.parametrize(
    ("now", "names", "expected"),
    [
        (table(3, id=1, a=2, b=3), ["a", "b"], {"id": 0, "a": 1, "b": 2}),
        (table(4, id=1, a=2, b=3, c=4), ["a", "b"], {"id": 0, "a": 1, "b": 2}),
        (table(3, id=1, c=2, b=3), ["a", "b"], {"id": 0, "c": 1, "b": 2}),
        (table(3, id=1, c=2, b=3), ["meanwhile", "b"], {"id": 0, "c": 1, "b": 2}),
        (table(3, id=1, b=3), ["a", "b"], {"id": 0, "b": 2}),
        (table(3, id=1, b=3), ["b"], {"id": 0, "b": 1}),
        (table(4, id=1, a=2, b=3), ["a", "b", "gone"], {"id": 0, "a": 1, "b": 2}),
        (table(5, id=1, a=2, b=3), ["a", "b", "gone", "too"], {"id": 0, "a": 1, "b": 2}),
        (table(5, id=1, a=2, b=3), ["a", "b", "too"], {"id": 0, "a": 1, "b": 2}),
        (table(3, id=1, a=3), ["a", "b"], {"id": 0, "a": 2}),  # `b` is called `a`, which was dropped
        (table(3, id=1, a=3), ["b"], {"id": 0, "a": 1}),
        (table(3, id=1, a=3), ["a"], {"id": 0, "a": 1}),
        (table(3, id=1, a=3, b=2), ["b", "a"], {"id": 0, "b": 1, "a": 2}),
        (table(3, id=1, a=3, b=2), ["a", "b"], {"id": 0, "b": 1, "a": 2}),
        (table(4, id=1, b=3, a=4), ["b", "a"], {"id": 0, "b": 1, "a": 2}),
        (table(4, id=1, b=3, a=4), ["a", "b"], {"id": 0, "b": 2}),
    ],
)
def test_each_column_of_a_change_is_the_one_of_its_number(
    now: TableFacts, names: list[str], expected: dict[str, int]
) -> None:
    assert places(START, now, *names) == expected


@pytest.mark.parametrize(
    ("now", "names"),
    [
        (table(4, id=1, a=2, b=4), ["a", "b"]),  # the former `b`, or the new one
        (table(5, id=1, a=2, b=3, c=5), ["a", "b", "c"]),  # one that came and went may have had the name
        (table(3, id=1, a=2, b=3), ["a", "b", "newer"]),
        (table(3, id=1, a=2, b=3), ["a"]),
        (table(3, id=1, c=2), ["b"]),
    ],
)
def test_what_may_be_another_column_is_refused(now: TableFacts, names: list[str]) -> None:
    with pytest.raises(FatalConnectorError, match="altered more than once since the last run"):
        places(START, now, *names)


def test_only_a_lossless_widening_is_read_past() -> None:
    with pytest.raises(FatalConnectorError, match="column 'a' is integer and was bigint in a change of the log"):
        places(START, START, "a", "b", kind=20)
    wider = [
        ("smallint", "bigint"),
        ("integer", "numeric(12,2)"),
        ("numeric(5,2)", "numeric(9,3)"),
        ("numeric(5,2)", "numeric"),
        ("character varying(9)", "character varying(20)"),
        ("character varying(9)", "text"),
        ("character varying(9)", "character varying"),
        ("text", "character varying"),
        ("real", "double precision"),
        ("timestamp(3) without time zone", "timestamp without time zone"),
    ]
    others = [
        ("bigint", "integer"),
        ("integer", "text"),
        ("integer", "numeric(5,2)"),
        ("integer", "double precision"),
        ("numeric(9,2)", "numeric(9,3)"),
        ("numeric", "numeric(9,2)"),
        ("text", "character varying(9)"),
        ("character(9)", "text"),
        ("text", "jsonb"),
        ("timestamp without time zone", "timestamp with time zone"),
        ("integer[]", "bigint[]"),
        ("public.mood", "text"),
    ]
    assert [pair for pair in wider if not is_wider(*pair)] == []
    assert [pair for pair in others if is_wider(*pair)] == []


def test_names_that_the_destination_has_of_other_columns_are_refused() -> None:
    def why(before: dict[str, Any], now: TableFacts, deletes: str = "hard") -> list[str]:
        return refusals(stream(now, deletes=deletes), before, now, lambda *_: "integer")

    without_b = noted_columns(table(3, id=1, a=2), noted_columns(START, {}))
    text = "'b' was the name of another column, which was dropped or renamed"
    assert why(noted_columns(START, {}), table(4, id=1, a=2, b=4)) == [text]
    assert why(without_b, table(4, id=1, a=2, b=4)) == why(without_b, table(3, id=1, b=2)) == [text]
    assert why(without_b, table(4, id=1, a=2, b=4), deletes="") == []
    assert why(without_b, table(4, id=1, a=2, c=4)) == []
    assert why(noted_columns(START, {}), table(3, key=1, a=2, b=3)) == []


def test_a_table_that_was_altered_after_the_plan_is_not_read() -> None:
    planned = {"": 1, "id": 1, "a": 2, "b": 3}
    demand_planned(stream(START, places=planned), START)
    with pytest.raises(FatalConnectorError, match=r"column 'c' was added, dropped or renamed: .* run again"):
        demand_planned(stream(START, places=planned), table(4, id=1, a=2, b=3, c=4))


MOOD = 16400
LABELED = replace(START, columns={**START.columns, "b": (3, MOOD, -1)}, labels={MOOD: {1: "sad", 3: "ok"}})


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (LABELED, replace(LABELED, labels={MOOD: {1: "happy", 3: "ok"}}), ["column 'b' got"]),
        (LABELED, replace(LABELED, labels={MOOD: {1: "sad", 3: "ok", 4: "new"}}), []),
        (START, replace(START, file=2), []),
        (START, replace(START, versions={"id": "1", "a": "2", "b": "2"}), []),
        (START, replace(START, file=2, versions={"id": "1", "a": "2", "b": "2"}), ["column 'a' may"]),
        (START, replace(START, file=2, columns={**START.columns, "a": (2, 20, -1)}), ["column 'a' may"]),
        (replace(START, versions={"id": "1", "a": None, "b": None}), replace(START, file=2), []),
        (START, table(4, id=1, a=2, b=3, c=4), []),
        (START, replace(table(4, id=1, a=2, b=3, c=4), valued=frozenset("c")), []),
        (START, replace(table(4, id=1, a=2, b=3, c=4), valued=frozenset("c"), file=2), ["column 'c' was added"]),
        (
            START,
            replace(table(4, id=1, a=2, b=3, c=4), versions={**START.versions, "c": None}),
            ["column 'c' was added"],
        ),
        (replace(table(3, id=1, a=2), generated={"b": 3}), START, ["column 'b' was a generated column"]),
    ],
)
def test_changes_of_values_that_the_log_does_not_have_are_found(
    before: TableFacts, now: TableFacts, expected: list[str]
) -> None:
    found = unlogged(stream(now), noted_columns(before, {}), now)
    assert len(found) == len(expected)
    assert all(text.startswith(words) for text, words in zip(found, expected, strict=True))


def test_a_note_of_an_earlier_version_names_no_change_of_values() -> None:
    noted = {name: value for name, value in noted_columns(LABELED, {}).items() if name in ("columns", "last")}
    assert unlogged(stream(LABELED), noted, replace(LABELED, file=2, labels={MOOD: {1: "happy"}})) == []
