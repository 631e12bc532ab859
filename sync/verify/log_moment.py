"""Verification of a merged LOG_BASED stream: both sides are compared as of one place in the source's log."""

from __future__ import annotations

import pyarrow as pa

from syncblocks.connectors.log_based import DELETES, LOG_POSITION, SNAPSHOT, LogMoment, plain_stream, position_of
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.stream import DELETED_AT
from syncblocks.connectors.struct_helpers import replace

from ..plan.plan import PlannedStream
from ..plan.start import ledger_row
from ..session.session import PipelineSession
from .comparison import Comparison


def at_moment(planned: PlannedStream, moment: LogMoment) -> PlannedStream:
    """Return a stream as it is compared: its own columns, read as they are at that moment."""
    plain = plain_stream(planned.stream)
    arriving = planned.arriving
    if planned.stream.locator.get(DELETES) == "soft":
        fields = [field for field in arriving.schema if field.name != DELETED_AT]
        arriving = replace(arriving, schema=pa.schema(fields))
    stream = replace(
        plain,
        read=replace(plain.read, method=ReplicationMethod.FULL_TABLE),
        keeps_own_bookmark=False,
        locator={**plain.locator, SNAPSHOT: moment.snapshot},
    )
    return replace(planned, stream=stream, arriving=arriving)


def why_elsewhere(session: PipelineSession, planned: PlannedStream, moment: LogMoment) -> str:
    """Say that a table does not stand at that moment, or did not as it was planned; empty: it did all the time."""
    name, wanted = planned.key.destination_table, moment.bookmark[LOG_POSITION]
    now = session.destination.describe([name])[name]
    for row in (ledger_row(planned.table, planned.key), ledger_row(now, planned.key)):
        stands = "" if row is None else position_of(row)
        if stands != wanted:
            return f"another run has moved its table from {wanted} to {stands or 'nowhere'} meanwhile: verify again"
    return ""


def is_kept_alone(planned: PlannedStream, comparison: Comparison) -> bool:
    """Tell whether the destination only has more records, which `deletes: ignore` keeps."""
    return planned.stream.locator.get(DELETES) == "ignore" and (
        all(each.kind == "extra" for each in comparison.records)
        and all(each.destination_records > each.source_records for each in comparison.ranges)
    )


__all__ = ["at_moment", "is_kept_alone", "why_elsewhere"]
