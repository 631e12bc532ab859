"""The staging table of a transaction: planned, fitted to a changing schema, and written into its target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
from msgspec import Struct

from ...arrow.casts import cast_batch
from ...struct_helpers import replace
from ...write_spec import ConflictMethod, WriteDisposition
from ..actions import Action, Statements
from ..dialect.write_statements import SlicesStaging
from ..identifiers import REMOVED, TableName, staging_name
from ..tables import Column, StagingTable, Table
from .context import LoadContext
from .pieces import InsertsInPieces


def planned_staging(context: LoadContext) -> StagingTable:
    """Plan the staging table for the stream's current schema, beside the target."""
    planned, load = context.columns.planned(), context.load
    is_merge = load.write.disposition in (WriteDisposition.MERGE, WriteDisposition.HISTORY)
    is_by_age = load.write.disposition is WriteDisposition.REPLACE_RANGE and bool(load.write.deciding)
    slices = load.write.max_rejected is not None and isinstance(context.dialect.writes, SlicesStaging)
    return StagingTable(
        name=TableName(context.target.name.schema, staging_name(load.token)),
        types={name: wire.type for name, (_, wire) in planned.items()},
        columns={name: column for name, (column, _) in planned.items()},
        is_numbered=is_merge or is_by_age or slices,
    )


def create_staging(context: LoadContext, planned: StagingTable, *, is_shared: bool) -> StagingTable:
    """Create a staging table to merge or insert from."""
    beside = planned.name
    name = beside if is_shared else context.dialect.tables.staging(context.target.name, beside.name)
    context.session.execute(
        context.dialect.tables.create_staging(name, planned.own_columns(), numbered=planned.is_numbered)
    )
    return replace(planned, name=name)


def adapt_staging(context: LoadContext, staged: StagingTable) -> StagingTable:
    """Fit a staging table to the stream's current schema: add columns, widen types."""
    planned = context.columns.planned()
    dialect, session = context.dialect, context.session
    types, columns = dict(staged.types), dict(staged.columns)
    for field, (name, (column, wire)) in zip(context.columns.stream.schema, planned.items(), strict=True):
        if name not in columns:
            session.execute(dialect.tables.add_column(staged.name, replace(column, type=wire.type)))
            types[name], columns[name] = wire.type, column
        elif column.type != columns[name].type:
            wider = context.target.widened(columns[name].type, column)
            wire = context.columns.wire_of(wider, field)
            if wire.type != types[name]:
                for statement in context.target.altered(staged.name, Column(name=name, type=types[name]), wire.type):
                    session.execute(statement)
            types[name], columns[name] = wire.type, replace(column, type=wider)
    return replace(staged, types=types, columns=columns)


def stage_beside(context: LoadContext, suffix: str, columns: Sequence[Column], records: pa.Table) -> StagingTable:
    """Write a few records into a table beside the staging table; the caller drops it.

    Args:
        context: the load, with an open transaction.
        suffix: end of the table's name.
        columns: columns of the target, or columns with the target's types.
        records: a column for each, in order.
    """
    dialect = context.dialect
    wires = [dialect.types.wire(column.type, field.type) for column, field in zip(columns, records.schema, strict=True)]
    staged = StagingTable(
        name=dialect.tables.staging(context.target.name, staging_name(context.load.token) + suffix),
        types={column.name: wire.type for column, wire in zip(columns, wires, strict=True)},
        columns={column.name: column for column in columns},
    )
    context.session.execute(dialect.tables.create_staging(staged.name, staged.own_columns(), numbered=False))
    schema = pa.schema([pa.field(c.name, wire.arrow) for c, wire in zip(columns, wires, strict=True)])
    batches = (cast_batch(batch, schema, context.load.stream.name) for batch in records.to_batches())
    context.session.ingest(staged.name, schema, batches, "arrow")
    return staged


def stage_keys(context: LoadContext, keys: pa.Table, columns: Sequence[Column]) -> StagingTable:
    """Write keys of a load and their values into a table beside the staging table, see `stage_beside`."""
    fields = {context.columns.names[field.name]: field for field in keys.schema}
    return stage_beside(context, REMOVED, columns, keys.select([fields[column.name].name for column in columns]))


