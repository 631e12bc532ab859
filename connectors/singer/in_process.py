"""Run plugin classes of singer-sdk in this process, through `message_writer=` and `message_reader=`.

Each class runs in a thread of its own: in the main thread its constructor would replace the signal handlers. Saving the
pipe saves a third to a half of the time. Importing this module imports singer-sdk, which takes about a second.
"""

from __future__ import annotations

import importlib
import json
import logging
import queue
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from singer_sdk import Tap, Target
from singer_sdk.singerlib.encoding import GenericSingerReader, GenericSingerWriter

from ..arrow.decimals import as_number
from ..errors import ConnectorConfigError, ConnectorError, FatalConnectorError, Interrupted
from ..file_classes import class_of_file, is_of_file

log = logging.getLogger("syncblocks")

#: A block of a tap's lines is passed on at so many bytes, or at an age of so many seconds.
BLOCK_BYTES = 1 << 20
BLOCK_S = 0.5
#: Blocks in the queue between the plugin's thread and the reader.
QUEUE_BLOCKS = 4
_POLL_S = 0.2
_JOIN_S = 3.0


class _Stop(BaseException):
    """Ends the plugin's thread; a BaseException, so that no plugin catches it by accident."""


def load_class(path: str) -> type[Any]:
    """Import a plugin class from `package.module:Class` or `/file.py:Class`.

    Raises:
        ConnectorConfigError: there is no such class, or it is no plugin of singer-sdk.
    """
    try:
        found = _class(path)
    except (ImportError, AttributeError, ConnectorConfigError) as error:
        raise ConnectorConfigError(
            f"class {path!r} cannot be imported: {error}", connector="singer", key="class"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Tap | Target)):
        raise ConnectorConfigError(
            f"{path!r} is neither a Tap nor a Target of singer-sdk", connector="singer", key="class"
        )
    return found


def _class(path: str) -> Any:
    if is_of_file(path):
        return class_of_file(path, Path.cwd())
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


class _Worker(ABC):
    """A thread that runs a plugin, and the plugin's error."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.stopped = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._body, name=label, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> None:
        self._thread.join(timeout_s)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @abstractmethod
    def work(self) -> None:
        """Run the plugin."""

    def _body(self) -> None:
        try:
            self.work()
        except _Stop:
            self.error = Interrupted(f"{self.label} was interrupted", connector="singer")
        except BaseException as error:
            self.error = error

    def failure(self) -> ConnectorError | None:
        """Return the plugin's exception as a ConnectorError."""
        if self.error is None or isinstance(self.error, ConnectorError):
            return self.error
        kind = type(self.error).__name__
        failure = FatalConnectorError(f"{self.label} raised {kind}: {self.error}", connector="singer")
        failure.__cause__ = self.error
        return failure


class TapThread(_Worker):
    """A tap in a thread: its messages as blocks of lines, as of a process."""

    def __init__(self, path: str, config: Mapping[str, Any], catalog: Any, state: Any, *, label: str) -> None:
        super().__init__(label)
        self._class = load_class(path)
        self._config, self._catalog, self._state = dict(config), catalog, state
        self.blocks_ready: queue.Queue[bytes | None] = queue.Queue(QUEUE_BLOCKS)

    def work(self) -> None:
        """Sync all selected streams."""
        writer = _Writer(self)
        try:
            tap = self._class(
                config=self._config, catalog=self._catalog, state=self._state or {}, message_writer=writer
            )
            tap.sync_all()
            writer.flush()
        finally:
            self.put(None, is_last=True)

    def put(self, block: bytes | None, *, is_last: bool = False) -> None:
        """Put a block into the queue, unless the read has ended."""
        while True:
            if self.stopped.is_set() and not is_last:
                raise _Stop
            try:
                self.blocks_ready.put(block, timeout=_POLL_S)
                return
            except queue.Full:
                if self.stopped.is_set():
                    return

    def blocks(self) -> Iterator[bytes]:
        """Yield whole lines to the end of the tap; raise the tap's error."""
        self.start()
        try:
            while (block := self.blocks_ready.get()) is not None:
                yield block
            if self.stopped.is_set():  # taking a block may have made room for the end mark
                raise Interrupted(f"{self.label} was interrupted", connector="singer")
            self.join()
            failure = self.failure()
            if failure is not None:
                raise failure
        finally:
            self.interrupt()
            self.join(_JOIN_S)

    def interrupt(self) -> None:
        """End the tap at its next message."""
        self.stopped.set()
        with suppress(queue.Empty):  # make room for the end mark
            self.blocks_ready.get_nowait()
        with suppress(queue.Full):
            self.blocks_ready.put_nowait(None)


