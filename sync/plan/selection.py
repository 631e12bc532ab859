"""Selection of streams: the file's `streams` entries applied to the source's catalog. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from syncblocks.connectors.errors import ConnectorConfigError, FatalConnectorError
from syncblocks.connectors.incremental.bookmarks import can_look_back, has_order
from syncblocks.connectors.sql.identifiers import TableName
from syncblocks.connectors.stream import (
    FILE_MODIFIED,
    GUESSED,
    ChangedFiles,
    Condition,
    ConflictMethod,
    NullBookmarks,
    ReplicationMethod,
    Stream,
    WriteDisposition,
)

from ..config import (
    Pipeline,
    StreamEntry,
    exact_name,
    exact_pattern,
    glob_matches,
    matches_any,
    render_destination_table,
)
from ..config.added import mage_columns
from ..config.catalog_file import Catalog, read_catalog
from ..config.filters import Comparison
from ..config.naming import collision, name_by, one_named
from ..errors import ConfigError, nearest_match
from ..flow.added import AddedColumn, AddedColumns
from .catalog import catalog_differences, with_catalog
from .said import with_types

#: Our own tables in a source that was once a destination; no glob matches them.
RESERVED_PREFIX = "_syncblocks"


#: Default of `max_rejected`.
MAX_REJECTED = 1000


class NoStream(ConfigError):
    """A pattern matches no stream. In a new file it is a mistake; after an earlier run the source has changed."""

    code = "no_stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedStream:
    """One stream to sync, with every default filled in."""

    #: Without excluded columns; keys and bookmark_properties as configured.
    stream: Stream
    destination_table: str
    write_disposition: WriteDisposition
    conflict_method: ConflictMethod
    #: Whether the file says `write_disposition: replace`: then a table of another program may be replaced.
    replaces_explicitly: bool
    retries: int
    retry_delay_s: float
    timeout_s: float | None
    #: For columns that the destination cannot keep exactly: fail, cast or text.
    on_lossy: str
    #: Most readers at once; 1: it is read as a whole.
    parallel_reads: int
    #: Whether source and destination are compared after each run.
    verify: bool
    #: Whether its key is unique in the source.
    has_own_key: bool
    #: For changes of the source's columns: evolve, freeze or ignore.
    on_schema_change: str
    #: Types that the pipeline says, by the source's names; of columns that the source does not read in them itself.
    said: Mapping[str, pa.DataType]
    #: The source's columns that the pipeline leaves out.
    left_out: tuple[str, ...]
    #: The destination's names for columns: keep, lower, snake_case or mage.
    naming: str
    #: Columns that the engine sets.
    added: AddedColumns
    #: How it differs from the catalog file, one phrase for each difference.
    differences: tuple[str, ...]
    #: Place in the pipeline file, for errors.
    location: tuple[str | int, ...]

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.stream.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The catalog as the `streams` entries select from it; only the wanted streams need to be opened."""

    catalog: tuple[Stream, ...]
    #: Streams that the file selects, in run order.
    selected: tuple[str, ...]
    #: Those of them that this command is about.
    wanted: tuple[str, ...]
    #: Streams that are skipped, since there is nothing to read them from -> why.
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether this command is about all selected streams."""
        return self.wanted == self.selected


def former_tables(pipeline: Pipeline, former: str) -> set[str]:
    """Return the tables in which a stream of this name may have a ledger row."""
    templates = {entry.destination_table for entry in pipeline.streams if entry.destination_table is not None}
    rendered = {render_destination_table(template, pipeline, former) for template in templates}
    return {former.replace(".", "_"), *rendered}


def without_absent(pipeline: Pipeline, selection: Selection, read: Collection[str]) -> Selection:
    """Leave out the wanted streams that there is nothing to read from.

    Args:
        pipeline: the pipeline file.
        selection: with the wanted streams opened.
        read: streams of which files were read before, so that they wait for new ones.

    Raises:
        ConfigError: the file does not say `optional` for such a stream.
    """
    by_name = {stream.name: stream for stream in selection.catalog}
    entries, settings = _merged_settings(pipeline, by_name)
    absent = {name: by_name[name].absent for name in selection.wanted if by_name[name].absent}
    for name, reason in absent.items():
        if not settings[name].get("optional") and name not in read:
            text = f"{reason}; `optional: true` skips the stream where that is so"
            raise _failer(pipeline, ("streams", entries[name][-1]), name)("stream", text)
    selected, wanted = (
        tuple(name for name in names if name not in absent) for names in (selection.selected, selection.wanted)
    )
    return replace(selection, selected=selected, wanted=wanted, absent=absent)


def select_names(
    pipeline: Pipeline, catalog: Sequence[Stream], globs: Sequence[str] = (), only: Collection[str] | None = None
) -> Selection:
    """Return the names that the `streams` entries select.

    Args:
        pipeline: the pipeline file.
        catalog: the source's streams, opened or not.
        globs: of `--stream`; none: all.
        only: exact names, if the streams are known already.

    Raises:
        ConfigError: a pattern matches nothing.
    """
    _, settings = _merged_settings(pipeline, {stream.name: stream for stream in catalog})
    selected = [name for name, said in settings.items() if said.get("selected", True) is not False]
    if not selected:
        raise pipeline.error(("streams",), "every stream is left out by `selected: false`; nothing is left to sync")
    wanted = matching_names([name for name in selected if only is None or name in only], globs)
    return Selection(catalog=tuple(catalog), selected=tuple(selected), wanted=tuple(wanted))


def select_streams(pipeline: Pipeline, selection: Selection, known: Collection[str] = ()) -> tuple[SelectedStream, ...]:
    """Return the wanted streams of a selection with their settings, in run order.

    Args:
        pipeline: the pipeline file.
        selection: with the wanted streams opened.
        known: streams that were written before, see `skipped_streams`.

    Raises:
        ConfigError: a column matches nothing, keys or bookmark_properties are no columns, INCREMENTAL without
            bookmark_properties, merge without keys; names all streams of which that is so.
        FatalConnectorError: the columns of a stream cannot be read, and the file does not say `allow_blocks_to_fail`.
    """
    by_name = {stream.name: stream for stream in selection.catalog}
    entries, settings = _merged_settings(pipeline, by_name)
    skipped, catalog = skipped_streams(pipeline, selection, known), read_catalog(pipeline)
    wanted = [name for name in selection.wanted if name not in skipped]
    for name in wanted or skipped[:1]:  # before the columns are checked: none of them would be found
        if by_name[name].unreadable:
            if not pipeline.allow_blocks_to_fail:
                raise FatalConnectorError(by_name[name].unreadable, connector=pipeline.source.connector, stream=name)
        elif not by_name[name].schema.names:
            fail = _failer(pipeline, ("streams", entries[name][-1]), name, NoStream)
            raise fail("stream", "the source has no columns for it: is it empty?")
    _check_columns(pipeline, entries, by_name, _column_patterns)
    chosen, errors = [], []
    for name in wanted:
        try:
            location = ("streams", entries[name][-1])
            chosen.append(_configure(pipeline, by_name[name], settings[name], location, catalog))
        except ConfigError as error:
            errors.append(error)
    if errors:
        raise _together(errors)
    _check_columns(pipeline, entries, by_name, _column_names)
    _check_table_names(pipeline, chosen, settings)
    return tuple(chosen)


def _together(errors: Sequence[ConfigError]) -> ConfigError:
    """Return one error for the mistakes of several streams, at the place of the first."""
    first = errors[0]
    if len(errors) == 1:
        return first
    listed = "".join(f"\n  {error.message}" for error in errors)
    message = f"{len(errors)} streams cannot be synced like this:{listed}"
    return ConfigError(message, path=first.path, line=first.line, key=first.key)


def matching_names(names: Sequence[str], globs: Sequence[str]) -> list[str]:
    """Return the names that `--stream` matches, in their order; all of them without a glob.

    Raises:
        ConfigError: a glob matches none of them.
    """
    for glob in globs:
        if not any(glob_matches(glob, name) for name in names):
            raise _no_such_stream(f"{glob!r} matches no stream", glob, names)
    return [name for name in names if not globs or matches_any(globs, name)]


def one_stream(selected: Sequence[SelectedStream], name: str) -> SelectedStream:
    """Return the selected stream with this name.

    Raises:
        ConfigError: there is none.
    """
    for stream in selected:
        if stream.name == name:
            return stream
    names = [stream.name for stream in selected]
    raise _no_such_stream(f"{name!r} is none of the selected streams", name, names)


def _no_such_stream(message: str, given: str, names: Sequence[str]) -> ConfigError:
    return ConfigError(message, key="--stream", allowed=tuple(names[:20]), nearest=nearest_match(given, names))


def skipped_streams(pipeline: Pipeline, selection: Selection, known: Collection[str] = ()) -> tuple[str, ...]:
    """Return the wanted streams without columns that only globs match, such as an empty file.

    Such a stream is an error if the file names it, or if it was written before.
    """
    by_name = {stream.name: stream for stream in selection.catalog}
    named = {*known, *(exact_name(entry.stream) for entry in pipeline.streams)}
    return tuple(
        name
        for name in selection.wanted
        if name not in named and not by_name[name].schema.names and not by_name[name].unreadable
    )


def _merged_settings(
    pipeline: Pipeline, by_name: Mapping[str, Stream]
) -> tuple[dict[str, list[int]], dict[str, dict[str, Any]]]:
    """Return the entries of each matched stream, and their settings merged."""
    entries: dict[str, list[int]] = {}
    for number, entry in enumerate(pipeline.streams):
        for name in _matches(pipeline, number, entry, by_name):
            entries.setdefault(name, []).append(number)
    return entries, {name: _merged([pipeline.streams[each] for each in found]) for name, found in entries.items()}


def _merged(entries: Sequence[StreamEntry]) -> dict[str, Any]:
    """Merge the settings of several entries; later entries win."""
    return {key: getattr(entry, key) for entry in entries for key in entry.model_fields_set}


def _matches(pipeline: Pipeline, number: int, entry: StreamEntry, by_name: Mapping[str, Stream]) -> list[str]:
    """Return the streams of one entry: an exact name (also of a view), else a glob over tables."""
    pattern = entry.stream
    exact = exact_name(pattern)
    if exact is not None and exact in by_name:
        return [exact]
    hits = [name for name, stream in by_name.items() if glob_matches(pattern, name) and not _is_reserved(name)]
    tables = [name for name in hits if not by_name[name].is_view]
    if tables:
        return tables
    if hits:
        message = f"{pattern!r} matches views only ({', '.join(hits[:5])}); a view is synced by its exact name"
        if pattern in by_name:
            message += f", here {exact_pattern(pattern)!r}"
    elif not by_name:
        message = f"{pattern!r} matches no stream: the source has none that this user may read"
    else:
        shown = ", ".join(list(by_name)[:10]) + (", ..." if len(by_name) > 10 else "")
        message = f"{pattern!r} matches no stream; the source has {shown}"
    nearest = nearest_match(pattern, by_name)
    raise pipeline.error(("streams", number, "stream"), message, nearest=nearest, kind=NoStream)


def _is_reserved(name: str) -> bool:
    return any(part.startswith(RESERVED_PREFIX) for part in name.split("."))


#: Place of a column in an entry, its name or pattern.
_Named = Iterator[tuple[tuple[str, ...], str]]


def _check_columns(
    pipeline: Pipeline,
    entries: Mapping[str, list[int]],
    by_name: Mapping[str, Stream],
    named: Callable[[StreamEntry], _Named],
) -> None:
    """Raise if an entry names a column that none of its streams has."""
    for number, entry in enumerate(pipeline.streams):
        streams = [by_name[name] for name, numbers in entries.items() if number in numbers]
        if not all(stream.schema.names for stream in streams):
            continue  # a stream that was not opened may have the column
        known = sorted({column for stream in streams for column in stream.schema.names})
        for location, pattern in named(entry):
            if pattern not in known and not any(glob_matches(pattern, column) for column in known):
                raise pipeline.error(
                    ("streams", number, *location),
                    f"{pattern!r} matches no column of {entry.stream!r}",
                    allowed=tuple(known),
                    nearest=nearest_match(pattern, known),
                )


def _column_patterns(entry: StreamEntry) -> _Named:
    if entry.columns is not None:
        for side, patterns in (("include", entry.columns.include), ("exclude", entry.columns.exclude)):
            yield from ((("columns", side), pattern) for pattern in patterns or ())


def _column_names(entry: StreamEntry) -> _Named:
    yield from ((("key_properties",), name) for name in entry.key_properties or ())
    names = [name for name in entry.bookmark_properties or () if name != FILE_MODIFIED]  # told by `_bookmarks`
    yield from ((("bookmark_properties",), name) for name in names)
    yield from ((("types", name), name) for name in entry.types or ())


def _configure(
    pipeline: Pipeline,
    stream: Stream,
    settings: Mapping[str, Any],
    location: tuple[str | int, ...],
    catalog: Catalog | None,
) -> SelectedStream:
    fail = _failer(pipeline, location, stream.name)
    differences, settings = catalog_differences(stream, catalog), with_catalog(settings, stream, catalog)
    if stream.unreadable:
        settings = _known_without_columns(settings)
    stream, said = with_types(stream, _said(settings, fail))
    kept = _kept_columns(stream, settings)
    if not kept and not stream.unreadable:
        raise fail("columns", "no column is left", stream.schema.names)
    # The source's own settings (a Singer tap's catalog) are the defaults.
    disposition = settings.get("write_disposition")
    method = ReplicationMethod(settings.get("replication_method") or stream.replication_method)
    if not settings.get("replication_method") and disposition == "replace":
        method = ReplicationMethod.FULL_TABLE
    if method is ReplicationMethod.INCREMENTAL and _is_by_files(stream, settings, fail):
        # As a tap does, the source knows by itself up to where it was read.
        stream = replace(stream, tracks_files=True, keeps_own_bookmark=True)
        settings = {**settings, "bookmark_properties": None}
    keys, bookmarks = _keys(stream, settings, kept, fail), _bookmarks(stream, settings, kept, method, fail)
    if disposition is None:
        disposition = "replace" if method is ReplicationMethod.FULL_TABLE else "merge" if keys else "append"
    if disposition == "merge" and not keys:
        raise fail(
            "key_properties",
            "merge needs key_properties: the source has no primary key, or its columns are excluded",
            kept,
        )
    if method is ReplicationMethod.INCREMENTAL and disposition == "replace":
        raise fail(
            "write_disposition",
            "INCREMENTAL reads only what is new, `replace` would drop the rest: use merge or append, or FULL_TABLE",
            ["append", "merge"],
        )
    policy = _null_bookmarks(stream, settings, disposition, method, fail)
    lookback = _lookback(stream, settings, disposition, bookmarks, fail)
    read = replace(
        stream,
        schema=_keys_not_null(pa.schema([stream.schema.field(name) for name in kept]), keys, disposition),
        key_properties=keys,
        replication_method=method,
        bookmark_properties=bookmarks,
        null_bookmarks=policy,
        lookback=lookback,
        is_above_bookmark=_is_above(stream, settings, bookmarks, lookback, fail),
        where=_conditions(pipeline, stream, settings, fail),
        may_repeat=disposition == "merge",
        changed_files=_changed_files(stream, settings, disposition, fail),
        max_rejected=_max_rejected(settings),
    )
    return SelectedStream(
        stream=read,
        destination_table=_destination_table(pipeline, stream, settings),
        write_disposition=WriteDisposition(disposition),
        conflict_method=ConflictMethod(settings.get("unique_conflict_method") or ConflictMethod.UPDATE),
        replaces_explicitly=settings.get("write_disposition") == "replace",
        retries=_first(settings.get("retries"), pipeline.retries),
        retry_delay_s=_first(settings.get("retry_delay_s"), pipeline.retry_delay_s),
        timeout_s=_first(settings.get("timeout_s"), pipeline.timeout_s),
        on_lossy=settings.get("on_lossy") or pipeline.on_lossy,
        parallel_reads=_first(settings.get("parallel_reads"), pipeline.parallel_reads),
        verify=_first(settings.get("verify"), pipeline.verify),
        has_own_key=bool(keys) and set(keys) == set(stream.key_properties),
        on_schema_change=settings.get("on_schema_change") or "evolve",
        said=said,
        left_out=_left_out(stream, kept),
        naming=pipeline.destination.naming,
        added=_added(pipeline, settings, fail),
        differences=differences,
        location=location,
    )


def _known_without_columns(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a stream whose columns nobody knows: it fails in its turn, and reads nothing."""
    of_columns = {"columns", "where", "types", "key_properties", "bookmark_properties", "bookmark_property_operators"}
    of_columns |= {"replication_method", "null_bookmarks", "lookback", "changed_files"}
    kept = {key: value for key, value in settings.items() if key not in of_columns}
    return kept | ({"write_disposition": "append"} if kept.get("write_disposition") == "merge" else {})


