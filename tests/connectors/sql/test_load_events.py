"""Events, cut at schemas and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from syncblocks.connectors.sql.load.events import LoadEvents
from syncblocks.connectors.stream import Checkpoint, Event, Stream

BATCH = pa.RecordBatch.from_pydict({"a": [1, 2]})
EMPTY = BATCH.slice(0, 0)


def test_data_ends_at_the_next_marker() -> None:
    arriving = LoadEvents(iter([BATCH, EMPTY, BATCH, Checkpoint(), BATCH, Checkpoint(is_final=True)]))
    assert arriving.has_data()
    assert [batch.num_rows for batch in arriving.data()] == [2, 2]
    assert arriving.records == 4
    assert arriving.marker() == Checkpoint()
    arriving.reset()
    assert [batch.num_rows for batch in arriving.data()] == [2]
    assert arriving.records == 2
    assert arriving.marker() == Checkpoint(is_final=True)
    assert arriving.marker() is None


def test_batches_without_records_are_no_data() -> None:
    arriving = LoadEvents(iter([EMPTY, EMPTY, Checkpoint()]))
    assert not arriving.has_data()
    assert arriving.marker() == Checkpoint()


def test_a_schema_is_a_marker() -> None:
    stream = Stream(name="s", schema=BATCH.schema)
    arriving = LoadEvents(iter([stream, BATCH]))
    assert not arriving.has_data()
    assert arriving.marker() is stream
    assert arriving.has_data()


def test_raw_blocks_count_as_bytes() -> None:
    arriving = LoadEvents(iter([b"abc", b"de", Checkpoint()]))
    assert list(arriving.data()) == [b"abc", b"de"]
    assert (arriving.records, arriving.size_bytes) == (0, 5)


def test_what_the_iterator_raised_is_kept() -> None:
    def events() -> Iterator[Event]:
        yield BATCH
        raise KeyError("mine")

    arriving = LoadEvents(events())
    with pytest.raises(KeyError, match="mine"):
        list(arriving.data())
    assert isinstance(arriving.error, KeyError)
    assert arriving.peek() is None


def test_what_is_left_is_looked_at_and_still_comes() -> None:
    final = Checkpoint(is_final=True)
    arriving = LoadEvents(iter([b"abc", b"de", final]))
    assert arriving.peek() == b"abc"
    rest = arriving.rest(5)
    assert rest == [b"abc", b"de", final]
    assert next(arriving.data()) == b"abc"
    arriving.restart(rest)
    assert list(arriving.data()) == [b"abc", b"de"]
    assert (arriving.size_bytes, arriving.marker(), arriving.marker()) == (5, final, None)


@pytest.mark.parametrize("events", [[b"abcdef", Checkpoint(is_final=True)], [b"a", Checkpoint(), b"b"], [b"a"], []])
def test_more_than_little_or_than_one_segment_is_left_as_it_comes(events: list[Event]) -> None:
    arriving = LoadEvents(iter(events))
    assert arriving.rest(5) == []
    came: list[object] = []
    while arriving.peek() is not None:
        came += list(arriving.data()) if arriving.has_data() else [arriving.marker()]
    assert came == events
