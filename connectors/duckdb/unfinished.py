"""Appends that reach a table in several transactions, and how an unfinished one is deleted.

DuckDB works on 2,048 records at once, so one transaction would hold that many wide records in memory. A load of wide
records commits several times; the last transaction writes the ledger. Until then a column marks the new records: TRUE
for them, NULL for all others. The load holds the commit lock all the while. Whoever gets the lock later, or opens the
file, and finds the column, knows that a load ended before its last commit.
"""

from __future__ import annotations

from typing import Any

from ..sql.identifiers import OWN_PREFIX, quote

#: The column.
MARK = f"{OWN_PREFIX}_arriving"


def add_mark(table: str) -> str:
    """Write the statement that adds the mark to a table (quoted); records that are there have NULL."""
    return f"alter table {table} add column {quote(MARK)} boolean"


def drop_mark(table: str) -> str:
    """Write the statement that drops the mark: the new records stay."""
    return f"alter table {table} drop column {quote(MARK)}"


def delete_unfinished(cursor: Any) -> None:
    """Delete the records of unfinished appends, table by table; no transaction is open, and nobody else writes."""
    cursor.execute(
        "select database_name, schema_name, table_name from duckdb_columns() "
        "where database_name = current_database() and column_name = $1",
        [MARK],
    )
    for names in cursor.fetchall():
        table = ".".join(map(quote, names))
        # Each a transaction: DuckDB before 2.0 does not let one delete and alter.
        cursor.execute(f"delete from {table} where {quote(MARK)}")
        cursor.execute(drop_mark(table))


__all__ = ["MARK", "add_mark", "delete_unfinished", "drop_mark"]
