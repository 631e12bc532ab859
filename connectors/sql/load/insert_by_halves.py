"""Inserts a staging table into its target. Halves in savepoints find the records that the target rejects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct, field

from ...errors import FatalConnectorError, StatementRefused
from ...rejected.halving import convert_by_halves
from ...struct_helpers import replace
from ..actions import Action, Statements, round_trips
from ..dialect.dialect import Dialect
from ..dialect.write_statements import SlicesStaging
from ..identifiers import SEQUENCE, TableName
from ..session import SessionLease
from ..tables import StagingTable, Table

#: Numbers in one list.
_MOST = 1000
#: Suffixes of staging tables: one numbers the records, the other has a part of them.
_NUMBERED, _PART = "_n", "_p"


def attempt(dialect: Dialect, lease: SessionLease, action: Callable[[], object]) -> FatalConnectorError | None:
    """Run an action in a savepoint; if the database refuses it, roll back to the savepoint and return why.

    Raises:
        StatementRefused: no record is at fault.
    """
    session = lease.session
    dialect.writes.savepoint(session)
    try:
        action()
    except StatementRefused:
        raise
    except FatalConnectorError as error:
        lease.check()
        dialect.writes.rollback(session)
        return error
    dialect.writes.release(session)
    return None


class _Range(Struct, frozen=True):
    """Staged records by their numbers, which may have gaps."""

    first: int
    num_rows: int

    def slice(self, offset: int, length: int, /) -> _Range:
        """Return some of the records."""
        return _Range(self.first + offset, length)


class InsertByHalves(Struct, kw_only=True):
    """Inserts a staging table into its target; uses bisection and savepoints if the target refuses records."""

    dialect: Dialect
    lease: SessionLease
    staged: StagingTable
    statements: Statements
    limit: int
    is_first: bool
    #: Number of a rejected record -> reason.
    reasons: dict[int, str] = field(default_factory=dict)

    def run(self, key: Sequence[str]) -> list[tuple[Mapping[str, object], str]]:
        """Insert all records, at once if the target accepts them all; return the rejected ones with reasons.

        Raises:
            TooManyRejected: more records than the limit.
        """
        refusal = self._attempt(self.staged)
        if refusal is None:
            return []
        dialect, query = self.dialect, self.lease.session.query
        source = self.staged if self.staged.is_numbered else self._numbered()
        part = None if isinstance(dialect.writes, SlicesStaging) else self._named(_PART)
        if part is not None:
            self._execute(dialect.tables.create_staging(part, self.staged.own_columns(), numbered=True))
        number = dialect.naming.quote(SEQUENCE)
        ((first, last),) = query(f"select min({number}), max({number}) from {dialect.naming.table(source.name)}")
        whole = _Range(int(first), int(last) - int(first) + 1)

        def insert(some: _Range) -> None:
            refused = refusal if some == whole else self._attempt(self._copied(source, part, some))
            if refused is not None:
                raise refused

        _, bad = convert_by_halves(whole, insert, self.limit)
        self.reasons = {whole.slice(place, 1).first: reason for place, reason in bad}
        self._insert_late(insert, self._counting(source, key))
        found = self._rejected(source)
        if key and self.staged.is_numbered:  # the caller counts the keys of the others
            for listed in self._listed():
                self._execute(dialect.writes.delete_staged(self.staged.name, f"s.{number} in {listed}"))
        for table in (*([] if part is None else [part]), *([] if self.staged.is_numbered else [source.name])):
            self._execute(dialect.tables.drop(table))
        return found

    def _attempt(self, source: StagingTable) -> FatalConnectorError | None:
        actions = [*self.statements(source), *filter(None, [self.dialect.facts.check_now])]

        def run() -> None:
            for action in round_trips(actions, joins_statements=self.dialect.facts.joins_statements):
                self._execute(action)

        return attempt(self.dialect, self.lease, run)

    def _execute(self, action: Action) -> None:
        self.lease.check()
        self.dialect.writes.perform(self.lease.session, action)

    def _named(self, end: str) -> TableName:
        return self.dialect.tables.staging(TableName(self.staged.name.schema, ""), self.staged.name.name + end)

    def _numbered(self) -> StagingTable:
        """Copy the records into a staging table with numbers."""
        table = self._named(_NUMBERED)
        self._execute(self.dialect.tables.create_staging(table, self.staged.own_columns(), numbered=True))
        self._execute(self.dialect.writes.insert_from(table, self.staged, self.staged.own_columns()))
        return replace(self.staged, name=table, is_numbered=True)

    def _copied(self, source: StagingTable, part: TableName | None, some: _Range) -> StagingTable:
        """Return a table with some of the records: an alias for them, or `part` with copies."""
        last = some.first + some.num_rows - 1
        if isinstance(self.dialect.writes, SlicesStaging):
            return replace(source, name=self.dialect.writes.slice(source.name, some.first, last))
        assert part is not None
        self._execute(self.dialect.writes.empty(Table(name=part)))
        self._execute(self.dialect.writes.insert_range(part, source, some.first, last))
        return replace(source, name=part)

    def _insert_late(self, insert: Callable[[_Range], None], numbers: Sequence[int]) -> None:
        """Try records again that may refer to a later one (a foreign key into the same table)."""
        while numbers:
            still = []
            for number in numbers:
                try:
                    insert(_Range(number, 1))
                except FatalConnectorError as error:
                    if isinstance(error, StatementRefused):
                        raise
                    still.append(number)
                else:
                    del self.reasons[number]
            if len(still) == len(numbers):
                return
            numbers = still

    def _counting(self, source: StagingTable, key: Sequence[str]) -> list[int]:
        """Return the rejected records, except those replaced by another record of their key."""
        if not key:
            return sorted(self.reasons)
        number, table = self.dialect.naming.quote(SEQUENCE), self.dialect.naming.table(source.name)
        found: list[int] = []
        for listed in self._listed():
            counting = f"{'min' if self.is_first else 'max'}({number})"
            of_keys = f"select {counting} from {table} group by {self.dialect.naming.names(key)}"
            rows = self.lease.session.query(f"{of_keys} having {counting} in {listed}")
            found += (int(each) for (each,) in rows)
        return sorted(found)

    def _rejected(self, source: StagingTable) -> list[tuple[Mapping[str, object], str]]:
        found = []
        for listed in self._listed():
            for number, *values in self.dialect.writes.staged_records(self.lease.session, source, listed):
                found.append((int(number), dict(zip(self.staged.types, values, strict=True))))
        return [(record, self.reasons[number]) for number, record in sorted(found, key=lambda each: each[0])]

    def _listed(self) -> list[str]:
        """Write the numbers of rejected records as lists for IN, short enough for every system."""
        texts = list(map(str, self.reasons))
        return [f"({', '.join(texts[start : start + _MOST])})" for start in range(0, len(texts), _MOST)]


__all__ = ["InsertByHalves", "attempt"]
