"""Sources of files: what all formats have in common. The source of each format is a module of its own."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pyarrow as pa
from msgspec import Struct

from ..arrow.digits import DigitsSeen
from ..arrow.flatten import flat_schema, marked, names_of, path_of
from ..arrow.type_names import parse_type
from ..arrow.unbounded_numerics import Numbers, decided, undecided
from ..errors import ConnectorConfigError, ConnectorError, FatalConnectorError, RetriableError
from ..field_facts import FieldFacts, TypeOrigin, with_facts
from ..incremental.checkpoints import incremental
from ..interrupts import Call, Calls
from ..protocols import Capability
from ..ranges import Range, RangesRefused, how_many
from ..read_spec import ReplicationMethod
from ..settings import choice, parse_settings
from ..stream import FILES, Block, Bookmark, Checkpoint, Event, FileRead, Place, Stream
from ..struct_helpers import replace
from .file_columns import filled, marked_in_paths, numbered, with_file_columns, with_partitions
from .formats import INFER_BYTES, BoundedFormat, Format, demand_columns
from .paths import (
    DataFile,
    FilesLocation,
    StreamFiles,
    expanded,
    find_again,
    find_matches,
    find_streams,
    identity,
    list_matches,
    locate,
    reach,
    unverified,
)
from .ranges import FilePart, Seen, part_of
from .read_rejections import ReadRejections
from .settings import (
    FileSourceSettings,
    TextSourceSettings,
)
from .split_files import SplitFiles, Unit, expected_ranges, sampled, sizes
from .storage import translated
from .time_formats import type_of_format
from .tracking import FileCheckpoints, NewFiles, file_read, known_columns, united
from .type_inference import Guess
from .typed_format import TypedFormat

if TYPE_CHECKING:
    from .parquet_format import Footer


class FileSource:
    """Reads files; a stream is one file, or a folder of them."""

    connector: ClassVar[str]
    settings: ClassVar[type[FileSourceSettings]] = FileSourceSettings
    formats: ClassVar[type[Any]]
    #: Whether only the values tell what objects hold, and no schema.
    finds_objects: ClassVar[bool] = False

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self._settings = parse_settings(self.settings, config, self.connector)
        self._folder = folder
        self._format: Format = self.formats(self._settings)
        self._calls = Calls()
        #: Streams that were found, and where; each is looked for anew when it is read.
        self._found: dict[str, tuple[FilesLocation, StreamFiles]] = {}
        #: New files of a stream that was opened, until they are read: they are not listed once more.
        self._new: dict[str, NewFiles] = {}
        #: Name of a stream -> the snapshot of it that was recognised last: its files are not listed for each range.
        #: Name of a stream -> down to how many levels its objects become columns.
        self._levels: Callable[[str], int] = _no_levels
        #: Streams that go on under their former names.
        self._former: frozenset[str] = frozenset()

    def identity(self) -> str:
        return identity(self.connector, self._settings.path, self._folder)

    def place(self) -> Place:
        """Tell a URL from a path of this machine."""
        return reach(self._settings.path)

    def unverified_server(self) -> str:
        """Warn of ftp and http; the keys of sftp and the certificates of https are checked."""
        return unverified(self._settings.path)

    def check(self) -> None:
        """Resolve the path and open one file."""
        for found in self._find():
            for file in found.files[:1]:
                file.open_raw().close()
                return

    def discover(self) -> Sequence[Stream]:
        streams = [self._stream(found) for found in self._find()]
        return self._without_unused(streams, streams)

    def list_streams(self) -> Sequence[str]:
        """See `ListsStreams`."""
        return list(self._settings.streams) or [found.name for found in self._find()]

    def open_streams(self, names: Collection[str]) -> Sequence[Stream]:
        """See `ListsStreams`."""
        everything = self._find(names)
        streams = [self._opened(found) for found in everything if found.name in names]
        if self._unused_types(streams):  # a stream that nobody wants may have the column
            others = [self._opened(found) for found in self._find() if found.name not in names]
            if not any(stream.unreadable for stream in (*streams, *others)):
                return self._without_unused(streams, [*streams, *others])
        return streams

    def former_names(self) -> Mapping[str, str]:
        """See `HasFormerNames`: a name had the dots of the file's name."""
        return {each.name: each.stem for _, each in self._found.values() if each.stem}

    def keep_former_names(self, names: Collection[str]) -> None:
        """See `HasFormerNames`."""
        self._former = frozenset(names)

    def open_tracked(self, name: str, read: Sequence[FileRead], bookmark: Bookmark) -> Stream:
        """See `TracksFiles`."""
        if name in self._settings.streams:
            found, new = self._found_by_pattern(name, read)
        else:
            found = self._found_before(name)
            new = NewFiles.among(found.files, read)
        self._new[name] = new
        return self._opened(replace(found, files=new.files), known_columns(bookmark))

    def _found_by_pattern(self, name: str, read: Sequence[FileRead]) -> tuple[StreamFiles, NewFiles]:
        levels = self._levels(name)
        found, listing, listed = list_matches(self._location(), name, self._settings.streams[name], self._format.suffix)
        return found, NewFiles(listing, lambda entry: replace(listed(entry), levels=levels), read)

    def _found_before(self, name: str) -> StreamFiles:
        """Return the files as `list_streams` has found them, if it had to look for them."""
        if self._found and not self._settings.streams:
            everything = [self._leveled(replace(each, name=own)) for own, (_, each) in self._found.items()]
        else:
            everything = self._find([name])
        for found in everything:
            if found.name == name:
                return found
        raise FatalConnectorError(f"the files of stream {name!r} do not exist any more", stream=name, key="path")

    def _opened(self, found: StreamFiles, known: pa.Schema | None = None) -> Stream:
        try:
            return self._stream(found, known)
        except (FatalConnectorError, _GoneFile) as error:
            return Stream(
                name=found.name,
                schema=pa.schema([]),
                unreadable=str(error),
                unreadable_without_values=error.without_values,
            )

    def _unused_types(self, streams: Sequence[Stream]) -> list[str]:
        columns = {name for stream in streams for name in stream.schema.names}
        return [
            name for name in self._settings.said_columns() if not fnmatch.filter(columns, name) and name not in columns
        ]

    def _without_unused(self, streams: list[Stream], everything: Sequence[Stream]) -> list[Stream]:
        """Return the streams; a notice says of which column, whose type the settings say, there is none today.

        Raises:
            ConnectorConfigError: the headers of all files were read, and there is no such column.
        """
        unused = self._unused_types(everything)
        first = next((place for place, stream in enumerate(streams) if len(stream.schema)), None)
        if not unused or first is None:
            return streams
        key = "types" if unused[0] in self._settings.types else "formats"
        meant = choice(unused[0], {name for stream in everything for name in stream.schema.names})
        said = f"config.{key}: no stream has a column {unused[0]!r}{meant}"
        if not self.finds_objects and all(len(each.schema) and not each.sampled_files for each in everything):
            raise ConnectorConfigError(said, connector=self.connector, key=key)
        told = streams[first]
        field = with_facts(told.schema.field(0), notice=said)
        return [*streams[:first], replace(told, schema=told.schema.set(0, field)), *streams[first + 1 :]]

    def groups(self, streams: Sequence[Stream]) -> Sequence[Sequence[Stream]]:
        return [[stream] for stream in streams]

    def offers(self, stream: Stream) -> Sequence[str]:
        return ("arrow",)

    def count(self, stream: Stream) -> int:
        with self._calls.under_way(stream.name) as call, _located(stream.name, self.connector):
            if stream.read.max_rejected is None:
                return sum(self._format.count(file) for file in self._expanded(self._files(stream.name)))
            # Only a read tells rejected records from others.
            rejected = ReadRejections(stream.read.max_rejected)
            files = self._files(stream.name)
            return sum(batch.num_rows for batch in self._batches(stream, files, [], call, rejected))

    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str = "arrow"
    ) -> Iterator[tuple[str, Event | Block]]:
        for stream in group:
            with self._calls.under_way(stream.name) as call, _located(stream.name, self.connector):
                for event in self._events(stream, bookmarks.get(stream.name), call):
                    yield stream.name, event

    def plan_ranges(self, stream: Stream, readers: int) -> tuple[int | None, str]:
        """Plan ranges of files, and of large files by bytes or row groups."""
        by = self._split_by
        size_bytes, files = stream.locator.get("bytes"), int(stream.locator.get("files", 1))
        if size_bytes is None:
            return (
                (None, f"by {by}, counted when they are read") if files > 1 else (1, "a single file that is not local")
            )
        if by == "files" and files < 2:
            return 1, f"one {self.connector} file is read as a whole"
        count = how_many(int(size_bytes), readers, self._settings.range_bytes)
        if count == 1:
            return 1, f"{int(size_bytes):,} bytes are too few to split"
        expected = expected_ranges(stream.locator, count)
        if expected == 1:
            return 1, "one file that is compressed, in another encoding or of one row group is read as a whole"
        return expected, f"by {by}, {int(size_bytes):,} bytes in {files} file{'s' if files > 1 else ''}"

    @contextmanager
    def open_ranges(self, stream: Stream, readers: int, wire: str) -> Iterator[FileRanges]:
        """Split the files; local files must not change until all ranges are read."""
        with _located(stream.name, self.connector):
            split = self._split_files(stream)
            files = [one.file for one in split.seen]
            self._refuse_new_columns(files, _known_columns(stream))
            total = sum(file.size_bytes() for file in files)
            count = how_many(total, readers, self._settings.range_bytes)
            parts: list[tuple[int, DataFile, str]] = []
            for number, file in enumerate(files if count > 1 else ()):
                share = 1 if self._settings.file_rows else max(1, round(count * file.size_bytes() / max(total, 1)))
                found = self._format.split(file, share, self._settings.range_bytes)
                parts += [(number, part, label) for part, label in found]
            ranges = split.ranges(parts, max(self._settings.range_bytes, total // count))
        yield FileRanges(self, stream, split, ranges)

    def read_part(self, stream: Stream, part: Range, split: SplitFiles) -> Generator[pa.RecordBatch, None, None]:
        """Yield the records of a range of some files; a new column is refused."""
        known = _known_columns(stream)
        with self._calls.under_way(stream.name) as call, _located(stream.name, self.connector):
            for seen, file in split.parts(part.locator):
                seen.check()
                names = frozenset(self._format.names(part_of(file) if isinstance(file, FilePart) else file) or ())
                file = file.as_listed() if self._settings.file_columns else file
                records = 0
                for batch in self._format.read(file, stream.schema, known):
                    if not batch.schema.equals(stream.schema):
                        raise RangesRefused(f"{part.label} has new columns")
                    yield self._of_file(batch, file, sorted(names), records)
                    records += batch.num_rows
                    call.check()
                seen.check()

    @property
    def _split_by(self) -> str:
        if self._settings.file_rows:  # only a file as a whole knows the numbers of its records
            return "files"
        return {"csv": "files and bytes", "parquet": "files and row groups"}.get(self.connector, "files")

    def _split_files(self, stream: Stream) -> SplitFiles:
        """Find the files of a stream as they are now."""
        # Other settings do not change the records.
        settings = self._settings.model_dump(exclude={"path", "storage_options", "batch_size", "range_bytes"})
        return SplitFiles.of(self._expanded(self._files(stream.name)), settings)

    def _unit(self, file: DataFile) -> Unit:
        """Return what parts of a file are counted in; only a file as a whole knows the numbers of its records."""
        return "" if self._settings.file_rows else self._format.unit(file)

    def _refuse_new_columns(self, files: Sequence[DataFile], known: frozenset[str]) -> None:
        for file in files:
            new = [name for name in self._format.names(file) or () if name not in known]
            if new:
                raise RangesRefused(f"{file.label} has a new column {new[0]!r}")

    def interrupt(self, stream: str) -> None:
        self._calls.interrupt(stream)

    def close(self) -> None:
        """Nothing stays open: files are open only while they are read."""

    def _find(self, names: Collection[str] | None = None) -> list[StreamFiles]:
        """Find the files of all streams; of these only, where the settings name the streams."""
        settings, suffix, location = self._settings, self._format.suffix, self._location()
        if settings.streams:
            wanted = {name: said for name, said in settings.streams.items() if names is None or name in names}
            return [self._leveled(found) for found in find_matches(location, wanted, suffix)]
        found = find_streams(location, suffix, self._format.suffixes)
        named = [replace(each, name=each.stem) if each.name in self._former else each for each in found]
        self._found = {after.name: (location, each) for each, after in zip(found, named, strict=True)}
        return [self._leveled(each) for each in named]

    def _location(self) -> FilesLocation:
        settings = self._settings
        try:
            return locate(settings.path, self._folder, settings.storage_options, self._format.suffix)
        except ConnectorError as error:
            raise error.with_traceback(None)  # noqa: B904 (of frames whose variables hold the URL with its password)

    def _leveled(self, found: StreamFiles) -> StreamFiles:
        """Return a stream's files with the levels down to which their objects become columns."""
        levels = self._levels(found.name)
        if not levels:
            return found
        if not self.finds_objects:
            files = [replace(file, levels=levels) for file in found.files]
            schema = found.schema and flat_schema(found.schema, levels, f"stream {found.name!r}")
            return replace(found, files=files, schema=schema)
        # What objects hold is found in the values, whatever a manifest says.
        return replace(found, files=[replace(file, levels=levels, schema=None) for file in found.files], schema=None)

    def _files(self, stream: str) -> list[DataFile]:
        if self._settings.streams:
            return [file for found in self._find([stream]) for file in found.files]
        if stream in self._found:
            location, former = self._found[stream]
            again = find_again(location, self._format.suffix, self._format.suffixes, former)
            if again is not None:
                return self._leveled(replace(again, name=stream)).files
        for found in self._find():
            if found.name == stream:
                return found.files
        raise FatalConnectorError(f"the files of stream {stream!r} do not exist any more", stream=stream, key="path")

    def _stream(self, found: StreamFiles, known: pa.Schema | None = None) -> Stream:
        """Return a stream with the columns of its files, and those that are known from others."""
        if found.absent:
            return Stream(name=found.name, schema=pa.schema([]), absent=found.absent)
        with _located(found.name, self.connector):
            looked_at = found.files if found.schema or self._has_types else sampled(found.files)
            schema = found.schema or self._inferred(list(self._expanded(looked_at)), found.files)
            if found.files:
                demand_columns(found.files[0], len(schema), self._settings)
            schema = pa.schema([self._as_said(field) for field in schema])
            if len(schema):
                schema = with_file_columns(found.name, schema, self._settings)
            schema = marked_in_paths(united(known or pa.schema([]), schema), found.files)
            footers = self._footers(found.files)
        locator: dict[str, Any] = {"columns": schema.names, "files": len(found.files), "schema": schema}
        locator |= sizes(found.files, self._unit)
        if footers:
            locator["groups"] = sum(footer.groups for footer in footers)
        estimated = sum(footer.records for footer in footers) if footers else None
        return Stream(
            name=found.name,
            schema=schema,
            estimated_records=estimated,
            locator=locator,
            has_files=found.schema is None,
            sampled_files=None if looked_at is found.files else (len(looked_at), len(found.files)),
        )

    def _footers(self, files: Sequence[DataFile]) -> Sequence[Footer]:
        """Return what the files say of their records; nothing, if their format says nothing."""
        return ()

    def _expanded(self, files: Iterable[DataFile]) -> Iterator[DataFile]:
        """Yield files, and the files within archives; only texts can be read there."""
        return iter(files) if self._has_types else expanded(files, self._format.suffixes)

    @property
    def _has_types(self) -> bool:
        return isinstance(self._format, TypedFormat)

    def _as_said(self, field: pa.Field) -> pa.Field:
        """Return a column with the type that the settings say for it, if they do."""
        said, form = self._settings.type_of(field.name), self._settings.format_of(field.name)
        if said is None and form is not None:
            said = type_of_format(form)
            if said == "timestamp" and self._zone is not None:
                said = "timestamptz"
        if said is None:
            return field
        made = with_facts(pa.field(field.name, parse_type(said), field.nullable), _said(self._format))
        return marked(made, path_of(field))

    @property
    def _zone(self) -> str | None:
        """Return the zone of times without one, in files that have such."""
        return self._settings.timezone if isinstance(self._settings, TextSourceSettings) else None

    def _inferred(self, looked_at: Sequence[DataFile], files: Sequence[DataFile]) -> pa.Schema:
        """Return the columns of the files that are looked at, and those that the folders of all files name."""
        schema = self._format.schema(looked_at, INFER_BYTES)
        partitions: dict[str, list[str | None]] = {}
        for file in files:
            for name, value in file.partitions:
                partitions.setdefault(name, []).append(value)
        for name, values in partitions.items():
            if name not in schema.names:
                guess = Guess()
                guess.add(pa.array(values, pa.string()))
                schema = schema.append(pa.field(name, guess.type()))
        return schema

    def _events(self, stream: Stream, bookmark: Bookmark | None, call: Call) -> Iterator[Event]:
        changes: list[Stream] = []
        stream = self._decided(stream, call, changes)
        rejected = None if stream.read.max_rejected is None else ReadRejections(stream.read.max_rejected)
        if stream.read.tracks_files:
            new = self._new_files(stream.name, bookmark)
            checkpoints = FileCheckpoints(stream, bookmark, new, self._settings.checkpoint_records)
            batches = self._batches(stream, new.chosen(stream), changes, call, rejected, checkpoints)
        else:
            batches = self._batches(stream, self._files(stream.name), changes, call, rejected)
        if stream.read.tracks_files:
            events: Iterable[Event | Block] = batches
        elif stream.read.method is ReplicationMethod.INCREMENTAL:
            checkpoint_records = self._settings.checkpoint_records
            events = incremental(stream, batches, bookmark, is_ordered=False, checkpoint_records=checkpoint_records)
        else:
            events = batches
        try:
            for event in events:
                if rejected is not None:
                    yield from rejected.take()
                yield from changes
                changes.clear()
                yield event
            yield from changes  # no record came
            if rejected is not None:
                yield from rejected.take()
        finally:
            batches.close()

    def _decided(self, stream: Stream, call: Call, changes: list[Stream]) -> Stream:
        """Decide types that the plan left open, by one pass over the files; add the stream to `changes` then."""
        if not (fields := undecided(stream)):
            return stream
        seen = {field.name: DigitsSeen() for field in fields}
        for file in self._expanded(self._files(stream.name)):
            for texts in self._format.number_texts(file, list(seen)):
                call.check()
                for name, column in texts.items():
                    seen[name].add(column)
        found = {name: Numbers(digits=one.digits, special=tuple(one.special.items())) for name, one in seen.items()}
        stream = decided(stream, found)
        changes.append(stream)
        return stream

    def _new_files(self, name: str, bookmark: Bookmark | None) -> NewFiles:
        """Return the files to read: those that `open_tracked` has found, unless the bookmark says what was read."""
        new = self._new.pop(name, None)
        if bookmark is not None and FILES not in bookmark:
            if new is None:
                raise FatalConnectorError(f"the list of read files of stream {name!r} is unknown", stream=name)
            return new
        return NewFiles.among([file.as_listed() for file in self._files(name)], (bookmark or {}).get(FILES, ()))

    def _batches(
        self,
        stream: Stream,
        files: Sequence[DataFile],
        changes: list[Stream],
        call: Call,
        rejected: ReadRejections | None,
        checkpoints: FileCheckpoints | None = None,
    ) -> Generator[Any, None, None]:
        """Yield the batches of some files, and the checkpoints between them.

        Add the changed stream to `changes` before a batch with new columns.
        """
        schema = stream.schema
        known, total = _known_columns(stream), 0
        for found in files:
            call.check()
            file = found
            if checkpoints is not None:  # it may have been listed a while ago
                file = replace(found, listed=None).as_listed()
            elif self._settings.file_columns:
                file = found.as_listed()
            # A file that is kept as read must not even grow.
            seen = None if checkpoints is not None else Seen.growing(file)
            records = 0
            for part in self._expanded([file]):
                names = self._format.names(part)
                if names is not None:
                    self._demand_bookmark(stream, part, names)
                    new = [name for name in names if name not in known]
                    known |= frozenset(new)
                    own = self._format.schema([part], INFER_BYTES) if new else pa.schema([])
                    if taken := [own.field(name) for name in new if stream.read.takes(names_of(own.field(name)))]:
                        schema = pa.schema([*schema, *map(self._as_said, taken)])
                        demand_columns(part, len(schema), self._settings)
                        changes.append(replace(stream, schema=schema))
                for batch in self._format.read(part, schema, known, rejected):
                    if not batch.schema.equals(schema):
                        known |= frozenset(batch.schema.names)
                        batch = _without_unwanted(batch, schema, stream)
                    if not batch.schema.equals(schema):
                        schema = batch.schema
                        changes.append(replace(stream, schema=schema))
                    yield self._of_file(batch, part, names, records)
                    records += batch.num_rows
                    call.check()
            if seen is not None:
                seen.check_whole()
            if checkpoints is not None:
                yield from checkpoints.finish(file, records, schema)
                total += records
                if stream.read.limit is not None and total >= stream.read.limit:
                    break
        if checkpoints is not None:
            yield from checkpoints.end()
        elif stream.read.names_files:
            yield Checkpoint(files=tuple(file_read(file.as_listed().entry()) for file in files))

    def _of_file(
        self, batch: pa.RecordBatch, file: DataFile, names: Sequence[str] | None, before: int
    ) -> pa.RecordBatch:
        """Return a batch with what its file's name and time say; `before`: records of the file before it."""
        batch = with_partitions(file, batch, frozenset(names or ()))
        batch = numbered(batch, before) if self._settings.file_rows else batch
        return filled(batch, file) if self._settings.file_columns else batch

    def _demand_bookmark(self, stream: Stream, file: DataFile, names: Sequence[str]) -> None:
        if stream.read.method is not ReplicationMethod.INCREMENTAL or stream.read.tracks_files or not names:
            return  # an empty file has no records that could be lost
        paths = [name for name, _ in file.partitions]
        missing = [name for name in stream.read.bookmark_properties if name not in names and name not in paths]
        if missing:
            raise FatalConnectorError(
                f"{file.label} has no column {missing[0]!r}, a bookmark property: its records would be lost",
                stream=stream.name,
            )


class ObjectSource(FileSource):
    """Reads files whose records may hold objects."""

    def flatten(self, levels: Callable[[str], int]) -> None:
        """See `FlattensObjects`."""
        self._levels = levels


class TextSource(FileSource):
    """Reads text files, in which the length of a record is known before it is parsed."""

    def limit_record(self, size_bytes: int) -> None:
        """See `BoundsRecords`."""
        cast("BoundedFormat", self._format).record_bytes = size_bytes


class JSONTextSource(TextSource, ObjectSource):
    """Reads text files of JSON objects, of which no schema says what they hold."""

    finds_objects = True
    #: A missing key and `null` are the same.
    capabilities = frozenset({Capability.HAS_ONE_NULL})


class TypedSource(ObjectSource):
    """Reads files that say the types of their columns."""

    def nanoseconds(self, stream: Stream, columns: Sequence[str]) -> frozenset[str]:
        """See `LooksAtTimes`."""
        assert isinstance(self._format, TypedFormat)
        found: frozenset[str] = frozenset()
        with self._calls.under_way(stream.name) as call, _located(stream.name, self.connector):
            for file in self._expanded(self._files(stream.name)):
                call.check()
                found |= self._format.nanoseconds(file, [name for name in columns if name not in found])
        return found


class FileRanges(Struct, frozen=True):
    """The open ranges of one stream."""

    source: FileSource
    stream: Stream
    split: SplitFiles
    ranges: Sequence[Range]

    @property
    def moment(self) -> Mapping[str, Any] | None:
        """See `OpenRanges`."""
        return self.split.moment(self.ranges)

    def resume(self, moment: Mapping[str, Any], loaded: Mapping[int, int]) -> bool:
        """Tell whether the files have not changed: then the ranges are the same."""
        return moment == self.moment

    def read(self, part: Range) -> Generator[pa.RecordBatch, None, None]:
        """Yield one range."""
        return self.source.read_part(self.stream, part, self.split)


def _without_unwanted(batch: pa.RecordBatch, schema: pa.Schema, stream: Stream) -> pa.RecordBatch:
    """Leave out columns that a batch has beside those of the schema, and that the stream's settings do not take."""
    known = frozenset(schema.names)
    return batch.select([each.name for each in batch.schema if each.name in known or stream.read.takes(names_of(each))])


def _known_columns(stream: Stream) -> frozenset[str]:
    return frozenset(stream.locator.get("columns", ())) | frozenset(stream.schema.names)


def _no_levels(_: str) -> int:
    return 0


def _said(made: Format) -> FieldFacts:
    """Return what is known of a column whose type the settings say: values of text files are read as any type."""
    return FieldFacts() if isinstance(made, TypedFormat) else FieldFacts(origin=TypeOrigin.DECLARED)


class _GoneFile(RetriableError):
    """A file is gone since it was listed, or is a link to nothing."""


@contextmanager
def _located(stream: str, connector: str) -> Iterator[None]:
    """Add stream and connector to an error; a file that is gone since it was listed is worth another try."""
    try:
        with translated(f"stream {stream!r}"):
            yield
    except ConnectorError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise _GoneFile(str(error), stream=stream, connector=connector) from error
        error.stream, error.connector = error.stream or stream, error.connector or connector
        raise
