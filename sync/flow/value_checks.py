"""The checks of a stream's records, as they would be written: one that fails is a rejected record."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from syncblocks.connectors.arrow import compute as pc
from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.rejected.limits import TooManyRejected, too_many
from syncblocks.connectors.rejected.records import rejections
from syncblocks.connectors.stream import Condition, RejectedRecord, Stream


def checked(
    batch: pa.RecordBatch, checks: Sequence[Condition], stream: Stream
) -> tuple[pa.RecordBatch, list[RejectedRecord]]:
    """Return the records that pass, and the others as rejected records.

    Args:
        batch: as it would be written.
        checks: some.
        stream: the batch's; with the key, and with what becomes of rejected records.

    Raises:
        FatalConnectorError: a record fails, and the stream keeps none; or a column is not there.
        TooManyRejected: more records fail than the stream keeps.
    """
    from syncblocks.connectors.filters import failures, passes  # a stream without checks spares the import

    missing = [each.field.name for each in checks if each.field.name not in batch.schema.names]
    if missing:
        raise FatalConnectorError(
            f"checks: column {missing[0]!r} does not arrive; what does is {', '.join(batch.schema.names)}"
        )
    is_good = passes(batch, checks)
    if pc.all(is_good).as_py() is not False:
        return batch, []
    limit = 0 if stream.max_rejected is None else stream.max_rejected
    bad = batch.filter(pc.invert(is_good))
    shown = bad.slice(0, limit + 1)
    reasons = failures(shown, checks)
    if stream.max_rejected is None:
        place = ", ".join(f"{key} {shown.column(key)[0]}" for key in stream.key_properties if key in shown.schema.names)
        which = f" of the record with {place}" if place else ""
        raise FatalConnectorError(f"{reasons[0]}{which}; `on_rejected: keep` sets such records aside")
    if bad.num_rows > limit:
        raise TooManyRejected(too_many(limit, reasons[-1]))
    return batch.filter(is_good), rejections(bad, reasons.__getitem__)


__all__ = ["checked"]