def repeated_keys(context: LoadContext, staged: StagingTable, key: Sequence[str]) -> int:
    """Keep one staged record of each key if no index does; return how many records were rejected.

    Raises:
        FatalConnectorError: a key is repeated, and the stream rejects no records.
    """
    dialect = context.dialect
    if context.rejected is not None and dialect.facts.arrival:
        reason = f"another record has the same key ({', '.join(key)})"
        return context.rejected.remove(
            staged, [(dialect.writes.repeated(staged.name, key), reason)], context.columns.names
        )
    found = context.session.query(dialect.writes.repeated_key(staged.name, key))
    if found:
        shown = ", ".join(f"{name} = {value!r}" for name, value in zip(key, found[0], strict=True))
        raise context.error(
            f"several records have the same key ({shown}): choose other key_properties, or write_disposition merge"
        )
    return 0


class Inserted(Struct, frozen=True):
    """What is left to do for staged records."""

    actions: Sequence[Action]
    #: How many records were rejected.
    rejected: int


def insert_staged(
    context: LoadContext,
    table: Table,
    staged: StagingTable,
    statements: Statements,
    *,
    key: Sequence[str] = (),
    before: Sequence[Action] = (),
    note: Callable[[int], None] = lambda _: None,
) -> Inserted:
    """Reject staged records that do not fit, and return the actions that insert the others and drop the table.

    `key` belongs to a merge, or to a replacement in place. `before` runs first. `note` is called with the number of
    rejected records while the staging table has all other records.
    """
    dialect, rejected, target = context.dialect, context.rejected, context.target
    is_replace = context.load.write.disposition is WriteDisposition.REPLACE
    is_whole = is_replace or context.load.write.disposition is WriteDisposition.REPLACE_RANGE
    ignores, drop = context.load.write.conflict_method is ConflictMethod.IGNORE, dialect.tables.drop(staged.name)
    if rejected is not None and dialect.facts.has_savepoints:
        target.execute(before)
        is_first = not is_replace and ignores
        count = rejected.insert(staged, statements, context.columns.names, key=key, is_first=is_first)
        note(count)
        return Inserted(actions=[drop], rejected=count)
    count = 0
    if rejected is not None:
        unfit = dialect.writes.violations(
            context.session, table, staged, key, ignores=ignores, is_emptied=is_replace and not key
        )
        count = rejected.remove(staged, unfit, context.columns.names)
    note(count)
    # After a rejection, the remaining records keep their order only if the staging table numbers them. A history
    # compares a version with the others of its batch: in pieces, some would come too late.
    if (
        not is_whole
        and context.load.history is None
        and not context.load.write.changes  # a part of the records is not a snapshot of the source
        and (not count or staged.is_numbered)
        and _insert_in_pieces(context, table, staged, statements, key)
    ):
        return Inserted(actions=[drop], rejected=count)
    return Inserted(actions=[*before, *statements(staged), drop], rejected=count)


def _insert_in_pieces(
    context: LoadContext, table: Table, staged: StagingTable, statements: Statements, key: Sequence[str]
) -> bool:
    """Insert in pieces if the records are too many for one transaction.

    Return whether this was done. The lock on other writers stays.
    """
    dialect, session, load, target = context.dialect, context.session, context.load, context.target
    if not isinstance(dialect.writes, InsertsInPieces) or not dialect.writes.moves(session, table, staged, key):
        return False
    context.ledger.check(session, context.ledger.table(target.name), load.key, load.token)
    if target.changes and not target.is_announced:
        target.announce()
    is_first = load.write.conflict_method is ConflictMethod.IGNORE
    dialect.writes.move(session, table, staged, key, statements, target.execute, is_first=is_first)
    return True


def refuse_altered(context: LoadContext, table: TableName, types: Mapping[str, str]) -> None:
    """Lock a table's column types until the end of the transaction.

    Raises:
        FatalConnectorError: they have changed already.
    """
    if not context.dialect.catalog.keeps_types(context.session, table, types):
        raise context.error(
            f"{table} was altered during the load: its columns no longer have the types of the prepared records; "
            "run again"
        )


__all__ = [
    "adapt_staging",
    "create_staging",
    "insert_staged",
    "planned_staging",
    "refuse_altered",
    "repeated_keys",
    "stage_beside",
    "stage_keys",
]
