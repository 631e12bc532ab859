"""Filters by a run's interval (`interval_*` in `where`): the columns and the bookmarks that they need. Pure."""

from __future__ import annotations

import pyarrow as pa

from syncblocks.connectors.arrow.type_names import type_text
from syncblocks.connectors.field_facts import facts_of
from syncblocks.connectors.read_spec import RANGE, NullBookmarks
from syncblocks.connectors.stream import FILE_MODIFIED, Stream

from ..config import Pipeline
from .selected_stream import Failer

_WHOLE = "`replication_method: FULL_TABLE` with `write_disposition: merge`"


def refuse_without_times(field: pa.Field, fail: Failer) -> None:
    """Refuse a condition on `interval_*` for a column that has neither dates nor times."""
    from syncblocks.connectors.filters import demand_time  # a pipeline without filters spares the import

    try:
        demand_time(field)
    except ValueError as error:
        types = f"`types: {{{field.name}: date}}`"
        if facts_of(field).is_of_text:
            remedy = f"Set {types}, or the type `timestamp`"
        else:
            remedy = (
                f"Use a `query` with `cast({field.name} as date)`, or with the condition itself, because {types} "
                "converts the values after the source has filtered them"
            )
        text = f"column {field.name!r} is {type_text(field.type)}, but {error}. {remedy}"
        raise fail("where", f"{text}. With FULL_TABLE, days in texts can be compared with `{{{{ ds }}}}`") from error


def may_filter_by_interval(pipeline: Pipeline, stream: Stream) -> bool:
    """Return whether the run's interval may select the files or the records of a stream."""
    return bool(pipeline.has_config_of_interval or stream.read.where)


def check_interval_filters(pipeline: Pipeline, stream: Stream, fail: Failer) -> None:
    """Refuse an INCREMENTAL stream whose bookmark would move past records of a later interval."""
    read = stream.read
    if pipeline.has_config_of_interval and stream.has_files and not read.tracks_files:
        raise fail(
            "replication_method",
            "`config` of the source selects other files in each interval, and the bookmark would skip records of the "
            f"next files that are below it. Use `bookmark_properties: [{FILE_MODIFIED}]`, or {_WHOLE}",
        )
    columns = [each.field.name for each in read.where if each.of_interval not in ("", RANGE)]
    if not columns:
        return
    if read.tracks_files:
        raise fail(
            "where",
            f"with `{FILE_MODIFIED}` each file is read once, so records of later intervals would never be read. Use "
            f"{_WHOLE}, or remove the condition on `interval_*`",
        )
    if stream.keeps_own_bookmark:
        raise fail(
            "where",
            "the source keeps its own bookmark, which also moves past records of later intervals. Use "
            f"{_WHOLE}, or remove the condition on `interval_*`",
        )
    first = read.bookmark_properties[0]
    if other := next((name for name in columns if name != first), ""):
        raise fail(
            "where",
            f"column {other!r} is compared with `interval_*`, but the first bookmark property is {first!r}. A record "
            "of one interval would move the bookmark past records of the next one. Compare "
            f"{first!r} with `interval_*`, or use {_WHOLE}, or FULL_TABLE with "
            f"`write_disposition: replace_range` and `range_column: {other}`",
        )
    if read.limit is not None:
        raise fail(
            "limit",
            "the next run reads another interval (`where`), so the records above the limit would never be read. "
            "Remove `limit`",
        )
    if read.null_bookmarks is NullBookmarks.ONCE:
        raise fail(
            "null_bookmarks",
            "`once` reads records without a bookmark in the first run only, which reads one interval (`where`). Use "
            "`always` or `never`",
        )


__all__ = ["check_interval_filters", "may_filter_by_interval", "refuse_without_times"]
