"""What the ADBC driver knows of a server, shared by those who connect to it at the same time."""

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

#: Messages of poolers that take no settings at the begin of a connection.
_NO_OPTIONS = ("startup parameter", "command-line options")

#: Seconds for which other connectors share it. A later one needs the types of its own time.
FRESH_S = 5.0


class _Known:
    """The driver's database, once somebody has connected. It keeps no connection of its own."""

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.lock = threading.Lock()
        self.database: Any = None
        #: Why it could not be made, so that a connector that waited for it does not try as long again.
        self.error: Exception | None = None
        #: Under `_LOCK`: how many `ADBCDatabase`s use it.
        self.users = 0
        #: Threads that are connecting: the driver crashes if its database is closed under them.
        self.connecting = 0


_LOCK = threading.Lock()
#: URI -> the latest one.
_LATEST: dict[str, _Known] = {}


class ADBCDatabase:
    """The driver's database: made once, then connections are cheap.

    When it is made it reads all types and columns of the server's database, which takes some 40 ms of the processor's
    time in an empty one, and 100 where there are 12,000 columns: a source and a destination in one database share it.
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
        """Forget the database; the next connection makes it anew, or joins somebody's."""
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
    """Make the driver's database; its queries of the catalog find only the server's own functions and operators.

    Later connections search the schemas that the user's settings say.
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
    """Return the driver's library; its module finds it everywhere, but imports much for that."""
    beside = Path(str(module.__file__)).with_name("libadbc_driver_postgresql.so")
    return str(beside) if beside.is_file() else str(module._driver_path())


__all__ = ["ADBCDatabase"]
