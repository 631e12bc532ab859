"""Statements that compute checksums in a database; the `Canonical` of a dialect writes the canonical texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from itertools import chain, pairwise
from typing import Any

import pyarrow as pa

from ..compared_values import EVERYTHING, ComparedColumn, Digest, Key, KeyRange, Row, Side, TextForm
from .json_values import is_same_json

#: Most arguments of one function call: PostgreSQL takes 100.
_MAX_ARGUMENTS = 50

#: Most ranges that a condition lists, so that an index finds each; among more, a search by halves finds a key's.
_MOST_LISTED = 100

#: A table with fewer records is not split before its first digests: to read it once more costs less than to ask.
_SMALL_RECORDS = 50_000

#: Runs a query and returns all rows.
Query = Callable[[str], Sequence[tuple[Any, ...]]]


class Canonical(ABC):
    """Canonical texts, their order and their hash, in one dialect's SQL. `column` is a quoted name (`t."id"`)."""

    #: Separator of two values, and mark of NULL: control characters, which values hardly contain.
    separator = "chr(31)"
    null = "chr(1)"
    #: A number from 0 to below 1, another one for each record.
    random = "random()"

    @abstractmethod
    def text(self, column: str, compared: ComparedColumn) -> str:
        """Write the canonical text of a value; NULL for NULL."""

    @abstractmethod
    def hashed(self, text: str, *, own: bool) -> str:
        """Write the first 60 bits of a text's MD5 as an integer; `own`: the system's own hash will do."""

    @abstractmethod
    def comparable(self, column: str, compared: ComparedColumn) -> str:
        """Write a key column so that it compares as in every other system."""

    @abstractmethod
    def constant(self, text: str, compared: ComparedColumn) -> str:
        """Write a canonical text as a constant to compare `comparable` with."""

    def record(self, columns: Sequence[tuple[str, ComparedColumn]]) -> str:
        """Write one text for all columns of a record."""
        if not columns:
            return "''"
        parts = []
        for column, compared in columns:
            text = self.text(column, compared)
            may_be_null = compared.field.nullable or compared.form is TextForm.JSON_LINE
            parts.append(f"coalesce({text}, {self.null})" if may_be_null else text)
        while len(parts) > 1:
            groups = [parts[place : place + _MAX_ARGUMENTS] for place in range(0, len(parts), _MAX_ARGUMENTS)]
            parts = [f"concat_ws({self.separator}, {', '.join(group)})" for group in groups]
        return parts[0]


