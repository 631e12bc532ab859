"""Declared types, which SQLite does not enforce, and what their values are: the documented forms.

| declared | stored as | Arrow |
|---|---|---|
| any with INT in it | integer | int64 |
| REAL, FLOAT, DOUBLE ... | real; NaN as the text 'NaN' | float64 |
| BOOLEAN | 0, 1 | bool |
| CHAR, CLOB, TEXT ... | text | string |
| BLOB | blob | binary |
| DECIMAL(p,s), NUMERIC(p,s) | number, of which 15 digits count | decimal128(p,s) |
| DECIMAL_TEXT(p,s) (ours, for more than 15 digits) | text | decimal128(p,s), decimal256(p,s) |
| NUMERIC, DECIMAL, unknown names | number | float64 |
| DATE | text `2024-02-29` | date32 |
| TIME | text `23:59:59.999999` | time64[us] |
| DATETIME, TIMESTAMP | text `2024-02-29 23:59:59.999999`, `T` and fewer digits as well | timestamp[us] |
| TIMESTAMPTZ | the same with an offset or Z; written with +00:00 | timestamp[us, UTC] |
| TIMESTAMP(9), TIMESTAMPTZ(9) | the same with 9 digits | timestamp[ns] |
| UUID | text, 8-4-4-4-12 | uuid |
| JSON, JSON_TEXT (ours: SQLite would turn the JSON `1.0` into a number in a column declared JSON) | text | json |
| INTERVAL | text `P14M3DT4.5S` | month_day_nano_interval |
| none, ANY (and columns of views that are computed) | as the first values are | int64, float64, string, binary |
"""

from __future__ import annotations

import re
from enum import Enum

import pyarrow as pa
from msgspec import Struct

from ..errors import FatalConnectorError
from ..field_facts import facts_of
from ..sql.dialect.types import Types, made_of, native_of
from ..sql.tables import Column, Wire

#: Digits that survive the way through a floating point number.
EXACT_DIGITS = 15

_DECLARED = re.compile(r"\s*([^()]*?)\s*(?:\(\s*([+-]?\d+)\s*(?:,\s*([+-]?\d+)\s*)?\))?\s*", re.DOTALL)


class StorageForm(Enum):
    """How values of a kind are stored."""

    INTEGER = "integer"
    REAL = "real"
    NUMBER = "number"
    BOOLEAN = "boolean"
    TEXT = "text"
    #: Text in a column that is not declared as such: SQLite may have stored an integer.
    LOOSE_TEXT = "loose text"
    BLOB = "blob"
    DECIMAL = "decimal"
    DECIMAL_TEXT = "decimal text"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    UUID = "uuid"
    JSON = "json"
    INTERVAL = "interval"


class SQLiteKind(Struct, frozen=True):
    """What a declared type means."""

    form: StorageForm
    arrow: pa.DataType


_NAMED = {
    "BOOLEAN": SQLiteKind(StorageForm.BOOLEAN, pa.bool_()),
    "BOOL": SQLiteKind(StorageForm.BOOLEAN, pa.bool_()),
    "DATE": SQLiteKind(StorageForm.DATE, pa.date32()),
    "TIME": SQLiteKind(StorageForm.TIME, pa.time64("us")),
    "UUID": SQLiteKind(StorageForm.UUID, pa.uuid()),
    "JSON": SQLiteKind(StorageForm.JSON, pa.json_()),
    "JSON_TEXT": SQLiteKind(StorageForm.JSON, pa.json_()),
    "INTERVAL": SQLiteKind(StorageForm.INTERVAL, pa.month_day_nano_interval()),
    "STRING": SQLiteKind(StorageForm.LOOSE_TEXT, pa.string()),
}
_NAIVE = ("DATETIME", "TIMESTAMP", "TIMESTAMP WITHOUT TIME ZONE")
_ZONED = ("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE")
_DECIMALS = ("DECIMAL", "NUMERIC", "DEC", "DECIMAL_TEXT")


def kind_of(declared: str) -> SQLiteKind | None:
    """Return what a declared type means; None: nothing was declared, or ANY, which in a STRICT table is all kinds."""
    match = _DECLARED.fullmatch(declared)
    name = " ".join((match[1] if match else declared).upper().split())
    first = int(match[2]) if match and match[2] else None
    second = int(match[3]) if match and match[3] else 0
    if name in ("", "ANY"):
        return None
    if name in _NAMED:
        return _NAMED[name]
    if name in _NAIVE or name in _ZONED:
        unit = "ns" if first == 9 else "us"
        return SQLiteKind(StorageForm.TIMESTAMP, pa.timestamp(unit, "UTC") if name in _ZONED else pa.timestamp(unit))
    if name in _DECIMALS and first is not None and 0 <= second <= first and 0 < first <= 76:
        kind = pa.decimal128(first, second) if first <= 38 else pa.decimal256(first, second)
        return SQLiteKind(StorageForm.DECIMAL_TEXT if name == "DECIMAL_TEXT" else StorageForm.DECIMAL, kind)
    return _by_affinity(name)


