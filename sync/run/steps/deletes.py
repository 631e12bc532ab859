"""Deletes, marks or ends records in a stream's last transaction, if the source no longer has their keys."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from msgspec import Struct

from syncblocks.connectors.compared_values import Side
from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.protocols import Source
from syncblocks.connectors.stream import DELETED_AT, VALID_FROM, VALID_TO, Commit, Load, Stream
from syncblocks.connectors.struct_helpers import replace

from ...failpoints import failpoint
from ...flow.memory import side_bytes
from ...plan.features.deletes import PlannedDeletes
from ...plan.plan import Connectors, PlannedStream
from ...session.destination_reader import copy_of, live_records, offered_streams, reader_of
from ...verify.checksums import SideReader
from ...verify.columns import ColumnPairs
from ...verify.keys import KeyDifference, compare_keys, keys_table
from ..context import StreamContext
from ..errors import DeletesRefused
from .protocol import Step, StepHost

log = logging.getLogger("syncblocks")

#: Type of `DELETED_AT`, and of the times of versions.
_MOMENT = pa.timestamp("us", "UTC")


class Removal(Struct, frozen=True, kw_only=True):
    """What to do with the records of some keys, in the form of a `Load`."""

    removed: pa.Table | None = None
    marked: pa.Table | None = None
    #: `Load.begun_in`; None: there is no table yet.
    begun_in: str | None = None


class DeletesStep(Step):
    """Compares the keys of source and table, and completes the stream with an order to remove records."""

    def __init__(self, host: StepHost, planned: PlannedDeletes) -> None:
        self._host = host
        self._deletes = planned
        self._removal = Removal()
        #: Reads the table during the comparison.
        self._reader: Source | None = None
        #: `None` until the order was committed.
        self._rows_deleted: int | None = None

    def prepare(self, stream: Stream) -> None:
        """Find the records that the source no longer has."""
        failpoint("stream.before_deletes")
        self._removal = self._find_removal()

    def completion(self, stream: Stream) -> Load:
        """Return the order to delete, mark or end the records."""
        found, deletes = self._removal, self._deletes
        return replace(
            self._host.load_order(stream if found.marked is None or deletes.is_of_history else _with_marks(stream)),
            removed=found.removed,
            marked=found.marked,
            compared_at=deletes.moment,
            records_before=self._host.rows_written,
            begun_in=found.begun_in,
        )

    def note_completion(self, commit: Commit) -> None:
        """Count the records, and report their number."""
        self._rows_deleted = (self._rows_deleted or 0) + commit.removed
        if self._rows_deleted:
            self._host.context.progress.message(
                f"{self._host.planned.name}: {self._rows_deleted:,} record(s) {self._deletes.word}: the source lacks "
                "them"
            )

    def interrupt(self) -> None:
        """Interrupt the read of the table."""
        if self._reader is not None:
            planned = self._host.planned
            self._reader.interrupt(planned.table.stream_name or planned.key.destination_table)

    def counts(self) -> Mapping[str, Any]:
        """Return the number of records, or nothing if the keys were not compared."""
        return {} if self._rows_deleted is None else {"rows_deleted": self._rows_deleted}

    def _find_removal(self) -> Removal:
        """Compare the keys of the stream and its table, and return the removals.

        Raises:
            DeletesRefused: the source has no records, or more records are missing than the stream's limit.
            ConnectorError: a side cannot be read.
        """
        context, planned, deletes = self._host.context, self._host.planned, self._deletes
        name = planned.key.destination_table
        table = context.destination.describe([name])[name]
        if table.schema is None:
            return Removal()
        with reader_of(context.pipeline) as reader:
            copy = copy_of(table, offered_streams(reader, [table]))
            if copy is None:
                raise FatalConnectorError(f"table {name!r} cannot be read back", stream=planned.name)
            live = live_records(copy, planned)
            written = replace(planned, table=replace(table, columns=self._host.position.columns))
            left, right = ColumnPairs(_connectors(context), written, live, reader.can).key_sides()
            history = planned.policy.added.history
            marks = live.read.where[0].field.name if live.read.where and history is None else ""
            memory = None if context.pipeline.memory is None else side_bytes(context.pipeline.memory)
            self._reader = reader.source
            try:
                found = compare_keys(
                    SideReader(context.source, context.source_can, left, memory),
                    SideReader(reader.source, reader.can, right, memory),
                    marks=marks,
                    most=deletes.most,
                    former=()
                    if history is None
                    else tuple(replace(each, operator="is_not_null") for each in live.read.where),
                )
            finally:
                self._reader = None
        log.debug(
            "%s: compared the keys of %d records with %d of the table: %d keys were read, %d records are gone",
            planned.name,
            found.source_records,
            found.table_records,
            found.read,
            found.missing,
        )
        if reason := _why_refused(deletes, found):
            raise DeletesRefused(f"{reason}; `run --allow-deletes {planned.name}` deletes them. The rest is committed")
        names = _arriving_names(planned, left, right)
        missing, returned = (_renamed(keys or [], names) for keys in (found.missing_keys, found.returned_keys))
        if not deletes.setting.is_soft:
            return Removal(removed=keys_table(missing, {}), begun_in=table.identity)
        moment, none = pa.array([deletes.moment, None], _MOMENT)
        gone, back = {DELETED_AT: moment}, {DELETED_AT: none}
        if history is not None:
            at = pa.scalar(history.at, _MOMENT)
            gone = {VALID_FROM: none, VALID_TO: at}
            back = {VALID_FROM: none if history.bookmark else at, VALID_TO: none}
        parts = [part for part in (keys_table(missing, gone), keys_table(returned, back)) if part is not None]
        return Removal(marked=pa.concat_tables(parts) if parts else None, begun_in=table.identity)


def _with_marks(stream: Stream) -> Stream:
    """Return a stream with the deletion mark as a column, as in its table."""
    return replace(stream, schema=stream.schema.append(pa.field(DELETED_AT, _MOMENT)))


def _why_refused(deletes: PlannedDeletes, found: KeyDifference) -> str:
    """Return why nothing is deleted; empty: deletes are allowed."""
    if deletes.is_allowed or not found.missing:
        return ""
    if not found.source_records:
        return f"the source has no records, the table has {found.table_records:,}: nothing was deleted"
    if found.missing > deletes.most(found.table_records):
        return (
            f"the source lacks {found.missing:,} of the table's {found.table_records:,} records, more than the "
            f"{deletes.setting.limit_percent:g} % that `deletes` may delete: nothing was deleted"
        )
    return ""


def _connectors(context: StreamContext) -> Connectors:
    return Connectors(
        source=context.source,
        source_name=context.source_name,
        source_can=context.source_can,
        destination=context.destination,
        destination_can=context.destination_can,
    )


def _arriving_names(planned: PlannedStream, left: Side, right: Side) -> dict[str, str]:
    """Map the table's key columns to their arriving names."""
    arriving = dict(zip(planned.stream.schema.names, planned.arriving.schema.names, strict=False))
    return {there.name: arriving[own.name] for own, there in zip(left.key, right.key, strict=True)}


def _renamed(batches: Sequence[pa.RecordBatch], names: Mapping[str, str]) -> list[pa.RecordBatch]:
    return [batch.rename_columns([names[name] for name in batch.schema.names]) for batch in batches]
