"""The settings of one stream, from its entries in the file, its catalog file and the source. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from syncblocks.connectors.arrow.flatten import names_of
from syncblocks.connectors.errors import ConnectorConfigError
from syncblocks.connectors.field_facts import TypeOrigin, facts_of, with_facts
from syncblocks.connectors.log_based import GENERATED, logged_stream, with_log_columns
from syncblocks.connectors.read_spec import Condition, Masks, ReplicationMethod
from syncblocks.connectors.sql.identifiers import TableName
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import ConflictMethod, WriteDisposition, WriteSpec, WrittenRange

from ..config import Pipeline, matches_any, render_destination_table
from ..config.added_columns import Added, mage_columns
from ..config.deletes import Deletes
from ..config.filters import UNIQUE, FilterCondition
from ..config.globs import exact_name
from ..config.naming import name_by
from ..config.nested import nested_levels
from ..config.value_types import MOST_REJECTED, Moment, percent_of
from ..errors import mistakes
from ..flow.added_columns import AddedColumn, AddedColumns
from .bookmark_settings import (
    bookmark_start_of,
    bookmarks_of,
    changed_files_of,
    is_above,
    is_by_files,
    lookback_of,
    null_bookmarks_of,
)
from .catalog import catalog_differences, with_catalog
from .declared_types import with_types
from .features.deleted_when import deleted_when_of
from .features.history import history_of
from .features.latest_by import latest_of
from .features.log_settings import check_settings
from .features.masks import is_masked, masks_of
from .features.replace_range import range_conditions, written_range_of
from .interval_filters import check_interval_filters, may_filter_by_interval, refuse_without_times
from .lengths import length_of
from .options import OPTIONS, check_restrictions
from .policy import Policy
from .selected_stream import Failer, SelectedStream, failer, is_disposition_said

if TYPE_CHECKING:
    from ..config.catalog_file import CatalogFile

#: Default of `max_rejected`.
MAX_REJECTED = 1000


def configure(
    pipeline: Pipeline,
    stream: Stream,
    settings: Mapping[str, Any],
    location: tuple[str | int, ...],
    catalog: CatalogFile | None,
) -> SelectedStream:
    """Return a stream with its settings and every default filled in.

    Args:
        pipeline: the pipeline file.
        stream: as the source offers it.
        settings: the stream's entries in the file, merged.
        location: place of its last entry, for errors.
        catalog: the catalog file, if the pipeline names one.

    Raises:
        ConfigError: a setting is wrong.
    """
    fail = failer(pipeline, location, stream.name)
    own_settings = settings
    differences, settings = catalog_differences(stream, catalog), with_catalog(settings, stream, catalog)
    if stream.unreadable:
        settings = _known_without_columns(settings)
    stream, said = with_types(stream, _said(settings, fail))
    stream, decode = _decode(stream, own_settings, fail)
    said = {**said, **dict.fromkeys(decode, pa.binary())}
    stream, settings, chosen = _chosen(pipeline, stream, settings, fail)
    method, disposition, kept = chosen.method, chosen.disposition, chosen.kept
    masks, columns = None, own_settings.get("columns")
    if columns is not None and columns.mask:
        masks = masks_of(pipeline, stream, own_settings, chosen.keys, fail)
    if method is ReplicationMethod.LOG_BASED:
        check_settings(stream, settings, disposition, fail)
    write = _write(stream, settings, chosen, fail)
    read = _read(pipeline, stream, settings, chosen, masks, write.max_rejected, fail)
    _check_alone(read, fail)
    if method is ReplicationMethod.INCREMENTAL and may_filter_by_interval(pipeline, read):
        check_interval_filters(pipeline, read, fail)
    if method is ReplicationMethod.LOG_BASED:
        read = logged_stream(read, stream.key_properties)
    if masks is not None:
        from syncblocks.connectors.arrow.masking import masked_stream  # its kernels take time to load

        read = masked_stream(read)
        said = {name: kind for name, kind in said.items() if name not in (read.read.masks or masks).fields}
    if method is ReplicationMethod.LOG_BASED:
        deletes = settings.get("deletes") or Deletes(mode="hard")
        read = with_log_columns(read, is_appended=disposition == "append", deletes=deletes.mode)
    return SelectedStream(
        stream=read,
        destination_table=destination_table(pipeline, stream, settings),
        write=write,
        policy=Policy(
            replaces_explicitly=settings.get("write_disposition") == "replace",
            retries=_first(settings.get("retries"), pipeline.retries),
            retry_delay_s=_first(settings.get("retry_delay_s"), pipeline.retry_delay_s),
            timeout_s=_first(settings.get("timeout_s"), pipeline.timeout_s),
            ways=pipeline.ways,
            parallel_reads=_first(settings.get("parallel_reads"), pipeline.parallel_reads),
            verify=_first(settings.get("verify"), pipeline.verify),
            excluded=_excluded(settings),
            nested=nested_levels(pipeline, stream.name),
            naming=pipeline.destination.naming,
            added=replace(
                _added(pipeline, settings, fail),
                history=history_of(pipeline, stream, settings, kept, fail) if disposition == "history" else None,
            ),
            checks=tuple(settings.get("checks") or ()),
            warn_checks=tuple(settings.get("warn_checks") or ()),
            # What the log says is gone goes by itself.
            deletes=None if method is ReplicationMethod.LOG_BASED else _deletes(settings),
            min_records=settings.get("min_records"),
            before=tuple(settings.get("before") or ()),
            location=location,
            query_said=_query_said(pipeline, stream, settings, method, fail),
        ),
        replaces_existing=_replaces_existing(settings, method, disposition, fail),
        on_lossy=settings.get("on_lossy") or pipeline.on_lossy,
        has_own_key=bool(chosen.keys) and not chosen.unique and set(chosen.keys) == set(stream.key_properties),
        on_schema_change=settings.get("on_schema_change") or "evolve",
        said=said,
        decode=decode,
        lengths=_lengths(settings, kept),
        left_out=_left_out(stream, kept),
        fills_new_columns=bool(settings.get("fill_new_columns")),
        differences=differences,
    )


class _Chosen(NamedTuple):
    """What the settings of a stream say of it, else the source, else the defaults."""

    #: Names of the columns that are read.
    kept: Sequence[str]
    method: ReplicationMethod
    disposition: str
    keys: tuple[str, ...]
    unique: tuple[str, ...]
    bookmarks: tuple[str, ...]
    written: WrittenRange | None


def _chosen(
    pipeline: Pipeline, stream: Stream, settings: Mapping[str, Any], fail: Failer
) -> tuple[Stream, Mapping[str, Any], _Chosen]:
    """Choose columns, method, keys and disposition; return stream and settings as well, adapted to the method."""
    kept = _kept_columns(stream, settings)
    if settings.get("replication_method") == "LOG_BASED":
        kept = [name for name in kept if name not in stream.locator.get(GENERATED, ())]
    if not kept and not stream.unreadable:
        raise fail("columns", "no column is left", stream.schema.names)
    _refuse_repeated(stream, settings, kept, fail)
    # The source's own settings (a Singer tap's catalog) are the defaults.
    disposition = settings.get("write_disposition")
    method = ReplicationMethod(settings.get("replication_method") or stream.read.method)
    if not settings.get("replication_method") and disposition in ("replace", "replace_range"):
        method = ReplicationMethod.FULL_TABLE
    if method is ReplicationMethod.INCREMENTAL and is_by_files(stream, settings, fail):
        # As a tap does, the source knows by itself up to where it was read.
        stream = replace(stream, read=replace(stream.read, tracks_files=True), keeps_own_bookmark=True)
        settings = {**settings, "bookmark_properties": None}
    keys, bookmarks = _keys(stream, settings, kept, fail), bookmarks_of(stream, settings, kept, method, fail)
    keys, unique = _unique(keys, settings, kept, fail)
    if disposition is None:
        disposition = "replace" if method is ReplicationMethod.FULL_TABLE else "merge" if keys else "append"
    _check_disposition(settings, method, disposition, keys, unique, kept, fail)
    _check_one_file(pipeline, settings, method, disposition, fail)
    written = None
    if disposition == WriteDisposition.REPLACE_RANGE or settings.get("range_column") is not None:
        written = written_range_of(pipeline, stream, settings, kept, method, fail)
    return stream, settings, _Chosen(kept, method, disposition, keys, unique, bookmarks, written)


def _read(
    pipeline: Pipeline,
    stream: Stream,
    settings: Mapping[str, Any],
    chosen: _Chosen,
    masks: Masks | None,
    max_rejected: int | None,
    fail: Failer,
) -> Stream:
    """Return the stream as it is read: columns, keys, bookmarks and filters filled in."""
    kept, method, disposition, written = chosen.kept, chosen.method, chosen.disposition, chosen.written
    keys, unique, bookmarks = chosen.keys, chosen.unique, chosen.bookmarks
    lookback = lookback_of(stream, settings, disposition, bookmarks, fail)
    return replace(
        stream,
        schema=_keys_not_null(pa.schema([stream.schema.field(name) for name in kept]), (*keys, *unique), disposition),
        key_properties=keys,
        unique_properties=unique,
        read=replace(
            stream.read,
            method=method,
            bookmark_properties=bookmarks,
            null_bookmarks=null_bookmarks_of(stream, settings, disposition, method, fail),
            lookback=lookback,
            bookmark_start=bookmark_start_of(stream, settings, bookmarks, fail),
            is_above_bookmark=is_above(stream, settings, bookmarks, lookback, fail),
            where=(
                *_conditions(pipeline, stream, settings, masks, fail),
                *(() if written is None else range_conditions(stream, written)),
            ),
            limit=_limit(stream, settings, method, lookback, fail),
            masks=masks,
            may_repeat=disposition in ("merge", "history"),
            changed_files=changed_files_of(stream, settings, disposition, fail),
            names_files=written is not None and written.is_by_files and method is ReplicationMethod.FULL_TABLE,
            max_rejected=max_rejected,
            included=_included(settings),
            excluded=_excluded(settings),
        ),
    )


def _write(stream: Stream, settings: Mapping[str, Any], chosen: _Chosen, fail: Failer) -> WriteSpec:
    """Return how the stream is written."""
    latest, is_lowest = latest_of(stream, settings, chosen.kept, chosen.keys, fail)
    max_rejected, percent = _max_rejected(stream, settings, fail)
    return WriteSpec(
        disposition=WriteDisposition(chosen.disposition),
        conflict_method=ConflictMethod(settings.get("unique_conflict_method") or ConflictMethod.UPDATE),
        latest_by=latest,
        latest_is_lowest=is_lowest,
        deleted_when=deleted_when_of(stream, settings, chosen.kept, fail),
        written_range=chosen.written,
        max_rejected=max_rejected,
        max_rejected_percent=percent,
    )


def _check_disposition(
    settings: Mapping[str, Any],
    method: ReplicationMethod,
    disposition: str,
    keys: Sequence[str],
    unique: Sequence[str],
    kept: Sequence[str],
    fail: Failer,
) -> None:
    """Refuse what excludes a way to write the records."""
    if disposition in ("merge", "history") and not keys:
        raise fail(
            "key_properties",
            f"{disposition} needs key_properties: the source has no primary key, or its columns are excluded",
            kept,
        )
    if method is ReplicationMethod.INCREMENTAL and disposition == "replace":
        raise fail(
            "write_disposition",
            "INCREMENTAL reads only what is new, `replace` would drop the rest: use merge or append, or FULL_TABLE",
            ["append", "merge", "history"],
            alone=True,
        )
    own = {**settings, "unique_constraints": unique, "deletes": _deletes(settings)}
    check_restrictions(own, disposition, method, fail)
    if any(check.operator == UNIQUE for check in settings.get("checks") or ()):
        if method is ReplicationMethod.LOG_BASED:
            raise fail(
                "checks",
                "`unique` compares records, but LOG_BASED reads each change of a record: leave it out",
                alone=True,
            )
        if method is ReplicationMethod.INCREMENTAL and disposition == "append":
            raise fail(
                "checks",
                "`unique` looks only into the records of one commit, and this append commits at each checkpoint, so "
                "the table would get the same values from two commits: use merge with key_properties, or FULL_TABLE",
                alone=is_disposition_said(settings, method),
            )
    if settings.get("unique_conflict_method") == ConflictMethod.UPDATE_ONLY and disposition != "merge":
        raise fail(
            "unique_conflict_method",
            "`UPDATE_ONLY` says which records a merge leaves out, and the stream has "
            f"`write_disposition: {disposition}`",
            ["UPDATE", "IGNORE"],
            alone=is_disposition_said(settings, method),
        )


def _check_alone(stream: Stream, fail: Failer) -> None:
    """Refuse conditions around a query that its source cannot read as a subquery."""
    if not stream.is_query_alone:
        return
    why = "the source does not take the query as a subquery, around which"
    if stream.read.method is ReplicationMethod.INCREMENTAL:
        raise fail(
            "replication_method", f"{why} the bookmark's condition would stand: say FULL_TABLE, or make it a view"
        )
    if stream.read.where:
        key = "where" if not stream.read.where[0].of_interval else "range_column"
        raise fail(key, f"{why} the condition would stand: write it into the query, or make it a view")


def _query_said(
    pipeline: Pipeline, stream: Stream, settings: Mapping[str, Any], method: ReplicationMethod, fail: Failer
) -> tuple[str, ...]:
    """Return what tells whether the values in a stream's query have changed."""
    if not stream.query_values:
        return ()
    own = (
        place for place, entry in enumerate(pipeline.streams) if entry.query and exact_name(entry.stream) == stream.name
    )
    found = pipeline.query_values(next(own))
    if of_time := next((each.said for each in found if each.is_of_time), ""):
        if method is ReplicationMethod.INCREMENTAL:
            raise fail(
                "query",
                f"{of_time} is another date in each run, and INCREMENTAL reads on from its bookmark: say `:bookmark` "
                "where the query needs it, or leave the condition out",
                alone=True,
            )
        if _deletes(settings) is not None:
            raise fail(
                "deletes",
                f"`deletes` cannot be used with {of_time} in the query: it would delete all records of other dates",
                alone=True,
            )
    return tuple(each.said for each in found)


