"""Sources broken on purpose. The contract tests named by each (`caught_by`) must fail for it, and no others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.incremental.bookmarks import BOUNDARY, bookmark_values
from syncblocks.connectors.memory import MemorySource
from syncblocks.connectors.stream import Bookmark, Checkpoint, Stream
from syncblocks.connectors.struct_helpers import replace

Events = Iterator[tuple[str, Any]]
Bookmarks = Mapping[str, Bookmark | None]


class ReadsPastTheBookmark(MemorySource):
    """`>` instead of `>=`: a record that ties with the bookmark is lost."""

    caught_by = {
        "test_records_without_a_bookmark_come_in_every_run_or_never",
        "test_ties_at_the_boundary_are_not_lost",
        "test_a_bookmark_set_by_hand_reads_what_is_at_it",
        "test_checkpoints_come_after_their_records",
        "test_bookmarks_of_every_type",
        "test_two_bookmark_properties_compare_in_order",
    }

    def read(self, group: Sequence[Stream], bookmarks: Bookmarks, wire: str = "arrow") -> Events:
        starts = {stream.name: bookmark_values(stream, bookmarks.get(stream.name)) for stream in group}
        for stream in group:
            for name, event in super().read([stream], bookmarks, wire):
                start = starts[stream.name]
                if start is not None and isinstance(event, pa.RecordBatch):
                    same = pa.array([True] * event.num_rows)
                    for column, value in zip(stream.read.bookmark_properties, start, strict=True):
                        same = pc.and_(same, pc.equal(event.column(column), value))
                    yield name, event.filter(pc.invert(same))
                else:
                    yield name, event


class DoublesTheBoundary(MemorySource):
    """Forgets which of the records at the bookmark were committed."""

    caught_by = {
        "test_records_without_a_bookmark_come_in_every_run_or_never",
        "test_a_lookback_reads_again_what_is_below_the_bookmark",
        "test_from_a_bookmark_nothing_comes_twice",
        "test_checkpoints_come_after_their_records",
        "test_ties_at_the_boundary_are_not_lost",
        "test_records_without_a_bookmark_come_from_scratch_only",
        "test_bookmarks_of_every_type",
        "test_two_bookmark_properties_compare_in_order",
    }

    def read(self, group: Sequence[Stream], bookmarks: Bookmarks, wire: str = "arrow") -> Events:
        known = {name: {k: v for k, v in (b or {}).items() if k != BOUNDARY} for name, b in bookmarks.items()}
        return super().read(group, known, wire)


class ChecksBeforeItsRecords(MemorySource):
    """Sends a checkpoint one batch too early: a crash between the two loses the batch."""

    caught_by = {"test_checkpoints_come_after_their_records"}

    def read(self, group: Sequence[Stream], bookmarks: Bookmarks, wire: str = "arrow") -> Events:
        held = None
        for name, event in super().read(group, bookmarks, wire):
            if isinstance(event, pa.RecordBatch) and held is None:
                held = name, event
                continue
            yield name, event
            if held is not None and isinstance(event, Checkpoint):
                yield held
                held = None
        if held is not None:
            yield held


class LosesRecordsWithoutABookmark(MemorySource):
    """Filters by the bookmark's column even from scratch."""

    caught_by = {
        "test_records_without_a_bookmark_come_in_every_run_or_never",
        "test_records_without_a_bookmark_come_from_scratch_only",
        "test_two_bookmark_properties_compare_in_order",
    }

    def read(self, group: Sequence[Stream], bookmarks: Bookmarks, wire: str = "arrow") -> Events:
        properties = {stream.name: stream.read.bookmark_properties for stream in group}
        for name, event in super().read(group, bookmarks, wire):
            kept: Any = event
            for column in properties[name] if isinstance(event, pa.RecordBatch) else ():
                kept = kept.filter(pc.is_valid(kept.column(column)))
            yield name, kept


class YieldsAllColumns(MemorySource):
    """Ignores which columns were asked for."""

    caught_by = {"test_only_the_columns_asked_for_in_their_order"}

    def read(self, group: Sequence[Stream], bookmarks: Bookmarks, wire: str = "arrow") -> Events:
        full = {stream.name: stream.schema for stream in self.discover()}
        return super().read([replace(stream, schema=full[stream.name]) for stream in group], bookmarks, wire)


class FiltersBehindItsBookmark(MemorySource):
    """Leaves the engine's conditions to the engine: the bookmark moves past records that a later run needs."""

    caught_by = {"test_only_records_that_the_engine_lets_in_move_the_bookmark"}

    def read(self, group: Sequence[Stream], bookmarks: Bookmarks, wire: str = "arrow") -> Events:
        bare = [replace(stream, read=replace(stream.read, engine_where=())) for stream in group]
        return super().read(bare, bookmarks, wire)


class StaysOpen(MemorySource):
    """Opens a file for each read, and closes it at the end only."""

    caught_by = {"test_closing_early_leaves_nothing_open"}
    leaked: list[Any] = []

    def read(self, group: Sequence[Stream], bookmarks: Bookmarks, wire: str = "arrow") -> Events:
        opened = Path(__file__).open("rb")  # noqa: SIM115 -- the very fault
        self.leaked.append(opened)
        yield from super().read(group, bookmarks, wire)
        opened.close()


class StaysInterrupted(MemorySource):
    """Remembers an interrupt, so that the next read ends too."""

    caught_by = {"test_an_interrupted_read_ends_and_the_next_one_works", "test_an_idle_interrupt_does_nothing"}

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        super().__init__(config, folder)
        self._interrupted: set[str] = set()

    def interrupt(self, stream: str) -> None:
        self._interrupted.add(stream)

    def read(self, group: Sequence[Stream], bookmarks: Bookmarks, wire: str = "arrow") -> Events:
        for name, event in super().read(group, bookmarks, wire):
            if name in self._interrupted:
                raise FatalConnectorError("interrupted for ever")
            yield name, event


class TellsItsPassword(MemorySource):
    """Puts credentials into its identity, which the ledger keeps."""

    caught_by = {"test_identity_is_stable_and_holds_no_credentials"}

    def identity(self) -> str:
        return "memory://user:s3cret-canary@host"


SOURCES = (
    ReadsPastTheBookmark,
    DoublesTheBoundary,
    ChecksBeforeItsRecords,
    LosesRecordsWithoutABookmark,
    YieldsAllColumns,
    FiltersBehindItsBookmark,
    StaysOpen,
    StaysInterrupted,
    TellsItsPassword,
)
