"""DuckDB's types, as the catalog names them, and their Arrow types."""

from __future__ import annotations

import re

import pyarrow as pa
from msgspec import Struct

from ..errors import FatalConnectorError
from ..sql.dialect.texts import float_text, time_text
from ..sql.dialect.types import Types, made_of, native_of
from ..sql.tables import Column, Wire

#: Types whose values Arrow holds unchanged.
_PLAIN: dict[str, pa.DataType] = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "UTINYINT": pa.uint8(),
    "USMALLINT": pa.uint16(),
    "UINTEGER": pa.uint32(),
    "UBIGINT": pa.uint64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "VARCHAR": pa.string(),
    "BLOB": pa.binary(),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "TIMESTAMP": pa.timestamp("us"),
    "TIMESTAMP_S": pa.timestamp("s"),
    "TIMESTAMP_MS": pa.timestamp("ms"),
    "TIMESTAMP_NS": pa.timestamp("ns"),
    "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", "UTC"),
    "INTERVAL": pa.month_day_nano_interval(),
}

#: The same type under another name.
_ALIASES = {"TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE", "TEXT": "VARCHAR"}

_INTEGERS = {
    "TINYINT": (-(2**7), 2**7 - 1),
    "SMALLINT": (-(2**15), 2**15 - 1),
    "INTEGER": (-(2**31), 2**31 - 1),
    "BIGINT": (-(2**63), 2**63 - 1),
    "UTINYINT": (0, 2**8 - 1),
    "USMALLINT": (0, 2**16 - 1),
    "UINTEGER": (0, 2**32 - 1),
    "UBIGINT": (0, 2**64 - 1),
    "HUGEINT": (-(2**127), 2**127 - 1),
}
_TIMESTAMPS = ("TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP", "TIMESTAMP_NS")

_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_ARRAY = re.compile(r"(.*)\[(\d*)\]", re.DOTALL)
_NAMED = re.compile(r'\s*("(?:[^"]|"")*"|[^\s"]+)\s+(.*)', re.DOTALL)


class ColumnReading(Struct, frozen=True):
    """How a column is read: the selected type (its own, or one that Arrow can hold), and the Arrow type."""

    sql: str
    arrow: pa.DataType


def reading(native: str) -> ColumnReading:
    """Return how a column of a catalog type is read; types without an Arrow type are read as text."""
    if native == "UUID":
        return ColumnReading(native, pa.uuid())
    if native == "JSON":
        return ColumnReading(native, pa.json_())
    return _nested(native)


def _nested(native: str) -> ColumnReading:
    native = _ALIASES.get(native, native)
    plain = _PLAIN.get(native)
    if plain is not None:
        return ColumnReading(native, plain)
    decimal = _DECIMAL.fullmatch(native)
    if decimal:
        return ColumnReading(native, pa.decimal128(int(decimal[1]), int(decimal[2])))
    if native in ("HUGEINT", "UHUGEINT"):
        return ColumnReading("DECIMAL(38,0)", pa.decimal128(38, 0))
    array = _ARRAY.fullmatch(native)
    if array:
        item = _nested(array[1])
        return ColumnReading(f"{item.sql}[]", pa.list_(item.arrow))
    for name in ("STRUCT", "MAP"):
        if native.startswith(f"{name}(") and native.endswith(")"):
            return _struct(native) if name == "STRUCT" else _map(native)
    return ColumnReading("VARCHAR", pa.string())


def _struct(native: str) -> ColumnReading:
    fields, shown = [], []
    for part in _split(native[len("STRUCT(") : -1]):
        named = _NAMED.fullmatch(part)
        if named is None:
            return ColumnReading("VARCHAR", pa.string())
        name = named[1][1:-1].replace('""', '"') if named[1].startswith('"') else named[1]
        kind = _nested(named[2].strip())
        fields.append(pa.field(name, kind.arrow))
        shown.append(f"{named[1]} {kind.sql}")
    return ColumnReading(f"STRUCT({', '.join(shown)})", pa.struct(fields))


def _map(native: str) -> ColumnReading:
    parts = [_nested(part.strip()) for part in _split(native[len("MAP(") : -1])]
    if len(parts) != 2:
        return ColumnReading("VARCHAR", pa.string())
    return ColumnReading(f"MAP({parts[0].sql}, {parts[1].sql})", pa.map_(parts[0].arrow, parts[1].arrow))


