"""`WriteSpec.deleted_when`: deletes records from the target that the source has marked as deleted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from ...read_spec import ASKING, Condition
from ...struct_helpers import replace
from ..actions import Action, Statements
from ..identifiers import REMOVED
from ..tables import ColumnTest, StagingTable, Table
from .context import LoadContext
from .staging import stage_beside


@contextmanager
def deleting(context: LoadContext, table: Table, key: Sequence[str]) -> Iterator[Statements]:
    """Write the DELETE that follows a merge: it covers the merged keys whose record is marked as deleted.

    The record that the merge kept decides; other records of the same key do not count.

    Args:
        context: the load, with an open transaction.
        table: the target.
        key: columns of the merge.
    """
    test = _staged_test(context)

    def statements(arrived: StagingTable) -> Sequence[Action]:
        if test is None:
            return ()
        return [context.dialect.writes.delete_meeting(table, _of_table(test, table), arrived, key)]

    yield statements
    if test is not None:
        _drop_values(context, test)


class MarkedRecords:
    """Deletes marked records from a table that is written from scratch, so that each record has a different key.

    Create it before the table is written: some systems cannot create the table of the condition's values later.
    """

    def __init__(self, context: LoadContext) -> None:
        self._context = context
        self._test = _staged_test(context)

    def delete(self, table: Table) -> None:
        """Delete the marked records, and drop the values of the condition."""
        if self._test is not None:
            delete = self._context.dialect.writes.delete_meeting(table, _of_table(self._test, table))
            self._context.target.execute([delete])
            _drop_values(self._context, self._test)


def _of_table(test: ColumnTest, table: Table) -> ColumnTest:
    return replace(test, column=table.column(test.column.name) or test.column)


def _staged_test(context: LoadContext) -> ColumnTest | None:
    """Stage the values of the condition if it has any. Return `None` if the stream has no such condition."""
    if context.load.write.deleted_when is None:
        return None
    condition, field = _fitted(context)
    name = context.columns.names[field.name]
    column, _ = context.columns.planned()[name]
    if condition.operator in ASKING:
        return ColumnTest(column=column, is_null=condition.operator == "is_null")
    values = pa.table([pa.array([value.as_py() for value in condition.values], field.type)], names=[name])
    return ColumnTest(column=column, values=stage_beside(context, REMOVED, [column], values))


def _drop_values(context: LoadContext, test: ColumnTest) -> None:
    if test.values is not None:
        context.target.execute([context.dialect.tables.drop(test.values.name)])


def _fitted(context: LoadContext) -> tuple[Condition, pa.Field]:
    """Return the condition with values of the column's present type, and the column in its arriving type."""
    from ...filters import fitted  # saves the import for streams without the setting

    condition, schema = context.load.write.deleted_when, context.columns.stream.schema
    assert condition is not None
    if condition.field.name not in schema.names:
        raise context.error(f"deleted_when: column {condition.field.name!r} does not arrive")
    field = schema.field(condition.field.name)
    try:
        return fitted(condition, field), field
    except ValueError as error:
        raise context.error(f"deleted_when: {error}") from error


__all__ = ["MarkedRecords", "deleting"]
