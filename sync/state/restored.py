"""Bookmarks for a table that was restored to an older version. Its records show what was committed at a bookmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa

from syncblocks.connectors.arrow import compute as pc
from syncblocks.connectors.arrow.declared_types import read_as
from syncblocks.connectors.arrow.text import is_text
from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.incremental.bookmarks import bookmark_values, equal_to, is_ahead, same
from syncblocks.connectors.incremental.checkpoints import incremental
from syncblocks.connectors.read_spec import NullBookmarks, ReplicationMethod
from syncblocks.connectors.stream import Bookmark, Checkpoint, LedgerKey, Stream, TableState
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition

from ..errors import ConfigError, StateError
from ..plan.plan import PlannedStream
from ..plan.selected_stream import SelectedStream
from ..session.destination_reader import copy_of, destination_reader, offered_streams
from ..session.inspection import plan_alone
from ..session.session import PipelineSession


def in_restored_table(
    session: PipelineSession, selected: SelectedStream, table: TableState, key: LedgerKey, wanted: Bookmark
) -> Bookmark:
    """Return a bookmark with the hashes of the records at it that a restored table has.

    The next run then drops these records, because they are already committed.

    Raises:
        ConfigError: the bookmark is past the newest record of the table, or an append would repeat records past it.
        StateError: an append cannot recognize the source's records in the table.
    """
    planned = plan_alone(session, selected, table, key)
    is_append = planned.write.disposition is WriteDisposition.APPEND
    if (reason := _why_unknown(planned)) or any(row.committed_at and row.key != key for row in table.ledger):
        if not is_append:
            return wanted  # a merge may write the records at the bookmark again
        reason = reason or "other streams append to it too"
        raise StateError(
            f"table {key.destination_table!r} was restored, and its records cannot be compared with those of stream "
            f"{planned.name!r}: {reason}. To write the table from scratch, run `syncblocks run --full-refresh`. To "
            f"append the records at the bookmark once more, run `syncblocks state set {planned.name}`"
        )
    stream = _as_hashed(planned)
    names, at = list(stream.read.bookmark_properties), bookmark_values(stream, wanted)
    assert at is not None
    # Only the source knows how it orders texts.
    has_order = not any(is_text(stream.schema.field(name).type) for name in names)
    batches = _records(session, planned, stream)
    if not has_order:
        batches = (pc.filter(batch, equal_to(batch, names, at)) for batch in batches)
    *_, last = incremental(stream, batches, None, is_ordered=False)
    assert isinstance(last, Checkpoint)
    newest = bookmark_values(stream, last.bookmark)
    if last.bookmark is None or newest is None:
        if has_order:
            raise ConfigError(
                f"table {key.destination_table!r} was restored and has no record with a bookmark. To make the next run "
                f"read all records, run `syncblocks state reset {planned.name}`",
                key="STREAM",
            )
        return wanted
    if same(at, newest):
        return last.bookmark
    is_past = is_ahead(stream, at, newest)
    if not is_past and not is_append:
        return wanted
    now = ", ".join(f"{name}={last.bookmark[name]}" for name in names)
    why = (
        "records between the two would never be read" if is_past else "an append would write the records past it again"
    )
    raise ConfigError(
        f"is not the bookmark of the newest record in table {key.destination_table!r} ({now}), which was restored: "
        f"{why}. Rewind stream {planned.name!r} to {now}, or set another bookmark with `syncblocks state set`",
        key="STREAM",
    )


def _why_unknown(planned: PlannedStream) -> str:
    """Return a clause that says why the table does not have the source's values, or "" if it has them."""
    if not planned.is_schema_decided:
        return f"a transformer changes them ({', '.join(planned.transformers)})"
    arriving = dict(zip(planned.stream.schema.names, planned.mapping.declared.schema.names, strict=False))
    columns = {column.name: column for column in planned.mapping.columns}
    for field in planned.stream.schema:
        column = columns.get(arriving[field.name])
        if column is None or column.is_left_out:
            continue
        is_parsed = column.said is not None and is_text(field.type) and not is_text(column.said)
        if column.conversion == "cast" or column.decode or is_parsed:
            return f"column {field.name!r} has other values there"
    missing = set(planned.stream.read.bookmark_properties) - _columns(planned).keys()
    return f"column {min(missing)!r} of the bookmark is not in the table" if missing else ""


def _columns(planned: PlannedStream) -> dict[str, str]:
    """Return the source's columns that the table has -> their names there."""
    table = planned.table.schema
    kept = {
        column.name: column.name if column.kept is None else column.kept.column for column in planned.mapping.columns
    }
    arriving = zip(planned.stream.schema.names, planned.mapping.declared.schema.names, strict=False)
    return {own: kept[name] for own, name in arriving if table is not None and kept.get(name) in table.names}


def _as_hashed(planned: PlannedStream) -> Stream:
    """Return the stream with the columns of the table, as its records leave the masks."""
    stream, there = planned.stream, _columns(planned)
    schema = stream.schema
    if stream.read.masks is not None:
        from syncblocks.connectors.arrow.masking import masked_schema

        schema = masked_schema(schema, stream.read.masks)
    read = replace(
        stream.read,
        method=ReplicationMethod.INCREMENTAL,
        null_bookmarks=NullBookmarks.NEVER,
        is_above_bookmark=False,  # whether all records at the bookmark were read is not known
        lookback=None,
        limit=None,
        masks=None,
    )
    return replace(stream, schema=pa.schema([field for field in schema if field.name in there]), read=read)


def _records(session: PipelineSession, planned: PlannedStream, stream: Stream) -> Iterator[pa.RecordBatch]:
    """Yield the records of the table in the columns and types of the stream."""
    there = _columns(planned)
    with destination_reader(session) as reader:
        copy = copy_of(planned.table, offered_streams(reader, [planned.table]))
        assert copy is not None, "a restored table is there"
        wanted = [copy.schema.field(there[name]) for name in stream.schema.names]
        copy = replace(copy, schema=pa.schema(wanted))
        for _, batch in reader.source.read([copy], {}):
            if isinstance(batch, pa.RecordBatch):
                yield _as_read(batch, stream, there)


def _as_read(batch: pa.RecordBatch, stream: Stream, there: Mapping[str, str]) -> pa.RecordBatch:
    found = []
    for field in stream.schema:
        try:
            found.append(read_as(batch.column(there[field.name]), field.type, field.name))
        except FatalConnectorError as error:
            text = f"column {field.name!r} of the restored table has a value that its source cannot have"
            raise StateError(f"{text}. To write the table from scratch, run `syncblocks run --full-refresh`") from error
    return pa.record_batch(found, schema=stream.schema)


__all__ = ["in_restored_table"]
