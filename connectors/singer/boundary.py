"""Records that a tap sends again: those at its bookmark, which were committed before.

Taps read `>=` their bookmark. As for our own sources (`connectors/incremental/bookmarks.py`), hashes of the records
that stand at it are kept with the bookmark, and tell which of them were committed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import ConnectorConfigError
from ..incremental.bookmarks import BOUNDARY, from_json, not_committed, to_json
from ..incremental.hashes import record_hashes
from ..stream import Bookmark
from .numbers import EXACT

log = logging.getLogger("syncblocks")

#: Records kept to see which of them stand at the next bookmark, and hashes that a bookmark may hold.
RECENT_RECORDS = 131_072
MAX_HASHES = 10_000


class Boundary:
    """Drops what was committed before, and notes what stands at the bookmark.

    Args:
        stream: for messages.
        column: the replication key; None: nothing can be told.
        bookmark: as the ledger holds it.
    """

    def __init__(self, stream: str, column: str | None, bookmark: Bookmark | None) -> None:
        self._stream = stream
        self.column = column
        kept: Mapping[str, Any] = (bookmark or {}).get(BOUNDARY) or {}
        self._old = dict(kept)
        self._committed = Counter(kept.get("hashes") or {})
        self._columns: list[str] = list(kept.get("columns") or ())
        self._high = kept.get("high")
        self._recent: list[pa.RecordBatch] = []
        self._recent_records = 0
        self._has_warned = False

    def take(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch without records committed before, and keep what may stand at the next bookmark."""
        mask = self.mark(batch)
        return batch if mask is None else batch.filter(mask)

    def mark(self, batch: pa.RecordBatch) -> pa.BooleanArray | None:
        """Do as `take`, and return which records it leaves; None: all."""
        if self.column is None or not batch.num_rows or not _is_ordered(batch, self.column):
            return None
        mask = self._not_committed(batch) if self._committed.total() else None
        if mask is not None:
            batch = batch.filter(mask)
        if batch.num_rows:
            self._recent.append(batch)
            self._recent_records += batch.num_rows
            if self._recent_records > RECENT_RECORDS:
                self._keep_highest()
        return mask

    def _not_committed(self, batch: pa.RecordBatch) -> pa.BooleanArray | None:
        if not set(self._columns) <= set(batch.schema.names):
            return None
        high = self._scalar(self._high, batch)
        if high is None:
            return None
        may_be = pc.fill_null(pc.less_equal(batch.column(self.column), high), False)
        if not pc.any(may_be).as_py():
            return None
        keep = not_committed(_hashes(batch.filter(may_be), self._columns), may_be, self._committed)
        return pa.array(keep, pa.bool_())

    def _keep_highest(self) -> None:
        kept = [part for part in self._at_or_past(self._highest()) if part.num_rows]
        self._recent, self._recent_records = kept, sum(part.num_rows for part in kept)

    def _highest(self) -> pa.Scalar | None:
        highs = [pc.max(batch.column(self.column)) for batch in self._recent]
        highs = [high for high in highs if high.is_valid]
        return None if not highs else pc.max(pa.array([h.as_py() for h in highs], highs[0].type))

    def _at_or_past(self, low: pa.Scalar | None) -> list[pa.RecordBatch]:
        if low is None:
            return []
        parts = []
        for batch in self._recent:
            try:
                parts.append(batch.filter(pc.fill_null(pc.greater_equal(batch.column(self.column), low), False)))
            except pa.ArrowException:  # the column has changed its type meanwhile
                parts.append(batch)
        return parts

    def at(self, value: Any) -> dict[str, Any]:
        """Return what a bookmark at this value keeps: hashes of the records at or past it that were sent so far.

        Args:
            value: the replication key's value in the STATE; None where it cannot be told (then: the highest sent).
        """
        if self.column is None:
            return {}
        highest = self._highest() if self._recent else None
        low = None
        if value is not None and self._recent:
            low = self._scalar(value, self._recent[-1])
        parts = self._at_or_past(highest if low is None else low)
        records = sum(part.num_rows for part in parts)
        if records > MAX_HASHES:
            if not self._has_warned:
                self._has_warned = True
                log.info(
                    "%s: the tap's state lies %s records back; should it send them again, append doubles them",
                    self._stream,
                    records,
                )
            parts, records = [], 0
        old = self._old if self._keeps_old(low, highest) else {}
        if not records:
            return {BOUNDARY: old} if old else {}
        columns = _hashed(parts[0].schema.names)
        if old and set(old["columns"]) <= set(columns):
            columns = old["columns"]
        hashes = Counter[str](old["hashes"] if old and old["columns"] == columns else {})
        for part in parts:
            hashes.update(_hashes(part, [name for name in columns if name in part.schema.names]))
        self._recent, self._recent_records = parts, records
        return {BOUNDARY: {"columns": columns, "high": to_json(highest), "hashes": dict(hashes)}}

    def _keeps_old(self, low: pa.Scalar | None, highest: pa.Scalar | None) -> bool:
        """Whether the tap would send records of an earlier run again."""
        if not self._old:
            return False
        if not self._recent:
            return True
        old = self._scalar(self._old.get("high"), self._recent[-1])
        if old is None:
            return False
        floor = highest if low is None else low
        return floor is None or bool(pc.less_equal(floor, old).as_py())

    def _scalar(self, value: Any, batch: pa.RecordBatch) -> pa.Scalar | None:
        if value is None:
            return None
        kind = batch.schema.field(self.column).type
        try:
            return from_json(value, kind, column=str(self.column), stream=self._stream)
        except ConnectorConfigError:
            pass
        if not isinstance(value, str):
            return None
        try:
            from .moments import from_texts

            return from_texts(pa.array([value]), kind)[0]
        except (ValueError, pa.ArrowException):
            return None


def _hashed(names: Sequence[str]) -> list[str]:
    """Columns that are the same when a record is sent again: not those that tell of the extraction."""
    return [name for name in names if not name.startswith("_sdc_")] or list(names)


def _hashes(batch: pa.RecordBatch, columns: Sequence[str]) -> list[str]:
    """Hash records so that a number is the same whatever type its column had in that run."""
    arrays = []
    for name in columns:
        column, field = batch.column(name), batch.schema.field(name)
        kind, types = column.type, pa.types
        is_digits = (field.metadata or {}).get(b"native_type") == b"numeric"
        if types.is_floating(kind) or types.is_decimal(kind) or types.is_integer(kind) or is_digits:
            column = pa.array([None if value is None else _digits(value) for value in column.to_pylist()], pa.string())
        arrays.append(column)
    hashes = record_hashes(pa.RecordBatch.from_arrays(arrays, names=list(columns)), columns)
    return [digest.hex() for digest in hashes]


def _digits(value: Any) -> str:
    try:
        number = Decimal(repr(value) if isinstance(value, float) else value)
    except InvalidOperation:
        return str(value)
    return str(number.normalize(EXACT)) if number else "0"


def _is_ordered(batch: pa.RecordBatch, column: str) -> bool:
    place = batch.schema.get_field_index(column)
    if place < 0:
        return False
    kind, types = batch.schema.field(place).type, pa.types
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_decimal(kind)
        or types.is_timestamp(kind)
        or types.is_date(kind)
        or types.is_string(kind)
    )
