"""Columns of nanoseconds that have none: read in microseconds, where the destination keeps no finer ones."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from syncblocks.connectors.arrow.fidelity import Fidelity
from syncblocks.connectors.arrow.times import in_micros, is_fine
from syncblocks.connectors.protocols import LooksAtTimes
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.struct_helpers import replace

from .columns import ColumnMapping, Rules, map_columns


def in_microseconds(
    stream: Stream, names: Mapping[str, str], mapping: ColumnMapping, rules: Rules, looks: LooksAtTimes | None
) -> Stream:
    """Return a stream whose columns of nanoseconds are read in microseconds, where no value has a finer digit.

    Args:
        stream: as the source offers it.
        names: column of the source -> what it is called after the transformers.
        mapping: of the stream after the transformers; the columns that are refused are looked at.
        rules: of the table.
        looks: the source, which reads all values of such a column; None: it cannot.
    """
    refused = {column.name for column in mapping.columns if column.fidelity is Fidelity.LOSSY and not column.conversion}
    found = [field for field in stream.schema if names[field.name] in refused and is_fine(field.type)]
    if looks is None or not found:
        return stream
    coarse = [field.with_type(in_micros(field.type)).with_name(names[field.name]) for field in found]
    kept = map_columns(replace(mapping.declared, schema=pa.schema(coarse)), rules).columns
    held = [field.name for field, one in zip(found, kept, strict=True) if one.fidelity is not Fidelity.LOSSY]
    whole = {*held} - looks.nanoseconds(stream, held) if held else set()
    fields = [f.with_type(in_micros(f.type)) if f.name in whole else f for f in stream.schema]
    return replace(stream, schema=pa.schema(fields))
