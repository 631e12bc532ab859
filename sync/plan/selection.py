"""Selection of streams: the file's `streams` entries applied to the source's catalog. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from msgspec import Struct, field

from syncblocks.connectors.arrow.flatten import names_of
from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.field_facts import FieldFacts, facts_of, with_facts
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.stream import (
    DELETED_AT,
    FILE,
    FILE_MODIFIED,
    VALID_FROM,
    VALID_TO,
    LedgerRow,
    Stream,
    TableState,
)
from syncblocks.connectors.struct_helpers import replace

from ..config import (
    Pipeline,
    StreamEntry,
    exact_name,
    exact_pattern,
    glob_matches,
    matcher,
    render_destination_table,
)
from ..config.added_columns import MAGE_COLUMNS
from ..config.blocks import Columns
from ..config.conditions import is_met
from ..config.endpoints import SUFFIXES
from ..config.load import MAX_MISTAKES
from ..config.masks import ColumnMask
from ..config.naming import collision, one_named
from ..errors import ConfigError, Mistake, mistakes, nearest_match
from .options import OPTIONS, columns_of
from .selected_stream import SelectedStream, failer
from .stream_settings import bare_name, configure, destination_table, said_columns
from .worker_plan import WorkerPlan, catalog_of, is_reserved

if TYPE_CHECKING:
    pass


class NoStream(ConfigError):
    """A pattern matches no stream. In a new file it is a mistake; after an earlier run the source has changed."""

    code = "no_stream"

    #: The source's streams.
    catalog: Sequence[Stream] = ()


class NoSuchStream(Mistake):
    """A glob of the command matches no selected stream."""

    given = ""


class Selection(Struct, frozen=True, kw_only=True):
    """The catalog as the `streams` entries select from it; only the wanted streams need to be opened."""

    catalog: tuple[Stream, ...]
    #: Streams that the file selects, in run order.
    selected: tuple[str, ...]
    #: Those of them that this command is about.
    wanted: tuple[str, ...]
    #: Streams that are skipped, since there is nothing to read them from -> why.
    absent: Mapping[str, str] = field(default_factory=dict)
    #: Streams that this command would be about, but that their `when` leaves out -> the condition.
    left_out: Mapping[str, str] = field(default_factory=dict)
    #: Of which plan it is a part; None: of none, and the catalog has all streams of the source.
    part: WorkerPlan | None = None

    @property
    def is_whole(self) -> bool:
        """Whether this command is about all selected streams."""
        return self.part is None and self.wanted == self.selected


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
    entries, settings = merged_settings(pipeline, by_name)
    absent = {name: by_name[name].absent for name in selection.wanted if by_name[name].absent}
    for name, reason in absent.items():
        if not settings[name].get("optional") and name not in read:
            text = f"{reason}; `optional: true` skips the stream where that is so"
            raise failer(pipeline, ("streams", entries[name][-1]), name)("stream", text)
    selected, wanted = (
        tuple(name for name in names if name not in absent) for names in (selection.selected, selection.wanted)
    )
    return replace(selection, selected=selected, wanted=wanted, absent=absent)


def select_names(
    pipeline: Pipeline,
    catalog: Sequence[Stream],
    globs: Sequence[str] = (),
    only: Collection[str] | None = None,
    tags: Sequence[str] = (),
    *,
    is_of_run: bool = True,
    part: WorkerPlan | None = None,
) -> Selection:
    """Return the names that the `streams` entries select.

    Args:
        pipeline: the pipeline file.
        catalog: the source's streams, opened or not.
        globs: of `--stream`; none: all.
        only: exact names, if the streams are known already.
        tags: of `--tag`; none: all.
        is_of_run: False: a stream is part of it in whatever run its `when` is true.
        part: of the plan of which these streams are a part; then entries may match nothing.

    Raises:
        ConfigError: a pattern matches nothing, no stream has a tag, or a `when` compares what cannot be compared.
    """
    by_name = {stream.name: stream for stream in catalog}
    entries, settings = merged_settings(pipeline, by_name, part)
    selected = [name for name, said in settings.items() if said.get("selected", True) is not False]
    if not selected and part is None:
        raise pipeline.error(("streams",), "every stream is left out by `selected: false`; nothing is left to sync")
    wanted = matching_names([name for name in selected if only is None or name in only], globs)
    if tags:
        wanted = _tagged(wanted, {name: settings[name].get("tags") or () for name in selected}, tags)
    left_out = _left_out(pipeline, by_name, wanted, entries, settings) if is_of_run else {}
    return Selection(
        catalog=tuple(catalog),
        selected=tuple(name for name in selected if name not in left_out),
        wanted=tuple(name for name in wanted if name not in left_out),
        left_out=left_out,
        part=part,
    )


def _left_out(
    pipeline: Pipeline,
    by_name: Mapping[str, Stream],
    names: Sequence[str],
    entries: Mapping[str, list[int]],
    settings: Mapping[str, Mapping[str, Any]],
) -> dict[str, str]:
    """Return the streams whose `when` is false in this run, with the condition."""
    found = {}
    for name in names:
        when = settings[name].get("when")
        if when is None:
            continue
        table = destination_table(pipeline, by_name[name], settings[name])
        if _is_left_out(pipeline, entries[name], when, name, table):
            found[name] = when
    return found


def _is_left_out(pipeline: Pipeline, entries: Sequence[int], when: str, name: str, table: str) -> bool:
    place = next(each for each in reversed(entries) if pipeline.streams[each].when is not None)
    with mistakes():
        return not is_met(pipeline, ("streams", place, "when"), when, name, table)


def found_by_globs(pipeline: Pipeline, name: str) -> dict[str, Any] | None:
    """Return the settings of a stream that the source does not offer; None: no glob would find it, or it is named."""
    found = _globs_of(pipeline, name)
    if any(exact_name(pipeline.streams[each].stream) is not None for each in found):
        return None
    return _merged([pipeline.streams[each] for each in found]) if found else None


def is_left_out(pipeline: Pipeline, name: str, table: str) -> bool:
    """Tell whether a stream that globs would find is left out of this run by its `when`."""
    found = _globs_of(pipeline, name)
    when = _merged([pipeline.streams[each] for each in found]).get("when")
    return when is not None and _is_left_out(pipeline, found, when, name, table)


def _globs_of(pipeline: Pipeline, name: str) -> list[int]:
    return [
        number
        for number, entry in enumerate(pipeline.streams)
        if glob_matches(entry.stream, name) and not is_reserved(name)
    ]


def without_columns(stream: Stream) -> str:
    """Say that a stream has no columns, and what to do about it."""
    why = "is it empty?" if stream.has_files else "its table or view has none; leave it out with `selected: false`"
    return f"the source has no columns for it: {why}"


def left_out_by_when(name: str, when: str, what: str = "left out of this run") -> str:
    """Say that `when` leaves a stream out, of what, and the condition."""
    return f"stream {name!r} is {what}: its `when` is false: {when}"


class Refusals:
    """Streams that the source refuses: raised at once, or kept to let each fail in its turn."""

    def __init__(self, *, in_turn: bool) -> None:
        self._in_turn = in_turn
        #: Stream -> why.
        self.found: dict[str, str] = {}

    def refuse(self, names: Collection[str], error: ConfigError) -> None:
        """Refuse some streams.

        Raises:
            ConfigError: they do not fail in their turn, or the file alone is why.
        """
        if not self._in_turn or isinstance(error, Mistake):
            raise error
        for name in names:
            own = copy(error)
            own.message = own.message.removeprefix(f"stream {name!r}: ")
            self.found.setdefault(name, str(own))

    def refused(self, stream: Stream) -> Stream:
        """Return a stream as one that cannot be read, if it is refused."""
        why = self.found.get(stream.name, "")
        return replace(stream, unreadable=why) if why else stream


def gone_streams(pipeline: Pipeline, names: Collection[str], among: Collection[str] | None = None) -> list[Stream]:
    """Return the streams that the file names and the source does not have, as streams that cannot be read.

    None where no stream would be left: that is an error of the whole run.

    Args:
        pipeline: the pipeline file.
        names: of the source's streams.
        among: only these are asked for; None: all.
    """
    by_name = {name: Stream(name=name, schema=pa.schema([])) for name in names}
    gone = Refusals(in_turn=True)
    for number, entry in enumerate(pipeline.streams):
        name = exact_name(entry.stream)
        is_asked = name is not None and name not in by_name and (among is None or name in among)
        if name is not None and is_asked and entry.selected is not False:
            try:
                _matches(pipeline, number, entry, by_name)
            except NoStream as error:
                gone.refuse([name], error)
    if gone.found and among is None:
        _, there = merged_settings(pipeline, by_name, is_lenient=True)
        if all(said.get("selected") is False for said in there.values()):
            return []
    return [gone.refused(Stream(name=name, schema=pa.schema([]))) for name in gone.found]


def select_streams(
    pipeline: Pipeline, selection: Selection, known: Collection[str] = (), refusals: Refusals | None = None
) -> tuple[SelectedStream, ...]:
    """Return the wanted streams of a selection with their settings, in run order.

    Args:
        pipeline: the pipeline file.
        selection: with the wanted streams opened.
        known: streams that were written before, see `skipped_streams`.
        refusals: takes the streams of which the following is so; default: it is raised.

    Raises:
        ConfigError: a column matches nothing, keys or bookmark_properties are no columns, INCREMENTAL without
            bookmark_properties, merge without keys; names all streams of which that is so.
        FatalConnectorError: the columns of a stream cannot be read, and the file does not say `allow_blocks_to_fail`.
    """
    by_name, part = {stream.name: stream for stream in selection.catalog}, selection.part
    entries, settings = merged_settings(pipeline, by_name, part)
    refusals = refusals or Refusals(in_turn=False)
    skipped = skipped_streams(pipeline, selection, known)
    catalog = catalog_of(pipeline) if part is None else part.catalog
    wanted = [name for name in selection.wanted if name not in skipped]
    for name in wanted or skipped[:1]:  # before the columns are checked: none of them would be found
        if by_name[name].unreadable:
            if not pipeline.allow_blocks_to_fail:
                raise FatalConnectorError(by_name[name].unreadable, connector=pipeline.source.connector, stream=name)
        elif not by_name[name].schema.names:
            error = failer(pipeline, ("streams", entries[name][-1]), name, NoStream)(
                "stream", without_columns(by_name[name])
            )
            if not wanted:
                raise error
            refusals.refuse([name], error)
    if part is None:  # another stream of the entry may have the column
        _check_columns(pipeline, entries, by_name, _column_patterns, refusals)
    chosen, errors = list[SelectedStream](), list[ConfigError]()

    def chosen_stream(name: str) -> SelectedStream:
        stream, location = refusals.refused(by_name[name]), ("streams", entries[name][-1])
        return configure(pipeline, stream, settings[name], location, catalog)

    for name in wanted:
        try:
            chosen.append(chosen_stream(name))
        except ConfigError as error:
            try:
                refusals.refuse([name], error)
                chosen.append(chosen_stream(name))
            except ConfigError as certain:
                errors.append(certain)
    if errors:
        raise _together(errors)
    if part is None:
        _check_columns(pipeline, entries, by_name, _column_names, refusals)
    _check_table_names(pipeline, chosen, settings)
    return tuple(chosen)


def _together(errors: Sequence[ConfigError]) -> ConfigError:
    """Return one error for the mistakes of several streams, at the place of the first."""
    first = next((error for error in errors if not isinstance(error, Mistake)), errors[0])
    if len(errors) == 1:
        return first
    has_places = len({error.line for error in errors}) > 1
    listed = "".join(f"\n  {_in_a_list(error, has_places)}" for error in errors)
    message = f"{len(errors)} streams cannot be synced like this:{listed}"
    return type(first)(message, path=first.path, line=first.line, key=first.key)


def _in_a_list(error: ConfigError, has_place: bool) -> str:
    place = f"line {error.line}: " if has_place else ""
    nearest = "" if error.nearest is None else f"; did you mean {error.nearest!r}?"
    return f"{place}{error.message}{nearest}"


def matching_names(names: Sequence[str], globs: Sequence[str]) -> list[str]:
    """Return the names that `--stream` matches, in their order; all of them without a glob.

    Raises:
        ConfigError: a glob matches none of them.
    """
    known = set(names)
    for glob in globs:
        is_name = exact_name(glob) is not None
        if not known.intersection((glob, exact_name(glob))) and (
            is_name or not any(glob_matches(glob, name) for name in names)
        ):
            raise _no_such_stream(f"{glob!r} matches no stream", glob, names)
    is_asked = matcher(globs)
    return [name for name in names if not globs or is_asked(name)]


def _tagged(names: Sequence[str], found: Mapping[str, Sequence[str]], tags: Sequence[str]) -> list[str]:
    """Return the names of the streams that have one of the tags."""
    known = sorted({tag for each in found.values() for tag in each})
    for tag in tags:
        if tag not in known:
            message = f"{tag!r} is the tag of no selected stream"
            message += "" if known else "; give streams `tags: [...]` in the pipeline file"
            raise Mistake(message, key="--tag", allowed=tuple(known), nearest=nearest_match(tag, known))
    tagged = [name for name in names if set(tags) & set(found[name])]
    if not tagged:
        shown = ", ".join([*names[:10], *(["..."] if len(names) > 10 else [])])
        raise Mistake(f"none of the chosen streams has the tag {' or '.join(tags)}: {shown}", key="--tag")
    return tagged


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
    error = NoSuchStream(message, key="--stream", allowed=tuple(names[:20]), nearest=_nearest_stream(given, names))
    error.given = given
    return error


def skipped_streams(pipeline: Pipeline, selection: Selection, known: Collection[str]) -> tuple[str, ...]:
    """Return the wanted streams without columns that only globs match, such as an empty file.

    Such a stream is an error if the file names it, or if it was written before.
    """
    by_name = {stream.name: stream for stream in selection.catalog}
    exact = (exact_name(entry.stream) for entry in pipeline.streams)
    named = {*known, *(exact if selection.part is None else selection.part.named)}
    return tuple(
        name
        for name in selection.wanted
        if name not in named and not by_name[name].schema.names and not by_name[name].unreadable
    )


def merged_settings(
    pipeline: Pipeline, by_name: Mapping[str, Stream], part: WorkerPlan | None = None, *, is_lenient: bool = False
) -> tuple[dict[str, list[int]], dict[str, dict[str, Any]]]:
    """Return the entries of each matched stream, and their settings merged.

    Args:
        pipeline: the pipeline file.
        by_name: the source's streams.
        part: see `select_names`.
        is_lenient: a pattern may match nothing.
    """
    entries: dict[str, list[int]] = {}
    if part is not None:
        entries = {name: found for name, stream in by_name.items() if (found := part.entries(stream))}
    errors: list[NoStream] = []
    for number, entry in enumerate(pipeline.streams if part is None else ()):
        try:
            for name in _matches(pipeline, number, entry, by_name):
                entries.setdefault(name, []).append(number)
        except NoStream as error:
            errors.append(error)
    if errors and not is_lenient:
        first, *others = errors[:MAX_MISTAKES]
        first.others, first.catalog = tuple(others), tuple(by_name.values())
        raise first
    return entries, {name: _merged([pipeline.streams[each] for each in found]) for name, found in entries.items()}


def _merged(entries: Sequence[StreamEntry]) -> dict[str, Any]:
    """Merge the settings of several entries; later entries win, but masks, types and forms of other columns stay."""
    merged = {key: getattr(entry, key) for entry in entries for key in entry.model_fields_set}
    for key in ("types", "decode"):
        if merged.get(key):
            merged[key] = _summed([getattr(entry, key) for entry in entries if key in entry.model_fields_set])
    masks = _merged_masks([entry.columns for entry in entries if "columns" in entry.model_fields_set])
    if masks:
        merged["columns"] = merged["columns"].model_copy(update={"mask": masks})
    return merged


def _summed(given: Sequence[Mapping[str, str] | None]) -> dict[str, str]:
    """Return what several entries say of columns; null ends what was said before."""
    summed: dict[str, str] = {}
    for said in given:
        summed = {} if said is None else {**summed, **said}
    return summed


def _merged_masks(given: Sequence[Columns | None]) -> tuple[ColumnMask, ...]:
    """Return the masks of several entries: no entry shows a column by saying something else about `columns`.

    A later mask of the same column or glob counts, and null in place of `columns` or of its `mask` ends all of them.
    """
    masks: tuple[ColumnMask, ...] = ()
    for columns in given:
        if columns is None or ("mask" in columns.model_fields_set and columns.mask is None):
            masks = ()
        elif columns.mask is not None:
            said = {rule.column for rule in columns.mask}
            masks = (*columns.mask, *(rule for rule in masks if rule.column not in said))
    return masks


def _matches(pipeline: Pipeline, number: int, entry: StreamEntry, by_name: Mapping[str, Stream]) -> list[str]:
    """Return the streams of one entry: an exact name (also of a view), else a glob over tables."""
    pattern = entry.stream
    exact = exact_name(pattern)
    if exact is not None and exact in by_name:
        return [exact]
    hits = [name for name, stream in by_name.items() if glob_matches(pattern, name) and not is_reserved(name)]
    tables = [name for name in hits if not by_name[name].is_view]
    if tables:
        return tables
    if hits:
        message = f"{pattern!r} matches views only ({', '.join(hits[:5])}); a view is synced by its exact name"
        if pattern in by_name:
            message += f", here {exact_pattern(pattern)!r}"
    elif not by_name:
        message = f"{pattern!r} matches no stream: {_nothing_offered(pipeline)}"
    else:
        shown = ", ".join(list(by_name)[:10]) + (", ..." if len(by_name) > 10 else "")
        message = f"{pattern!r} matches no stream; the source has {shown}"
    nearest = _nearest_stream(pattern, by_name)
    raise pipeline.error(("streams", number, "stream"), message, nearest=nearest, kind=NoStream)


def _nothing_offered(pipeline: Pipeline) -> str:
    """Say where a source without any stream was looked at."""
    connector, path = pipeline.source.connector, pipeline.source.config.get("path")
    patterns = [f"*{suffix}" for suffix, name in SUFFIXES.items() if name == connector]
    if not patterns or not isinstance(path, str):
        return "the source has no table that this user may read"
    scheme, is_url, rest = path.partition("://")
    # Of a URL neither credentials nor parameters.
    place = f"{scheme}://{rest.partition('?')[0].rpartition('@')[2]}" if is_url else pipeline.resolve(path)
    return f"{place} has no table" if connector in _EMBEDDED else f"{place} has no file {' or '.join(patterns)}"


def _nearest_stream(given: str, names: Collection[str]) -> str | None:
    """Return the stream that was probably meant: the one of this name in another or any schema, else a similar one."""
    bare = _last_part(given)
    return next((name for name in names if _last_part(name) == bare), None) or nearest_match(given, names)


def _last_part(name: str) -> str:
    return name.rpartition(".")[2].lower()


#: Databases that are files.
_EMBEDDED = ("duckdb", "sqlite")

#: Place of a column in an entry, its name or pattern.
_Named = Iterator[tuple[tuple[str, ...], str]]


def _check_columns(
    pipeline: Pipeline,
    entries: Mapping[str, list[int]],
    by_name: Mapping[str, Stream],
    named: Callable[[StreamEntry], _Named],
    refusals: Refusals,
) -> None:
    """Refuse the streams of an entry that names a column which none of them has."""
    for number, entry in enumerate(pipeline.streams):
        if next(named(entry), None) is None:
            continue
        streams = [by_name[name] for name, numbers in entries.items() if number in numbers]
        names = [stream.name for stream in streams]
        if any(stream.is_emptied or not stream.schema.names for stream in streams):
            continue  # a stream that was not opened, or is empty now, may have the column
        known = sorted({name for stream in streams for field in stream.schema for name in _known(field, named)})
        is_sampled = named is _column_patterns and any(stream.sampled_files for stream in streams)
        for location, pattern in named(entry):
            if is_sampled and location[1] != "include" and exact_name(pattern) is None:
                continue  # a file that was not looked at may have the column, which is then left out or masked
            if pattern not in known and not any(glob_matches(pattern, column) for column in known):
                error = pipeline.error(
                    ("streams", number, *location),
                    f"{pattern!r} matches no column of {entry.stream!r}",
                    allowed=tuple(known),
                    nearest=nearest_match(pattern, known),
                )
                refusals.refuse(names, error)


def _known(field: pa.Field, named: Callable[[StreamEntry], _Named]) -> list[str]:
    """Return the names that a column has in an entry; `columns` may name the object that the column is a value of."""
    return names_of(field) if named is _column_patterns else [field.name]


def _column_patterns(entry: StreamEntry) -> _Named:
    if entry.columns is not None:
        for side, patterns in (("include", entry.columns.include), ("exclude", entry.columns.exclude)):
            yield from ((("columns", side), pattern) for pattern in patterns or ())
        yield from ((("columns", "mask", rule.column), rule.column) for rule in entry.columns.mask or ())


def _column_names(entry: StreamEntry) -> _Named:
    added = {*(MAGE_COLUMNS if entry.mage_columns else ()), *columns_of(entry.add_columns)}
    others = {"types": added, "bookmark_properties": {FILE_MODIFIED}}  # the latter is told by `_bookmarks`
    for key, option in OPTIONS.items():
        if option.is_looked_up:
            for name in columns_of(getattr(entry, key)):
                if name not in others.get(key, ()):
                    yield (key, name) if option.is_mapping else (key,), name


def tracked_tables(pipeline: Pipeline, selection: Selection) -> dict[str, str]:
    """Return the wanted streams that may be read by new files, with their destination tables."""
    by_name = {stream.name: stream for stream in selection.catalog}
    _, settings = merged_settings(pipeline, by_name)
    return {
        name: destination_table(pipeline, by_name[name], settings[name])
        for name in selection.wanted
        if settings[name].get("replication_method") == ReplicationMethod.INCREMENTAL
        and FILE_MODIFIED in (settings[name].get("bookmark_properties") or ())
    }


def emptied_tables(pipeline: Pipeline, selection: Selection) -> dict[str, tuple[str, frozenset[str]]]:
    """Return the wanted streams whose files have no columns now: their table, and its columns that are not theirs.

    A CSV file that has lost its header as well is rather a broken upload: it stays an error, and the table as it is.
    """
    if pipeline.source.connector == "csv" and pipeline.source.config.get("header", True):
        return {}
    by_name = {stream.name: stream for stream in selection.catalog}
    _, settings = merged_settings(pipeline, by_name)
    found = {}
    for name in selection.wanted:
        stream = by_name[name]
        if stream.has_files and not (stream.schema.names or stream.unreadable or stream.absent):
            added = {column for column, *_ in said_columns(pipeline, settings[name])}
            own = frozenset({*added, DELETED_AT, VALID_FROM, VALID_TO})
            found[name] = destination_table(pipeline, stream, settings[name]), own
    return found


def with_columns_of(stream: Stream, table: TableState, row: LedgerRow, own: Collection[str]) -> Stream:
    """Return a stream that has become empty with the columns of the table that it was written to before."""
    from syncblocks.connectors.arrow.text import is_json  # it loads all of Arrow's functions, and few runs come here

    names = {stored: name for name, stored in row.columns.items()}
    held = [column for column in table.schema or () if column.name not in own]
    has_file_columns = {FILE, FILE_MODIFIED} <= {column.name for column in held}
    fields = []
    for column in held:
        facts = facts_of(column) if is_json(column.type) else FieldFacts()
        if has_file_columns and column.name == FILE:
            facts = FieldFacts(of_file=True)
        fields.append(with_facts(pa.field(names.get(column.name, column.name), column.type), facts))
    return replace(stream, schema=pa.schema(fields), is_emptied=True)


def _check_table_names(
    pipeline: Pipeline, chosen: Sequence[SelectedStream], settings: Mapping[str, Mapping[str, Any]]
) -> None:
    """Raise if `naming` gives two streams one table; streams whose tables have one name without it may share it."""
    if pipeline.destination.file and len(chosen) > 1:
        names = ", ".join(repr(each.name) for each in chosen[:5]) + (", ..." if len(chosen) > 5 else "")
        raise pipeline.error(
            chosen[1].policy.location,
            f"{pipeline.destination.file} is one file, for one stream, but {len(chosen)} are selected: {names}. Select "
            "one of them, or let `path` of the destination name a folder",
        )
    by_name = {bare_name(each.stream): each for each in chosen if settings[each.name].get("destination_table") is None}
    if found := one_named(pipeline.destination.naming, by_name):
        first, second, made = found
        text = collision("tables", pipeline.destination.naming, first, second, made)
        raise pipeline.error(by_name[second].policy.location, f"stream {by_name[second].name!r}: {text}")
