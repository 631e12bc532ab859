"""Inserts too large for one transaction of their database: added by the dialect of such a database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

from ..actions import Action, Statements
from ..session import Session
from ..tables import StagingTable, Table

#: Runs actions, unless the load was interrupted.
Run = Callable[[Iterable[Action]], None]


class InsertsInPieces(ABC):
    """Brings staged records into an existing table in several transactions; the last one writes the ledger row.

    Each is committed. If a load ends before the last transaction, the next load deletes its records, or merges them
    again.
    """

    @abstractmethod
    def moves(self, session: Session, target: Table, staged: StagingTable, key: Sequence[str]) -> bool:
        """Return whether one transaction is too small for the staged records; called after `Writes.begin_commit`."""

    @abstractmethod
    def move(
        self,
        session: Session,
        target: Table,
        staged: StagingTable,
        key: Sequence[str],
        merge: Statements,
        run: Run,
        *,
        is_first: bool,
    ) -> None:
        """Insert or merge the staged records; the transaction that is then open must still drop their table.

        Arguments as in `Writes.merge`. An append has no `key`, and needs no `merge`. `is_first`: of records with equal
        keys the first one counts.
        """


__all__ = ["InsertsInPieces", "Run"]
