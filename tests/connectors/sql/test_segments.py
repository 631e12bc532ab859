"""Events, cut at schemas and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from syncblocks.connectors.sql.load.segments import Segments
from syncblocks.connectors.stream import Checkpoint, Event, Stream

BATCH = pa.RecordBatch.from_pydict({"a": [1, 2]})
EMPTY = BATCH.slice(0, 0)


def test_data_ends_at_the_next_marker() -> None:
    segments = Segments(iter([BATCH, EMPTY, BATCH, Checkpoint(), BATCH, Checkpoint(is_final=True)]))
    assert segments.has_data()
    assert [batch.num_rows for batch in segments.data()] == [2, 2]
    assert segments.records == 4
    assert segments.marker() == Checkpoint()
    segments.reset()
    assert [batch.num_rows for batch in segments.data()] == [2]
    assert segments.records == 2
    assert segments.marker() == Checkpoint(is_final=True)
    assert segments.marker() is None


def test_batches_without_records_are_no_data() -> None:
    segments = Segments(iter([EMPTY, EMPTY, Checkpoint()]))
    assert not segments.has_data()
    assert segments.marker() == Checkpoint()


def test_a_schema_is_a_marker() -> None:
    stream = Stream(name="s", schema=BATCH.schema)
    segments = Segments(iter([stream, BATCH]))
    assert not segments.has_data()
    assert segments.marker() is stream
    assert segments.has_data()


def test_raw_blocks_count_as_bytes() -> None:
    segments = Segments(iter([b"abc", b"de", Checkpoint()]))
    assert list(segments.data()) == [b"abc", b"de"]
    assert (segments.records, segments.size_bytes) == (0, 5)


def test_what_the_iterator_raised_is_kept() -> None:
    def events() -> Iterator[Event]:
        yield BATCH
        raise KeyError("mine")

    segments = Segments(events())
    with pytest.raises(KeyError, match="mine"):
        list(segments.data())
    assert isinstance(segments.error, KeyError)
    assert segments.peek() is None


def test_what_is_left_is_looked_at_and_still_comes() -> None:
    final = Checkpoint(is_final=True)
    segments = Segments(iter([b"abc", b"de", final]))
    assert segments.peek() == b"abc"
    rest = segments.rest(5)
    assert rest == [b"abc", b"de", final]
    assert next(segments.data()) == b"abc"
    segments.restart(rest)
    assert list(segments.data()) == [b"abc", b"de"]
    assert (segments.size_bytes, segments.marker(), segments.marker()) == (5, final, None)


@pytest.mark.parametrize("events", [[b"abcdef", Checkpoint(is_final=True)], [b"a", Checkpoint(), b"b"], [b"a"], []])
def test_more_than_little_or_than_one_segment_is_left_as_it_comes(events: list[Event]) -> None:
    segments = Segments(iter(events))
    assert segments.rest(5) == []
    came: list[object] = []
    while segments.peek() is not None:
        came += list(segments.data()) if segments.has_data() else [segments.marker()]
    assert came == events
