"""Finds a PostgreSQL type that holds the values of two others."""

from __future__ import annotations

from ..sql.dialect.texts import float_text, time_text
from .type_names import TEXTS, Name

#: Types with a cast from text that refuses unfit texts.
_PARSED = frozenset({"uuid", "json", "jsonb", "inet", "cidr", "macaddr", "macaddr8", "xml"})

#: Types among them that rewrite a text: a UUID in lower case, JSON without repeated keys.
_REWRITTEN = _PARSED - {"json", "xml"}

_BITS = ("bit", "bit varying")

#: Their digits.
INTEGERS = {"smallint": 5, "integer": 10, "bigint": 19}


def widen(before: str, after: str) -> str | None:
    """Return the type that holds all values of both; None if a person must decide."""
    if before == after:
        return before
    held, new = Name.parse(before), Name.parse(after)
    if held.is_array or new.is_array:
        return before if after == "text" and held.is_array else None
    if not new.is_native:  # an enum; its values are staged as texts
        return _wider_text(before, held, Name("text")) if held.base in TEXTS else None if held.is_native else before
    if held.base in TEXTS and (new.base in TEXTS or new.base in _PARSED):
        return _wider_text(before, held, new)
    if new.base in TEXTS and held.base in _REWRITTEN:
        return "text"
    if new.base in TEXTS and (held.base in _PARSED or not held.is_native):
        # The database's cast keeps the text unchanged, and refuses invalid ones.
        return before
    if {held.base, new.base} == {"json", "jsonb"}:
        return before
    if held.base in INTEGERS and new.base in INTEGERS:
        return before if INTEGERS[held.base] >= INTEGERS[new.base] else after
    if {held.base, new.base} == {"real", "double precision"}:
        return "double precision"
    if "numeric" in (held.base, new.base):
        return _wider_numeric(held, new)
    if held.base in _BITS and new.base in _BITS:
        return _wider_bits(before, held, new)
    if {held.base, new.base} == {"date", "timestamp without time zone"}:
        return after if held.base == "date" else before
    if held.base == new.base and held.base.startswith(("time", "interval")):
        # They differ in the decimal places of a second.
        return before if held.first is None else held.base
    return None


def _wider_text(before: str, held: Name, new: Name) -> str:
    if held.base == "text" or (held.base == "character varying" and held.first is None):
        return before
    if held.first is not None and new.first is not None and (held.base, new.base) != ("character", "character varying"):
        # A `character` that became text would lose its padding.
        return f"{held.base}({max(held.first, new.first)})"
    return "text"


def _wider_bits(before: str, held: Name, new: Name) -> str:
    """Return the type for bit strings of both lengths; a `bit(n)` only holds one length."""
    if held.base == "bit varying" and (held.first is None or (new.first is not None and new.first <= held.first)):
        return before
    if held.first is None or new.first is None:
        return "bit varying"
    return f"bit varying({max(held.first, new.first)})"


def _wider_numeric(held: Name, new: Name) -> str | None:
    pair = []
    for name in (held, new):
        if name.base in INTEGERS:
            pair.append((INTEGERS[name.base], 0))
        elif name.base != "numeric":
            return None
        elif name.first is None:
            return "numeric"
        else:
            pair.append((name.first - name.scale, name.scale))
    whole, scale = max(pair[0][0], pair[1][0]), max(pair[0][1], pair[1][1])
    return "numeric" if whole + scale > 1000 or scale < 0 else f"numeric({whole + scale},{scale})"


def text_of(column_type: str, name: str) -> str | None:
    """Write SQL that converts a column's values to texts; None: there is no such form."""
    kind = Name.parse(column_type)
    if kind.is_array:
        return None
    if kind.base in INTEGERS or kind.base in ("numeric", "boolean", "date"):
        return f"{name}::text"
    if kind.base in ("real", "double precision"):
        return float_text(name, "numeric")
    if kind.base == "time without time zone":
        return time_text(name)
    if not kind.base.startswith("timestamp"):
        return None
    utc, zone = (f"({name} at time zone 'UTC')", "Z") if kind.base.endswith("with time zone") else (name, "")
    # Infinite values, and years without four digits, have no other text.
    is_usual = f"{utc} >= '0001-01-01' and {utc} < '10000-01-01'"
    return f"""case when {is_usual} then to_char({utc}, 'YYYY-MM-DD"T"HH24:MI:SS.US{zone}') else {name}::text end"""


__all__ = ["INTEGERS", "text_of", "widen"]
