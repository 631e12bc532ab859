"""Stages through which records pass between the transformers and the destination.

A stream has the stages that its settings need. A new feature of this kind is a stage and its place in `chosen_stages`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from msgspec import Struct

from syncblocks.connectors.log_based import POSITION
from syncblocks.connectors.read_spec import Condition
from syncblocks.connectors.rejected.halving import convert_or_reject
from syncblocks.connectors.stream import RejectedRecord, Stream

from ..flow.added_columns import AddedColumns
from ..flow.checks import Unique, Warnings, appended, checked, fitting_changes
from ..flow.spool import Spool
from ..flow.transform import declared_stream
from ..plan.features.log_based import is_logged
from ..plan.plan import PlannedStream
from .arriving_columns import ArrivingColumns
from .stream_blocks import StreamBlocks


class Records(Struct):
    """The records of one batch, as the stages pass them on."""

    batches: list[pa.RecordBatch]
    #: The columns besides the record, if these are changes to merge. There is at most one batch then.
    extra: pa.RecordBatch | None = None
    #: Operation and unchanged columns of each change of a log, for checks. `None` for plain records.
    told: pa.RecordBatch | None = None
    rejected: list[RejectedRecord] = []


class RecordStage:
    """One stage of one attempt."""

    def apply(self, records: Records) -> Stream | None:
        """Work on records. Returns the stream for the destination if its columns are others from here on."""
        raise NotImplementedError

    def begin_commit(self) -> None:
        """Forget what was remembered of one commit."""

    def notices(self) -> Sequence[str]:
        """Return sentences for the user, after the last record."""
        return ()


def chosen_stages(blocks: StreamBlocks, columns: ArrivingColumns) -> list[RecordStage]:
    """Return the stages that a stream needs, in order."""
    planned = blocks.planned
    checks, spool = planned.record_checks, blocks.stages[-1].spool
    stages: list[RecordStage] = []
    if planned.policy.added:
        stages.append(_Add(planned.policy.added))
    stages.append(_Map(columns))
    if is_logged(planned.stream):
        stages.append(_ConvertChanges(blocks, columns))
    else:
        stages.append(_Convert(planned, columns))
        if checks.checks:
            stages.append(_Check(checks.checks, columns))
    if checks.unique:
        stages.append(_RejectRepeated(checks.unique, columns))
    if checks.warn_checks:
        stages.append(_Warn(checks.warn_checks))
    if is_logged(planned.stream):
        stages.append(_JoinChanges())
    if spool is not None:
        stages.append(_Spool(spool))
    return stages


class _Add(RecordStage):
    """Adds the columns of `add_columns`, `mage_columns` and a history."""

    def __init__(self, added: AddedColumns) -> None:
        self._added = added

    def apply(self, records: Records) -> None:
        records.batches = [self._added.apply(each) for each in records.batches]


class _Map(RecordStage):
    """Maps the columns to those of the destination, if they are others than before."""

    def __init__(self, columns: ArrivingColumns) -> None:
        self._columns = columns

    def apply(self, records: Records) -> Stream | None:
        return self._columns.note_batch(records.batches[0].schema)


class _Convert(RecordStage):
    """Converts values to the destination's types."""

    def __init__(self, planned: PlannedStream, columns: ArrivingColumns) -> None:
        self._limit = planned.write.max_rejected
        self._columns = columns

    def apply(self, records: Records) -> None:
        batch = records.batches.pop()
        records.batches, records.rejected = convert_or_reject(batch, self._columns.convert, self._limit)


class _Check(RecordStage):
    """Rejects records that fail `checks`."""

    def __init__(self, checks: Sequence[Condition], columns: ArrivingColumns) -> None:
        self._checks = checks
        self._columns = columns

    def apply(self, records: Records) -> None:
        _keep(records, [checked(each, self._checks, self._columns.arriving) for each in records.batches])


class _ConvertChanges(RecordStage):
    """Converts and checks the changes of a log, which may lack a record, and the copy before them."""

    def __init__(self, blocks: StreamBlocks, columns: ArrivingColumns) -> None:
        self._planned = blocks.planned
        self._transformers = blocks.transformers
        self._columns = columns
        self._of_copy: list[RecordStage] = [_Convert(self._planned, columns)]
        if self._planned.record_checks.checks:
            self._of_copy.append(_Check(self._planned.record_checks.checks, columns))

    def apply(self, records: Records) -> None:
        records.told = records.extra if records.extra is not None else self._told(records.batches[0])
        if records.told is None:
            for stage in self._of_copy:
                stage.apply(records)
            return
        batch, beside, checks = records.batches.pop(), (records.told, records.extra), self._planned.record_checks.checks
        records.batches, (records.told, records.extra), records.rejected = fitting_changes(
            batch, beside, self._columns.convert, checks, self._columns.arriving
        )

    def _told(self, batch: pa.RecordBatch) -> pa.RecordBatch | None:
        """Return operation and unchanged columns of appended changes, for checks. `None` for plain records."""
        checks, stream = self._planned.record_checks, self._planned.stream
        names = stream.schema.names
        if POSITION not in names or not (checks.checks or checks.warn_checks):
            return None
        arriving = declared_stream(stream, self._transformers).schema.names
        return appended(batch, dict(zip(names, arriving, strict=True)))


class _RejectRepeated(RecordStage):
    """Rejects records that the check `unique` has seen in the same commit."""

    def __init__(self, names: Sequence[str], columns: ArrivingColumns) -> None:
        self._unique = Unique(names)
        self._columns = columns

    def begin_commit(self) -> None:
        self._unique.begin_commit()

    def apply(self, records: Records) -> None:
        _keep(records, [self._unique.checked(each, self._columns.arriving) for each in records.batches])


class _Warn(RecordStage):
    """Counts records that fail `warn_checks`."""

    def __init__(self, checks: Sequence[Condition]) -> None:
        self._warnings = Warnings(checks)

    def apply(self, records: Records) -> None:
        self._warnings.note(records.batches, records.told)

    def notices(self) -> Sequence[str]:
        return self._warnings.sentences()


class _JoinChanges(RecordStage):
    """Puts the columns of a change beside those of its record."""

    def apply(self, records: Records) -> None:
        if (extra := records.extra) is not None:
            records.batches = [_beside(each, extra) for each in records.batches]
            records.extra = records.told = None


class _Spool(RecordStage):
    """Keeps what the destination receives for callbacks that ask for its data."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def apply(self, records: Records) -> None:
        for each in records.batches:
            self._spool.write(each)


def _keep(records: Records, passed: Sequence[tuple[pa.RecordBatch, list[RejectedRecord]]]) -> None:
    """Keep the records that pass a check, and add the others to the rejected ones."""
    records.batches = [batch for batch, _ in passed if batch.num_rows]
    records.rejected += [each for _, failed in passed for each in failed]


def _beside(batch: pa.RecordBatch, extra: pa.RecordBatch) -> pa.RecordBatch:
    schema = pa.schema([*(field.with_nullable(True) for field in batch.schema), *extra.schema])
    return pa.RecordBatch.from_arrays([*batch.columns, *extra.columns], schema=schema)


__all__ = ["RecordStage", "Records", "chosen_stages"]
