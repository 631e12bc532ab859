"""A source without the records that fail a check or say they are deleted, as far as a comparison asks it."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, cast

import pyarrow as pa

from syncblocks.connectors.arrow import compute as pc
from syncblocks.connectors.protocols import Source
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.stream import Block, Bookmark, Event, Rejected, RejectedRecord, Stream
from syncblocks.connectors.struct_helpers import replace

from ..plan.plan import PlannedStream
from ..session.session import PipelineSession


def passing(session: PipelineSession, planned: PlannedStream) -> PipelineSession:
    """Return a session to compare one stream with: its source leaves out the records that are not written."""
    if not (planned.record_checks.checks or planned.write.deleted_when) or not planned.is_schema_decided:
        return session
    source = cast(Source, PassingSource(session.source, planned))
    # A database's own checksums would count all records.
    return replace(session, source=source, source_can=replace(session.source_can, computes_checksums=None))


class PassingSource:
    """Reads one stream; a record that fails a check comes as a rejected one, one that says it is deleted does not."""

    def __init__(self, source: Source, planned: PlannedStream) -> None:
        self._source = source
        self._planned = planned
        stream = planned.stream
        arriving = [name for name in planned.mapping.declared.schema.names if name not in planned.policy.added.names]
        own = dict(zip(arriving, stream.schema.names, strict=True))
        self._deleted_when = planned.write.deleted_when
        conditions = [*planned.record_checks.checks, *([self._deleted_when] if self._deleted_when is not None else [])]
        #: Columns of the conditions: name as it arrives -> name at the source.
        self._names = {each.field.name: own[each.field.name] for each in conditions}
        fields = [planned.mapping.arriving.schema.field(name) for name in self._names]
        self._mapping = replace(
            planned.mapping, arriving=replace(planned.mapping.arriving, schema=pa.schema(fields)), refusals=()
        )

    def count(self, stream: Stream) -> int:
        """Count the records that pass."""
        fields = [stream.schema.field(name) for name in self._names.values()]
        narrow = replace(
            stream,
            schema=pa.schema(dict.fromkeys(fields)),
            read=replace(stream.read, method=ReplicationMethod.FULL_TABLE, bookmark_properties=()),
        )
        with closing(self._passing(narrow, {narrow.name: None})) as events:
            return sum(event.num_rows for _, event in events if isinstance(event, pa.RecordBatch))

    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], _wire: str = "arrow"
    ) -> Iterator[tuple[str, Event | Block]]:
        """See `Source`."""
        (stream,) = group
        return self._passing(stream, bookmarks)

    def interrupt(self, stream: str) -> None:
        """See `Source`."""
        self._source.interrupt(stream)

    def _passing(
        self, stream: Stream, bookmarks: Mapping[str, Bookmark | None]
    ) -> Generator[tuple[str, Event | Block]]:
        wanted = stream.schema.names
        whole = self._planned.stream.schema
        more = [whole.field(name) for name in dict.fromkeys(self._names.values()) if name not in wanted]
        events: Any = self._source.read([replace(stream, schema=pa.schema([*stream.schema, *more]))], bookmarks)
        with closing(events):
            for name, event in events:
                if not isinstance(event, pa.RecordBatch):
                    yield name, event
                    continue
                kept, failed = self._passed(event)
                yield name, kept.select(wanted) if more else kept
                if failed:
                    yield name, Rejected(records=(RejectedRecord(record="null", reason="a check"),) * failed)

    def _passed(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
        """Return the records that pass and are not deleted, and how many fail a check."""
        from syncblocks.connectors.filters import passes, say_deleted

        columns = [batch.column(own) for own in self._names.values()]
        arrived = self._mapping.convert(pa.RecordBatch.from_arrays(columns, names=list(self._names)))
        if not self._planned.record_checks.checks:
            assert self._deleted_when is not None, "one of them makes the source"
            return batch.filter(pc.invert(say_deleted(arrived, self._deleted_when))), 0
        is_good = passes(arrived, self._planned.record_checks.checks)
        kept = batch.filter(is_good)
        failed = batch.num_rows - kept.num_rows
        if self._deleted_when is not None:
            kept = kept.filter(pc.invert(say_deleted(arrived.filter(is_good), self._deleted_when)))
        return kept, failed


__all__ = ["passing"]
