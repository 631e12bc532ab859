"""Names of PostgreSQL's types, taken apart; spelled as `format_type` does."""

from __future__ import annotations

import re
from functools import lru_cache

from msgspec import Struct

#: Built-in types whose values mean the same in every database: these are made again under their own name, and their
#: binary form may be copied from server to server. (Not among them: what holds OIDs, such as regclass.)
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
    """A type's name, taken apart: `numeric(12,2)[]`."""

    base: str
    first: int | None = None
    second: int | None = None
    is_array: bool = False

    @staticmethod
    @lru_cache(maxsize=4096)
    def parse(text: str) -> Name:
        """Take a name apart, as `format_type` writes it."""
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
        """Tell whether every server has it."""
        return self.base in NATIVE

    @property
    def scale(self) -> int:
        """Digits behind the point of a numeric with a precision."""
        return self.second or 0

    @property
    def is_filled(self) -> bool:
        """Tell whether values are filled up with blanks."""
        return self.base == "character" and not self.is_array


__all__ = ["NATIVE", "TEXTS", "Name"]
