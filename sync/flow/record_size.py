"""Records larger than the memory budget: refused at the first step of the engine that sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from syncblocks.connectors.arrow import compute as pc
from syncblocks.connectors.arrow.record_size import SLACK_BYTES, megabytes, too_wide
from syncblocks.connectors.arrow.type_names import yaml_text

#: Maximum length of a key's value in a message.
_SHOWN = 40


def refuse_wide(event: Any, most_bytes: int, key: Sequence[str]) -> None:
    """Raise if one record of a batch or block is larger than the memory budget.

    Args:
        event: a batch or block, larger than the budget.
        most_bytes: the budget.
        key: the key's columns, for the message.

    Raises:
        RecordTooWide: names the record, its size and its largest column.
    """
    if not isinstance(event, pa.RecordBatch):
        raise too_wide(f"a record of {megabytes(len(event))}", most_bytes)
    if not event.num_rows:
        return
    sizes = [_sizes(column) for column in event.columns]
    totals = sizes[0]
    for size in sizes[1:]:
        totals = pc.add(totals, size)
    widest_bytes = pc.max(totals).as_py()
    if widest_bytes <= most_bytes + SLACK_BYTES:
        return
    row = pc.index(totals, widest_bytes).as_py()
    place = max(range(event.num_columns), key=lambda place: sizes[place][row].as_py())
    name, size_bytes = event.schema.names[place], sizes[place][row].as_py()
    named = [column for column in key if column in event.schema.names and column != name]
    found = ", ".join(f"{column} {_shown(event.column(column)[row])}" for column in named)
    which = f"a record ({found})" if found else "a record"
    raise too_wide(
        f"{which} of {megabytes(widest_bytes)}, of which column {name!r} has {megabytes(size_bytes)},",
        most_bytes,
        f"leave the column out by `columns: {{exclude: [{yaml_text(name)}]}}`",
        has_no_values=not found,
    )


def _sizes(column: pa.Array) -> pa.Array:
    """Return the bytes of each value; for nested types, the average of the column."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    kind, types = column.type, pa.types
    if types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind):
        return pc.fill_null(pc.cast(pc.binary_length(column), pa.int64()), 0)
    return pa.repeat(pa.scalar(column.nbytes // len(column), pa.int64()), len(column))


def _shown(value: pa.Scalar) -> str:
    text = str(value.as_py())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
