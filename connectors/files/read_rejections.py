"""Rejected records of files that are read: lines that are no records, values that their column's type lacks."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from ..arrow.conform import shown
from ..arrow.type_names import type_text
from ..rejected.limits import too_many
from ..rejected.records import rejection
from ..stream import Rejected, RejectedRecord


class ReadRejections:
    """The rejected records of one read, counted up to a limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._found = 0
        self._records: list[RejectedRecord] = []

    def demand_room(self, number: int, reason: str) -> None:
        """Check that `number` more rejected records stay within the limit.

        Raises:
            TooManyRejected: they do not; `reason` is the last record's.
        """
        if self._found + number > self.limit:
            raise too_many(self.limit, reason)

    def add(self, record: Any, reason: str, place: str, without_values: str = "") -> None:
        """Reject a record: its values by column, or text that is no record; the rest as in `rejection`."""
        self.demand_room(1, reason)
        self._found += 1
        self._records.append(rejection(record, reason, place, without_values))

    def take(self) -> list[Rejected]:
        """Return the records rejected since the last call, as at most one event."""
        if not self._records:
            return []
        records, self._records = tuple(self._records), []
        return [Rejected(records=records)]


class RaggedRecords:
    """Records of one CSV file with more or fewer fields than the file has columns."""

    def __init__(self) -> None:
        #: Record number in the file, from 1 -> text and number of fields. A block that is read again adds nothing.
        self.rows: dict[int, tuple[str, int]] = {}
        #: Numbers of those that are records all the same (`short_rows`); in the end they are no `rows` any more.
        self.joined: set[int] = set()
        #: Records before the current piece; ragged records in it.
        self._before = self._noted = 0

    def note(self, row: Any) -> str:
        """Note one record; the `invalid_row_handler` of Arrow's CSV reader."""
        self.rows[self._before + row.number] = (row.text, row.actual_columns)
        self._noted += 1
        return "skip"

    @property
    def rejected(self) -> int:
        """How many are no records."""
        return len(self.rows) - len(self.joined)

    def begin(self) -> None:
        """Begin at the start of the file. Arrow numbers the records of each piece that it parses from 1."""
        self._before = self._noted = 0

    def go_on(self, whole: int) -> None:
        """End a piece that has `whole` records besides the ragged ones."""
        self._before += whole + self._noted
        self._noted = 0

    def place(self, whole: int) -> int:
        """Return a record's position in the file, given its position among the records that are not ragged."""
        for number in sorted(self.rows):
            if number - 1 > whole:
                break
            whole += 1
        return whole


class InvalidValue(ValueError):
    """A value that its column's type lacks."""

    def __init__(self, field: pa.Field, place: int, value: str | None) -> None:
        super().__init__(no_such(field.name, value, field.type))
        self.field = field
        self.place = place
        self.value = value


def no_such(column: str, value: object, kind: pa.DataType) -> str:
    """Return the message for a value that its column's type lacks."""
    return f"column {column!r}: {shown(value)} is no {type_text(kind)}"


__all__ = ["InvalidValue", "RaggedRecords", "ReadRejections", "no_such"]
