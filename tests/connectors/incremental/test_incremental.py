"""Bookmarks under strain: many ties, and records past what is settled."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa
import pytest

from syncblocks.connectors.errors import RetriableError
from syncblocks.connectors.filters import condition_of
from syncblocks.connectors.incremental.bookmarks import BOUNDARY, values
from syncblocks.connectors.incremental.checkpoints import MANY_HASHES, MAX_UNSETTLED, Horizon, incremental
from syncblocks.connectors.read_spec import ReadSpec, ReplicationMethod
from syncblocks.connectors.stream import Bookmark, Checkpoint, Stream
from syncblocks.connectors.struct_helpers import replace

SCHEMA = pa.schema([("id", pa.int64()), ("t", pa.int64())])
APPENDED = Stream(
    name="s", schema=SCHEMA, read=ReadSpec(method=ReplicationMethod.INCREMENTAL, bookmark_properties=("t",))
)
MERGED = replace(APPENDED, read=replace(APPENDED.read, may_repeat=True))


def batches(*parts: tuple[Sequence[int], int]) -> list[pa.RecordBatch]:
    """One batch a part: ids, and the bookmark that all of them have."""
    return [pa.RecordBatch.from_arrays([pa.array(ids), pa.repeat(t, len(ids))], schema=SCHEMA) for ids, t in parts]


def run(
    stream: Stream,
    found: list[pa.RecordBatch],
    bookmark: Bookmark | None = None,
    settled: int | None = 10**9,
    every: int = 10**9,
) -> tuple[list[int], list[Bookmark]]:
    """Return ids and bookmarks; `settled` None: nothing past the bookmark is."""
    horizon = Horizon(settled=None if settled is None else (pa.scalar(settled),))
    ids: list[int] = []
    bookmarks = []
    events = incremental(stream, found, bookmark, is_ordered=True, horizon=horizon, checkpoint_records=every)
    for event in events:
        if isinstance(event, Checkpoint):
            bookmarks.append(json.loads(json.dumps(event.bookmark)))
        else:
            assert isinstance(event, pa.RecordBatch)
            ids += event["id"].to_pylist()
    return ids, bookmarks


@pytest.mark.full
def test_many_ties_of_an_append_cost_eleven_bytes_each() -> None:
    ties = [(range(start, start + 13_000), 5) for start in range(0, 65_000, 13_000)]
    ids, (bookmark,) = run(APPENDED, batches(([-1], 4), *ties))
    assert len(ids) == 65_001
    assert len(json.dumps(bookmark)) < 11 * 65_000
    ids, _ = run(APPENDED, batches(*ties, ([65_000, 65_001], 5)), bookmark)
    assert ids == [65_000, 65_001]


def test_many_ties_of_a_merge_cost_nothing_and_come_again() -> None:
    ties = (range(MANY_HASHES + 1), 5)
    _, (bookmark,) = run(MERGED, batches(ties))
    assert len(json.dumps(bookmark)) < 200
    ids, (again,) = run(MERGED, batches(ties, ([-1], 5)), bookmark)
    assert len(ids) == MANY_HASHES + 2
    assert values(again) == {"t": 5}


def test_no_checkpoint_is_made_amid_many_ties() -> None:
    ties = [(range(start, start + 4000), 5) for start in range(0, 20_000, 4000)]
    _, bookmarks = run(APPENDED, batches(([-1], 4), *ties, ([-2], 6), ([-3], 7)), every=1)
    sizes = [len(json.dumps(bookmark)) for bookmark in bookmarks]
    assert max(sizes) < 11 * MANY_HASHES + 200
    assert [values(bookmark) for bookmark in bookmarks] == [{"t": t} for t in (4, 5, 5, 6, 7, 7)]


@pytest.mark.parametrize("stream", [APPENDED, MERGED], ids=["append", "merge"])
def test_what_is_past_the_horizon_comes_at_once_and_keeps_the_bookmark_back(stream: Stream) -> None:
    ids, (bookmark,) = run(stream, batches(([1], 1), ([2], 2), ([4], 4), ([5], 5)), settled=2)
    assert ids == [1, 2, 4, 5]
    assert values(bookmark) == {"t": 2}
    late = batches(([2], 2), ([3], 3), ([4], 4), ([5], 5), ([6], 5))
    ids, (bookmark,) = run(stream, late, bookmark, settled=None)
    assert ids == [3, 6]
    assert values(bookmark) == {"t": 2}
    ids, (bookmark,) = run(stream, [*late, *batches(([7], 9))], bookmark, settled=5)
    assert ids == [7]
    assert values(bookmark) == {"t": 5}
    ids, (bookmark,) = run(stream, batches(([5, 6], 5), ([7], 9)), bookmark)
    assert ids == []
    assert values(bookmark) == {"t": 9}


def test_from_scratch_nothing_may_be_settled() -> None:
    ids, (bookmark,) = run(APPENDED, batches(([2], 2), ([3], 3)), settled=None)
    assert ids == [2, 3]
    assert values(bookmark) == {"t": None}
    ids, (bookmark,) = run(APPENDED, batches(([1], 1), ([2], 2), ([3], 3), ([4], 4)), bookmark)
    assert ids == [1, 4]
    assert values(bookmark) == {"t": 4}


def test_a_run_that_ends_early_forgets_none_of_those_sent_before() -> None:
    _, (bookmark,) = run(APPENDED, batches(([1], 1), ([2], 2), ([3], 3), ([4], 4)), settled=1)
    # Dies after its first checkpoint, with half of them met again.
    _, bookmarks = run(APPENDED, batches(([1], 1), ([9], 1), ([2], 2), ([3], 3)), bookmark, settled=2, every=1)
    ids, _ = run(APPENDED, batches(([1], 1), ([9], 1), ([2], 2), ([3], 3), ([4], 4)), bookmarks[0])
    assert ids == []


@pytest.mark.full
def test_an_append_waits_with_what_would_make_the_bookmark_too_large() -> None:
    size = MAX_UNSETTLED // 4 + 1
    found = batches(*[(range(start * size, (start + 1) * size), start) for start in range(6)])
    ids, (bookmark,) = run(APPENDED, found, settled=None)
    assert len(ids) == 4 * size
    later, (bookmark,) = run(APPENDED, found, bookmark)
    assert len(later) == 2 * size
    assert set(ids) | set(later) == set(range(6 * size))
    assert values(bookmark) == {"t": 5}


@pytest.mark.full
def test_an_append_of_one_interval_fails_instead_of_waiting() -> None:
    """The next run reads another interval, so the records that wait would be lost."""
    size = MAX_UNSETTLED // 4 + 1
    found = batches(*[(range(start * size, (start + 1) * size), start) for start in range(6)])
    condition = replace(condition_of(pa.field("t", pa.int64()), ">=", [0]), of_interval="x")
    stream = replace(APPENDED, read=replace(APPENDED.read, where=(condition,)))
    with pytest.raises(RetriableError, match="another interval"):
        run(stream, found, settled=None)


def test_a_merge_does_not_wait() -> None:
    found = batches((range(MANY_HASHES), 1), (range(MANY_HASHES, 2 * MANY_HASHES), 2), ([-1], 3))
    ids, (bookmark,) = run(MERGED, found, settled=0)
    assert len(ids) == 2 * MANY_HASHES + 1
    assert bookmark[BOUNDARY]["hashes"] == ""
    assert len(run(MERGED, found, bookmark)[0]) == len(ids)


def test_a_merge_commits_on_the_way_even_where_nothing_is_settled() -> None:
    found = batches(*[(range(start, start + 6000), start) for start in range(0, 24_000, 6000)])
    ids, marks = run(MERGED, found, settled=None, every=6000)
    assert [values(mark) for mark in marks] == [{"t": None}] * 4
    assert run(MERGED, found, marks[0])[0] == ids == list(range(24_000))
