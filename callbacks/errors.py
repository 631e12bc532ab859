"""Errors of callbacks. An error inside a user's function is an `Outcome`, not one of these."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class CallbackError(Exception):
    """Root."""

    code = "callback"


class CallbackLoadError(CallbackError):
    """A callback or transformer file is missing, does not load, marks no function, or has an unfillable parameter.

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
    """A hook failed; the text shows no setting, which may be a secret."""


def first_line(error: BaseException) -> str:
    """Return `Type: message` of an error in user code; its own `__str__` may raise."""
    kind = type(error).__name__
    try:
        message = str(error)
    except BaseException as broken:
        message = f"<its message raised {type(broken).__name__}>"
    return f"{kind}: {message}" if message else kind


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the most similar known word, or an empty text."""
    from difflib import get_close_matches

    near = get_close_matches(word.lower(), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def choice(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'? Allowed: ...` for an unknown word."""
    allowed = list(known)
    near = nearest(word, allowed)
    return f"{near}{' Allowed: ' if near else '; allowed: '}{', '.join(allowed)}"
