"""DuckDB's statements that write records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from ..sql.actions import Action, LiftMemoryLimit, Statements
from ..sql.dialect.comparing import ComparingWrites
from ..sql.dialect.facts import Facts
from ..sql.identifiers import SEQUENCE, Naming, TableName
from ..sql.load.pieces import InsertsInPieces, Run
from ..sql.session import Session
from ..sql.tables import Column, StagingTable, Table
from ..struct_helpers import replace
from ..write_spec import ConflictMethod
from .catalog import constraints_by_table, unique_indexes
from .constraints import Violations, exact
from .session import DuckDBSession
from .unfinished import MARK

#: Suffix of a piece's name.
_PIECE = "_piece"


class DuckDBWrites(ComparingWrites, InsertsInPieces):
    """Merges by DELETE and INSERT."""

    def __init__(self, naming: Naming, facts: Facts, *, is_limited: bool) -> None:
        """Give merges more memory than loads, unless the user has set a limit."""
        super().__init__(naming, facts)
        self._is_limited = is_limited

    def perform(self, session: Session, action: Action) -> None:
        """Run an action, including DuckDB's own."""
        if isinstance(action, LiftMemoryLimit):
            _own(session).lift_memory_limit()
        else:
            super().perform(session, action)

    def begin_commit(self, session: Session, staging: TableName | None) -> None:
        """Publish the staged records under their own name, then wait for the commit lock."""
        _own(session).lock(self._table(staging) if staging else "")

    def merge(
        self, target: Table, staged: StagingTable, key: Sequence[str], method: ConflictMethod
    ) -> Sequence[Action]:
        """Delete the records that come again, then insert: several times faster than updates of a columnar table.

        Under a small memory limit a merge of some million records fails: not all of it can spill to disk.
        """
        first = [] if self._is_limited else [LiftMemoryLimit()]
        if method is ConflictMethod.IGNORE:
            return [*first, *super().merge(target, staged, key, method)]
        # A foreign key refuses the DELETE, and an update of a list is a DELETE and an INSERT.
        if target.is_referenced or target.has_triggers:
            return [*first, *self._write_changed(target, self.latest(staged.name, key), staged, key)]
        columns, same = staged.written_to(target), self._same_key(target.columns, staged.types, key)
        names = self._names([column.name for column in columns])
        values = ", ".join(self._value(column, staged.types) for column in columns)
        into, source = self._table(target.name), self._table(staged.name)
        return [
            *first,
            f"delete from {into} as t using {source} as s where {same}",
            f"insert into {into} ({names}) select {values} from {self.latest(staged.name, key)} as s",
        ]

    def ordered(self, expression: str, column: Column) -> str:
        """Order texts by their bytes, whatever the collation."""
        is_text = column.type.upper().startswith(("VARCHAR", "ENUM"))
        return f"encode(cast({expression} as varchar))" if is_text else expression

    def equals(self, left: str, right: str, column: Column) -> str:
        """Compare texts by their characters, whatever the column's collation."""
        return f"{exact(left, column.type)} = {right}"

    def differs(self, columns: Sequence[Column], types: Mapping[str, str]) -> str:
        """Compare texts as `equals` does, but intervals as texts: a month is not 30 days."""
        parts = []
        for column in columns:
            pair = [exact(f"t.{self._quote(column.name)}", column.type), self._value(column, types)]
            if column.type.upper() == "INTERVAL":
                pair = [f"{each}::varchar" for each in pair]
            parts.append("{} is distinct from {}".format(*pair))
        return " or ".join(parts)

    def before_merge(self) -> Sequence[Action]:
        """Give it the memory of merges."""
        return [] if self._is_limited else [LiftMemoryLimit()]

    def moves(self, session: Session, target: Table, staged: StagingTable, key: Sequence[str]) -> bool:
        """Return whether a commit has too many wide records for one transaction.

        A table with indexes or constraints cannot be altered, as an append would do. A merge could fail between two
        pieces even with valid data: if two records exchange a unique value, and are in different pieces.
        """
        if not _own(session).spans(staged.name, is_indexed=target.has_dependents):
            return False
        return not target.has_dependents or (bool(key) and not self._may_refuse(session, target, key))

    def _may_refuse(self, session: Session, target: Table, key: Sequence[str]) -> bool:
        """Return whether a constraint besides the merge key can reject a record."""
        if target.is_referenced or target.has_triggers or (target.key and set(target.key) != set(key)):
            return True
        place = (target.name.schema, target.name.name)
        constraints = constraints_by_table(session, [target.name.name]).get(place, [])
        others = [row for row in constraints if row["constraint_type"] not in ("NOT NULL", "PRIMARY KEY")]
        return bool(others or unique_indexes(session, self._naming, target.name))

    def move(
        self,
        session: Session,
        target: Table,
        staged: StagingTable,
        key: Sequence[str],
        merge: Statements,
        run: Run,
        *,
        is_first: bool,
    ) -> None:
        """Insert the pieces one after the other, as they were staged: each begins a row group."""
        own = _own(session)
        own.begin_move(target.name, is_marked=not key)
        # A transaction that alters and fills a table continues the last row group, and reads all its records.
        own.commit_piece()
        part = replace(staged, name=TableName(staged.name.schema, staged.name.name + _PIECE))
        piece, source = self._table(part.name), self._table(staged.name)
        number = self._quote(SEQUENCE) if key else self._facts.arrival
        if key and session.query(self.repeated_key(staged.name, key)):
            # Over all pieces at once: no piece may insert a record that another piece replaces.
            counts = f"{'min' if is_first else 'max'}({number})"
            last = f"select {counts} from {source} group by {self._names(key)}"
            run([f"delete from {source} where {number} not in ({last})"])
        mark = Column(name=MARK, type="BOOLEAN")
        marked = replace(part, types={**staged.types, MARK: mark.type})
        append = self.insert_from(target.name, marked, [*staged.written_to(target), mark])
        for first, end in own.spans(staged.name):
            taken = (
                f"select *, true as {self._quote(MARK)} from {source} where {number} >= {first} and {number} < {end}"
            )
            brought = merge(part) if key else [append]
            run([f"create view {piece} as {taken}", *brought, f"drop view {piece}"])
            own.commit_piece()
        own.end_move()

    def violations(
        self, session: Session, target: Table, staged: StagingTable, key: Sequence[str], ignores: bool, is_emptied: bool
    ) -> Sequence[tuple[str, str]]:
        """Check each constraint and unique index with a query: after a refusal, the transaction is lost."""
        constraints = constraints_by_table(session, [target.name.name])
        found = Violations(
            naming=self._naming,
            latest=self.latest(staged.name, key, is_first=ignores) if key else "",
            target=target,
            staged=staged,
            key=key,
            is_ignoring=bool(key) and ignores,
            is_emptied=is_emptied,
        )
        place = (target.name.schema, target.name.name)
        return list(found.conditions(constraints.get(place, []), unique_indexes(session, self._naming, target.name)))

    def latest(self, staging: TableName, key: Sequence[str], *, is_first: bool = False) -> str:
        """Write a derived table of the last record of each key; only numbers and keys are in memory.

        A piece is inserted unchanged: `move` has deleted the other records of each key.
        """
        if staging.name.endswith(_PIECE):
            return self._table(staging)
        return super().latest(staging, key, is_first=is_first)


def _own(session: Session) -> DuckDBSession:
    return cast("DuckDBSession", session)


__all__ = ["DuckDBWrites"]
