"""The ledger of one load's ranges, a table beside the load's staging table.

The load creates it with the staging table, and writes each range's row in the transaction that loads the range. After
a crash, both tables tell which ranges are loaded, and for which stream.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...ranges import Range
from ...stream import LedgerKey
from ..dialect.dialect import Dialect
from ..identifiers import TableName, literal, staging_name
from ..session import Session
from ..tables import Column
from .unfinished import LEDGER_SUFFIX, key_text


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
        """Write the range layout and the snapshot id; with a snapshot id, the load can be resumed."""
        quote = self._dialect.naming.quote
        at = "null" if moment is None else literal(json.dumps(moment))
        session.execute(f"update {self._table} set {quote('shape')} = {literal(shape)}, {quote('moment')} = {at}")

    def lock(self, session: Session, part: Range) -> bool:
        """Lock a range's row until the commit; wait for another connection that loads it; False: it is loaded."""
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
        """Return the numbers of ranges that have arrived, with their records and bytes."""
        quote = self._dialect.naming.quote
        listed = self._dialect.naming.names(["place", "rows", "size_bytes"])
        sql = f"select {listed} from {self._table} where {quote('committed_at')} is not null"
        return {int(place): (int(rows), int(size_bytes)) for place, rows, size_bytes in session.query(sql)}


__all__ = ["RangeLedger"]
