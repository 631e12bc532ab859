"""Base of sources whose records come from a process: types that grow, interrupts, and the kept catalog."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..read_spec import ReplicationMethod
from ..stream import Block, Bookmark, Event, Stream
from ..struct_helpers import replace
from .kept import keep, kept_value
from .line_stream import WIDER
from .types import columns_of, widened_as
from .under_way import ReadUnderWay


class ProgramSource(ABC):
    """Base of the sources `singer` and `airbyte`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._catalog_lock = threading.Lock()
        self._entries: list[dict[str, Any]] | None = None
        self._reads: list[ReadUnderWay] = []

    @abstractmethod
    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str = "arrow"
    ) -> Iterator[tuple[str, Event | Block]]: ...

    @abstractmethod
    def _schemas(self) -> Mapping[str, Any]:
        """Return the JSON Schema of each stream, by its name."""

    @abstractmethod
    def _catalog_file(self) -> Path:
        """Return where the discovered catalog is kept."""

    @abstractmethod
    def _wider_file(self) -> Path:
        """Return where `_wider` is kept."""

    def as_known(self, stream: Stream, bookmark: Bookmark | None) -> Stream:
        """Return the stream with wider types where earlier runs found more digits than the program declares."""
        wider = {**(self._wider().get(stream.name) or {}), **((bookmark or {}).get(WIDER) or {})}
        schema = self._schemas().get(stream.name) if wider else None
        if schema is None:
            return stream
        found = {column.name: column for column in columns_of(schema) if column.name in wider}
        fields = [
            widened_as(found[field.name], wider[field.name]).field(nullable=field.nullable)
            if field.name in found
            else field
            for field in stream.schema
        ]
        return replace(stream, schema=pa.schema(fields))

    def count(self, stream: Stream) -> int:
        """Count by reading: a program cannot count."""
        whole = replace(stream, read=replace(stream.read, method=ReplicationMethod.FULL_TABLE, bookmark_properties=()))
        return sum(event.num_rows for _, event in self.read([whole], {}) if isinstance(event, pa.RecordBatch))

    def interrupt(self, stream: str) -> None:
        with self._lock:
            for under_way in self._reads:
                under_way.interrupt(stream)

    def close(self) -> None:
        """End the processes that still run."""
        with self._lock:
            for under_way in self._reads:
                under_way.interrupt_all()

    @contextlib.contextmanager
    def _noted(self, under_way: ReadUnderWay) -> Iterator[None]:
        """Let `interrupt` and `close` end a process."""
        with self._lock:
            self._reads.append(under_way)
        try:
            yield
        finally:
            with self._lock:
                self._reads.remove(under_way)

    def _wider(self) -> dict[str, Any]:
        """Return the columns in which earlier runs found more digits than a double or an int64 holds."""
        found = kept_value(self._wider_file())
        return found if isinstance(found, dict) else {}

    def _keep_wider(self, stream: str, columns: Mapping[str, Any]) -> None:
        with self._lock:
            keep(self._wider_file(), {**self._wider(), stream: dict(columns)})

    def _forget_catalog(self) -> None:
        with contextlib.suppress(OSError):
            self._catalog_file().unlink()
        with self._catalog_lock:
            self._entries = None


__all__ = ["ProgramSource"]
