"""Canonical texts in PostgreSQL's SQL, for checksums."""

from __future__ import annotations

from ..checksums.sql import Canonical, exponent_form, interval_form
from ..compared_values import ComparedColumn, TextForm
from ..field_facts import facts_of
from ..sql.identifiers import literal
from .type_names import Name


class PostgresCanonical(Canonical):
    """The session writes dates in ISO, in UTC, floats by their shortest digits, and bytes as hexadecimal digits."""

    def text(self, column: str, compared: ComparedColumn) -> str:
        """Write a value's canonical text."""
        base = _base(compared)
        form = compared.form
        if facts_of(compared.field).read_as == "json":
            column = f"array_to_json({column})"
        if base in ("character", "bpchar", "inet") and form in (TextForm.NATIVE, TextForm.TEXT):
            # A cast to text would drop trailing blanks, and add `/32` to an address.
            return f"case when {column} is not null then concat({column}) end"
        if form is TextForm.DECIMAL:
            number = f"{column}::numeric" if base in ("money", "text") else column
            return f"{number}::text" if compared.scale is not None else f"trim_scale({number}::numeric)::text"
        if form is TextForm.FLOAT:
            return _float(f"{column}::float8")
        if form is TextForm.BOOLEAN or (form is TextForm.INTEGER and base == "boolean"):
            return f"{column}::int::text"
        if form is TextForm.TIMESTAMP or form is TextForm.TIMESTAMP_NS:
            return f"({column} at time zone 'UTC')::text" if compared.field.type.tz else f"{column}::text"
        if form is TextForm.INTERVAL and base == "interval":
            return _interval(column)
        if form is TextForm.LIST and _name(compared).is_array:
            return _list(column, compared)
        return _FORMATS.get(form, "{}::text").format(column)

    def hashed(self, text: str, *, own: bool) -> str:
        """Write the first 60 bits of the MD5."""
        return f"hashtextextended({text}, 0)" if own else f"('x' || left(md5({text}), 15))::bit(60)::bigint"

    def comparable(self, column: str, compared: ComparedColumn) -> str:
        """Compare texts by their bytes, other types directly, so that an index can be used."""
        if compared.form is TextForm.TEXT:
            return f'({self.text(column, compared) if _base(compared) == "inet" else f"{column}::text"}) collate "C"'
        if compared.form is TextForm.UUID and _base(compared) != "uuid":
            return f'lower({column}::text) collate "C"'
        return f"({column}::int)" if _base(compared) == "boolean" else column

    def constant(self, text: str, compared: ComparedColumn) -> str:
        """Write a constant."""
        form, shown = compared.form, literal(text)
        if form in (TextForm.INTEGER, TextForm.DECIMAL, TextForm.BOOLEAN):
            return f"({shown})::numeric" if form is TextForm.DECIMAL else f"({int(text)})"
        if form is TextForm.BINARY:
            return f"decode({shown}, 'hex')"
        if form is TextForm.UUID and _base(compared) == "uuid":
            return f"{shown}::uuid"
        if form is TextForm.TIMESTAMP:
            return f"timestamptz {literal(text + '+00')}" if compared.field.type.tz else f"timestamp {shown}"
        return f"date {shown}" if form is TextForm.DATE else f"{shown}::text"


_FORMATS = {
    TextForm.BINARY: "encode({}, 'hex')",
    TextForm.UUID: "lower({}::text)",
    TextForm.JSON_LINE: "nullif(btrim({}::text, E' \\t\\n\\r'), 'null')",
    TextForm.JSONB: "{}::jsonb::text",
}


def _base(compared: ComparedColumn) -> str:
    return _name(compared).base


def _name(compared: ComparedColumn) -> Name:
    return Name.parse(facts_of(compared.field).native_type)


def _float(value: str) -> str:
    def split(text: str, part: int) -> str:
        return f"split_part({text}, 'e', {part})"

    other = exponent_form(
        f"abs({value})::text", f"{value} < 0", split, trim="trim(both '0' from {})", ltrim="ltrim({}, '0')",
        as_text="text",
    )  # fmt: skip
    return (
        f"case when {value} = 0 then '0' when abs({value}) >= 1e-4 and abs({value}) < 1e15 then {value}::text "
        f"when {value} = 'NaN' then 'nan' when {value} = 'Infinity' then 'inf' when {value} = '-Infinity' then '-inf' "
        f"when {value} is null then null else {other} end"
    )


def _interval(value: str) -> str:
    def part(name: str) -> str:
        return f"extract({name} from {value})::numeric"

    time = f"({part('hour')} * 3600000000 + {part('minute')} * 60000000 + {part('microseconds')})"
    months = f"({part('year')} * 12 + {part('month')})"
    written = interval_form(value, months, part("day"), time, as_text="text")
    return f"case when isfinite({value}) then {written} else {value}::text end"


def _list(column: str, compared: ComparedColumn) -> str:
    """Write an array in the form of a list in `arrow.text.to_json`."""
    item = _item(compared)
    if not item:
        return f"array_to_json({column})::text"
    items = (
        f"select string_agg(coalesce({item}, 'null'), ',' order by n) from unnest({column}) with ordinality as u(x, n)"
    )
    return (
        f"case when array_ndims({column}) > 1 then array_to_json({column})::text "
        f"when {column} is not null then '[' || coalesce(({items}), '') || ']' end"
    )


def _item(compared: ComparedColumn) -> str:
    """Write an item if PostgreSQL's own JSON differs; empty: it does not."""
    form = compared.item
    if form is TextForm.FLOAT:
        value = "x::float8"
        digits = f"({value})::text::numeric::text"
        return (
            f"case when {value} in ('NaN', 'Infinity', '-Infinity') then '\"' || ({value})::text || '\"' "
            # PostgreSQL switches to exponents here; others one digit later.
            f"when abs({value}) >= 1e15 and abs({value}) < 1e16 "
            f"then {digits} || case when {digits} like '%.%' then '' else '.0' end "
            f"when ({value})::text ~ '[.e]' then ({value})::text else ({value})::text || '.0' end"
        )
    if form is TextForm.BINARY:
        return "'\"' || replace(encode(x, 'base64'), chr(10), '') || '\"'"
    if form is TextForm.INTERVAL:
        return f"'\"' || {_interval('x')} || '\"'"
    if form is TextForm.TIME:
        return _fraction("to_char(x, 'HH24:MI:SS.US')", compared.digits)
    if form is TextForm.TIMESTAMP:
        is_zoned = _base(compared) == "timestamp with time zone"
        moment = "x at time zone 'UTC'" if is_zoned else "x"
        written = f"to_char({moment}, 'YYYY-MM-DD\"T\"HH24:MI:SS.US{'Z' if is_zoned else ''}')"
        return f"case when isfinite(x) then {_fraction(written, compared.digits)} else to_json(x)::text end"
    return ""


def _fraction(text: str, digits: int) -> str:
    """Omit decimal places of seconds that the source's type does not have, if they are zeros."""
    if digits < 6:
        zeros, kept = ("000", r"(\.[0-9]{3})") if digits else (r"\.000000", "()")
        text = f"regexp_replace({text}, '{kept}{zeros}(Z?)$', '\\1\\2')"
    return f"'\"' || {text} || '\"'"


__all__ = ["PostgresCanonical"]
