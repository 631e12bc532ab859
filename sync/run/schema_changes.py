"""Schema changes of one stream: announced to the run store before their commit, sent to callbacks after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from syncblocks.connectors.stream import Checkpoint, LedgerRow

from .context import StreamContext
from .recovery.fencing import commit_mark, was_made


class SchemaChanges:
    """A stream's announced changes, and those of its commits."""

    def __init__(self, context: StreamContext, stream: str) -> None:
        self._context = context
        self._stream = stream
        self._announced: tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]] | None = None
        #: All changes of the commits so far.
        self.made: list[Mapping[str, Any]] = []

    def announce(self, checkpoint: Checkpoint | None, changes: Sequence[Mapping[str, Any]]) -> None:
        """See `Load.announce`."""
        mark = commit_mark(checkpoint)
        if self._context.announce_change(self._stream, changes, mark):
            self._announced = (mark, changes)

    def committed(self, checkpoint: Checkpoint, changes: Sequence[Mapping[str, Any]]) -> None:
        """Tell callbacks a commit's changes, announced or not."""
        if not changes:
            return
        self.made += changes
        if self._announced is None:
            self.announce(checkpoint, changes)
        self._resolve(True)

    @property
    def is_open(self) -> bool:
        """Whether a change is announced whose commit is unconfirmed."""
        return self._announced is not None

    def was_made(self, row: LedgerRow) -> bool:
        """Whether the announced change was made, by the fenced ledger row."""
        return self._announced is not None and was_made(
            *self._announced, row, self._context.run, self._context.destination
        )

    def resolve(self, row: LedgerRow) -> None:
        """Before another attempt: tell callbacks of the announced change if it was made, else discard it."""
        self._resolve(self.was_made(row))

    def _resolve(self, is_made: bool) -> None:
        if self._announced is not None:
            self._context.resolve_change(self._stream, is_made)
            self._announced = None
