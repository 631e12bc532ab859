"""INCREMENTAL reads: drop the records that were committed before, lose none, and yield checkpoints.

Sources read `>=` the bookmark, never `>`; of a stream that wants `>` the records at it are dropped here, once all of
them were read. A bookmark keeps, under `BOUNDARY`, hashes of the records that were committed
at or past it. Records past it exist because a running transaction could still commit a record below them (`Horizon`).
A hash covers the whole record, not the key alone: a record that changes within one tick of a coarse clock must arrive.
The hash of the key is kept beside it, so that only the last version of a key counts (`CommittedVersions`): a
record that returns to a former value must arrive, too.
"""

from __future__ import annotations

import itertools
import logging
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from msgspec import Struct

from ..arrow import compute as pc
from ..errors import FatalConnectorError, RetriableError
from ..read_spec import Condition, NullBookmarks
from ..stream import Bookmark, Checkpoint, Event, Stream
from .bookmarks import (
    BOUNDARY,
    CHECKPOINT_RECORDS,
    CHECKPOINT_S,
    HASH_BYTES,
    at_or_past,
    below_or_at,
    bookmark_values,
    demand_order,
    equal_to,
    from_json,
    has_bookmark,
    is_above,
    refuse_incomplete,
    same,
    to_json,
)
from .committed import CommittedVersions, first_of_each_key, last_of_each_key
from .hashes import BY_VALUE, forms, record_hashes
from .window import PASSED, Window

log = logging.getLogger("syncblocks")

_BY_KEYS = (
    "%s: a column is gone or has another type since the last run, so the records at the bookmark are recognised "
    "by their keys only: if one of them has changed since then, the change is not appended. `syncblocks state "
    "set` with the same bookmark appends all of them once more"
)

#: With more hashes than this, a checkpoint waits for a record past them, and a merge keeps no hashes.
MANY_HASHES = 10_000

#: Records between two looks whether a run that has reached its limit may stop.
_STEP = 1000

#: An append sends no more records than this past the settled ones: the others wait for the transaction to end.
MAX_UNSETTLED = 250_000


class Horizon(Struct, frozen=True, kw_only=True):
    """The point up to which no running transaction can commit a record any more."""

    #: Highest settled values of the bookmark_properties, or of the first ones; None: no record past the bookmark.
    settled: tuple[pa.Scalar, ...] | None
    #: JSON that the source finds again in the next bookmark, under `PENDING` of the boundary.
    pending: Mapping[str, Any] | None = None


#: Key of the boundary under which `Horizon.pending` is kept.
PENDING = "pending"

#: Key of a boundary's `keys`: they hold the last version of each key only, not every committed version.
LAST = "last"


def incremental(
    stream: Stream,
    batches: Iterable[pa.RecordBatch],
    bookmark: Bookmark | None,
    *,
    is_ordered: bool,
    horizon: Horizon | None = None,
    checkpoint_records: int = CHECKPOINT_RECORDS,
    checkpoint_s: float = CHECKPOINT_S,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Event]:
    """Drop the records committed before, pass the batches on, and yield checkpoints between them.

    Args:
        stream: the stream read; its bookmark_properties are columns of every batch.
        batches: records at or past `lower_bound`; if `is_ordered` is False, lower ones are dropped here. They have the
            columns of the stream's `engine_where`.
        bookmark: as the ledger holds it; None: from scratch.
        is_ordered: the batches come in ascending order of the bookmark, as the source compares values. Records with
            an incomplete bookmark come first, since no later run reads them. Unordered batches get one checkpoint,
            after the last batch, compared by Arrow.
        horizon: for ordered batches: the bookmark does not pass it; None: every record is settled.
        checkpoint_records: least number of records between two checkpoints.
        checkpoint_s: seconds after which a checkpoint comes earlier.
        clock: seconds, monotonic.
    """
    limit = stream.read.limit
    if limit is not None and not is_ordered:
        raise FatalConnectorError(
            f"stream {stream.name!r} has no order by {', '.join(stream.read.bookmark_properties)} for a read with "
            "`limit`: remove `limit`, or choose another bookmark",
            stream=stream.name,
            key="limit",
        )
    if stream.read.engine_where:
        batches = _matching(batches, stream.read.engine_where)
    tracker = _Tracker(stream, bookmark, is_ordered, horizon)
    pending, since = 0, clock()
    is_stopped = False
    for batch in _parts(batches, tracker, limit):
        kept = tracker.take(batch)
        if kept.num_rows:
            yield kept
            pending += kept.num_rows
        is_stopped = tracker.is_full or (limit is not None and tracker.taken >= limit and tracker.may_stop)
        if is_stopped:
            break
        is_due = pending >= checkpoint_records or clock() - since >= checkpoint_s
        if is_ordered and pending and is_due and tracker.may_checkpoint:
            tracker.has_checkpoint = True
            yield Checkpoint(bookmark=tracker.bookmark())
            pending, since = 0, clock()
    yield Checkpoint(bookmark=tracker.bookmark(is_complete=not is_stopped))


