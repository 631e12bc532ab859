"""REPLACE_RANGE: which records are within the range that a load deletes and writes; the same for every system."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from .arrow import compute as pc
from .arrow.type_names import type_text
from .errors import ConnectorConfigError, FatalConnectorError
from .incremental.bookmarks import from_json
from .stream import FileRead, Load, RejectedRecord

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Parts of a second in each unit.
_PARTS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def has_times(kind: pa.DataType) -> bool:
    """Tell whether an interval can bound values of a type: days, and times of days."""
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))


def has_values(kind: pa.DataType) -> bool:
    """Tell whether single values of a type may be deleted: days, integers and texts."""
    types = pa.types
    is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return bool(types.is_date(kind) or types.is_integer(kind) or is_text)


def bound(moment: datetime, kind: pa.DataType) -> pa.Scalar:
    """Return an end of an interval in a column's type; a column without a zone holds times in UTC.

    A bound that the type has no value for becomes the next one, which lets the same values in.

    Raises:
        ValueError: the column holds days, and the bound is not at midnight in UTC; or its type has no such time.
    """
    since = (moment - _EPOCH) // timedelta(microseconds=1)
    if pa.types.is_date(kind):
        days, rest = divmod(since, 86_400_000_000)
        if rest:
            raise ValueError(f"it is a date, and {moment.isoformat()} is not at 00:00 UTC")
        return pc.cast(pc.cast(pc.constant(days), pa.int32()), pa.date32()).cast(kind)
    if not pa.types.is_timestamp(kind):
        raise ValueError(f"it is {type_text(kind)}, which an interval cannot limit")
    number = -(-since * _PARTS[kind.unit] // 10**6)
    if not -(2**63) < number < 2**63:
        raise ValueError(f"it is {type_text(kind)}, which does not reach {moment.isoformat()}")
    return pc.cast(pc.constant(number), kind)


def is_within(column: pa.Array, interval: tuple[datetime, datetime]) -> pa.Array:
    """Return a mask, NULL where a value is NULL, of the values within an interval.

    Raises:
        ValueError: see `bound`.
    """
    first, last = (bound(moment, column.type) for moment in interval)
    return pc.and_(pc.greater_equal(column, first), pc.less(column, last))


class RangeWatch:
    """Looks at the records of one load as they arrive, so that none is written that the next load would not delete."""

    def __init__(self, load: Load) -> None:
        assert load.write.written_range is not None, "the plan gives every REPLACE_RANGE one"
        self.range = load.write.written_range
        self._load = load
        self._paths: set[str] = set()

    def begin(self) -> None:
        """Begin a transaction."""
        self._paths.clear()

    def field(self, schema: pa.Schema) -> pa.Field:
        """Return the column as it is in a schema.

        Raises:
            FatalConnectorError: a transformer has dropped it.
        """
        if self.range.column not in schema.names:
            raise self._error(f"no such column arrives; the arriving columns are {', '.join(schema.names)}")
        return schema.field(self.range.column)

    def check(self, batch: pa.RecordBatch) -> None:
        """Look at the next batch.

        Raises:
            FatalConnectorError: a record has no value in the column, or one that is outside of the interval.
        """
        if not batch.num_rows:
            return
        self.field(batch.schema)
        column = batch.column(self.range.column)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if column.null_count:
            raise self._error(
                "a record has NULL in it: the record belongs to no range, and each run would write it again"
            )
        if self.range.interval is not None:
            self._check_interval(column, self.range.interval)
        elif not has_values(column.type):
            raise self._error(
                f"it arrives as {type_text(column.type)}: only dates, integers and texts can be deleted by value"
            )
        elif self.range.is_by_files:
            self._paths.update(pc.unique(column).to_pylist())

    def _check_interval(self, column: pa.Array, interval: tuple[datetime, datetime]) -> None:
        try:
            mask = is_within(column, interval)
        except ValueError as error:
            raise self._error(str(error)) from error
        if not pc.all(mask).as_py():
            found = column[pc.index(mask, pc.constant(False)).as_py()]
            first, last = (moment.isoformat() for moment in interval)
            raise self._error(f"a record has {found}, which is outside of the interval from {first} to {last}")

    def demand_files(self, files: Iterable[FileRead]) -> list[str]:
        """Return the paths of the files that were read.

        Raises:
            FatalConnectorError: a record that arrived is of none of them.
        """
        paths = [each.path for each in files]
        if strange := sorted(self._paths.difference(paths)):
            raise self._error(f"a record has {strange[0]!r}, which is not one of the files of this read")
        return paths

    def deleted(self, held: pa.Array, arrived: pa.Array, paths: Iterable[str]) -> pa.Array:
        """Return a mask, without NULL, of the records of a table that go.

        Args:
            held: the table's column.
            arrived: the values that were read, in the table's type; of an interval, or of files, not needed.
            paths: the files that were read.

        Raises:
            FatalConnectorError: the table's column has a type in which the interval has no bounds.
        """
        if self.range.interval is None:
            return pc.is_in(held, value_set=pa.array(paths, held.type) if self.range.is_by_files else arrived)
        try:
            return pc.fill_null(is_within(held, self.range.interval), False)
        except ValueError as error:
            raise self._error(f"the table's column: {error}") from error

    def of_rejected(self, records: Iterable[RejectedRecord], kind: pa.DataType) -> pa.Array:
        """Return the values of rejected records, which were read as well; of a text that is no record nobody knows it.

        Args:
            records: rejected before they could be staged.
            kind: type of the column.
        """
        found = []
        for each in records:
            values = json.loads(each.record)
            named = values if isinstance(values, dict) else {}
            value = named.get(self.range.column, named.get(self.range.source_column))
            try:
                found.append(None if value is None else from_json(value, kind).as_py())
            except ConnectorConfigError:  # this value is why it was rejected
                continue
        return pa.array([value for value in found if value is not None], kind)

    def _error(self, message: str) -> FatalConnectorError:
        return FatalConnectorError(f"range_column {self.range.column!r}: {message}", stream=self._load.stream.name)


__all__ = ["RangeWatch", "bound", "has_times", "has_values", "is_within"]
