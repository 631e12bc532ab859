"""The checks of a stream's records before the write: a failure rejects the record, or is only reported."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from syncblocks.connectors.arrow import compute as pc
from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.log_based import DELETE, OPERATION, UNCHANGED, UPSERT, renamed_unchanged
from syncblocks.connectors.read_spec import Condition
from syncblocks.connectors.rejected.halving import convert_by_halves
from syncblocks.connectors.rejected.limits import too_many
from syncblocks.connectors.rejected.records import rejections
from syncblocks.connectors.stream import RejectedRecord, Stream


def without_record(operations: pa.Array) -> pa.Array:
    """Return of appended changes which have no record: deletes and truncates."""
    return pc.or_(*(pc.equal(operations, pc.constant(each)) for each in ("delete", "truncate")))


def checked(
    batch: pa.RecordBatch, checks: Sequence[Condition], stream: Stream
) -> tuple[pa.RecordBatch, list[RejectedRecord]]:
    """Return the records that pass, and the others as rejected records.

    Args:
        batch: the records as they will be written.
        checks: at least one check.
        stream: the batch's stream, with the key, and with the handling of rejected records.

    Raises:
        FatalConnectorError: a record fails, and the stream rejects no records; or a column is missing.
        TooManyRejected: more records fail than the stream keeps.
    """
    from syncblocks.connectors.filters import failures, passes  # a stream without checks spares the import

    _demand_columns(batch, checks, "checks")
    is_good = passes(batch, checks)
    if pc.all(is_good).as_py() is not False:
        return batch, []
    return _parted(batch, is_good, lambda bad: failures(bad, checks), stream)


class Unique:
    """The check `unique`, which rejects each record that repeats the values of an earlier record of the commit."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self.begin_commit()

    def begin_commit(self) -> None:
        """Forget the records of the commit before."""
        from syncblocks.connectors.arrow.fingerprints import Seen

        self._seen = Seen()

    def checked(self, batch: pa.RecordBatch, stream: Stream) -> tuple[pa.RecordBatch, list[RejectedRecord]]:
        """Return the records that pass, and the others as rejected records; see `checked`. NULL passes.

        Raises:
            FatalConnectorError, TooManyRejected: as `checked` does.
        """
        _demand(batch, self._columns, "checks")
        columns = [batch.column(name) for name in self._columns]
        is_known = pc.is_valid(columns[0])
        for column in columns[1:]:
            is_known = pc.and_(is_known, pc.is_valid(column))
        repeats = self._seen.repeats([column.filter(is_known) for column in columns])
        if pc.any(repeats).as_py() is not True:
            return batch, []
        is_good = pc.replace_with_mask(pc.invert(is_known), is_known, pc.invert(repeats))
        return _parted(batch, is_good, self._reasons, stream)

    def _reasons(self, bad: pa.RecordBatch) -> list[str]:
        from syncblocks.connectors.arrow.conform import python_value, shown

        columns = [bad.column(name) for name in self._columns]
        which = f"column{'s' * (len(columns) > 1)} {', '.join(map(repr, self._columns))}"
        values = [", ".join(shown(python_value(each[place])) for each in columns) for place in range(bad.num_rows)]
        return [f"{which}: {each} occurred earlier in the same commit (`unique`)" for each in values]


def _parted(
    batch: pa.RecordBatch, is_good: pa.Array, reasons_of: Callable[[pa.RecordBatch], list[str]], stream: Stream
) -> tuple[pa.RecordBatch, list[RejectedRecord]]:
    """Part the records that pass from the others; errors are those of `checked`."""
    limit = 0 if stream.read.max_rejected is None else stream.read.max_rejected
    bad = batch.filter(pc.invert(is_good))
    shown = bad.slice(0, limit + 1)
    reasons = reasons_of(shown)
    if stream.read.max_rejected is None:
        place = ", ".join(f"{key} {shown.column(key)[0]}" for key in stream.key_properties if key in shown.schema.names)
        which = f" of the record with {place}" if place else ""
        raise FatalConnectorError(f"{reasons[0]}{which}; `on_rejected: keep` sets such records aside")
    if bad.num_rows > limit:
        raise too_many(limit, reasons[-1])
    return batch.filter(is_good), rejections(bad, reasons.__getitem__)


def appended(batch: pa.RecordBatch, names: Mapping[str, str]) -> pa.RecordBatch:
    """Return of appended changes what `fitting_changes` must know.

    Args:
        batch: as it would be written.
        names: the source's name of a column -> its name in the batch.
    """
    is_record = pc.invert(without_record(batch.column(names[OPERATION])))
    operations = pc.if_else(is_record, pc.constant(UPSERT), pc.constant(DELETE))
    unchanged = pa.nulls(batch.num_rows, pa.string())
    if names[UNCHANGED] in batch.schema.names:
        texts = batch.column(names[UNCHANGED])
        unchanged = renamed_unchanged(texts.storage if isinstance(texts, pa.ExtensionArray) else texts, names)
    return pa.RecordBatch.from_arrays([operations, unchanged], [OPERATION, UNCHANGED])


