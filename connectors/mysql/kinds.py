"""Declared types of MySQL and MariaDB, taken apart."""

from __future__ import annotations

import re

from msgspec import Struct

#: Comment of a datetime column that holds moments, in UTC.
UTC_COMMENT = "UTC"
#: Behind the type of such a column.
UTC_SUFFIX = f" comment '{UTC_COMMENT}'"

_TYPE = re.compile(
    r"([a-z]\w*)\s*(\(.*\))?\s*(unsigned)?\s*(zerofill)?\s*(comment 'UTC')?\s*", re.DOTALL | re.IGNORECASE
)

_MEMBER = re.compile(r"'(?:[^']|'')*'")

INTEGERS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_ALIASES = {"integer": "int", "numeric": "decimal", "dec": "decimal", "bool": "tinyint(1)", "boolean": "tinyint(1)"}
TEXTS = {"tinytext": 255, "text": 65_535, "mediumtext": 16_777_215, "longtext": 4_294_967_295}
BLOBS = {"tinyblob": 255, "blob": 65_535, "mediumblob": 16_777_215, "longblob": 4_294_967_295}
TEXT_LIKE = ("char", "varchar", "enum", "set", "uuid", "inet4", "inet6")
BINARY_LIKE = ("binary", "varbinary")
GEOMETRY = (
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
    "geometrycollection", "geomcollection",
)  # fmt: skip

MAX_DIGITS = 65
MAX_SCALE = 30


class MySQLKind(Struct, frozen=True):
    """A declared type, taken apart."""

    name: str
    arguments: str = ""
    is_unsigned: bool = False
    is_utc: bool = False

    @classmethod
    def parse(cls, text: str) -> MySQLKind:
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
    def decimal(self) -> tuple[int, int]:
        """Return a decimal's precision and scale."""
        numbers = self.numbers
        return (numbers[0] if numbers else 10, numbers[1] if len(numbers) > 1 else 0)

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
        return self.name in TEXTS or self.name in TEXT_LIKE

    @property
    def is_binary(self) -> bool:
        """Tell whether its values are bytes."""
        return self.name in BLOBS or self.name in BINARY_LIKE

    @property
    def is_geometry(self) -> bool:
        """Tell whether its values are read as WKT."""
        return self.name in GEOMETRY

    def __str__(self) -> str:
        """Return the type as it is written in DDL, the same one on all servers (no display widths)."""
        arguments = self.arguments
        if self.name in INTEGERS and not self.is_boolean:
            arguments = ""
        if self.name == "year":
            arguments = ""
        text = f"{self.name}({arguments})" if arguments else self.name
        if self.is_unsigned:
            text += " unsigned"
        return text + UTC_SUFFIX if self.is_utc else text


#: Type of a column in a result -> its name; texts and bytes have one type each, whatever their length.
_IN_A_RESULT = {
    0: "decimal", 1: "tinyint", 2: "smallint", 3: "int", 4: "float", 5: "double", 7: "timestamp", 8: "bigint",
    9: "mediumint", 10: "date", 11: "time", 12: "datetime", 13: "year", 16: "bit", 242: "vector", 245: "json",
    246: "decimal", 255: "geometry",
}  # fmt: skip
_UNSIGNED, _BYTES = 32, 63


def declared(code: int, flags: int, length: int, scale: int, charset: int) -> str:
    """Return the declared type of a result's column.

    Args:
        code: type, `flags`, `length`, `scale` and `charset` as in its definition.
        flags: bits; one says that numbers are unsigned.
        length: most characters, of a decimal also sign and point.
        scale: digits after the point, or of a second.
        charset: 63: bytes.

    Source: MySQL, Client/Server Protocol, Column Definition.
    """
    name, is_unsigned = _IN_A_RESULT.get(code, ""), bool(flags & _UNSIGNED)
    if not name:
        return "longblob" if charset == _BYTES else "longtext"
    if name == "decimal":
        digits = length - (scale > 0) - (not is_unsigned)
        return f"decimal({min(digits, MAX_DIGITS)},{scale})"
    if name in ("datetime", "timestamp", "time"):
        return f"{name}({scale})" if 0 < scale <= 6 else name
    if name == "tinyint" and length == 1 and not is_unsigned:
        return "tinyint(1)"
    if name == "bit":
        return f"bit({length})"
    return f"{name} unsigned" if is_unsigned and name in INTEGERS else name


__all__ = ["UTC_COMMENT", "UTC_SUFFIX", "MySQLKind", "declared"]
