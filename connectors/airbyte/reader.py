"""Turn the output of one `read` into events: records by blocks, each STATE behind the records it covers."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

import pyarrow as pa

from ..arrow import compute as pc
from ..errors import ConnectorConfigError, ConnectorError, FatalConnectorError, Interrupted, RetriableError
from ..incremental.bookmarks import CHECKPOINT_RECORDS, CHECKPOINT_S
from ..programs.line_reader import LineReader
from ..programs.line_stream import WIDER, LineStream
from ..programs.records import AIRBYTE
from ..programs.values import shown
from ..stream import Bookmark, Checkpoint, Ended, Event, Stream, Warned
from ..struct_helpers import replace
from .catalog import schema_of
from .messages import Listener, LogWarning, Message, decoded

log = logging.getLogger("syncblocks")

#: Key of a stream's state in its bookmark; what is in it only the connector knows.
STATE = "airbyte_state"

#: Statuses of a stream that end it.
COMPLETE, INCOMPLETE = "COMPLETE", "INCOMPLETE"

#: Namespace and name of a stream.
Descriptor = tuple[str | None, str]


class AirbyteStream(LineStream):
    """One selected stream of a connector."""

    connector = "airbyte"
    envelope = AIRBYTE

    def __init__(self, stream: Stream, entry: Mapping[str, Any], bookmark: Bookmark | None, wider: Any) -> None:
        super().__init__(stream, bookmark, adds_columns=False, wider=wider)
        self.called = str(entry["name"])
        self.descriptor: Descriptor = (entry.get("namespace") or None, self.called)
        #: Of the last STREAM_STATUS; empty: there was none.
        self.status = ""
        self.error: ConnectorError | None = None
        self.is_ended = False
        self.is_heard = False
        #: Lines of the log while it was read.
        self.warned = Warned()
        #: Records since the last STATE.
        self.arrived = 0
        #: The last STATE, if it was not due and no record came since; in a tuple, since any JSON value may be one.
        self.held: tuple[Any] | None = None
        #: Records of an append below the state that the read began with, if that is one place.
        self.below = 0
        places = _places((bookmark or {}).get(STATE), self.resent.column)
        self._floor = places[0] if len(places) == 1 and not stream.read.may_repeat else None
        #: When the last checkpoint was.
        self.looked_at = 0.0
        #: The stream as it arrives, if its columns are not those that were planned.
        self.changed = self.declare(schema_of(entry), None)

    def note_below(self, batch: pa.RecordBatch) -> None:
        """Count the records that an append may hold already."""
        if self._floor is not None:
            self.below += self.resent.below(batch, self._floor)

    def bookmark(self, state: Any) -> Bookmark:
        """Return the bookmark with this state."""
        value, *others = _places(state, self.resent.column) or [None]
        wider = self.wider()
        hashes = self.resent.at(None, values=[value, *others]) if others else self.resent.at(value)
        return {STATE: state, **({WIDER: wider} if wider else {}), **hashes}


def _places(state: Any, column: str | None) -> list[Any]:
    """Return the cursor's values in a state: one, or one of each partition as manifests keep them; none if unknown."""
    if not column or not isinstance(state, Mapping):
        return []
    states = state.get("states")
    partitions = (
        [each.get("cursor") for each in states if isinstance(each, Mapping)] if isinstance(states, list) else []
    )
    held = [each.get(column) for each in (state, state.get("state"), *partitions) if isinstance(each, Mapping)]
    return [value for value in held if isinstance(value, str | int | float)]


