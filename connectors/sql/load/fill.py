"""Fill columns of existing records, found by key; all other columns keep their values."""

from __future__ import annotations

from .merge import Merge


class Fill(Merge):
    """Writes some columns into the records of a table, and adds none."""

    def lock(self, *, is_final: bool) -> None:
        """See `Strategy`."""
        context, staged = self.context, self.staged
        if staged is None:
            return
        key = context.columns.key()
        if context.session.query(context.dialect.writes.repeated_key(staged.name, key)):
            raise context.error(
                f"several records of the source have the same key ({', '.join(key)}): it is unclear which values "
                "older records should get"
            )
        self.table = context.target.lock(self.table)
        if self.table is None:
            raise context.error(f"table {context.target.name} does not exist any more: there is nothing to fill")

    def write(self) -> None:
        """Add missing columns, then write the staged values. While the table has no records, do nothing."""
        staged, table = self.staged, self.table
        if staged is None or table is None:
            return
        dialect, target, key = self.context.dialect, self.context.target, self.context.columns.key()
        columns = self.target_columns()
        names = {column.name for column in columns}
        # Columns outside this load keep their values and their NOT NULL.
        table = target.evolve(table, [*columns, *(column for column in table.needed() if column.name not in names)])
        filled = [column.name for column in staged.written_to(table) if column.name not in key]
        target.lock_late()
        target.execute_counted(dialect.writes.set_columns(table, staged, key, filled))
        target.execute([dialect.tables.drop(staged.name)])
        self.records = 0


__all__ = ["Fill"]
