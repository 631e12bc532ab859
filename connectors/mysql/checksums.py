"""Canonical texts in MySQL's and MariaDB's SQL, for checksums."""

from __future__ import annotations

from ..checksums.sql import Canonical, exponent_form
from ..compared_values import ComparedColumn, TextForm
from ..field_facts import facts_of
from ..sql.identifiers import literal
from .kinds import MySQLKind
from .types import geometry_text, zero_as_null


class MySQLCanonical(Canonical):
    """The session is in UTC, and its texts are utf8mb4."""

    separator = "char(31 using utf8mb4)"
    null = "char(1 using utf8mb4)"
    random = "rand()"

    def __init__(self, *, are_zeros_null: bool = False) -> None:
        """Take a date or time whose month or day is 0 for NULL, where it may be NULL."""
        self._are_zeros_null = are_zeros_null

    def text(self, column: str, compared: ComparedColumn) -> str:
        """Write a value's canonical text."""
        form, kind = compared.form, _kind(compared)
        if self._are_zeros_null and compared.field.nullable:
            column = zero_as_null(column, str(kind))
        if form in (TextForm.BOOLEAN, TextForm.INTEGER):
            return f"cast({column} + 0 as char)" if kind.name == "bit" else _number(column)
        if form is TextForm.DECIMAL:
            text = _number(column)
            return text if compared.scale is not None or not _has_point(kind) else _without_zeros(text)
        if form is TextForm.FLOAT:
            return _float(f"({column} + 0e0)")
        if form is TextForm.BINARY:
            return f"lower(hex({column}))"
        if form in (TextForm.TIMESTAMP, TextForm.TIMESTAMP_NS):
            return _without_zeros(f"cast(cast({column} as datetime(6)) as char)")
        if form is TextForm.TIME:
            return _without_zeros(f"cast(cast({column} as time(6)) as char)")
        if form is TextForm.DATE:
            return f"cast({column} as char)"
        text = _utf8(column, kind)
        if form is TextForm.JSON_LINE:
            return f"nullif(regexp_replace({text}, '^[[:space:]]+|[[:space:]]+$', ''), 'null')"
        return f"lower({text})" if form is TextForm.UUID else text

    def hashed(self, text: str, *, own: bool) -> str:
        """Write the first 60 bits of the MD5."""
        return f"cast(conv(left(md5({text}), 15), 16, 10) as unsigned)"

    def comparable(self, column: str, compared: ComparedColumn) -> str:
        """Compare texts by their bytes, everything else as it is, so that an index helps."""
        if compared.form is TextForm.TEXT:
            return f"cast({_utf8(column, _kind(compared))} as binary)"
        if compared.form is TextForm.UUID:
            return f"cast(lower({_utf8(column, _kind(compared))}) as binary)"
        return f"({column} + 0)" if _kind(compared).name == "bit" else column

    def constant(self, text: str, compared: ComparedColumn) -> str:
        """Write a constant."""
        form, shown = compared.form, literal(text)
        if form in (TextForm.INTEGER, TextForm.BOOLEAN):
            return str(int(text))
        if form is TextForm.DECIMAL:
            return f"cast({shown} as decimal(65,{len(text.partition('.')[2])}))"
        if form is TextForm.BINARY:
            return f"x{shown}"
        if form is TextForm.TIMESTAMP:
            return f"timestamp {shown}"
        return f"date {shown}" if form is TextForm.DATE else f"cast({shown} as binary)"


def _kind(compared: ComparedColumn) -> MySQLKind:
    return MySQLKind.parse(facts_of(compared.field).native_type)


def _has_point(kind: MySQLKind) -> bool:
    return kind.name == "decimal" and len(kind.numbers) > 1 and kind.numbers[1] > 0


def _number(column: str) -> str:
    # Plus nothing: a column with ZEROFILL would show its zeros.
    return f"cast({column} + 0 as char)"


def _utf8(column: str, kind: MySQLKind) -> str:
    if kind.name in ("uuid", "inet4", "inet6"):
        return f"cast({column} as char)"
    if kind.is_geometry:
        return f"convert({geometry_text(column)} using utf8mb4)"
    return f"convert({column} using utf8mb4)"


def _without_zeros(text: str) -> str:
    return f"trim(trailing '.' from trim(trailing '0' from {text}))"


def _float(value: str) -> str:
    text = f"cast(abs({value}) as char)"

    def split(_: str, part: int) -> str:
        if part == 1:
            return f"substring_index({text}, 'e', 1)"
        return f"case when {text} like '%e%' then substring_index({text}, 'e', -1) else '' end"

    other = exponent_form(
        text, f"{value} < 0", split, trim="trim(both '0' from {})", ltrim="trim(leading '0' from {})", as_text="char"
    )
    return (
        f"case when {value} = 0 then '0' when abs({value}) >= 1e-4 and abs({value}) < 1e15 then cast({value} as char) "
        f"when {value} is null then null else {other} end"
    )


__all__ = ["MySQLCanonical"]
