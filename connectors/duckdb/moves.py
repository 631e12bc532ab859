"""Appends that reach a table in several transactions, and how they are taken back.

DuckDB works on 2,048 records at once, so that one transaction would have as many in memory, whatever they weigh. Until
the last of the transactions, which writes the ledger too, the records that came are marked: a column has TRUE for
them, and NULL for all others. The commit lock is held all the while. So whoever has the lock, or has just opened the
file, and finds that column, sees what a load has left that never came to its commit.
"""

from __future__ import annotations

from typing import Any

from ..sql.identifiers import OWN_PREFIX, quote

#: The column.
MARK = f"{OWN_PREFIX}_arriving"


def marking(table: str) -> str:
    """Write the statement after which the records of a table (quoted) can be told from those that come."""
    return f"alter table {table} add column {quote(MARK)} boolean"


def unmarking(table: str) -> str:
    """Write the statement that makes those that came the table's own."""
    return f"alter table {table} drop column {quote(MARK)}"


def take_back(cursor: Any) -> None:
    """Delete what unfinished appends have left, table by table; no transaction is open, and nobody else writes."""
    cursor.execute(
        "select database_name, schema_name, table_name from duckdb_columns() "
        "where database_name = current_database() and column_name = $1",
        [MARK],
    )
    for names in cursor.fetchall():
        table = ".".join(map(quote, names))
        # Each a transaction: DuckDB before 2.0 does not let one delete and alter.
        cursor.execute(f"delete from {table} where {quote(MARK)}")
        cursor.execute(unmarking(table))


__all__ = ["MARK", "marking", "take_back", "unmarking"]
