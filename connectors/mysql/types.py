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
| date | date32; zero dates are refused, or NULL |
| datetime(n) | timestamp[us] |
| datetime(n) comment 'UTC' (ours) | timestamp[us, UTC]: `timestamp` ends in 2038 |
| timestamp(n) | timestamp[us, UTC] |
| time(n) | time64[us]; negative ones and those past 24 hours are refused |
| geometry | string: WKT, behind `SRID=n;` where that is not 0 |
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from ..errors import FatalConnectorError
from ..sql.dialect.types import Types, made_of, native_of
from ..sql.tables import Column, Wire
from .kinds import (
    BINARY_LIKE,
    BLOBS,
    GEOMETRY,
    INTEGERS,
    MAX_DIGITS,
    MAX_SCALE,
    TEXT_LIKE,
    TEXTS,
    UTC_COMMENT,
    MySQLKind,
)
from .server import Server
from .widening import widen


def arrow_of(column_type: str, *, tinyint1_as_bool: bool = True) -> pa.DataType:
    """Return the Arrow type in which a column is read."""
    kind = MySQLKind.parse(column_type)
    if kind.is_boolean and (tinyint1_as_bool or kind.is_bit1):
        return pa.bool_()
    if kind.name in INTEGERS:
        return _integer(INTEGERS[kind.name], kind.is_unsigned)
    if kind.name == "decimal":
        precision, scale = kind.decimal
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


def _integer(bits: int, is_unsigned: bool) -> pa.DataType:
    signed = {8: pa.int8(), 16: pa.int16(), 24: pa.int32(), 32: pa.int32(), 64: pa.int64()}
    unsigned = {8: pa.uint8(), 16: pa.uint16(), 24: pa.uint32(), 32: pa.uint32(), 64: pa.uint64()}
    return unsigned[bits] if is_unsigned else signed[bits]


