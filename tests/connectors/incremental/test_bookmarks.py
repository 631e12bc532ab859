"""Every record exactly once over all runs, whatever ties, batches, types and crashes there are."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.incremental.bookmarks import (
    BOUNDARY,
    at_or_past,
    bookmark_values,
    values,
)
from syncblocks.connectors.incremental.checkpoints import incremental
from syncblocks.connectors.incremental.hashes import BY_VALUE, record_hashes
from syncblocks.connectors.stream import Bookmark, Checkpoint, Stream
from syncblocks.connectors.struct_helpers import replace
from tests.connectors.incremental.bookmark_runs import SCHEMA, WIDTHS, batch, hash_count, run, stream
from tests.tiers import examples

# Runs over a growing table


def in_batches(records: Sequence[Sequence[Any]], size: int) -> list[pa.RecordBatch]:
    return [batch(records[start : start + size]) for start in range(0, len(records), size)]


def is_known(record: Sequence[Any], places: Sequence[int]) -> bool:
    return all(record[place] is not None for place in places)


def as_sql_would(
    table: Sequence[Sequence[Any]], places: Sequence[int], start: Sequence[Any] | None
) -> list[Sequence[Any]]:
    """What `ORDER BY` and `WHERE >=` give: incomplete bookmarks first, and none of them past a bookmark."""
    known = sorted((r for r in table if is_known(r, places)), key=lambda r: [r[place] for place in places])
    if start is None:
        return [r for r in table if not is_known(r, places)] + known
    return [r for r in known if [r[place] for place in places] >= list(start)]


TEXTS = st.one_of(st.none(), st.sampled_from(["", "x", "é", "z"]))


@st.composite
def tables_over_time(draw: st.DrawFn) -> list[list[tuple[int, int | None, str | None]]]:
    """What each run finds new: ids go on, bookmarks may tie with, but not fall below, those of the run before."""
    runs: list[list[tuple[int, int | None, str | None]]] = []
    ids, floor = 0, (0, "")
    ticks = st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 4)), TEXTS), max_size=8)
    for _ in range(draw(st.integers(1, 4))):
        added: list[tuple[int, int | None, str | None]] = []
        for a, b in draw(ticks):
            if runs and any(runs) and (a is None or b is None or (a, b) < floor):
                continue  # nobody reads these: below the bookmark, or without one after the first run
            added.append((ids, a, b))
            # Ids repeat at times: records that are equal in everything.
            ids += draw(st.integers(0, 1))
        runs.append(added)
        known = [(a, b) for _, a, b in added if a is not None and b is not None]
        floor = max([floor, *known])
    return runs


@pytest.mark.sampled
@settings(max_examples=examples(300), deadline=None)
@given(
    runs=tables_over_time(),
    size=st.integers(1, 4),
    every=st.integers(1, 5),
    is_ordered=st.booleans(),
    crashes=st.randoms(use_true_random=False),
)
def test_every_record_comes_exactly_once(
    runs: list[list[tuple[int, int | None, str | None]]], size: int, every: int, is_ordered: bool, crashes: Any
) -> None:
    """Each run may die after any of its checkpoints; what came before that one is committed, the rest never was."""
    of, places = stream("a", "b"), (1, 2)
    table: list[tuple[int, int | None, str | None]] = []
    committed: list[tuple[Any, ...]] = []
    bookmark: Bookmark | None = None
    for added in runs:
        table += added
        is_done = False
        while not is_done:
            is_done = crashes.random() < 0.5
            shown = values(bookmark)
            start = list(shown.values()) if shown and shown["a"] is not None else None
            found = as_sql_would(table, places, start) if is_ordered else list(table)
            pending: list[tuple[Any, ...]] = []
            events = incremental(of, in_batches(found, size), bookmark, is_ordered=is_ordered, checkpoint_records=every)
            for event in events:
                if isinstance(event, pa.RecordBatch):
                    pending += [tuple(record.values()) for record in event.to_pylist()]
                    continue
                assert isinstance(event, Checkpoint)
                bookmark = json.loads(json.dumps(event.bookmark, allow_nan=False))
                committed, pending = committed + pending, []
                if not is_done and crashes.random() < 0.5:
                    break
            else:
                is_done = True
    assert Counter(committed) == Counter(table)


@pytest.mark.full
@settings(max_examples=200, deadline=None)
@given(
    records=st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 4)), TEXTS), max_size=20),
    cut=st.integers(0, 20),
    is_ordered=st.booleans(),
)
def test_an_updated_record_gets_through_within_the_same_tick(
    records: list[tuple[int, int | None, str | None]], cut: int, is_ordered: bool
) -> None:
    """Committed records at the boundary that changed since then are read again, unchanged ones are not."""
    of = stream("a")
    seen, checkpoints = run(of, [batch(as_sql_would(records, (1,), None))])
    assert Counter(seen) == Counter(records)
    bookmark = checkpoints[-1].bookmark
    high = max((a for _, a, _ in records if a is not None), default=None)
    changed = [
        (i, a, f"{b}!") if n < cut and a == high is not None else (i, a, b) for n, (i, a, b) in enumerate(records)
    ]
    found = as_sql_would(changed, (1,), None if high is None else (high,)) if is_ordered else changed
    again, _ = run(of, [batch(found)], bookmark, is_ordered=is_ordered)
    assert Counter(again) == Counter(changed) - Counter(records)


def test_ties_may_be_split_by_a_checkpoint() -> None:
    first, checkpoints = run(stream(), in_batches([(1, 1, ""), (2, 1, ""), (3, 1, "")], 1), checkpoint_records=2)
    assert len(checkpoints) == 2
    assert len(first) == 3
    rest, _ = run(stream(), [batch([(1, 1, ""), (2, 1, ""), (3, 1, ""), (4, 1, "")])], checkpoints[0].bookmark)
    assert rest == [(3, 1, ""), (4, 1, "")]


def test_only_the_boundary_is_kept() -> None:
    """A bookmark does not grow with the table."""
    _, checkpoints = run(stream(), in_batches([(n, n // 2, "") for n in range(100)], 7))
    assert hash_count(checkpoints[-1]) == 2


def test_equal_records_are_counted() -> None:
    _, checkpoints = run(stream(), [batch([(1, 1, ""), (1, 1, "")])])
    again, _ = run(stream(), [batch([(1, 1, "")] * 3)], checkpoints[-1].bookmark)
    assert again == [(1, 1, "")]


def test_a_column_added_later_makes_no_old_record_new() -> None:
    _, checkpoints = run(stream(), [batch([(1, 1, "x"), (2, 2, "x")])])
    wider = SCHEMA.append(pa.field("c", pa.int64()))
    again, second = run(
        stream(schema=wider), [batch([(2, 2, "x", 9), (3, 3, "x", 9)], wider)], checkpoints[-1].bookmark
    )
    assert again == [(3, 3, "x", 9)]
    changed, _ = run(stream(schema=wider), [batch([(3, 3, "x", 8)], wider)], second[-1].bookmark)
    assert changed == [(3, 3, "x", 8)], "past the first bookmark the new column counts"


@pytest.mark.parametrize("is_ordered", [True, False])
def test_a_merge_sends_the_boundary_once_more_for_the_values_of_a_new_column(is_ordered: bool) -> None:
    merged = replace(offered := stream(), key_properties=("id",), read=replace(offered.read, may_repeat=True))
    _, checkpoints = run(merged, [batch([(1, 1, "x"), (2, 2, "x")])], is_ordered=is_ordered)
    wider = replace(merged, schema=SCHEMA.append(pa.field("c", pa.int64())))
    records = [batch([(2, 2, "x", 9)], wider.schema)]
    again, second = run(wider, records, checkpoints[-1].bookmark, is_ordered=is_ordered)
    assert again == [(2, 2, "x", 9)]
    rest, _ = run(wider, records, second[-1].bookmark, is_ordered=is_ordered)
    assert rest == []


def test_a_column_dropped_later_reads_the_boundary_again_rather_than_lose_it() -> None:
    _, checkpoints = run(stream(), [batch([(1, 1, "x"), (2, 2, "x")])])
    narrow = pa.schema([SCHEMA.field("id"), SCHEMA.field("a")])
    again, _ = run(stream(schema=narrow), [batch([(2, 2), (3, 3)], narrow)], checkpoints[-1].bookmark)
    assert again == [(2, 2), (3, 3)]


@pytest.mark.parametrize("is_ordered", [True, False])
def test_where_a_column_was_dropped_an_append_knows_the_boundary_by_its_keys(is_ordered: bool) -> None:
    """Not for ever: once the bookmark moves on, whole records count again."""
    narrow, options = pa.schema([SCHEMA.field("id"), SCHEMA.field("a")]), {"is_ordered": is_ordered}
    wide_stream, keyed = (
        replace(stream(), key_properties=("id",)),
        replace(stream(schema=narrow), key_properties=("id",)),
    )
    _, checkpoints = run(wide_stream, [batch([(1, 1, "x"), (2, 2, "x"), (3, 2, "x")])], **options)
    again, second = run(keyed, [batch([(2, 2), (3, 2), (4, 2)], narrow)], checkpoints[-1].bookmark, **options)
    assert again == [(4, 2)]
    again, third = run(keyed, [batch([(2, 2), (4, 2), (3, 2), (5, 3)], narrow)], second[-1].bookmark, **options)
    assert again == [(5, 3)]
    changed = pa.schema([SCHEMA.field("id"), SCHEMA.field("a"), SCHEMA.field("b")])
    wider = replace(stream(schema=changed), key_properties=("id",))
    _, fourth = run(wider, [batch([(5, 3, "x"), (6, 4, "x")])], third[-1].bookmark, **options)
    again, _ = run(wider, [batch([(6, 4, "y")])], fourth[-1].bookmark, **options)
    assert again == [(6, 4, "y")]


@pytest.mark.parametrize("is_ordered", [True, False])
@pytest.mark.parametrize("keys", [("id",), ()], ids=["keys", "no keys"])
@pytest.mark.parametrize(
    "before",
    [SCHEMA, SCHEMA.set(2, pa.field("b", pa.int64())), SCHEMA.append(pa.field("gone", pa.string()))],
    ids=["added", "retyped", "dropped"],
)
def test_after_a_change_of_columns_a_record_that_changes_at_the_bookmark_is_new(
    before: pa.Schema, keys: tuple[str, ...], is_ordered: bool
) -> None:
    """Also while the bookmark stays, and as often as it changes; of an append, since a merge sends it anyway."""
    today = SCHEMA.append(pa.field("c", pa.int64()))
    old = {"id": 1, "a": 7, "b": None, "gone": "x"}
    records = pa.RecordBatch.from_pylist([{name: old[name] for name in before.names}], before)
    _, marks = run(replace(stream(schema=before), key_properties=keys), [records], is_ordered=is_ordered)
    found = []
    for value in (8, 9, 8, 8):
        of = replace(stream(schema=today), key_properties=keys)
        source = [batch([(1, 7, None, value)], today)]
        records_sent, marks = run(of, source, marks[-1].bookmark, is_ordered=is_ordered)
        found.append([record[3] for record in records_sent])
    assert found[1:] == ([[9], [8], []] if keys else [[9], [], []]), "without keys, equal records are counted"


@pytest.mark.parametrize("keys", [("id",), ()], ids=["keys", "no keys"])
def test_so_it_is_after_a_run_that_ended_in_the_middle(keys: tuple[str, ...]) -> None:
    """What it had sent at the bookmark is known by all columns, also where the bookmark's are fewer."""
    of = replace(stream(schema=SCHEMA.append(pa.field("c", pa.int64()))), key_properties=keys)
    _, marks = run(replace(stream(), key_properties=keys), [batch([(1, 7, "x")])])
    source = [batch([(number, 7, "x", 8)], of.schema) for number in (1, 2, 3)]
    _, marks = run(of, source, marks[-1].bookmark, checkpoint_records=1)
    changed = [batch([(1, 7, "x", 8), (2, 7, "x", 9), (3, 7, "x", 8)], of.schema)]
    arrived, _ = run(of, changed, marks[0].bookmark)
    assert (2, 7, "x", 9) in arrived


