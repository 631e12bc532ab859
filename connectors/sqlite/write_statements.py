"""SQLite's statements that write records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from ..sql.actions import Action
from ..sql.dialect.write_statements import Writes
from ..sql.identifiers import SEQUENCE, TableName
from ..sql.session import Session
from ..sql.tables import Column, Table
from ..stream import ConflictMethod
from .session import SQLiteSession


class SQLiteWrites(Writes):
    """Merges over the target's unique index, where it has one."""

    def begin_commit(self, session: Session, staging: TableName | None) -> None:
        """Become the one writer, if no data came that made it so."""
        cast("SQLiteSession", session).write()

    def merge(
        self,
        target: Table,
        staging: TableName,
        columns: Sequence[Column],
        staged: Mapping[str, str],
        key: Sequence[str],
        method: ConflictMethod,
    ) -> Sequence[Action]:
        """Insert in order of arrival over the target's unique index, so that the last record of a key wins."""
        has_index = frozenset(key) in target.unique_keys
        if not has_index or method is ConflictMethod.IGNORE or target.has_triggers:
            return super().merge(target, staging, columns, staged, key, method)
        updates = self._changes(target, columns, key, "excluded.{}")
        names = self._names([column.name for column in columns])
        action = f"update set {', '.join(updates)}" if updates else "nothing"
        return [
            f"insert into {self._table(target.name)} ({names}) select {names} from {self._table(staging)} where true "
            f"order by {self._quote(SEQUENCE)} on conflict ({self._names(key)}) do {action}"
        ]

    def differs(self, columns: Sequence[Column], staged: Mapping[str, str]) -> str:
        """Compare values and their types, whatever the columns' collations."""
        parts = []
        for column in columns:
            held, arriving = f"t.{self._quote(column.name)}", self._value(column, staged)
            parts.append(f"{held} is not {arriving} collate binary or typeof({held}) <> typeof({arriving})")
        return " or ".join(parts)


__all__ = ["SQLiteWrites"]
