"""Named parameters of a user's statement: from `:stream` to the placeholders of sessions. Needs no driver."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

#: Constants and names in quotes; where a backslash takes the next character for what it is, and where not.
_QUOTED = r"""
      '(?:[^']|'')*'
    | "(?:[^"]|"")*"
"""
_ESCAPED = r"""
      '(?:[^'\\]|\\.|'')*'
    | "(?:[^"\\]|\\.|"")*"
"""
#: Text in which nothing begins a parameter: constants, names, comments, casts, assignments.
_TEXT = r"""
    | (?<![A-Za-z0-9_])[eE]'(?:[^'\\]|\\.|'')*'     # E'it\'s'
    | `(?:[^`]|``)*`
    | (?<![A-Za-z0-9_$])(?P<quote>\$(?:[A-Za-z_][A-Za-z0-9_]*)?\$).*?(?P=quote)  # $$ ... $$ and $tag$ ... $tag$
    | --[^\n]*
    | /\*.*?\*/
    | ::|:=
"""
_HASH_COMMENT = r"| \#[^\n]*"
_NAME = r"| (?<![A-Za-z0-9_\])$]):(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
_NUMBER = r"| \$(?P<number>\d+)"
_END = r"| ;"
_NOTHING = ""


@cache
def _pattern(wanted: str, *, has_hashes: bool = False, has_backslashes: bool = False) -> re.Pattern[str]:
    """Return what finds the wanted; compiled when it is first needed, since most runs have no statements."""
    quoted = _ESCAPED if has_backslashes else _QUOTED
    return re.compile(quoted + _TEXT + (_HASH_COMMENT if has_hashes else "") + wanted, re.VERBOSE | re.DOTALL)


def parameter_names(statement: str, *, has_hashes: bool = False, has_backslashes: bool = False) -> tuple[str, ...]:
    """Return the names of a statement's parameters, each once, in order of appearance; see `replaced`."""
    pattern = _pattern(_NAME, has_hashes=has_hashes, has_backslashes=has_backslashes)
    found = (match["name"] for match in pattern.finditer(statement))
    return tuple(dict.fromkeys(name for name in found if name is not None))


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

    text = _pattern(_NAME, has_hashes=has_hashes).sub(mark, statement)
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

    return _pattern(_NUMBER, has_hashes=has_hashes).sub(replace, sql)


def replaced(
    statement: str,
    texts: Mapping[str, str],
    *,
    has_hashes: bool = False,
    has_backslashes: bool = False,
    other: Callable[[str], str] = str,
) -> str:
    """Replace some parameters of a statement.

    Args:
        statement: the user's.
        texts: what takes the place of each; parameters of other names are text.
        has_hashes: `#` begins a comment.
        has_backslashes: a backslash in a constant takes the next character for what it is.
        other: called for the texts between them.
    """
    pattern = _pattern(_NAME, has_hashes=has_hashes, has_backslashes=has_backslashes)
    found, end = [], 0
    for match in pattern.finditer(statement):
        if match["name"] in texts:
            found += [other(statement[end : match.start()]), texts[match["name"]]]
            end = match.end()
    return "".join([*found, other(statement[end:])])


def without_end(statement: str) -> str:
    """Return a statement without the `;` at its end, behind which only comments may come, and those."""
    for match in reversed(list(_pattern(_END).finditer(statement))):
        if match[0] != ";":
            continue
        rest = statement[match.end() :]
        return statement if skeleton(rest).strip() else statement[: match.start()].rstrip()
    return statement.strip()


def skeleton(statement: str, *, has_hashes: bool = False, has_backslashes: bool = False) -> str:
    """Return a statement with a `?` for each constant and quoted name, and a blank for each comment.

    What is left are words and signs that mean something to every system. MySQL runs what is in `/*! ... */`: it stays.

    Args:
        statement: the user's.
        has_hashes: see `replaced`.
        has_backslashes: see `replaced`.
    """

    def blank(match: re.Match[str]) -> str:
        if match[0].startswith("/*!"):
            return match[0]
        return " " if match[0].startswith(("--", "/*", "#", ":")) else " ? "

    return _pattern(_NOTHING, has_hashes=has_hashes, has_backslashes=has_backslashes).sub(blank, statement)


__all__ = ["numbered", "parameter_names", "placed", "replaced", "skeleton", "without_end"]
