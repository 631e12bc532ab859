"""Lists, structs and maps as JSON in DuckDB's SQL, for checksums: exactly the texts of `arrow.text.to_json`."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa
from msgspec import Struct

from ..checksums.sql import interval_form
from ..compared_values import DIGITS, ComparedColumn, TextForm
from ..sql.identifiers import literal


class _Style(Struct, frozen=True):
    """Separators and other differences between the forms of JSON."""

    comma: str = ","
    colon: str = ":"
    #: The form of jsonb: keys by length, then by bytes; floats without an exponent.
    is_jsonb: bool = False


_PLAIN = _Style()
_JSONB = _Style(", ", ": ", is_jsonb=True)


def list_text(column: str, compared: ComparedColumn) -> str:
    """Write a list of scalars; all sides use the source's number of decimal places in seconds."""
    zone = getattr(compared.field.type.value_type, "tz", None)
    assert compared.item is not None
    item = _scalar("x", compared.item, compared.digits, is_zoned=zone is not None)
    if compared.item is TextForm.DECIMAL:
        item = decimal_text("x", compared.field.type.value_type)
    return _joined(column, "x", item, _PLAIN)


def nested_text(column: str, kind: pa.DataType, *, is_jsonb: bool) -> str:
    """Write any nested value.

    Args:
        column: a quoted name.
        kind: its type, one that `checksums.nested.is_carried` accepts.
        is_jsonb: in the form that jsonb writes.
    """
    return _value(column, kind, _JSONB if is_jsonb else _PLAIN, 0)


def interval_text(value: str) -> str:
    """Write an interval."""

    def part(name: str) -> str:
        return f"datepart('{name}', {value})::hugeint"

    time = f"({part('hour')} * 3600000000 + {part('minute')} * 60000000 + {part('microsecond')})"
    return interval_form(value, f"({part('year')} * 12 + {part('month')})", part("day"), time, as_text="varchar")


def decimal_text(value: str, kind: pa.DataType) -> str:
    """Write a decimal; DuckDB omits the zero before the point if its type has no digit there."""
    text = f"{value}::varchar"
    if not pa.types.is_decimal(kind) or kind.scale < kind.precision:
        return text
    return f"ltrim(replace(replace(' ' || {text}, ' .', ' 0.'), ' -.', ' -0.'))"


def any_interval(value: str, kind: pa.DataType, condition: str, depth: int = 0) -> str:
    """Write the condition that one interval in a value meets a condition; empty: its type has none."""
    types, name = pa.types, f"x{depth}"
    if types.is_interval(kind):
        return f"({condition.format(value)})"
    if types.is_struct(kind):
        parts = [
            any_interval(f"struct_extract({value}, {literal(field.name)})", field.type, condition, depth)
            for field in kind
        ]
    elif types.is_map(kind):
        lists = ((f"map_keys({value})", kind.key_type), (f"map_values({value})", kind.item_type))
        parts = [any_interval(items, pa.list_(item), condition, depth) for items, item in lists]
    elif types.is_nested(kind):
        inner = any_interval(name, kind.value_type, condition, depth + 1)
        parts = [inner and f"len(list_filter({value}, lambda {name}: {inner})) > 0"]
    else:
        parts = []
    return " or ".join(f"({part})" for part in parts if part)


def _value(value: str, kind: pa.DataType, style: _Style, depth: int) -> str:
    """Write a value; NULL for NULL. Each level of lists uses other names for its items."""
    types, name = pa.types, f"x{depth}"
    if types.is_struct(kind):
        return _struct(value, kind, style, depth)
    if types.is_map(kind):
        key = _value(f"{name}.key", kind.key_type, style, depth + 1)
        item = _value(f"{name}.value", kind.item_type, style, depth + 1)
        return _joined(f"map_entries({value})", name, _concat(["[", style.comma, "]"], [key, item]), style)
    if types.is_nested(kind):
        return _joined(value, name, _value(name, kind.value_type, style, depth + 1), style)
    form = next(form for is_type, form in _FORMS if is_type(kind))
    if form is TextForm.DECIMAL:
        return decimal_text(value, kind)
    written = _scalar(value, form, DIGITS.get(getattr(kind, "unit", "us"), 6), is_zoned=bool(getattr(kind, "tz", None)))
    return _without_exponent(written, value) if form is TextForm.FLOAT and style.is_jsonb else written


def _struct(value: str, kind: pa.DataType, style: _Style, depth: int) -> str:
    fields = list(kind)
    if style.is_jsonb:
        fields.sort(key=lambda field: (len(field.name.encode()), field.name.encode()))
    names = [f"{json.dumps(field.name, ensure_ascii=False)}{style.colon}" for field in fields]
    parts = ["{" + names[0], *(style.comma + name for name in names[1:]), "}"]
    items = [
        _value(f"struct_extract({value}, {literal(field.name)})", field.type, style, depth + 1) for field in fields
    ]
    return f"case when {value} is not null then {_concat(parts, items)} end"


