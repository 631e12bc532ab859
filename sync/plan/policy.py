"""What a plan takes over from the pipeline file about one stream, beside how it is read and written."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from syncblocks.connectors.stream import Stream
from syncblocks.connectors.write_spec import WriteSpec

from ..config.before_statements import BeforeStatement
from ..config.deletes import Deletes
from ..config.filters import FilterCondition
from ..config.remedies import Ways
from ..flow.added_columns import AddedColumns


class Policy(Struct, frozen=True, kw_only=True):
    """Settings of one stream that hold while it runs, with every default filled in."""

    retries: int
    retry_delay_s: float
    timeout_s: float | None
    #: Most readers at once; 1: it is read as a whole.
    parallel_reads: int
    #: Run before each try reads it.
    before: tuple[BeforeStatement, ...]
    #: Whether source and destination are compared after each run.
    verify: bool
    #: Whether the file says `write_disposition: replace`: then a table of another program may be replaced.
    replaces_explicitly: bool
    #: Patterns of columns that the pipeline leaves out, and of objects whose values are columns.
    excluded: tuple[str, ...]
    #: Down to how many levels objects become columns.
    nested: int
    #: The destination's names for columns: keep, lower, snake_case or mage.
    naming: str
    #: Columns that the engine sets.
    added: AddedColumns
    #: Fewer records that are read than so many fail the stream before its commit; None: any number may be.
    min_records: int | None
    #: Conditions that its records must meet as they would be written.
    checks: tuple[FilterCondition, ...]
    #: The same, of records that are written all the same.
    warn_checks: tuple[FilterCondition, ...]
    #: What becomes of records that the source no longer has; None: they stay.
    deletes: Deletes | None
    #: What tells whether the values of templates in its query have changed, one text for each.
    query_said: tuple[str, ...] = ()
    #: How messages name what mends a mistake.
    ways: Ways
    #: Place in the pipeline file, for errors.
    location: tuple[str | int, ...]


class Configured(Protocol):
    """One stream with its settings, before its plan and in it."""

    @property
    def name(self) -> str:
        """The stream's name."""

    @property
    def destination_table(self) -> str:
        """The table that it is written to."""

    @property
    def stream(self) -> Stream:
        """How it is read: without excluded columns."""

    @property
    def write(self) -> WriteSpec:
        """How it is written."""

    @property
    def policy(self) -> Policy:
        """The rest of its settings."""


__all__ = ["Configured", "Policy"]
