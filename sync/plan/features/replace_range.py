"""Settings of one stream that is written by `replace_range`: which records are deleted and written anew. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from syncblocks.connectors.arrow.fidelity import Fidelity, compare
from syncblocks.connectors.arrow.type_names import type_text
from syncblocks.connectors.field_facts import facts_of
from syncblocks.connectors.incremental.bookmarks import is_number_in_text
from syncblocks.connectors.read_spec import RANGE, Condition, ReplicationMethod
from syncblocks.connectors.stream import FILE_MODIFIED, Stream, TableState
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WrittenRange

from ...config import Pipeline
from ...errors import Mistake
from ..columns import ColumnMapping, ColumnPlan
from ..selected_stream import Failer, SelectedStream

#: Column of the names of files.
_FILE = "_file"


def written_range_of(
    pipeline: Pipeline,
    stream: Stream,
    settings: Mapping[str, Any],
    kept: Sequence[str],
    method: ReplicationMethod,
    fail: Failer,
) -> WrittenRange:
    """Return what `replace_range` deletes, by the source's name of its column.

    Raises:
        ConfigError: the settings do not fit each other, or the column is of a type without ranges.
    """
    column, is_range = settings.get("range_column"), settings.get("write_disposition") == "replace_range"
    if not is_range:
        why = "`range_column` is for `write_disposition: replace_range` only: leave one out, or say the other"
        raise fail("range_column", why, alone=True)
    if column is None:
        raise fail(
            "range_column",
            "`write_disposition: replace_range` needs range_column: the column of a range",
            kept,
            alone=True,
        )
    if settings.get("unique_conflict_method") == "IGNORE":
        raise fail(
            "unique_conflict_method",
            "IGNORE keeps records that are there, and `write_disposition: replace_range` deletes them: leave one out",
            alone=True,
        )
    if column not in kept:
        what = f"{column!r} is no column of the stream, or is excluded"
        if column == _FILE:
            what += ": `file_columns: true` in the source's config makes it of files"
        raise fail("range_column", what, kept, column)
    field = stream.schema.field(column)
    is_by_files = facts_of(field).of_file
    if method is ReplicationMethod.INCREMENTAL and not (stream.read.tracks_files and is_by_files):
        raise fail(
            "replication_method",
            "INCREMENTAL reads only what is new, and `write_disposition: replace_range` would delete the rest of its "
            f"range: use FULL_TABLE, or `bookmark_properties: [{FILE_MODIFIED}]` with `range_column: {_FILE}`",
            ["FULL_TABLE"],
            alone=settings.get("replication_method") is not None,
        )
    interval = None if is_by_files else pipeline.interval
    _demand_type(field, interval, fail)
    return WrittenRange(column=column, interval=interval, is_by_files=is_by_files)


def _demand_type(field: pa.Field, interval: tuple[datetime, datetime] | None, fail: Failer) -> None:
    from syncblocks.connectors.replace_range import bound, has_times, has_values  # its kernels take time to load

    if interval is None:
        is_number = is_number_in_text(field) or facts_of(field).is_undecided
        if not (has_values(field.type) or has_times(field.type)) or is_number:
            raise fail(
                "range_column",
                f"{field.name!r} is {'a number of any digits' if is_number else type_text(field.type)}: a range is one "
                "of days or times, or of single days, integers or texts",
            )
        return
    if not has_times(field.type):
        raise fail(
            "range_column",
            f"{field.name!r} is {type_text(field.type)}, and --interval-start and --interval-end bound days and times: "
            "run without them, and the values that are read are deleted",
        )
    try:
        for moment in interval:
            bound(moment, field.type)
    except ValueError as error:
        raise fail("range_column", f"the interval cannot bound {field.name!r}: {error}") from error


def range_conditions(stream: Stream, written: WrittenRange) -> tuple[Condition, ...]:
    """Return the conditions under which the records of the interval are read."""
    if written.interval is None:
        return ()
    return conditions_of(stream.schema.field(written.column), written.interval)


def conditions_of(field: pa.Field, interval: tuple[datetime, datetime]) -> tuple[Condition, ...]:
    """Return the conditions that a column is within an interval."""
    from syncblocks.connectors.replace_range import bound

    return tuple(
        Condition(
            field=field,
            operator=operator,
            values=(bound(moment, field.type),),
            given=(_written(moment, field.type),),
            of_interval=RANGE,
        )
        for operator, moment in zip((">=", "<"), interval, strict=True)
    )


def _written(moment: datetime, kind: pa.DataType) -> str:
    """Write a bound as `where` would."""
    if pa.types.is_date(kind):
        return moment.date().isoformat()
    return moment.isoformat() if kind.tz else moment.replace(tzinfo=None).isoformat()


def arriving_range(
    selected: SelectedStream,
    written: WrittenRange,
    names: Mapping[str, str],
    mapping: ColumnMapping,
    table: TableState,
    *,
    full_refresh: bool,
) -> WrittenRange | None:
    """Return what a run deletes, by the arriving name of its column; None: the whole table is replaced.

    Args:
        selected: the stream.
        written: what it deletes, by the source's name of its column.
        names: the source's columns -> as they arrive, but for what transformers' functions do.
        mapping: how the destination keeps the columns.
        table: the state of the table.
        full_refresh: the table is replaced as a whole.

    Raises:
        ValueError: it cannot be written so; the message says why.
    """
    if full_refresh:
        if written.interval is not None:
            raise ValueError(
                "--full-refresh would leave only the records between --interval-start and --interval-end in the "
                "table: leave these out to read all, or leave out --full-refresh to write the interval anew"
            )
        return None
    kind = selected.stream.schema.field(written.column).type
    if written.interval is not None and not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        raise ValueError(
            f"range_column {written.column!r} is {kind} in the table, and --interval-start and --interval-end bound "
            "days and times: start the table over with --full-refresh, without them"
        )
    name = names[written.column]
    planned = next((column for column in mapping.columns if column.name == name), None)
    if planned is not None and table.schema is not None and planned.kept is not None and planned.kept.held is None:
        raise ValueError(
            f"range_column {written.column!r} is new in the table, whose records have no value for it: none of them "
            "would be deleted. Start the table over with --full-refresh"
        )
    if planned is not None and (why := _inexact(planned, kind)):
        raise ValueError(
            f"range_column {written.column!r} {why}: what is deleted would not be what was read. Choose another "
            "column, or start the table over with --full-refresh"
        )
    source_column = written.column if written.column not in names.values() else ""
    return replace(written, column=name, source_column=source_column)


def demand_interval(pipeline: Pipeline, selected: Sequence[SelectedStream]) -> None:
    """Raise for streams whose range is one of times, in a run without an interval."""
    for stream in selected:
        written = stream.write.written_range
        if written is None or written.interval is not None:
            continue
        if pa.types.is_timestamp(stream.stream.schema.field(written.column).type):
            text = (
                f"range_column {written.column!r} holds times, of which hardly two are equal: say which ones to write "
                "anew with --interval-start and --interval-end"
            )
            loc = (*stream.policy.location, "range_column")
            raise pipeline.error(loc, f"stream {stream.name!r}: {text}", kind=Mistake)


def _inexact(planned: ColumnPlan, kind: pa.DataType) -> str:
    """Say why a column does not arrive exactly; empty if it does."""
    kept = planned.kept
    if planned.is_left_out:
        return "is new, and left out by `on_schema_change: ignore`"
    if planned.conversion == "text" and kept is not None and kept.held is not None:
        return f"is {planned.type} and arrives as text in the table ({kept.held} until now)"
    if planned.conversion:
        return f"is changed by `on_lossy: {planned.conversion}`"
    if planned.decode:
        return f"is {type_text(kind)} in the source, and decoded from {planned.decode} by `decode`"
    if planned.said is not None:
        return f"is {type_text(kind)} in the source, and read as {type_text(planned.said)} by `types`"
    if kept is None or kept.arrow is None:
        return ""
    if kept.is_computed:
        return "is computed by the table"
    if compare(kind, kept.arrow) not in (Fidelity.EXACT, Fidelity.WIDENED):
        return f"is {planned.type}, and the table keeps it as {kept.type}"
    return ""


def in_words(written: WrittenRange) -> str:
    """Return what a run deletes and writes anew, for people to read."""
    if written.is_by_files:
        return f"replaces the records of the files that are read, by {written.column}"
    if written.interval is None:
        return f"replaces the records of each {written.column} that is read"
    first, last = (moment.isoformat() for moment in written.interval)
    return f"replaces the records of {first} <= {written.column} < {last}"


__all__ = [
    "arriving_range",
    "conditions_of",
    "demand_interval",
    "in_words",
    "range_conditions",
    "written_range_of",
]
