"""How DuckDB spells names."""

from __future__ import annotations

from ..sql.identifiers import Naming, TableName


class DuckDBNaming(Naming):
    """Names are the same without regard to case."""

    name = "duckdb"
    default_schema = "main"

    def __init__(self) -> None:
        #: Name of the file's catalog; known from the first connection on.
        self.catalog = ""

    def table(self, name: TableName) -> str:
        """Quote a table's full name, with the catalog: a schema may be named like it."""
        parts = [self.catalog, name.schema or self.default_schema, name.name]
        return ".".join(self.quote(part) for part in parts if part)

    def fold(self, name: str) -> str:
        """Names are the same without regard to case."""
        return name.casefold()


__all__ = ["DuckDBNaming"]
