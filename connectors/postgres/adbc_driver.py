"""The ADBC driver's knowledge of a server, shared by simultaneous connectors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import ConnectorError
from ..struct_helpers import replace
from .adbc_session import SETUP, AdbcSession
from .failures import connect_failure
from .settings import PostgresAddress

#: Error texts of poolers that accept no settings at the start of a connection.
_NO_OPTIONS = ("startup parameter", "command-line options")

#: Seconds during which other connectors share it. Later ones need newer types.
FRESH_S = 5.0


class _Known:
    """The driver's database, after the first connection. It keeps no open connection."""

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.lock = threading.Lock()
        self.database: Any = None
        #: Reason why it could not be created, so that a connector that waited for it does not wait as long again.
        self.error: Exception | None = None
        #: Number of `ADBCDatabase`s that use it, under `_LOCK`.
        self.users = 0
        #: Threads that are connecting: the driver crashes if its database is closed meanwhile.
        self.connecting = 0


_LOCK = threading.Lock()
#: URI -> the latest database.
_LATEST: dict[str, _Known] = {}


class ADBCDatabase:
    """The driver's database: created once; connections from it are cheap.

    Creating it reads all types and columns of the server's database: 40 ms of CPU for an empty database, 100 ms for
    12,000 columns. So a source and a destination in one database share it.
    """

    def __init__(self, address: PostgresAddress, clock: Callable[[], float] = time.monotonic) -> None:
        self.address = address
        self._clock = clock
        self._known: _Known | None = None

    def connect(self, begin: str, batch_size_bytes: int) -> AdbcSession:
        """Open a connection.

        Args:
            begin: statement that starts its transactions.
            batch_size_bytes: rough size of the batches it reads.
        """
        import adbc_driver_manager
        import adbc_driver_postgresql

        known = self._join()
        # The low-level interface: `dbapi` would import pandas.
        try:
            with known.lock:
                if known.error is not None:
                    raise known.error
                if known.database is None:
                    try:
                        known.database = _made(_driver_path(adbc_driver_postgresql), self.address)
                    except adbc_driver_manager.Error as error:
                        known.error = error
                        raise
                database = known.database
                known.connecting += 1
            try:
                connection = adbc_driver_manager.AdbcConnection(database)
            finally:
                with known.lock:
                    known.connecting -= 1
        except adbc_driver_manager.Error as error:
            if known.error is not None:
                self._leave(known)  # the next connection tries again
            raise connect_failure(error, self.address) from None
        session = AdbcSession(connection, self.address, begin, batch_size_bytes)
        try:
            session.execute(SETUP)
        except ConnectorError:
            session.close()
            raise
        return session

    def close(self) -> None:
        """Forget the database; the next connection creates a new one, or joins another connector's."""
        if self._known is not None:
            self._leave(self._known)

    def _leave(self, known: _Known) -> None:
        with _LOCK:
            if self._known is not known:
                return
            self._known = None
            known.users -= 1
            is_last, uri = not known.users, self.address.uri()
            if (is_last or known.error is not None) and _LATEST.get(uri) is known:
                del _LATEST[uri]
        if not is_last:
            return
        with known.lock:
            database, known.database = known.database, None
            is_in_use = known.connecting > 0
        if database is not None and not is_in_use:
            with suppress(Exception):  # connections in use keep it open until they are closed
                database.close()

    def _join(self) -> _Known:
        with _LOCK:
            if self._known is None:
                now, uri = self._clock(), self.address.uri()
                latest = _LATEST.get(uri)
                if latest is None or now - latest.since_s > FRESH_S:
                    latest = _LATEST[uri] = _Known(now)
                latest.users += 1
                self._known = latest
            return self._known


def _made(driver: str, address: PostgresAddress) -> Any:
    """Create the driver's database; its catalog queries use only the server's own functions and operators.

    Later connections use the search path of the user's settings.
    """
    import adbc_driver_manager

    options = f"{address.parameters.get('options', '')} -c search_path=".strip()
    closed = replace(address, parameters={**address.parameters, "options": options})
    try:
        made = adbc_driver_manager.AdbcDatabase(driver=driver, uri=closed.uri())
    except adbc_driver_manager.Error as error:
        if not any(words in str(error) for words in _NO_OPTIONS):
            raise
        return adbc_driver_manager.AdbcDatabase(driver=driver, uri=address.uri())
    made.set_options(uri=address.uri())
    return made


def _driver_path(module: ModuleType) -> str:
    """Return the path of the driver's library; its Python module finds it everywhere, but imports a lot."""
    beside = Path(str(module.__file__)).with_name("libadbc_driver_postgresql.so")
    return str(beside) if beside.is_file() else str(module._driver_path())


__all__ = ["ADBCDatabase"]