class SqlChecksums:
    """The checksums of one table, by queries."""

    #: A table rejects none of its own records.
    rejected = 0

    def __init__(
        self,
        query: Query,
        canonical: Canonical,
        side: Side,
        *,
        table: str,
        quote: Callable[[str], str],
        past: str = "",
        record_hash: str = "",
        record_size: str = "",
    ) -> None:
        """Write statements for a table.

        Args:
            query: runs them, all in one snapshot.
            canonical: the dialect's.
            side: the side to compute.
            table: the FROM item; its alias must be `t`.
            quote: quotes a name.
            past: condition for records past the bookmark; empty: no record is.
            record_hash: a column that already holds the hash.
            record_size: a column that already holds the number of characters.
        """
        self._query = query
        self._canonical = canonical
        self._table = table
        self._past = past
        self._keys = [(f"t.{quote(column.name)}", column) for column in side.key]
        self._columns = [(f"t.{quote(column.name)}", column) for column in side.columns]
        self._hash = record_hash or canonical.hashed(canonical.record(self._columns), own=side.has_own_hash)
        self._size = record_size or f"length({canonical.record(self._columns)})"

    def digests(self, ranges: Sequence[KeyRange]) -> list[Digest]:
        """Return one digest for each range, in one pass."""
        found = self._query(
            f"select b, count(*), sum(h) from (select {self._place(ranges)} as b, {self._hash} as h from {self._table}"
            f"{self._where(ranges, is_bounded=True)}) as d group by b"
        )
        by_place = {int(place): Digest(int(records), int(total or 0)) for place, records, total in found}
        return [by_place.get(place, Digest(0, 0)) for place in range(len(ranges))]

    def sample(self, records: int) -> list[Key]:
        """Return about so many keys, drawn at random, ascending; empty for a small table."""
        where = self._where([EVERYTHING], is_bounded=True)
        ((count,),) = self._query(f"select count(*) from {self._table}{where}")
        if count < _SMALL_RECORDS or not self._keys:
            return []
        drawn = f"{where} and" if where else " where"
        texts = ", ".join(self._canonical.text(*key) for key in self._keys)
        found = self._query(
            f"select {texts} from {self._table}{drawn} {self._canonical.random} < {records / count:.12f} "
            f"order by {', '.join(self._order())}"
        )
        return [tuple(key) for key in found if None not in key]

    def boundaries(self, ranges: Sequence[tuple[KeyRange, int]]) -> list[list[Key]]:
        """Return the keys that split each range, in one pass over the keys."""
        wanted = [each for each, _ in ranges]
        place, order = self._place(wanted), ", ".join(self._order())
        partition = f"partition by {place} " if len(ranges) > 1 else ""
        texts = [f"{self._canonical.text(*key)} as k{number}" for number, key in enumerate(self._keys)]
        names = ", ".join(f"k{number}" for number in range(len(texts)))
        sizes = "".join(f" when {number} then {size}" for number, (_, size) in enumerate(ranges))
        found = self._query(
            f"select b, {names} from (select {place} as b, {', '.join(texts)}, "
            f"row_number() over ({partition}order by {order}) as n from {self._table}"
            f"{self._where(wanted, is_bounded=True)}) as d where n > 1 and mod(n - 1, case b{sizes} end) = 0 "
            "order by b, n"
        )
        result: list[list[Key]] = [[] for _ in ranges]
        for number, *key in found:
            keys = result[int(number)]
            if None not in key and (not keys or keys[-1] != tuple(key)):
                keys.append(tuple(key))
        return result

    def sizes(self, ranges: Sequence[KeyRange]) -> list[int]:
        """Return the characters of the records of each range, in one pass over them."""
        found = self._query(
            f"select b, sum(s) from (select {self._place(ranges)} as b, {self._size} as s from {self._table}"
            f"{self._where(ranges, is_bounded=False)}) as d group by b"
        )
        by_place = {int(place): int(total or 0) for place, total in found}
        return [by_place.get(place, 0) for place in range(len(ranges))]

    def rows(self, ranges: Sequence[KeyRange]) -> list[Row]:
        """Return the records of some ranges."""
        texts = [self._canonical.text(*each) for each in (*self._keys, *self._columns)]
        flag = f"case when {self._past} then 1 else 0 end" if self._past else "0"
        place = self._place(ranges)
        sql = f"select {place}, {flag}, {', '.join(texts)} from {self._table}{self._where(ranges, is_bounded=False)}"
        end = 2 + len(self._keys)
        return [Row(int(row[0]), tuple(row[2:end]), tuple(row[end:]), bool(row[1])) for row in self._query(sql)]

    def within(self, ranges: Iterable[KeyRange]) -> str:
        """Write the condition that a key is in one of the ranges, ascending ones; empty: every key is."""
        joined = _joined(ranges)
        if EVERYTHING in joined:
            return ""
        whole = KeyRange(joined[0].start, joined[-1].end)
        # A planner that sees how far they reach together does not look at all records for each of them.
        parts = [] if whole == EVERYTHING else [self._in(whole)]
        if len(joined) > _MOST_LISTED and parts:
            parts.append(f"mod({self._place(_with_gaps(joined))}, 2) = 0")
        elif len(joined) > 1 or not parts:
            parts.append(f"({' or '.join(map(self._in, joined))})")
        return f"({' and '.join(parts)})"

    def _in(self, keys: KeyRange) -> str:
        bounds = [self._compare(">=", keys.start)] if keys.start else []
        bounds += [self._compare("<", keys.end)] if keys.end else []
        return f"({' and '.join(bounds)})"

    def _where(self, ranges: Iterable[KeyRange], *, is_bounded: bool) -> str:
        conditions = [f"({self._past}) is not true"] if is_bounded and self._past else []
        within = self.within(ranges)
        conditions += [within] if within else []
        return f" where {' and '.join(conditions)}" if conditions else ""

    def _order(self) -> list[str]:
        return [self._canonical.comparable(*key) for key in self._keys]

    def _compare(self, operator: str, key: Key) -> str:
        values = [
            self._canonical.constant(str(text), column) for text, (_, column) in zip(key, self._keys, strict=True)
        ]
        order = self._order()
        if len(order) == 1:
            return f"{order[0]} {operator} {values[0]}"
        return f"({', '.join(order)}) {operator} ({', '.join(values)})"

    def _place(self, ranges: Sequence[KeyRange]) -> str:
        """Write the position of a record's range as a binary search, so that many ranges cost little."""

        def search(low: int, high: int) -> str:
            if high - low == 1:
                return str(low)
            middle = (low + high) // 2
            start = ranges[middle].start
            assert start is not None  # only the first range of several is open at its start
            return f"case when {self._compare('<', start)} then {search(low, middle)} else {search(middle, high)} end"

        return search(0, len(ranges))


