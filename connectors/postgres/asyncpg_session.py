"""A connection over asyncpg: COPY's binary blocks, copied between servers or made from Arrow batches."""

from __future__ import annotations

import asyncio
import itertools
import re
import selectors
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

import pyarrow as pa

from ..errors import ConnectorError, FatalConnectorError, Interrupted, RetriableError
from ..network import CONNECT_TIMEOUT_S, SOCKET_PARAMETERS, is_unix, limit_socket
from ..sql.identifiers import TableName, quote
from ..stream import Block
from . import encode
from .adbc_session import SETUP
from .asyncpg_login import Loop, guard
from .failures import connect_failure, failure, interrupted
from .settings import PostgresAddress

T = TypeVar("T")

#: Size of a yielded block in bytes.
BLOCK_BYTES = 1 << 20

#: A smaller read over TCP is followed by a pause in which the server continues: each read costs the same,
#: regardless of its size. The buffer of a Unix socket is too small for this.
_FEW_BYTES, _PAUSE_S = 128 << 10, 0.001

_COUNT = re.compile(r"(\d+)$")


def connect(address: PostgresAddress, begin: str) -> AsyncpgSession:
    """Open a connection."""
    return AsyncpgSession(address, begin)


class _Selector(selectors.DefaultSelector):
    """Selector that mostly skips the system call: the call releases the interpreter's lock and waits to get it back."""

    #: Steps of the loop since the last system call; without occasional calls a COPY would not notice its failure.
    _steps = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return ready sockets; mostly none between two steps of the loop (0)."""
        self._steps += 1
        if timeout == 0 and self._steps < 8:
            return []
        self._steps = 0
        return super().select(timeout)


class AsyncpgSession:
    """One asyncpg connection with a private event loop, which runs only during a call."""

    def __init__(self, address: PostgresAddress, begin: str) -> None:
        import asyncpg

        self._address = address
        self._begin = begin
        self._loop = Loop(_Selector())
        self._loop.refuses_clear_text = not address.may_get_clear_text
        guard()
        self._lock = threading.Lock()
        self._task: asyncio.Task[Any] | None = None
        self._connection: Any = None
        try:
            self._connection = self._loop.run_until_complete(asyncpg.connect(**_arguments(address)))
            self._socket = self._connection._transport.get_extra_info("socket")
            limit_socket(self._socket, address.parameters)
            protocol = self._connection._protocol
            # A COPY that waits to write would wait forever after the connection is lost.
            self._connection.add_termination_listener(lambda _: protocol.resume_writing())
            self.execute(SETUP)
        except ConnectorError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise connect_failure(error, address) from None

    def begin(self) -> None:
        """Start a transaction."""
        self.execute(self._begin)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run SQL; without parameters it may contain several statements."""
        found = _COUNT.search(self._run(self._connection.execute(_checked(sql), *parameters)))
        return int(found.group(1)) if found else -1

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows."""
        return [tuple(row) for row in self._run(self._connection.fetch(_checked(sql), *parameters))]

    def ingest(self, table: TableName, schema: pa.Schema, data: Iterator[pa.RecordBatch | Block], wire: str) -> int:
        """Append one stream in COPY's binary format, or batches encoded as one; the server counts the records."""
        blocks = _gathered(encode.blocks(schema, data) if wire == "arrow" else data)
        first = next(blocks, b"")
        where = {
            "table_name": _named(table.name),
            "schema_name": _named(table.schema),
            "columns": [_named(name) for name in schema.names],
            "format": "binary",
        }
        second = next(blocks, None)
        if second is None:
            # The driver treats a view as content, but bytes as the path of a file.
            found = _COUNT.search(self._run(self._connection.copy_to_table(source=memoryview(first), **where)))
        else:
            found = _COUNT.search(self._copy_in(where, itertools.chain((first, second), blocks)))
        if found is None:
            raise FatalConnectorError("COPY gave no count", connector="postgres")
        return int(found.group(1))

    def _copy_in(self, where: Mapping[str, Any], blocks: Iterator[Block]) -> str:
        """Send blocks as they arrive; a thread outside the event loop fetches them: their producer may run a loop."""
        queue: asyncio.Queue[Block | Exception | None] = asyncio.Queue(1)

        async def source() -> AsyncIterator[bytes]:
            while (block := await queue.get()) is not None:
                if isinstance(block, Exception):
                    raise block
                yield cast("bytes", block)

        async def start() -> asyncio.Task[str]:
            return asyncio.create_task(self._connection.copy_to_table(source=source(), **where))

        copying = self._run(start())
        # A producer that waits to put a block must not wait for a COPY that has ended.
        copying.add_done_callback(lambda _: _drain(queue))
        try:
            for block in blocks:
                self._run(queue.put(block))
                if copying.done() or self._connection.is_closed():
                    break  # the result has the reason
            self._run(queue.put(None))
            return self._run(_result(copying))
        except BaseException as error:
            self._abandon(copying, queue, error)
            raise

    def _abandon(self, copying: asyncio.Task[str], queue: asyncio.Queue[Any], error: BaseException) -> None:
        """End a COPY early, so that the transaction can be rolled back."""
        if not copying.done():
            _drain(queue)
            queue.put_nowait(RuntimeError(f"given up: {type(error).__name__}"))
            if isinstance(error, Interrupted):
                copying.cancel()
        with suppress(BaseException):  # the caller raises the reason
            self._loop.run_until_complete(asyncio.wait_for(copying, 5))

    def copy_out(self, sql: str) -> Iterator[Block]:
        """Yield the result in COPY's binary format, in blocks of about a megabyte."""
        # Blocks; at the end an error or None.
        queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(1)
        held: list[bytes] = []
        size = 0
        is_large = False
        few_bytes = 0 if is_unix(self._socket) else _FEW_BYTES

        async def sink(data: bytes) -> None:
            nonlocal size, is_large
            held.append(data)
            size += len(data)
            if size >= BLOCK_BYTES:
                block = b"".join(held)  # a single block needs no copy
                held.clear()
                size, is_large = 0, True
                await queue.put(block)
            elif is_large and len(data) < few_bytes:
                await asyncio.sleep(_PAUSE_S)

        async def copy() -> None:
            try:
                await self._connection.copy_from_query(_checked(sql), output=sink, format="binary")
            except Exception as error:
                await queue.put(error)
            else:
                await queue.put(b"".join(held))
                await queue.put(None)

        copying = self._loop.create_task(copy())
        is_over = False
        try:
            while (block := self._run(_take(queue))) is not None:
                if block:
                    yield block
            is_over = True
        finally:
            if not is_over:
                copying.cancel()
                with suppress(BaseException):  # it was cancelled, or its error was already raised
                    self._loop.run_until_complete(copying)

    def commit(self) -> None:
        """Commit."""
        self.execute("commit")

    def rollback(self) -> None:
        """Roll back if a transaction is open."""
        if self._connection.is_closed():
            raise RetriableError(f"{self._address.shown}: the connection is closed", connector="postgres")
        if self._connection.is_in_transaction():
            self.execute("rollback")

    def cancel(self) -> None:
        """Cancel the running call; asyncpg asks the server to end the statement."""
        with self._lock:
            task = self._task
            if task is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(task.cancel)

    def close(self) -> None:
        """Close the connection and its loop."""
        with self._lock:
            if self._loop.is_closed():
                return
        with suppress(Exception):  # the connection is closed even if the last message fails
            self._loop.run_until_complete(self._end())
        with self._lock:
            self._loop.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._connection is not None:
            await self._connection.close(timeout=2)

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            if self._loop.is_closed():
                call.close()
                raise RetriableError(f"{self._address.shown}: the connection is closed", connector="postgres")
            task: asyncio.Task[T] = self._loop.create_task(call)
            self._task = task
        try:
            result: T = self._loop.run_until_complete(task)
        except asyncio.CancelledError as error:
            raise interrupted(RuntimeError(str(error))) from error
        except (KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:
            raise failure(error, self._address, is_lost=self._connection.is_closed()) from error
        finally:
            with self._lock:
                self._task = None
        return result


def _gathered(blocks: Iterator[pa.RecordBatch | Block]) -> Iterator[Block]:
    """Join small blocks into large ones: each block costs one turn of the event loop."""
    held: list[Block] = []
    size = 0
    for block in blocks:
        assert not isinstance(block, pa.RecordBatch)
        if size + len(block) >= BLOCK_BYTES:
            if held:
                yield b"".join(held)
                held, size = [], 0
            if len(block) >= BLOCK_BYTES // 2:
                yield block
                continue
        held.append(block)
        size += len(block)
    if held:
        yield b"".join(held)


async def _take(queue: asyncio.Queue[T | Exception]) -> T:
    """Wait for the next block or row; raise it if it is an error."""
    found = await queue.get()
    if isinstance(found, Exception):
        raise found
    return found


def _drain(queue: asyncio.Queue[Any]) -> None:
    while not queue.empty():
        queue.get_nowait()


async def _result(copying: asyncio.Task[str]) -> str:
    return await copying


def _arguments(address: PostgresAddress) -> dict[str, Any]:
    parameters = {name: value for name, value in address.parameters.items() if name not in SOCKET_PARAMETERS}
    timeout = parameters.pop("connect_timeout", "")
    settings = {"application_name": parameters.pop("application_name", "syncblocks")}
    plain = PostgresAddress(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password,
        dbname=address.dbname,
        parameters=parameters,
    )
    return {
        # libpq's parameters for TLS work only in a DSN.
        "dsn": plain.uri(application_name=False, is_libpq=False),
        "server_settings": settings,
        "timeout": float(timeout) if timeout.isdigit() and int(timeout) else float(CONNECT_TIMEOUT_S),
    }


def _named(name: str) -> str:
    """Refuse names that cannot be quoted; asyncpg itself doubles the quotes."""
    quote(name)
    return name


def _checked(sql: str) -> str:
    if "\0" in sql:
        raise FatalConnectorError("a statement holds a NUL", connector="postgres")
    return sql


__all__ = ["AsyncpgSession", "connect"]
