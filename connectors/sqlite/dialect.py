"""SQLite's dialect."""

from __future__ import annotations

from ..sql.dialect.dialect import Dialect
from ..sql.dialect.facts import Facts
from ..sql.identifiers import Naming, TableName
from .catalog import SQLiteCatalog
from .tables import SQLiteTables
from .types import SQLiteTypes
from .write_statements import SQLiteWrites

_FACTS = Facts(
    has_savepoints=True,
    timestamp_type="TEXT",
    now="strftime('%Y-%m-%d %H:%M:%f+00:00', 'now')",
    text_type="TEXT",
    bigint_type="INTEGER",
    spelled="cast({} as text) collate binary",
    keeps_nanoseconds=True,
    max_columns=1999,
    alters_types=False,
    # To rename a table, SQLite reads the definition of every table of the file.
    refill_bytes=1 << 20,
)


class SQLiteNaming(Naming):
    """There are no schemas: a dot belongs to the table's name."""

    name = "sqlite"

    def table_name(self, destination_table: str, default_schema: str) -> TableName:
        """Take the whole text for the table's name, but for the name of the file's own schema."""
        if destination_table.startswith('"'):
            parsed = TableName.parse(destination_table, "")
            return TableName("", f"{parsed.schema}.{parsed.name}" if parsed.schema else parsed.name)
        return TableName("", destination_table.removeprefix("main.") or destination_table)

    def fold(self, name: str) -> str:
        """Names are the same without regard to case."""
        return name.casefold()


def dialect() -> Dialect:
    """Put SQLite's parts together; of 3.35 and later."""
    naming = SQLiteNaming()
    return Dialect(
        naming=naming,
        facts=_FACTS,
        types=SQLiteTypes(),
        catalog=SQLiteCatalog(naming),
        tables=SQLiteTables(naming),
        writes=SQLiteWrites(naming, _FACTS),
    )


__all__ = ["dialect"]
