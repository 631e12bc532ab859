"""Events, cut at schemas and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from connectors.sql.segments import Segments
from connectors.stream import Checkpoint, Event, Stream

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
