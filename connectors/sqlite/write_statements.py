"""SQLite's statements that write records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import pyarrow as pa

from ..errors import FatalConnectorError
from ..sql.actions import Action
from ..sql.dialect.comparing import ComparingWrites
from ..sql.dialect.write_statements import BOUNDS
from ..sql.identifiers import SEQUENCE, TableName
from ..sql.session import Session
from ..sql.tables import Column, ColumnTest, StagingTable, Table
from ..write_spec import ConflictMethod
from .bookmark_order import normal_timestamp, other_zone
from .session import SQLiteSession
from .types import StorageForm, kind_of


class SQLiteWrites(ComparingWrites):
    """Merges over the target's unique index, where it has one."""

    def begin_commit(self, session: Session, staging: TableName | None) -> None:
        """Become the one writer, if no data came that made it so."""
        cast("SQLiteSession", session).write()

    def cast(self, expression: str, column_type: str, staged_type: str) -> str:
        """Leave a value to its column: to CAST most declared types are numbers, and it makes 2024 of a date."""
        return expression

    def merge(
        self, target: Table, staged: StagingTable, key: Sequence[str], method: ConflictMethod
    ) -> Sequence[Action]:
        """Insert in order of arrival over the target's unique index, so that the last record of a key wins."""
        has_index = frozenset(key) in target.unique_keys
        if not has_index or method is ConflictMethod.IGNORE or target.has_triggers:
            return super().merge(target, staged, key, method)
        updates = self._changes(target, staged, key, "excluded.{}")
        names = self._names([column.name for column in staged.written_to(target)])
        action = f"update set {', '.join(updates)}" if updates else "nothing"
        return [
            f"insert into {self._table(target.name)} ({names}) "
            f"select {names} from {self._table(staged.name)} where true "
            f"order by {self._quote(SEQUENCE)} on conflict ({self._names(key)}) do {action}"
        ]

    def delete_arriving(self, target: Table, staged: StagingTable, key: Sequence[str]) -> str:
        """Look keys up in a list: SQLite deletes by no join, and would read all staged records for each record."""
        held, arriving = self._names(key, "t."), self._names(key)
        return self._delete(target, f"({held}) in (select {arriving} from {self._table(staged.name)})")

    def delete_meeting(
        self, target: Table, test: ColumnTest, arrived: StagingTable | None = None, key: Sequence[str] = ()
    ) -> str:
        """Look keys up in a list, as `delete_arriving` does."""
        if arrived is None:
            return super().delete_meeting(target, test)
        held, arriving = self._names(key, "t."), self._names(key)
        is_there = f"({held}) in (select {arriving} from {self._table(arrived.name)})"
        return self._delete(target, f"{is_there} and {self._meets(test)}")

    def delete_values(self, target: Table, staged: StagingTable, column: Column) -> str:
        """Look values up in a list, whatever the column's collation takes for the same."""
        name = self._quote(column.name)
        return self._delete(target, f"t.{name} collate binary in (select {name} from {self._table(staged.name)})")

    def delete_between(self, target: Table, staged: StagingTable, column: Column) -> str:
        """Compare moments in one of the ways in which they may be written."""
        kind, name = kind_of(column.type), f"t.{self._quote(column.name)}"
        is_moment = kind is not None and kind.form is StorageForm.TIMESTAMP
        held, *ends = (
            normal_timestamp(each, kind.arrow) if kind is not None and is_moment else each
            for each in (name, *map(self._quote, BOUNDS))
        )
        first, last = (f"(select {each} from {self._table(staged.name)})" for each in ends)
        return self._delete(target, f"{held} >= {first} and {held} < {last}")

    def ordered(self, expression: str, column: Column) -> str:
        """Compare texts by their bytes, and moments in one of the ways in which they may be written."""
        kind = kind_of(column.type)
        if kind is not None and kind.form is StorageForm.TIMESTAMP:
            return normal_timestamp(expression, kind.arrow)
        is_text = kind is None or kind.form in (StorageForm.TEXT, StorageForm.LOOSE_TEXT)
        return f"cast({expression} as text) collate binary" if is_text else expression

    def refuse_unordered(self, session: Session, target: Table, column: Column) -> None:
        """Raise for moments of other zones than UTC: their texts do not follow each other as they do."""
        kind, name = kind_of(column.type), f"t.{self._quote(column.name)}"
        if kind is None or not pa.types.is_timestamp(kind.arrow) or kind.arrow.tz is None:
            return
        if session.query(f"select 1 from {self._table(target.name)} as t where {other_zone(name)} limit 1"):
            raise FatalConnectorError(
                f"column {column.name!r} of {target.name} has times in other zones than UTC, which SQLite cannot "
                "order: write them with Z or +00:00",
                connector="sqlite",
            )

    def differs(self, columns: Sequence[Column], types: Mapping[str, str]) -> str:
        """Compare values and their types, whatever the columns' collations."""
        parts = []
        for column in columns:
            held, arriving = f"t.{self._quote(column.name)}", self._value(column, types)
            parts.append(f"{held} is not {arriving} collate binary or typeof({held}) <> typeof({arriving})")
        return " or ".join(parts)


__all__ = ["SQLiteWrites"]
