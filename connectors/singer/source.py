"""`connector: singer` as a source: a tap's program, or with `class` a tap class of singer-sdk in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import ConnectorConfigError
from ..file_classes import absolute
from ..stream import Block, Event, Stream
from .catalog import parse_catalog, selected_catalog
from .reader import TapReader
from .tap import SingerSource


class TapSource(SingerSource):
    """A tap: a program, or a class in this process."""

    @property
    def _class(self) -> str:
        return absolute(self._settings.class_, self._folder)

    def groups(self, streams: Sequence[Stream]) -> Sequence[Sequence[Stream]]:
        """See `SingerSource`.

        Raises:
            ConnectorConfigError: columns are masked, and a tap in this process could write their values to its log.
        """
        masked = next((stream.name for stream in streams if stream.read.masks is not None), None)
        if self._class and masked is not None:
            raise ConnectorConfigError(
                f"config of connector 'singer': class: stream {masked!r} has masked columns, and a tap in this "
                "process may write their values to its log: start its program by `executable` or `pip`",
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
        self, reader: TapReader, state: Any, entries: Sequence[Mapping[str, Any]], under_way: Any
    ) -> Iterator[tuple[str, Event | Block]]:
        if not self._class:
            yield from super()._run(reader, state, entries, under_way)
            return
        from .in_process import TapThread

        catalog = selected_catalog(entries, reader.streams)
        thread = TapThread(self._class, self._settings.config, catalog, state, label=self._label)
        with under_way.running(thread):
            yield from reader.read(thread.blocks())


__all__ = ["TapSource"]
