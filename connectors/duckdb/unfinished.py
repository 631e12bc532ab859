"""Appends that need several transactions, and how an unfinished one is deleted.

DuckDB processes 2,048 records at once, so one transaction would need memory for that many wide records. A load of wide
records commits several times; the last transaction writes the ledger. Until then, a column marks the new records: TRUE
for them, NULL for all others. The load holds the commit lock until its end. A process that later gets the lock, or
opens the file, and finds the column, knows that a load ended before its last commit.
"""

from __future__ import annotations

from typing import Any

from ..sql.identifiers import OWN_PREFIX, quote

#: The column that marks new records.
MARK = f"{OWN_PREFIX}_arriving"


def add_mark(table: str) -> str:
    """Write the statement that adds the mark to a quoted table; existing records have NULL."""
    return f"alter table {table} add column {quote(MARK)} boolean"


def drop_mark(table: str) -> str:
    """Write the statement that drops the mark: the new records stay."""
    return f"alter table {table} drop column {quote(MARK)}"


def delete_unfinished(cursor: Any) -> None:
    """Delete the records of unfinished appends, table by table; needs no open transaction and no other writer."""
    cursor.execute(
        "select database_name, schema_name, table_name from duckdb_columns() "
        "where database_name = current_database() and column_name = $1",
        [MARK],
    )
    for names in cursor.fetchall():
        table = ".".join(map(quote, names))
        # Two transactions: DuckDB before 2.0 cannot delete and alter in one.
        cursor.execute(f"delete from {table} where {quote(MARK)}")
        cursor.execute(drop_mark(table))


__all__ = ["MARK", "add_mark", "delete_unfinished", "drop_mark"]