def fitting_changes(
    batch: pa.RecordBatch,
    beside: Sequence[pa.RecordBatch | None],
    convert: Callable[[pa.RecordBatch], pa.RecordBatch],
    checks: Sequence[Condition],
    stream: Stream,
) -> tuple[list[pa.RecordBatch], Sequence[Any], list[RejectedRecord]]:
    """Return the changes whose records fit, converted, and the others as rejected records.

    Args:
        batch: as it leaves the transformers.
        beside: what is known of each change beside its record; the first tells what it is, and what it leaves out.
        convert: converts records to the destination's types.
        checks: of converted records.
        stream: with the key, and with the handling of rejected records.

    Returns:
        At most one batch, what is known of its changes, and the rejected records.

    Raises:
        FatalConnectorError, TooManyRejected: as `checked` does.
    """
    limit, told = stream.read.max_rejected, beside[0]
    assert told is not None
    if limit is None:
        made = convert(batch)
        for check in checks if _has_records(told) else ():
            checked(made.filter(_are_known(told, check)), [check], stream)
        return [made], beside, []
    parts, unfit = convert_by_halves(batch, convert, limit)
    reasons = dict(unfit)
    made = pa.Table.from_batches(parts or [convert(batch.slice(0, 0))]).combine_chunks()
    rejected = rejections(batch.take(pa.array(list(reasons), pa.int64())), list(reasons.values()).__getitem__)
    beside = _without(beside, reasons)
    good = (made.to_batches() or [batch.slice(0, 0)])[0]
    reasons = _failed(good, beside[0], checks, limit)
    rejected += rejections(good.take(pa.array(list(reasons), pa.int64())), list(reasons.values()).__getitem__)
    (good, *rest) = _without([good, *beside], reasons)
    return [good] if good.num_rows else [], rest, rejected


def _without(batches: Sequence[pa.RecordBatch | None], places: Collection[int]) -> list[Any]:
    """Leave some records out of batches that belong together."""
    count = next(each.num_rows for each in batches if each is not None)
    kept = pa.array([row for row in range(count) if row not in places], pa.int64())
    return [None if each is None else each.take(kept) for each in batches] if places else list(batches)


def _failed(batch: pa.RecordBatch, told: pa.RecordBatch, checks: Sequence[Condition], limit: int) -> dict[int, str]:
    """Return which changes fail a check, and why."""
    from syncblocks.connectors.filters import failures, passes  # a stream without checks spares the import

    reasons = dict[int, str]()
    for check in checks if _has_records(told) else ():
        _demand_columns(batch, [check], "checks")
        is_bad = pc.and_(_are_known(told, check), pc.invert(passes(batch, [check])))
        places, bad = pc.indices_nonzero(is_bad).to_pylist(), batch.filter(is_bad).slice(0, limit + 1)
        reasons = dict(zip(places, failures(bad, [check]), strict=False)) | reasons
        if len(reasons) > limit:
            raise too_many(limit, next(iter(reasons.values())))
    return reasons


def _are_known(extra: pa.RecordBatch, check: Condition) -> pa.Array:
    """Tell which changes have a record whose value of a check's column is known: not one that stays.

    Args:
        extra: what each change has beside its record.
        check: one check.
    """
    is_known = pc.equal(extra.column(OPERATION), pc.constant(UPSERT))
    left_out = extra.column(UNCHANGED)
    if left_out.null_count < len(left_out):
        names = [json.loads(text) if text else () for text in left_out.to_pylist()]
        is_known = pc.and_(is_known, pa.array([check.field.name not in each for each in names]))
    return is_known


def _has_records(extra: pa.RecordBatch) -> bool:
    """Tell whether some of these changes have a record; deletes alone may come without the columns of a record."""
    return bool(pc.any(pc.equal(extra.column(OPERATION), pc.constant(UPSERT))).as_py())


class Warnings:
    """Counts records that fail checks and are still written."""

    def __init__(self, checks: Sequence[Condition]) -> None:
        self._checks = checks
        self._failed = [0] * len(checks)
        #: Description of the first record that fails a check.
        self._first = [""] * len(checks)

    def note(self, batches: Sequence[pa.RecordBatch], extra: pa.RecordBatch | None = None) -> None:
        """Count the records of some batches, as they would be written; `extra`: the only one is of changes.

        Raises:
            FatalConnectorError: a column is missing.
        """
        is_asked = bool(self._checks) and (extra is None or _has_records(extra))
        for batch in batches if is_asked else ():
            self._note(batch, extra)

    def _note(self, records: pa.RecordBatch, extra: pa.RecordBatch | None) -> None:
        from syncblocks.connectors.filters import failures, passes

        _demand_columns(records, self._checks, "warn_checks")
        for place, check in enumerate(self._checks):
            batch = records if extra is None else records.filter(_are_known(extra, check))
            bad = batch.filter(pc.invert(passes(batch, [check])))
            if bad.num_rows and not self._failed[place]:
                self._first[place] = failures(bad.slice(0, 1), [check])[0]
            self._failed[place] += bad.num_rows

    def sentences(self) -> list[str]:
        """Return the messages for the user: a sentence for each check with failures."""
        return [
            f"{count:,} record{'s fail' if count > 1 else ' fails'} a check of `warn_checks`, and "
            f"{'are' if count > 1 else 'is'} written: {first}"
            for count, first in zip(self._failed, self._first, strict=True)
            if count
        ]


def _demand_columns(batch: pa.RecordBatch, checks: Sequence[Condition], setting: str) -> None:
    _demand(batch, [each.field.name for each in checks], setting)


def _demand(batch: pa.RecordBatch, names: Sequence[str], setting: str) -> None:
    missing = [name for name in names if name not in batch.schema.names]
    if missing:
        raise FatalConnectorError(
            f"{setting}: column {missing[0]!r} does not arrive; what does is {', '.join(batch.schema.names)}"
        )


__all__ = ["Unique", "Warnings", "appended", "checked", "fitting_changes"]