def _matching(batches: Iterable[pa.RecordBatch], conditions: Sequence[Condition]) -> Iterator[pa.RecordBatch]:
    """Yield the records that meet all conditions."""
    from ..filters import matches  # a pipeline without filters spares the import

    for batch in batches:
        yield _those(batch, matches(batch, conditions))


def _parts(batches: Iterable[pa.RecordBatch], tracker: _Tracker, limit: int | None) -> Iterator[pa.RecordBatch]:
    """Yield batches, each of no more records than are left of the limit; past it some at a time."""
    for batch in batches:
        left = batch
        while limit is not None and left.num_rows > (size := max(0, limit - tracker.taken) or _STEP):
            yield left.slice(0, size)
            left = left.slice(size)
        yield left


class _Boundary:
    """The records committed at or past a bookmark, as the bookmark keeps them."""

    def __init__(self, stream: Stream, bookmark: Bookmark | None) -> None:
        boundary: Mapping[str, Any] = (bookmark or {}).get(BOUNDARY) or {}
        self.columns: list[str] = list(boundary.get("columns") or ())
        self.by_value = bool(boundary.get(BY_VALUE))
        self.start = bookmark_values(stream, bookmark)
        #: Highest bookmark of the hashed records.
        self.through = self.start
        #: Columns of the key; empty: equal records are counted.
        self.key_columns = stream.key_properties if set(stream.key_properties) <= set(stream.schema.names) else ()
        versions = self._versions(stream, boundary)
        self.committed = CommittedVersions(versions, is_keyed=bool(self.key_columns), is_merged=stream.read.may_repeat)
        if not versions:
            return
        if boundary.get("through"):
            fields = [stream.schema.field(name) for name in stream.read.bookmark_properties]
            self.through = tuple(
                from_json(value, field.type, column=field.name, stream=stream.name)
                for value, field in zip(boundary["through"], fields, strict=True)
            )

    def _versions(self, stream: Stream, boundary: Mapping[str, Any]) -> list[tuple[bytes | None, bytes]]:
        """Return key and record hashes of the committed records; for a merge only those that it can compare."""
        keys: Mapping[str, Any] = boundary.get("keys") or {}
        records, key_hashes = _unpacked(boundary), _unpacked(keys)
        is_of_these_keys = tuple(keys.get("columns") or ()) == self.key_columns
        is_gone = not set(self.columns) <= set(stream.schema.names)
        if is_gone or keys.get("forms") not in (None, _forms(stream, self.columns)):
            # A column is gone or has another type: no record has these hashes any more, but a key may identify it.
            if key_hashes and set(keys["columns"]) <= set(stream.schema.names) and not stream.read.may_repeat:
                self.columns, records = list(keys["columns"]), key_hashes
                if not (stream.read.is_above_bookmark and boundary.get(PASSED)):
                    log.warning(_BY_KEYS, stream.name)
            elif is_gone or stream.read.may_repeat:
                return []
        if stream.read.may_repeat and not set(stream.schema.names) <= set(self.columns):
            return []  # a merge sends the records again: they get their values of the new column
        if stream.read.may_repeat and self.key_columns and not (is_of_these_keys and keys.get(LAST)):
            return []
        known = key_hashes if is_of_these_keys and self.key_columns else []
        versions = list(itertools.zip_longest(known, records))
        return versions if keys.get(LAST) or not known else first_of_each_key(versions)


