"""PostgreSQL's types and Arrow's: how each is read, created and transferred."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pyarrow as pa

from ..errors import FatalConnectorError
from ..field_facts import facts_of, with_facts
from ..sql.dialect.types import Types, made_of, native_of
from ..sql.tables import Column, Wire
from .type_names import TEXTS, Name
from .widening import text_of, widen

#: Types that COPY always returns as one Arrow type.
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


#: Types that every driver returns as fitting Python values.
_PLAIN = frozenset(
    {"smallint", "integer", "bigint", "real", "double precision", "numeric", "boolean", "text", "character varying"}
) | {"character", "name", "uuid", "json", "jsonb", "bytea", "oid"}

#: Types with their own form in JSON.
_MOMENTS = frozenset({"date", "timestamp without time zone", "timestamp with time zone"})


#: Select expression of a number that is read as a decimal with the digits found, not with its own type.
TRIMMED = "pg_catalog.trim_scale({})::text"


@lru_cache(maxsize=4096)
def arrow_of(column_type: str) -> tuple[pa.DataType, str]:
    """Return the Arrow type of a column, and its select expression: a format with `{}` for the column."""
    name = Name.parse(column_type)
    if column_type == "bpchar":
        # A `character` without a length, as views have it: a cast to text would drop the blanks at its end.
        return pa.string(), "pg_catalog.textin(pg_catalog.bpcharout({}))"
    if name.is_array or not name.is_native:
        return pa.string(), "{}::text"
    if name.base == "inet":
        # The server's display form: a cast to text would add `/32` to the address of a host.
        return pa.string(), "pg_catalog.textin(pg_catalog.inet_out({}))"
    if name.base in _FIXED:
        return _FIXED[name.base], "{}"
    if name.base == "name":
        return pa.string(), "{}"
    if name.base in ("json", "jsonb"):
        return pa.json_(), "{}::text"
    if name.base == "numeric" and name.first is not None and name.first <= 38 and 0 <= name.scale <= name.first:
        # As text, cast by Arrow: half the time of the driver's own decoding of binary numerics.
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
    """Return the item type of an array that is read as text; None: it is no array, or its items cannot be compared."""
    native = native_of(field, "postgres")
    base = native.removesuffix("[]")
    if base == native or Name.parse(base).base not in _ITEMS:
        return None
    return with_facts(pa.field("item", arrow_of(base)[0]), native_type=base, native_system="postgres")


def shown(column_type: str) -> str:
    """Return the select expression for display: Python's times end at the year 9999, its intervals have no months."""
    name = Name.parse(column_type)
    if name.base in _PLAIN:
        return "{}"
    if name.base in _MOMENTS and not name.is_array:
        return "to_json({}) #>> '{{}}'"
    return "{}::text[]" if name.is_array else "{}::text"


def _kept_as(column_type: str, arriving: Any) -> pa.DataType:
    """Return the column type for values of an Arrow type: its own type, even if it is read as text."""
    name = Name.parse(column_type)
    if name.is_array:
        is_list = (
            pa.types.is_list(arriving) or pa.types.is_large_list(arriving) or pa.types.is_fixed_size_list(arriving)
        )
        return pa.list_(_kept_as(column_type[:-2], arriving.value_type)) if is_list else pa.string()
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
        f"column {column!r} is {kind}, for which PostgreSQL has no type; exclude the column with `columns`",
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


def _wire(target: str, kind: pa.DataType) -> Wire:
    """Return how values of an Arrow type are written into a column: directly by COPY, or as text with a cast."""
    name = Name.parse(target)
    if pa.types.is_dictionary(kind):
        return _wire(target, kind.value_type)
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
    if name.base in _FIXED and not (_is_text(kind) and name.base not in TEXTS):
        return Wire(type=target, arrow=_FIXED[name.base])
    return Wire(type="text", arrow=pa.string())


def _array_wire(target: str, kind: pa.DataType) -> Wire:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = _wire(target.removesuffix("[]"), kind.value_type)
        if inner.type == target.removesuffix("[]"):
            return Wire(type=target, arrow=pa.list_(inner.arrow))
    return Wire(type="text", arrow=pa.string())


def _numeric_wire(name: Name, target: str, kind: pa.DataType) -> Wire:
    if _is_text(kind):
        return Wire(type="text", arrow=pa.string())
    if pa.types.is_floating(kind):
        return Wire(type="double precision", arrow=pa.float64())
    if name.first is not None and name.first <= 76 and name.scale >= 0:
        # COPY would silently round to the column's scale; Arrow's cast refuses.
        make = pa.decimal128 if name.first <= 38 else pa.decimal256
        return Wire(type=target, arrow=make(name.first, name.scale))
    if pa.types.is_decimal(kind):
        return Wire(type=target, arrow=kind)
    return Wire(type=target, arrow=pa.decimal128(38, 0))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view())


class PostgresTypes(Types):
    """A domain is read and written as its base type."""

    def __init__(self) -> None:
        #: Domain -> base type, for domains in the tables that were read.
        self.domains: dict[str, str] = {}
        #: Enum with its schema -> its name as the session writes it, and its labels; for a destination.
        self.enums: dict[str, tuple[str, frozenset[str]]] = {}

    def base(self, column_type: str) -> str:
        """Return a domain's base type; other types unchanged."""
        return self.domains.get(column_type, column_type)

    def column_type(self, column: pa.Field) -> str:
        """Return the type of a new column: its native type if this system has it, else by its Arrow type."""
        facts = facts_of(column)
        native = facts.native_type
        # The name becomes part of DDL: only known names are allowed.
        if facts.native_system == "postgres" and native and Name.parse(native).is_native:
            return native
        if enum := self._enum(column):
            return enum
        if column.type == pa.json_() and native.lower() == "json":
            # The source stores it as text (MariaDB, DuckDB): `jsonb` would drop repeated keys and rewrite the rest.
            return "json"
        return _made_for(made_of(column), column.name)

    def _enum(self, column: pa.Field) -> str:
        """Return this database's enum with the column's name and all its labels; empty: there is none."""
        facts = facts_of(column)
        found = self.enums.get(facts.type_name) if facts.labels and pa.types.is_string(column.type) else None
        return found[0] if found and found[1].issuperset(facts.labels) else ""

    def wire(self, column_type: str, arrow: pa.DataType) -> Wire:
        """Return how COPY transfers it."""
        return _wire(self.base(column_type), arrow)

    def arrow_of(self, column: Column) -> pa.DataType:
        """Return the type it is read in."""
        return arrow_of(self.base(column.type))[0]

    def kept_as(self, column_type: str, arriving: pa.DataType) -> tuple[pa.DataType, bool]:
        """Return the column's own type, even if it is read as text: arrays, long and unbounded numerics."""
        return _kept_as(self.base(column_type), arriving), False

    def widen(self, before: str, after: str) -> str | None:
        """Return the wider type; a domain stays if its base type holds the values, else None."""
        base = self.base(before)
        wider = widen(base, after)
        return wider if base == before else before if wider == base else None

    def text_of(self, column_type: str, name: str) -> str | None:
        """Write the texts of numbers, booleans, dates and times; not for a domain, which is never altered."""
        return None if self.base(column_type) != column_type else text_of(column_type, name)


__all__ = ["TRIMMED", "PostgresTypes", "array_item", "arrow_of", "shown"]
