"""`latest_by`: the column that says which record of a key counts, what does not go with it, and its type. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from syncblocks.connectors.arrow.type_names import type_text
from syncblocks.connectors.field_facts import facts_of
from syncblocks.connectors.incremental.bookmarks import is_number_in_text
from syncblocks.connectors.stream import Stream, TableState
from syncblocks.connectors.write_spec import WriteSpec

from ...config import Pipeline
from ...config.latest_by import LatestBy
from ..columns import ColumnMapping
from ..plan import Connectors
from ..reading import computing
from ..refusals import stream_error
from ..selected_stream import Failer, SelectedStream

#: Types whose values have an order, and what they are; those of one family are ordered alike.
_ORDERED = (
    (pa.types.is_integer, "number"),
    (pa.types.is_decimal, "number"),
    (pa.types.is_floating, "number"),
    (pa.types.is_date, "date"),
    (pa.types.is_timestamp, "timestamp"),
    (pa.types.is_time, "time of day"),
    (pa.types.is_string, "text"),
    (pa.types.is_large_string, "text"),
)


def latest_of(
    stream: Stream,
    settings: Mapping[str, Any],
    kept: Sequence[str],
    keys: Sequence[str],
    fail: Failer,
) -> tuple[str, bool]:
    """Return the column of `latest_by`, and whether its lowest value counts; empty: the last record of a key counts.

    Args:
        stream: as the source offers it, with the types that are said.
        settings: the stream's entries in the file, merged.
        kept: its columns that are read.
        keys: its key.
        fail: makes the error of a setting.

    Raises:
        ConfigError: it is no column, or another setting does not go with it.
    """
    said: LatestBy | None = settings.get("latest_by")
    if said is None:
        return "", False
    column = said.column
    if not keys:
        raise fail(
            "latest_by", "`latest_by` needs key_properties: the source has no primary key, or its columns are excluded"
        )
    if column not in kept:
        raise fail("latest_by", f"{column!r} is no column of the stream, or is excluded", kept, column)
    if not _family(stream.schema.field(column).type):
        raise fail("latest_by", f"{column!r} is {type_text(stream.schema.field(column).type)}: {_NEEDED}")
    return column, said.is_lowest


_NEEDED = "it must be a number, a date, a time or a text"


def _family(kind: pa.DataType) -> str:
    return next((family for is_kind, family in _ORDERED if is_kind(kind)), "")


def check_latest(
    pipeline: Pipeline,
    stream: SelectedStream,
    write: WriteSpec,
    mapping: ColumnMapping,
    table: TableState,
    ends: Connectors,
    *,
    is_decided: bool,
) -> None:
    """Refuse `latest_by` where the destination cannot tell which record is newer.

    Raises:
        ConfigError: see above.
    """
    column = stream.write.latest_by
    if not column:
        return
    can = ends.destination_can.keeps_latest
    if can is None:
        why = f"needs a destination that compares records, which {pipeline.destination.connector} does not"
    elif not is_decided:
        why = f"needs a stream without a transformer's function: the function may change {column!r}"
    elif why := _unordered(stream, write.latest_by, mapping, table, ends):
        why = f"{column!r} {why}: choose another column"
    if why:
        raise stream_error(pipeline, stream, f"`latest_by` {why}")


def _unordered(stream: SelectedStream, name: str, mapping: ColumnMapping, table: TableState, ends: Connectors) -> str:
    """Say why source and table do not order a column alike; empty: they do."""
    can = ends.destination_can.keeps_latest
    planned = next((column for column in mapping.columns if column.name == name), None)
    arriving = mapping.arriving.schema.field(name)
    family = _family(arriving.type)
    if not family:
        return f"is {type_text(arriving.type)}, and {_NEEDED}"
    if planned is None or planned.kept is None:
        return ""
    if planned.is_left_out:
        return "is new, and left out by `on_schema_change: ignore`"
    if planned.conversion:
        return f"is changed by `on_lossy: {planned.conversion}`"
    if planned.kept.is_computed:
        return "is computed by the table"
    if planned.kept.arrow is not None and _family(planned.kept.arrow) != family:
        return f"is {planned.type}, and the table keeps it as {planned.kept.type}"
    if can is not None and not can.keeps_latest(pa.field(name, planned.kept.arrow or arriving.type)):
        return f"is kept as {planned.kept.type or arriving.type}, which this destination does not order"
    if family != "text":
        return ""
    from syncblocks.connectors.checksums import TextForm, compared_columns  # other types spare the import

    held = {} if table.schema is None else {field.name.casefold(): field for field in table.schema}
    own = computing(ends.source_can, stream.stream)
    systems = ("duckdb" if own is None else own.checksum_system(), ends.read_back or "duckdb")
    there = held.get(planned.kept.column.casefold(), pa.field(name, arriving.type))
    field = stream.stream.schema.field(stream.write.latest_by)
    found = compared_columns(field, there, systems=systems, is_key=True)
    if isinstance(found, str):
        return f"is not ordered alike by both sides: {found}"
    if found[0].form is TextForm.TEXT and (is_number_in_text(field) or facts_of(field).is_undecided):
        return "holds numbers of any digits as texts, which sort differently: declare their type in `types`"
    return ""


__all__ = ["check_latest", "latest_of"]
