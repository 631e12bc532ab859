"""`connector: singer` as a source: a tap's program, or with `class` a tap class of singer-sdk in this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from ..errors import ConnectorConfigError
from ..file_classes import absolute
from ..settings import parse_settings
from ..stream import Block, Event, Stream
from .catalog import parse_catalog, selected_catalog
from .reader import Reader
from .settings import SingerSourceSettings
from .tap import SingerSource


class TapSettings(SingerSourceSettings):
    """Config of `connector: singer` as a source."""

    class_: str = Field(
        default="",
        alias="class",
        pattern=r"^$|^[\w.]+:\w+$|^.+\.py:\w+$",
        description="`package.module:TapX` or `./file.py:TapX`: a class of singer-sdk that is installed here, or in a "
        "file of the project, run in this process",
    )


class TapSource(SingerSource):
    """A tap: a program, or a class in this process."""

    settings = TapSettings

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        if "class" not in config:
            super().__init__(config, folder)
            return
        self._settings: TapSettings = parse_settings(TapSettings, config, "singer")
        if self._settings.pip or self._settings.executable:
            raise ConnectorConfigError(
                "config of connector 'singer' needs one of: pip, executable, class", connector="singer", key="class"
            )
        self._folder = folder
        self.name = self._settings.tap or self._settings.class_.rpartition(":")[2]
        self._label = f"tap {self.name}"
        self._lock = threading.Lock()
        self._catalog_lock = threading.Lock()
        self._entries = None
        self._reads = []

    @property
    def _class(self) -> str:
        return absolute(getattr(self._settings, "class_", ""), self._folder)

    def groups(self, streams: Sequence[Stream]) -> Sequence[Sequence[Stream]]:
        """See `SingerSource`.

        Raises:
            ConnectorConfigError: columns are masked, and a tap in this process could write their values to its log.
        """
        masked = next((stream.name for stream in streams if stream.masks is not None), None)
        if self._class and masked is not None:
            raise ConnectorConfigError(
                f"config of connector 'singer': class: stream {masked!r} has masked columns, and a tap in this process "
                "may write their values to its log: name its program by `executable` or `pip`",
                connector="singer",
                key="class",
            )
        return super().groups(streams)

    def _from_tap(self, *, is_fresh: bool) -> list[dict[str, Any]]:
        if not self._class:
            return super()._from_tap(is_fresh=is_fresh)
        from .in_process import discover

        catalog = discover(self._class, self._settings.config, label=self._label)
        return parse_catalog(json.dumps(catalog).encode(), self._label)

    def _forget_catalog(self) -> None:
        if self._class:
            with self._catalog_lock:
                self._entries = None
            return
        super()._forget_catalog()

    def _run(
        self, reader: Reader, state: Any, entries: Sequence[Mapping[str, Any]], under_way: Any
    ) -> Iterator[tuple[str, Event | Block]]:
        if not self._class:
            yield from super()._run(reader, state, entries, under_way)
            return
        from .in_process import TapThread

        catalog = selected_catalog(entries, reader.streams)
        thread = TapThread(self._class, self._settings.config, catalog, state, label=self._label)
        with under_way.running(thread):
            yield from reader.read(thread.blocks())


__all__ = ["TapSettings", "TapSource"]
