"""How one stream is read; opens nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

import pyarrow as pa
from msgspec import Struct


class ReplicationMethod(StrEnum):
    """How a stream is read. Source: Singer."""

    FULL_TABLE = "FULL_TABLE"
    INCREMENTAL = "INCREMENTAL"
    LOG_BASED = "LOG_BASED"


class NullBookmarks(StrEnum):
    """Treatment of records whose bookmark is NULL (or NaN) in an INCREMENTAL read.

    Source: dlt's on_cursor_value_missing.
    """

    #: They are an error.
    FAIL = "fail"
    #: They are read in a read from scratch, and never again.
    ONCE = "once"
    #: They are read in every run.
    ALWAYS = "always"
    #: They are skipped.
    NEVER = "never"


class ChangedFiles(StrEnum):
    """Treatment of a file that has changed since it was read, in a stream that `tracks_files`."""

    #: It fails the stream.
    FAIL = "fail"
    #: It is read again, completely.
    READ = "read"
    #: Its earlier records stay.
    IGNORE = "ignore"


#: Operators of a condition without a value.
ASKING = ("is_null", "is_not_null")

#: Operators of checks on the length of a value: characters of a text, or bytes.
MEASURING = ("min_length", "max_length")

#: Operator of a check: a regular expression of RE2, searched in the text.
MATCHES = "matches"


#: `Condition.of_interval` of the conditions that bound the range of `replace_range`.
RANGE = "range_column"


class Condition(Struct, frozen=True, kw_only=True):
    """A condition on one column of a record; the stream need not select the column.

    Texts are compared by their bytes, NaN is above all numbers, and NULL meets `is_null` only.
    """

    field: pa.Field
    #: `=`, `!=`, `<`, `<=`, `>`, `>=`, `in` (at least one value), one of `ASKING`, or for a check one of `MEASURING` or
    #: `MATCHES`.
    operator: str
    #: In the column's type, but a UUID as text; for `MEASURING` an integer, for `MATCHES` a text; none for `ASKING`.
    values: tuple[pa.Scalar, ...] = ()
    #: The values from the pipeline file (JSON): a column with a guessed type may turn out to have another.
    given: tuple[Any, ...] = ()
    #: The file's text for values that depend on a run's interval, and so differ in each run.
    of_interval: str = ""

    def __str__(self) -> str:
        """Return it as text for users: `amount >= 10`."""
        if self.operator in ASKING:
            return f"{self.field.name} {self.operator.replace('_', ' ')}"
        if self.operator == MATCHES:
            return f"{self.field.name} {self.operator} {self.values[0]}"
        shown = [repr(str(value)) if pa.types.is_string(value.type) else str(value) for value in self.values]
        return f"{self.field.name} {self.operator} " + (f"({', '.join(shown)})" if self.operator == "in" else shown[0])


#: How a mask hides a column's values: a keyed hash, only the last characters, or NULL.
HASH, KEEP_LAST, NULL = "hash", "keep_last", "null"


class MaskRule(Struct, frozen=True, kw_only=True):
    """A mask for the columns that a name or a glob matches."""

    column: str
    #: `HASH`, `KEEP_LAST` or `NULL`.
    how: str
    #: For `KEEP_LAST`: the number of characters that stay.
    kept: int = 0

    def __str__(self) -> str:
        """Return it as text for users."""
        return f"{self.how} {self.kept}" if self.how == KEEP_LAST else self.how


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """The masks of a stream: rules in their order, and the key."""

    rules: tuple[MaskRule, ...]
    #: Key of the hashes; empty: there is none.
    key: bytes = field(default=b"", repr=False)
    #: The masked columns by their names in the source.
    fields: Mapping[str, pa.Field] = field(default_factory=dict, compare=False, repr=False)


class ReadSpec(Struct, frozen=True, kw_only=True):
    """How one stream is read: the plan builds it from the source's offer and the pipeline file."""

    method: ReplicationMethod = ReplicationMethod.FULL_TABLE
    #: Columns whose highest value is the bookmark, most significant first.
    bookmark_properties: tuple[str, ...] = ()
    null_bookmarks: NullBookmarks = NullBookmarks.FAIL
    #: Distance below the bookmark at which INCREMENTAL starts: seconds for times and dates, else a number; None: 0.
    lookback: float | None = None
    #: INCREMENTAL only reads records above a bookmark that a run has read completely, not later ones equal to it.
    is_above_bookmark: bool = False
    #: If `Stream.is_query_bounded`: the property and the value (`>=`) at which a read without a bookmark starts.
    bookmark_start: Condition | None = None
    #: Records may be read twice, because a merge by their keys makes this harmless.
    may_repeat: bool = False
    #: INCREMENTAL reads new or changed files, and the destination stores which files were read (`KeepsFiles`).
    tracks_files: bool = False
    #: Treatment of a file that has changed since it was read.
    changed_files: ChangedFiles = ChangedFiles.FAIL
    #: A FULL_TABLE read ends with a checkpoint that lists all files read, including empty ones.
    names_files: bool = False
    #: Only records that meet all of them are read, counted and compared.
    where: tuple[Condition, ...] = ()
    #: Conditions that the engine applies in place of the source. `incremental` drops the records that do not meet them,
    #: because only records that match may move the bookmark.
    engine_where: tuple[Condition, ...] = ()
    #: Maximum of records in one run; None: no limit. The engine ends a FULL_TABLE read at the limit; INCREMENTAL
    #: continues in the order of the bookmark, see `incremental`; for files it reads new ones up to the limit.
    limit: int | None = None
    #: Masks of its columns, applied to every value read from the source; None: there are none.
    masks: Masks | None = None
    #: Maximum of rejected records, see `connectors/rejected`; None: the first one is an error.
    max_rejected: int | None = None
    #: Names and globs of selected columns (empty: all) and of excluded columns: they also apply to columns that
    #: the read finds and the plan did not know.
    included: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    def takes(self, names: Sequence[str]) -> bool:
        """Return whether a column unknown to the plan is read.

        `names`: its name, and those of the objects that contain it.
        """

        def is_one(patterns: Sequence[str]) -> bool:
            return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns for name in names)

        return (not self.included or is_one(self.included)) and not is_one(self.excluded)
