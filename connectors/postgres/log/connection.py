"""A replication connection: commands, and the stream of a slot."""

from __future__ import annotations

import select
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from typing import Any, NamedTuple

from ...errors import Interrupted, RetriableError
from ...sql.identifiers import literal
from ..failures import connect_failure, failure
from ..settings import PostgresAddress
from .messages import lsn_text
from .values import SESSION

#: Most seconds between two signs of life; the server ends a connection that gives none for `wal_sender_timeout` (60).
ALIVE_S = 10.0

#: Bytes and messages gathered before a block is decoded: as many as the processor's caches hold.
_BLOCK_BYTES, _BLOCK_MESSAGES = 1 << 20, 16_384

#: Seconds that a block waits for more messages, and that a call waits for a first one.
_LINGER_S, _WAIT_S = 0.02, 0.2

#: Seconds that the server has to notice that a former reader of the slot is gone, and what it says until then.
_FREED_S, IN_USE = 10.0, "55006"

#: Who reads a slot. The server shows only the process if it belongs to a role that this one may not see.
_READER = """select s.active_pid::text as pid, a.usename::text as role,
  coalesce(a.client_hostname, pg_catalog.host(a.client_addr)) as place, a.application_name as name,
  (a.backend_start at time zone 'UTC')::timestamp(0)::text as since
from pg_catalog.pg_replication_slots s left join pg_catalog.pg_stat_activity a on a.pid = s.active_pid
where s.slot_name = {slot} and s.active_pid is not null"""

_KEEPALIVE = ord("k")

#: Microseconds from 1970 to 2000.
_EPOCH_US = 946_684_800_000_000


class Received(NamedTuple):
    """Messages of a slot, in order."""

    messages: list[memoryview]
    #: Up to where the server has sent everything, if it has said so behind the last message; else 0.
    sent: int


def reader_of(slot: str, query: Callable[[str], Sequence[tuple[Any, ...]]]) -> str:
    """Describe who reads a slot, for an error about a slot in use."""
    for process, role, place, name, since in query(_READER.format(slot=literal(slot))):
        parts = [
            f"process {process}",
            *([f"role {role!r}"] if role else []),
            *([f"from {place}"] if place else []),
            *([f"since {since} UTC"] if since else []),
        ]
        return f"{name or 'another program'} ({', '.join(parts)})"
    return "another program"


