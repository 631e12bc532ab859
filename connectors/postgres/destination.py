"""Records into PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, cast

from ..errors import ConnectorConfigError, FatalConnectorError
from ..protocols import Capability
from ..ranges import RangeReads
from ..read_spec import ReplicationMethod
from ..settings import parse_settings
from ..sql.address import OnServer
from ..sql.destination import SqlDestination
from ..sql.session import Sessions
from ..stream import Commit, LedgerKey, Load, Stream, TableState
from ..write_spec import WriteDisposition
from .adbc_driver import ADBCDatabase
from .adbc_session import AdbcSession
from .asyncpg_session import AsyncpgSession
from .catalog import PostgresCatalog
from .dialect import dialect
from .limits import limit_warnings
from .privileges import missing_privileges
from .settings import PostgresAddress, PostgresSettings
from .source import is_raw

#: Begin of the names of schemas that belong to the server.
_RESERVED = "pg_"


def _reserved(schema: str) -> str:
    """Return the error about a schema of the server."""
    return f"PostgreSQL reserves schema names that begin with `{_RESERVED}`, such as {schema!r}. Name another schema"


class PostgresDestination(OnServer, SqlDestination):
    """Tables of one database; data and ledger row in one transaction, by COPY.

    Loads of whole tables use asyncpg and pgpq, which need less CPU than the ADBC driver's own writer. ADBC is used for
    INCREMENTAL loads, which are mostly too small for the import of asyncpg. It is also used for addresses with
    parameters that only libpq knows, and for machines without pgpq (Linux on ARM).
    """

    settings: ClassVar[type[PostgresSettings]] = PostgresSettings
    capabilities = SqlDestination.capabilities | {Capability.APPLIES_CHANGES}
    connector = "postgres"

    def __init__(self, config: Mapping[str, Any], folder: Path | None = None) -> None:
        self._settings = parse_settings(PostgresSettings, config, self.connector)
        if (schema := self._settings.schema_ or "").startswith(_RESERVED):
            raise ConnectorConfigError(_reserved(schema), connector=self.connector, key="schema")
        super().__init__(dialect(), schema=self._settings.schema_ or "", creates_schemas=self._settings.create_schemas)
        self._database = ADBCDatabase(self._settings.address)
        self._encodes = self._settings.address.is_plain and find_spec("pgpq") is not None
        self._arrow = self._sessions
        self._has_enums = False
        self._raw = Sessions(lambda: AsyncpgSession(self._settings.address, "begin"))

    def one_name(self, destination_table: str) -> str:
        """Refuse schemas that the server would not create."""
        if (schema := self.target(destination_table).schema).startswith(_RESERVED):
            raise FatalConnectorError(_reserved(schema), connector=self.connector)
        return super().one_name(destination_table)

    def connect(self) -> AdbcSession:
        """Open a connection."""
        return self._database.connect("begin", self._settings.batch_size_bytes)

    def describe(self, tables: Sequence[str]) -> Mapping[str, TableState]:
        """Also read the enums, once: plan and loads use the same list."""
        catalog = cast("PostgresCatalog", self.dialect.catalog)
        if not self._has_enums:
            with self._sessions.lease() as lease:
                lease.begin()
                catalog.read_enums(lease.session)
                lease.session.rollback()
            self._has_enums = True
        return super().describe(tables)

    @property
    def address(self) -> PostgresAddress:
        """See `OnServer`."""
        return self._settings.address

    def limit_warnings(self, connections: int) -> Sequence[str]:
        """See `KnowsLimits`."""
        return limit_warnings(self._sessions, self.dialect.naming, connections)

    def accepts(self, stream: Stream, disposition: WriteDisposition) -> Sequence[str]:
        """Accept raw COPY if every new column has exactly its source's type; other columns are cast later."""
        return ("pgcopy", "arrow") if self._settings.address.is_plain and is_raw(stream) else ("arrow",)

    def load_sessions(self, load: Load, wire: str) -> Sessions:
        """Raw blocks need another kind of connection; large loads use it as well."""
        is_whole = load.stream.read.method is ReplicationMethod.FULL_TABLE
        return self._raw if wire == "pgcopy" or (is_whole and self._encodes) else self._arrow

    def statement_sessions(self) -> Sessions:
        """Return the connections whose driver sends every parameter as text, which the server casts."""
        return self._arrow

    def shortcut(self) -> str:
        """Prefer raw COPY."""
        return "pgcopy"

    def prepare(self, wire: str, *, is_whole: bool) -> None:
        """Connect in the background, and query the catalog over the same connection that later loads the records."""
        if (wire == "pgcopy" and self._settings.address.is_plain) or (is_whole and self._encodes):
            self._sessions = self._raw
        self._sessions.prepare()

    def missing_privileges(self, tables: Mapping[str, WriteDisposition]) -> Sequence[str]:
        """See `KnowsPrivileges`."""
        targets, ledgers = self.write_targets(tables)
        with self._arrow.lease() as lease:
            lease.begin()
            may_create = self._settings.create_schemas
            return missing_privileges(lease.session, self.dialect.naming, targets, ledgers, creates_schemas=may_create)

    def all_sessions(self) -> Sequence[Sessions]:
        """Return both pools."""
        return (self._arrow, self._raw)

    def load_ranges(self, load: Load, reads: RangeReads, loaders: int, wire: str) -> Iterator[Commit]:
        """Load by ranges; see `ranges.LoadsRanges`."""
        return self._load_ranges(load, reads, loaders, wire)

    def drop_ranges(self, pipeline: str, is_wanted: Callable[[LedgerKey], bool]) -> None:
        """Drop resumable loads that are no longer wanted; see `ranges.LoadsRanges`."""
        self._drop_ranges(pipeline, is_wanted)

    def close(self) -> None:
        """Close every connection."""
        super().close()
        self._database.close()


__all__ = ["PostgresDestination"]
