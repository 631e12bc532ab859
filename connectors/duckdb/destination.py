"""DuckDB as a destination: loads stage records concurrently, and write targets and ledger one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from ..local_files import demand_folder, demand_writable
from ..protocols import Capability
from ..sql.destination import SqlDestination
from ..sql.identifiers import TableName
from ..sql.session import Session, SessionLease
from ..stream import Place
from .database import open_database
from .dialect import DuckDBNaming, dialect
from .session import DuckDBSession
from .settings import DuckDBSettings, read_settings


class DuckDBDestination(SqlDestination):
    """Writes tables of one DuckDB file, which is created by the first write.

    A commit with more wide records than fit in memory is several transactions; the last one writes the ledger
    (`DuckDBWrites.move`). The lock that separates two owners of a ledger row is within the process: DuckDB lets only
    one process write a file.
    """

    capabilities = SqlDestination.capabilities | {Capability.APPLIES_CHANGES}
    connector: ClassVar[str] = "duckdb"
    settings: ClassVar[type[DuckDBSettings]] = DuckDBSettings

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self._config, self._path = read_settings(config, folder)
        self._database = open_database(self._path)
        self._database.add_writer(self)
        self._naming = DuckDBNaming()
        is_limited = self._config.memory_limit is not None
        super().__init__(
            dialect(self._naming, is_limited=is_limited, has_primary_key=self._config.primary_key),
            schema=self._config.schema_ or "",
            creates_schemas=self._config.create_schemas,
        )

    def limit_memory(self, size_bytes: int, *, is_strict: bool) -> None:
        """Limit DuckDB's memory to this size; a strict limit also applies to merges."""
        self._database.limit_memory(size_bytes, is_strict=is_strict)

    def connect(self) -> DuckDBSession:
        """Open the file, or share it, for writing."""
        cursor = self._database.cursor(self, self._config, is_writer=True)
        session = DuckDBSession(self._database, cursor)
        self._naming.catalog = session.catalog
        return session

    def check(self) -> None:
        """Check that the file can be read and written; its log is beside it."""
        demand_writable(self._path)
        super().check()

    def identity(self) -> str:
        """Return `duckdb:///path`."""
        return f"duckdb://{self._path}"

    def place(self) -> Place:
        """Only one process at a time can open the file."""
        return "process"

    def execute_alone(self, session: Session, sql: str, values: Sequence[Any]) -> int:
        """Run one statement while no commit runs: otherwise DuckDB would fail the commit."""
        assert isinstance(session, DuckDBSession)
        return session.execute_alone(sql, values)

    def is_there(self) -> bool:
        """Return true if the file exists. Raise if its folder does not exist. Create nothing."""
        demand_folder(self._path)
        return self._path.exists()

    def close(self) -> None:
        """Close every session; the file is unlocked when this process no longer uses it."""
        super().close()
        self._database.let_go(self)

    def _ensure_ledger(self, lease: SessionLease, ledger: TableName) -> None:
        """Begin a transaction that holds the commit lock, and in which the ledger exists."""
        lease.begin()
        self.dialect.tables.lock_creation(lease.session, ledger)
        if not self.dialect.catalog.exists(lease.session, ledger):
            self._ledger.create(lease.session, ledger)
