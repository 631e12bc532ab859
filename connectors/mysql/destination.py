"""Records into MySQL and MariaDB."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from ..errors import ConnectorError, TakenOver
from ..settings import parse_settings
from ..sql.address import OnServer
from ..sql.destination import SqlDestination
from ..sql.identifiers import STAGING_PREFIX, TableName, staging_name
from ..sql.session import Session
from ..stream import Block, Commit, Event, LedgerKey, LedgerRow, Load, ended_token
from ..write_spec import WriteDisposition
from . import catalog, swaps
from .dialect import dialect
from .ledger import MySQLLedger
from .privileges import missing_privileges
from .server import Server
from .session import MySQLSession
from .settings import MySQLAddress, MySQLSettings


class MySQLDestination(OnServer, SqlDestination):
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
        #: Database -> abandoned staging tables that stay: the ledger has their token, or they are in use.
        #: A database without an entry was not looked at since the last connection was opened.
        self._left: dict[str, list[TableName]] = {}

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
        self._left.clear()  # the connection before may have broken and left staging tables
        return session

    @property
    def system(self) -> str:
        """The server's own name."""
        return "MariaDB" if self._server.is_mariadb else "MySQL"

    @property
    def address(self) -> MySQLAddress:
        """See `OnServer`."""
        return self._settings.address

    def refusal(self, key: LedgerKey) -> str:
        """Say why the ledger cannot hold a row for a key; see `protocols.Destination`."""
        return MySQLLedger.refusal(key)

    def missing_privileges(self, tables: Mapping[str, WriteDisposition]) -> Sequence[str]:
        """See `KnowsPrivileges`."""
        targets, ledgers = self.write_targets(tables)
        with self._sessions.lease() as lease:
            lease.begin()
            existing = self.dialect.catalog.reflect(lease.session, sorted({*targets, *ledgers}, key=str))
            return missing_privileges(lease.session, self.dialect.naming, targets, ledgers, existing)

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
            left = self._left.get(schema)
            if left is None:
                # Names with more than the token belong to other tables, such as a former table that is kept.
                found = catalog.list_staging(session, schema)
                left = [name for name in found if name.name.removeprefix(STAGING_PREFIX).isalnum()]
            self._left[schema] = self._swept(session, key, schema, left) if left else []
        return row

    def load(self, load: Load, events: Iterator[Event | Block], wire: str = "arrow") -> Iterator[Commit]:
        """Load; after an error drop what the connection could not, if that is what broke."""
        try:
            yield from super().load(load, events, wire)
        except TakenOver:
            raise
        except ConnectorError:
            # There may be no other try, and no later run of this stream. The takeover waits for a commit under way.
            with suppress(ConnectorError):
                rows = self.rows_of(load.key.pipeline, [load.key.destination_table])
                if any((row.key, row.token) == (load.key, load.token) for row in rows):
                    token = ended_token(load.token)
                    self.take_over(load.key, token=token, owner="the end of a load that failed")
            raise

    def _swept(self, session: MySQLSession, key: LedgerKey, schema: str, left: Sequence[TableName]) -> list[TableName]:
        """Drop staging tables of loads whose connection broke and whose tokens the ledger no longer has.

        Returns those that remain. The order matters, tables before tokens and notes: the maker of a table has its token
        in the ledger, and a load that has lost its token has written its note before.
        """
        ledger = self.dialect.naming.table(self._ledger.table(self.target(key.destination_table)))
        held = {staging_name(str(token)) for (token,) in session.query(f"select token from {ledger}")}
        held.update(staging for staging, _ in swaps.pending(session, schema))
        return [name for name in left if name.name in held or not session.drop_left(name)]

    def execute_within(self, session: Session, sql: str, values: Sequence[Any]) -> int:
        """Run one statement; the server binds its values, and commits by itself where it changes a table."""
        assert isinstance(session, MySQLSession)
        return session.execute_bound(sql, values)

    def execute_alone(self, session: Session, sql: str, values: Sequence[Any]) -> int:
        """Run one statement and commit it."""
        assert isinstance(session, MySQLSession)
        return session.execute_alone(sql, values)


__all__ = ["MySQLDestination"]
