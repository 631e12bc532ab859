"""Any Singer target as a destination: only a state that the target echoes counts, so records arrive at least once."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct

from ..errors import ConnectorConfigError, ConnectorError, FatalConnectorError
from ..file_classes import absolute
from ..incremental.bookmarks import values
from ..programs.environments import package_name
from ..programs.process import PluginProcess, environment, run
from ..settings import parse_settings
from ..stream import Block, Bookmark, Checkpoint, Commit, Event, LedgerKey, LedgerRow, Load, Stream, TableState
from ..write_spec import WriteDisposition
from .lines import RecordLines, schema_line, state_line, to_line, version_line
from .plugin_programs import program_name, program_of, secrets_of
from .raw_lines import WIRE, RawLines, addressed, first_version
from .settings import SingerTargetSettings
from .target_process import RunningTarget, TargetProcess

log = logging.getLogger("syncblocks")

_HELP_TIMEOUT_S = 60.0

#: Packages of targets that begin their files anew in each run -> the setting by which each run gets its own, what must
#: be in its value, and a value. (meltanolabs-target-csv 0.5 ignores its own `overwrite_behavior`.)
_BEGINS_ANEW = {
    "meltanolabs-target-csv": ("file_naming_scheme", "{timestamp}", "'{stream_name}-{timestamp}.csv'"),
}

#: Key in a STATE that identifies the checkpoint, whatever the target changes in the rest.
CHECKPOINT = "syncblocks_checkpoint"


class SingerDestination:
    """A target; each load is one run of it."""

    settings = SingerTargetSettings
    has_ledger = False
    max_loads: int | None

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self._settings = parse_settings(SingerTargetSettings, config, "singer")
        self._folder = folder
        self.max_loads = self._settings.max_loads
        self._label = f"target {self.name}"
        self._under_way: dict[str, list[RunningTarget]] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The target's name, for messages."""
        settings = self._settings
        known = settings.target or program_name(settings.pip) or Path(settings.executable).name
        return known or settings.class_.rpartition(":")[2]

    def identity(self) -> str:
        """Return the target's name; only the target knows where its config makes it write."""
        return f"singer://{self.name}"

    def check(self) -> None:
        """Install the target if it is missing, and run its `--help`."""
        if self._settings.class_:
            from .in_process import load_class

            load_class(absolute(self._settings.class_, self._folder))
            return
        program = self._program()
        plugin = PluginProcess(
            self._label,
            [str(program), "--help"],
            folder=self._folder,
            env=environment(self._settings.env, str(program)),
            hang_timeout_s=_HELP_TIMEOUT_S,
        )
        try:
            run(plugin, limit_bytes=1 << 20)
        except ConnectorError as error:
            raise ConnectorConfigError(f"{self._label} does not start: {error}", connector="singer") from error

    def forgets_runs(self) -> str:
        """Tell of a target that begins its files anew in each run: of a run without records they are empty."""
        requirement = package_name(self._settings.requirement)
        if requirement not in _BEGINS_ANEW:
            return ""
        setting, needed, value = _BEGINS_ANEW[requirement]
        if needed in str(self._settings.config.get(setting)):
            return ""
        return (
            f"{requirement} starts new files in each run, so the records of earlier runs are lost, even after a "
            f"run without records: set `config: {{{setting}: {value}}}` of the target, or read FULL_TABLE"
        )

    def describe(self, tables: Sequence[str]) -> Mapping[str, TableState]:
        """Return nothing but `is_described` False: a target does not tell what it holds."""
        return {table: TableState(is_described=False) for table in tables}

    def accepts(self, stream: Stream, disposition: WriteDisposition) -> Sequence[str]:
        """Accept a tap's lines as they are, or records."""
        return (WIRE, "arrow")

    def take_over(self, key: LedgerKey, *, token: str, owner: str, source: str | None = None) -> LedgerRow:
        """There is no ledger: the engine keeps the row."""
        return LedgerRow(key=key, source=source or "", token=token, owner=owner)

    def set_bookmark(self, key: LedgerKey, bookmark: Bookmark | None, *, forget: bool = False) -> None:
        """There is no ledger: the engine keeps the bookmark."""

    def load(self, load: Load, events: Iterator[Event | Block], wire: str = "arrow") -> Iterator[Commit]:
        """Write the events; yield a commit for each state the target echoes. The target must end with status 0."""
        with self._running(load.key.stream) as target:
            work = _Load(load, target, self._settings, wire)
            for event in events:
                work.write(event)
                yield from work.confirmed(target.states())
            yield from work.confirmed(target.end())
            yield from work.rest(self.name)

    def drop_staging(self, tokens: Sequence[str]) -> None:
        """Nothing is staged."""

    def interrupt(self, stream: str) -> None:
        """End the targets that load one stream."""
        with self._lock:
            targets = list(self._under_way.get(stream, ()))
        for target in targets:
            target.interrupt()

    def close(self) -> None:
        """Do nothing: every load ends its own target."""

    @contextmanager
    def _running(self, stream: str) -> Iterator[RunningTarget]:
        target = self._start()
        with self._lock:
            self._under_way.setdefault(stream, []).append(target)
        try:
            yield target
        finally:
            with self._lock:
                self._under_way[stream].remove(target)
            target.close()

    def _start(self) -> RunningTarget:
        settings = self._settings
        if settings.class_:
            from .in_process import TargetThread

            return TargetThread(absolute(settings.class_, self._folder), settings.config, label=self._label)
        program = self._program()
        return TargetProcess(
            [str(program)],
            settings.config,
            label=self._label,
            folder=self._folder,
            env=environment(settings.env, str(program)),
            secrets=secrets_of(settings),
            hang_timeout_s=settings.hang_timeout_s,
        )

    def _program(self) -> Path:
        return program_of(self._settings, self._settings.requirement, self.name, self._folder)


