"""`deleted_when`: the condition by which a record says that it is deleted, and what does not go with it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from syncblocks.connectors.read_spec import ASKING, Condition
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.write_spec import WriteSpec

from ...config import Pipeline
from ...config.filters import FilterCondition
from ..columns import ColumnMapping
from ..plan import Connectors
from ..refusals import stream_error
from ..selected_stream import Failer, SelectedStream

#: Types whose values are compared; of any other one only NULL is asked for.
_COMPARED = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_string, pa.types.is_large_string)


def deleted_when_of(stream: Stream, settings: Mapping[str, Any], kept: Sequence[str], fail: Failer) -> Condition | None:
    """Return the condition of a stream's deleted records; None: it has none.

    Args:
        stream: as the source offers it, with the types that are said.
        settings: the stream's entries in the file, merged.
        kept: its columns that are read.
        fail: makes the error of a setting.

    Raises:
        ConfigError: it is about no column, a value is none of the column's, or another setting does not go with it.
    """
    said: Sequence[FilterCondition] = settings.get("deleted_when") or ()
    if not said:
        return None
    ((column, operator, values),) = said
    if column not in kept:
        raise fail("deleted_when", f"{column!r} is no column of the stream, or is excluded", kept, column)
    from syncblocks.connectors.arrow.type_names import type_text
    from syncblocks.connectors.filters import condition_of  # a pipeline without it spares the import

    field = stream.schema.field(column)
    if operator not in ASKING and not any(is_kind(field.type) for is_kind in _COMPARED):
        raise fail(
            "deleted_when",
            f"{column!r} is {type_text(field.type)}: only booleans, integers and texts can be compared; of others ask "
            f"{{{column}: {{is_null: false}}}}",
        )
    try:
        return condition_of(field, operator, values)
    except ValueError as error:
        shown = ", ".join(map(repr, values))
        raise fail(
            "deleted_when", f"column {column!r} is {type_text(field.type)}, and {shown} does not fit: {error}"
        ) from error


def check_deleted_when(
    pipeline: Pipeline,
    stream: SelectedStream,
    write: WriteSpec,
    mapping: ColumnMapping,
    ends: Connectors,
    *,
    is_decided: bool,
) -> None:
    """Refuse `deleted_when` where the destination does not delete such records, or does not have the column.

    Raises:
        ConfigError: see above.
    """
    condition = write.deleted_when
    if condition is None:
        return
    name, can = condition.field.name, ends.destination_can.drops_deleted
    planned = next((column for column in mapping.columns if column.name == name), None)
    why = ""
    if can is None:
        why = f"needs a destination that deletes by key, which {pipeline.destination.connector} does not"
    elif not is_decided:
        why = f"needs a stream without a transformer's function: the function may change {name!r}"
    elif planned is not None and planned.is_left_out:
        why = f"needs {name!r} in the table, and `on_schema_change: ignore` leaves it out"
    elif planned is not None and planned.conversion:
        why = f"needs {name!r} as it is, and `on_lossy: {planned.conversion}` changes it"
    elif not can.drops_deleted(condition):
        why = f"compares {name!r} by a text; which texts {pipeline.destination.connector} takes for equal is unknown"
    if why:
        raise stream_error(pipeline, stream, f"`deleted_when` {why}")


__all__ = ["check_deleted_when", "deleted_when_of"]
