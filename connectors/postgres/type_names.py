"""Names of PostgreSQL's types, parsed from the form of `format_type`."""

from __future__ import annotations

import re
from functools import lru_cache

from msgspec import Struct

#: Built-in types whose values mean the same in every database: new columns get the same type, and the
#: binary form can be copied between servers. (Types with OIDs, such as regclass, are not included.)
NATIVE = frozenset(
    {
        "bigint",
        "bit",
        "bit varying",
        "boolean",
        "box",
        "bytea",
        '"char"',
        "character",
        "character varying",
        "cidr",
        "circle",
        "date",
        "datemultirange",
        "daterange",
        "double precision",
        "inet",
        "int4multirange",
        "int4range",
        "int8multirange",
        "int8range",
        "integer",
        "interval",
        "json",
        "jsonb",
        "jsonpath",
        "line",
        "lseg",
        "macaddr",
        "macaddr8",
        "money",
        "name",
        "numeric",
        "nummultirange",
        "numrange",
        "oid",
        "path",
        "pg_lsn",
        "point",
        "polygon",
        "real",
        "smallint",
        "text",
        "tid",
        "time with time zone",
        "time without time zone",
        "timestamp with time zone",
        "timestamp without time zone",
        "tsmultirange",
        "tsquery",
        "tsrange",
        "tstzmultirange",
        "tstzrange",
        "tsvector",
        "uuid",
        "xid8",
        "xml",
    }
)

_TYPMOD = re.compile(r"\((-?\d+)(?:,(-?\d+))?\)")

TEXTS = ("text", "character varying", "character", "name", '"char"')


class Name(Struct, frozen=True):
    """The parts of a type's name: `numeric(12,2)[]`."""

    base: str
    first: int | None = None
    second: int | None = None
    is_array: bool = False

    @staticmethod
    @lru_cache(maxsize=4096)
    def parse(text: str) -> Name:
        """Parse a name in the form of `format_type`."""
        is_array = text.endswith("[]")
        text = text.removesuffix("[]")
        found = _TYPMOD.search(text)
        if not found:
            return Name(text, None, None, is_array)
        base = text[: found.start()] + text[found.end() :]
        second = found.group(2)
        return Name(base, int(found.group(1)), None if second is None else int(second), is_array)

    @property
    def is_native(self) -> bool:
        """Return whether every server has it."""
        return self.base in NATIVE

    @property
    def scale(self) -> int:
        """Decimal places of a numeric with a precision."""
        return self.second or 0

    @property
    def is_filled(self) -> bool:
        """Return whether values are padded with blanks."""
        return self.base == "character" and not self.is_array


__all__ = ["NATIVE", "TEXTS", "Name"]
