"""The state of one stream while a tap is read."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from typing import Any

from ..programs.line_stream import WIDER, LineStream
from ..stream import Bookmark, Stream
from .state_parts import STATE, entry_of, of_bookmark, replication_value, resumable


class TapStream(LineStream):
    """One selected stream of a tap."""

    connector = "singer"

    def __init__(
        self,
        stream: Stream,
        names: Collection[str],
        bookmark: Bookmark | None,
        *,
        adds_columns: bool,
        max_columns: int = sys.maxsize,
        wider: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(stream, bookmark, adds_columns=adds_columns, max_columns=max_columns, wider=wider)
        self.names = tuple(names)
        #: Position in the last checkpoint's STATE.
        self.checkpoint = resumable(entry_of(of_bookmark(bookmark, stream.name), names))

    def bookmark(self, part: Any, *, is_complete: bool = False) -> Bookmark:
        """Return the bookmark at this part of a STATE; `is_complete`: the tap has ended."""
        entry = entry_of(part, self.names)
        column = self.resent.column
        value = replication_value(entry, column) if column else None
        wider = self.wider()
        return {STATE: part, **({WIDER: wider} if wider else {}), **self.resent.at(value, is_complete=is_complete)}
