"""A feed on disk, for streams of a group whose load must wait for the end of another load."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from msgspec import Struct

from syncblocks.connectors.local_files import make_private_folder
from syncblocks.connectors.struct_helpers import replace

from .feed import Budget, Feed, Item


class _Kept(Struct, frozen=True):
    """Position of a batch in the file."""

    start: int
    size_bytes: int


class SpooledFeed(Feed):
    """Accepts every event at once, so that the group's reader never waits; batches go to an unnamed file."""

    def __init__(self, stream: str, folder: Path, budget: Budget | None = None, key: Sequence[str] = ()) -> None:
        # Uses no memory of the run's budget; a record larger than the budget is refused here too.
        super().__init__(stream, budget and Budget(sys.maxsize, budget.record_bytes), key)
        make_private_folder(folder)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 -- closed by `close`
        self._end = 0

    def put(self, item: Item) -> bool:
        """Add one event; return False if the load is over."""
        with self._changed:
            if self._is_closed:
                return False
            event = item.event
            if isinstance(event, pa.RecordBatch):
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, event.schema) as writer:
                    writer.write_batch(event)
                data = sink.getvalue()
                self._file.seek(self._end)
                self._file.write(data)
                item = replace(item, event=_Kept(self._end, data.size))
                self._end += data.size
            self._items.append(item)
            self._arrived.notify_all()
            return True

    def close(self) -> None:
        """Accept no more events, and remove the file."""
        super().close()
        with self._changed:
            self._file.close()

    def __iter__(self) -> Iterator[Item]:
        for item in super().__iter__():
            event = item.event
            if not isinstance(event, _Kept):
                yield item
                continue
            with self._changed:
                if self._is_closed:
                    return
                self._file.seek(event.start)
                data = self._file.read(event.size_bytes)
            yield replace(item, event=pa.ipc.open_stream(data).read_next_batch())