def _split(text: str) -> list[str]:
    """Split at commas outside of parentheses and quotes."""
    parts, depth, start, mark = [], 0, 0, ""
    for place, character in enumerate(text):
        if mark:
            mark = "" if character == mark else mark
        elif character in "\"'":
            mark = character
        elif character in "([":
            depth += 1
        elif character in ")]":
            depth -= 1
        elif character == "," and not depth:
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]


def _made_for(kind: pa.DataType, name: str) -> str:
    """Return the type of a column made for an Arrow type.

    Raises:
        FatalConnectorError: DuckDB has no such type.
    """
    found = _column_type(kind)
    if found is None:
        raise FatalConnectorError(f"column {name!r}: DuckDB has no type for {kind}; exclude it with `columns`")
    return found


def _column_type(kind: pa.DataType) -> str | None:
    types = pa.types
    if kind == pa.uuid():
        return "UUID"
    if kind == pa.json_():
        return "JSON"
    if isinstance(kind, pa.BaseExtensionType):
        return _column_type(kind.storage_type)
    if types.is_dictionary(kind):
        return _column_type(kind.value_type)
    if types.is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})" if 0 <= kind.scale <= kind.precision <= 38 else "VARCHAR"
    if types.is_timestamp(kind):
        if kind.tz is not None:
            return "TIMESTAMP WITH TIME ZONE"
        return "TIMESTAMP_NS" if kind.unit == "ns" else "TIMESTAMP"
    if _is_json(kind):
        return "JSON"
    if types.is_struct(kind):
        return _struct_type(kind)
    if types.is_map(kind):
        parts = (_column_type(kind.key_type), _column_type(kind.item_type))
        return None if None in parts else f"MAP({parts[0]}, {parts[1]})"
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        item = _column_type(kind.value_type)
        return None if item is None else f"{item}[]"
    return _scalar_type(kind)


def _is_json(kind: pa.DataType) -> bool:
    """Return whether a nested type has decimals that DuckDB lacks, or names that differ only by case."""
    types = pa.types
    if types.is_map(kind):
        parts = [kind.key_type, kind.item_type]
    elif types.is_struct(kind):
        parts = [field.type for field in kind]
        if len({field.name.lower() for field in kind}) < len(parts):
            return True
    else:
        parts = [kind.value_type] if types.is_nested(kind) and not types.is_union(kind) else []
    return any(
        _is_json(part) or (types.is_decimal(part) and not 0 <= part.scale <= part.precision <= 38) for part in parts
    )


def _scalar_type(kind: pa.DataType) -> str | None:
    types = pa.types
    for native, plain in _PLAIN.items():
        if kind == plain:
            return native
    if types.is_float16(kind):
        return "FLOAT"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind):
        return "VARCHAR"
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return "BLOB"
    if types.is_fixed_size_binary(kind):
        return "BLOB"
    if types.is_date(kind):
        return "DATE"
    if types.is_time(kind):
        return "TIME"
    return "INTERVAL" if types.is_duration(kind) else None


def _struct_type(kind: pa.DataType) -> str | None:
    shown = []
    for place in range(kind.num_fields):
        item = _column_type(kind.field(place).type)
        if item is None:
            return None
        name = kind.field(place).name.replace('"', '""')
        shown.append(f'"{name}" {item}')
    return f"STRUCT({', '.join(shown)})" if shown else None


def widen(before: str, after: str) -> str | None:
    """Return the type that holds both without loss, `before` if possible; None: there is none."""
    before_, after_ = _ALIASES.get(before, before), _ALIASES.get(after, after)
    if before_ == after_ or reading(before_).arrow == reading(after_).arrow:
        return before
    if before_ == "VARCHAR":
        return before if after_ in ("UUID", "JSON") else None
    if before_.startswith("ENUM(") and after_ == "VARCHAR":
        return before
    if before_ in _TIMESTAMPS and after_ in _TIMESTAMPS:
        return before if _TIMESTAMPS.index(before_) >= _TIMESTAMPS.index(after_) else after
    if {before_, after_} == {"DATE", "TIMESTAMP"}:
        return after if before_ == "DATE" else before
    return _wider_number(before, before_, after_)