class _Sent(Struct, frozen=True):
    """A checkpoint that the target has not echoed, with the records and bytes before it."""

    number: int
    checkpoint: Checkpoint
    records: int
    size_bytes: int


class _Load:
    """Writes one stream's lines to a target, and waits for its checkpoints to come back."""

    def __init__(self, load: Load, target: RunningTarget, settings: SingerTargetSettings, wire: str) -> None:
        self._load, self._target = load, target
        # Targets parse `schema-table`, as SQL taps write it.
        self._name = load.key.destination_table.replace(".", "-")
        is_replaced = load.write.disposition is WriteDisposition.REPLACE and settings.activate_version
        self._version = int(time.time() * 1000) if is_replaced else None
        self._lines = RecordLines(self._name, version=self._version)
        self._records = self._bytes = 0
        self._kept_records = self._kept_bytes = 0
        self._numbers = 0
        self._sent: deque[_Sent] = deque()
        self._has_schema = False
        #: Whether the tap numbers versions itself; None: there was no record.
        self._has_own_version: bool | None = None
        if wire == "arrow":
            self._declare(load.stream)

    def write(self, event: Event | Block) -> None:
        """Write one event."""
        if isinstance(event, Stream):
            self._declare(event)
        elif isinstance(event, RawLines):
            self._pass_on(event)
        elif isinstance(event, Checkpoint):
            self._checkpoint(event)
        elif isinstance(event, pa.RecordBatch):
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            for piece in self._lines.write(event, now):
                self._write(piece)
            self._records += event.num_rows
        else:
            raise FatalConnectorError("a target accepts only records or lines", stream=self._load.key.stream)

    def _declare(self, stream: Stream) -> None:
        self._write(schema_line(stream, self._name))
        self._has_schema = True

    def _pass_on(self, lines: RawLines) -> None:
        """Write a tap's lines, under the name of the table."""
        if lines.kind == "RECORD":
            if self._version is not None and self._has_own_version is None:
                own = first_version(lines)
                self._has_own_version = isinstance(own, int)
                self._version = own if self._has_own_version else self._version
            self._write(addressed(lines, self._name, None if self._has_own_version else self._version))
            self._records += lines.records
            return
        message = msgspec.json.decode(lines)
        if lines.kind == "SCHEMA":
            keys = list(self._load.stream.key_properties) or message.get("key_properties") or []
            self._write(to_line({**message, "stream": self._name, "key_properties": keys}))
            self._has_schema = True
        elif self._version is not None and self._has_own_version is not False:
            # Only `replace` removes the records of former runs.
            self._has_own_version, self._version = True, message["version"]
            self._write(to_line({**message, "stream": self._name}))

    def confirmed(self, states: Sequence[Any]) -> Iterator[Commit]:
        """Yield a commit for the latest checkpoint that the target has echoed."""
        number = max((self._number(state) for state in states), default=0)
        found: _Sent | None = None
        while self._sent and self._sent[0].number <= number:
            found = self._sent.popleft()
        if found is not None:
            yield self._commit(found.checkpoint, found.records, found.size_bytes, is_confirmed=True)

    def rest(self, name: str) -> Iterator[Commit]:
        """Yield the records that a target kept without an echo, if it ended with status 0."""
        if not self._sent:
            return
        log.warning(
            "%s: target %s ended without an error, but did not echo the last state: the bookmark does not move",
            self._load.key.stream,
            name,
        )
        yield self._commit(self._sent[-1].checkpoint, self._records, self._bytes, is_confirmed=False)

    def _commit(self, checkpoint: Checkpoint, records: int, size_bytes: int, *, is_confirmed: bool) -> Commit:
        commit = Commit(
            checkpoint=checkpoint,
            records=records - self._kept_records,
            size_bytes=size_bytes - self._kept_bytes,
            is_confirmed=is_confirmed,
        )
        self._kept_records, self._kept_bytes = records, size_bytes
        return commit

    def _checkpoint(self, checkpoint: Checkpoint) -> None:
        if not self._has_schema:
            self._declare(self._load.stream)
        if checkpoint.is_final and self._version is not None:
            self._write(version_line(self._name, self._version))
        self._numbers += 1
        # By stream, as targets expect: some keep the last state of each stream.
        bookmark = {**(values(checkpoint.bookmark) or {}), CHECKPOINT: self._numbers}
        self._write(state_line({"bookmarks": {self._name: bookmark}}))
        self._sent.append(_Sent(self._numbers, checkpoint, self._records, self._bytes))

    def _number(self, state: Any) -> int:
        """Return the number of the checkpoint of an echoed state; 0: none."""
        if isinstance(state, Mapping) and state.get("type") == "STATE":
            state = state.get("value")
        for key in ("bookmarks", self._name):
            state = state.get(key) if isinstance(state, Mapping) else None
        number = state.get(CHECKPOINT) if isinstance(state, Mapping) else None
        return number if isinstance(number, int) else 0

    def _write(self, data: bytes | memoryview) -> None:
        self._target.write(data)
        self._bytes += len(data)


__all__ = ["SingerDestination"]