@pytest.mark.parametrize("keys", [("id",), ()], ids=["keys", "no keys"])
@pytest.mark.parametrize("change", ["added", "retyped", "dropped"])
def test_an_append_warns_where_it_knows_records_by_their_keys_alone(
    change: str, keys: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """A change of one of them is not sent, until somebody sets the bookmark."""
    before = {
        "added": SCHEMA,
        "retyped": SCHEMA.append(pa.field("c", pa.bool_())),
        "dropped": SCHEMA.append(pa.field("gone", pa.string())),
    }[change]
    old = {"id": 1, "a": 7, "b": "x"}
    _, marks = run(replace(stream(schema=before), key_properties=keys), [pa.RecordBatch.from_pylist([old], before)])
    of = replace(stream(schema=SCHEMA.append(pa.field("c", pa.int64()))), key_properties=keys)
    source = [batch([(1, 7, "y", None)], of.schema)]
    arrived, marks = run(of, source, marks[-1].bookmark)
    is_by_key = bool(keys) and change != "added"
    assert ("recognised by their keys" in caplog.text, arrived == []) == (is_by_key, is_by_key)
    caplog.clear()
    arrived, _ = run(of, source, marks[-1].bookmark)
    assert (arrived, caplog.text) == ([], "")
    assert run(of, source, values(marks[-1].bookmark))[0] == [(1, 7, "y", None)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (pa.array([7]), pa.array([7.0])),
        (pa.array([7], pa.uint64()), pa.array([Decimal(7)], pa.decimal128(20))),
        (pa.array([Decimal("1.50")], pa.decimal128(9, 2)), pa.array([Decimal("1.500")], pa.decimal128(9, 3))),
        (pa.array([1.5]), pa.array([Decimal("1.500")], pa.decimal128(9, 3))),
        (pa.array([18262], pa.date32()), pa.array([1577836800], pa.timestamp("s"))),
        (pa.array([1577836800], pa.timestamp("s")), pa.array([1577836800 * 10**9], pa.timestamp("ns"))),
        (pa.array([-1], pa.timestamp("us", "UTC")), pa.array([-1000], pa.timestamp("ns", "UTC"))),
        (pa.array([36000], pa.time32("s")), pa.array([36000 * 10**6], pa.time64("us"))),
    ],
)
@pytest.mark.parametrize("name", ["a", "v"])
def test_a_record_at_the_bookmark_is_known_again_when_its_column_has_become_wider(
    name: str, before: pa.Array, after: pa.Array
) -> None:
    """As the bookmark itself, and beside it."""
    bookmark, records = None, []
    for column, others in ((before, [1]), (after, [1])):
        found = pa.record_batch({"a": others, "v": others} | {name: column})
        records, (checkpoint,) = run(stream(schema=found.schema), [found], bookmark, is_ordered=False)
        bookmark = checkpoint.bookmark
    assert records == []


