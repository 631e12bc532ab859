"""Commits that are too large for one transaction of their database: what a dialect brings that has such."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..identifiers import TableName
from ..session import Session
from ..tables import Column, Table


class Moving(ABC):
    """Moves staged records into a table that is there in several transactions, of which the ledger's is the last.

    Each is committed; what a load has moved that never comes to its own commit is taken back, or merged again.
    """

    @abstractmethod
    def moves(self, session: Session, target: Table, staging: TableName, key: Sequence[str]) -> bool:
        """Tell, after `settle`, whether that takes several; False: the commit's own holds it all."""

    @abstractmethod
    def move(
        self,
        session: Session,
        target: Table,
        staging: TableName,
        columns: Sequence[Column],
        staged: Mapping[str, str],
        key: Sequence[str],
        statements: Callable[[TableName], Sequence[str]],
        run: Callable[[Iterable[str]], None],
    ) -> None:
        """Do it; the transaction that is open afterwards has still to drop the staging table.

        Args:
            session: shuts out every other writer from `settle` to its commit.
            target: as it stands now.
            staging: the records.
            columns: those that are staged, with the target's types.
            staged: column -> type in the staging table.
            key: of a merge, whose staging table has `SEQUENCE`; none: an append.
            statements: bring the records of a staging table in, of a merge.
            run: runs statements, unless the load was interrupted.
        """


__all__ = ["Moving"]
