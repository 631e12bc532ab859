"""Keys of existing tables: how their columns widen, how the key changes, and which keys are equal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from .identifiers import TableName
from .session import Session
from .tables import Column, Table


class Rekeying(ABC):
    """The part of a dialect about keys; by default, keys do not change."""

    @abstractmethod
    def widen(self, before: str, after: str) -> str | None:
        """See `Dialect`."""

    def widen_key(self, before: str, after: str, columns: int) -> str | None:
        """Do as `widen` for one of a key's columns, of so many; default: an index takes what any column takes."""
        return self.widen(before, after)

    def rekey(self, session: Session, table: Table, key: Sequence[str]) -> Sequence[str]:
        """Write the statements that give a table another primary key, in place; none: the system has no such thing.

        They run while the table is empty in this transaction; where DDL commits (`alters_at_once`) before that, on the
        records that are there. Columns that leave the key may hold NULL from then on (`freed`).

        Args:
            session: to read the catalog.
            table: as it stands now; it has a primary key.
            key: columns of the new one; empty: the table has none from then on.
        """
        return ()

    def refuse_twins(  # noqa: B027 -- most need nothing
        self, session: Session, target: Table, staging: TableName, columns: Sequence[Column], key: Sequence[str]
    ) -> None:
        """Raise if staged keys collide: different texts that the system takes for equal; default: nothing to do."""

    def dependents(self, session: Session, table: Table) -> Sequence[str]:
        """Name what would be lost if another table took this one's place ("index t_v"), for messages."""
        return ()


def freed(table: Table, key: Sequence[str]) -> list[str]:
    """Return the columns that refuse NULL for no other reason than the key that they leave."""
    columns = [table.column(name) for name in table.key if name not in key]
    return [column.name for column in columns if column and not (column.has_default or column.is_generated)]


__all__ = ["Rekeying", "freed"]
