"""Changes the primary key of a target that a replace keeps, or refuses the change."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import FatalConnectorError
from ..identifiers import TableName
from ..tables import Column, Table
from .context import LoadContext


class KeyChange:
    """The key change of one load, if the stream had another key when the table was last written.

    A key that the stream never had belongs to the table's owner and stays; the database reports violations.
    """

    def __init__(self, context: LoadContext) -> None:
        self._context = context
        self._dialect = context.dialect
        self._load = context.load
        self._target = context.target

    def is_due(self, table: Table, key: Sequence[str]) -> bool:
        """Return whether a table still has the stream's former primary key."""
        return bool(table.key) and set(table.key) != set(key) and self._folded(table.key) == self._former(table)

    def refuse(self, table: Table, key: Sequence[str]) -> None:
        """Raise if the key cannot change in place, before anything is written.

        Raises:
            FatalConnectorError: it names both keys, the reason why the table stays, and a remedy.
        """
        if not self.is_due(table, key):
            return
        if table.is_referenced:
            raise self._error(table, key, self._kept(table), "foreign keys of other tables refer to it")
        if not self._dialect.tables.rekey(self._context.session, table, key):
            raise self._error(table, key, self._kept(table), f"{self._dialect.name} cannot change a primary key")

    def change(self, table: Table, key: Sequence[str]) -> Table:
        """Give the table its new key; unless DDL commits, the table is empty from then on."""
        dialect, kept = self._dialect, self._kept(table)
        statements = list(dialect.tables.rekey(self._context.session, table, key))
        self._target.changes.append(
            {"column": "", "change": "keys", "before": ", ".join(table.key), "after": ", ".join(key)}
        )
        if dialect.facts.alters_at_once:
            self._load.announce(None, tuple(self._target.changes))
            self._target.is_announced = True
        else:
            self._target.execute([dialect.writes.empty(table)])
        try:
            self._target.execute(statements)
        except FatalConnectorError as error:
            raise self._error(table, key, kept, str(error)) from error
        return self._target.reflect() or table

    def refuse_nulls(self, table: Table, staging: TableName, columns: Sequence[Column], key: Sequence[str]) -> None:
        """Raise for records with NULL in a column of the former key that is still NOT NULL.

        Raises:
            FatalConnectorError: it names the column, the reason why the table stays, and a remedy.
        """
        if self._dialect.facts.keys_replacements:
            return
        arriving = {column.name for column in columns}
        for column in table.columns:
            is_left = self._dialect.naming.fold(column.name) in self._former(table) and column.name not in key
            if not is_left or column.is_nullable or column.is_generated or column.has_default:
                continue
            condition = f" where {self._dialect.naming.quote(column.name)} is null" if column.name in arriving else ""
            found = self._context.session.query(
                f"select 1 from {self._dialect.naming.table(staging)}{condition} limit 1"
            )
            if found:
                reason = f"its column {column.name!r} stays NOT NULL, but a record has no value for it"
                raise self._error(table, key, self._kept(table), reason)

    def explain(self, error: FatalConnectorError, table: Table, key: Sequence[str]) -> None:
        """Add to an error that the keys of table and stream differ; this may be its cause."""
        if table.key and set(table.key) != set(key):
            error.extended(
                after=f"; the key of {table.name} is ({', '.join(table.key)}), the stream's key is ({', '.join(key)}): "
                "change it by hand, drop the objects that depend on the table, or drop the table"
            )

    def _former(self, table: Table) -> set[str]:
        former, held = self._load.former_key or (), [column.name for column in table.columns]
        return self._folded(list(self._dialect.naming.column_names(former, held, self._load.columns).values()))

    def _folded(self, names: Sequence[str]) -> set[str]:
        return {self._dialect.naming.fold(name) for name in names}

    def _kept(self, table: Table) -> str:
        return ", ".join(self._dialect.catalog.dependents(self._context.session, table)) or "dependent objects"

    def _error(self, table: Table, key: Sequence[str], kept: str, reason: str) -> FatalConnectorError:
        former = ", ".join(self._load.former_key or ())
        return self._context.error(
            f"the key of {table.name} changes from ({former}) to ({', '.join(key)}), but the table stays because "
            f"of {kept}, and its key cannot be changed in place: {reason}. Change the key by hand, drop {kept} "
            "(and create it again after the run), or drop the table"
        )


__all__ = ["KeyChange"]
