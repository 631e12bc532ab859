"""SQLite as a destination: one writer at a time, everything of a commit in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from ..database_files import add_user
from ..local_files import demand_folder, demand_writable, sqlite_files
from ..sql.destination import SqlDestination
from ..sql.identifiers import TableName
from ..sql.session import Session, SessionLease
from ..stream import Place
from .dialect import dialect
from .session import SQLiteSession
from .settings import SQLiteSettings, read_settings
from .types import EXACT_DIGITS


class SQLiteDestination(SqlDestination):
    """Writes tables of one SQLite file, which is created by the first write; the stored forms are those of `types`.

    The first write turns the file's write-ahead log on, so that others can read while a load goes on.
    """

    max_loads: int | None = 1
    connector: ClassVar[str] = "sqlite"
    settings: ClassVar[type[SQLiteSettings]] = SQLiteSettings

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self._config, self._path = read_settings(config, folder)
        add_user(self, self._path)
        super().__init__(dialect())

    def connect(self) -> SQLiteSession:
        """Open the file, or create it."""
        return SQLiteSession(self._path, is_writer=True, lock_timeout_s=self._config.lock_timeout_s)

    def check(self) -> None:
        """Prove that the file can be read and written; a journal comes beside it."""
        demand_writable(self._path, *sqlite_files(self._path))
        super().check()

    def identity(self) -> str:
        """Return `sqlite:///path`."""
        return f"sqlite://{self._path}"

    def place(self) -> Place:
        """Name a file of this machine; its processes take turns."""
        return "host"

    def execute_alone(self, session: Session, sql: str, values: Sequence[Any]) -> int:
        """Run one statement as the file's one writer."""
        assert isinstance(session, SQLiteSession)
        return session.execute_alone(sql, values)

    def keeps_latest(self, field: pa.Field) -> bool:
        """Compare all but decimals of more digits than SQLite's numbers have, which are texts there."""
        return not (pa.types.is_decimal(field.type) and field.type.precision > EXACT_DIGITS)

    def is_there(self) -> bool:
        """Return true if the file exists. Raise if its folder does not exist. Create nothing."""
        demand_folder(self._path)
        return self._path.exists()

    def _ensure_ledger(self, lease: SessionLease, ledger: TableName) -> None:
        """Begin a transaction as the one writer, in which the ledger exists."""
        lease.begin()
        self.dialect.tables.lock_creation(lease.session, ledger)
        if not self.dialect.catalog.exists(lease.session, ledger):
            self._ledger.create(lease.session, ledger)
