"""How one stream is written; no I/O."""

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
    #: Every version of a record is kept, with the time from which and up to which it was the current one.
    HISTORY = "history"


class ConflictMethod(StrEnum):
    """What a merge does with a record whose key is already there. Source: Mage."""

    UPDATE = "UPDATE"
    IGNORE = "IGNORE"
    #: As UPDATE, but a record whose key is not there yet is left out (`UpdatesOnly`).
    UPDATE_ONLY = "UPDATE_ONLY"


class WrittenRange(Struct, frozen=True, kw_only=True):
    """What REPLACE_RANGE deletes before it inserts: an interval, some files, or the values that arrive."""

    #: Column of `Load.stream` that decides whether a record is within.
    column: str
    #: Aware start and end; the end is not in it. Records outside of it are an error. None: there is no interval.
    interval: tuple[datetime, datetime] | None = None
    #: The records of `Checkpoint.files` are deleted; the column holds their paths.
    is_by_files: bool = False
    #: What the source calls the column, if no other column arrives under that name: its rejected records have it.
    source_column: str = ""


class WriteSpec(Struct, frozen=True, kw_only=True):
    """How one stream is written, in the names of its columns as they arrive; the plan makes it once."""

    disposition: WriteDisposition
    #: Of MERGE.
    conflict_method: ConflictMethod = ConflictMethod.UPDATE
    #: MERGE and HISTORY into a destination that `KeepsLatest`: of the records of a key the one with the highest value
    #: of this column counts, and none takes the place of a newer one; NULL is older than any value. REPLACE_RANGE: the
    #: same among the records that arrive. Empty: the last one counts, in REPLACE_RANGE a second one is refused.
    latest_by: str = ""
    #: Of `latest_by`, the lowest value counts in place of the highest one; NULL still counts less than any value.
    latest_is_lowest: bool = False
    #: MERGE, and REPLACE in its place, into a destination that `DropsDeleted`: a record that meets it is not kept, nor
    #: is the table's of its key, if it is the record of the key that counts. None: no record says that it is deleted.
    deleted_when: Condition | None = None
    #: Of REPLACE_RANGE: what is deleted.
    written_range: WrittenRange | None = None
    #: MERGE into a destination that `KeepsFirst`: columns that stay as they are in a record that is there.
    kept: tuple[str, ...] = ()
    #: MERGE into a destination that `APPLIES_CHANGES`: what arrives are changes, see `log_based.changes_stream`.
    changes: bool = False
    #: So many rejected records are kept, see `connectors/rejected`; None: the first one is an error.
    max_rejected: int | None = None

    @property
    def deciding(self) -> frozenset[str]:
        """The columns whose values decide what becomes of a record, beside its key."""
        found = {self.latest_by, "" if self.deleted_when is None else self.deleted_when.field.name}
        return frozenset(found - {""})

    def renamed(self, rename: Callable[[str], str]) -> WriteSpec:
        """Return it with other names of the columns."""
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
