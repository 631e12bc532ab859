"""Kinds of columns: one set of names for all dialects, between their own types and Arrow's.

| kind | Arrow | SQLAlchemy |
|---|---|---|
| bool | bool | Boolean |
| smallint, int, bigint | int16, int32, int64 | SmallInteger, Integer, BigInteger |
| decimal(p,s) | decimal128, decimal256 past 38 digits | Numeric(p, s) |
| numeric (without precision) | string | Numeric |
| real, double | float32, float64 | REAL, DOUBLE_PRECISION |
| text, varchar(n), char(n) | string | Text, String(n), CHAR(n) |
| binary | binary | LargeBinary |
| date, time | date32, time64[us] | Date, Time |
| timestamp, timestamptz | timestamp[us], timestamp[us, UTC] | DateTime |
| uuid | uuid | Uuid |
| json | json | JSON, read and written as text |
| anything else, by its own name | string | read as the driver gives it, if that is text, a number, a time or JSON |
"""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.engine import Dialect

from ..errors import FatalConnectorError

#: Digits of a decimal that survive where doubles stand for decimals.
EXACT_DIGITS = 15

_KIND = re.compile(r"(\w+)(?:\((\d+)(?:,(\d+))?\))?")

_ARROW = {
    "bool": pa.bool_(),
    "smallint": pa.int16(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "numeric": pa.string(),
    "real": pa.float32(),
    "double": pa.float64(),
    "text": pa.string(),
    "varchar": pa.string(),
    "char": pa.string(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
    "uuid": pa.uuid(),
    "json": pa.json_(),
}

#: Longest text that a key of one column may have: indexes of every system take it.
KEY_CHARACTERS = 255

#: A varchar this long takes texts of any length, as far as they fit: what does not is refused.
_LONG_ENOUGH = 100

#: Dialects that know only one word for double precision, and not the standard's.
_DOUBLE = ("bigquery", "clickhouse", "clickhousedb", "databricks", "hive", "impala", "presto", "trino")

#: FLOAT without a precision has 24 bits here, and more than 53 or as many elsewhere.
_SHORT_FLOAT = ("firebird", "firebird.firebird", "firebird.firebirdsql", "mariadb", "mysql")


class SQLAlchemyKind(Struct, frozen=True):
    """A kind, taken apart."""

    name: str
    size: int | None = None
    scale: int | None = None

    @classmethod
    def parse(cls, text: str) -> SQLAlchemyKind:
        """Parse the text that `str` writes."""
        match = _KIND.fullmatch(text)
        if match is None or (match[1] not in _ARROW and match[1] != "decimal"):
            return cls(text)
        return cls(match[1], int(match[2]) if match[2] else None, int(match[3]) if match[3] else None)

    @property
    def is_known(self) -> bool:
        """Tell whether its name is in the table of kinds."""
        return self.name in _ARROW or self.name == "decimal"

    @property
    def is_text(self) -> bool:
        """Tell whether its values are texts, which collations compare."""
        return self.name in ("text", "varchar", "char")

    @property
    def is_number_or_time(self) -> bool:
        """Tell whether its values are numbers, dates or times, which every system can index."""
        types = pa.types
        kinds = (types.is_integer, types.is_decimal, types.is_floating, types.is_temporal)
        return self.is_known and any(is_kind(self.arrow) for is_kind in kinds)

    @property
    def arrow(self) -> pa.DataType:
        """Return the Arrow type in which it is read."""
        if self.name == "decimal":
            assert self.size is not None
            scale = self.scale or 0
            return pa.decimal128(self.size, scale) if self.size <= 38 else pa.decimal256(self.size, scale)
        return _ARROW.get(self.name, pa.string())

    def __str__(self) -> str:
        """Return the text of messages and of the catalog."""
        if self.scale is not None:
            return f"{self.name}({self.size},{self.scale})"
        return self.name if self.size is None else f"{self.name}({self.size})"


# ------------------------------------------------------------------ out of a catalog
def kind_of(found: sa.types.TypeEngine[Any], dialect: Dialect) -> SQLAlchemyKind:
    """Return the kind of a reflected type; of a type that only its dialect knows the one that its name stands for."""
    inner = getattr(found, "nested_type", None)  # ClickHouse: Nullable(String)
    if inner is not None and type(found).__name__ in ("Nullable", "LowCardinality"):
        return kind_of(inner() if isinstance(inner, type) else inner, dialect)
    name = type(found).__name__.upper()
    if (dialect.name, name) in _VENDOR:
        return SQLAlchemyKind.parse(_VENDOR[dialect.name, name])
    kind = _general_kind(found, dialect)
    if not kind.is_known and isinstance(found, sa.types.TypeDecorator):
        kind = _general_kind(found.impl_instance, dialect)
    if not kind.is_known and name in _VENDOR_NAMES:
        return SQLAlchemyKind.parse(_VENDOR_NAMES[name])
    return kind


def _general_kind(found: sa.types.TypeEngine[Any], dialect: Dialect) -> SQLAlchemyKind:
    visit = str(getattr(found, "__visit_name__", "")).upper()
    if visit in ("SMALLINT", "SMALL_INTEGER", "TINYINT"):
        return SQLAlchemyKind("smallint")
    if visit in ("BIGINT", "BIG_INTEGER"):
        return SQLAlchemyKind("bigint")
    if isinstance(found, sa.Integer) or visit == "INTEGER":
        # Here an INTEGER is a number of 38 digits, or one of 64 bits.
        if dialect.name == "oracle":
            return SQLAlchemyKind("decimal", 38, 0)
        is_plain = visit in ("INTEGER", "INT") and dialect.name != "sqlite"
        return (
            SQLAlchemyKind("int")
            if is_plain
            else SQLAlchemyKind("bigint")
            if dialect.name == "sqlite"
            else SQLAlchemyKind(_own_name(found, dialect))
        )
    for is_kind, make in _REFLECTED:
        if isinstance(found, is_kind):
            kind: SQLAlchemyKind = make(found, dialect)
            return kind
    return SQLAlchemyKind(_own_name(found, dialect))


#: Names of types that mean one thing wherever they occur -> kind. What is a text, a number or a time of SQLAlchemy's
#: own was recognised before.
_VENDOR_NAMES = {
    "TIMESTAMP_TZ": "timestamptz",
    "TIMESTAMP_LTZ": "timestamptz",
    "TIMESTAMPTZ": "timestamptz",
    "TIMESTAMP_NTZ": "timestamp",
    "DOUBLE": "double",
    "FLOAT32": "real",
    "FLOAT64": "double",
    "STRING": "text",
    "CLOB": "text",
    "DATABRICKSVARIANT": "json",
    "JSON": "json",
    "UUID": "uuid",
    "VARIANT": "json",
    "OBJECT": "json",
}
#: (dialect, name of a type) -> kind, where the name alone, or what it is derived from, means something else.
_VENDOR = {
    ("databricks", "TIMESTAMP"): "timestamptz",
    ("databricks", "TINYINT"): "smallint",
    ("db2", "DOUBLE"): "double",
    ("ibm_db_sa", "DOUBLE"): "double",
    **{
        (dialect, name): kind
        for dialect in ("clickhouse", "clickhousedb")
        for name, kind in {
            "UUID": "uuid",
            "INT8": "smallint",
            "UINT8": "smallint",
            "INT16": "smallint",
            "UINT16": "int",
            "INT32": "int",
            "UINT32": "bigint",
            "INT64": "bigint",
            "UINT64": "decimal(20,0)",
            "FLOAT32": "real",
            "FLOAT64": "double",
        }.items()
    },
}

#: Dialects of which some values are read as the driver gives them: SQLAlchemy's conversions expect other forms.
_AS_GIVEN = ("clickhouse", "clickhousedb", "databricks", "db2", "ibm_db_sa", "snowflake", "trino")
_GIVEN_KINDS = ("uuid", "json", "time", "timestamp", "timestamptz")


def _float(found: Any, dialect: Dialect) -> SQLAlchemyKind:
    if dialect.name == "sqlite":
        return SQLAlchemyKind("double")  # whatever it is called
    visit = str(found.__visit_name__).upper()
    precision = getattr(found, "precision", None)
    is_short = visit == "REAL" or (visit == "FLOAT" and precision is None and dialect.name in _SHORT_FLOAT)
    return SQLAlchemyKind("real") if is_short or (precision or 53) <= 24 else SQLAlchemyKind("double")


def _numeric(found: Any, dialect: Dialect) -> SQLAlchemyKind:
    if str(found.__visit_name__).upper() not in ("NUMERIC", "DECIMAL", "NUMBER"):
        return SQLAlchemyKind(_own_name(found, dialect))
    if found.precision is None or not 0 < found.precision <= 76:
        return SQLAlchemyKind("numeric")
    scale = int(found.scale or 0)
    return (
        SQLAlchemyKind("decimal", int(found.precision), scale)
        if 0 <= scale <= found.precision
        else SQLAlchemyKind("numeric")
    )


def _string(found: Any, dialect: Dialect) -> SQLAlchemyKind:
    if isinstance(found, sa.Text) or not found.length or isinstance(found, sa.Enum):
        return SQLAlchemyKind("text")
    visit = str(found.__visit_name__).upper()
    return SQLAlchemyKind("char" if visit in ("CHAR", "NCHAR") else "varchar", int(found.length))


def _timestamp(found: Any, dialect: Dialect) -> SQLAlchemyKind:
    return SQLAlchemyKind("timestamptz" if getattr(found, "timezone", False) else "timestamp")


def _time(found: Any, dialect: Dialect) -> SQLAlchemyKind:
    return SQLAlchemyKind(_own_name(found, dialect)) if getattr(found, "timezone", False) else SQLAlchemyKind("time")


_REFLECTED: tuple[tuple[Any, Any], ...] = (
    (sa.Boolean, lambda *_: SQLAlchemyKind("bool")),
    (sa.Float, _float),
    (sa.Numeric, _numeric),
    (sa.String, _string),
    (sa.DateTime, _timestamp),
    (sa.Date, lambda *_: SQLAlchemyKind("date")),
    (sa.Time, _time),
    (sa.Uuid, lambda *_: SQLAlchemyKind("uuid")),
    (sa.JSON, lambda *_: SQLAlchemyKind("json")),
    (sa.types._Binary, lambda *_: SQLAlchemyKind("binary")),
)


def _own_name(found: sa.types.TypeEngine[Any], dialect: Dialect) -> str:
    try:
        return dialect.type_compiler_instance.process(found)
    except (sa.exc.SQLAlchemyError, AttributeError, NotImplementedError):  # only for reading, and not to be compiled
        return repr(found)


# --------------------------------------------------------------------- for columns
def kind_for(arrow: pa.DataType, column: str) -> SQLAlchemyKind:
    """Return the kind of a column made for an Arrow type.

    Raises:
        FatalConnectorError: there is none.
    """
    types = pa.types
    if arrow == pa.uuid():
        return SQLAlchemyKind("uuid")
    if arrow == pa.json_() or types.is_nested(arrow):
        return SQLAlchemyKind("text")
    if isinstance(arrow, pa.BaseExtensionType):
        return kind_for(arrow.storage_type, column)
    if types.is_dictionary(arrow):
        return kind_for(arrow.value_type, column)
    if types.is_decimal(arrow) and 0 <= arrow.scale <= arrow.precision:
        return SQLAlchemyKind("decimal", arrow.precision, arrow.scale)
    if types.is_timestamp(arrow):
        return SQLAlchemyKind("timestamp" if arrow.tz is None else "timestamptz")
    for is_kind, name in _MADE:
        if is_kind(arrow):
            return SQLAlchemyKind.parse(name)
    raise FatalConnectorError(
        f"column {column!r}: there is no type for {arrow}; exclude the column with `columns`", connector="sqlalchemy"
    )


_MADE = (
    (pa.types.is_boolean, "bool"),
    (lambda kind: pa.types.is_int8(kind) or pa.types.is_uint8(kind) or pa.types.is_int16(kind), "smallint"),
    (lambda kind: pa.types.is_uint16(kind) or pa.types.is_int32(kind), "int"),
    (pa.types.is_uint64, "decimal(20,0)"),
    (pa.types.is_integer, "bigint"),
    (lambda kind: pa.types.is_float16(kind) or pa.types.is_float32(kind), "real"),
    (pa.types.is_float64, "double"),
    (lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind), "text"),
    (lambda kind: pa.types.is_string_view(kind) or pa.types.is_null(kind), "text"),
    (lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind), "binary"),
    (lambda kind: pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind), "binary"),
    (pa.types.is_date, "date"),
    (pa.types.is_time, "time"),
)


