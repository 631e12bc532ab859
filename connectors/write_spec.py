"""How one stream is written; opens nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum

from msgspec import Struct

from .read_spec import Condition
from .struct_helpers import replace


class WriteDisposition(StrEnum):
    """How a stream is written. Source: dlt."""

    APPEND = "append"
    REPLACE = "replace"
    MERGE = "merge"
    REPLACE_RANGE = "replace_range"
    #: Keeps every version of a record, with the times from and until which it was current.
    HISTORY = "history"


class ConflictMethod(StrEnum):
    """What a merge does with a record whose key exists. Source: Mage."""

    UPDATE = "UPDATE"
    IGNORE = "IGNORE"
    #: Like UPDATE, but a record whose key does not exist is skipped (`UpdatesOnly`).
    UPDATE_ONLY = "UPDATE_ONLY"


class WrittenRange(Struct, frozen=True, kw_only=True):
    """Records that REPLACE_RANGE deletes before it inserts: an interval, some files, or the arriving values."""

    #: Column of `Load.stream` that decides whether a record is in the range.
    column: str
    #: Aware start and end; the end is exclusive. Records outside of it are an error. None: there is no interval.
    interval: tuple[datetime, datetime] | None = None
    #: The records of `Checkpoint.files` are deleted; the column has their paths.
    is_by_files: bool = False
    #: The column's name in the source, if no other column arrives under that name: rejected records use it.
    source_column: str = ""


class WriteSpec(Struct, frozen=True, kw_only=True):
    """How one stream is written, by the arriving names of its columns; the plan builds it once."""

    disposition: WriteDisposition
    #: For MERGE.
    conflict_method: ConflictMethod = ConflictMethod.UPDATE
    #: MERGE and HISTORY into a destination that `KeepsLatest`: of the records of a key, the one with the highest value
    #: of this column counts; an older record never replaces a newer one, and NULL is older than any value.
    # REPLACE_RANGE: the
    #: same among the arriving records. Empty: the last record counts; REPLACE_RANGE refuses a second one.
    latest_by: str = ""
    #: In `latest_by`, the lowest value counts instead of the highest; NULL still loses against any value.
    latest_is_lowest: bool = False
    #: MERGE, or REPLACE in place of it, into a destination that `DropsDeleted`: a record that meets the condition is
    #: deleted, also from the table, if it is the record of its key that counts. None: no record is marked as deleted.
    deleted_when: Condition | None = None
    #: For REPLACE_RANGE: the records to delete.
    written_range: WrittenRange | None = None
    #: MERGE into a destination that `KeepsFirst`: columns that keep their value in an existing record.
    kept: tuple[str, ...] = ()
    #: MERGE into a destination that `APPLIES_CHANGES`: the arriving records are changes, see
    # `log_based.changes_stream`.
    changes: bool = False
    #: Maximum of rejected records, see `connectors/rejected`; None: the first one is an error.
    max_rejected: int | None = None
    #: Largest share of rejected records among the records of one commit, in percent. `None` without such a limit.
    max_rejected_percent: float | None = None

    @property
    def deciding(self) -> frozenset[str]:
        """The columns, besides the key, whose values decide how a record is written."""
        found = {self.latest_by, "" if self.deleted_when is None else self.deleted_when.field.name}
        return frozenset(found - {""})

    def renamed(self, rename: Callable[[str], str]) -> WriteSpec:
        """Return it with renamed columns."""
        condition = self.deleted_when
        if condition is not None:
            condition = replace(condition, field=condition.field.with_name(rename(condition.field.name)))
        written = self.written_range
        return replace(
            self,
            latest_by=self.latest_by and rename(self.latest_by),
            deleted_when=condition,
            written_range=None if written is None else replace(written, column=rename(written.column)),
        )
