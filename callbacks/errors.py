"""Errors of callbacks. What goes wrong inside a user's function is an `Outcome`, not an error of ours."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class CallbackError(Exception):
    """Root."""

    code = "callback"


class CallbackLoadError(CallbackError):
    """A callback or transformer file is missing, does not load, marks nothing, or asks for what nothing can fill.

    str() gives `file:line: reason`.
    """

    code = "callback_load"

    def __init__(self, path: Path | str | None, line: int | None, reason: str) -> None:
        self.path = None if path is None else Path(path)
        self.line = line
        self.reason = reason
        super().__init__(path, line, reason)

    def __str__(self) -> str:
        where = [str(part) for part in (self.path, self.line) if part is not None]
        return ": ".join([":".join(where), self.reason]) if where else self.reason


class HookFailed(CallbackError):
    """A hook did not do what it should; the text shows no setting, which may be a secret."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the known word closest to this one, or nothing."""
    from difflib import get_close_matches

    near = get_close_matches(word.lower(), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
