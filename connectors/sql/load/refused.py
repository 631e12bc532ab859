"""What a target refuses of the records that are staged for it: found by bringing them in by halves, in savepoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...errors import FatalConnectorError, StatementRefused
from ...rejected.halving import convert_by_halves as sift
from ..dialect.dialect import Dialect
from ..identifiers import SEQUENCE, TableName
from ..session import Lease
from ..tables import Column, Table

#: Statements that bring the records of a staging table into the target.
Statements = Callable[[TableName], Sequence[str]]

#: Ends of the names of staging tables: with numbers, and with a part of the records.
NUMBERED, PART = "_n", "_p"

#: Numbers in one list.
_MOST = 1000


def attempt(dialect: Dialect, lease: Lease, action: Callable[[], object]) -> FatalConnectorError | None:
    """Do something in a savepoint; return why the database refused it, and nothing of it was done.

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


@dataclass(frozen=True, slots=True)
class _Span:
    """Staged records by their numbers, in which there may be gaps. Downwards: place 0 is the last one."""

    first: int
    num_rows: int
    is_downwards: bool = False

    def slice(self, offset: int, length: int, /) -> _Span:
        """Return some of it."""
        place = self.num_rows - offset - length if self.is_downwards else offset
        return _Span(self.first + place, length, self.is_downwards)


class Entrance:
    """Lets the records of one staging table into a target, but for those that it refuses."""

    def __init__(
        self, dialect: Dialect, lease: Lease, staging: TableName, types: Mapping[str, str], limit: int
    ) -> None:
        self._dialect = dialect
        self._lease = lease
        self._staging = staging
        self._columns = [Column(name=name, type=kind) for name, kind in types.items()]
        self._limit = limit

    def admit(
        self, statements: Statements, key: Sequence[str], *, is_numbered: bool, is_downwards: bool
    ) -> list[tuple[Mapping[str, object], str]]:
        """Bring all in, at once if the target takes them all; return the others, and why.

        Args:
            statements: bring the records of a staging table in.
            key: of a merge, in which of records with equal keys the last one counts.
            is_numbered: the staging table has `SEQUENCE`.
            is_downwards: what is there counts, so the last ones come first.

        Raises:
            TooManyRejected: they are more than the limit.
        """
        refusal = attempt(self._dialect, self._lease, lambda: self._run(statements(self._staging)))
        if refusal is None:
            return []
        source = self._staging if is_numbered else self._numbered()
        part = None if self._dialect.facts.slices else self._named(PART)
        if part is not None:
            self._execute(self._dialect.tables.create_staging(part, self._columns, numbered=True))
        number = self._dialect.naming.quote(SEQUENCE)
        first, last = self._lease.session.query(
            f"select min({number}), max({number}) from {self._dialect.naming.table(source)}"
        )[0]
        whole = _Span(int(first), int(last) - int(first) + 1, is_downwards)

        def bring(span: _Span) -> None:
            if span == whole:
                assert refusal is not None
                raise refusal
            of_it = statements(self._taken(source, part, span))
            refused = attempt(self._dialect, self._lease, lambda: self._run(of_it))
            if refused is not None:
                raise refused

        _, bad = sift(whole, bring, self._limit)
        reasons = {whole.slice(place, 1).first: reason for place, reason in bad}
        self._bring_late(bring, self._last_ones(source, reasons, key), reasons)
        found = self._records(source, reasons)
        for table in (*([] if part is None else [part]), *([] if is_numbered else [source])):
            self._execute(self._dialect.tables.drop(table))
        return found

    def _taken(self, source: TableName, part: TableName | None, span: _Span) -> TableName:
        """Return a table of some of the records."""
        last = span.first + span.num_rows - 1
        if part is None:
            return self._dialect.writes.slice(source, span.first, last)
        self._execute(self._dialect.writes.empty(Table(name=part)))
        self._execute(self._dialect.writes.insert_range(part, source, self._columns, span.first, last))
        return part

    def _bring_late(self, bring: Callable[[_Span], None], numbers: Sequence[int], reasons: dict[int, str]) -> None:
        """Try records again that may have been refused for want of a later one (a foreign key into the same table)."""
        while numbers:
            still = []
            for number in numbers:
                try:
                    bring(_Span(number, 1))
                except FatalConnectorError as error:
                    if isinstance(error, StatementRefused):
                        raise
                    still.append(number)
                else:
                    del reasons[number]
            if len(still) == len(numbers):
                return
            numbers = still

    def _last_ones(self, source: TableName, numbers: Mapping[int, str], key: Sequence[str]) -> list[int]:
        """Leave out those that a later record of their key replaces: it is there, or refused itself."""
        if not key:
            return sorted(numbers)
        number, table = self._dialect.naming.quote(SEQUENCE), self._dialect.naming.table(source)
        found: list[int] = []
        for listed in _listed(numbers):
            last = f"select max({number}) from {table} group by {self._dialect.naming.names(key)}"
            rows = self._lease.session.query(f"{last} having max({number}) in {listed}")
            found += (int(each) for (each,) in rows)
        return sorted(found)

    def _records(self, source: TableName, reasons: Mapping[int, str]) -> list[tuple[Mapping[str, object], str]]:
        found = []
        for listed in _listed(reasons):
            for number, *values in self._dialect.writes.staged_records(
                self._lease.session, source, self._columns, listed
            ):
                record = dict(zip((column.name for column in self._columns), values, strict=True))
                found.append((int(number), record))
        return [(record, reasons[number]) for number, record in sorted(found, key=lambda each: each[0])]

    def _numbered(self) -> TableName:
        """Copy the records into a staging table with numbers."""
        table = self._named(NUMBERED)
        self._execute(self._dialect.tables.create_staging(table, self._columns, numbered=True))
        types = {column.name: column.type for column in self._columns}
        self._execute(self._dialect.writes.insert_from(table, self._staging, self._columns, types))
        return table

    def _named(self, end: str) -> TableName:
        return self._dialect.tables.staging(TableName(self._staging.schema, ""), self._staging.name + end)

    def _run(self, statements: Sequence[str]) -> None:
        listed = [*statements, *([self._dialect.facts.check_now] if self._dialect.facts.check_now else [])]
        for sql in ["; ".join(listed)] if self._dialect.facts.joins_statements else listed:
            self._execute(sql)

    def _execute(self, sql: str) -> None:
        self._lease.check()
        self._lease.session.execute(sql)


def _listed(numbers: Iterable[int]) -> list[str]:
    """Write numbers for IN, as many at a time as every system takes."""
    texts = list(map(str, numbers))
    return [f"({', '.join(texts[start : start + _MOST])})" for start in range(0, len(texts), _MOST)]


__all__ = ["Entrance", "Statements", "attempt"]
