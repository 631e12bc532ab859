"""JSON Schema -> Arrow: the type of each column, and how a JSON reader reads its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any

import pyarrow as pa
from msgspec import Struct

from ..arrow.decimals import bounded
from ..field_facts import with_facts
from ..struct_helpers import replace

#: Type for reading numbers of which a double may not hold all digits.
LONG = pa.decimal256(76, 40)

JSON = pa.json_(pa.string())


class JSONReading(Enum):
    """How the values of a column are read from JSON."""

    #: Arrow's JSON reader returns the type.
    PLAIN = "plain"
    #: A text that is converted: dates, times, UUIDs, base64.
    TEXT = "text"
    #: A double, if it holds all digits; otherwise the column becomes a decimal.
    NUMBER = "number"
    #: Digits of any precision, kept as text.
    NUMERIC = "numeric"
    #: Objects, mixed and undeclared values: the JSON text.
    JSON = "json"


class PropertyColumn(Struct, frozen=True, kw_only=True):
    """One property of a stream."""

    name: str
    type: pa.DataType
    reading: JSONReading
    #: Type name for the field's facts.
    native: str = ""
    #: The declared JSON Schema of the property; a widened column keeps it.
    declared: str = ""
    #: A value needed a wider type than the declared one.
    is_widened: bool = False
    #: The messages hold decimals as texts.
    is_text: bool = False

    def field(self, *, nullable: bool = True) -> pa.Field:
        """Return the Arrow field."""
        # PostgreSQL has a type for numbers of any precision; other systems keep the text.
        field = pa.field(self.name, self.type, nullable)
        return with_facts(field, native_type=self.native, native_system="postgres") if self.native else field

    def widened(self, kind: pa.DataType | None) -> PropertyColumn:
        """Return the column with a decimal type; None: with digits as text."""
        if kind is None:
            return replace(self, type=pa.string(), reading=JSONReading.NUMERIC, native="numeric", is_widened=True)
        return replace(self, type=kind, reading=JSONReading.PLAIN, is_widened=True)


def widened_as(column: PropertyColumn, digits: Any) -> PropertyColumn:
    """Return a number column with an earlier run's type: [precision, scale]; None: digits as text."""
    if column.reading not in (JSONReading.NUMBER, JSONReading.PLAIN):
        return column
    kind = None
    if isinstance(digits, list) and len(digits) == 2 and all(type(each) is int for each in digits):
        precision, scale = digits
        kind = pa.decimal128(precision, scale) if 0 <= scale <= precision <= 38 and precision else None
    return column.widened(kind)


def columns_of(schema: Mapping[str, Any]) -> list[PropertyColumn]:
    """Return the columns of a stream's JSON Schema, in the order of its properties."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return []
    return [column_of(str(name), spec, schema) for name, spec in properties.items()]


def column_of(name: str, spec: Any, root: Mapping[str, Any]) -> PropertyColumn:
    """Return the column of one property."""
    plain = _plain(spec, root)
    kind, reading, native = _type_of(plain, root)
    is_text = "string" in _types(plain)
    return PropertyColumn(name=name, type=kind, reading=reading, native=native, declared=repr(spec), is_text=is_text)


_Typed = tuple[pa.DataType, JSONReading, str]
_AS_JSON: _Typed = (JSON, JSONReading.JSON, "")

_TEXTS: dict[str, pa.DataType] = {
    "date-time": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "uuid": pa.uuid(),
}


def _plain(spec: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Resolve references, and alternatives with one that is not null."""
    for _ in range(16):
        if not isinstance(spec, Mapping):
            return {}
        if isinstance(spec.get("$ref"), str):
            spec = _referred(spec["$ref"], root)
            continue
        options = spec.get("anyOf") or spec.get("oneOf")
        if "type" in spec or not isinstance(options, Sequence) or isinstance(options, str):
            return spec
        plain = [_plain(option, root) for option in options]
        real = [option for option in plain if _types(option) != {"null"}]
        if len(real) != 1:
            return _common(real)
        spec = real[0]
    return {}


