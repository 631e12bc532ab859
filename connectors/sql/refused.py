"""What a target refuses of the records that are staged for it: found by bringing them in by halves, in savepoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import FatalConnectorError, StatementRefused
from ..quarantine import sift
from .dialect import SEQUENCE, Column, Dialect, Table
from .identifiers import TableName
from .session import Lease

#: Statements that bring the records of a staging table into the target.
Statements = Callable[[TableName], Sequence[str]]

#: Ends of the names of staging tables: with numbers, and with a part of the records.
NUMBERED, PART = "_n", "_p"


def attempt(lease: Lease, action: Callable[[], object]) -> FatalConnectorError | None:
    """Do something in a savepoint; return why the database refused it, and nothing of it was done.

    Raises:
        StatementRefused: no record is at fault.
    """
    session = lease.session
    session.execute("savepoint _syncblocks_batch")
    try:
        action()
    except StatementRefused:
        raise
    except FatalConnectorError as error:
        lease.check()
        session.execute("rollback to savepoint _syncblocks_batch")
        session.execute("release savepoint _syncblocks_batch")
        return error
    session.execute("release savepoint _syncblocks_batch")
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
        refusal = attempt(self._lease, lambda: self._run(statements(self._staging)))
        if refusal is None:
            return []
        source = self._staging if is_numbered else self._numbered()
        part = self._named(PART)
        self._execute(self._dialect.create_staging(part, self._columns, numbered=True))
        number = self._dialect.quote(SEQUENCE)
        first, last = self._lease.session.query(
            f"select min({number}), max({number}) from {self._dialect.table(source)}"
        )[0]
        whole = _Span(int(first), int(last) - int(first) + 1, is_downwards)

        def bring(span: _Span) -> None:
            if span == whole:
                assert refusal is not None
                raise refusal
            self._execute(self._dialect.empty(Table(name=part)))
            self._execute(self._dialect.take(part, source, self._columns, span.first, span.first + span.num_rows - 1))
            refused = attempt(self._lease, lambda: self._run(statements(part)))
            if refused is not None:
                raise refused

        _, bad = sift(whole, bring, self._limit)
        reasons = {whole.slice(place, 1).first: reason for place, reason in bad}
        self._bring_late(bring, self._last_ones(source, reasons, key), reasons)
        found = self._records(source, reasons)
        for table in (part, *([] if is_numbered else [source])):
            self._execute(self._dialect.drop_table(table))
        return found

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
        number = self._dialect.quote(SEQUENCE)
        sql = f"select {number} from {self._dialect.latest(source, key)} as l where {number} in {_listed(numbers)}"
        return sorted(int(found) for (found,) in self._lease.session.query(sql))

    def _records(self, source: TableName, reasons: Mapping[int, str]) -> list[tuple[Mapping[str, object], str]]:
        if not reasons:
            return []
        names = [column.name for column in self._columns]
        number = self._dialect.quote(SEQUENCE)
        rows = self._lease.session.query(
            f"select {number}, {self._dialect.names(names)} from {self._dialect.table(source)} "
            f"where {number} in {_listed(reasons)} order by {number}"
        )
        return [(dict(zip(names, values, strict=True)), reasons[int(found)]) for found, *values in rows]

    def _numbered(self) -> TableName:
        """Copy the records into a staging table with numbers."""
        table = self._named(NUMBERED)
        self._execute(self._dialect.create_staging(table, self._columns, numbered=True))
        types = {column.name: column.type for column in self._columns}
        self._execute(self._dialect.insert_from(table, self._staging, self._columns, types))
        return table

    def _named(self, end: str) -> TableName:
        return self._dialect.staging(TableName(self._staging.schema, ""), self._staging.name + end)

    def _run(self, statements: Sequence[str]) -> None:
        listed = [*statements, *([self._dialect.check_now] if self._dialect.check_now else [])]
        for sql in ["; ".join(listed)] if self._dialect.joins_statements else listed:
            self._execute(sql)

    def _execute(self, sql: str) -> None:
        self._lease.check()
        self._lease.session.execute(sql)


def _listed(numbers: Mapping[int, str]) -> str:
    return f"({', '.join(map(str, numbers))})"


__all__ = ["Entrance", "Statements", "attempt"]