def test_a_bookmark_of_before_is_gone_on_with() -> None:
    """Its hashes are of numbers as their types have them."""
    _, (checkpoint,) = run(stream(), [batch([(1, 5, "x")])])
    kept = checkpoint.bookmark[BOUNDARY]
    hashes = record_hashes(batch([(1, 5, "x")]), kept["columns"])
    old = {"a": 5, BOUNDARY: {"columns": kept["columns"], "hashes": b64encode(b"".join(hashes)).decode()}}
    records, (second,) = run(stream(), [batch([(1, 5, "x"), (2, 5, "y")])], old)
    assert [record[0] for record in records] == [2]
    assert BY_VALUE not in second.bookmark[BOUNDARY]
    records, (third,) = run(stream(), [batch([(1, 5, "x"), (2, 5, "y"), (3, 6, "z")])], second.bookmark)
    assert [record[0] for record in records] == [3]
    assert third.bookmark[BOUNDARY][BY_VALUE]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((pa.int64(), 5), (pa.decimal128(9, 2), Decimal("5.00"))),
        ((pa.decimal128(5, 2), Decimal("1.50")), (pa.decimal128(7, 3), Decimal("1.500"))),
        ((pa.decimal128(5, 2), Decimal("1.50")), (pa.string(), "1.50")),  # a `numeric` without precision
    ],
)
def test_where_a_column_has_another_type_an_append_knows_the_boundary_by_its_keys(
    before: tuple[pa.DataType, Any], after: tuple[pa.DataType, Any]
) -> None:
    def of(kind: pa.DataType) -> Stream:
        schema = SCHEMA.set(2, pa.field("b", kind))
        return replace(stream(schema=schema), key_properties=("id",))

    old, new = of(before[0]), of(after[0])
    _, checkpoints = run(old, [batch([(1, 1, before[1]), (2, 2, before[1])], old.schema)])
    again, _ = run(new, [batch([(2, 2, after[1]), (3, 2, after[1])], new.schema)], checkpoints[-1].bookmark)
    assert again == [(3, 2, after[1])]


