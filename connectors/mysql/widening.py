"""Which type of MySQL holds the values of two others."""

from __future__ import annotations

from .kinds import BLOBS, INTEGERS, MAX_DIGITS, MAX_SCALE, TEXTS, MySQLKind

#: Most members of a set.
_MAX_SET = 64

#: A varchar this long stays for texts of any length: the server refuses a text that does not fit.
_LONG_ENOUGH = 150


def widen(before: str, after: str) -> str | None:
    """Return the type that holds the values of both; `before` where it does already; None: there is none."""
    old, new = MySQLKind.parse(before), MySQLKind.parse(after)
    if old == new or str(old) == str(new):
        return before
    if old.is_bit1 and new.is_boolean:
        return before
    if old.is_geometry and (new.is_geometry or new.name in TEXTS):
        # The server makes a geometry of its text, and refuses what is none.
        return before
    if old.name == "bit" and new.name == "bit":
        return before if old.numbers >= new.numbers else after
    if old.name in (*INTEGERS, "decimal") and new.name in (*INTEGERS, "decimal"):
        return _wider_number(before, after, old, new)
    if {old.name, new.name} == {"float", "double"}:
        return "double"
    if old.name == new.name and old.name in ("datetime", "timestamp", "time") and old.is_utc == new.is_utc:
        return before if (old.numbers or (0,)) >= (new.numbers or (0,)) else after
    if {old.name, new.name} == {"date", "datetime"} and not (old.is_utc or new.is_utc):
        return after if old.name == "date" else before
    if old.name == "timestamp" and new.name == "datetime" and new.is_utc:
        return after
    if old.name == "datetime" and old.is_utc and new.name == "timestamp":
        return before if old.numbers >= new.numbers else str(MySQLKind("datetime", "6", is_utc=True))
    if old.is_text and (new.is_text or new.name == "json"):
        return _wider_text(before, old, new, TEXTS, "longtext")
    if old.name == "json" and new.is_text:
        return "longtext"
    if old.is_binary and new.is_binary:
        return _wider_text(before, old, new, BLOBS, "longblob")
    return None


def _wider_number(before: str, after: str, old: MySQLKind, new: MySQLKind) -> str | None:
    if old.name == new.name == "decimal" or "decimal" in (old.name, new.name):
        (whole, scale), (new_whole, new_scale) = _digits(old), _digits(new)
        if whole >= new_whole and scale >= new_scale and old.name == "decimal":
            return before
        whole, scale = max(whole, new_whole), max(scale, new_scale)
        return f"decimal({whole + scale},{scale})" if whole + scale <= MAX_DIGITS and scale <= MAX_SCALE else None
    low, high = _limits(old)
    new_low, new_high = _limits(new)
    if low <= new_low and high >= new_high:
        return before
    if new_low <= low and new_high >= high:
        return after
    needed_low, needed_high = min(low, new_low), max(high, new_high)
    for name in INTEGERS:
        candidate = MySQLKind(name)
        if _limits(candidate)[0] <= needed_low and _limits(candidate)[1] >= needed_high:
            return name
    return "decimal(20,0)"


def _limits(kind: MySQLKind) -> tuple[int, int]:
    if kind.is_boolean:
        return 0, 1
    bits = INTEGERS[kind.name]
    return (0, 2**bits - 1) if kind.is_unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _digits(kind: MySQLKind) -> tuple[int, int]:
    """Return digits before and after the point."""
    if kind.name == "decimal":
        precision, scale = kind.decimal
        return precision - scale, scale
    low, high = _limits(kind)
    return len(str(max(high, -low))), 0


def _wider_members(before: str, old: MySQLKind, new: MySQLKind) -> str | None:
    """Widen an enum or a set: by the members of another one, or to texts."""
    if new.name in TEXTS or new.name == "json":
        return "longtext"
    if new.name == old.name:
        held = old.members
        added = [member for member in new.members if member not in held]
        members = [*held, *added]
        # A set's value is a text that shows its members in the order of the column.
        is_same_order = [member for member in members if member in new.members] == list(new.members)
        if old.name == "enum" or (is_same_order and len(members) <= _MAX_SET):
            return str(MySQLKind(old.name, ",".join(members))) if added else before
    if new.name not in ("enum", "set", "char", "varchar"):
        return None
    needed = max(_longest_of(old), _longest_of(new))
    return f"varchar({needed})" if needed <= 16_000 else "longtext"


def _longest_of(kind: MySQLKind) -> int:
    """Return the characters of the longest value; quotes within members count twice, which does no harm."""
    if kind.name not in ("enum", "set"):
        return (kind.numbers or (1,))[0]
    lengths = [len(member) - 2 for member in kind.members]
    return max(sum(lengths) + len(lengths) - 1 if kind.name == "set" else max(lengths), 1)


def _wider_text(before: str, old: MySQLKind, new: MySQLKind, sizes: dict[str, int], longest: str) -> str | None:
    if old.name in ("enum", "set"):
        return _wider_members(before, old, new)
    if old.name in ("uuid", "inet4", "inet6"):
        return longest if new.name in sizes or new.name == "json" else None
    length = sizes.get(old.name) or (old.numbers or (1,))[0]
    variable = "varbinary" if old.is_binary else "varchar"
    if _is_padded(old, new):
        before = f"{variable}({length})"
    if new.name in sizes or new.name == "json":
        if new.name == longest or new.name == "json":
            return before if old.name in sizes or length >= _LONG_ENOUGH else longest
        return before if length >= sizes[new.name] else longest
    needed = {"uuid": 36, "inet4": 15, "inet6": 45}.get(new.name) or (new.numbers or (0,))[0]
    if new.name in ("enum", "set"):
        needed = max(len(new.arguments), 1)
    if length >= needed:
        return before
    return f"{variable}({needed})" if needed <= 16_000 else longest


def _is_padded(old: MySQLKind, new: MySQLKind) -> bool:
    """Tell whether values would lose the spaces at their end in a char, or be filled up with zeros in a binary."""
    return old.name == "binary" or (old.name == "char" and (new.name in ("varchar", "json") or new.name in TEXTS))


__all__ = ["widen"]
