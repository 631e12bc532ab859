"""`WriteSpec.deleted_when`: deletes records from the target that the source has marked as deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    with _staged_test(context) as test:

        def statements(arrived: StagingTable) -> Sequence[Action]:
            if test is None:
                return ()
            return [context.dialect.writes.delete_meeting(table, _of_table(test, table), arrived, key)]

        yield statements


@contextmanager
def deleting_replaced(context: LoadContext) -> Iterator[Callable[[Table], None]]:
    """Yield the DELETE of marked records for a table that was written from scratch.

    Each record has a different key. Enter this before the table is written: some systems cannot create a table later.
    """
    with _staged_test(context) as test:

        def delete(table: Table) -> None:
            if test is not None:
                context.target.run([context.dialect.writes.delete_meeting(table, _of_table(test, table))])

        yield delete


def _of_table(test: ColumnTest, table: Table) -> ColumnTest:
    return replace(test, column=table.column(test.column.name) or test.column)


@contextmanager
def _staged_test(context: LoadContext) -> Iterator[ColumnTest | None]:
    """Stage the values of the condition if it has any; None: no record is marked as deleted."""
    if context.load.write.deleted_when is None:
        yield None
        return
    condition, field = _fitted(context)
    name = context.columns.names[field.name]
    column, _ = context.columns.planned()[name]
    if condition.operator in ASKING:
        yield ColumnTest(column=column, is_null=condition.operator == "is_null")
        return
    values = pa.table([pa.array([value.as_py() for value in condition.values], field.type)], names=[name])
    staged = stage_beside(context, REMOVED, [column], values)
    yield ColumnTest(column=column, values=staged)
    context.target.run([context.dialect.tables.drop(staged.name)])


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


__all__ = ["deleting", "deleting_replaced"]
