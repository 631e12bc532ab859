"""DuckDB's dialect."""

from __future__ import annotations

from ..sql.dialect.dialect import Dialect
from ..sql.dialect.facts import Facts
from ..sql.identifiers import Naming, TableName
from ..struct_helpers import replace
from .catalog import DuckDBCatalog
from .tables import DuckDBTables
from .types import DuckDBTypes
from .write_statements import DuckDBWrites

_FACTS = Facts(
    # Naive UTC: before DuckDB 2.0, Python needs another package to read a time with zone.
    timestamp_type="TIMESTAMP",
    now="current_timestamp::timestamp",
    text_type="VARCHAR",
    bigint_type="BIGINT",
    # A transaction as old as its first record cannot be fenced off. DuckDB lets it update a ledger row that another one
    # has replaced since (by INSERT ... ON CONFLICT), and sees no conflict between different columns.
    appends_directly=False,
    arrival="rowid",
    keys_replacements=False,
    keeps_infinite=True,
)


class DuckDBNaming(Naming):
    """Names ignore case."""

    name = "duckdb"
    default_schema = "main"

    def __init__(self) -> None:
        #: Name of the file's catalog; known after the first connection.
        self.catalog = ""

    def schema(self, name: str) -> str:
        """Quote a schema's full name, with the catalog: a schema may have the catalog's name."""
        return ".".join(self.quote(part) for part in (self.catalog, name) if part)

    def table(self, name: TableName) -> str:
        """Quote a table's full name, with the catalog."""
        return f"{self.schema(name.schema or self.default_schema)}.{self.quote(name.name)}"

    def fold(self, name: str) -> str:
        """Names ignore case."""
        return name.casefold()


def dialect(naming: DuckDBNaming, *, is_limited: bool = False, has_primary_key: bool = False) -> Dialect:
    """Build the dialect of DuckDB 1.4 and later.

    Args:
        naming: gets the file's catalog from the first connection.
        is_limited: the user has set a memory limit, which also applies to merges.
        has_primary_key: new tables get a primary key.
    """
    facts = replace(_FACTS, keys_replacements=has_primary_key)
    return Dialect(
        naming=naming,
        facts=facts,
        types=DuckDBTypes(),
        catalog=DuckDBCatalog(naming),
        tables=DuckDBTables(naming, has_primary_key=has_primary_key),
        writes=DuckDBWrites(naming, facts, is_limited=is_limited),
    )


__all__ = ["DuckDBNaming", "dialect"]
