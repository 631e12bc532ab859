"""Types of MySQL and MariaDB <-> Arrow, and how values are selected.

| type | Arrow |
|---|---|
| tinyint ... bigint, unsigned as well | int8 ... int64, uint8 ... uint64 (mediumint: int32, uint32) |
| tinyint(1), bit(1) | bool |
| bit(n) | uint64 |
| year | int16 |
| float, double | float32, float64; NaN and infinities have no place here and are refused |
| decimal(p,s) to 38 digits | decimal128(p,s) |
| decimal(p,s) past 38 digits | string |
| char, varchar, text, enum, set, uuid, inet4, inet6 | string |
| binary, varbinary, blob | binary |
| vector | binary: its numbers, four bytes each (float32, little-endian) |
| json (in MariaDB longtext with a check json_valid) | json |
| date | date32; zero dates are refused |
| datetime(n) | timestamp[us] |
| datetime(n) comment 'UTC' (ours) | timestamp[us, UTC]: `timestamp` ends in 2038 |
| timestamp(n) | timestamp[us, UTC] |
| time(n) | time64[us]; negative ones and those past 24 hours are refused |
| geometry | string (WKT) |
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa

from ..errors import FatalConnectorError

#: Comment of a datetime column that holds moments, in UTC.
UTC_COMMENT = "UTC"
#: Behind the type of such a column.
UTC_SUFFIX = f" comment '{UTC_COMMENT}'"

_TYPE = re.compile(
    r"([a-z]\w*)\s*(\(.*\))?\s*(unsigned)?\s*(zerofill)?\s*(comment 'UTC')?\s*", re.DOTALL | re.IGNORECASE
)

_MEMBER = re.compile(r"'(?:[^']|'')*'")

_INTEGERS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_ALIASES = {"integer": "int", "numeric": "decimal", "dec": "decimal", "bool": "tinyint(1)", "boolean": "tinyint(1)"}
_TEXTS = {"tinytext": 255, "text": 65_535, "mediumtext": 16_777_215, "longtext": 4_294_967_295}
_BLOBS = {"tinyblob": 255, "blob": 65_535, "mediumblob": 16_777_215, "longblob": 4_294_967_295}
_TEXT_LIKE = ("char", "varchar", "enum", "set", "uuid", "inet4", "inet6")
_BINARY_LIKE = ("binary", "varbinary")
_GEOMETRY = (
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
    "geometrycollection", "geomcollection",
)  # fmt: skip

_MAX_DIGITS = 65
_MAX_SCALE = 30

#: Most members of a set.
_MAX_SET = 64

#: A varchar this long takes texts of any length, as far as they fit: what does not is refused.
_LONG_ENOUGH = 150


@dataclass(frozen=True, slots=True)
class Kind:
    """A declared type, taken apart."""

    name: str
    arguments: str = ""
    is_unsigned: bool = False
    is_utc: bool = False

    @classmethod
    def parse(cls, text: str) -> Kind:
        """Read a type as the catalog has it."""
        match = _TYPE.fullmatch(text.strip())
        if match is None:
            return cls(text.strip().lower())
        name = match[1].lower()
        alias = _ALIASES.get(name, name)
        if alias == "tinyint(1)":
            return cls("tinyint", "1")
        return cls(alias, (match[2] or "")[1:-1], bool(match[3] or match[4]), bool(match[5]))

    @property
    def numbers(self) -> tuple[int, ...]:
        """Return precision and scale, or the length."""
        parts = [part.strip() for part in self.arguments.split(",")]
        return tuple(int(part) for part in parts) if self.arguments and all(map(str.isdigit, parts)) else ()

    @property
    def members(self) -> tuple[str, ...]:
        """Return the members of an enum or a set, as they are written."""
        return tuple(_MEMBER.findall(self.arguments))

    @property
    def is_boolean(self) -> bool:
        """Tell whether it is what stands for a boolean."""
        return (self.name, self.numbers, self.is_unsigned) == ("tinyint", (1,), False) or self.is_bit1

    @property
    def is_bit1(self) -> bool:
        """Tell whether it is bit(1)."""
        return self.name == "bit" and self.numbers in ((), (1,))

    @property
    def is_text(self) -> bool:
        """Tell whether its values are texts."""
        return self.name in _TEXTS or self.name in _TEXT_LIKE

    @property
    def is_binary(self) -> bool:
        """Tell whether its values are bytes."""
        return self.name in _BLOBS or self.name in _BINARY_LIKE

    @property
    def is_geometry(self) -> bool:
        """Tell whether its values are read as WKT."""
        return self.name in _GEOMETRY

    def __str__(self) -> str:
        """Return the type as it is written in DDL, the same one on all servers (no display widths)."""
        arguments = self.arguments
        if self.name in _INTEGERS and not self.is_boolean:
            arguments = ""
        if self.name == "year":
            arguments = ""
        text = f"{self.name}({arguments})" if arguments else self.name
        if self.is_unsigned:
            text += " unsigned"
        return text + UTC_SUFFIX if self.is_utc else text


def normal(text: str) -> str:
    """Return a type as `Kind` writes it."""
    return str(Kind.parse(text))


def arrow_of(column_type: str, *, tinyint1_as_bool: bool = True) -> pa.DataType:
    """Return the Arrow type in which a column is read."""
    kind = Kind.parse(column_type)
    if kind.is_boolean and (tinyint1_as_bool or kind.is_bit1):
        return pa.bool_()
    if kind.name in _INTEGERS:
        return _integer(_INTEGERS[kind.name], kind.is_unsigned)
    if kind.name == "decimal":
        precision, scale = _decimal(kind)
        return pa.decimal128(precision, scale) if precision <= 38 else pa.string()
    if kind.name == "datetime":
        return pa.timestamp("us", "UTC") if kind.is_utc else pa.timestamp("us")
    if kind.is_binary:
        return pa.binary()
    return _ARROW.get(kind.name, pa.string())


_ARROW = {
    "bit": pa.uint64(),
    "year": pa.int16(),
    "float": pa.float32(),
    "double": pa.float64(),
    "json": pa.json_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"),
    "time": pa.time64("us"),
    # As it is stored: the server's own texts of a vector have six digits.
    "vector": pa.binary(),
}


def kept_as(column_type: str, arriving: pa.DataType) -> pa.DataType:
    """Return what values of an Arrow type are in a column, also where it is read as text: decimals past 38 digits."""
    kind = Kind.parse(column_type)
    if kind.name == "decimal" and _decimal(kind)[0] > 38 and pa.types.is_decimal(arriving):
        return pa.decimal256(*_decimal(kind))
    return arrow_of(column_type)


def _integer(bits: int, is_unsigned: bool) -> pa.DataType:
    signed = {8: pa.int8(), 16: pa.int16(), 24: pa.int32(), 32: pa.int32(), 64: pa.int64()}
    unsigned = {8: pa.uint8(), 16: pa.uint16(), 24: pa.uint32(), 32: pa.uint32(), 64: pa.uint64()}
    return unsigned[bits] if is_unsigned else signed[bits]


def _decimal(kind: Kind) -> tuple[int, int]:
    numbers = kind.numbers
    return (numbers[0] if numbers else 10, numbers[1] if len(numbers) > 1 else 0)


# -------------------------------------------------------------------- new columns
def column_type(arrow: pa.DataType, name: str, *, json_type: str = "json") -> str:
    """Return the type of a column made for an Arrow type.

    Raises:
        FatalConnectorError: there is none.
    """
    types = pa.types
    if arrow == pa.json_():
        return json_type
    if arrow == pa.uuid():
        return "char(36)"
    if isinstance(arrow, pa.BaseExtensionType):
        return column_type(arrow.storage_type, name, json_type=json_type)
    if types.is_dictionary(arrow):
        return column_type(arrow.value_type, name, json_type=json_type)
    if types.is_nested(arrow):
        return json_type
    if (
        types.is_decimal(arrow)
        and 0 <= arrow.scale <= min(arrow.precision, _MAX_SCALE)
        and arrow.precision <= _MAX_DIGITS
    ):
        return f"decimal({arrow.precision},{arrow.scale})"
    if types.is_timestamp(arrow):
        return "datetime(6)" if arrow.tz is None else f"datetime(6) comment '{UTC_COMMENT}'"
    for is_kind, declared in _DECLARED:
        if is_kind(arrow):
            return declared
    raise FatalConnectorError(
        f"column {name!r}: MySQL has no type for {arrow}; exclude it with `columns`", connector="mysql"
    )


_DECLARED = (
    (pa.types.is_boolean, "tinyint(1)"),
    (pa.types.is_int8, "tinyint"),
    (pa.types.is_int16, "smallint"),
    (pa.types.is_int32, "int"),
    (pa.types.is_int64, "bigint"),
    (pa.types.is_uint8, "tinyint unsigned"),
    (pa.types.is_uint16, "smallint unsigned"),
    (pa.types.is_uint32, "int unsigned"),
    (pa.types.is_uint64, "bigint unsigned"),
    (pa.types.is_float16, "float"),
    (pa.types.is_float32, "float"),
    (pa.types.is_float64, "double"),
    (pa.types.is_string, "longtext"),
    (pa.types.is_large_string, "longtext"),
    (pa.types.is_string_view, "longtext"),
    (pa.types.is_null, "longtext"),
    (pa.types.is_binary, "longblob"),
    (pa.types.is_large_binary, "longblob"),
    (pa.types.is_binary_view, "longblob"),
    (pa.types.is_fixed_size_binary, "longblob"),
    (pa.types.is_date, "date"),
    (pa.types.is_time, "time(6)"),
)


def key_type(column_type: str, texts: int) -> str:
    """Return the type of a key's column: an index takes 3072 bytes, four a character, and no text of any length."""
    kind = Kind.parse(column_type)
    characters = min(512, 3072 // 4 // texts - 1)
    if kind.name in _TEXTS or kind.name == "json":
        return f"varchar({characters})"
    if kind.name in _BLOBS:
        return f"varbinary({characters * 4})"
    return column_type


def is_unlimited(column_type: str) -> bool:
    """Tell whether no index can hold such a column."""
    name = Kind.parse(column_type).name
    return name in _TEXTS or name in _BLOBS or name == "json"


# ----------------------------------------------------------------------- widening
def widen(before: str, after: str) -> str | None:
    """Return the type that holds the values of both; `before` where it does already; None: there is none."""
    old, new = Kind.parse(before), Kind.parse(after)
    if old == new or str(old) == str(new):
        return before
    if old.is_bit1 and new.is_boolean:
        return before
    if old.name in (*_INTEGERS, "decimal") and new.name in (*_INTEGERS, "decimal"):
        return _wider_number(before, after, old, new)
    if {old.name, new.name} == {"float", "double"}:
        return "double"
    if old.name == new.name and old.name in ("datetime", "timestamp", "time") and old.is_utc == new.is_utc:
        return before if (old.numbers or (0,)) >= (new.numbers or (0,)) else after
    if old.name == "timestamp" and new.name == "datetime" and new.is_utc:
        return after
    if old.name == "datetime" and old.is_utc and new.name == "timestamp":
        return before if old.numbers >= new.numbers else str(Kind("datetime", "6", is_utc=True))
    if old.is_text and (new.is_text or new.name == "json"):
        return _wider_text(before, old, new, _TEXTS, "longtext")
    if old.name == "json" and new.is_text:
        return "longtext"
    if old.is_binary and new.is_binary:
        return _wider_text(before, old, new, _BLOBS, "longblob")
    return None


def _wider_number(before: str, after: str, old: Kind, new: Kind) -> str | None:
    if old.name == new.name == "decimal" or "decimal" in (old.name, new.name):
        (whole, scale), (new_whole, new_scale) = _digits(old), _digits(new)
        if whole >= new_whole and scale >= new_scale and old.name == "decimal":
            return before
        whole, scale = max(whole, new_whole), max(scale, new_scale)
        return f"decimal({whole + scale},{scale})" if whole + scale <= _MAX_DIGITS and scale <= _MAX_SCALE else None
    low, high = _limits(old)
    new_low, new_high = _limits(new)
    if low <= new_low and high >= new_high:
        return before
    if new_low <= low and new_high >= high:
        return after
    needed_low, needed_high = min(low, new_low), max(high, new_high)
    for name in _INTEGERS:
        candidate = Kind(name)
        if _limits(candidate)[0] <= needed_low and _limits(candidate)[1] >= needed_high:
            return name
    return "decimal(20,0)"


def _limits(kind: Kind) -> tuple[int, int]:
    if kind.is_boolean:
        return 0, 1
    bits = _INTEGERS[kind.name]
    return (0, 2**bits - 1) if kind.is_unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _digits(kind: Kind) -> tuple[int, int]:
    """Return digits before and after the point."""
    if kind.name == "decimal":
        precision, scale = _decimal(kind)
        return precision - scale, scale
    low, high = _limits(kind)
    return len(str(max(high, -low))), 0


def _wider_members(before: str, old: Kind, new: Kind) -> str | None:
    """Widen an enum or a set: by the members of another one, or to texts."""
    if new.name in _TEXTS or new.name == "json":
        return "longtext"
    if new.name == old.name:
        held = old.members
        added = [member for member in new.members if member not in held]
        members = [*held, *added]
        # A set's value is a text that shows its members in the order of the column.
        is_same_order = [member for member in members if member in new.members] == list(new.members)
        if old.name == "enum" or (is_same_order and len(members) <= _MAX_SET):
            return str(Kind(old.name, ",".join(members))) if added else before
    if new.name not in ("enum", "set", "char", "varchar"):
        return None
    needed = max(_longest_of(old), _longest_of(new))
    return f"varchar({needed})" if needed <= 16_000 else "longtext"


def _longest_of(kind: Kind) -> int:
    """Return the characters of the longest value; quotes within members count twice, which does no harm."""
    if kind.name not in ("enum", "set"):
        return (kind.numbers or (1,))[0]
    lengths = [len(member) - 2 for member in kind.members]
    return max(sum(lengths) + len(lengths) - 1 if kind.name == "set" else max(lengths), 1)


def _wider_text(before: str, old: Kind, new: Kind, sizes: dict[str, int], longest: str) -> str | None:
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


def _is_padded(old: Kind, new: Kind) -> bool:
    """Tell whether values would lose the spaces at their end in a char, or be filled up with zeros in a binary."""
    return old.name == "binary" or (old.name == "char" and (new.name in ("varchar", "json") or new.name in _TEXTS))


def selectable(column_type: str) -> bool:
    """Tell whether texts of the type can be written into it as they are read (not bits, geometry, unknown types)."""
    kind = Kind.parse(column_type)
    known = (*_INTEGERS, *_TEXTS, *_BLOBS, *_TEXT_LIKE, *_BINARY_LIKE, *_ARROW, "decimal", "datetime")
    return kind.name in known and kind.name != "bit"


# ------------------------------------------------------------------------ reading
def selected(name: str, column_type: str) -> str:
    """Return the SQL for a column, itself but for what would come as bytes of the server's own.

    Args:
        name: the column, quoted.
        column_type: of the catalog; empty: unknown.
    """
    kind = Kind.parse(column_type) if column_type else Kind("")
    if kind.name in _GEOMETRY:
        return f"st_astext({name})"
    if kind.name == "float":
        # As a double: where values come as texts, a float has six digits.
        return f"{name} * 1e0"
    if kind.name == "bit":
        return f"cast({name} as unsigned)"
    return f"cast({name} as char)" if kind.name in ("uuid", "inet4", "inet6", "") else name


__all__ = [
    "Kind",
    "arrow_of",
    "column_type",
    "is_unlimited",
    "kept_as",
    "key_type",
    "normal",
    "selectable",
    "selected",
    "widen",
]
