"""Rejected records of files: lines that are no records, and values that are none of their column's type."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from ..arrow.conform import shown
from ..rejected.limits import TooManyRejected, too_many
from ..rejected.records import rejection
from ..stream import Rejected, RejectedRecord


class Bad:
    """What one read sets aside; `take` hands it over."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._found = 0
        self._records: list[RejectedRecord] = []

    def demand_room(self, number: int, reason: str) -> None:
        """Raise if so many more would be too many.

        Raises:
            TooManyRejected: with the reason of the last one.
        """
        if self._found + number > self.limit:
            raise TooManyRejected(too_many(self.limit, reason))

    def add(self, record: Any, reason: str, place: str) -> None:
        """Set a record aside: a dict of its values, or the text of what is none."""
        self.demand_room(1, reason)
        self._found += 1
        self._records.append(rejection(record, reason, place))

    def take(self) -> list[Rejected]:
        """Return what was set aside since the last time, as at most one event."""
        if not self._records:
            return []
        records, self._records = tuple(self._records), []
        return [Rejected(records=records)]


class Skipped:
    """Records of one file that have another number of fields than there are columns."""

    def __init__(self) -> None:
        #: Number among all records, from 1 -> text, and number of its fields. A block that is read again adds nothing.
        self.rows: dict[int, tuple[str, int]] = {}
        #: Records before the piece that is parsed, and those of it that were noted.
        self._before = self._noted = 0

    def note(self, row: Any) -> str:
        """Take one, as Arrow's `invalid_row_handler`."""
        self.rows[self._before + row.number] = (row.text, row.actual_columns)
        self._noted += 1
        return "skip"

    def begin(self) -> None:
        """The file is parsed from its beginning, piece by piece: the parser counts those of one only."""
        self._before = self._noted = 0

    def go_on(self, whole: int) -> None:
        """A piece was parsed, which has so many whole records beside those that were noted."""
        self._before += whole + self._noted
        self._noted = 0

    def place(self, whole: int) -> int:
        """Return a record's place among all records of the file, given that among the whole ones."""
        for number in sorted(self.rows):
            if number - 1 > whole:
                break
            whole += 1
        return whole


class Misfit(ValueError):
    """A value that is none of its column's type."""

    def __init__(self, field: pa.Field, place: int, value: str | None) -> None:
        super().__init__(no_such(field.name, value, field.type))
        self.field = field
        self.place = place
        self.value = value


def no_such(column: str, value: object, kind: pa.DataType) -> str:
    """Say that a value is none of its column's type."""
    return f"column {column!r}: {shown(value)} is no {kind}"


__all__ = ["Bad", "Misfit", "Skipped", "no_such"]