def _by_affinity(name: str) -> SQLiteKind:
    """Follow SQLite's own rules. Source: SQLite, Datatypes, 3.1."""
    if "INT" in name:
        return SQLiteKind(StorageForm.INTEGER, pa.int64())
    if "CHAR" in name or "CLOB" in name or "TEXT" in name:
        return SQLiteKind(StorageForm.TEXT, pa.string())
    if "BLOB" in name:
        return SQLiteKind(StorageForm.BLOB, pa.binary())
    if "REAL" in name or "FLOA" in name or "DOUB" in name:
        return SQLiteKind(StorageForm.REAL, pa.float64())
    return SQLiteKind(StorageForm.NUMBER, pa.float64())


#: What is stored -> what a column without a declared type is taken for.
UNTYPED = {
    "integer": SQLiteKind(StorageForm.INTEGER, pa.int64()),
    "real": SQLiteKind(StorageForm.NUMBER, pa.float64()),
    "text": SQLiteKind(StorageForm.TEXT, pa.string()),
    "blob": SQLiteKind(StorageForm.BLOB, pa.binary()),
}


def kind_for(field: pa.Field) -> SQLiteKind:
    """Return what a stream's column is: by its declared type, or for want of one by its Arrow type."""
    declared = facts_of(field).native_type
    found = kind_of(declared)
    if found is not None:
        return found
    return next((kind for kind in UNTYPED.values() if kind.arrow == field.type), UNTYPED["text"])


def _made_for(kind: pa.DataType, name: str) -> str:
    """Return the declared type of a column made for an Arrow type.

    Raises:
        FatalConnectorError: there is none.
    """
    types = pa.types
    if kind == pa.uuid():
        return "UUID"
    if kind == pa.json_():
        return "JSON_TEXT"
    if isinstance(kind, pa.BaseExtensionType):
        return _made_for(kind.storage_type, name)
    if types.is_dictionary(kind):
        return _made_for(kind.value_type, name)
    if types.is_decimal(kind):
        return _decimal_type(kind, name)
    if types.is_timestamp(kind):
        return ("TIMESTAMP" if kind.tz is None else "TIMESTAMPTZ") + ("(9)" if kind.unit == "ns" else "")
    for is_kind, declared in _DECLARED_BY_TEST:
        if is_kind(kind):
            return declared
    raise FatalConnectorError(f"column {name!r}: SQLite has no type for {kind}; exclude the column with `columns`")


def _decimal_type(kind: pa.DataType, name: str) -> str:
    if not 0 <= kind.scale <= kind.precision:
        raise FatalConnectorError(f"column {name!r}: SQLite has no type for {kind}; exclude the column with `columns`")
    declared = "DECIMAL" if kind.precision <= EXACT_DIGITS else "DECIMAL_TEXT"
    return f"{declared}({kind.precision},{kind.scale})"


_DECLARED_BY_TEST = (
    (pa.types.is_boolean, "BOOLEAN"),
    (pa.types.is_uint64, "DECIMAL_TEXT(20,0)"),
    (pa.types.is_integer, "INTEGER"),
    (pa.types.is_floating, "REAL"),
    (pa.types.is_string, "TEXT"),
    (pa.types.is_large_string, "TEXT"),
    (pa.types.is_string_view, "TEXT"),
    (pa.types.is_null, "TEXT"),
    (pa.types.is_binary, "BLOB"),
    (pa.types.is_large_binary, "BLOB"),
    (pa.types.is_binary_view, "BLOB"),
    (pa.types.is_fixed_size_binary, "BLOB"),
    (pa.types.is_date, "DATE"),
    (pa.types.is_time, "TIME"),
    (pa.types.is_duration, "INTERVAL"),
    (pa.types.is_interval, "INTERVAL"),
    (pa.types.is_nested, "JSON_TEXT"),
)

#: Forms whose values are stored as texts.
_STORED_AS_TEXT = frozenset(
    {
        StorageForm.DECIMAL_TEXT,
        StorageForm.DATE,
        StorageForm.TIME,
        StorageForm.TIMESTAMP,
        StorageForm.UUID,
        StorageForm.JSON,
        StorageForm.INTERVAL,
    }
)

#: Forms that a text column holds as well, in the form in which they are stored anyway.
_AS_TEXT = (
    StorageForm.TEXT,
    StorageForm.LOOSE_TEXT,
    StorageForm.UUID,
    StorageForm.JSON,
    StorageForm.DATE,
    StorageForm.TIME,
    StorageForm.TIMESTAMP,
)


