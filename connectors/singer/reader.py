"""Turn blocks of Singer lines into events of streams, in order; a checkpoint follows the records it covers."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ..errors import FatalConnectorError
from ..incremental.bookmarks import CHECKPOINT_RECORDS, CHECKPOINT_S
from ..programs.line_reader import LineReader
from ..programs.records import MALFORMED
from ..programs.values import shown
from ..stream import Bookmark, Checkpoint, Event, Stream
from .batches import BadBatch, BatchFiles
from .state_parts import entry_of, part_of, resumable
from .tap_stream import TapStream

log = logging.getLogger("syncblocks")

RECORD = b'"record"'

#: A line of another type holds no records, whatever a tap means by it.
_KINDS = frozenset({"RECORD", "STATE", "SCHEMA", "BATCH", "ACTIVATE_VERSION"})


class Message(msgspec.Struct):
    """A message; its values stay JSON until they are needed."""

    type: Any = None
    stream: Any = None
    schema: Any = None
    value: msgspec.Raw = msgspec.Raw(b"null")
    key_properties: Any = None
    bookmark_properties: Any = None
    encoding: Any = None
    manifest: Any = None
    version: Any = None


_messages = msgspec.json.Decoder(Message)


class TapReader(LineReader[TapStream]):
    """Turns one run of a tap into events.

    Args:
        tap: its name, for errors.
        streams: the selected streams.
        names: every stream of the tap -> its names in messages and STATE.
        bookmarks: bookmark of each selected stream.
        batch_files: opens the files of BATCH messages.
        adds_columns: names of the streams that take new columns.
        max_columns: most columns of a stream.
        wider: stream -> columns in which an earlier run found more digits than the schema declares.
        on_wider: called with a stream's wider columns when a new one is found.
        checkpoint_records: least number of records between two checkpoints.
        checkpoint_s: seconds after which a checkpoint comes earlier.
        clock: seconds, monotonic.
    """

    _connector = "singer"
    _key = RECORD
    _end = RECORD + b":0}"

    def __init__(
        self,
        tap: str,
        streams: Sequence[Stream],
        names: Mapping[str, Collection[str]],
        bookmarks: Mapping[str, Bookmark | None],
        *,
        batch_files: BatchFiles,
        adds_columns: Collection[str] = (),
        max_columns: int = sys.maxsize,
        wider: Mapping[str, Mapping[str, Any]] | None = None,
        on_wider: Callable[[str, Mapping[str, Any]], None] = lambda stream, wider: None,
        checkpoint_records: int = CHECKPOINT_RECORDS,
        checkpoint_s: float = CHECKPOINT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tap = tap
        #: The streams as the pipeline selects them.
        self.streams = tuple(streams)
        by_name = {
            stream.name: TapStream(
                stream,
                names[stream.name],
                bookmarks.get(stream.name),
                adds_columns=stream.name in adds_columns,
                max_columns=max_columns,
                wider=(wider or {}).get(stream.name),
            )
            for stream in streams
        }
        super().__init__(f"tap {tap}", by_name, on_wider)
        self._names = names
        self._batch_files = batch_files
        self._by_called: dict[str, TapStream | None] = {}
        for name, called in names.items():
            for each in called:
                self._by_called[each] = self._streams.get(name)
        self._unknown: set[str] = set()
        self._strange: set[str] = set()
        self._checkpoint_records = checkpoint_records
        self._checkpoint_s = checkpoint_s
        self._clock = clock
        self._state: bytes | None = None
        self._state_line = 0
        self._looked_at = clock()

    def read(self, blocks: Iterable[bytes]) -> Iterator[tuple[str, Event]]:
        """Yield `(stream name, event)` for the tap's messages, then each stream's last checkpoint.

        Args:
            blocks: whole lines; the last one may lack its line feed.

        Raises:
            FatalConnectorError: a line is no message, or no record of its stream; the error names tap, stream and line.
        """
        for block in blocks:
            yield from self._block(block)
        self._check_unknown()
        if self._state is not None:
            value = self._value(self._state)
            for tap_stream in self._streams.values():
                if tap_stream.is_incremental:
                    part = self._part(tap_stream, value)
                    yield tap_stream.stream.name, Checkpoint(bookmark=tap_stream.bookmark(part, is_complete=True))

    # -- lines ---------------------------------------------------------------------------------------------------

    def _stream_by(self, head: Mapping[str, Any], number: int) -> TapStream | None:
        if head.get("type") != "RECORD" or not isinstance(head.get("stream"), str):
            raise LookupError("no RECORD of a stream")
        return self._called(head["stream"], number, needs_schema=True)

    def _message(self, number: int, line: bytes) -> Iterator[tuple[str, Event]]:
        message = self._decoded(number, line)
        kind = message.type
        if kind == "RECORD":
            tap_stream = self._called(self._stream_of(message, number), number, needs_schema=True)
            if tap_stream is not None:
                tap_stream.lines.append(line)
                tap_stream.numbers.append(number)
        elif kind == "STATE":
            self._state = bytes(message.value)
            self._state_line = number
            yield from self._checkpoints()
        elif kind == "SCHEMA":
            yield from self._schema(message, number)
        elif kind == "BATCH":
            yield from self._batch(message, number)
        elif kind == "ACTIVATE_VERSION":
            yield from self._activate(message, number)
        elif isinstance(kind, str) and kind.upper() not in _KINDS:
            if kind not in self._strange:  # a warning a kind: a tap may log each record
                log.warning(
                    "tap %s: line %d has the type %r, which Singer does not have: skipped", self._tap, number, kind
                )
            self._strange.add(kind)
        else:
            what = "is not a Singer message"
            raise self._error(number, f"{what}: {shown(line)}; its type is {kind!r}", without_values=what)

    def _decoded(self, number: int, line: bytes) -> Message:
        try:
            return _messages.decode(line)
        except MALFORMED as error:
            try:  # NaN and infinities, as Python's JSON writer writes them
                found = json.loads(line.decode())
                if not isinstance(found, dict):
                    what = "is not a Singer message, which must be an object"
                    raise self._error(number, f"{what}: {shown(line)}", without_values=what) from error
                value = json.dumps(found.pop("value", None)).encode()
                known = {name: found[name] for name in Message.__struct_fields__ if name in found}
                json.dumps(known, ensure_ascii=False).encode()  # half a surrogate pair is a name of nothing
            except (ValueError, RecursionError):
                what = "is not JSON"
                raise self._error(number, f"{what}: {shown(line)} ({error})", without_values=what) from error
            return Message(**known, value=msgspec.Raw(value))

    def _stream_of(self, message: Message, number: int) -> str:
        if not isinstance(message.stream, str):
            raise self._error(number, f"is a {message.type} without a stream", has_no_values=True)
        return message.stream

    def _called(self, called: str, number: int, *, needs_schema: bool) -> TapStream | None:
        """Return the selected stream that a message names; None: the stream is not selected."""
        if called not in self._by_called:
            if called not in self._unknown:
                log.warning("tap %s: stream %r is not in its catalog; its records are skipped", self._tap, called)
            self._unknown.add(called)
            return None
        tap_stream = self._by_called[called]
        if tap_stream is not None and needs_schema and not tap_stream.has_schema:
            what = "is a RECORD before its stream's SCHEMA"
            raise self._error(number, what, tap_stream.stream.name, has_no_values=True)
        return tap_stream

    def _check_unknown(self) -> None:
        silent = [name for name, tap_stream in self._streams.items() if not tap_stream.has_schema]
        if silent and self._unknown:
            raise FatalConnectorError(
                f"tap {self._tap}: no message has the stream {silent[0]!r}; it sent "
                f"{', '.join(sorted(self._unknown))} instead, which its catalog does not have",
                connector="singer",
                stream=silent[0],
            )

    # -- what they say -------------------------------------------------------------------------------------------

    def _schema(self, message: Message, number: int) -> Iterator[tuple[str, Event]]:
        called = self._stream_of(message, number)
        tap_stream = self._called(called, number, needs_schema=False)
        if not isinstance(message.schema, dict):
            raise self._error(number, "is a SCHEMA without a schema", called, has_no_values=True)
        if tap_stream is None:
            return
        yield from self._flush(tap_stream)
        if tap_stream.called != called:
            tap_stream.called = called
        changed = tap_stream.declare(message.schema, message.bookmark_properties)
        if changed is not None:
            yield changed.name, changed

    def _activate(self, message: Message, number: int) -> Iterator[tuple[str, Event]]:
        """Ignore the message: only targets use versions; here a table is replaced as a whole, or not."""
        self._stream_of(message, number)
        yield from ()

    def _batch(self, message: Message, number: int) -> Iterator[tuple[str, Event]]:
        tap_stream = self._called(self._stream_of(message, number), number, needs_schema=True)
        files = message.manifest
        if not isinstance(message.encoding, dict) or not isinstance(files, list):
            what = "is a BATCH without encoding and manifest"
            raise self._error(number, what, str(message.stream), has_no_values=True)
        if tap_stream is None:
            return
        yield from self._flush(tap_stream)

        try:
            for file in files:
                if message.encoding.get("format") == "jsonl":
                    for block, lines in self._batch_files.read_lines(file, message.encoding):
                        yield from self._records(tap_stream, block, lines, is_wrapped=False, file=str(file))
                else:
                    for batch in self._batch_files.read_tables(file, message.encoding, tap_stream.stream.schema):
                        yield from self.batches(tap_stream, batch)
        except BadBatch as bad:
            raise self._error(number, f"is a BATCH that cannot be read: {bad}", tap_stream.stream.name) from bad

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def _checkpoints(self) -> Iterator[tuple[str, Event]]:
        """Yield checkpoints at the STATE just read, if they are due."""
        live = [tap_stream for tap_stream in self._streams.values() if tap_stream.is_incremental]
        most = max((tap_stream.pending + len(tap_stream.lines) for tap_stream in live), default=0)
        now = self._clock()
        if not live or (most < self._checkpoint_records and now - self._looked_at < self._checkpoint_s):
            return
        self._looked_at = now
        value = self._value(self._state or b"null")
        for tap_stream in live:
            part = self._part(tap_stream, value)
            place = resumable(entry_of(part, tap_stream.names))
            # The STATE has not moved this stream's position: the records since would be sent again.
            if not place or place == tap_stream.checkpoint:
                continue
            yield from self._flush(tap_stream)
            tap_stream.checkpoint, tap_stream.pending = place, 0
            yield tap_stream.stream.name, Checkpoint(bookmark=tap_stream.bookmark(part))

    def _part(self, tap_stream: TapStream, value: Any) -> Any:
        others = [each for name, called in self._names.items() if name != tap_stream.stream.name for each in called]
        return part_of(value, tap_stream.names, others)

    def _value(self, state: bytes) -> Any:
        try:
            return json.loads(state)
        except (ValueError, RecursionError) as error:
            what = "is a STATE that is not JSON"
            reason = f"{what}: {shown(state)} ({error})"
            raise self._error(self._state_line, reason, without_values=what) from error