def _left_out(stream: Stream, kept: Sequence[str]) -> tuple[str, ...]:
    known = frozenset(kept)
    return tuple(name for name in stream.schema.names if name not in known)


def _kept_columns(stream: Stream, settings: Mapping[str, Any]) -> list[str]:
    columns = settings.get("columns")
    names = list(stream.schema.names)
    if columns is None:
        return names
    if columns.include:
        names = [name for name in names if matches_any(columns.include, name)]
    return [name for name in names if not matches_any(columns.exclude or (), name)]


def _said(settings: Mapping[str, Any], fail: _Failer) -> dict[str, pa.DataType]:
    """Return the types that a stream's settings say."""
    said: Mapping[str, str] = settings.get("types") or {}
    if not said:
        return {}
    from syncblocks.connectors.arrow.text import TYPES, parse_type  # its kernels take time to load

    found = {}
    for column, name in said.items():
        try:
            found[column] = parse_type(name)
        except ConnectorConfigError:
            allowed = [*TYPES, "decimal(p,s)"]
            raise fail("types", f"column {column!r}: no type {name!r}", allowed, name) from None
    return found


def _keys(stream: Stream, settings: Mapping[str, Any], kept: Sequence[str], fail: _Failer) -> tuple[str, ...]:
    configured = settings.get("key_properties")
    if configured is None:
        return stream.key_properties if set(stream.key_properties) <= set(kept) else ()
    for key in configured:
        if key not in kept:
            raise fail("key_properties", f"{key!r} is no column of the stream", kept, key)
    return tuple(configured)


