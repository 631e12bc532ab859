"""Canonical texts in DuckDB's SQL, for checksums: of its own tables, and of records that come as Arrow batches."""

from __future__ import annotations

import pyarrow as pa

from ..checksums.sql import Canonical, exponent_form, interval_form
from ..checksums.values import Compared, Form
from ..sql.identifiers import literal


class DuckDBCanonical(Canonical):
    """The connection is in UTC."""

    def text(self, column: str, compared: Compared) -> str:
        """Write a value's canonical text."""
        form = compared.form
        if form is Form.DECIMAL and compared.scale is None:
            text = f"{column}::varchar"
            return f"case when contains({text}, '.') then rtrim(rtrim({text}, '0'), '.') else {text} end"
        if form is Form.FLOAT:
            return _float(f"{column}::double")
        if form is Form.INTERVAL and not pa.types.is_string(compared.field.type):
            return _interval(column)
        if form is Form.LIST and pa.types.is_nested(compared.field.type):
            return _list(column, compared)
        return _FORMATS.get(form, "{}::varchar").format(column)

    def hashed(self, text: str, *, own: bool) -> str:
        """Write the first 60 bits of the MD5."""
        return f"('0x' || left(md5({text}), 15))::bigint"

    def comparable(self, column: str, compared: Compared) -> str:
        """Compare as it is: texts are compared by their bytes."""
        return (
            f"({column}::int)" if compared.form is Form.BOOLEAN else _COMPARED.get(compared.form, "{}").format(column)
        )

    def constant(self, text: str, compared: Compared) -> str:
        """Write a constant."""
        form, shown = compared.form, literal(text)
        if form in (Form.INTEGER, Form.BOOLEAN):
            return str(int(text))
        if form is Form.DECIMAL:
            scale = len(text.partition(".")[2])
            return f"cast({shown} as decimal(38,{scale}))"
        if form is Form.BINARY:
            return f"unhex({shown})"
        return {Form.DATE: f"date {shown}", Form.TIMESTAMP: f"timestamp {shown}"}.get(form, shown)


_FORMATS = {
    Form.INTEGER: "{}::varchar",
    Form.BOOLEAN: "{}::int::varchar",
    Form.BINARY: "lower(hex({}))",
    Form.UUID: "lower({}::varchar)",
    Form.JSON_LINE: "nullif(trim({}::varchar, concat(' ', chr(9), chr(10), chr(13))), 'null')",
    Form.DATE: "replace({}::varchar, ' (BC)', ' BC')",
    Form.TIMESTAMP: "replace({}::timestamp::varchar, ' (BC)', ' BC')",
    Form.TIMESTAMP_NS: "{}::timestamp_ns::varchar",
}

_COMPARED = {
    Form.BOOLEAN: "({}::int)",
    Form.TEXT: "({}::varchar)",
    Form.UUID: "lower({}::varchar)",
    Form.TIMESTAMP: "({}::timestamp)",
}


def _float(value: str) -> str:
    def split(text: str, part: int) -> str:
        return f"split_part({text}, 'e', {part})"

    other = exponent_form(
        f"abs({value})::varchar", f"{value} < 0", split, trim="trim({}, '0')", ltrim="ltrim({}, '0')",
        as_text="varchar",
    )  # fmt: skip
    plain = f"{value}::varchar"
    return (
        f"case when {value} is null then null when isnan({value}) then 'nan' "
        f"when isinf({value}) then case when {value} > 0 then 'inf' else '-inf' end when {value} = 0 then '0' "
        f"when abs({value}) >= 1e-4 and abs({value}) < 1e15 "
        f"then case when suffix({plain}, '.0') then left({plain}, length({plain}) - 2) else {plain} end "
        f"else {other} end"
    )


def _interval(value: str) -> str:
    def part(name: str) -> str:
        return f"datepart('{name}', {value})::hugeint"

    time = f"({part('hour')} * 3600000000 + {part('minute')} * 60000000 + {part('microsecond')})"
    return interval_form(value, f"({part('year')} * 12 + {part('month')})", part("day"), time, as_text="varchar")


def _list(column: str, compared: Compared) -> str:
    """Write a list as `files.text.to_json` does."""
    item = _item(compared)
    joined = f"array_to_string(list_transform({column}, lambda x: coalesce({item}, 'null')), ',')"
    # Of an empty list DuckDB before 2.0 makes NULL.
    return f"case when {column} is not null then '[' || coalesce({joined}, '') || ']' end"


def _item(compared: Compared) -> str:
    form = compared.item
    if form is Form.TEXT:
        return _quoted("x::varchar")
    if form is Form.FLOAT:
        value = "x::double"
        special = (
            f"case when isnan({value}) then '\"NaN\"' when {value} > 0 then '\"Infinity\"' else '\"-Infinity\"' end"
        )
        return f"case when isfinite({value}) then ({value})::varchar when x is not null then {special} end"
    if form is Form.TIME:
        return _fraction("strftime(date '1970-01-01' + x::time, '%H:%M:%S.%f')", compared.digits)
    if form is Form.TIMESTAMP:
        is_zoned = compared.field.type.value_type.tz is not None
        written = f"strftime(x::timestamp, '%Y-%m-%dT%H:%M:%S.%f{'Z' if is_zoned else ''}')"
        return _fraction(written, compared.digits)
    plain = {Form.BINARY: "base64(x)", Form.UUID: "lower(x::varchar)", Form.DATE: "x::varchar"}
    return f"'\"' || {plain[form]} || '\"'" if form in plain else "x::varchar"


def _fraction(text: str, digits: int) -> str:
    """Leave out those digits of a second that the source's type does not have, if they are zeros."""
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


__all__ = ["DuckDBCanonical"]
