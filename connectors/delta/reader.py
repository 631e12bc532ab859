"""Reads back what the destination has written, for `verify`, `count` and `deletes`; it is no source of pipelines."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import FatalConnectorError
from ..interrupts import Calls
from ..settings import parse_settings
from ..stream import Block, Bookmark, Event, Stream
from .data_files import batches, data_files
from .destination import DeltaDestination
from .settings import DeltaSettings
from .storage import folders, root_of, said, table_name, translated
from .table import LakeTable, features_of, is_pending, schema_of


class DeltaReader:
    """Reads each table in one snapshot."""

    settings = DeltaSettings

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self._destination = DeltaDestination(config, folder)
        self._root = root_of(parse_settings(DeltaSettings, config, "delta"), folder)
        self._calls = Calls()

    def identity(self) -> str:
        return self._destination.identity()

    def check(self) -> None:
        self._destination.check()

    def discover(self) -> Sequence[Stream]:
        return self.open_streams(self.list_streams())

    def list_streams(self) -> Sequence[str]:
        """See `ListsStreams`: a folder may be no table, which shows when it is opened."""
        with translated(self._root.label):
            names = map(table_name, folders(self._root))
            return sorted(name for name in names if name is not None)

    def open_streams(self, names: Collection[str]) -> Sequence[Stream]:
        """See `ListsStreams`."""
        streams = []
        for name in sorted(filter(None, names)):
            lake = LakeTable(self._root, name)
            with translated(lake.folder.label):
                table = lake.open()
                if table is None or is_pending(table):
                    continue
                features = features_of(table)
                why = f"{lake.folder.label} uses {', '.join(features)}, and cannot be read" if features else ""
                streams.append(Stream(name=name, schema=schema_of(table), unreadable=why))
        return streams

    def groups(self, streams: Sequence[Stream]) -> Sequence[Sequence[Stream]]:
        return [[stream] for stream in streams]

    def offers(self, stream: Stream) -> Sequence[str]:
        return ("arrow",)

    def count(self, stream: Stream) -> int:
        return sum(batch.num_rows for _, batch in self.read([stream], {}) if isinstance(batch, pa.RecordBatch))

    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str = "arrow"
    ) -> Iterator[tuple[str, Event | Block]]:
        for stream in group:
            lake = LakeTable(self._root, stream.name)
            with self._calls.under_way(stream.name) as call, translated(lake.folder.label):
                table = lake.open()
                if table is None:
                    raise FatalConnectorError(f"{lake.folder.label} is gone", stream=stream.name)
                try:
                    for file in data_files(table):
                        for batch in batches(lake.folder, file, stream.schema):
                            call.check()
                            yield stream.name, batch
                except pa.ArrowException as error:
                    raise FatalConnectorError(f"{lake.folder.label}: {said(error)}", stream=stream.name) from error

    def interrupt(self, stream: str) -> None:
        self._calls.interrupt(stream)

    def close(self) -> None:
        """Nothing stays open."""