def _bookmarks(
    stream: Stream, settings: Mapping[str, Any], kept: Sequence[str], method: ReplicationMethod, fail: _Failer
) -> tuple[str, ...]:
    if method is not ReplicationMethod.INCREMENTAL:
        return ()
    configured = settings.get("bookmark_properties") or ()
    if not configured and stream.keeps_own_bookmark:
        return tuple(name for name in stream.bookmark_properties if name in kept)
    if not configured:
        raise fail("bookmark_properties", "INCREMENTAL needs bookmark_properties: columns that only grow", kept)
    for name in configured:
        if name not in kept:
            raise fail("bookmark_properties", f"{name!r} is no column of the stream, or is excluded", kept, name)
        field = stream.schema.field(name)
        if not stream.keeps_own_bookmark and not has_order(field):
            ordered = [column for column in kept if has_order(stream.schema.field(column))]
            raise fail("bookmark_properties", f"values of column {name!r} ({field.type}) have no order", ordered)
    return tuple(configured)


def _is_by_files(stream: Stream, settings: Mapping[str, Any], fail: _Failer) -> bool:
    """Tell whether an INCREMENTAL stream reads the files that are new."""
    names = settings.get("bookmark_properties") or ()
    if not stream.has_files or FILE_MODIFIED not in names:
        return False
    if len(names) > 1:
        raise fail("bookmark_properties", f"{FILE_MODIFIED} stands alone: it says that files are read as a whole")
    for key, why in (
        ("lookback", "whatever is new or changed is read, whatever its time"),
        ("null_bookmarks", "files have no records without a bookmark"),
    ):
        if settings.get(key) is not None:
            raise fail(key, f"is not for bookmark_properties: [{FILE_MODIFIED}]: {why}")
    return True


