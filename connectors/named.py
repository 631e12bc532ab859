"""Named parameters of a user's statement: from `:stream` to the placeholders of sessions. Needs no driver."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

#: Text in which nothing begins a parameter: constants, names, comments, casts, assignments.
_TEXT = r"""
      (?<![A-Za-z0-9_])[eE]'(?:[^'\\]|\\.|'')*'     # E'it\'s'
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | `(?:[^`]|``)*`
    | (?<![A-Za-z0-9_$])(?P<quote>\$[A-Za-z_]*\$).*?(?P=quote)  # $$ ... $$ and $tag$ ... $tag$
    | --[^\n]*
    | /\*.*?\*/
    | ::|:=
"""
_HASH_COMMENT = r"| \#[^\n]*"
_NAME = r"| (?<![A-Za-z0-9_\])$]):(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
_NUMBER = r"| \$(?P<number>\d+)"


def _patterns(wanted: str) -> dict[bool, re.Pattern[str]]:
    """Return what finds the wanted, by whether `#` begins a comment."""
    flags = re.VERBOSE | re.DOTALL
    return {False: re.compile(_TEXT + wanted, flags), True: re.compile(_TEXT + _HASH_COMMENT + wanted, flags)}


_NAMED, _NUMBERED = _patterns(_NAME), _patterns(_NUMBER)


def parameter_names(statement: str) -> tuple[str, ...]:
    """Return the names of a statement's parameters, each once, in order of appearance."""
    return tuple(dict.fromkeys(_names(statement)))


def numbered(statement: str, parameters: Mapping[str, Any], *, has_hashes: bool = False) -> tuple[str, list[Any]]:
    """Replace `:name` by `$1`, `$2` ...; return the statement and the values in that order.

    Args:
        statement: the user's.
        parameters: the values.
        has_hashes: `#` begins a comment.

    Raises:
        KeyError: a parameter has no value.
    """
    places: dict[str, int] = {}

    def mark(match: re.Match[str]) -> str:
        name = match["name"]
        return match[0] if name is None else f"${places.setdefault(name, len(places) + 1)}"

    text = _NAMED[has_hashes].sub(mark, statement)
    return text, [parameters[name] for name in places]


def placed(sql: str, mark: Callable[[int], str], *, has_hashes: bool = False, other: Callable[[str], str] = str) -> str:
    """Replace `$1`, `$2` ... by what `mark` makes of their numbers.

    Args:
        sql: the statement.
        mark: called in order of appearance.
        has_hashes: `#` begins a comment.
        other: called for constants, names and comments, in which nothing is a placeholder.
    """

    def replace(match: re.Match[str]) -> str:
        number = match["number"]
        return other(match[0]) if number is None else mark(int(number))

    return _NUMBERED[has_hashes].sub(replace, sql)


def _names(statement: str) -> Iterator[str]:
    return (match["name"] for match in _NAMED[False].finditer(statement) if match["name"] is not None)


__all__ = ["numbered", "parameter_names", "placed"]