def _holds(before: str, after: str) -> bool:
    """Tell whether a column declared `before` takes every value of one declared `after`; SQLite alters no types."""
    old, new = kind_of(before), kind_of(after)
    if old is None or new is None:
        return True
    if old.arrow == new.arrow:
        return True
    if old.form is StorageForm.TEXT:
        return new.form in _AS_TEXT
    if old.form is StorageForm.INTEGER:
        return new.form is StorageForm.BOOLEAN
    if old.form is StorageForm.TIMESTAMP and new.form is StorageForm.DATE:
        return old.arrow.tz is None
    if old.form is StorageForm.TIMESTAMP and new.form is StorageForm.TIMESTAMP:
        return bool(old.arrow.tz == new.arrow.tz and old.arrow.unit == "ns")
    if pa.types.is_decimal(old.arrow) and pa.types.is_decimal(new.arrow):
        old_whole, new_whole = old.arrow.precision - old.arrow.scale, new.arrow.precision - new.arrow.scale
        return bool(old_whole >= new_whole and old.arrow.scale >= new.arrow.scale)
    return False


def _are_days_of(before: str, after: str) -> bool:
    old, new = kind_of(before), kind_of(after)
    return bool(
        old and new and old.form is StorageForm.DATE and new.form is StorageForm.TIMESTAMP and new.arrow.tz is None
    )


class SQLiteTypes(Types):
    """Declared types are words that say which form values have; SQLite alters none."""

    def column_type(self, column: pa.Field) -> str:
        """Return the declared type of a new column; the source's own if that is SQLite as well."""
        if native := native_of(column, "sqlite"):
            kind = kind_of(native)
            # Some names lose values on the way in: a number in a column of 15 digits, JSON in one of numbers.
            is_safe = kind is not None and kind.form not in (StorageForm.DECIMAL, StorageForm.JSON, StorageForm.NUMBER)
            if kind is not None and is_safe and kind.arrow == column.type:
                return native
        return _made_for(made_of(column), column.name)

    def wire(self, column_type: str, arrow: pa.DataType) -> Wire:
        """Values come in the column's own Arrow type; the session writes them in their stored form."""
        kind = kind_of(column_type)
        if kind is None or pa.types.is_nested(arrow) or pa.types.is_duration(arrow):
            return Wire(type=column_type, arrow=arrow)
        if kind.form is StorageForm.TEXT and not _is_text(arrow):
            # Dates and the like in a text column: as the session writes them anyway.
            return Wire(type=column_type, arrow=arrow)
        return Wire(type=column_type, arrow=kind.arrow)

    def arrow_of(self, column: Column) -> pa.DataType:
        """Return the type in which the column is read."""
        return (kind_of(column.type) or UNTYPED["text"]).arrow

    def kept_as(self, column_type: str, arriving: pa.DataType) -> tuple[pa.DataType, bool]:
        """Return what it is read in; most types are texts in a form of their own."""
        kind = kind_of(column_type) or UNTYPED["text"]
        if kind.form is StorageForm.JSON:
            return pa.json_(), True
        return kind.arrow, kind.form in _STORED_AS_TEXT

    def widen(self, before: str, after: str) -> str | None:
        """Return the column's type if it holds the new values, or the new one: dates become times of those days."""
        return before if _holds(before, after) else after if _are_days_of(before, after) else None

    def values_as(self, before: str, after: str, name: str) -> str:
        """Write the times of dates in the form of times."""
        if not _are_days_of(before, after):
            return ""
        return f"case when {name} like '____-__-__' then {name} || ' 00:00:00.000000' else {name} end"

    def widen_key(self, before: str, after: str, columns: int) -> str | None:
        """Return the column's type if it holds the new values: no column of a key is copied."""
        return before if _holds(before, after) else None

    def gives_form(self, held: str) -> bool:
        """Tell which texts the column gives a form.

        Decimals and times get the column's digits, and STRING makes numbers of some texts.
        """
        kind = kind_of(held)
        return kind is not None and kind.form in (
            StorageForm.LOOSE_TEXT,
            StorageForm.DECIMAL_TEXT,
            StorageForm.TIMESTAMP,
        )

    def text_of(self, column_type: str, name: str) -> str | None:
        """Write the texts of integers, booleans, decimals and what is stored as text; not of floats."""
        kind = kind_of(column_type)
        if kind is None or kind.form in (StorageForm.REAL, StorageForm.NUMBER, StorageForm.BLOB, StorageForm.JSON):
            return None
        if kind.form is StorageForm.BOOLEAN:
            return f"case {name} when 1 then 'true' when 0 then 'false' else {name} end"
        if kind.form is StorageForm.DECIMAL:
            return f"case when {name} is not null then printf('%.{kind.arrow.scale}f', {name}) end"
        return f"replace(replace({name}, ' ', 'T'), '+00:00', 'Z')" if kind.form is StorageForm.TIMESTAMP else name


def _is_text(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_string(arrow) or pa.types.is_large_string(arrow) or pa.types.is_string_view(arrow))
