"""The ledger in MySQL: the takeover has a statement of its own, and each ledger a table of swaps."""

from __future__ import annotations

from ..errors import FatalConnectorError
from ..sql.identifiers import TableName
from ..sql.ledger import Ledger
from ..sql.session import Session
from ..stream import LedgerKey, LedgerRow
from . import swaps

#: Longest pipeline, stream and destination table: what an index of three texts holds of each, see `types.key_type`.
MAX_CHARACTERS = 255


class MySQLLedger(Ledger):
    """Each ledger has a table of swaps in the same schema."""

    @staticmethod
    def refusal(key: LedgerKey) -> str:
        """Say why there can be no row for a key; empty: there can."""
        for what in ("pipeline", "stream", "destination_table"):
            name: str = getattr(key, what)
            if len(name) > MAX_CHARACTERS:
                shown = f"{what} {name[:40]!r}... has {len(name):,} characters"
                return f"{shown}, and the ledger in MySQL stores names of up to {MAX_CHARACTERS}"
        return ""

    def create(self, session: Session, ledger: TableName) -> None:
        """Create both; the ledger last: a process that finds the ledger relies on the table of swaps."""
        self._dialect.tables.create_schema(session, ledger.schema)
        session.execute(swaps.create(ledger.schema))
        super().create(session, ledger)

    def take_over(
        self, session: Session, ledger: TableName, key: LedgerKey, *, token: str, owner: str, source: str | None
    ) -> LedgerRow:
        """Write the token, waiting for whoever holds the row; return the row as it then stands."""
        if refusal := self.refusal(key):
            raise FatalConnectorError(refusal, stream=key.stream)
        quote = self._dialect.naming.quote
        names = self._dialect.naming.names(("pipeline", "stream", "destination_table", "source", "token", "owner"))
        keeps = "$4" if source is not None else quote("source")
        session.execute(
            f"insert into {self._dialect.naming.table(ledger)} ({names}) values ($1, $2, $3, $4, $5, $6) "
            f"on duplicate key update {quote('source')} = {keeps}, {quote('token')} = $5, {quote('owner')} = $6",
            (key.pipeline, key.stream, key.destination_table, source or "", token, owner),
        )
        (row,) = self.read(session, ledger, key)
        return row


__all__ = ["MySQLLedger"]