def _forms(stream: Stream, columns: Sequence[str]) -> str:
    """Return the forms of a stream's columns as they leave their masks."""
    if stream.read.masks is None:
        return forms(stream.schema, columns)
    from ..arrow.masking import masked_schema

    return forms(masked_schema(stream.schema, stream.read.masks), columns)


def _unpacked(kept: Mapping[str, Any]) -> list[bytes]:
    packed = b64decode(kept.get("hashes") or b"")
    return [packed[place : place + HASH_BYTES] for place in range(0, len(packed), HASH_BYTES)]


class _Tracker:
    """Follows a read: the highest settled bookmark, and the hashes of the records at or past it."""

    def __init__(self, stream: Stream, bookmark: Bookmark | None, is_ordered: bool, horizon: Horizon | None) -> None:
        demand_order(stream)
        self._stream = stream
        self._names = list(stream.read.bookmark_properties)
        self._is_ordered = is_ordered
        self._is_empty = not bookmark
        self._boundary = _Boundary(stream, bookmark)
        self._committed = self._boundary.committed
        self._start = self._boundary.start
        self._window = Window.of(stream, bookmark)
        self._horizon = horizon
        #: The bookmark so far, and the highest record seen.
        self._high = self._start
        self._position: tuple[pa.Scalar, ...] | None = None
        # The bookmark's columns: a column added since must not make old records look new.
        self._columns = self._boundary.columns if self._committed.left else list(stream.schema.names)
        self._by_value = self._boundary.by_value if self._committed.left else True
        #: Hashes of the records seen at or past the bookmark; None: too many, and a merge may send them again.
        self._hashes: list[bytes] | None = []
        #: Hashes of the same records over all columns of today, where the bookmark's columns are others.
        self._renewed: list[bytes] = []
        #: Hashes of their keys, if there are keys.
        self._keys = self._boundary.key_columns
        self._key_hashes: list[bytes] = []
        #: Keys of which this merge has sent another version, whose bookmark is incomplete or below the present one.
        self._elsewhere: set[bytes] = set()
        self._unsettled = 0
        #: Records with a bookmark that this run has sent.
        self.taken = 0
        #: This run takes no more records.
        self.is_full = False
        #: Whether a checkpoint was yielded before the last batch.
        self.has_checkpoint = False

    @property
    def may_checkpoint(self) -> bool:
        """False if the next run would begin from scratch, but for a merge without hashes; or with too many hashes.

        Also while hashes leave columns of today out: a change in these, of a record sent by this run, would not arrive.
        """
        if self._hashes is None:
            return True
        return self._high is not None and len(self._hashes) <= MANY_HASHES and not self._has_other_columns

    @property
    def may_stop(self) -> bool:
        """Tell whether the next run can tell the records of this one from those that follow at the same bookmark."""
        if self._hashes is None or not self.may_checkpoint:
            return False
        is_within = self._position is not None and self._is_within(self._position)
        unread = len(self._committed.unread(is_complete=False)) if is_within else 0
        return len(self._hashes) + unread <= MANY_HASHES

    def take(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch without the records committed before, and note its records."""
        if batch.num_rows:
            batch = self._filter(batch)
        if not batch.num_rows:
            return batch
        self._is_empty = False
        self._note(batch)
        kept = self._drop_committed(batch)
        if self._stream.read.limit is not None and kept.num_rows:
            self.taken += has_bookmark(kept, self._names).true_count
        return kept

    def bookmark(self, *, is_complete: bool = False) -> Bookmark | None:
        """Return the bookmark of the records so far; None: there was no record.

        Args:
            is_complete: everything at or past the bookmark was read.
        """
        if self._is_empty:
            return None
        boundary: dict[str, Any] = {"columns": self._columns, "hashes": ""}
        # The next run must see a change in any column; versions that this read has not met are gone.
        is_renewed = is_complete and bool(self._renewed)
        if is_renewed:
            boundary["columns"] = list(self._stream.schema.names)
        if self._by_value:
            boundary[BY_VALUE] = True
        if is_complete and self._stream.read.is_above_bookmark:
            boundary[PASSED] = True
        through = self._position if self._is_ordered else self._high
        if self._hashes is not None:
            left = [] if is_renewed else self._unread(is_complete=is_complete)
            self._write(boundary, [*self._seen(self._renewed if is_renewed else self._hashes), *left])
            if left or through is None:
                through = self._boundary.through
        if self._horizon is not None and self._horizon.pending is not None:
            boundary[PENDING] = dict(self._horizon.pending)
        if boundary["hashes"] and through is not None and (self._high is None or not same(through, self._high)):
            boundary["through"] = [self._to_json(n, value) for n, value in zip(self._names, through, strict=True)]
        high = self._high or [None] * len(self._names)
        return {
            **{name: self._to_json(name, value) for name, value in zip(self._names, high, strict=True)},
            BOUNDARY: boundary,
        }

    @property
    def _has_other_columns(self) -> bool:
        """Tell whether the bookmark's hashes are of other columns than the stream has; those of before stay as is."""
        return self._by_value and set(self._columns) != set(self._stream.schema.names)

    def _seen(self, records: list[bytes]) -> list[tuple[bytes | None, bytes]]:
        """Return the versions of the records read at or past the bookmark; for a merge the last of each key."""
        if not self._keys:
            return [(None, record) for record in records]
        versions: list[tuple[bytes | None, bytes]] = list(zip(self._key_hashes, records, strict=True))
        if not self._stream.read.may_repeat:
            return versions
        return [version for version in last_of_each_key(versions) if version[0] not in self._elsewhere]

    def _write(self, boundary: dict[str, Any], versions: list[tuple[bytes | None, bytes]]) -> None:
        """Write hashes into a boundary: key hashes in the order of the record hashes, of which there may be more."""
        versions.sort(key=lambda version: version[0] is None)
        boundary["hashes"] = b64encode(b"".join(record for _, record in versions)).decode()
        if self._keys and versions:
            packed = b64encode(b"".join(key for key, _ in versions if key is not None)).decode()
            shown = _forms(self._stream, boundary["columns"])
            boundary["keys"] = {"columns": list(self._keys), "hashes": packed, "forms": shown, LAST: True}

    def _unread(self, *, is_complete: bool) -> list[tuple[bytes | None, bytes]]:
        """Committed versions that this read has not met yet, and may meet."""
        position = self._position if self._is_ordered else self._high
        is_passed = position is not None and not self._is_within(position)
        has_moved = self._high is not None and (self._start is None or not same(self._high, self._start))
        if is_passed or (has_moved and not self._is_ordered):
            return []
        left = self._committed.unread(is_complete=is_complete)
        is_much = len(left) + len(self._hashes or ()) > MANY_HASHES
        return [] if self._stream.read.may_repeat and is_much else left

    def _to_json(self, name: str, value: pa.Scalar | None) -> Any:
        try:
            return to_json(value)
        except (ValueError, ArithmeticError) as error:
            raise FatalConnectorError(
                f"bookmark property {name!r} of stream {self._stream.name!r} is before the year 1 or after the "
                "year 9999, which a bookmark cannot store",
                stream=self._stream.name,
            ) from error

    # ------------------------------------------------------------ what is left out
    def _filter(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Drop records below the bookmark; treat incomplete bookmarks as the stream says."""
        window = self._window
        refuse_incomplete(batch, self._stream)
        is_complete = has_bookmark(batch, self._names)
        is_wanted = is_complete
        if window.lower is not None and not self._is_ordered:
            is_wanted = at_or_past(batch, self._names, window.lower)
        if window.is_exclusive and self._start is not None:
            is_wanted = pc.and_not(is_wanted, equal_to(batch, self._names, self._start))
        if window.reads_incomplete:
            is_wanted = pc.or_(is_wanted, pc.invert(is_complete))
        return _those(batch, is_wanted)

    def _drop_committed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Drop the records that were committed before."""
        if self._keys and (
            self._stream.read.lookback is not None or self._stream.read.null_bookmarks is NullBookmarks.ALWAYS
        ):
            self._note_elsewhere(batch)
        if not self._committed.left:
            return batch
        may_be = self._may_be_committed(batch)
        if not pc.any(may_be).as_py():
            return batch
        found, boundary = _those(batch, may_be), self._boundary
        keys: Iterable[bytes | None] = itertools.repeat(None, found.num_rows)
        if self._keys:
            keys = self._hashed(found, self._keys, by_value=boundary.by_value)
        records = self._hashed(found, boundary.columns, by_value=boundary.by_value)
        is_new = self._committed.are_new(zip(keys, records, strict=True), may_be)
        return batch if all(is_new) else pc.filter(batch, pc.flags(is_new))

    def _note_elsewhere(self, batch: pa.RecordBatch) -> None:
        """Note the keys of records that every run sends: one that returns to the bookmark is new there."""
        is_elsewhere = pc.invert(has_bookmark(batch, self._names))
        if self._start is not None and self._stream.read.lookback is not None:
            is_elsewhere = pc.or_(is_elsewhere, pc.invert(at_or_past(batch, self._names, self._start)))
        found = pc.filter(batch, is_elsewhere)
        if found.num_rows:
            self._elsewhere.update(self._hashed(found, self._keys, by_value=self._by_value))
            self._committed.replace(self._elsewhere)

    def _may_be_committed(self, batch: pa.RecordBatch) -> pa.Array:
        start, through = self._start, self._boundary.through
        if through is None:
            return has_bookmark(batch, self._names)
        if start is not None and same(start, through):
            return equal_to(batch, self._names, start)
        mask = below_or_at(batch, self._names, through)
        return mask if start is None else pc.and_(mask, at_or_past(batch, self._names, start))

    # --------------------------------------------------------------- what is noted
    def _note(self, batch: pa.RecordBatch) -> None:
        known = _those(batch, has_bookmark(batch, self._names))
        is_late = self.has_checkpoint and known.num_rows < batch.num_rows
        if is_late and self._stream.read.null_bookmarks is not NullBookmarks.ALWAYS:
            raise FatalConnectorError(
                f"stream {self._stream.name!r}: a record without {self._names} came after a checkpoint, so a "
                "resumed run would miss it; the source must yield such records first",
                stream=self._stream.name,
            )
        if not known.num_rows:
            return
        self._position = self._highest(known)
        settled, unsettled = self._split(known)
        if settled.num_rows:
            self._note_settled(settled)
        if unsettled.num_rows:
            self._unsettled += unsettled.num_rows
            self._add(unsettled)
        if self._unsettled > MAX_UNSETTLED and not self._stream.read.may_repeat and not self.is_full:
            self._demand_next_run()
            self.is_full = True
            log.warning(
                "%s: a transaction in the source has been running since before %s records were written; later "
                "records wait for its end",
                self._stream.name,
                self._unsettled,
            )

    def _demand_next_run(self) -> None:
        """Fail if the next run would not read the records that wait, because it reads another interval."""
        read = self._stream.read
        if any(each.of_interval for each in (*read.where, *read.engine_where)):
            raise RetriableError(
                f"a transaction in the source has been running since before {self._unsettled} records of the stream "
                "were written, and the next run reads another interval (`where`). Repeat this run after the "
                "transaction has ended",
                stream=self._stream.name,
            )

    def _split(self, known: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        if self._horizon is None:
            return known, known.slice(0, 0)
        is_settled = pa.repeat(pc.constant(False), known.num_rows)
        for limit in (self._start, self._horizon.settled):
            if limit is not None:
                is_settled = pc.or_(is_settled, below_or_at(known, self._names, limit))
        return _those(known, is_settled), _those(known, pc.invert(is_settled))

    def _note_settled(self, known: pa.RecordBatch) -> None:
        high = self._highest(known)
        if self._high is None or not same(high, self._high):
            may_be_lower = not self._is_ordered or self._stream.read.lookback is not None
            if self._high is not None and may_be_lower and not is_above(high, self._high):
                return
            self._high, self._hashes, self._key_hashes, self._renewed = high, [], [], []
            if not self._is_within(high):
                self._columns, self._by_value = list(self._stream.schema.names), True
        self._add(pc.filter(known, equal_to(known, self._names, high)))

    def _is_within(self, values: tuple[pa.Scalar, ...]) -> bool:
        """Tell whether records with these values may have been committed before."""
        start, through = self._start, self._boundary.through
        if through is None or same(values, through):
            return bool(self._committed.left)
        if start is not None and same(start, through) and self._stream.read.lookback is None:
            return False  # the source compares texts: their order is not Arrow's
        return not is_above(values, through)

    def _add(self, records: pa.RecordBatch) -> None:
        if self._hashes is None:
            return
        if self._stream.read.may_repeat and len(self._hashes) + records.num_rows > MANY_HASHES:
            self._hashes = None
            return
        self._hashes += self._hashed(records, self._columns, by_value=self._by_value)
        if self._has_other_columns:
            self._renewed += self._hashed(records, self._stream.schema.names, by_value=True)
        if self._keys:
            self._key_hashes += self._hashed(records, self._keys, by_value=self._by_value)

    def _hashed(self, batch: pa.RecordBatch, columns: Sequence[str], *, by_value: bool) -> list[bytes]:
        """Hash records as they leave their masks: who reads the ledger must not be able to try masked values out."""
        if self._stream.read.masks is not None:
            from ..arrow.masking import masked  # its kernels take time to load, and few streams need them

            batch = masked(batch.select(list(dict.fromkeys(columns))), self._stream.read.masks)
        return record_hashes(batch, columns, by_value=by_value)

    def _highest(self, batch: pa.RecordBatch) -> tuple[pa.Scalar, ...]:
        if self._is_ordered:
            place = batch.num_rows - 1
        else:
            keys = [(name, "descending") for name in self._names]
            try:
                place = pc.sort_indices(batch.select(self._names), sort_keys=keys)[0].as_py()
            except pa.ArrowNotImplementedError as error:
                kinds = ", ".join(str(batch.schema.field(name).type) for name in self._names)
                raise FatalConnectorError(
                    f"bookmark_properties {self._names} of type {kinds} cannot be ordered",
                    stream=self._stream.name,
                ) from error
        return tuple(batch.column(name)[place] for name in self._names)


def _those(batch: pa.RecordBatch, mask: pa.Array) -> pa.RecordBatch:
    """Return the records for which a mask is true; a copy is made only where they are some of the batch."""
    if pc.all(mask, skip_nulls=False).as_py():
        return batch
    return pc.filter(batch, mask) if pc.any(mask).as_py() else batch.slice(0, 0)


__all__ = ["Horizon", "incremental"]