def _changed_files(stream: Stream, settings: Mapping[str, Any], disposition: str, fail: _Failer) -> ChangedFiles:
    said = settings.get("changed_files")
    if not stream.tracks_files:
        if said is not None:
            raise fail("changed_files", f"is for INCREMENTAL with bookmark_properties: [{FILE_MODIFIED}] only")
        return ChangedFiles.FAIL
    if disposition == "merge":
        if said == "append":
            raise fail("changed_files", "a merge replaces the records of a changed file: leave it out, or say `ignore`")
        return ChangedFiles.IGNORE if said == "ignore" else ChangedFiles.READ
    return {"append": ChangedFiles.READ, "ignore": ChangedFiles.IGNORE}.get(said or "", ChangedFiles.FAIL)


def tracked_tables(pipeline: Pipeline, selection: Selection) -> dict[str, str]:
    """Return the wanted streams that may be read by new files, with their destination tables."""
    by_name = {stream.name: stream for stream in selection.catalog}
    _, settings = _merged_settings(pipeline, by_name)
    return {
        name: _destination_table(pipeline, by_name[name], settings[name])
        for name in selection.wanted
        if settings[name].get("replication_method") == ReplicationMethod.INCREMENTAL
        and FILE_MODIFIED in (settings[name].get("bookmark_properties") or ())
    }


