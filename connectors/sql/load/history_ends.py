"""HISTORY of records that the source no longer has: ends their versions, and reopens keys that are back."""

from __future__ import annotations

from collections.abc import Sequence

from ..actions import Action
from ..dialect.dialect import Dialect
from ..identifiers import HISTORY_SUFFIX, RANK, SEQUENCE, TableName
from ..tables import Column, StagingTable, Table


class Endings:
    """Writes the statements that apply `Load.marked` to a history."""

    def __init__(
        self,
        dialect: Dialect,
        target: Table,
        key: Sequence[Column],
        valid_from: Column,
        valid_to: Column,
        stem: TableName,
    ) -> None:
        """Set the tables and columns of the statements.

        Args:
            dialect: the system's.
            target: the history in its present state.
            key: identifies a record; the history has several versions of each record.
            valid_from: begin of a version.
            valid_to: its end.
            stem: name beside the target; the names of working tables begin with it.
        """
        self._dialect, self._target = dialect, target
        self._key, self._begin, self._end = key, valid_from, valid_to
        self._marks, self._last = (TableName(stem.schema, f"{stem.name}{HISTORY_SUFFIX}{number}") for number in (7, 8))

    def prepared(self) -> list[str]:
        """Write CREATE for the working tables, for systems that must create them before the load."""
        if self._dialect.facts.makes_in_transaction:
            return []
        marked = [*self._key, self._begin, self._end]
        return [self._create(self._marks, marked), self._create(self._last, self._held)]

    @property
    def _held(self) -> list[Column]:
        return [column for column in self._target.columns if not column.is_generated]

    def statements(self, staged: StagingTable) -> list[Action]:
        """Write them for staged keys."""
        writes, tables, table = self._dialect.writes, self._dialect.tables, self._dialect.naming.table
        same, target, place = writes.same_key(self._key), table(self._target.name), self._quote(RANK)
        marked = [*self._key, self._begin, self._end]
        held = self._held
        kept = [column for column in held if column not in (self._begin, self._end)]
        begun, ended = self._quote(self._begin.name), self._quote(self._end.name)
        cast = ", ".join(writes.cast(f"s.{self._quote(c.name)}", c.type, staged.types[c.name]) for c in marked)
        newest = f"row_number() over (partition by {self._names(self._key, 't.')} order by t.{begun} desc)"
        later = f"case when s.{begun} > t.{ended} then s.{begun} else t.{ended} end"
        return [
            *self._made(self._marks, marked),
            f"insert into {table(self._marks)} ({self._names(marked)}) select {cast} from {table(staged.name)} s",
            writes.update_from(
                self._target,
                self._marks,
                {self._end.name: f"case when s.{ended} > t.{begun} then s.{ended} else t.{begun} end"},
                f"{same} and t.{ended} is null and s.{ended} is not null",
            ),
            # The newest version of each key that is back, and where the next one begins: nowhere if the newest is
            # current.
            *self._made(self._last, held),
            f"insert into {table(self._last)} ({self._names([*kept, self._begin, self._end])}, "
            f"{self._quote(SEQUENCE)}, {place}) select {self._names([*kept, self._begin], 't.')}, {later}, 0, {newest} "
            f"from {table(self._marks)} s join {target} t on {same} where s.{ended} is null",
            writes.update_from(
                self._target,
                self._last,
                {self._end.name: "null"},
                f"{same} and t.{begun} = s.{begun} and s.{place} = 1 and s.{ended} = s.{begun}",
            ),
            f"insert into {target} ({self._names([*kept, self._begin])}) select {self._names(kept, 's.')}, s.{ended} "
            f"from {table(self._last)} s where s.{place} = 1 and s.{ended} > s.{begun}",
            *map(tables.drop, (self._marks, self._last)),
        ]

    def _made(self, name: TableName, columns: Sequence[Column]) -> list[str]:
        if not self._dialect.facts.makes_in_transaction:
            return []
        return [self._dialect.tables.drop(name), self._create(name, columns)]

    def _create(self, name: TableName, columns: Sequence[Column]) -> str:
        own = [Column(name=column.name, type=column.type) for column in columns]
        numbers = [Column(name=each, type=self._dialect.facts.bigint_type) for each in (SEQUENCE, RANK)]
        return self._dialect.tables.create_working(name, [*own, *numbers])

    def _quote(self, name: str) -> str:
        return self._dialect.naming.quote(name)

    def _names(self, columns: Sequence[Column], prefix: str = "") -> str:
        return self._dialect.naming.names([column.name for column in columns], prefix)


__all__ = ["Endings"]
