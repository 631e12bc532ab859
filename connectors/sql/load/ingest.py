"""Batches on their way into one table: cast to its types, checked, and sent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import pyarrow as pa

from ...arrow import compute as pc
from ...arrow.casts import cast_batch, refuse_infinite, refuse_nanoseconds
from ...errors import ConnectorError
from ...field_facts import with_facts
from ...stream import Block
from ..identifiers import TableName
from .context import LoadContext
from .events import LoadEvents
from .nulls import reason, refused, shown_key


def ingest(
    context: LoadContext,
    events: LoadEvents,
    table: TableName,
    types: Mapping[str, str],
    *,
    not_null: Collection[str] = (),
    check: Callable[[pa.RecordBatch], None] | None = None,
) -> int:
    """Put the data up to the next marker into a table, without rejected records; return the records.

    Args:
        context: the load, with an open transaction.
        events: data comes next.
        table: the target or its staging table.
        types: column of the table -> its type.
        not_null: columns that refuse NULL, if the database would not report it, or not name the record.
        check: called with each batch as it arrives; may raise.
    """
    lease, rejected, stream = context.lease, context.rejected, context.columns.stream
    fields = []
    for field in stream.schema:
        name = context.columns.names[field.name]
        wire = context.columns.wire_of(types[name], field)
        fields.append(with_facts(pa.field(name, wire.arrow), column_type=types[name]))
    schema = pa.schema(fields)

    def fitted(batch: pa.RecordBatch) -> pa.RecordBatch:
        return _fitted(context, batch, schema, not_null)

    def batches() -> Iterator[pa.RecordBatch | Block]:
        try:
            for item in events.data():
                lease.check()
                if context.wire != "arrow":
                    yield item
                    continue
                if check is not None:
                    check(item)
                if rejected is not None:
                    yield from rejected.convert(item, fitted, context.required_properties)
                    continue
                context.target.nulls.note(item, stream, context.columns.names)
                batch = fitted(item)
                del item
                yield batch
                del batch  # free its memory before the next batch arrives
        except GeneratorExit:  # the session closes it and raises an error of its own
            raise
        except BaseException as error:
            events.error = error
            raise

    lease.check()
    before = events.records
    try:
        if rejected is not None:
            return rejected.ingest(table, schema, batches(), context.columns.names)
        count = context.session.ingest(table, schema, batches(), context.wire)
    except ConnectorError as error:
        if events.error is not None:
            raise events.error from None
        lease.check()
        context.target.blame(error)
        raise
    sent = events.records - before if context.wire == "arrow" else count
    if count != sent:
        raise context.error(f"{count} of {sent} records arrived in {table}")
    return count


def _fitted(
    context: LoadContext, batch: pa.RecordBatch, schema: pa.Schema, not_null: Collection[str]
) -> pa.RecordBatch:
    stream, dialect = context.load.stream.name, context.dialect
    refuse_infinite(batch, stream, is_kept=dialect.facts.keeps_infinite)
    batch = cast_batch(batch, schema, stream)
    if not dialect.facts.keeps_nanoseconds:
        refuse_nanoseconds(batch, stream)
    for name in not_null:
        if name in schema.names and batch.column(name).null_count:
            if context.rejected is not None:
                raise context.error(reason(context.target.name, name))
            place = pc.index(pc.is_null(batch.column(name)), pc.constant(True)).as_py()
            key = [context.columns.names[each] for each in context.load.stream.key_properties]
            raise context.error(refused(context.target.name, name, shown_key(batch, place, key)))
    return batch


__all__ = ["ingest"]