def _wider_number(before: str, before_: str, after_: str) -> str | None:
    if {before_, after_} == {"FLOAT", "DOUBLE"}:
        return "DOUBLE"
    if before_ in _INTEGERS and after_ in _INTEGERS:
        low = min(_INTEGERS[before_][0], _INTEGERS[after_][0])
        high = max(_INTEGERS[before_][1], _INTEGERS[after_][1])
        if (low, high) == _INTEGERS[before_]:
            return before
        fitting = [name for name, (least, most) in _INTEGERS.items() if least <= low and high <= most]
        return fitting[0] if fitting else None
    if before_ in ("DOUBLE", "FLOAT") and after_ in _INTEGERS:
        bits = 2**53 if before_ == "DOUBLE" else 2**24
        return before if -bits <= _INTEGERS[after_][0] and _INTEGERS[after_][1] <= bits else None
    left, right = _digits(before_), _digits(after_)
    if left is None or right is None:
        return None
    whole, scale = max(left[0], right[0]), max(left[1], right[1])
    if (whole, scale) == left:
        return before
    return f"DECIMAL({whole + scale},{scale})" if whole + scale <= 38 else None


def _digits(native: str) -> tuple[int, int] | None:
    """Return the digits before and after the point that a number needs."""
    decimal = _DECIMAL.fullmatch(native)
    if decimal:
        return int(decimal[1]) - int(decimal[2]), int(decimal[2])
    if native in _INTEGERS:
        least, most = _INTEGERS[native]
        return len(str(max(most, -least))), 0
    return None


class DuckDBTypes(Types):
    """Values travel in the type in which the column is read; INSERT converts them exactly."""

    def column_type(self, column: pa.Field) -> str:
        """Return the type of a new column; the source's own if the source is DuckDB as well."""
        if native := native_of(column, "duckdb"):
            known = reading(native)
            # Names of user-defined types or ENUMs are excluded: the other database may lack them.
            if known.arrow == column.type and (known.sql == native or native == "HUGEINT"):
                return native
        return _made_for(made_of(column), column.name)

    def wire(self, column_type: str, arrow: pa.DataType) -> Wire:
        """Values travel in the type in which the column is read; INSERT converts them exactly."""
        if pa.types.is_duration(arrow):
            return Wire(type=column_type, arrow=pa.duration("us"))
        known = reading(column_type).arrow
        if _made_for(arrow, "") == column_type:
            # In the stream's form: nested fields of the same types need no casts.
            known = arrow if pa.types.is_nested(arrow) and pa.types.is_nested(known) else known
        return Wire(type=column_type, arrow=known)

    def arrow_of(self, column: Column) -> pa.DataType:
        """Return the type in which the column is read."""
        return reading(column.type).arrow

    def kept_as(self, column_type: str, arriving: pa.DataType) -> tuple[pa.DataType, bool]:
        """Return the type in which it is read; an interval has microseconds."""
        if column_type == "INTERVAL" and pa.types.is_duration(arriving):
            return pa.duration("us"), False
        return reading(column_type).arrow, False

    def widen(self, before: str, after: str) -> str | None:
        """Return the type that holds the values of both."""
        return widen(before, after)

    def text_of(self, column_type: str, name: str) -> str | None:
        """Write the texts of numbers, booleans, dates, times and timestamps with microseconds."""
        kind = _ALIASES.get(column_type, column_type)
        if _digits(kind) is not None or kind in ("BOOLEAN", "DATE"):
            return f"cast({name} as varchar)"
        if kind in ("FLOAT", "DOUBLE"):
            return float_text(name, "decimal(38,30)")
        if kind == "TIME":
            return time_text(name)
        if kind not in ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE"):
            return None
        # By microseconds: only an extension writes the text of a time with zone.
        zone, moment = ("", name) if kind == "TIMESTAMP" else ("Z", f"make_timestamp(epoch_us({name}))")
        text = f"strftime({moment}, '%Y-%m-%dT%H:%M:%S.%f{zone}')"
        is_usual = f"{name} >= '0001-01-01'::timestamp and {name} < '10000-01-01'::timestamp"
        return f"case when {is_usual} then {text} else cast({name} as varchar) end"