def _conditions(
    pipeline: Pipeline, stream: Stream, settings: Mapping[str, Any], fail: _Failer
) -> tuple[Condition, ...]:
    comparisons: Sequence[Comparison] = settings.get("where") or ()
    if not comparisons:
        return ()
    from syncblocks.connectors.filters import condition_of  # a pipeline without filters spares the import

    place = next(number for number, entry in enumerate(pipeline.streams) if entry.where is comparisons)
    found: list[Condition] = []
    for column, operator, values in comparisons:
        if column not in stream.schema.names:
            raise fail("where", f"{column!r} is no column of the stream", stream.schema.names, column)
        field = stream.schema.field(column)
        try:
            condition = condition_of(field, operator, values)
        except ValueError as error:
            if GUESSED in (field.metadata or {}):
                # The table may decide for text; else the plan refuses it, when it is known.
                text = pa.field(column, pa.string())
                found.append(condition_of(text, operator, [str(value) for value in values]))
                continue
            shown = ", ".join(map(repr, values))
            raise fail("where", f"column {column!r} is {field.type}, and {shown} is no such value: {error}") from error
        of_interval = pipeline.said_of_interval(("streams", place, "where", column))
        found.append(replace(condition, of_interval=of_interval))
    return tuple(found)


def _added(pipeline: Pipeline, settings: Mapping[str, Any], fail: _Failer) -> AddedColumns:
    said = [*(settings.get("add_columns") or ())]
    if settings.get("mage_columns"):
        said += mage_columns(pipeline.execution_date.isoformat())
    if not said:
        return AddedColumns()
    from syncblocks.connectors.filters import literal_of

    found = []
    for column, value, kind, is_kept in said:
        field = pa.field(column, _arrow_type(kind))
        try:
            found.append(AddedColumn(field=field, value=literal_of(value, field), is_kept=is_kept))
        except ValueError as error:
            raise fail("add_columns", f"the value of column {column!r} is no {kind}: {error}") from error
    names = [column.casefold() for column, *_ in said]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise fail("add_columns", f"two columns are called {twice!r}")
    return AddedColumns(tuple(found))


