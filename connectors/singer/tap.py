"""Any Singer tap as a source: a process in a virtual environment of its own."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConnectorConfigError, ConnectorError, FatalConnectorError, Interrupted
from ..programs.environments import plugins_folder
from ..programs.kept import keep, kept_file, kept_value
from ..programs.process import (
    BLOCK_BYTES,
    BLOCK_S,
    PASSED_BYTES,
    PASSED_S,
    PluginProcess,
    PrivateFiles,
    environment,
    run,
)
from ..programs.program_source import ProgramSource
from ..programs.under_way import ReadUnderWay
from ..read_spec import ReplicationMethod
from ..settings import parse_settings, resolve_path
from ..stream import Block, Bookmark, Event, Stream
from .batches import BatchFiles, batch_roots
from .catalog import adjusted, name_of, names_of, parse_catalog, selected_catalog, streams_of
from .plugin_programs import program_name, program_of, secrets_of
from .raw_lines import WIRE, RawReader
from .reader import TapReader
from .settings import SingerSourceSettings
from .state_parts import of_bookmark, starts

log = logging.getLogger("syncblocks")

_HELP_TIMEOUT_S = 60.0
_FLAGS = ("catalog", "properties", "state")


class SingerSource(ProgramSource):
    """A tap. Its streams are one group, since one STATE covers all of them; with `per_stream` each is alone."""

    settings = SingerSourceSettings

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        super().__init__()
        self._settings = settings = parse_settings(SingerSourceSettings, config, "singer")
        self._folder = folder
        in_process = settings.class_.rpartition(":")[2]
        self.name = settings.tap or in_process or program_name(settings.pip) or Path(settings.executable).name
        self._label = f"tap {self.name}"

    # -- protocol ------------------------------------------------------------------------------------------------

    def identity(self) -> str:
        return f"singer://{self.name}"

    def check(self) -> None:
        """Run discovery again: a tap has no other check."""
        self._discovered(is_fresh=True)

    def discover(self) -> Sequence[Stream]:
        return streams_of(self._adjusted(), self._settings.select, self._settings.max_columns)

    def groups(self, streams: Sequence[Stream]) -> Sequence[Sequence[Stream]]:
        if self._settings.per_stream:
            return [[stream] for stream in streams]
        return [list(streams)] if streams else []

    def offers(self, stream: Stream) -> Sequence[str]:
        """Offer the tap's lines if all columns are selected, no record is rejected, and no schema is declared."""
        is_as_it_is = (
            not self._settings.schema_
            and stream.read.max_rejected is None
            and not (stream.read.included or stream.read.excluded)
            and stream.name in self._whole([stream])
        )
        return (WIRE, "arrow") if is_as_it_is else ("arrow",)

    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str = "arrow"
    ) -> Iterator[tuple[str, Event | Block]]:
        entries = self._adjusted()
        names = names_of(entries)
        missing = next((stream for stream in group if stream.name not in names), None)
        if missing is not None:
            raise FatalConnectorError(f"{self._label} has no stream {missing.name!r} any more", stream=missing.name)
        by_name = {stream.name: stream for stream in group}
        # FULL_TABLE reads from scratch: the STATE of an unfinished run must not shorten it.
        kept = {
            name: None if stream.read.method is ReplicationMethod.FULL_TABLE else bookmarks.get(name)
            for name, stream in by_name.items()
        }
        parts = {name: of_bookmark(bookmark, name) for name, bookmark in kept.items()}
        under_way = ReadUnderWay(by_name)
        with self._noted(under_way):
            try:
                for chosen, state in starts(parts, names):
                    reader = self._reader([by_name[name] for name in chosen], names, kept, wire)
                    yield from self._run(reader, state, entries, under_way)
            except ConnectorError as error:
                if not isinstance(error, Interrupted):
                    self._forget_catalog()  # the cached catalog may be out of date
                raise

    # -- one run of the tap --------------------------------------------------------------------------------------

    def _reader(
        self,
        streams: Sequence[Stream],
        names: Mapping[str, Collection[str]],
        bookmarks: Mapping[str, Bookmark | None],
        wire: str,
    ) -> TapReader:
        kind = RawReader if wire == WIRE else TapReader
        return kind(
            self.name,
            streams,
            names,
            bookmarks,
            batch_files=BatchFiles(self._settings.batch_roots or batch_roots(self._settings.config), self._folder),
            adds_columns=self._whole(streams),
            max_columns=self._settings.max_columns,
            wider=self._wider(),
            on_wider=self._keep_wider,
            checkpoint_records=self._settings.checkpoint_records,
            checkpoint_s=self._settings.checkpoint_s,
        )

    def _run(
        self, reader: TapReader, state: Any, entries: Sequence[Mapping[str, Any]], under_way: ReadUnderWay
    ) -> Iterator[tuple[str, Event | Block]]:
        program = self._program()
        flags = self._flags(program)
        with PrivateFiles() as files:
            command = [str(program), "--config", str(files.write("config.json", self._settings.config))]
            catalog = files.write("catalog.json", selected_catalog(entries, reader.streams))
            command += [
                part for flag in ("catalog", "properties") if flag in flags for part in (f"--{flag}", str(catalog))
            ]
            if state is not None and "state" in flags:
                command += ["--state", str(files.write("state.json", state))]
            is_quiet = any(stream.read.masks is not None for stream in reader.streams)
            with self._plugin(command, is_quiet=is_quiet) as plugin, under_way.running(plugin):
                limits = (PASSED_BYTES, PASSED_S) if isinstance(reader, RawReader) else (BLOCK_BYTES, BLOCK_S)
                yield from reader.read(plugin.blocks(*limits))

    def _whole(self, streams: Sequence[Stream]) -> set[str]:
        """Return the names of streams whose columns are all selected: new columns are added."""
        offered = {stream.name: set(stream.schema.names) for stream in self.discover()}
        restricted = any("." in pattern for pattern in self._settings.select)
        return {s.name for s in streams if not restricted and offered.get(s.name, set()) <= set(s.schema.names)}

    def _plugin(self, command: Sequence[str], *, is_quiet: bool = False) -> PluginProcess:
        settings = self._settings
        return PluginProcess(
            self._label,
            command,
            folder=self._folder,
            env=environment(settings.env, command[0]),
            secrets=secrets_of(settings),
            hang_timeout_s=settings.hang_timeout_s,
            is_quiet=is_quiet,
        )

    def _program(self) -> Path:
        return program_of(self._settings, self._settings.pip, self.name, self._folder)

    def _flags(self, program: Path) -> Sequence[str]:
        """Return the options of the tap, asked once for each program and kept."""
        if self._settings.flags is not None:
            return self._settings.flags
        kept = self._kept_file("flags", [str(program), program.stat().st_mtime_ns])
        if isinstance(found := kept_value(kept), list):
            return [flag for flag in _FLAGS if flag in found]
        text = ""
        plugin = PluginProcess(
            self._label,
            [str(program), "--help"],
            folder=self._folder,
            env=environment(self._settings.env, str(program)),
            hang_timeout_s=_HELP_TIMEOUT_S,
        )
        try:
            text = run(plugin, limit_bytes=1 << 20).decode("utf-8", "replace")
        except ConnectorError as error:
            text = str(error)
        flags = [flag for flag in _FLAGS if f"--{flag}" in text] or ["catalog", "state"]
        keep(kept, flags)
        return flags

    # -- the catalog ---------------------------------------------------------------------------------------------

    def _schemas(self) -> Mapping[str, Any]:
        return {name_of(entry): entry["schema"] for entry in self._adjusted()}

    def _adjusted(self) -> list[dict[str, Any]]:
        return adjusted(self._discovered(), self._settings.metadata, self._settings.schema_)

    def _discovered(self, *, is_fresh: bool = False) -> list[dict[str, Any]]:
        with self._catalog_lock:
            if self._entries is None or is_fresh:
                self._entries = self._from_file() if self._settings.catalog else self._from_tap(is_fresh=is_fresh)
            return self._entries

    def _from_file(self) -> list[dict[str, Any]]:
        path = resolve_path(self._settings.catalog, self._folder)
        try:
            return parse_catalog(path.read_bytes(), str(path))
        except OSError as error:
            raise ConnectorConfigError(
                f"config of connector 'singer': catalog: {path}: {error.strerror}", connector="singer", key="catalog"
            ) from error

    def _from_tap(self, *, is_fresh: bool) -> list[dict[str, Any]]:
        program, kept = self._program(), self._catalog_file()
        with contextlib.suppress(OSError):
            if not is_fresh and 0 <= time.time() - kept.stat().st_mtime < self._settings.discovery_cache_s:
                with contextlib.suppress(FatalConnectorError):
                    if entries := parse_catalog(kept.read_bytes(), self._label):
                        return entries
        with PrivateFiles() as files:
            config = files.write("config.json", self._settings.config)
            text = run(self._plugin([str(program), "--config", str(config), "--discover"]), noted=self._discovering)
        entries = parse_catalog(text, self._label)
        if not entries:
            log.warning("%s cannot discover streams; set its catalog file as `catalog`", self._label)
        elif self._settings.discovery_cache_s:
            keep(kept, {"streams": entries})
        return entries

    @contextlib.contextmanager
    def _discovering(self, plugin: PluginProcess) -> Iterator[None]:
        """Let `close` end a plugin that is discovering."""
        under_way = ReadUnderWay({""})
        with self._noted(under_way), under_way.running(plugin):
            yield

    def _catalog_file(self) -> Path:
        settings = self._settings
        place = settings.pip or str(resolve_path(settings.executable, self._folder))
        with contextlib.suppress(OSError):
            if not settings.pip:
                place += f":{Path(place).stat().st_mtime_ns}"
        return self._kept_file("catalog", [place, settings.python, settings.config, settings.env, str(self._folder)])

    def _wider_file(self) -> Path:
        return self._kept_file("wider", [self.name, self._settings.pip, self._settings.config, str(self._folder)])

    def _kept_file(self, what: str, of: Any) -> Path:
        return kept_file(plugins_folder(self._folder), what, of)


__all__ = ["SingerSource", "name_of"]
