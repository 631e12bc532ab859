"""Canonical texts in DuckDB's SQL, for checksums of its own tables and of Arrow batches."""

from __future__ import annotations

import pyarrow as pa

from ..checksums.sql import Canonical, exponent_form
from ..compared_values import ComparedColumn, TextForm
from ..field_facts import facts_of
from ..sql.identifiers import literal
from .nested import decimal_text, interval_text, list_text, nested_text
from .types import reading


class DuckDBCanonical(Canonical):
    """The connection is in UTC."""

    def text(self, column: str, compared: ComparedColumn) -> str:
        """Write a value's canonical text."""
        form = compared.form
        if form is TextForm.DECIMAL:
            text = decimal_text(column, compared.field.type)
            if compared.scale is not None:
                return text
            return f"case when contains({text}, '.') then rtrim(rtrim({text}, '0'), '.') else {text} end"
        if form is TextForm.FLOAT:
            return _float(f"{column}::double")
        if form is TextForm.INTEGER and pa.types.is_boolean(compared.field.type):
            form = TextForm.BOOLEAN
        if form is TextForm.INTERVAL and not pa.types.is_string(compared.field.type):
            return interval_text(column)
        if pa.types.is_nested(compared.field.type):
            return _nested(column, compared)
        return _FORMATS.get(form, "{}::varchar").format(column)

    def hashed(self, text: str, *, own: bool) -> str:
        """Write the first 60 bits of the MD5."""
        return f"('0x' || left(md5({text}), 15))::bigint"

    def comparable(self, column: str, compared: ComparedColumn) -> str:
        """Compare the column itself: texts are compared by their bytes."""
        return (
            f"({column}::int)"
            if compared.form is TextForm.BOOLEAN
            else _COMPARED.get(compared.form, "{}").format(column)
        )

    def constant(self, text: str, compared: ComparedColumn) -> str:
        """Write a constant."""
        form, shown = compared.form, literal(text)
        if form in (TextForm.INTEGER, TextForm.BOOLEAN):
            return str(int(text))
        if form is TextForm.DECIMAL:
            scale = len(text.partition(".")[2])
            return f"cast({shown} as decimal(38,{scale}))"
        if form is TextForm.BINARY:
            return f"unhex({shown})"
        return {TextForm.DATE: f"date {shown}", TextForm.TIMESTAMP: f"timestamp {shown}"}.get(form, shown)


def _nested(column: str, compared: ComparedColumn) -> str:
    facts = facts_of(compared.field)
    if facts.native_system == "duckdb":
        native = facts.native_type
        read = reading(native).sql
        # Arrow lacks this type: it is cast to the type in which it is read and copied.
        column = column if read == native else f"cast({column} as {read})"
    if compared.form is TextForm.LIST:
        return list_text(column, compared)
    if compared.form is TextForm.NATIVE:
        return f"{column}::varchar"
    return nested_text(column, compared.field.type, is_jsonb=compared.form is TextForm.NESTED_JSONB)


_FORMATS = {
    TextForm.INTEGER: "{}::varchar",
    TextForm.BOOLEAN: "{}::int::varchar",
    TextForm.BINARY: "lower(hex({}))",
    TextForm.UUID: "lower({}::varchar)",
    TextForm.JSON_LINE: "nullif(trim({}::varchar, concat(' ', chr(9), chr(10), chr(13))), 'null')",
    TextForm.DATE: "replace({}::varchar, ' (BC)', ' BC')",
    TextForm.TIMESTAMP: (
        "replace({0}::timestamp::varchar, ' (BC)', '') || case when {0} < timestamp '0001-01-01' then ' BC' else '' end"
    ),
    TextForm.TIMESTAMP_NS: "{}::timestamp_ns::varchar",
}

_COMPARED = {
    TextForm.BOOLEAN: "({}::int)",
    TextForm.TEXT: "({}::varchar)",
    TextForm.UUID: "lower({}::varchar)",
    TextForm.TIMESTAMP: "({}::timestamp)",
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


__all__ = ["DuckDBCanonical"]
