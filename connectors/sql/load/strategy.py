"""Base of the write dispositions: the calls from the main loop, and the staging table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from ...stream import FileRead
from ..tables import Column, StagingTable, Table
from .context import LoadContext
from .events import LoadEvents
from .ingest import ingest
from .staging import adapt_staging, planned_staging


class Strategy(ABC):
    """Writes the records of one load into its target.

    In each transaction, `begin` and `receive` stage the records. Then `publish` calls the phases `lock`, `write`,
    `remove` and `swap`. A strategy that can write records into the target at once does so in `receive`.
    """

    #: Whether each checkpoint ends a transaction; False: only the final one.
    commits_at_checkpoints = True

    def __init__(self, context: LoadContext) -> None:
        self.context = context
        #: The target when the transaction began; None: it does not exist, or was not read.
        self.table: Table | None = None
        #: The staging table of this transaction; None: no staged records.
        self.staged: StagingTable | None = None
        #: Records of this transaction, without rejected ones.
        self.records = 0
        #: Files that the checkpoint of this transaction names.
        self.files: Sequence[FileRead] = ()
        #: Records deleted or marked in this transaction, see `Commit.removed`.
        self.removed = 0
        #: See `Commit.replaced`.
        self.replaced: int | None = None

    def begin(self) -> None:
        """Begin a transaction: nothing is staged."""
        self.staged, self.records, self.removed, self.replaced = None, 0, 0, None
        self.read_target()

    def read_target(self) -> None:
        """Read the target's catalog entry, and map the stream's columns to the target's."""
        self.table = self.context.target.reflect()
        self.context.columns.follow(self.context.columns.stream, self.table)

    def receive(self, events: LoadEvents) -> None:
        """Put the data up to the next marker into the staging table."""
        staged = self.stage()
        self.records += ingest(self.context, events, staged.name, staged.types, not_null=self.not_null())

    @abstractmethod
    def lock(self, *, is_final: bool) -> None:
        """Check the staged records, and lock the target until the commit if this transaction changes it.

        Args:
            is_final: the load ends with this transaction.
        """

    @abstractmethod
    def write(self) -> None:
        """Create the target or add what it lacks, then insert or update its records."""

    def remove(self) -> None:
        """Delete or mark records that the source no longer has. The default does nothing."""
        return

    def swap(self) -> None:
        """Make the staging table the target. The default does nothing."""
        return

    def stage(self, *, is_shared: bool = False) -> StagingTable:
        """Create the staging table (shared: visible to other connections), or fit it to a changed schema."""
        if self.staged is None:
            self.staged = self.create_staging(planned_staging(self.context), is_shared=is_shared)
        else:
            self.staged = adapt_staging(self.context, self.staged)
        return self.staged

    @abstractmethod
    def create_staging(self, planned: StagingTable, *, is_shared: bool) -> StagingTable:
        """Create the planned staging table, beside the target."""

    def not_null(self) -> frozenset[str]:
        """Return the columns of the target in which the database turns NULL into another value."""
        return frozenset(column.name for column in (self.table.columns if self.table else ()) if column.fills_nulls)

    def kept_history(self, *, is_final: bool) -> Mapping[str, Any]:
        """Return the state of a history for the ledger (`LedgerRow.history`); default: no history."""
        return {}

    def target_columns(self) -> list[Column]:
        """Return the columns that the target needs for this transaction's records."""
        planned = self.staged or planned_staging(self.context)
        return self.context.columns.required(list(planned.columns.values()))


__all__ = ["Strategy"]
