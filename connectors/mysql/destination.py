"""Records into MySQL and MariaDB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ..settings import parse_settings
from ..sql.destination import SqlDestination
from ..sql.identifiers import STAGING_PREFIX, staging_name
from ..sql.session import Session
from ..stream import LedgerKey, LedgerRow
from . import catalog, swaps
from .dialect import dialect
from .ledger import MySQLLedger
from .server import Server
from .session import MySQLSession
from .settings import MySQLSettings


class MySQLDestination(SqlDestination):
    """Tables of one database; data and ledger row in one InnoDB transaction."""

    settings: ClassVar[type[MySQLSettings]] = MySQLSettings
    connector = "mysql"

    def __init__(self, config: Mapping[str, Any], folder: Path | None = None) -> None:
        self._settings = parse_settings(MySQLSettings, config, self.connector)
        self._server, database = Server(), self._settings.address.database
        super().__init__(
            dialect(self._server, database, self._settings.lock_timeout_s),
            schema=database,
            creates_schemas=self._settings.create_schemas,
        )
        self._ledger = MySQLLedger(self.dialect)
        #: Databases whose leftover staging tables were dropped since the last connection was opened.
        self._swept: set[str] = set()

    def connect(self) -> MySQLSession:
        """Open a connection."""
        # READ COMMITTED: each statement sees what others have committed, and locks no gaps between records.
        session = MySQLSession(
            self._settings.address,
            "start transaction",
            "read committed",
            self._settings.lock_timeout_s,
            is_loading=True,
        )
        self._server.adapt(session)
        self._swept.clear()  # the connection before may have broken and left staging tables
        return session

    def identity(self) -> str:
        """Return host, port and database."""
        return self._settings.address.identity()

    def refusal(self, key: LedgerKey) -> str:
        """Say why the ledger cannot hold a row for a key; see `protocols.Destination`."""
        return MySQLLedger.refusal(key)

    def take_over(self, key: LedgerKey, *, token: str, owner: str, source: str | None = None) -> LedgerRow:
        """Write the token, then carry out the swaps that earlier commits have noted."""
        row = super().take_over(key, token=token, owner=owner, source=source)
        schema = self.target(key.destination_table).schema
        with self._sessions.lease(key.stream) as lease:
            lease.begin()
            session = lease.session
            assert isinstance(session, MySQLSession)
            for staging, target in swaps.pending(session, schema):
                swaps.finish(session, schema, staging, target)
            if schema not in self._swept:
                self._swept.add(schema)
                self._sweep(session, key, schema)
        return row

    def _sweep(self, session: MySQLSession, key: LedgerKey, schema: str) -> None:
        """Drop staging tables of loads whose connection broke and whose tokens the ledger no longer has.

        The order matters, tables before tokens and notes: the maker of a table has its token in the ledger, and a load
        that has lost its token has written its note before.
        """
        # Names with more than the token belong to other tables, such as a former table that is kept.
        found = catalog.list_staging(session, schema)
        left = [name for name in found if name.name.removeprefix(STAGING_PREFIX).isalnum()]
        if not left:
            return
        ledger = self.dialect.naming.table(self._ledger.table(self.target(key.destination_table)))
        held = {staging_name(str(token)) for (token,) in session.query(f"select token from {ledger}")}
        held.update(staging for staging, _ in swaps.pending(session, schema))
        for name in left:
            if name.name not in held:
                session.drop_left(name)

    def execute_alone(self, session: Session, sql: str, values: Sequence[Any]) -> int:
        """Run one statement and commit it."""
        assert isinstance(session, MySQLSession)
        return session.execute_alone(sql, values)


__all__ = ["MySQLDestination"]
