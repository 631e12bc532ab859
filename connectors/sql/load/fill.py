"""Fill columns of existing records, found by key; all other columns keep their values."""

from __future__ import annotations

from .merge import Merge


class Fill(Merge):
    """Writes some columns into the records of a table, and adds none."""

    def finish(self, *, is_final: bool) -> None:
        """Add missing columns, then write the staged values; while the table has no records, do nothing."""
        context, staged, table = self.context, self.staged, self.table
        if staged is None:
            return
        dialect, session, target = context.dialect, context.session, context.target
        key = context.columns.key()
        if session.query(dialect.writes.repeated_key(staged.name, key)):
            raise context.error(
                f"several records of the source have the same key ({', '.join(key)}): it is unclear which values "
                "older records should get"
            )
        table = target.lock(table)
        if table is None:
            raise context.error(f"table {target.name} does not exist any more: there is nothing to fill")
        columns = self.target_columns()
        names = {column.name for column in columns}
        # Columns outside this load keep their values and their NOT NULL.
        table = target.evolve(table, [*columns, *(column for column in table.needed() if column.name not in names)])
        filled = [column.name for column in staged.written_to(table) if column.name not in key]
        target.lock_late()
        target.change(dialect.writes.set_columns(table, staged, key, filled))
        target.run([dialect.tables.drop(staged.name)])
        self.records = 0


__all__ = ["Fill"]