# -------------------------------------------------------------------- new columns
def _made_for(arrow: pa.DataType, name: str, json_type: str) -> str:
    types = pa.types
    if arrow == pa.json_():
        return json_type
    if arrow == pa.uuid():
        return "char(36)"
    if isinstance(arrow, pa.BaseExtensionType):
        return _made_for(arrow.storage_type, name, json_type)
    if types.is_dictionary(arrow):
        return _made_for(arrow.value_type, name, json_type)
    if types.is_nested(arrow):
        return json_type
    if (
        types.is_decimal(arrow)
        and 0 <= arrow.scale <= min(arrow.precision, MAX_SCALE)
        and arrow.precision <= MAX_DIGITS
    ):
        return f"decimal({arrow.precision},{arrow.scale})"
    if types.is_timestamp(arrow):
        return "datetime(6)" if arrow.tz is None else f"datetime(6) comment '{UTC_COMMENT}'"
    for is_kind, declared in _DECLARED:
        if is_kind(arrow):
            return declared
    raise FatalConnectorError(
        f"column {name!r}: MySQL and MariaDB have no type for {arrow}; exclude the column with `columns`",
        connector="mysql",
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
    (pa.types.is_float16, "double"),
    (pa.types.is_float32, "double"),  # a float keeps its value, but shows six digits of it
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
    kind = MySQLKind.parse(column_type)
    characters = min(512, 3072 // 4 // texts - 1)
    if kind.name in TEXTS or kind.name == "json":
        return f"varchar({characters})"
    if kind.name in BLOBS:
        return f"varbinary({characters * 4})"
    return column_type


def is_unlimited(column_type: str) -> bool:
    """Tell whether no index can hold such a column."""
    name = MySQLKind.parse(column_type).name
    return name in TEXTS or name in BLOBS or name == "json"


def _is_writable(kind: MySQLKind) -> bool:
    """Tell whether what is read of a type can be written into it."""
    return kind.name in (
        *INTEGERS, *TEXTS, *BLOBS, *TEXT_LIKE, *BINARY_LIKE, *GEOMETRY, *_ARROW, "decimal", "datetime",
    )  # fmt: skip


# ------------------------------------------------------------------------ reading
def selected(name: str, column_type: str) -> str:
    """Return the SQL for a column, itself but for what would come as bytes of the server's own.

    Args:
        name: the column, quoted.
        column_type: of the catalog; empty: unknown.
    """
    kind = MySQLKind.parse(column_type) if column_type else MySQLKind("")
    if kind.name in GEOMETRY:
        return geometry_text(name)
    if kind.name == "float":
        # As a double: where values come as texts, a float has six digits.
        return f"{name} * 1e0"
    if kind.name == "bit":
        return f"cast({name} as unsigned)"
    return f"cast({name} as char)" if kind.name in ("uuid", "inet4", "inet6", "") else name


def geometry_text(name: str) -> str:
    """Return the SQL for a geometry as text, with its spatial reference if it has one."""
    return f"if(st_srid({name}), concat('SRID=', st_srid({name}), ';', st_astext({name})), st_astext({name}))"


def geometry_of(text: str) -> str:
    """Return the SQL for the geometry that a text of `geometry_text` stands for; what is none is an error."""
    srid = f"cast(substring(substring_index({text}, ';', 1), 6) as unsigned)"
    with_srid = f"st_geomfromtext(substring_index({text}, ';', -1), {srid})"
    return f"if(left({text}, 5) = 'SRID=', {with_srid}, st_geomfromtext({text}))"


class MySQLTypes(Types):
    """Values travel as text, made of the column's own Arrow type."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def column_type(self, column: pa.Field) -> str:
        """Return the native type if the stream still has its Arrow type; else a type for the stream's Arrow type."""
        if native := native_of(column, "mysql"):
            kind = MySQLKind.parse(native)
            is_odd = kind.name in ("uuid", "inet4", "inet6") and not self._server.is_mariadb
            if arrow_of(native) == column.type and not is_odd and _is_writable(kind):
                return str(kind)
        # MySQL's own JSON would read long numbers as floating point ones.
        return _made_for(made_of(column), column.name, "json" if self._server.is_mariadb else "longtext")

    def wire(self, column_type: str, arrow: pa.DataType) -> Wire:
        """Values travel as text, made of the column's own Arrow type; bits and geometry come out of a staging table."""
        declared = MySQLKind.parse(column_type)
        if declared.is_geometry:
            return Wire(type="longtext", arrow=pa.string())
        if declared.name == "bit":
            return Wire(type="bigint unsigned", arrow=pa.uint64())
        kind = arrow_of(column_type)
        if kind == pa.json_():
            kind = pa.string()
        if pa.types.is_string(kind) and pa.types.is_decimal(arrow):
            kind = arrow
        return Wire(type=column_type, arrow=kind)

    def arrow_of(self, column: Column) -> pa.DataType:
        """Return the type in which the column is read."""
        return arrow_of(column.type)

    def kept_as(self, column_type: str, arriving: pa.DataType) -> tuple[pa.DataType, bool]:
        """Return the column's own type, also where it is read as text: decimals past 38 digits."""
        kind = MySQLKind.parse(column_type)
        if kind.name == "decimal" and kind.decimal[0] > 38 and pa.types.is_decimal(arriving):
            return pa.decimal256(*kind.decimal), False
        return arrow_of(column_type), False

    def widen(self, before: str, after: str) -> str | None:
        """Return the wider type."""
        return widen(before, after)

    def text_of(self, column_type: str, name: str) -> str | None:
        """Return the column where MODIFY writes that text; another text takes several DDLs, which may end half done."""
        kind = MySQLKind.parse(column_type)
        is_number = kind.name in (*INTEGERS, "decimal") and not kind.is_boolean
        return name if is_number or kind.name == "date" else None

    def new_key_type(self, column_type: str, key: Sequence[str]) -> str:
        """Return what CREATE TABLE makes of it: only texts and bytes of any length share what an index takes."""
        return key_type(column_type, sum(map(is_unlimited, key))) if is_unlimited(column_type) else column_type

    def widen_key(self, before: str, after: str, columns: int) -> str | None:
        """Limit texts and bytes of any length to what an index takes, as in a new table."""
        wider = widen(before, after)
        if wider is None or wider == before or not is_unlimited(wider):
            return wider
        short = key_type(wider, columns)
        return widen(before, short) or short


def zero_as_null(column: str, column_type: str) -> str:
    """Write a column, with NULL for a date or time whose month or day is 0."""
    if MySQLKind.parse(column_type).name not in ("date", "datetime", "timestamp"):
        return column
    return f"if(month({column}) = 0 or dayofmonth({column}) = 0, null, {column})"


__all__ = [
    "MySQLTypes",
    "arrow_of",
    "geometry_of",
    "geometry_text",
    "is_unlimited",
    "key_type",
    "selected",
    "zero_as_null",
]