def sqlalchemy_type(kind: SQLAlchemyKind, dialect: Dialect) -> sa.types.TypeEngine[Any]:
    """Return the type that the dialect's compiler and its conversions of values work with."""
    if kind.name == "decimal":
        return sa.Numeric(kind.size, kind.scale)
    special = _SPECIAL.get((dialect.name, kind.name))
    if special is not None:
        found: sa.types.TypeEngine[Any] = special(kind)
        return found
    if kind.name == "double":
        return sa.Double() if dialect.name in _DOUBLE else sa.DOUBLE_PRECISION()
    if kind.name in ("varchar", "char"):
        return sa.String(kind.size) if kind.name == "varchar" else sa.CHAR(kind.size)
    return _MADE_OF[kind.name]() if kind.name in _MADE_OF else sa.types.NullType()


def reading_type(kind: SQLAlchemyKind, dialect: Dialect) -> sa.types.TypeEngine[Any]:
    """Return the type by which values are read: as they are stored where SQLAlchemy would round them, or guess."""
    is_stored = dialect.name == "sqlite" and kind.name not in ("text", "varchar", "char", "json", "binary", "uuid")
    is_stored |= dialect.name in _AS_GIVEN and kind.name in _GIVEN_KINDS
    return sa.types.NullType() if is_stored else sqlalchemy_type(kind, dialect)


