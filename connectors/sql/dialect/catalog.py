"""Reads existing tables from the catalog of one SQL system."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence

from ..identifiers import Naming, TableName
from ..session import Session
from ..tables import Table


class Catalog(ABC):
    """Reads the catalog inside a session's transaction."""

    def __init__(self, naming: Naming) -> None:
        self._naming = naming

    @abstractmethod
    def reflect(self, session: Session, tables: Sequence[TableName]) -> Mapping[TableName, Table]:
        """Read the catalog entries of existing tables and views; missing ones are not in the result."""

    def identify(self, session: Session, table: Table) -> str:
        """Return an identity that a later table of the same name does not share; default: set by `reflect`."""
        return table.identity

    def exists(self, session: Session, name: TableName) -> bool:
        """Tell whether there is a table (or view) of that name."""
        return name in self.reflect(session, [name])

    def keeps_types(self, session: Session, name: TableName, types: Mapping[str, str]) -> bool:
        """Lock a table's definition, and return whether its columns have these types; called after `Tables.lock`.

        Default: True; most systems store values, not bytes.
        """
        return True

    def lock_shape(self, session: Session, name: TableName) -> bool:
        """Lock an existing table's definition until the commit; True: read its catalog entry again."""
        return False

    @abstractmethod
    def list_staging(self, session: Session) -> Sequence[TableName]:
        """Return every table whose name begins with `STAGING_PREFIX`."""

    def unique_keys(self, session: Session, table: Table) -> Collection[frozenset[str]]:
        """Return the column sets of a table's unique indexes, including the primary key."""
        return {*table.unique_keys, frozenset(table.key)}

    def dependents(self, session: Session, table: Table) -> Sequence[str]:
        """Name objects that would be lost if another table replaced this one ("index t_v"), for messages."""
        return ()


__all__ = ["Catalog"]
