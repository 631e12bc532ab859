"""How a system spells names, as SQLAlchemy's dialect for it says."""

from __future__ import annotations

from sqlalchemy.engine import Engine

from ..sql.identifiers import SEQUENCE, Naming, TableName
from .spelling import Names


class Slice(TableName, frozen=True):
    """Staged records from a number to another."""

    first: int
    last: int


class SQLAlchemyNaming(Naming):
    """Where a system folds names to upper case, a name in lower case is the same to it in any case."""

    name = "sqlalchemy"

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.max_identifier_bytes = min(engine.dialect.max_identifier_length or 63, 255)
        self.spelling = Names(engine.dialect)

    def quote(self, name: str) -> str:
        """Quote a name."""
        return self.spelling.quote(name)

    def table(self, name: TableName) -> str:
        """Quote the name of a table; a slice is a derived table."""
        if not isinstance(name, Slice):
            return super().table(name)
        whole, between = super().table(TableName(name.schema, name.name)), f"between {name.first} and {name.last}"
        return f"(select * from {whole} x where x.{self.quote(SEQUENCE)} {between})"

    def fold(self, name: str) -> str:
        """Take names that differ in case only for the same: some systems do, and no user wants both."""
        return name.casefold()

    def table_name(self, destination_table: str, default_schema: str) -> TableName:
        """Read a `destination_table`."""
        found = super().table_name(destination_table, default_schema)
        return TableName(self.spelling.shown(found.schema) if found.schema else "", self.spelling.shown(found.name))

    def plain(self, name: str) -> str:
        """Return the name as the catalog's names are shown."""
        return self.spelling.shown(super().plain(name))

    def marked(self, name: str) -> str:
        """Return the name with a hash, as the catalog's names are shown."""
        return self.spelling.shown(super().marked(name))


__all__ = ["SQLAlchemyNaming"]
