"""Statements for SQL systems that compare whole records by value."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from ..tables import Column, ColumnTest, StagingTable, Table
from .write_statements import Writes


class ComparingWrites(Writes):
    """The parts of `Writes` that compare whole records, built on one condition of the system: `differs`."""

    def replace_in_place(self, target: Table, staged: StagingTable, key: Sequence[str]) -> Sequence[str]:
        """See `Writes`; unchanged records are not written."""
        source = self._table(staged.name)
        same = self._same_key(target.columns, staged.types, key)
        return [
            self._delete(target, f"not exists (select 1 from {source} as s where {same})"),
            *self._write_changed(target, source, staged, key),
        ]

    def _write_changed(self, target: Table, source: str, staged: StagingTable, key: Sequence[str]) -> Sequence[str]:
        """Write UPDATE of changed records, if there are columns to set, and INSERT of new records."""
        update = self._update(target, source, staged, key, self._differ(target, staged))
        return [*([update] if update else []), self._insert_new(target, source, staged, key)]

    def replace_changed(self, target: Table, staged: StagingTable, key: Sequence[str]) -> Sequence[str]:
        """Write the statements that delete records without an equal staged record, and insert the missing ones.

        No two staged records have the same key.
        """
        source = self._table(staged.name)
        same = f"{self._same_key(target.columns, staged.types, key)} and not ({self._differ(target, staged)})"
        return [
            self._delete(target, f"not exists (select 1 from {source} as s where {same})"),
            self._insert_new(target, source, staged, key),
        ]

    @abstractmethod
    def differs(self, columns: Sequence[Column], types: Mapping[str, str]) -> str:
        """Write the condition that a record `t` and a staged record `s` are not identical, never NULL.

        Values that are merely equal (1.0 and 1.00, `a` and `A` by some collations) are not identical. The types are the
        types of the staged columns.
        """

    def _differ(self, target: Table, staged: StagingTable) -> str:
        """Write the condition that an update would change a record, including columns that no longer arrive."""
        emptied = [f"t.{self._quote(name)} is not null" for name in self._emptied(target, staged)]
        columns = staged.written_to(target)
        return " or ".join([*([self.differs(columns, staged.types)] if columns else []), *emptied])

    def changed(self, columns: Sequence[Column]) -> str:
        """See `Writes`."""
        return self.differs(columns, {column.name: column.type for column in columns}) if columns else "1 = 0"

    def delete_meeting(
        self, target: Table, test: ColumnTest, arrived: StagingTable | None = None, key: Sequence[str] = ()
    ) -> str:
        """See `Writes`; texts are compared by their exact characters."""
        if arrived is None:
            return self._delete(target, self._meets(test))
        same = self._same_key(target.columns, arrived.types, key)
        return self._delete_joined(target, self._table(arrived.name), f"{same} and {self._meets(test)}")

    def _meets(self, test: ColumnTest) -> str:
        """Write the condition that a record `t` meets a test."""
        if test.values is None:
            return f"t.{self._quote(test.column.name)} is {'null' if test.is_null else 'not null'}"
        equal = f"not ({self.differs([test.column], test.values.types)})"
        return f"exists (select 1 from {self._table(test.values.name)} as s where {equal})"


__all__ = ["ComparingWrites"]
