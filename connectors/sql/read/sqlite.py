"""Parts of queries over SQLite that all drivers need: its values have types, its columns may have none."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa

from ...incremental.bookmarks import python_value
from ..identifiers import literal, quote

#: A query during its description: a view that only its connection sees.
VIEW = "_syncblocks_query"

#: Number of records that are read to find the type of an undeclared column.
_SAMPLE_RECORDS = 1000

_REPEATED = re.compile(r":\d+$")


def sampled(query: Callable[[str], Sequence[Sequence[Any]]], source: str, column: str) -> str:
    """Return the kind of the first values of a column without a declared type; text if they are mixed.

    Args:
        query: runs a statement, and returns its rows.
        source: the text after FROM.
        column: its name.

    Returns:
        `integer`, `real`, `text` or `blob`.
    """
    rows = query(
        f"select distinct typeof(c) from (select {quote(column)} as c from {source} limit {_SAMPLE_RECORDS}) "
        "where c is not null"
    )
    found = {str(kind) for (kind,) in rows}
    if found == {"integer", "real"}:
        return "real"
    return found.pop() if len(found) == 1 else "text"


def as_written(names: Sequence[str]) -> list[str]:
    """Remove the suffix that SQLite adds to a repeated name (`id`, `ID:1`)."""
    found: list[str] = []
    for name in names:
        plain = _REPEATED.sub("", name)
        found.append(plain if plain.casefold() in map(str.casefold, found) else name)
    return found


def lowest(value: pa.Scalar) -> bool | int | float | str | bytes:
    """Return the value that SQLite compares with: for a time, the text form that sorts below all others.

    Comparisons with it lose no record: `2024-01-31` is at or below `2024-01-31 00:00` and `2024-01-31T00:00:00.000Z`.
    """
    plain = python_value(value)
    if isinstance(plain, datetime):
        moment = (plain.astimezone(UTC) if plain.tzinfo else plain).replace(tzinfo=None)
        if moment.time() == time(0):
            return moment.date().isoformat()
        is_whole = not (moment.second or moment.microsecond)
        text = moment.isoformat(sep=" ", timespec="minutes" if is_whole else "auto")
        return text.rstrip("0") if moment.microsecond else text
    if isinstance(plain, bool | int | float | str | bytes):
        return plain
    if isinstance(plain, date | time):
        return plain.isoformat().removesuffix(":00")
    if isinstance(plain, Decimal):
        return int(plain) if plain == plain.to_integral_value() else float(plain)
    return str(plain)


def lowest_constant(value: pa.Scalar) -> str:
    """Write `lowest` in SQL."""
    plain = lowest(value)
    if isinstance(plain, bytes):
        return f"x'{plain.hex()}'"
    return literal(plain) if isinstance(plain, str) else repr(int(plain) if isinstance(plain, bool) else plain)


__all__ = ["VIEW", "as_written", "lowest", "lowest_constant", "sampled"]
