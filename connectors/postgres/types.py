"""PostgreSQL's types and Arrow's: how each is read, made, carried and widened.

Pure; type names are spelled as `format_type` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa

from ..errors import FatalConnectorError
from ..sql.tables import Wire

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

_TEXTS = ("text", "character varying", "character", "name", '"char"')

#: Types that a text is turned into by a cast that refuses what does not fit.
_PARSED = frozenset({"uuid", "json", "jsonb", "inet", "cidr", "macaddr", "macaddr8", "xml"})

#: Those of them that write a text anew: a UUID in small letters, JSON without repeated keys.
_REWRITTEN = _PARSED - {"json", "xml"}

_BITS = ("bit", "bit varying")

#: Their digits.
INTEGERS = {"smallint": 5, "integer": 10, "bigint": 19}

#: Types that COPY carries as one Arrow type, whatever is put in.
_FIXED: dict[str, pa.DataType] = {
    "smallint": pa.int16(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "real": pa.float32(),
    "double precision": pa.float64(),
    "boolean": pa.bool_(),
    "text": pa.string(),
    "character varying": pa.string(),
    "character": pa.string(),
    "bytea": pa.binary(),
    "date": pa.date32(),
    "time without time zone": pa.time64("us"),
    "timestamp without time zone": pa.timestamp("us"),
    "timestamp with time zone": pa.timestamp("us", "UTC"),
    "interval": pa.month_day_nano_interval(),
}


#: Types whose values every driver gives to Python as what they are.
_PLAIN = frozenset(
    {"smallint", "integer", "bigint", "real", "double precision", "numeric", "boolean", "text", "character varying"}
) | {"character", "name", "uuid", "json", "jsonb", "bytea", "oid"}

#: Types that JSON has a form of its own for.
_MOMENTS = frozenset({"date", "timestamp without time zone", "timestamp with time zone"})


@dataclass(frozen=True, slots=True)
class Name:
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


@lru_cache(maxsize=4096)
def arrow_of(column_type: str) -> tuple[pa.DataType, str]:
    """Return the Arrow type a column is read in, and what is selected: a format with `{}` for the column."""
    name = Name.parse(column_type)
    if column_type == "bpchar":
        # A `character` without a length, as views have it: a cast to text would drop the blanks at its end.
        return pa.string(), "pg_catalog.textin(pg_catalog.bpcharout({}))"
    if name.is_array or not name.is_native:
        return pa.string(), "{}::text"
    if name.base in _FIXED:
        return _FIXED[name.base], "{}"
    if name.base == "name":
        return pa.string(), "{}"
    if name.base in ("json", "jsonb"):
        return pa.json_(), "{}::text"
    if name.base == "numeric" and name.first is not None and name.first <= 38 and 0 <= name.scale <= name.first:
        # As text and cast by Arrow: half the time of the driver's own decoding of binary numerics.
        return pa.decimal128(name.first, name.scale), "{}::text"
    if name.base == "oid":
        return pa.int64(), "{}::bigint"
    if name.base == "money":
        return pa.decimal128(20, 2), "{}::numeric::text"
    return pa.string(), "{}::text"


#: Items of arrays that checksums can compare.
_ITEMS = frozenset(
    {
        "bigint",
        "boolean",
        "bytea",
        "character varying",
        "date",
        "double precision",
        "integer",
        "interval",
        "numeric",
        "real",
        "smallint",
        "text",
        "time without time zone",
        "timestamp with time zone",
        "timestamp without time zone",
        "uuid",
    }
)


def array_item(field: pa.Field) -> pa.Field | None:
    """Return the items of an array, which is read as text; None: it is none, or they cannot be compared."""
    metadata = field.metadata or {}
    native = metadata.get(b"native_type", b"").decode() if metadata.get(b"native_system") == b"postgres" else ""
    base = native.removesuffix("[]")
    if base == native or Name.parse(base).base not in _ITEMS:
        return None
    return pa.field("item", arrow_of(base)[0], metadata={b"native_type": base, b"native_system": b"postgres"})


def shown(column_type: str) -> str:
    """Return what is selected for people to read: Python's times end at the year 9999, its intervals have no months."""
    name = Name.parse(column_type)
    if name.base in _PLAIN:
        return "{}"
    if name.base in _MOMENTS and not name.is_array:
        return "to_json({}) #>> '{{}}'"
    return "{}::text[]" if name.is_array else "{}::text"


