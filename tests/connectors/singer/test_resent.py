"""Records that a tap sends again, recognised by the hashes of the bookmark."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.programs.resent import ResentRecords
from syncblocks.connectors.stream import Bookmark
from syncblocks.connectors.struct_helpers import replace
from tests.connectors.singer.singer_helpers import checkpoints, lines, read, record, records, schema, state, stream_of

INTEGER, TEXT, BOOLEAN = ({"type": ["null", name]} for name in ("integer", "string", "boolean"))
TODAY: dict[str, Any] = {"id": {"type": "integer"}, "stamp": TEXT, "note": TEXT, "more": INTEGER}

#: The columns before, and the values of the record then.
BEFORE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "added": ({name: TODAY[name] for name in ("id", "stamp", "note")}, {}),
    "dropped": ({**TODAY, "gone": TEXT}, {"more": 7, "gone": "x"}),
    "retyped": ({**TODAY, "more": BOOLEAN}, {"more": True}),
    "replaced": ({"id": TODAY["id"], "stamp": TEXT, "note": TEXT, "gone": TEXT}, {"gone": "x"}),
}


def test_a_merge_takes_a_record_once_more_for_the_value_of_a_new_column_and_an_append_does_not() -> None:
    narrow, wide = (
        pa.RecordBatch.from_pylist([{"id": 1, "at": 5}]),
        pa.RecordBatch.from_pylist([{"id": 1, "at": 5, "new": 9}]),
    )
    for is_merged in (True, False):
        first = known(is_merged, None)
        first.take(narrow)
        second = known(is_merged, first.at(5, is_complete=True))
        assert second.take(wide).num_rows == is_merged
        third = known(is_merged, second.at(5, is_complete=True))
        assert third.take(wide).num_rows == 0


def test_records_at_the_place_of_each_partition_are_recognised_and_no_others() -> None:
    batch = pa.RecordBatch.from_pylist([{"id": number, "at": number} for number in range(10)])
    first = known(False, None)
    first.take(batch)
    second = known(False, first.at(None, values=[3, 9]))
    assert second.take(batch.take([3, 9])).num_rows == 0
    assert second.take(batch.take([5])).num_rows == 1
    third = known(False, second.at(None, values=[3, 9]))
    assert third.take(batch.take([3, 9])).num_rows == 0


def known(is_merged: bool, bookmark: dict[str, object] | None) -> ResentRecords:
    return ResentRecords("s", "at", bookmark, keys=["id"], is_merged=is_merged)


class Tap:
    """A tap that sends all of its records in each run, as one does whose records have one stamp."""

    def __init__(self, keys: tuple[str, ...], *, is_merged: bool) -> None:
        self.keys, self.is_merged = keys, is_merged
        self.mark: Bookmark | None = None

    def run(self, columns: Mapping[str, Any], *rows: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
        """Return what of these records arrives in a run."""
        rows_of = [record("orders", **{"stamp": "a", "note": "n", **row}) for row in rows]
        return self.lines(columns, *rows_of, state(orders={"stamp": "a"}), **more)

    def lines(self, columns: Mapping[str, Any], *messages: Any, marks: int = -1, **more: Any) -> list[dict[str, Any]]:
        """Return what arrives; the next run goes on from one of the checkpoints (`marks`: the last)."""
        of = {"properties": columns}
        stream = replace(
            offered := stream_of("orders", of, "stamp", key=self.keys),
            read=replace(offered.read, may_repeat=self.is_merged),
        )
        block = lines(schema("orders", of, self.keys), *messages)
        events = read(block, streams=[stream], bookmarks={"orders": self.mark}, **more)
        self.mark = json.loads(json.dumps(checkpoints(events, "orders")[marks]))
        return records(events, "orders")


@pytest.mark.parametrize("is_merged", [False, True], ids=["append", "merge"])
@pytest.mark.parametrize("keys", [("id",), ()], ids=["keys", "no keys"])
@pytest.mark.parametrize("change", BEFORE)
def test_after_a_change_of_columns_a_record_that_changes_at_the_bookmark_is_new(
    change: str, keys: tuple[str, ...], is_merged: bool
) -> None:
    """As often as it changes, and the record beside it is not doubled."""
    tap = Tap(keys, is_merged=is_merged)
    columns, old = BEFORE[change]
    tap.run(columns, {**old, "id": 1}, {**old, "id": 2})
    found = []
    for value in (8, 9, 8, 8):
        arrived = tap.run(TODAY, {"id": 1, "more": value}, {"id": 2, "more": 0})
        found.append([(each["id"], each["more"]) for each in arrived])
    is_known = change == "added" and not is_merged
    assert found[0] == ([] if is_known else [(1, 8), (2, 0)])
    assert found[1:] == ([[(1, 9)], [(1, 8)], []] if keys or is_merged else [[(1, 9)], [], []]), "no keys: counted"


@pytest.mark.parametrize("is_merged", [False, True], ids=["append", "merge"])
def test_so_it_is_after_a_run_that_ended_in_the_middle(is_merged: bool) -> None:
    """Records that it had not met yet are recognised by the former columns, those that it had by all of today."""
    tap = Tap(("id",), is_merged=is_merged)
    narrow, of = BEFORE["added"][0], state(orders={"stamp": "a"})
    tap.lines(narrow, *(record("orders", id=number, stamp="b") for number in (1, 2)), of)
    cut_off = [record("orders", id=number, stamp="b", more=number) for number in (1, 3, 2)]
    later = (state(orders={"stamp": stamp}) for stamp in ("aa", "b"))
    tap.lines(TODAY, *cut_off[:2], next(later), cut_off[2], next(later), marks=0, checkpoint_records=1)
    arrived = tap.lines(TODAY, *(record("orders", id=number, stamp="b", more=9) for number in (1, 2, 3)), of)
    assert [each["id"] for each in arrived] == ([1, 2, 3] if is_merged else [1, 3])


@pytest.mark.parametrize("is_merged", [False, True], ids=["append", "merge"])
def test_so_it_is_of_columns_that_the_tap_declares_in_the_middle(is_merged: bool) -> None:
    tap = Tap(("id",), is_merged=is_merged)
    narrow, of = BEFORE["added"][0], state(orders={"stamp": "a"})
    first, second = record("orders", id=1, stamp="a"), record("orders", id=2, stamp="a", more=2)
    tap.lines(narrow, first, schema("orders", {"properties": TODAY}), second, of)
    arrived = tap.lines(TODAY, first, {**second, "record": {**second["record"], "more": 3}}, of)
    assert [each["id"] for each in arrived] == ([1, 2] if is_merged else [2])
    assert tap.lines(TODAY, first, {**second, "record": {**second["record"], "more": 3}}, of) == []
