"""Which record of a key is the newest, by the canonical texts of the column of `latest_by`. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from msgspec import Struct

from syncblocks.connectors.checksums import ComparedColumn, Row, TextForm
from syncblocks.connectors.checksums.sql import read_float
from syncblocks.connectors.write_spec import WriteSpec

_NUMBERS = (TextForm.INTEGER, TextForm.DECIMAL)
_TIMES = (TextForm.DATE, TextForm.TIMESTAMP, TextForm.TIMESTAMP_NS, TextForm.TIME)


class Ages:
    """Compares records by one of their columns; NULL is older than any value, NaN above all."""

    def __init__(self, columns: Sequence[ComparedColumn], write: WriteSpec) -> None:
        self._is_lowest = write.latest_is_lowest
        name = write.latest_by  # columns of files may have no name
        self._place = next((place for place, column in enumerate(columns) if name and column.name == name), None)
        self._form = None if self._place is None else columns[self._place].form
        #: Whether ages decide: there is such a column.
        self.decide = self._place is not None

    def newest(self, rows: Sequence[Row]) -> list[Row]:
        """Return the newest rows, which are of one age."""
        ages = [self._age(row) for row in rows]
        return [row for row, age in zip(rows, ages, strict=True) if age == max(ages)]

    def is_newer(self, rows: Sequence[Row], others: Sequence[Row]) -> bool:
        """Tell whether one of the rows is newer than all others, of which there is one at least."""
        return bool(rows and others) and max(map(self._age, rows)) > max(map(self._age, others))

    def _age(self, row: Row) -> tuple[Any, ...]:
        assert self._place is not None
        text = row.values[self._place]
        if text is None:
            return (0,)
        return (1, _Lowest(self._value(text))) if self._is_lowest else self._value(text)

    def _value(self, text: str) -> tuple[Any, ...]:
        if self._form in _NUMBERS:
            return (2, Decimal(text))
        if self._form is TextForm.FLOAT:
            number = read_float(text)
            return (3,) if math.isnan(number) else (2, number)
        if self._form in _TIMES:
            # All texts are equally long, except for years before 1 and after 9999, and infinity.
            edges = {"-infinity": (1,), "infinity": (3,)}
            return edges.get(text, (1, 1) if text.endswith(" BC") else (2, len(text), text))
        return (2, text.encode())


class _Lowest(Struct, frozen=True):
    """A value of which the lowest is the newest."""

    value: tuple[Any, ...]

    def __lt__(self, other: _Lowest) -> bool:
        return other.value < self.value

    def __gt__(self, other: _Lowest) -> bool:
        return self.value < other.value


__all__ = ["Ages"]
