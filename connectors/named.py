"""Named parameters of a user's statement: from `:stream` to the placeholders of sessions. Needs no driver."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

#: Text in which a colon begins no parameter: constants, names, comments, casts, assignments; then `:name`.
_TOKEN = re.compile(
    r"""
      (?<![A-Za-z0-9_])[eE]'(?:[^'\\]|\\.|'')*'     # E'it\'s'
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | `(?:[^`]|``)*`
    | (?<![A-Za-z0-9_$])(\$[A-Za-z_]*\$).*?\1       # $$ ... $$ and $tag$ ... $tag$
    | --[^\n]*
    | /\*.*?\*/
    | ::|:=
    | (?<![A-Za-z0-9_\])$]):([A-Za-z_][A-Za-z0-9_]*)
    """,
    re.VERBOSE | re.DOTALL,
)


def parameter_names(statement: str) -> tuple[str, ...]:
    """Return the names of a statement's parameters, each once, in order of appearance."""
    return tuple(dict.fromkeys(_names(statement)))


def numbered(statement: str, parameters: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Replace `:name` by `$1`, `$2` ...; return the statement and the values in that order.

    Raises:
        KeyError: a parameter has no value.
    """
    places: dict[str, int] = {}

    def mark(match: re.Match[str]) -> str:
        name = match[2]
        return match[0] if name is None else f"${places.setdefault(name, len(places) + 1)}"

    text = _TOKEN.sub(mark, statement)
    return text, [parameters[name] for name in places]


def _names(statement: str) -> Iterator[str]:
    return (match[2] for match in _TOKEN.finditer(statement) if match[2] is not None)


__all__ = ["numbered", "parameter_names"]
