"""What the catalog of one SQL system says about tables that exist."""

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
        """Read the catalog for tables and views that exist; the others are not in the result."""

    def identify(self, session: Session, table: Table) -> str:
        """Return what tells a table from one of its name that is made after it is dropped; default: `reflect` did."""
        return table.identity

    def exists(self, session: Session, name: TableName) -> bool:
        """Tell whether there is a table (or view) of that name."""
        return name in self.reflect(session, [name])

    def keeps_types(self, session: Session, name: TableName, types: Mapping[str, str]) -> bool:
        """Keep a table from being altered, and tell whether its columns are of these types; asked after `Tables.lock`.

        Default: True, for systems that take values and not bytes.
        """
        return True

    def lock_shape(self, session: Session, name: TableName) -> bool:
        """Keep others from altering an existing table until the commit; True: read its catalog entry again."""
        return False

    @abstractmethod
    def list_staging(self, session: Session) -> Sequence[TableName]:
        """Return every table whose name begins with `STAGING_PREFIX`."""

    def unique_keys(self, session: Session, table: Table) -> Collection[frozenset[str]]:
        """Return the column sets of a table's unique indexes, the primary key's as well."""
        return {*table.unique_keys, frozenset(table.key)}

    def dependents(self, session: Session, table: Table) -> Sequence[str]:
        """Name what would be lost if another table took this one's place ("index t_v"), for messages."""
        return ()


__all__ = ["Catalog"]
