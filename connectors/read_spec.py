"""How one stream is read; no I/O."""

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
    """What an INCREMENTAL read does with records whose bookmark is NULL (or NaN).

    Source: dlt's on_cursor_value_missing.
    """

    #: They are an error.
    FAIL = "fail"
    #: They are read in a read from scratch, and never again.
    ONCE = "once"
    #: They are read in every run.
    ALWAYS = "always"
    #: They are left out.
    NEVER = "never"


class ChangedFiles(StrEnum):
    """What a stream that `tracks_files` does with a file that has changed since it was read."""

    #: It fails the stream.
    FAIL = "fail"
    #: It is read once more, as a whole.
    READ = "read"
    #: It stays as it was read.
    IGNORE = "ignore"


#: Operators of a condition that compare with nothing.
ASKING = ("is_null", "is_not_null")

#: Operators of checks on the length of a value: characters of a text, or bytes.
MEASURING = ("min_length", "max_length")


class Condition(Struct, frozen=True, kw_only=True):
    """A condition on one column of a record; the column need not be one of those that are read.

    Texts are compared by their bytes, NaN is above all numbers, and NULL meets `is_null` only.
    """

    field: pa.Field
    #: `=`, `!=`, `<`, `<=`, `>`, `>=`, `in` (one value at least), one of `ASKING`, or of a check one of `MEASURING`.
    operator: str
    #: In the column's type, but a UUID as its text, and of `MEASURING` an integer; none for `ASKING`.
    values: tuple[pa.Scalar, ...] = ()
    #: The values as the pipeline file has them (JSON): a column whose type was guessed may turn out to have another.
    given: tuple[Any, ...] = ()
    #: What the file says in their place where they are of a run's interval, which is another one each time.
    of_interval: str = ""

    def __str__(self) -> str:
        """Return it for people to read: `amount >= 10`."""
        if self.operator in ASKING:
            return f"{self.field.name} {self.operator.replace('_', ' ')}"
        shown = [repr(str(value)) if pa.types.is_string(value.type) else str(value) for value in self.values]
        return f"{self.field.name} {self.operator} " + (f"({', '.join(shown)})" if self.operator == "in" else shown[0])


#: How a mask hides a column's values: by a keyed hash, all but their last characters, or as NULL.
HASH, KEEP_LAST, NULL = "hash", "keep_last", "null"


class MaskRule(Struct, frozen=True, kw_only=True):
    """A mask of the columns that a name or a glob matches."""

    column: str
    #: `HASH`, `KEEP_LAST` or `NULL`.
    how: str
    #: Of `KEEP_LAST`: so many characters stay.
    kept: int = 0

    def __str__(self) -> str:
        """Return it for people to read."""
        return f"{self.how} {self.kept}" if self.how == KEEP_LAST else self.how


@dataclass(frozen=True, slots=True, kw_only=True)
class Masks:
    """Which columns of a stream are masked, in which order the rules are asked, and with which key."""

    rules: tuple[MaskRule, ...]
    #: Key of the hashes; empty: there is none.
    key: bytes = field(default=b"", repr=False)
    #: The masked columns as the source has them.
    fields: Mapping[str, pa.Field] = field(default_factory=dict, compare=False, repr=False)


class ReadSpec(Struct, frozen=True, kw_only=True):
    """How one stream is read: the plan makes it from what the source offers and the pipeline file says."""

    method: ReplicationMethod = ReplicationMethod.FULL_TABLE
    #: Columns whose highest value seen is kept, most significant first.
    bookmark_properties: tuple[str, ...] = ()
    null_bookmarks: NullBookmarks = NullBookmarks.FAIL
    #: INCREMENTAL reads from this much below the bookmark: seconds for times and dates, else a number; None: 0.
    lookback: float | None = None
    #: INCREMENTAL reads only what is above a bookmark that a run has read in full, not what came to be at it since.
    is_above_bookmark: bool = False
    #: Where `Stream.is_query_bounded`: the property and the value (`>=`) from which a read without a bookmark begins.
    bookmark_start: Condition | None = None
    #: Records may be read again, because a merge by their keys makes that harmless.
    may_repeat: bool = False
    #: INCREMENTAL reads the files that are new or changed, and the destination keeps which were read (`KeepsFiles`).
    tracks_files: bool = False
    #: What becomes of a file that has changed since it was read.
    changed_files: ChangedFiles = ChangedFiles.FAIL
    #: A FULL_TABLE read ends with a checkpoint that names the files that were read, empty ones as well.
    names_files: bool = False
    #: Only records that meet all of them are read, counted and compared.
    where: tuple[Condition, ...] = ()
    #: At most so many of them are read in a run; None: all are. The engine ends a FULL_TABLE read; INCREMENTAL
    #: reads the next ones in the order of the bookmark, as `incremental` does, or new files until they have so many.
    limit: int | None = None
    #: Masks of its columns, which hold for all that is made of a record once it has columns; None: there are none.
    masks: Masks | None = None
    #: So many rejected records are kept, see `connectors/rejected`; None: the first one is an error.
    max_rejected: int | None = None
    #: Names and globs of the columns that are read, empty: all, and of those that are not: they hold for columns that
    #: the read finds and the plan did not, too.
    included: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    def takes(self, names: Sequence[str]) -> bool:
        """Tell whether a column that the plan did not know is read; `names`: its own, and of the objects it is in."""

        def is_one(patterns: Sequence[str]) -> bool:
            return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns for name in names)

        return (not self.included or is_one(self.included)) and not is_one(self.excluded)