def _known_without_columns(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a stream whose columns nobody knows: it fails in its turn, and reads nothing."""
    kept = {key: value for key, value in settings.items() if key not in OPTIONS}
    is_of_columns = kept.get("write_disposition") in ("merge", "replace_range", "history")
    return kept | ({"write_disposition": "append"} if is_of_columns else {})


def _left_out(stream: Stream, kept: Sequence[str]) -> tuple[str, ...]:
    known = frozenset(kept)
    return tuple(name for name in stream.schema.names if name not in known)


def _kept_columns(stream: Stream, settings: Mapping[str, Any]) -> list[str]:
    columns = settings.get("columns")
    names = list(stream.schema.names)
    if columns is None:
        return names
    if columns.include:  # in its order, which a table that is made gets
        found = [
            name for pattern in columns.include for name in names if is_covered(stream.schema.field(name), [pattern])
        ]
        names = list(dict.fromkeys(found))
    return [name for name in names if not is_covered(stream.schema.field(name), _excluded(settings))]


def _included(settings: Mapping[str, Any]) -> tuple[str, ...]:
    columns = settings.get("columns")
    return () if columns is None else tuple(columns.include or ())


def _excluded(settings: Mapping[str, Any]) -> tuple[str, ...]:
    columns = settings.get("columns")
    return () if columns is None else tuple(columns.exclude or ())


def _refuse_repeated(stream: Stream, settings: Mapping[str, Any], kept: Sequence[str], fail: Failer) -> None:
    """Refuse to read the second column of a name in a header as it is, where the first one is hidden."""
    columns = settings.get("columns")
    masked = () if columns is None else (rule.column for rule in columns.mask or ())
    hidden = (*_excluded(settings), *masked)
    for field in stream.schema if hidden else ():
        said = facts_of(field).header_name
        if said and field.name in kept and matches_any(hidden, said) and not is_covered(field, hidden):
            raise fail(
                "columns",
                f"column {field.name!r} is another {said!r} in the header, and only that name is excluded or masked: "
                "exclude or mask both",
            )


def is_covered(field: pa.Field, patterns: Sequence[str]) -> bool:
    """Tell whether patterns match a column, or an object that the column is a value of."""
    return any(matches_any(patterns, name) for name in names_of(field))


def _said(settings: Mapping[str, Any], fail: Failer) -> dict[str, pa.DataType]:
    """Return the types that a stream's settings say."""
    said: Mapping[str, str] = settings.get("types") or {}
    if not said:
        return {}
    from syncblocks.connectors.arrow.type_names import DECIMAL, TYPES, near_type, parse_type  # Arrow takes time to load

    found = {}
    for column, name in said.items():
        try:
            found[column] = pa.string() if length_of(name) else parse_type(name)
        except ConnectorConfigError:
            allowed = [*TYPES, DECIMAL, "string(n)"]
            raise fail(
                "types", f"column {column!r}: no type {name!r}", allowed, near_type(name) or name, alone=True
            ) from None
    return found


def _lengths(settings: Mapping[str, Any], kept: Sequence[str]) -> dict[str, int]:
    """Return the most characters of the texts of columns whose type says so."""
    found = {name: length_of(kind) for name, kind in (settings.get("types") or {}).items() if name in kept}
    return {name: length for name, length in found.items() if length is not None}


def _limit(
    stream: Stream,
    settings: Mapping[str, Any],
    method: ReplicationMethod,
    lookback: float | None,
    fail: Failer,
) -> int | None:
    """Return how many records are read at most. Refuse a limit for a read that cannot continue behind it."""
    limit: int | None = settings.get("limit")
    if limit is None:
        return None
    if method is not ReplicationMethod.FULL_TABLE and (why := _why_all(stream, lookback)):
        raise fail("limit", f"{why}: the next run would not go on behind the limit; leave `limit` out", alone=True)
    return limit


def _why_all(stream: Stream, lookback: float | None) -> str:
    """Say why an INCREMENTAL read cannot stop before its end; empty: it can."""
    if stream.read.tracks_files:
        return ""
    if stream.keeps_own_bookmark:
        return "the source keeps its own position"
    if stream.has_files:
        return "files have no order by a column (`bookmark_properties: [_file_modified]` reads new files)"
    return "each run reads `lookback` once more" if lookback is not None else ""


def _replaces_existing(settings: Mapping[str, Any], method: ReplicationMethod, disposition: str, fail: Failer) -> bool:
    """Tell whether a table that is there is replaced: it holds all records of an earlier run, or none of ours."""
    if settings.get("replace_existing") is not False:
        return True
    if method is not ReplicationMethod.FULL_TABLE or disposition != "replace":
        raise fail(
            "replace_existing",
            f"is for FULL_TABLE and `write_disposition: replace`, and the stream has {method} and {disposition}: "
            "leave it out",
            alone=True,
        )
    return False


def _decode(stream: Stream, settings: Mapping[str, Any], fail: Failer) -> tuple[Stream, Mapping[str, str]]:
    """Return the columns that `decode` names, and the stream with each of them as the text that a file has."""
    decode: Mapping[str, str] = settings.get("decode") or {}
    for setting in ("types", "key_properties", "bookmark_properties"):
        if both := next((name for name in settings.get(setting) or () if name in decode), ""):
            raise fail(
                "decode",
                f"column {both!r} is named by `{setting}` too, which needs its texts: leave out one",
                alone=True,
            )
    if not decode:
        return stream, {}
    fields = [
        with_facts(pa.field(field.name, pa.string(), field.nullable), origin=TypeOrigin.DECLARED)
        if field.name in decode and facts_of(field).is_of_text
        else field
        for field in stream.schema
    ]
    return replace(stream, schema=pa.schema(fields)), decode


def _keys(stream: Stream, settings: Mapping[str, Any], kept: Sequence[str], fail: Failer) -> tuple[str, ...]:
    configured = settings.get("key_properties")
    if configured is None:
        return stream.key_properties if set(stream.key_properties) <= set(kept) else ()
    for key in configured:
        if key not in kept:
            raise fail("key_properties", f"{key!r} is no column of the stream, or is excluded", kept, key)
    return tuple(configured)


def _unique(
    keys: tuple[str, ...], settings: Mapping[str, Any], kept: Sequence[str], fail: Failer
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the key, and the columns that records are merged by where they are others."""
    said: tuple[str, ...] = settings.get("unique_constraints") or ()
    for column in said:
        if column not in kept:
            raise fail("unique_constraints", f"{column!r} is no column of the stream, or is excluded", kept, column)
    if not keys or set(said) == set(keys):
        return keys or said, ()
    return keys, said


def _conditions(
    pipeline: Pipeline, stream: Stream, settings: Mapping[str, Any], masks: Masks | None, fail: Failer
) -> tuple[Condition, ...]:
    comparisons: Sequence[FilterCondition] = settings.get("where") or ()
    if not comparisons:
        return ()
    from syncblocks.connectors.arrow.type_names import type_text
    from syncblocks.connectors.filters import condition_of, moment_in  # a pipeline without filters spares the import

    place = next(number for number, entry in enumerate(pipeline.streams) if entry.where is comparisons)
    found: list[Condition] = []
    for column, operator, values in comparisons:
        if column not in stream.schema.names:
            raise fail("where", f"{column!r} is no column of the stream", stream.schema.names, column)
        field = stream.schema.field(column)
        values = tuple(moment_in(value, field.type) if isinstance(value, Moment) else value for value in values)
        of_interval = pipeline.said_of_interval(("streams", place, "where", column))
        if of_interval:
            refuse_without_times(field, fail)
        try:
            condition = condition_of(field, operator, values)
        except ValueError as error:
            facts = facts_of(field)
            if facts.origin is TypeOrigin.GUESSED and not (facts.unseen or of_interval):
                # The table may decide for text; else the plan refuses it, when it is known.
                text = pa.field(column, pa.string())
                found.append(condition_of(text, operator, [str(value) for value in values]))
                continue
            is_hidden = is_masked(masks, column)
            shown = "***" if is_hidden else ", ".join(map(repr, values))
            wrong = fail("where", f"column {column!r} is {type_text(field.type)}, and {shown} does not fit: {error}")
            # The cause's message has the value.
            raise wrong from (None if is_hidden else error)
        if operator in ("=", "!=", "in"):
            _demand_labels(field, values, fail, is_hidden=is_masked(masks, column))
        found.append(replace(condition, of_interval=of_interval))
    return tuple(found)


def _demand_labels(field: pa.Field, values: Sequence[Any], fail: Failer, *, is_hidden: bool) -> None:
    """Refuse values that an enum does not have: a misspelt one would let in nothing, without a word."""
    labels = facts_of(field).labels
    if not labels or not pa.types.is_string(field.type):
        return
    # The empty text is what MySQL has in place of a value that was none.
    for value in values:
        if str(value) not in (*labels, ""):
            shown, allowed = ("***", ()) if is_hidden else (repr(str(value)), labels)
            got = None if is_hidden else str(value)
            raise fail("where", f"column {field.name!r} is an enum without the value {shown}", allowed, got)


def said_columns(pipeline: Pipeline, settings: Mapping[str, Any]) -> list[Added]:
    """Return the columns that the file adds to a stream; `types` may name another type of one."""
    types = settings.get("types") or {}
    said = [each._replace(type=types.get(each.column, each.type)) for each in settings.get("add_columns") or ()]
    if settings.get("mage_columns"):
        said += mage_columns(pipeline.execution_date, types)
    return said


def _added(pipeline: Pipeline, settings: Mapping[str, Any], fail: Failer) -> AddedColumns:
    said = said_columns(pipeline, settings)
    if not said:
        return AddedColumns()
    from syncblocks.connectors.arrow.type_names import parse_type
    from syncblocks.connectors.filters import literal_of

    found = []
    for column, value, kind, is_kept in said:
        try:
            field = pa.field(column, parse_type(kind))
            scalar = pa.scalar(None, field.type) if value is None else literal_of(value, field)
            found.append(AddedColumn(field=field, value=scalar, is_kept=is_kept))
        except ConnectorConfigError as error:
            raise fail("add_columns", f"column {column!r}: {error}", alone=True) from error
        except ValueError as error:
            raise fail("add_columns", f"the value of column {column!r} is no {kind}: {error}", alone=True) from error
    names = [column.casefold() for column, *_ in said]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise fail("add_columns", f"two columns are called {twice!r}", alone=True)
    return AddedColumns(tuple(found))


def _deletes(settings: Mapping[str, Any]) -> Deletes | None:
    found: Deletes | None = settings.get("deletes")
    return None if found is None or found.mode == "ignore" else found


def _max_rejected(stream: Stream, settings: Mapping[str, Any], fail: Failer) -> tuple[int | None, float | None]:
    """Return the largest number of rejected records, and their largest share of a commit in percent."""
    if settings.get("on_rejected") != "keep":
        return None, None
    if rows := next((field.name for field in stream.schema if facts_of(field).is_row), ""):
        raise fail("on_rejected", f"`keep` and {rows!r} (`file_rows`) exclude each other: the numbers would have gaps")
    most = _first(settings.get("max_rejected"), MAX_REJECTED)
    percent = percent_of(most)
    return (int(most), None) if percent is None else (MOST_REJECTED, percent)


def _keys_not_null(schema: pa.Schema, keys: Sequence[str], disposition: str) -> pa.Schema:
    if disposition == "append":  # the table gets no key
        return schema
    return pa.schema([field.with_nullable(False) if field.name in keys else field for field in schema])


def destination_table(pipeline: Pipeline, stream: Stream, settings: Mapping[str, Any]) -> str:
    """Return the table that a stream is written to."""
    template = settings.get("destination_table")
    if template is not None:
        with mistakes():
            return render_destination_table(template, pipeline, stream.name)
    if pipeline.destination.table:
        return pipeline.destination.table
    name = name_by(pipeline.destination.naming, bare_name(stream))
    return str(TableName("", name)) if "table" in stream.locator else name  # its dots are quoted


def _check_one_file(
    pipeline: Pipeline, settings: Mapping[str, Any], method: ReplicationMethod, disposition: str, fail: Failer
) -> None:
    """Refuse what makes more than the one file that the destination is."""
    block = pipeline.destination
    if not block.file:
        return
    way_out = "or let `path` of the destination name a folder"
    if method is not ReplicationMethod.FULL_TABLE or disposition != "replace":
        key = "write_disposition" if method is ReplicationMethod.FULL_TABLE else "replication_method"
        said = f"`write_disposition: {disposition}`" if key == "write_disposition" else f"`{key}: {method}`"
        text = f"{block.file} is one file, which a FULL_TABLE stream replaces: leave out {said}, {way_out}"
        raise fail(key, text, alone=True)
    if settings.get("destination_table") not in (None, block.table):
        raise fail(
            "destination_table",
            f"{block.file} is one file, which is table {block.table!r}: leave out `destination_table`, {way_out}",
            alone=True,
        )


def bare_name(stream: Stream) -> str:
    """Return the table's own name in a database; elsewhere a dot would name a schema of the destination."""
    return str(stream.locator["table"]) if "table" in stream.locator else stream.name.replace(".", "_")


def _first(*candidates: Any) -> Any:
    return next((value for value in candidates if value is not None), None)
