"""DELETE and UPDATE of records that the source no longer has, and the foreign keys that refuse them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

import pyarrow as pa

from ...errors import ConnectorError, FatalConnectorError
from ...stream import DELETED_AT
from ..tables import StagingTable, Table
from .context import LoadContext
from .staging import stage_keys

#: Error texts of databases about records that other tables refer to.
_IS_REFERRED_TO = re.compile(r"foreign key|referenc|child record|SQLSTATE 23(503|001)", re.IGNORECASE)


def delete_missing(
    context: LoadContext, staged: StagingTable | None, removed: pa.Table, table: Table, key: Sequence[str]
) -> int:
    """Delete the records of removed keys, and return their number. A key that also arrives is updated instead.

    Args:
        context: the load, with an open transaction.
        staged: the records that arrive, or `None`.
        removed: the keys.
        table: the target.
        key: columns that identify a record.
    """
    keys = stage_keys(context, removed, [column for column in table.columns if column.name in key])
    writes, deleted = context.dialect.writes, 0
    # Records without references first, because each pass frees the records that they refer to. The last statement
    # shows the records that stay refused.
    if leaves := writes.delete_unreferenced(table, keys, key, kept=staged):
        while (count := context.target.execute_counted(leaves)) > 0:
            deleted += count
    count = context.target.execute_counted(writes.delete_keys(table, keys, key, kept=staged))
    context.target.execute([context.dialect.tables.drop(keys.name)])
    return removed.num_rows if count < 0 else deleted + count


def mark_missing(context: LoadContext, marked: pa.Table, table: Table, key: Sequence[str]) -> int:
    """Write the time when records were found missing at the source, or that they are back.

    Return the number of records that were found missing.
    """
    mark = context.columns.names[DELETED_AT]
    keys = stage_keys(context, marked, [column for column in table.columns if column.name in (*key, mark)])
    context.target.execute_counted(context.dialect.writes.set_columns(table, keys, key, [mark]))
    context.target.execute([context.dialect.tables.drop(keys.name)])
    found: int = marked.num_rows - marked.column(DELETED_AT).null_count
    return found


def explain_refusal(context: LoadContext, error: FatalConnectorError) -> None:
    """Roll back, and add the foreign keys and a remedy to a database's refusal."""
    if not _IS_REFERRED_TO.search(str(error)):
        return
    session, name = context.session, context.target.name
    session.rollback()
    keys: list[str] = []
    with suppress(ConnectorError):
        session.begin()
        if (table := context.target.reflect()) is not None:
            keys = [each for each in context.dialect.catalog.dependents(session, table) if "foreign key" in each]
        session.rollback()
    named = f" ({', '.join(keys)})" if keys else ""
    error.args = (
        f"{str(error).rstrip('. ')}; other records refer to records of {name} that the source no longer "
        f"has{named}: if both streams have `deletes: hard`, a run with both of them deletes children first; or "
        "mark the records by `deletes: soft`",
    )


__all__ = ["delete_missing", "explain_refusal", "mark_missing"]
