"""`where` of a merged stream: a record that does not match goes, as a deleted one does."""

from __future__ import annotations

import json

import pyarrow as pa

from ...arrow import compute as pc
from ...errors import FatalConnectorError
from ...log_based import DELETE, OPERATION, UNCHANGED, UPSERT
from ...stream import Stream


def without_others(batch: pa.RecordBatch, asked: pa.RecordBatch, stream: Stream, *, is_kept: bool) -> pa.RecordBatch:
    """Return merged changes with deletes in place of records that do not match.

    Args:
        batch: see `changes_stream`; no TRUNCATE.
        asked: the columns of the conditions, of each change.
        stream: with the conditions.
        is_kept: the table keeps what is deleted: such records are left out.

    Raises:
        FatalConnectorError: the log does not say whether a record matches.
    """
    from ...filters import matches

    refuse_unknown(batch.column(UNCHANGED), stream)
    is_upsert = pc.equal(batch.column(OPERATION), pc.constant(UPSERT))
    is_gone = pc.and_(is_upsert, pc.invert(matches(asked, stream.read.where)))
    if is_kept:
        return batch.filter(pc.invert(is_gone))
    changed = {
        OPERATION: pc.if_else(is_gone, pc.constant(DELETE), batch.column(OPERATION)),
        UNCHANGED: pc.if_else(is_gone, pa.scalar(None, pa.string()), batch.column(UNCHANGED)),
    }
    arrays = [changed.get(name, array) for name, array in zip(batch.schema.names, batch.columns, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def refuse_unknown(unchanged: pa.Array, stream: Stream) -> None:
    """Refuse changes of which the log does not say whether their record matches.

    Args:
        unchanged: of each change the columns that it leaves out, as JSON.
        stream: with the conditions.

    Raises:
        FatalConnectorError: there are some.
    """
    asked = {each.field.name for each in stream.read.where}
    for text in unchanged.drop_null().to_pylist():
        if unknown := sorted(asked.intersection(json.loads(text))):
            raise FatalConnectorError(
                f"`where`: the log leaves out {unknown[0]!r} of a changed record, as its large value is unchanged: "
                "`alter table ... replica identity full` writes it into the log from then on, and `syncblocks state "
                f"reset {stream.name}` copies the table anew",
                connector="postgres",
                has_no_values=True,
            )


__all__ = ["refuse_unknown", "without_others"]