def _arrow_type(kind: str) -> pa.DataType:
    if kind.startswith("decimal"):
        precision, scale = (int(part) for part in kind.removeprefix("decimal(").removesuffix(")").split(","))
        return pa.decimal128(min(precision, 38), min(scale, precision))
    return _ADDED_TYPES[kind]


_ADDED_TYPES = {
    "string": pa.string(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
}


def _null_bookmarks(
    stream: Stream, settings: Mapping[str, Any], disposition: str, method: ReplicationMethod, fail: _Failer
) -> NullBookmarks:
    configured = settings.get("null_bookmarks")
    if configured is None or method is not ReplicationMethod.INCREMENTAL:
        return NullBookmarks.FAIL
    if stream.keeps_own_bookmark:
        raise fail("null_bookmarks", "the source keeps its own bookmark, and decides by itself which records it sends")
    if configured == "always" and disposition == "append":
        raise fail(
            "null_bookmarks", "`always` reads records again in every run, and `append` would double them: merge by keys"
        )
    return NullBookmarks(configured)


def _max_rejected(settings: Mapping[str, Any]) -> int | None:
    if settings.get("on_rejected") != "keep":
        return None
    return int(_first(settings.get("max_rejected"), MAX_REJECTED))


def _lookback(
    stream: Stream, settings: Mapping[str, Any], disposition: str, bookmarks: Sequence[str], fail: _Failer
) -> float | None:
    lookback: float | None = settings.get("lookback")
    if lookback is None or (not bookmarks and not stream.keeps_own_bookmark):
        return None
    if stream.keeps_own_bookmark:
        raise fail("lookback", "the source keeps its own bookmark, and decides by itself which records it sends")
    if disposition == "append":
        raise fail("lookback", "it reads records again in every run, and `append` would double them: merge by keys")
    kind = stream.schema.field(bookmarks[0]).type
    if not can_look_back(kind):
        raise fail("lookback", f"bookmark property {bookmarks[0]!r} is {kind}, which is neither a time nor a number")
    return lookback


def _is_above(
    stream: Stream, settings: Mapping[str, Any], bookmarks: Sequence[str], lookback: float | None, fail: _Failer
) -> bool:
    """Tell whether only records above the bookmark are read."""
    operators: Mapping[str, str] = settings.get("bookmark_property_operators") or {}
    key = "bookmark_property_operators"
    if not operators or (not bookmarks and not stream.keeps_own_bookmark):
        return False
    if stream.keeps_own_bookmark:
        raise fail(key, "the source keeps its own bookmark, and decides by itself which records it sends")
    for name in operators:
        if name not in bookmarks:
            raise fail(key, f"{name!r} is none of the bookmark_properties", bookmarks, name)
    found = {operators.get(name, ">=") for name in bookmarks}
    if len(found) > 1:
        raise fail(key, f"{', '.join(bookmarks)} are compared together: give all of them the same operator")
    if found == {">"} and lookback is not None:
        raise fail(key, '">" and `lookback` contradict each other: it reads again from below the bookmark')
    return found == {">"}


def _keys_not_null(schema: pa.Schema, keys: Sequence[str], disposition: str) -> pa.Schema:
    if disposition == "append":  # the table gets no key
        return schema
    return pa.schema([field.with_nullable(False) if field.name in keys else field for field in schema])


def _destination_table(pipeline: Pipeline, stream: Stream, settings: Mapping[str, Any]) -> str:
    template = settings.get("destination_table")
    if template is not None:
        return render_destination_table(template, pipeline, stream.name)
    name = name_by(pipeline.destination.naming, _bare_name(stream))
    return str(TableName("", name)) if "table" in stream.locator else name  # its dots are quoted


def _bare_name(stream: Stream) -> str:
    """Return the table's own name in a database; elsewhere a dot would name a schema of the destination."""
    return str(stream.locator["table"]) if "table" in stream.locator else stream.name.replace(".", "_")


def _check_table_names(
    pipeline: Pipeline, chosen: Sequence[SelectedStream], settings: Mapping[str, Mapping[str, Any]]
) -> None:
    """Raise if `naming` gives two streams one table; streams whose tables have one name without it may share it."""
    by_name = {_bare_name(each.stream): each for each in chosen if settings[each.name].get("destination_table") is None}
    if found := one_named(pipeline.destination.naming, by_name):
        first, second, made = found
        text = collision("tables", pipeline.destination.naming, first, second, made)
        raise pipeline.error(by_name[second].location, f"stream {by_name[second].name!r}: {text}")


def _first(*candidates: Any) -> Any:
    return next((value for value in candidates if value is not None), None)


_Failer = Callable[..., ConfigError]


def _failer(
    pipeline: Pipeline, location: tuple[str | int, ...], stream: str, kind: type[ConfigError] = ConfigError
) -> _Failer:
    def fail(key: str, message: str, allowed: Sequence[str] = (), got: str | None = None) -> ConfigError:
        nearest = nearest_match(got, allowed) if got else None
        text = f"stream {stream!r}: {message}"
        return pipeline.error((*location, key), text, allowed=tuple(allowed), nearest=nearest, kind=kind)

    return fail