class AirbyteReader(LineReader[AirbyteStream]):
    """Reads one run of a connector.

    Args:
        listener: takes the messages that are of no stream.
        streams: the selected ones.
        known: descriptors of all streams of the catalog.
        on_wider: called with a stream's wider columns when a new one is found.
        checkpoint_records: least number of records between two checkpoints of a stream.
        checkpoint_s: seconds after which a checkpoint comes earlier.
        clock: seconds, monotonic.
    """

    _connector = "airbyte"
    _key = b'"data":'
    _end = b'"data":0}}'

    def __init__(
        self,
        listener: Listener,
        streams: Sequence[AirbyteStream],
        known: Iterable[Descriptor],
        on_wider: Callable[[str, Mapping[str, Any]], None] = lambda stream, wider: None,
        *,
        checkpoint_records: int = CHECKPOINT_RECORDS,
        checkpoint_s: float = CHECKPOINT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(listener.label, {each.stream.name: each for each in streams}, on_wider)
        self._listener = listener
        self._by_descriptor: dict[Descriptor, AirbyteStream | None] = dict.fromkeys(known)
        self._by_descriptor |= {each.descriptor: each for each in streams}
        self._has_namespaces = any(namespace for namespace, _ in self._by_descriptor)
        self._is_group = len(streams) > 1
        self._checkpoint_records = checkpoint_records
        self._checkpoint_s = checkpoint_s
        self._clock = clock
        for each in streams:
            each.looked_at = clock()
        self._unknown: set[Descriptor] = set()
        #: Of a TRACE ERROR that is of no selected stream.
        self._common_error: ConnectorError | None = None
        self._has_statuses = False
        #: True if a page of an unknown stream was lost, and only LOG messages have arrived since.
        self._has_just_lost = False
        #: True if a page was lost before the first status.
        self._has_lost_unnamed = False

    def read(self, blocks: Iterable[bytes]) -> Iterator[tuple[str, Event]]:
        """Yield `(stream name, event)`; of several streams each is `Ended`, of one its error is raised.

        Args:
            blocks: whole lines; the last one may lack its line feed.

        Raises:
            ConnectorError: of the only stream.
            Interrupted: the read was.
        """
        failure: ConnectorError | None = None
        for stream in self._streams.values():
            if stream.changed is not None:
                yield stream.stream.name, stream.changed
        try:
            for block in blocks:
                yield from self._block(block)
                if self._is_over():
                    break
        except Interrupted:
            raise
        except ConnectorError as error:
            failure = error
        for stream in self._streams.values():
            yield from self._flush(stream)
        for stream in self._streams.values():
            if not stream.is_ended:
                yield from self._ended(stream, self._verdict(stream, failure))
            if stream.error is not None and not self._is_group:
                raise stream.error

    def _is_over(self) -> bool:
        """Tell whether all streams have ended and one has failed: it may be tried again, and waits for this process."""
        return all(each.is_ended for each in self._streams.values()) and any(
            each.error is not None for each in self._streams.values()
        )

    def _verdict(self, stream: AirbyteStream, failure: ConnectorError | None) -> ConnectorError | None:
        """Return why a stream has failed that has not ended before the output; None: it is complete."""
        if stream.error is not None or stream.status == COMPLETE:
            return stream.error
        if error := self._common_error or failure:
            return error
        name = stream.stream.name
        if self._has_lost_unnamed and not self._has_statuses:
            return self._lost_page(stream)
        if self._has_statuses:
            said = f"its last status is {stream.status}" if stream.status else "it got no status"
            return RetriableError(
                f"{self._label}: stream {name!r} is not COMPLETE, {said}",
                connector="airbyte",
                stream=name,
                has_no_values=True,
            )
        if self._unknown and not stream.is_heard:
            sent = ", ".join(sorted(repr(each[1]) for each in self._unknown))
            return FatalConnectorError(
                f"{self._label}: no message names stream {name!r}; it sent {sent}, which its catalog does not have",
                connector="airbyte",
                stream=name,
            )
        return None

    def _ended(self, stream: AirbyteStream, error: ConnectorError | None) -> Iterator[tuple[str, Event]]:
        if stream.held is not None:
            yield from self._checkpoint(stream, stream.held[0], is_followed=error is None)
        stream.is_ended, stream.error = True, error
        if stream.warned:
            yield stream.stream.name, stream.warned
        if stream.below:
            log.warning(
                "%s: stream %r: %s records lie below its state: they come late, or are sent again, and then the append "
                "holds them twice; merge holds each once",
                self._label,
                stream.stream.name,
                f"{stream.below:,}",
            )
        if self._is_group:
            yield stream.stream.name, Ended(error=error)

    # -- messages ------------------------------------------------------------------------------------------------

    def _stream_by(self, head: Mapping[str, Any], number: int) -> AirbyteStream | None:
        record = head.get("record")
        if head.get("type") != "RECORD" or not isinstance(record, Mapping):
            raise LookupError("no RECORD")
        if self._has_namespaces and "namespace" not in record:
            raise LookupError("the namespace comes behind the record")
        return self._named(record.get("namespace"), record.get("stream"))

    def _named(self, namespace: Any, name: Any) -> AirbyteStream | None:
        """Return the stream of a descriptor; None: it is not selected.

        Raises:
            LookupError: it is no descriptor.
        """
        if not isinstance(name, str) or not isinstance(namespace, str | None):
            raise LookupError("no stream")
        descriptor = (namespace or None, name)
        if descriptor not in self._by_descriptor:
            if descriptor not in self._unknown:
                log.warning("%s: stream %r is not in its catalog; its records are left out", self._label, name)
            self._unknown.add(descriptor)
            return None
        return self._by_descriptor[descriptor]

    def _described(self, holder: Any) -> AirbyteStream | None:
        """Return the stream of a `stream_descriptor`; None: there is none, or it is not selected."""
        found = holder.get("stream_descriptor") if isinstance(holder, Mapping) else None
        if not isinstance(found, Mapping):
            return None
        try:
            return self._named(found.get("namespace"), found.get("name"))
        except LookupError:
            return None

    def _message(self, number: int, line: bytes) -> Iterator[tuple[str, Event]]:
        try:
            message = decoded(line)
        except ValueError as error:
            what = str(error)
            raise self._error(number, f"{what}: {self._listener.clear(shown(line))}", without_values=what) from error
        if message is None:
            self._listener.printed(line)
        elif message.type == "RECORD":
            self._record(number, line, message)
        elif message.type == "STATE":
            yield from self._state(number, bytes(message.state))
        elif message.type == "TRACE" and isinstance(message.trace, dict):
            yield from self._trace(message.trace)
        else:
            if (warning := self._listener.take(message)) is not None:
                yield from self._warning(warning)
            return
        if message is not None and self._has_just_lost:
            self._has_just_lost = False
            # The CDK reports STARTED once a stream's first page is under way.
            yield from self._end_open()

    def _warning(self, warning: LogWarning) -> Iterator[tuple[str, Event]]:
        """Count a line of the log for its stream, or for all streams that are STARTED and not COMPLETE."""
        named = [each for each in self._streams.values() if each.called == warning.stream]
        for stream in named or self._open():
            if not stream.is_ended:
                stream.warned += Warned(error=1) if warning.is_error else Warned(warn=1)
                if warning.is_page_lost:
                    yield from self._end_without_page(stream)
        if warning.is_page_lost and not named:
            self._has_just_lost = True
            self._has_lost_unnamed |= not self._has_statuses

    def _open(self) -> list[AirbyteStream]:
        """Return the streams that are STARTED and not COMPLETE."""
        streams = self._streams.values()
        return [each for each in streams if each.status and each.status != COMPLETE and not each.is_ended]

    def _end_open(self) -> Iterator[tuple[str, Event]]:
        for stream in self._open():
            yield from self._end_without_page(stream)

    def _end_without_page(self, stream: AirbyteStream) -> Iterator[tuple[str, Event]]:
        """End a stream that has lost a page, because no later state may be committed."""
        yield from self._ended(stream, stream.error or self._lost_page(stream))

    def _lost_page(self, stream: AirbyteStream) -> RetriableError:
        name = stream.stream.name
        return RetriableError(
            f"{self._label}: stream {name!r}: the API sent an answer that cannot be parsed, so its page is lost",
            connector="airbyte",
            stream=name,
            has_no_values=True,
        )

    def _record(self, number: int, line: bytes, message: Message) -> None:
        held = message.record if isinstance(message.record, dict) else {}
        try:
            stream = self._named(held.get("namespace"), held.get("stream"))
        except LookupError:
            raise self._error(number, "is a RECORD without a stream", has_no_values=True) from None
        if stream is not None:
            stream.lines.append(line)
            stream.numbers.append(number)

    def _records(
        self, stream: AirbyteStream, block: bytes, numbers: Sequence[int], *, is_wrapped: bool = True, file: str = ""
    ) -> Iterator[tuple[str, Event]]:
        if stream.is_ended:
            if stream.error is None:
                log.error("%s: stream %r sends records after its end: left out", self._label, stream.stream.name)
            return
        stream.is_heard, stream.held = True, None
        stream.arrived += len(numbers)
        try:
            yield from super()._records(stream, block, numbers, is_wrapped=is_wrapped, file=file)
        except FatalConnectorError as error:
            yield from self._ended(stream, error)

    def batches(self, stream: AirbyteStream, batch: pa.RecordBatch) -> Iterator[tuple[str, Event]]:
        stream.note_below(batch)
        if count := _empty_records(batch):
            stream.warned += Warned(warn=1)
            log.warning(
                "%s: stream %r: %s of its records have none of its columns. The API may have sent an error in place of "
                "records",
                self._label,
                stream.stream.name,
                f"{count:,}",
            )
        return super().batches(stream, batch)

    def _state(self, number: int, text: bytes) -> Iterator[tuple[str, Event]]:
        try:
            state = json.loads(text)
        except (ValueError, RecursionError):
            raise self._error(number, "is a STATE that is not JSON", has_no_values=True) from None
        held = state.get("stream") if isinstance(state, dict) else None
        if not isinstance(state, dict) or state.get("type", "STREAM") != "STREAM" or not isinstance(held, dict):
            kind = state.get("type", "LEGACY") if isinstance(state, dict) else "LEGACY"
            raise ConnectorConfigError(
                f"{self._label}: line {number} is a STATE of the type {str(kind)[:40]}, which covers several streams: "
                "only states of one stream each (STREAM) can be committed with their records. Read its streams "
                "FULL_TABLE, or take another connector",
                connector="airbyte",
            )
        stream = self._described(held)
        if stream is None or stream.is_ended or (self._has_lost_unnamed and not self._has_statuses):
            return
        stream.is_heard = True
        yield from self._flush(stream)
        if self._has_failed(stream):
            return
        if (error := self._miscounted(stream, state.get("sourceStats"))) is not None:
            yield from self._ended(stream, error)
            return
        is_last = stream.status in (COMPLETE, INCOMPLETE)
        if stream.is_incremental and (is_last or self._is_due(stream)):
            yield from self._checkpoint(stream, held.get("stream_state"), is_followed=stream.status != INCOMPLETE)
        elif stream.is_incremental:
            stream.held = (held.get("stream_state"),)
        if stream.status == COMPLETE or (is_last and stream.error is not None):
            yield from self._ended(stream, stream.error)

    def _checkpoint(self, stream: AirbyteStream, state: Any, *, is_followed: bool) -> Iterator[tuple[str, Event]]:
        """Yield a checkpoint; `is_followed`: more comes of the stream, or its end."""
        stream.pending, stream.looked_at, stream.held = 0, self._clock(), None
        yield stream.stream.name, Checkpoint(bookmark=stream.bookmark(state))
        if not is_followed:
            # The last checkpoint of a stream is committed with its end, which does not come: something has to follow.
            yield stream.stream.name, stream.stream

    def _has_failed(self, stream: AirbyteStream) -> bool:
        return stream.is_ended

    def _miscounted(self, stream: AirbyteStream, stats: Any) -> FatalConnectorError | None:
        said = stats.get("recordCount") if isinstance(stats, dict) else None
        arrived, stream.arrived = stream.arrived, 0
        if said is None or said == arrived:
            return None
        name = stream.stream.name
        return FatalConnectorError(
            f"{self._label}: of stream {name!r} {arrived:,} records arrived since its last STATE, and this one counts "
            f"{str(said)[:20]} (sourceStats.recordCount): records were lost or doubled on the way",
            connector="airbyte",
            stream=name,
            has_no_values=True,
        )

    def _is_due(self, stream: AirbyteStream) -> bool:
        return stream.pending >= self._checkpoint_records or self._clock() - stream.looked_at >= self._checkpoint_s

    def _trace(self, trace: Mapping[str, Any]) -> Iterator[tuple[str, Event]]:
        status = trace.get("stream_status")
        if trace.get("type") == "STREAM_STATUS" and isinstance(status, dict):
            self._has_statuses = True
            if (stream := self._described(status)) is not None and not stream.is_ended:
                stream.status, stream.is_heard = str(status.get("status")), True
        elif trace.get("type") == "ERROR" and isinstance(trace.get("error"), dict):
            held = trace["error"]
            failed = self._described(held)
            error = self._listener.error(held, failed.stream.name if failed else "")
            if failed is not None:
                failed.error = failed.error or error
            else:
                self._common_error = self._common_error or error
        elif trace.get("type") == "ESTIMATE" and isinstance(trace.get("estimate"), dict):
            yield from self._estimate(trace["estimate"])

    def _estimate(self, estimate: Mapping[str, Any]) -> Iterator[tuple[str, Event]]:
        stream, records = self._described({"stream_descriptor": estimate}), estimate.get("row_estimate")
        if stream is None or stream.is_ended or not isinstance(records, int) or not 0 < records < 1 << 62:
            return
        yield from self._flush(stream)
        if not self._has_failed(stream):
            stream.stream = replace(stream.stream, estimated_records=records)
            yield stream.stream.name, stream.stream


def _empty_records(batch: pa.RecordBatch) -> int:
    """Return the number of records that have a value in no column."""
    if not batch.num_columns or any(column.null_count == 0 for column in batch.columns):
        return 0
    nulls = [pc.is_null(column) for column in batch.columns]
    return int(pc.sum(reduce(pc.and_, nulls)).as_py() or 0)


__all__ = ["STATE", "AirbyteReader", "AirbyteStream", "Descriptor"]