def _common(options: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return one schema for all alternatives: a text if each is a text of some format."""
    kinds = [_types(option) - {"null"} for option in options]
    if kinds and all(kind == {"string"} for kind in kinds):
        return options[0] if all(option == options[0] for option in options) else {"type": "string"}
    if kinds and all(kind and kind <= {"integer", "number"} for kind in kinds):
        return {"type": sorted(set().union(*kinds))}
    return {}


def _referred(reference: str, root: Mapping[str, Any]) -> Any:
    node: Any = root
    if not reference.startswith("#/"):
        return {}
    for part in reference[2:].split("/"):
        node = node.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(node, Mapping) else None
    return node


def _types(spec: Mapping[str, Any]) -> set[str]:
    kind = spec.get("type")
    if isinstance(kind, str):
        return {kind}
    if isinstance(kind, Sequence):
        return {each for each in kind if isinstance(each, str)}
    values = spec.get("enum")
    if kind is None and isinstance(values, Sequence) and values and all(isinstance(v, str | None) for v in values):
        return {"string"}
    return set()


def _type_of(spec: Mapping[str, Any], root: Mapping[str, Any]) -> _Typed:
    kinds = _types(spec) - {"null"}
    if kinds == {"string"}:
        return _text(spec)
    if kinds == {"integer"}:
        return _integer(spec)
    if kinds in ({"number"}, {"integer", "number"}):
        return _number(spec)
    if kinds == {"boolean"}:
        return pa.bool_(), JSONReading.PLAIN, ""
    if kinds == {"array"}:
        return _array(spec, root)
    return _AS_JSON


def _text(spec: Mapping[str, Any]) -> _Typed:
    form = spec.get("format")
    if form in ("x-singer.decimal", "singer.decimal"):
        kind = _decimal(spec.get("precision"), spec.get("scale"))
        return (pa.string(), JSONReading.NUMERIC, "numeric") if kind is None else (kind, JSONReading.PLAIN, "")
    if form in _TEXTS:
        naive = str(spec.get("x-sql-datatype", "")).lower()
        if form == "date-time" and naive in ("timestamp", "timestamp without time zone", "datetime", "timestamp_ntz"):
            return pa.timestamp("us"), JSONReading.TEXT, ""
        return _TEXTS[form], JSONReading.TEXT, ""
    if spec.get("contentEncoding") == "base64":
        return pa.binary(), JSONReading.TEXT, ""
    return pa.string(), JSONReading.PLAIN, ""


def _integer(spec: Mapping[str, Any]) -> _Typed:
    low, high = _exact(spec.get("minimum")), _exact(spec.get("maximum"))
    if low is None or high is None:
        is_huge = (low is not None and low < -(2**63)) or (high is not None and high >= 2**63)
        return (pa.decimal128(38, 0) if is_huge else pa.int64()), JSONReading.PLAIN, ""
    for bits, kind in ((16, pa.int16()), (32, pa.int32()), (64, pa.int64())):
        if -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1):
            return kind, JSONReading.PLAIN, ""
    if max(abs(low), abs(high)) < 10**38:
        return pa.decimal128(38, 0), JSONReading.PLAIN, ""
    return pa.string(), JSONReading.NUMERIC, "numeric"


def _number(spec: Mapping[str, Any]) -> _Typed:
    if type(spec.get("scale")) is int and (exact := _decimal(spec.get("precision"), spec["scale"])) is not None:
        return exact, JSONReading.PLAIN, ""
    scale = _power(_exact(spec.get("multipleOf")))
    if scale is None:
        return pa.float64(), JSONReading.NUMBER, ""
    highs = [_exact(spec.get(key)) for key in ("maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum")]
    whole = max((max(high.adjusted() + 1, 1) for high in highs if high is not None), default=None)
    if whole is None:
        kind = _decimal(38, scale) if scale <= 19 else None
    else:
        bound = max(abs(high) for high in highs if high is not None)
        # Below an exclusive bound of 10^n, or 10^n - 10^-s, numbers have n digits before the point.
        digits = whole - 1 if bound == 10 ** (whole - 1) else whole
        kind = _decimal(max(digits, 1) + scale, scale)
    return (pa.string(), JSONReading.NUMERIC, "numeric") if kind is None else (kind, JSONReading.PLAIN, "")


def _array(spec: Mapping[str, Any], root: Mapping[str, Any]) -> _Typed:
    items = spec.get("items")
    if not isinstance(items, Mapping):
        return _AS_JSON
    kinds = _types(_plain(items, root)) - {"null"}
    inner = {"string": pa.string(), "integer": pa.int64(), "boolean": pa.bool_()}.get(next(iter(kinds), ""))
    # The JSON text keeps all digits of numbers.
    return _AS_JSON if len(kinds) != 1 or inner is None else (pa.list_(inner), JSONReading.PLAIN, "")


def _decimal(precision: Any, scale: Any) -> pa.DataType | None:
    if isinstance(precision, bool) or not isinstance(precision, int) or not 1 <= precision <= 76:
        return None
    scale = scale if isinstance(scale, int) and not isinstance(scale, bool) else 0
    if not 0 <= scale <= precision:
        return None
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


def _exact(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return None
    try:
        number = bounded(Decimal(str(value)))
    except (InvalidOperation, ValueError):
        return None
    return number if number.is_finite() else None


def _power(step: Decimal | None) -> int | None:
    """Return s of a step of 10^-s; None: the step is another."""
    if step is None or step <= 0:
        return None
    digits = step.normalize().as_tuple()
    exponent = digits.exponent
    if digits.digits != (1,) or not isinstance(exponent, int):
        return None
    return max(0, -exponent)