def test_an_integer_of_another_width_is_the_same_value() -> None:
    narrow, wide = (replace(stream(schema=SCHEMA.set(2, pa.field("b", k))), key_properties=("id",)) for k in WIDTHS)
    _, checkpoints = run(narrow, [batch([(1, 1, 7)], narrow.schema)])
    again, _ = run(wide, [batch([(1, 1, 7), (1, 1, 8)], wide.schema)], checkpoints[-1].bookmark)
    assert again == [(1, 1, 8)], "whole records count still"


@pytest.mark.parametrize("may_repeat", [True, False])
def test_hashes_of_keys_stand_beside_those_of_records(may_repeat: bool) -> None:
    of = replace(offered := stream(), key_properties=("id",), read=replace(offered.read, may_repeat=may_repeat))
    _, checkpoints = run(of, [batch([(1, 1, "x"), (2, 1, "x")])])
    kept = checkpoints[-1].bookmark[BOUNDARY]
    assert len(kept["hashes"]) == len(kept["keys"]["hashes"])
    assert kept["keys"]["columns"] == ["id"]


def test_unordered_batches_get_one_checkpoint_after_all() -> None:
    records, checkpoints = run(
        stream(), in_batches([(1, 5, ""), (2, 1, ""), (3, 5, "")], 1), is_ordered=False, checkpoint_records=1
    )
    assert len(records) == 3
    assert [values(checkpoint.bookmark) for checkpoint in checkpoints] == [{"a": 5}]


