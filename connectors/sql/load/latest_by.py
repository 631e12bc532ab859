"""`WriteSpec.latest_by`: the database decides before the merge which staged records count."""

from __future__ import annotations

from collections.abc import Sequence

from ..tables import Column, StagingTable, Table
from .context import LoadContext


def keep_latest(
    context: LoadContext, table: Table, staged: StagingTable, key: Sequence[str], *, is_new: bool, current: str = ""
) -> int | None:
    """Delete the staged records that do not count; do nothing if the last record of a key counts.

    Return how many a newer staged record replaced, or `None` if this is unknown.

    Args:
        context: the load, with an open transaction and the only writer of the table.
        table: the target.
        staged: the records.
        key: columns of the merge.
        is_new: the target had no records before this load.
        current: column of a history that is NULL in current versions; only these are compared.
    """
    said, is_lowest = context.load.write.latest_by, context.load.write.latest_is_lowest
    if not said:
        return None
    writes, column = context.dialect.writes, _column(context, staged, table, context.columns.names.get(said, ""))
    if column is None:
        raise context.error(f"latest_by {said!r}: the stream has no such column")
    # Usually no key comes twice, and sorting all records would cost more; keys are compared in the table's types.
    is_cast = any(staged.types[each.name] != each.type for each in table.columns if each.name in key)
    outrun = 0
    if is_cast or context.session.query(writes.repeated_key(staged.name, key)):
        outrun = context.target.execute_counted(writes.drop_outrun(table, staged, column, key, is_lowest))
    if not is_new:
        writes.refuse_unordered(context.session, table, column)
        context.target.execute([writes.drop_older(table, staged, column, key, current, is_lowest)])
    return None if outrun < 0 else outrun


def _column(context: LoadContext, staged: StagingTable, table: Table, name: str) -> Column | None:
    return next((column for column in staged.written_to(table) if column.name == name), None)


__all__ = ["keep_latest"]
