"""Records that a tap sends again: those at its bookmark, which were committed before.

Taps read `>=` their bookmark. As in `connectors/incremental/checkpoints.py`, a bookmark keeps hashes of the records at
it, each after the hash of its key, by which committed records are recognised. A hash is over the columns that the
record had when it was last read: a tap may declare others at any time, and a change in any of them must arrive.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..arrow.masking import masked
from ..errors import ConnectorConfigError
from ..field_facts import facts_of
from ..incremental.bookmarks import BOUNDARY, HASH_BYTES, from_json, to_json
from ..incremental.committed import CommittedVersions
from ..incremental.hashes import record_hashes
from ..read_spec import Masks
from ..stream import Bookmark
from .numbers import EXACT

log = logging.getLogger("syncblocks")

#: Most records kept to find those at the next bookmark; most hashes in a bookmark.
RECENT_RECORDS = 131_072
MAX_HASHES = 10_000

#: Hexadecimal digits of a hash.
_DIGITS = 2 * HASH_BYTES

#: Key of a boundary: hashes over other columns than those of the boundary itself.
OTHERS = "others"

#: Hashes of a key and of its record.
_Version = tuple[str | None, str]
#: Columns in the order in which a record is hashed.
_Columns = tuple[str, ...]


class ResentRecords:
    """Drops the records committed before, and notes those at the bookmark.

    Args:
        stream: for messages.
        column: the replication key; None: no record can be recognised.
        bookmark: as the ledger holds it.
        keys: key columns of every batch; empty: equal records are counted.
        is_merged: records may be sent twice, since a merge makes that harmless.
        masks: of the records' columns; hashes are of masked records.
    """

    def __init__(
        self,
        stream: str,
        column: str | None,
        bookmark: Bookmark | None,
        *,
        keys: Sequence[str] = (),
        is_merged: bool = False,
        masks: Masks | None = None,
    ) -> None:
        self._stream = stream
        self._masks = masks
        self.column = column
        self._keys = list(keys)
        self._is_merged = is_merged
        kept: Mapping[str, Any] = (bookmark or {}).get(BOUNDARY) or {}
        #: Committed records by the columns of their hashes.
        self._committed = dict(self._committed_in(kept))
        #: Committed records that the tap has sent again, hashed over the columns that they have now.
        self._met = Counter[tuple[_Columns, _Version]]()
        self._high = kept.get("high")
        self._recent: list[pa.RecordBatch] = []
        self._recent_records = 0
        self._has_dropped = False
        self._has_warned = False

    def _committed_in(self, kept: Mapping[str, Any]) -> Iterator[tuple[_Columns, CommittedVersions[str]]]:
        is_of_these_keys = bool(self._keys) and kept.get("keys") == self._keys
        for part in (kept, *kept.get(OTHERS, ())):
            versions = Counter(dict(self._versions_in(part, is_of_these_keys=is_of_these_keys)))
            if versions:
                made = CommittedVersions(versions.elements(), is_keyed=bool(self._keys), is_merged=self._is_merged)
                yield tuple(part["columns"]), made

    def _versions_in(self, kept: Mapping[str, Any], *, is_of_these_keys: bool) -> Iterator[tuple[_Version, int]]:
        """Yield hashes of key and record with their count; for a merge only those with a key."""
        for text, count in (kept.get("hashes") or {}).items():
            key = text[:-_DIGITS] if is_of_these_keys else ""
            if key or not (self._is_merged and self._keys):
                yield (key or None, text[-_DIGITS:]), count

    def take(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch without the records committed before; keep those that may be at the next bookmark."""
        mask = self.mark(batch)
        return batch if mask is None else batch.filter(mask)

    def mark(self, batch: pa.RecordBatch) -> pa.BooleanArray | None:
        """Do as `take`, but return a mask of the remaining records; None: all."""
        if self.column is None or not batch.num_rows or not _is_ordered(batch, self.column):
            return None
        mask = self._not_committed(batch) if self._committed else None
        if mask is not None:
            batch = batch.filter(mask)
        if batch.num_rows:
            self._recent.append(batch)
            self._recent_records += batch.num_rows
            if self._recent_records > RECENT_RECORDS:
                self._keep_highest()
        return mask

    def below(self, batch: pa.RecordBatch, value: Any) -> int:
        """Count the records of a batch below a replication key; of texts only those of its length are compared."""
        if self.column is None or not batch.num_rows or not _is_ordered(batch, self.column):
            return 0
        place, column = self._scalar(value, batch), batch.column(self.column)
        if place is None:
            return 0
        if pa.types.is_string(column.type):
            column = column.filter(pc.equal(pc.utf8_length(column), pc.utf8_length(place)))
        return pc.sum(pc.less(column, place)).as_py() or 0

    def _not_committed(self, batch: pa.RecordBatch) -> pa.BooleanArray | None:
        self._keep_comparable(batch.schema.names)
        high = self._scalar(self._high, batch)
        if not self._committed or high is None:
            return None
        may_be = pc.invert(pc.fill_null(pc.greater(batch.column(self.column), high), False))
        if not pc.any(may_be).as_py():
            return None
        is_met = iter(self._are_met(batch.filter(may_be)))
        return pa.array([not (may and next(is_met)) for may in may_be.to_pylist()], pa.bool_())

    def _keep_comparable(self, names: Sequence[str]) -> None:
        """Forget the hashes over columns that a record does not have, and of a merge those that lack one of its own."""
        present, today = set(names), set(_hashed(names))
        self._committed = {
            columns: committed
            for columns, committed in self._committed.items()
            # A merge sends the records again: they get their values of the new column.
            if present.issuperset(columns) and not (self._is_merged and today.difference(columns))
        }

    def _are_met(self, batch: pa.RecordBatch) -> list[bool]:
        """Tell for each record whether it was committed before, and note it over all columns that it has now."""
        today = _hashed(batch.schema.names)
        hashed = {columns: self._versions(batch, columns) for columns in {today, *self._committed}}
        is_met = []
        for place, version in enumerate(hashed[today]):
            is_met.append(any(each.meets(hashed[columns][place]) for columns, each in self._committed.items()))
            if is_met[-1]:
                self._met[today, version] += 1
            elif version[0] is not None:
                self._replace([version[0]])
        return is_met

    def _replace(self, keys: Sequence[str]) -> None:
        for committed in self._committed.values():
            committed.replace(keys)

    def _versions(self, batch: pa.RecordBatch, columns: Sequence[str]) -> list[_Version]:
        batch = masked(batch, self._masks)
        records = _hashes(batch, columns)
        keys: Sequence[str | None] = _hashes(batch, self._keys) if self._keys else [None] * batch.num_rows
        return list(zip(keys, records, strict=True))

    def _keep_highest(self) -> None:
        kept = [part for part in self._at_or_past(self._highest()) if part.num_rows]
        self._recent, self._recent_records = kept, sum(part.num_rows for part in kept)
        self._has_dropped = True

    def _highest(self) -> pa.Scalar | None:
        highs = [pc.max(batch.column(self.column)) for batch in self._recent]
        highs = [high for high in highs if high.is_valid]
        return None if not highs else pc.max(pa.array([h.as_py() for h in highs], highs[0].type))

    def _at(self, values: Sequence[pa.Scalar]) -> list[pa.RecordBatch]:
        places = pa.array([value.as_py() for value in values], values[0].type)
        return self._where(lambda column: pc.is_in(column, places))

    def _at_or_past(self, low: pa.Scalar | None) -> list[pa.RecordBatch]:
        return [] if low is None else self._where(lambda column: pc.fill_null(pc.greater_equal(column, low), False))

    def _where(self, is_kept: Callable[[pa.Array], pa.BooleanArray]) -> list[pa.RecordBatch]:
        parts = []
        for batch in self._recent:
            try:
                parts.append(batch.filter(is_kept(batch.column(self.column))))
            except pa.ArrowException:  # the type of the column has changed meanwhile
                parts.append(batch)
        return parts

    def at(self, value: Any, *, values: Sequence[Any] = (), is_complete: bool = False) -> dict[str, Any]:
        """Return the hashes for a bookmark at this value: of the records sent so far at or past it.

        Args:
            value: the replication key's value in the STATE; None: unknown, the highest value sent counts.
            values: instead of one, the value at which each partition of the stream goes on: only records at one of
                them come again.
            is_complete: the tap has ended.
        """
        if self.column is None:
            return {}
        highest = self._highest() if self._recent else None
        wanted = [value] if value is not None else values
        places = [self._scalar(each, self._recent[-1]) for each in wanted] if self._recent else []
        found = [place for place in places if place is not None]
        low = pc.min(pa.array([place.as_py() for place in found], found[0].type)) if found else None
        parts = self._at(found) if values and found else self._at_or_past(highest if low is None else low)
        records = sum(part.num_rows for part in parts)
        is_kept = self._keeps_old(low, highest)
        if records > MAX_HASHES:
            if not self._has_warned:
                self._has_warned = True
                log.info(
                    "%s: the tap's state is %s records behind; if it sends them again, append writes them twice",
                    self._stream,
                    records,
                )
            parts, records = [], 0
            is_kept = is_kept and not self._is_merged
        self._recent, self._recent_records = (parts, records) if records else (self._recent, self._recent_records)
        new = [
            (columns, version)
            for part in parts
            for columns in (_hashed(part.schema.names),)
            for version in self._versions(part, columns)
        ]
        self._replace([key for _, (key, _) in new if key is not None])
        old = self._old(is_complete=is_complete) if is_kept else []
        if values:  # which of them are past is unknown: the oldest go
            old = old[-MAX_HASHES:]
        return self._kept_hashes(self._higher(highest) if old else to_json(highest), old, new)

    def _old(self, *, is_complete: bool) -> list[tuple[_Columns, _Version]]:
        """Return the versions committed before, without keys of which another version was sent."""
        if self._is_merged and self._has_dropped:
            return []  # the keys of some sent records are no longer known; a merge may send the others again
        replaced = [committed.is_replaced for committed in self._committed.values()] if self._is_merged else []
        met = [each for each in self._met.elements() if not any(is_replaced(each[1][0]) for is_replaced in replaced)]
        unread = [
            (columns, version)
            for columns, committed in self._committed.items()
            for version in committed.unread(is_complete=is_complete)
        ]
        return [*unread, *met]

    def _kept_hashes(
        self, high: Any, old: list[tuple[_Columns, _Version]], new: list[tuple[_Columns, _Version]]
    ) -> dict[str, Any]:
        if self._is_merged and self._keys:
            new = list({version[0]: (columns, version) for columns, version in new}.values())
            old = old if len(old) + len(new) <= MAX_HASHES else []
        found: dict[_Columns, Counter[str]] = {}
        for columns, (key, digest) in (*old, *new):
            found.setdefault(columns, Counter())[f"{key or ''}{digest}"] += 1
        if not found:
            return {}
        parts = [{"columns": list(columns), "hashes": dict(hashes)} for columns, hashes in found.items()]
        boundary: dict[str, Any] = {**parts[0], "high": high}
        if self._keys:
            boundary["keys"] = self._keys
        if parts[1:]:
            boundary[OTHERS] = parts[1:]
        return {BOUNDARY: boundary}

    def _higher(self, highest: pa.Scalar | None) -> Any:
        """Return the highest replication key of all records sent, as a JSON value."""
        old = None if highest is None else self._scalar(self._high, self._recent[-1])
        is_lower = highest is None or (old is not None and pc.less(highest, old).as_py())
        return self._high if is_lower else to_json(highest)

    def _keeps_old(self, low: pa.Scalar | None, highest: pa.Scalar | None) -> bool:
        """Tell whether the tap would send records of an earlier run again."""
        if not self._committed:
            return False
        if not self._recent:
            return True
        old = self._scalar(self._high, self._recent[-1])
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
            from .text_values import from_texts

            return from_texts(pa.array([value]), kind)[0]
        except (ValueError, pa.ArrowException):
            return None


def _hashed(names: Sequence[str]) -> _Columns:
    """Return the columns that are equal when a record is sent again: not those of the extraction."""
    return tuple(name for name in names if not name.startswith("_sdc_")) or tuple(names)


def _hashes(batch: pa.RecordBatch, columns: Sequence[str]) -> list[str]:
    """Hash records so that equal numbers have equal hashes, whatever the type of the column."""
    arrays = []
    for name in columns:
        column, field = batch.column(name), batch.schema.field(name)
        kind, types = column.type, pa.types
        is_digits = facts_of(field).native_type == "numeric"
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