def test_a_checkpoint_comes_by_time_as_well() -> None:
    ticks = iter([0.0, 10.0, 31.0, 31.0, 40.0, 50.0])
    _, checkpoints = run(stream(), in_batches([(n, n, "") for n in range(4)], 1), clock=lambda: next(ticks))
    assert [values(checkpoint.bookmark) for checkpoint in checkpoints] == [{"a": 1}, {"a": 3}]


# Records without a bookmark


def test_no_checkpoint_comes_before_the_first_bookmark() -> None:
    """A run that died after one would begin from scratch, and double them."""
    records = [(1, None, ""), (2, None, ""), (3, 1, "")]
    _, checkpoints = run(stream(), in_batches(records, 1), checkpoint_records=1)
    assert [values(checkpoint.bookmark) for checkpoint in checkpoints] == [{"a": 1}, {"a": 1}]


def test_records_that_all_lack_a_bookmark_come_once() -> None:
    records = [(1, None, ""), (2, None, "")]
    first, checkpoints = run(stream(), [batch(records)])
    assert first == records
    assert values(checkpoints[-1].bookmark) == {"a": None}
    assert bookmark_values(stream(), checkpoints[-1].bookmark) is None
    again, second = run(stream(), [batch([*records, (3, 1, "")])], checkpoints[-1].bookmark)
    assert again == [(3, 1, "")]
    assert values(second[-1].bookmark) == {"a": 1}


def test_an_empty_stream_has_no_bookmark() -> None:
    assert run(stream(), [batch([])])[1] == [Checkpoint(bookmark=None)]


def test_a_record_without_a_bookmark_after_a_checkpoint_is_an_error_not_a_loss() -> None:
    with pytest.raises(FatalConnectorError, match="yield such records first"):
        run(stream(), in_batches([(1, 1, ""), (2, None, "")], 1), checkpoint_records=1)


def test_not_a_number_counts_as_no_bookmark() -> None:
    schema = pa.schema([("id", pa.int64()), ("a", pa.float64())])
    records, checkpoints = run(stream(schema=schema), [batch([(1, math.nan), (2, 1.5)], schema)], is_ordered=False)
    assert len(records) == 2
    assert values(checkpoints[-1].bookmark) == {"a": 1.5}
    again, _ = run(stream(schema=schema), [batch([(1, math.nan), (2, 1.5)], schema)], checkpoints[-1].bookmark)
    assert again == []


def test_incomplete_bookmarks_are_never_past_one() -> None:
    records = batch([(1, 3, None), (2, 3, "x"), (3, 2, "x"), (4, None, "z")])
    start = (pa.scalar(2), pa.scalar("y"))
    assert at_or_past(records, ["a", "b"], start).to_pylist() == [False, True, False, False]