def kept_as(column_type: str, arriving: Any) -> pa.DataType:
    """Return what values of an Arrow type are in a column: its own type, also where that is read as text."""
    name = Name.parse(column_type)
    if name.is_array:
        is_list = (
            pa.types.is_list(arriving) or pa.types.is_large_list(arriving) or pa.types.is_fixed_size_list(arriving)
        )
        return pa.list_(kept_as(column_type[:-2], arriving.value_type)) if is_list else pa.string()
    if name.base == "uuid":
        return pa.uuid()
    if name.base == "interval" and pa.types.is_duration(arriving):
        return pa.duration("us")
    is_number = pa.types.is_integer(arriving) or pa.types.is_decimal(arriving)
    if name.base == "numeric" and is_number:
        if name.first is None:
            return arriving
        if 38 < name.first <= 76 and 0 <= name.scale <= name.first:
            return pa.decimal256(name.first, name.scale)
    return arrow_of(column_type)[0]


def column_type(field: pa.Field, system: bytes) -> str:
    """Return the type of a column made for a field: its native one if this system has it, else by its Arrow type."""
    metadata = field.metadata or {}
    native = str(metadata.get(b"native_type", b""), "utf-8", "replace")
    # The name goes into DDL: only what is known word for word may pass.
    if metadata.get(b"native_system") == system and native and Name.parse(native).is_native:
        return native
    if field.type == pa.json_() and native.lower() == "json":
        # There it is a text (MariaDB, DuckDB): `jsonb` would drop repeated keys, and write the rest anew.
        return "json"
    return _made_for(field.type, field.name)


def _made_for(kind: Any, column: str) -> str:
    is_type = pa.types
    if is_type.is_dictionary(kind):
        return _made_for(kind.value_type, column)
    if kind == pa.uuid():
        return "uuid"
    if kind == pa.json_() or is_type.is_struct(kind) or is_type.is_map(kind):
        return "jsonb"
    if isinstance(kind, pa.BaseExtensionType):
        return _made_for(kind.storage_type, column)
    if is_type.is_list(kind) or is_type.is_large_list(kind) or is_type.is_fixed_size_list(kind):
        inner = _made_for(kind.value_type, column)
        return "jsonb" if inner == "jsonb" or inner.endswith("[]") else f"{inner}[]"
    if is_type.is_decimal(kind):
        precision, scale = kind.precision, kind.scale
        return f"numeric({precision},{scale})" if scale >= 0 else f"numeric({precision - scale},0)"
    if is_type.is_timestamp(kind):
        return "timestamp with time zone" if kind.tz else "timestamp without time zone"
    for test, made in _MADE:
        if test(kind):
            return str(made)
    raise FatalConnectorError(
        f"column {column!r} is {kind}, for which PostgreSQL has no type; exclude it with `columns`",
        connector="postgres",
    )


_MADE = (
    (pa.types.is_null, "text"),
    (pa.types.is_boolean, "boolean"),
    (lambda kind: kind in (pa.int8(), pa.uint8(), pa.int16()), "smallint"),
    (lambda kind: kind in (pa.uint16(), pa.int32()), "integer"),
    (lambda kind: kind in (pa.uint32(), pa.int64()), "bigint"),
    (pa.types.is_uint64, "numeric(20,0)"),
    (lambda kind: kind in (pa.float16(), pa.float32()), "real"),
    (pa.types.is_floating, "double precision"),
    (lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view(), "text"),
    (
        lambda kind: (
            pa.types.is_binary(kind)
            or pa.types.is_large_binary(kind)
            or pa.types.is_fixed_size_binary(kind)
            or kind == pa.binary_view()
        ),
        "bytea",
    ),
    (pa.types.is_date, "date"),
    (pa.types.is_time, "time without time zone"),
    (lambda kind: pa.types.is_duration(kind) or kind == pa.month_day_nano_interval(), "interval"),
)