def _joined(ranges: Iterable[KeyRange]) -> list[KeyRange]:
    """Join adjacent ranges."""
    result: list[KeyRange] = []
    for each in ranges:
        if result and result[-1].end is not None and result[-1].end == each.start:
            result[-1] = KeyRange(result[-1].start, each.end)
        else:
            result.append(each)
    return result


def _with_gaps(ranges: Sequence[KeyRange]) -> list[KeyRange]:
    """Return the ranges with what is between each two of them, so that they stand at even places."""
    gaps = [[KeyRange(before.end, after.start), after] for before, after in pairwise(ranges)]
    return [ranges[0], *chain.from_iterable(gaps)]


def exponent_form(
    text: str, is_negative: str, split: Callable[[str, int], str], *, trim: str, ltrim: str, as_text: str
) -> str:
    """Write a float as `<sign><digits>e<exponent>`, the digits a fraction below 1, whatever form its text has.

    Args:
        text: the float's absolute value as text: `1.5e+20`, `0.00001`, `1000000000000000.0`.
        is_negative: the condition that the float is negative.
        split: writes the part of a text before (1) or after (2, may be empty) its `e`.
        trim: format that removes zeros at both ends.
        ltrim: format that removes zeros at the start.
        as_text: type to cast to for a text.
    """
    mantissa, power = split(text, 1), split(text, 2)
    digits = f"replace({mantissa}, '.', '')"
    whole = f"length(case when {mantissa} like '%.%' then {_before_point(mantissa)} else {mantissa} end)"
    zeros = f"(length({digits}) - length({ltrim.format(digits)}))"
    exponent = f"(cast(coalesce(nullif({power}, ''), '0') as decimal(10,0)) + {whole} - {zeros})"
    return (
        f"concat(case when {is_negative} then '-' else '' end, {trim.format(digits)}, 'e', "
        f"cast(cast({exponent} as decimal(10,0)) as {as_text}))"
    )


def _before_point(text: str) -> str:
    return f"substring({text}, 1, position('.' in {text}) - 1)"


def interval_form(column: str, months: str, days: str, microseconds: str, *, as_text: str) -> str:
    """Write an interval as `arrow.text` does, from its integer parts."""
    rest = f"lpad(cast(abs({microseconds}) % 1000000 as {as_text}), 6, '0')"
    time = (
        f"concat('T', case when {microseconds} < 0 then '-' else '' end, "
        f"cast((abs({microseconds}) - abs({microseconds}) % 1000000) / 1000000 as bigint), "
        f"rtrim(concat('.', {rest}), '.0'), 'S')"
    )
    return (
        f"case when {column} is not null then concat('P', "
        f"case when {months} <> 0 then concat({months}, 'M') else '' end, "
        f"case when {days} <> 0 then concat({days}, 'D') else '' end, "
        f"case when {microseconds} <> 0 or {months} = 0 and {days} = 0 then {time} else '' end) end"
    )


def read_float(text: str) -> float:
    """Read a canonical text of a float."""
    digits, mark, exponent = text.partition("e")
    if not mark or not exponent:
        return float(text)
    sign, digits = ("-", digits[1:]) if digits.startswith("-") else ("", digits)
    return float(f"{sign}0.{digits}e{exponent}")


def is_same(left: str | None, right: str | None, column: ComparedColumn) -> bool:
    """Tell whether two canonical texts have the same value: a float may have two texts."""
    if left == right:
        return True
    if left is None or right is None:
        return False
    if column.form in _JSON:
        return is_same_json(left, right, _written_type(column))
    if column.form is TextForm.TEXT and pa.types.is_decimal(column.field.type):
        return _is_same_decimal(left, right)
    return column.form is TextForm.FLOAT and read_float(left) == read_float(right)


def _is_same_decimal(left: str, right: str) -> bool:
    """Compare texts of decimals, which may have exponents."""
    try:
        return Decimal(left) == Decimal(right)
    except ArithmeticError:
        return False


#: Forms that are JSON.
_JSON = frozenset({TextForm.LIST, TextForm.NESTED, TextForm.NESTED_JSONB, TextForm.JSONB, TextForm.JSON_VALUE})


def _written_type(column: ComparedColumn) -> pa.DataType | None:
    """Return the type that the JSON was written from; None: unknown."""
    if pa.types.is_nested(column.field.type):
        return column.field.type
    return pa.list_(pa.float64()) if column.item is TextForm.FLOAT else None


__all__ = ["Canonical", "Query", "SqlChecksums", "exponent_form", "interval_form", "is_same", "read_float"]
