"""MySQL's and MariaDB's statements that write records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..sql.actions import Action, SwapAfterCommit, TakeNamedLock
from ..sql.dialect.comparing import ComparingWrites
from ..sql.dialect.facts import Facts
from ..sql.identifiers import RANK, SEQUENCE, Naming, TableName
from ..sql.session import Session
from ..sql.tables import Column, StagingTable, Table
from ..write_spec import ConflictMethod
from .kinds import MySQLKind
from .server import Server
from .session import MySQLSession
from .types import geometry_of


class MySQLWrites(ComparingWrites):
    """Texts are compared by their characters, whatever a table's own collation takes for the same."""

    def __init__(self, naming: Naming, facts: Facts, server: Server) -> None:
        super().__init__(naming, facts)
        self._server = server

    def perform(self, session: Session, action: Action) -> None:
        """Run an action, those of MySQL included."""
        if not isinstance(action, TakeNamedLock | SwapAfterCommit):
            super().perform(session, action)
            return
        assert isinstance(session, MySQLSession)
        if isinstance(action, TakeNamedLock):
            session.take_lock(action.name, action.timeout_s)
        else:
            session.swap_after_commit(action.schema, action.staging, action.target)

    def cast(self, expression: str, column_type: str, staged_type: str) -> str:
        """Make a geometry of its text; other values are staged in the column's own type, or are numbers of bits."""
        kinds = (MySQLKind.parse(each) for each in (column_type, staged_type))
        is_read = [kind.is_geometry for kind in kinds] == [True, False]
        return geometry_of(expression) if is_read else expression

    def merge(
        self, target: Table, staged: StagingTable, key: Sequence[str], method: ConflictMethod
    ) -> Sequence[Action]:
        """Insert in order of arrival, so that the last record of a key wins; not where another index may interfere.

        Nor where the key's own index takes texts for equal that are not.
        """
        known = ("", self._server.collation)
        is_blurred = any(
            c.name in key and c.collation not in known and not _is_exact(c.collation) for c in target.columns
        )
        if is_blurred or set(target.unique_keys) != {frozenset(key)}:
            return super().merge(target, staged, key, method)
        columns = staged.written_to(target)
        changes = self._changes(target, staged, key, "values({})")
        if method is ConflictMethod.IGNORE or not changes:
            same = self._quote(columns[0].name)
            changes = [f"{same} = {self._table(target.name)}.{same}"]
        names = self._names([column.name for column in columns])
        values = ", ".join(self._value(column, staged.types) for column in columns)
        return [
            f"insert into {self._table(target.name)} ({names}) select {values} from {self._table(staged.name)} as s "
            f"order by s.{self._quote(SEQUENCE)} on duplicate key update {', '.join(changes)}"
        ]

    def ordered(self, expression: str, column: Column) -> str:
        """Order texts by their bytes, whatever a collation says."""
        is_text = MySQLKind.parse(column.type).is_text
        return f"cast(convert({expression} using utf8mb4) as binary)" if is_text else expression

    def differs(self, columns: Sequence[Column], types: Mapping[str, str]) -> str:
        """Compare texts by their characters, whatever the table's own collation takes for the same."""
        parts = []
        for column in columns:
            pair = [f"t.{self._quote(column.name)}", self._value(column, types)]
            if MySQLKind.parse(column.type).is_text:
                pair = [f"convert({each} using utf8mb4) collate {self._server.collation}" for each in pair]
                if not _is_exact(self._server.collation):  # it takes no heed of spaces at the end
                    parts.append("not ({} <=> {})".format(*(f"char_length({each})" for each in pair)))
            parts.append("not ({} <=> {})".format(*pair))
        return " or ".join(parts)

    def _same_key(self, columns: Sequence[Column], types: Mapping[str, str], key: Sequence[str]) -> str:
        """Compare texts character by character, whatever the table's own collation, but find them by its index."""
        conditions = []
        for column in columns:
            if column.name not in key:
                continue
            held, arriving = f"t.{self._quote(column.name)}", f"s.{self._quote(column.name)}"
            if column.collation in ("", self._server.collation):
                conditions.append(f"{held} = {arriving}")
                continue
            charset = column.collation.partition("_")[0]
            conditions.append(f"{held} = convert({arriving} using {charset}) collate {column.collation}")
            conditions.append(f"{held} = {arriving} collate {self._server.collation}")
        return " and ".join(conditions)

    def delete_staged(self, staging: TableName, condition: str) -> str:
        """Write DELETE as every server understands it: not each takes an alias where no table is joined."""
        return f"delete s from {self._table(staging)} as s where {condition}"

    def delete_unreferenced(
        self, target: Table, removed: StagingTable, key: Sequence[str], *, kept: StagingTable | None
    ) -> str:
        """Leave out what InnoDB refuses: it checks foreign keys row by row, also those of a table to itself."""
        where = self._of_keys(target, removed, key, kept)
        return f"delete ignore t from {self._table(target.name)} as t where {where}" if target.is_referenced else ""

    def _delete(self, target: Table, condition: str) -> str:
        return f"delete t from {self._table(target.name)} as t where {condition}"

    def _delete_joined(self, target: Table, source: str, same: str) -> str:
        return f"delete t from {self._table(target.name)} as t join {source} as s on {same}"

    def _carried(self, target: Table, staging: TableName, values: Mapping[str, str], same: str) -> str:
        listed = ", ".join(f"s.{self._quote(name)} = {value}" for name, value in values.items())
        return f"update {self._table(staging)} as s join {self._table(target.name)} as t on {same} set {listed}"

    def _updated(self, target: Table, source: str, values: Mapping[str, str], same: str, condition: str) -> str:
        listed = ", ".join(f"t.{self._quote(name)} = {value}" for name, value in values.items())
        where = f" where ({condition})" if condition else ""
        return f"update {self._table(target.name)} as t join {source} as s on {same} set {listed}{where}"

    def latest(self, staging: TableName, key: Sequence[str], *, is_first: bool = False) -> str:
        """Number the records of each key by a window."""
        direction = "asc" if is_first else "desc"
        order = f"partition by {self._names(key)} order by {self._quote(SEQUENCE)} {direction}"
        inner = f"select *, row_number() over ({order}) as {self._quote(RANK)} from {self._table(staging)}"
        return f"(select * from ({inner}) as ranked where {self._quote(RANK)} = 1)"


def _is_exact(collation: str) -> bool:
    """Tell whether a collation tells all texts apart, by spaces at the end as well."""
    return collation == "binary" or collation.endswith(("_nopad_bin", "_0900_bin"))


__all__ = ["MySQLWrites"]
