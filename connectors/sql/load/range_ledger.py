"""The ledger of one load's ranges, a table beside its staging table; and the tables of unfinished loads.

The load creates it with the staging table, and writes each range's row in the transaction that loads the range. After
a crash, both tables tell which ranges are loaded, and for which stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import FatalConnectorError
from ...ranges import Range
from ...stream import LedgerKey
from ..dialect.dialect import Dialect
from ..identifiers import CONVERTED_SUFFIX, TableName, literal, staging_name
from ..session import Session
from ..tables import Column

#: Ends the name of a ledger of ranges; what is before it is the staging table's.
LEDGER_SUFFIX = "_r"


class RangeLedger:
    """Statements on the ledger of one load's ranges; each runs in the session's transaction."""

    def __init__(self, dialect: Dialect, target: TableName, token: str) -> None:
        self._dialect = dialect
        self.name = TableName(target.schema, staging_name(token) + LEDGER_SUFFIX)
        self._table = dialect.naming.table(self.name)

    def create(self, session: Session, ranges: Sequence[Range], key: LedgerKey) -> None:
        """Create the table, with one row for each range."""
        dialect = self._dialect
        columns = [
            Column(name="place", type=dialect.facts.bigint_type, is_nullable=False),
            Column(name="label", type=dialect.facts.text_type, is_nullable=False),
            Column(name="stream", type=dialect.facts.text_type, is_nullable=False),
            Column(name="shape", type=dialect.facts.text_type),
            Column(name="moment", type=dialect.facts.text_type),
            Column(name="rows", type=dialect.facts.bigint_type),
            Column(name="size_bytes", type=dialect.facts.bigint_type),
            Column(name="committed_at", type=dialect.facts.timestamp_type),
        ]
        session.execute(dialect.tables.create(self.name, columns, ["place"]))
        listed = ", ".join(f"({part.place}, {literal(part.label)}, {literal(key_text(key))})" for part in ranges)
        into = dialect.naming.names(["place", "label", "stream"])
        session.execute(f"insert into {self._table} ({into}) values {listed}")

    def date(self, session: Session, shape: str, moment: Mapping[str, Any] | None) -> None:
        """Write in which shape and at which moment the ranges are read: with a moment, the load can be resumed."""
        quote = self._dialect.naming.quote
        at = "null" if moment is None else literal(json.dumps(moment))
        session.execute(f"update {self._table} set {quote('shape')} = {literal(shape)}, {quote('moment')} = {at}")

    def shape(self, session: Session) -> str:
        """Return the shape in which the ranges are read."""
        sql = f"select {self._dialect.naming.quote('shape')} from {self._table} limit 1"
        return str(session.query(sql)[0][0])

    def lock(self, session: Session, part: Range) -> bool:
        """Lock a range's row until the commit, waiting for another connection that loads it; False: it is loaded."""
        quote = self._dialect.naming.quote
        sql = f"update {self._table} set {quote('rows')} = null where {quote('place')} = {part.place}"
        return session.execute(f"{sql} and {quote('committed_at')} is null") == 1

    def record(self, session: Session, part: Range, *, rows: int, size_bytes: int) -> None:
        """Write that a range has arrived."""
        quote = self._dialect.naming.quote
        values = {"rows": rows, "size_bytes": size_bytes, "committed_at": self._dialect.facts.now}
        assigned = ", ".join(f"{quote(name)} = {value}" for name, value in values.items())
        session.execute(f"update {self._table} set {assigned} where {quote('place')} = {part.place}")

    def loaded(self, session: Session) -> dict[int, tuple[int, int]]:
        """Return the places of ranges that have arrived, with their records and their bytes."""
        quote = self._dialect.naming.quote
        listed = self._dialect.naming.names(["place", "rows", "size_bytes"])
        sql = f"select {listed} from {self._table} where {quote('committed_at')} is not null"
        return {int(place): (int(rows), int(size_bytes)) for place, rows, size_bytes in session.query(sql)}


@dataclass(frozen=True, slots=True)
class UnfinishedLoad:
    """The tables of an unfinished load: its staging table, and its ledger of ranges."""

    staging: TableName
    #: As `key_text` writes it.
    whose: str
    #: None: it cannot be resumed.
    shape: str | None = None
    moment: str | None = None

    @property
    def ledger(self) -> TableName:
        """The ledger of its ranges."""
        return TableName(self.staging.schema, self.staging.name + LEDGER_SUFFIX)

    def drop(self, session: Session, dialect: Dialect) -> None:
        """Drop both tables, and end connections of a frozen process that hold locks on them."""
        for suffix in ("", CONVERTED_SUFFIX, LEDGER_SUFFIX):
            name = TableName(self.staging.schema, self.staging.name + suffix)
            dialect.tables.free(session, name)
            session.execute(dialect.tables.drop(name))

    def rename(self, session: Session, dialect: Dialect, token: str) -> None:
        """Rename both tables for another load; the former one no longer finds them."""
        for name, suffix in ((self.staging, ""), (self.ledger, LEDGER_SUFFIX)):
            dialect.tables.free(session, name)
            renamed = dialect.naming.quote(staging_name(token) + suffix)
            session.execute(f"alter table {dialect.naming.table(name)} rename to {renamed}")


def unfinished_loads(session: Session, dialect: Dialect) -> Iterator[UnfinishedLoad]:
    """Yield the unfinished loads by ranges of all schemas, those still running included."""
    found = set(dialect.catalog.list_staging(session))
    ledgers = [name for name in sorted(found, key=str) if name.name.endswith(LEDGER_SUFFIX)]
    tables = dialect.catalog.reflect(session, ledgers) if ledgers else {}
    for name in ledgers:
        if name not in tables:
            continue  # dropped by its load since it was listed
        staging = TableName(name.schema, name.name.removesuffix(LEDGER_SUFFIX))
        # An earlier version wrote neither shape nor moment.
        is_dated = tables[name].column("moment") is not None and staging in found
        for row in _read(session, dialect, name, ["stream", "shape", "moment"] if is_dated else ["stream"]):
            yield UnfinishedLoad(staging, *row)


def _read(session: Session, dialect: Dialect, ledger: TableName, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Read one row; none of a ledger that was just dropped, or belongs to another role."""
    dialect.writes.savepoint(session)  # only systems with savepoints load by ranges
    try:
        rows = session.query(f"select {dialect.naming.names(columns)} from {dialect.naming.table(ledger)} limit 1")
    except FatalConnectorError:
        dialect.writes.rollback(session)
        return []
    dialect.writes.release(session)
    return rows


def key_text(key: LedgerKey) -> str:
    """Return a stream's key as the ledger of ranges keeps it."""
    return json.dumps([key.pipeline, key.stream, key.destination_table], ensure_ascii=True)


def key_of(text: str) -> LedgerKey:
    """Read what `key_text` wrote."""
    pipeline, stream, destination_table = json.loads(text)
    return LedgerKey(pipeline=pipeline, stream=stream, destination_table=destination_table)


__all__ = ["LEDGER_SUFFIX", "RangeLedger", "UnfinishedLoad", "key_of", "key_text", "unfinished_loads"]