def _concat(parts: Sequence[str], items: Sequence[str]) -> str:
    """Insert items between the parts of a text."""
    found = [literal(parts[0])]
    for item, part in zip(items, parts[1:], strict=True):
        found += [f"coalesce({item}, 'null')", literal(part)]
    return f"concat({', '.join(found)})"


def _joined(items: str, name: str, item: str, style: _Style) -> str:
    joined = f"array_to_string(list_transform({items}, lambda {name}: coalesce({item}, 'null')), '{style.comma}')"
    # DuckDB before 2.0 turns an empty list into NULL.
    return f"case when {items} is not null then '[' || coalesce({joined}, '') || ']' end"


def _scalar(value: str, form: TextForm, digits: int, *, is_zoned: bool) -> str:
    if form is TextForm.TEXT:
        return _quoted(f"{value}::varchar")
    if form is TextForm.FLOAT:
        number = f"{value}::double"
        special = (
            f"case when isnan({number}) then '\"NaN\"' when {number} > 0 then '\"Infinity\"' else '\"-Infinity\"' end"
        )
        return f"case when isfinite({number}) then ({number})::varchar when {value} is not null then {special} end"
    if form is TextForm.TIME:
        return _fraction(f"strftime(date '1970-01-01' + {value}::time, '%H:%M:%S.%f')", digits)
    if form is TextForm.TIMESTAMP_NS:
        return f"'\"' || strftime({value}::timestamp_ns, '%Y-%m-%dT%H:%M:%S.%n') || '\"'"
    if form is TextForm.TIMESTAMP:
        return _fraction(f"strftime({value}::timestamp, '%Y-%m-%dT%H:%M:%S.%f{'Z' if is_zoned else ''}')", digits)
    if form is TextForm.INTERVAL:
        return f"'\"' || {interval_text(value)} || '\"'"
    plain = {TextForm.BINARY: "base64({})", TextForm.UUID: "lower({}::varchar)", TextForm.DATE: "{}::varchar"}
    return f"'\"' || {plain[form].format(value)} || '\"'" if form in plain else f"{value}::varchar"


def _without_exponent(written: str, value: str) -> str:
    """Write all digits of a float, as numeric does, which also lacks a negative zero."""
    text = f"abs({value}::double)::varchar"
    digits = f"replace(split_part({text}, 'e', 1), '.', '')"
    power = f"split_part({text}, 'e', 2)::int"
    large = (
        f"case when length({digits}) - 1 <= {power} then rpad({digits}, {power} + 1, '0') "
        f"else concat(left({digits}, {power} + 1), '.', substr({digits}, {power} + 2)) end"
    )
    small = f"concat('0.', repeat('0', -{power} - 1), {digits})"
    sign = f"case when {value} < 0 then '-' else '' end"
    return (
        f"case when {value} = 0 then '0.0' when isfinite({value}::double) and contains({text}, 'e') "
        f"then concat({sign}, case when {power} > 0 then {large} else {small} end) else {written} end"
    )


def _fraction(text: str, digits: int) -> str:
    """Omit decimal places of seconds that the source's type does not have, if they are zeros."""
    if digits < 6:
        zeros, kept = ("000", r"(\.[0-9]{3})") if digits else (r"\.000000", "()")
        text = f"regexp_replace({text}, '{kept}{zeros}(Z?)$', '\\1\\2')"
    return f"'\"' || {text} || '\"'"


def _quoted(text: str) -> str:
    escaped = f"replace(replace({text}, '\\', '\\\\'), '\"', '\\\"')"
    for number in range(32):
        escaped = f"replace({escaped}, chr({number}), {literal(_ESCAPES.get(number, f'{chr(92)}u{number:04x}'))})"
    is_odd = rf"""regexp_matches({text}, '[\x00-\x1f"\\]')"""
    return f"'\"' || case when {is_odd} then {escaped} else {text} end || '\"'"


_ESCAPES = {8: r"\b", 9: r"\t", 10: r"\n", 12: r"\f", 13: r"\r"}

_FORMS = (
    (pa.types.is_boolean, TextForm.BOOLEAN),
    (pa.types.is_integer, TextForm.INTEGER),
    (pa.types.is_floating, TextForm.FLOAT),
    (pa.types.is_decimal, TextForm.DECIMAL),
    (pa.types.is_date, TextForm.DATE),
    (pa.types.is_time, TextForm.TIME),
    (lambda kind: pa.types.is_timestamp(kind) and kind.unit == "ns", TextForm.TIMESTAMP_NS),
    (pa.types.is_timestamp, TextForm.TIMESTAMP),
    (pa.types.is_interval, TextForm.INTERVAL),
    (lambda kind: kind == pa.uuid(), TextForm.UUID),
    (
        lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view(),
        TextForm.TEXT,
    ),
    (lambda _: True, TextForm.BINARY),
)


__all__ = ["any_interval", "decimal_text", "interval_text", "list_text", "nested_text"]
