"""Records into any database, by its SQLAlchemy dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import sqlalchemy as sa

from ..read_spec import Condition
from ..settings import parse_settings
from ..sql.destination import SqlDestination
from ..sql.identifiers import TableName
from ..sql.session import Session, SessionLease
from ..sql.tables import Table
from ..stream import LedgerRow, Place, TableState
from ..struct_helpers import replace
from .dialect import SQLAlchemyCatalog, SQLAlchemyTypes, dialect
from .ledger import SQLAlchemyLedger
from .naming import SQLAlchemyNaming
from .session import AlchemySession, has_hash_comments
from .settings import SQLAlchemySettings
from .traits import Traits, find_out


class SQLAlchemyDestination(SqlDestination):
    """Tables of one database; data and ledger row in one transaction. A system without transactions is refused."""

    settings: ClassVar[type[SQLAlchemySettings]] = SQLAlchemySettings
    connector = "sqlalchemy"

    def __init__(self, config: Mapping[str, Any], folder: Path | None = None) -> None:
        self._settings = parse_settings(SQLAlchemySettings, config, self.connector).placed(folder)
        self._own = SQLAlchemyNaming(self._settings.engine())
        self._own.default_schema = self._settings.schema_ or ""
        self._types = SQLAlchemyTypes(self._own.engine.dialect)
        super().__init__(dialect(self._own, self._types), schema=self._own.default_schema)
        self.dialect.facts = replace(self.dialect.facts, has_hash_comments=has_hash_comments(self._own.engine))
        self._ledger = SQLAlchemyLedger(self.dialect, self._own)
        self._has_rollback = False
        self._traits: Traits | None = None

    def connect(self) -> AlchemySession:
        """Open a connection; the first one finds out how the system stores values."""
        session = AlchemySession(self._own.engine, self._settings.shown(), is_writer=True, names=self._own.spelling)
        try:
            if self._traits is None:
                self._traits = self._types.traits = find_out(session.connection)
                self._note_savepoints(self._traits.has_savepoints)
        except BaseException:
            session.close()
            raise
        session.adapt(self._types.traits, self._lock)
        return session

    def place(self) -> Place:
        """Tell a server of another machine from what is on this one."""
        return self._settings.reach()

    def _lock(self, session: AlchemySession, table: str) -> None:
        assert isinstance(self._ledger, SQLAlchemyLedger)
        self._ledger.lock(session, self._ledger.table(TableName(self._schema, "")), table)

    def _note_savepoints(self, has_savepoints: bool) -> None:
        self.dialect.facts = replace(self.dialect.facts, has_savepoints=has_savepoints)

    @cached_property
    def _identity(self) -> str:
        return self._settings.identity()

    def identity(self) -> str:
        """Return dialect, host and database."""
        return self._identity

    def shown_address(self) -> str:
        """Return the same with the host as the URL writes it."""
        return self._settings.shown()

    def check(self) -> None:
        """Prove that it can be reached."""
        with self._sessions.lease() as lease:
            lease.begin()
            assert isinstance(lease.session, AlchemySession)
            lease.session.rows(sa.select(sa.literal_column("1")))

    def describe(self, tables: Sequence[str]) -> Mapping[str, TableState]:
        """Return schema and ledger rows of each table, and the foreign keys as they are now."""
        assert isinstance(self.dialect.catalog, SQLAlchemyCatalog)
        self.dialect.catalog.forget()
        return super().describe(tables)

    def keeps_rejected(self) -> str:
        """Say what it cannot keep."""
        if self._traits is None:
            self.check()
        if self.dialect.facts.has_savepoints:
            return ""
        return "records that a table refuses (constraints, types) fail the stream, since the database has no savepoints"

    def keeps_latest(self, field: pa.Field) -> bool:
        """Compare numbers and times; nobody knows how the database orders texts."""
        return not (pa.types.is_string(field.type) or pa.types.is_large_string(field.type))

    def drops_deleted(self, condition: Condition) -> bool:
        """Compare numbers and booleans; nobody knows what the database takes for the same text."""
        return not (pa.types.is_string(condition.field.type) and condition.values)

    def execute_alone(self, session: Session, sql: str, values: Sequence[Any]) -> int:
        """Run one statement and commit it."""
        assert isinstance(session, AlchemySession)
        return session.execute_alone(sql, values)

    def close(self) -> None:
        """Close every connection."""
        super().close()
        self._own.engine.dispose()

    def _ensure_ledger(self, lease: SessionLease, ledger: TableName) -> None:
        """Begin a transaction in which the ledger exists; the first time, test rollback and savepoints."""
        super()._ensure_ledger(lease, ledger)
        if not self._has_rollback:
            assert isinstance(self._ledger, SQLAlchemyLedger)
            self._ledger.refuse_without_rollback(lease.session, ledger)
            if self.dialect.facts.has_savepoints:
                self._note_savepoints(self._ledger.goes_back(lease.session, ledger))
            self._has_rollback = True

    def _state(self, table: Table | None, ledger: Sequence[LedgerRow]) -> TableState:
        state = super()._state(table, ledger)
        return state if table is None else replace(state, stream_name=str(table.name))


__all__ = ["SQLAlchemyDestination"]
