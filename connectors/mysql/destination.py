"""Records into MySQL and MariaDB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ..settings import parse_settings
from ..sql.destination import SqlDestination
from ..sql.session import Session
from ..stream import LedgerKey, LedgerRow
from . import swaps
from .dialect import MySQLDialect
from .ledger import MySQLLedger
from .session import MySQLSession
from .settings import MySQLSettings


class MySQLDestination(SqlDestination):
    """Tables of one database; data and ledger row in one InnoDB transaction."""

    settings: ClassVar[type[MySQLSettings]] = MySQLSettings
    connector = "mysql"

    def __init__(self, config: Mapping[str, Any], folder: Path | None = None) -> None:
        self._settings = parse_settings(MySQLSettings, config, self.connector)
        dialect = MySQLDialect(self._settings.address.database, self._settings.lock_timeout_s)
        super().__init__(dialect, schema=self._settings.address.database)
        self._ledger = MySQLLedger(dialect)

    def connect(self) -> MySQLSession:
        """Open a connection."""
        # READ COMMITTED: each statement sees what others have committed, and locks no gaps between records.
        session = MySQLSession(
            self._settings.address, "start transaction", "read committed", self._settings.lock_timeout_s
        )
        assert isinstance(self.dialect, MySQLDialect)
        self.dialect.adapt(session)
        return session

    def identity(self) -> str:
        """Return host, port and database."""
        return self._settings.address.identity()

    def refusal(self, key: LedgerKey) -> str:
        """Say why the ledger cannot hold a row for a key; see `protocols.Destination`."""
        return MySQLLedger.refusal(key)

    def take_over(self, key: LedgerKey, *, token: str, owner: str, source: str | None = None) -> LedgerRow:
        """Write the token, then carry out what commits before it have noted."""
        row = super().take_over(key, token=token, owner=owner, source=source)
        schema = self.target(key.destination_table).schema
        with self._sessions.lease(key.stream) as lease:
            lease.begin()
            session = lease.session
            assert isinstance(session, MySQLSession)
            for staging, target in swaps.pending(session, schema):
                swaps.finish(session, schema, staging, target)
        return row

    def execute_alone(self, session: Session, sql: str, values: Sequence[Any]) -> int:
        """Run one statement and commit it."""
        assert isinstance(session, MySQLSession)
        return session.execute_alone(sql, values)


__all__ = ["MySQLDestination"]