def is_rounded(kind: SQLAlchemyKind, dialect: Dialect) -> bool:
    """Tell whether numbers of a kind lose digits: SQLite has doubles for decimals."""
    return kind.name == "decimal" and (kind.size or 0) > EXACT_DIGITS and dialect.name == "sqlite"


class Binary(sa.types.TypeDecorator[bytes]):
    """Bytes; NULL skips the dialect's own conversion, which some dialects fail on."""

    impl = sa.LargeBinary
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Any:
        """Return the dialect's conversion, which skips NULL."""
        inner = super().bind_processor(dialect)
        return None if inner is None else lambda value: None if value is None else inner(value)

    def result_processor(self, dialect: Dialect, coltype: Any) -> Any:
        """Return the dialect's conversion, which skips NULL."""
        inner = super().result_processor(dialect, coltype)
        return None if inner is None else lambda value: None if value is None else inner(value)


_MADE_OF: dict[str, Any] = {
    "bool": sa.Boolean,
    "smallint": sa.SmallInteger,
    "int": sa.Integer,
    "bigint": sa.BigInteger,
    "numeric": sa.Numeric,
    "real": sa.REAL,
    "text": sa.Text,
    "binary": Binary,
    "date": sa.Date,
    "time": sa.Time,
    "timestamp": sa.DateTime,
    "timestamptz": lambda: sa.DateTime(timezone=True),
    "uuid": sa.Uuid,
    "json": sa.Text,
}