def discover(path: str, config: Mapping[str, Any], *, label: str) -> dict[str, Any]:
    """Return a tap class's catalog."""
    found: dict[str, Any] = {}

    class Discovery(_Worker):
        def work(self) -> None:
            found.update(load_class(path)(config=dict(config)).catalog_dict)

    worker = Discovery(label)
    worker.start()
    worker.join()
    failure = worker.failure()
    if failure is not None:
        raise failure
    # As the program would print it: plain JSON values.
    plain: dict[str, Any] = json.loads(json.dumps(found, default=_plain))
    return plain


class _Writer(GenericSingerWriter[bytes, Any]):
    """Collects messages as lines and passes them on in blocks."""

    def __init__(self, thread: TapThread) -> None:
        super().__init__()
        self._thread = thread
        self._held: list[bytes] = []
        self._size = 0
        self._since = time.monotonic()
        self._encoder = msgspec.json.Encoder(decimal_format="number", enc_hook=_plain)

    def serialize_message(self, message: Any) -> bytes:
        """Return the message as a line, with all digits of a Decimal."""
        value = message.to_dict() if hasattr(message, "to_dict") else message
        return self._encoder.encode(value) + b"\n"

    def write_message(self, message: Any) -> None:
        """Take one message."""
        line = self.serialize_message(message)
        self._held.append(line)
        self._size += len(line)
        if self._size >= BLOCK_BYTES or time.monotonic() - self._since > BLOCK_S:
            self.flush()

    def flush(self) -> None:
        """Pass on the collected lines."""
        if self._held:
            self._thread.put(b"".join(self._held))
        self._held, self._size, self._since = [], 0, time.monotonic()


class TargetThread(_Worker):
    """A target in a thread: takes lines, and collects the states that it would print."""

    def __init__(self, path: str, config: Mapping[str, Any], *, label: str) -> None:
        super().__init__(label)
        self._class = load_class(path)
        self._config = dict(config)
        self._states: deque[Any] = deque()
        self.pieces: queue.Queue[bytes | None] = queue.Queue(QUEUE_BLOCKS)
        self.start()

    def work(self) -> None:
        """Read all lines, then drain."""
        states = self._states

        def keep(_target: Any, state: Any) -> None:
            states.append(json.loads(json.dumps(state, default=_plain)))

        kind = type(self._class.__name__, (self._class,), {"_write_state_message": keep})
        target = kind(config=self._config, message_reader=_Reader(self))
        target.listen()

    def write(self, data: bytes | memoryview) -> None:
        """Pass whole lines to the target."""
        block = bytes(data)
        while True:
            if not self.is_alive:
                raise self.failure() or FatalConnectorError(
                    f"{self.label} ended before it had read all records", connector="singer"
                )
            try:
                self.pieces.put(block, timeout=_POLL_S)
                return
            except queue.Full:
                continue

    def states(self) -> list[Any]:
        """Return the states echoed since the last call."""
        found = []
        while self._states:
            found.append(self._states.popleft())
        return found

    def end(self) -> list[Any]:
        """Wait until the target has drained all records."""
        while self.is_alive:
            with suppress(queue.Full):
                self.pieces.put(None, timeout=_POLL_S)
                break
        self.join()
        failure = self.failure()
        if failure is not None:
            raise failure
        return self.states()

    def interrupt(self) -> None:
        """End the target at its next record, without draining."""
        self.stopped.set()

    def close(self) -> None:
        """End the target without draining, if it still runs."""
        self.stopped.set()
        self.join(_JOIN_S)


class _Reader(GenericSingerReader[bytes]):
    """Calls the target's own functions with messages from the queue."""

    def __init__(self, thread: TargetThread) -> None:
        super().__init__()
        self._thread = thread
        self._decoder = msgspec.json.Decoder(float_hook=Decimal)

    @property
    def default_input(self) -> Any:
        """Return no input: `process_lines` reads the queue."""
        return None

    def deserialize_json(self, line: bytes) -> dict[str, Any]:
        """Return a message with all digits of its numbers."""
        message: dict[str, Any] = self._decoder.decode(line)
        return message

    def process_lines(self, file_input: Any, callbacks: Any) -> Counter[str]:
        """Process every line until the end of the queue."""
        counted: Counter[str] = Counter()
        for block in self._blocks():
            for line in block.splitlines():
                if self._thread.stopped.is_set():
                    raise _Stop
                message = self.deserialize_json(line)
                callbacks[message["type"]](message)
                counted[message["type"]] += 1
        return counted

    def _blocks(self) -> Iterator[bytes]:
        while True:
            if self._thread.stopped.is_set():
                raise _Stop
            try:
                block = self._thread.pieces.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if block is None:
                return
            yield block


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return as_number(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)


__all__ = ["TapThread", "TargetThread", "discover", "load_class"]