class LogConnection:
    """One walsender. Commands and `receive` are one thread's; `confirm` and `close` may be another's."""

    def __init__(
        self, address: PostgresAddress, *, is_stopped: Callable[[], bool] = lambda: False, reader: str = ""
    ) -> None:
        """Connect; `is_stopped` ends each wait soon. Other runs see `reader` while the slot is in use."""
        import psycopg

        self._address, self._is_stopped = address, is_stopped
        try:
            self._connection = psycopg.connect(address.uri(), autocommit=True, replication="database")
        except psycopg.Error as error:
            raise connect_failure(error, address) from None
        self._pgconn = self._connection.pgconn
        self._lock = threading.Lock()
        self._confirmed = 0
        self._held: Callable[[], int] = lambda: 0
        #: Seconds since the server's last word, of those in which somebody has listened.
        self._silent_s = 0.0
        self._ended = threading.Event()
        self._is_streaming = False
        try:
            for name, value in SESSION.items():
                self.command(f"set {name} = '{value}'")
            if reader:
                name = f"{address.parameters.get('application_name', 'syncblocks')} {reader}"
                self.command(f"set application_name = {literal(name)}")
            # Nobody talks over a connection that holds a snapshot for others.
            for name in ("idle_session_timeout", "idle_in_transaction_session_timeout", "statement_timeout"):
                self.command(f"set {name} = 0")
            (row,) = self.command("select setting from pg_catalog.pg_settings where name = 'wal_sender_timeout'")
            limit_s = int(str(row["setting"])) / 1000
            self._alive_s = min(ALIVE_S, limit_s / 4) if limit_s else ALIVE_S
            # Without a limit of its own the server may be silent through a transaction of any size.
            patience_s = int(address.parameters.get("tcp_user_timeout", 0)) / 1000
            self._silence_s = 2 * max(patience_s, limit_s) if limit_s else inf
        except BaseException:
            self.close()
            raise

    # -- commands --------------------------------------------------------------------------------------------------

    def command(self, sql: str, timeout_s: float | None = None) -> list[dict[str, str | None]]:
        """Run one command and return its rows.

        Raises:
            TimeoutError: it takes longer; it was cancelled.
        """
        import psycopg

        pgconn = self._pgconn
        try:
            pgconn.send_query(sql.encode())
            end = None if timeout_s is None else time.monotonic() + timeout_s
            while pgconn.is_busy():
                self._wait(_WAIT_S)
                pgconn.consume_input()
                is_late = end is not None and time.monotonic() > end
                if is_late or self._is_stopped():
                    self._connection.cancel()
                    self._drain()
                    if is_late:
                        raise TimeoutError(sql)
                    raise Interrupted("reading the log was interrupted", connector="postgres")
            found, rows = None, list[dict[str, str | None]]()
            while (result := pgconn.get_result()) is not None:
                found = result
                if result.status == psycopg.pq.ExecStatus.COPY_BOTH:
                    break
            assert found is not None
            if found.status == psycopg.pq.ExecStatus.FATAL_ERROR:
                raise failure(psycopg.errors.error_from_result(found), self._address)
            for row in range(found.ntuples):
                values = {}
                for column in range(found.nfields):
                    value = found.get_value(row, column)
                    values[(found.fname(column) or b"").decode()] = None if value is None else value.decode()
                rows.append(values)
        except psycopg.Error as error:
            raise failure(error, self._address, is_lost=True) from error
        return rows

    def _drain(self) -> None:
        with suppress(Exception):  # the connection is given up by whoever asked
            while self._pgconn.get_result() is not None:
                pass

    # -- the stream ------------------------------------------------------------------------------------------------

    def start(self, slot: str, publication: str, position: int, held: Callable[[], int]) -> None:
        """Begin to receive what a slot sends; confirm this position, and later what `held` says is committed."""
        options = f"proto_version '1', publication_names '{publication}'"
        end = time.monotonic() + _FREED_S
        while True:
            try:
                self.command(f'START_REPLICATION SLOT "{slot}" LOGICAL {lsn_text(position)} ({options})')
                break
            except RetriableError as error:
                if IN_USE not in str(error):
                    raise
                if time.monotonic() > end:
                    raise self._in_use(slot) from error
                self._ended.wait(_WAIT_S)
        self._confirmed, self._held, self._is_streaming = position, held, True
        self._say(is_asking=True)
        threading.Thread(target=self._keep_alive, name="log-alive", daemon=True).start()

    def _in_use(self, slot: str) -> RetriableError:
        """Return the error about a slot that another connection still reads after the wait."""
        reader = reader_of(slot, lambda sql: [tuple(row.values()) for row in self.command(sql)])
        text = (
            f"replication slot {slot!r} is still read by {reader}, and this run has waited {_FREED_S:g} s for it. Run "
            "again when that reader has ended"
        )
        return RetriableError(text, connector="postgres", has_no_values=True)

    def receive(self) -> Received:
        """Return some messages, or none after a while.

        Raises:
            RetriableError: the connection is gone.
            Interrupted: the read was stopped.
        """
        import psycopg

        found: list[memoryview] = []
        sent, size, begun = 0, 0, time.monotonic()
        get, add = self._pgconn.get_copy_data, found.append
        try:
            while size < _BLOCK_BYTES and len(found) < _BLOCK_MESSAGES:
                with self._lock:
                    count, data = get(1)
                    if count == 0:
                        self._pgconn.consume_input()
                        count, data = get(1)
                    while count > 0:  # each of these steps is taken for each message
                        if data[0] == _KEEPALIVE:
                            sent = struct.unpack_from(">Q", data, 1)[0]
                            if data[17]:
                                self._say_locked(is_asking=False)
                        else:
                            add(data)
                            size, sent = size + count, 0
                            if size >= _BLOCK_BYTES or len(found) >= _BLOCK_MESSAGES:
                                break
                        count, data = get(1)
                if count < 0:
                    self._drain_end()
                if self._is_stopped():
                    raise Interrupted("reading the log was interrupted", connector="postgres")
                waited_s = time.monotonic() - begun
                if sent or waited_s > (_LINGER_S if found else _WAIT_S):
                    break
                if count == 0:
                    self._wait(_LINGER_S)
        except psycopg.Error as error:
            raise failure(error, self._address, is_lost=True) from error
        if found or sent:
            self._silent_s = 0.0
        else:
            self._silent_s += time.monotonic() - begun
            if self._silent_s > self._silence_s:
                text = f"the server has answered nothing for {self._silent_s:.0f} s while its log was read"
                raise RetriableError(text, connector="postgres", has_no_values=True)
            self._say(is_asking=True)
        return Received(found, sent)

    def confirm(self, position: int) -> None:
        """Let the server forget its log up to a position, and end the stream."""
        self._confirmed = max(self._confirmed, position)
        if not self._is_streaming:
            return
        with suppress(Exception):  # the next read confirms it as it begins
            self._say(is_asking=False)
            with self._lock:
                self._pgconn.put_copy_end(None)
                self._pgconn.flush()
                end = time.monotonic() + 5
                while time.monotonic() < end:
                    count, _ = self._pgconn.get_copy_data(1)
                    if count < 0:
                        break
                    if count == 0:
                        self._wait(_WAIT_S)
                        self._pgconn.consume_input()

    def close(self) -> None:
        """Close the connection; the server frees slot and snapshot."""
        self._ended.set()
        with self._lock:
            self._is_streaming = False
            self._connection.close()

    def _keep_alive(self) -> None:
        """Give a sign of life whatever whoever takes the messages does."""
        while not self._ended.wait(self._alive_s):
            with suppress(Exception):  # a lost connection is noticed where it is read
                self._confirmed = max(self._confirmed, self._held())
                self._say(is_asking=False)

    def _say(self, *, is_asking: bool) -> None:
        with self._lock:
            self._say_locked(is_asking=is_asking)

    def _say_locked(self, *, is_asking: bool) -> None:
        """Confirm what is committed; `is_asking`: the server answers with up to where it has sent."""
        if not self._is_streaming:
            return
        now = int(time.time() * 1_000_000) - _EPOCH_US
        place = self._confirmed
        self._pgconn.put_copy_data(struct.pack(">cQQQqB", b"r", place, place, place, now, is_asking))
        self._pgconn.flush()

    def _drain_end(self) -> None:
        """Raise why the server has ended the stream."""
        import psycopg

        result: Any = self._pgconn.get_result()
        if result is not None and result.status == psycopg.pq.ExecStatus.FATAL_ERROR:
            raise failure(psycopg.errors.error_from_result(result), self._address)
        raise RetriableError("the server has ended the stream of its log", connector="postgres")

    def _wait(self, timeout_s: float) -> None:
        select.select([self._pgconn.socket], [], [], timeout_s)


__all__ = ["IN_USE", "LogConnection", "Received", "reader_of"]
