"""One connection with one transaction at a time; and a pool of connections between streams."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from ..errors import ConnectorError, Interrupted, RetriableError
from ..stream import Block
from .identifiers import TableName

T = TypeVar("T")


class Session(Protocol):
    """One database connection, used by one thread at a time; only `cancel` comes from other threads.

    Every driver error leaves it as a `ConnectorError` that tells the caller what to do. A lost connection, a deadlock
    or a lock timeout is a `RetriableError`; a cancelled statement is `Interrupted`.
    """

    def begin(self) -> None:
        """Start a transaction."""
        ...

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement with `$1` parameters (str, int, float, bool, None); return how many records it changed.

        Without parameters `sql` may hold several statements, separated by `;`.
        """
        ...

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a small result."""
        ...

    def ingest(self, table: TableName, schema: pa.Schema, data: Iterator[pa.RecordBatch | Block], wire: str) -> int:
        """Append the data to the named columns of a table, inside the transaction; return the records written.

        Args:
            table: has these columns, with types that hold `schema` exactly, and perhaps more.
            schema: schema of every batch (format "arrow"), or only the column names (other formats); a field's facts
                give the `column_type`.
            data: its exceptions may come out as any error: the caller knows the original.
            wire: transfer format of the data.
        """
        ...

    def commit(self) -> None:
        """Commit; `RetriableError` if the answer was lost, even if the server committed."""
        ...

    def rollback(self) -> None:
        """Roll back the transaction, if there is one."""
        ...

    def cancel(self) -> None:
        """Make the running statement fail soon; no effect if there is none."""
        ...

    def close(self) -> None:
        """Close the connection; uncommitted changes are lost."""
        ...


class SessionLease:
    """A session leased to one call; an interrupt lasts until the call ends."""

    def __init__(self, stream: str, session: Session, is_reused: bool, connect: Callable[[], Session]) -> None:
        self.stream = stream
        self.session = session
        self.is_interrupted = False
        self._is_reused = is_reused
        self._connect = connect

    def begin(self) -> None:
        """Start a transaction; replace a connection that died while idle."""
        self.first(lambda session: session.begin())

    def first(self, action: Callable[[Session], T]) -> T:
        """Run a repeatable action; replace a connection that died while idle."""
        self.check()
        try:
            done = action(self.session)
        except RetriableError:
            if not self._is_reused:
                raise
            with suppress(ConnectorError):
                self.session.close()
            self.session = self._connect()
            done = action(self.session)
        self._is_reused = False
        return done

    def check(self) -> None:
        """Raise `Interrupted` if the call was interrupted between two statements."""
        if self.is_interrupted:
            raise Interrupted(f"stream {self.stream!r} was interrupted", stream=self.stream)

    def interrupt(self) -> None:
        """Cancel the running statement, or fail the next `check`."""
        self.is_interrupted = True
        self.session.cancel()


class Sessions:
    """Connection pool of one connector: streams reuse connections, one call at a time."""

    def __init__(self, connect: Callable[[], Session], *, max_idle: int = 8) -> None:
        self._connect = connect
        self._max_idle = max_idle
        self._lock = threading.Lock()
        self._idle: list[Session] = []
        self._leases: set[SessionLease] = set()
        self._generation = 0
        self._coming: Future[Session] | None = None

    def prepare(self) -> None:
        """Open a connection in the background for the first call that needs one; that call raises its error."""
        future: Future[Session] = Future()

        def connect() -> None:
            try:
                future.set_result(self._connect())
            except BaseException as error:  # the first call raises it
                future.set_exception(error)

        with self._lock:
            if self._coming is not None or self._idle:
                return
            self._coming = future
        threading.Thread(target=connect, name="connect", daemon=True).start()

    @contextmanager
    def lease(self, stream: str = "") -> Iterator[SessionLease]:
        """Lease a connection to one call; uncommitted changes of the call are rolled back at the end."""
        with self._lock:
            reused = self._idle.pop() if self._idle else None
            generation = self._generation
            if reused is None:
                coming, self._coming = self._coming, None
        if reused is None and coming is not None:
            reused = coming.result()
        lease = SessionLease(stream, reused or self._connect(), reused is not None, self._connect)
        with self._lock:
            self._leases.add(lease)
        try:
            yield lease
        except ConnectorError as error:
            if lease.is_interrupted and not isinstance(error, Interrupted):
                raise Interrupted(f"stream {stream!r} was interrupted", stream=stream) from error
            raise
        finally:
            with self._lock:
                self._leases.discard(lease)
            self._return(lease, generation)

    def interrupt(self, stream: str) -> None:
        """Interrupt every running call of a stream."""
        with self._lock:
            leases = [lease for lease in self._leases if lease.stream == stream]
        for lease in leases:
            lease.interrupt()

    def close(self) -> None:
        """Close idle connections now, and used ones at the end of their call. A later call opens new ones."""
        with self._lock:
            idle, self._idle = self._idle, []
            coming, self._coming = self._coming, None
            self._generation += 1
        if coming is not None:
            coming.add_done_callback(_close_coming)
        for session in idle:
            with suppress(ConnectorError):
                session.close()

    def _return(self, lease: SessionLease, generation: int) -> None:
        session = lease.session
        try:
            session.rollback()
        except ConnectorError:
            is_usable = False
        else:
            # A late cancel would hit the next call's statement.
            is_usable = not lease.is_interrupted
        with self._lock:
            if is_usable and generation == self._generation and len(self._idle) < self._max_idle:
                self._idle.append(session)
                return
        with suppress(ConnectorError):
            session.close()


def _close_coming(coming: Future[Session]) -> None:
    """Close a prepared connection that no call used."""
    if coming.exception() is None:
        with suppress(ConnectorError):
            coming.result().close()


__all__ = ["Session", "SessionLease", "Sessions"]