def wire(target: str, kind: pa.DataType) -> Wire:
    """Say how values of an Arrow type get into a column of a type: as they are by COPY, or as text and a cast."""
    name = Name.parse(target)
    if pa.types.is_dictionary(kind):
        return wire(target, kind.value_type)
    if name.is_array:
        return _array_wire(target, kind)
    if name.base in ("json", "jsonb"):
        return Wire(type=target, arrow=pa.json_())
    if name.base == "uuid" and (kind == pa.uuid() or kind == pa.binary(16)):
        return Wire(type=target, arrow=pa.uuid())
    if name.base == "interval" and pa.types.is_duration(kind):
        return Wire(type=target, arrow=pa.duration("us"))
    if name.base == "numeric":
        return _numeric_wire(name, target, kind)
    if name.base == "money" and pa.types.is_decimal(kind):
        made = f"numeric({kind.precision},{kind.scale})"
        return Wire(type=made, arrow=kind)
    if name.base in _FIXED and not (_is_text(kind) and name.base not in _TEXTS):
        return Wire(type=target, arrow=_FIXED[name.base])
    return Wire(type="text", arrow=pa.string())


def _array_wire(target: str, kind: pa.DataType) -> Wire:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = wire(target.removesuffix("[]"), kind.value_type)
        if inner.type == target.removesuffix("[]"):
            return Wire(type=target, arrow=pa.list_(inner.arrow))
    return Wire(type="text", arrow=pa.string())


def _numeric_wire(name: Name, target: str, kind: pa.DataType) -> Wire:
    if _is_text(kind):
        return Wire(type="text", arrow=pa.string())
    if pa.types.is_floating(kind):
        return Wire(type="double precision", arrow=pa.float64())
    if name.first is not None and name.first <= 76 and name.scale >= 0:
        # COPY would round to the column's scale without a word; Arrow's cast refuses.
        make = pa.decimal128 if name.first <= 38 else pa.decimal256
        return Wire(type=target, arrow=make(name.first, name.scale))
    if pa.types.is_decimal(kind):
        return Wire(type=target, arrow=kind)
    return Wire(type=target, arrow=pa.decimal128(38, 0))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view())


def widen(before: str, after: str) -> str | None:
    """Return the type that holds all values of both; None where a person must decide."""
    if before == after:
        return before
    held, new = Name.parse(before), Name.parse(after)
    if held.is_array or new.is_array:
        return before if after == "text" and held.is_array else None
    if held.base in _TEXTS and (new.base in _TEXTS or new.base in _PARSED):
        return _wider_text(before, held, new)
    if new.base in _TEXTS and held.base in _REWRITTEN:
        return "text"
    if new.base in _TEXTS and (held.base in _PARSED or not held.is_native):
        # A cast of the database's own takes the text word for word, and refuses what is none.
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
    if held.base == new.base and held.base.startswith(("time", "interval")):
        # They differ in the digits of a second.
        return before if held.first is None else held.base
    return None


def _wider_text(before: str, held: Name, new: Name) -> str:
    if held.base == "text" or (held.base == "character varying" and held.first is None):
        return before
    if held.first is not None and new.first is not None and (held.base, new.base) != ("character", "character varying"):
        # A `character` that became text would lose the blanks that it is filled up with.
        return f"{held.base}({max(held.first, new.first)})"
    return "text"


def is_filled(column_type: str) -> bool:
    """Tell whether values are filled up with blanks."""
    name = Name.parse(column_type)
    return name.base == "character" and not name.is_array


def _wider_bits(before: str, held: Name, new: Name) -> str:
    """Return what holds strings of bits of both lengths; a `bit(n)` holds those of one length only."""
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


__all__ = ["INTEGERS", "NATIVE", "Name", "arrow_of", "column_type", "is_filled", "kept_as", "shown", "widen", "wire"]