def _mssql(name: str, *arguments: Any) -> Any:
    from sqlalchemy.dialects import mssql

    return getattr(mssql, name)(*arguments)


#: Where the general type would cut values off (fractions of seconds, characters) or has no place in the system.
_SPECIAL: dict[tuple[str, str], Any] = {
    ("mssql", "text"): lambda kind: _mssql("NVARCHAR"),
    ("mssql", "json"): lambda kind: _mssql("NVARCHAR"),
    ("mssql", "varchar"): lambda kind: _mssql("NVARCHAR", kind.size),
    ("mssql", "timestamp"): lambda kind: _mssql("DATETIME2", 6),
    ("mssql", "timestamptz"): lambda kind: _mssql("DATETIMEOFFSET", 6),
    ("oracle", "timestamp"): lambda kind: sa.TIMESTAMP(),
    ("oracle", "timestamptz"): lambda kind: sa.TIMESTAMP(timezone=True),
}


def ddl(kind: SQLAlchemyKind, dialect: Dialect) -> str:
    """Write a type with the dialect's compiler; an unknown kind is taken for the system's own words."""
    if not kind.is_known:
        return kind.name
    return dialect.type_compiler_instance.process(sqlalchemy_type(kind, dialect))


# ------------------------------------------------------------------------ widening
def key_kind(kind: SQLAlchemyKind, texts: int) -> SQLAlchemyKind:
    """Return the kind of a key's column: no index takes texts of any length."""
    return SQLAlchemyKind("varchar", max(KEY_CHARACTERS // max(texts, 1), 40)) if kind.name == "text" else kind


_INTEGERS = ("smallint", "int", "bigint")
_DIGITS = {"smallint": 5, "int": 10, "bigint": 19}


def widen(before: SQLAlchemyKind, after: SQLAlchemyKind) -> SQLAlchemyKind | None:
    """Return the kind that holds the values of both (`before` if it does already); None: there is none."""
    if before == after:
        return before
    if before.name in _INTEGERS and after.name in _INTEGERS:
        return max(before, after, key=lambda kind: _INTEGERS.index(kind.name))
    if {before.name, after.name} == {"real", "double"}:
        return SQLAlchemyKind("double")
    if before.name in _INTEGERS and after.name == "bool":
        return before
    if before.name in ("text", "varchar") and after.name in ("text", "varchar", "char", "json", "uuid", "numeric"):
        return _wider_text(before, after)
    if "decimal" in (before.name, after.name):
        return _wider_number(before, after)
    if before.name == "numeric" and after.name in (*_INTEGERS, "decimal"):
        return before
    return before if (before.name, after.name) == ("json", "text") else None


def _wider_text(before: SQLAlchemyKind, after: SQLAlchemyKind) -> SQLAlchemyKind | None:
    if before.name == "text" or before.size is None:
        return before
    needed = {"uuid": 36}.get(after.name) or after.size
    if needed is None:
        return before if before.size >= _LONG_ENOUGH else SQLAlchemyKind("text")
    return before if before.size >= needed else SQLAlchemyKind("varchar", needed)


def _wider_number(before: SQLAlchemyKind, after: SQLAlchemyKind) -> SQLAlchemyKind | None:
    old, new = _digits(before), _digits(after)
    if old is None or new is None:
        return None
    whole, scale = max(old[0], new[0]), max(old[1], new[1])
    if before.name == "decimal" and (whole, scale) == old:
        return before
    return SQLAlchemyKind("decimal", whole + scale, scale) if whole + scale <= 76 else None


def _digits(kind: SQLAlchemyKind) -> tuple[int, int] | None:
    if kind.name == "decimal":
        assert kind.size is not None
        return kind.size - (kind.scale or 0), kind.scale or 0
    return (_DIGITS[kind.name], 0) if kind.name in _DIGITS else None


__all__ = [
    "EXACT_DIGITS",
    "SQLAlchemyKind",
    "ddl",
    "is_rounded",
    "key_kind",
    "kind_for",
    "kind_of",
    "reading_type",
    "sqlalchemy_type",
    "widen",
]
