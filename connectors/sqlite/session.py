"""One connection to a SQLite file through Python's own driver: it writes, and reads where `reader` must not."""

from __future__ import annotations

import shlex
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote as quote_url

import pyarrow as pa
import pyarrow.compute as pc

from .. import database_files
from ..arrow.batches import FETCH_RECORDS
from ..arrow.encoded_size import widest_values
from ..errors import (
    ConnectorConfigError,
    ConnectorError,
    FatalConnectorError,
    Interrupted,
    RetriableError,
    StatementRefused,
    TakenOver,
    UniqueViolated,
)
from ..field_facts import facts_of
from ..local_files import demand_folder, sqlite_files, unwritable
from ..named_parameters import placed
from ..sql.identifiers import LEDGER_TABLE, TableName, quote
from ..stream import Block
from .encode import refuse_numbers, stored
from .types import StorageForm, kind_of

T = TypeVar("T")

#: How long one wait for a lock lasts before it looks whether it was interrupted.
POLL_S = 0.1

#: What the reader's driver puts before SQLite's own words.
_PREFIXES = (
    "INTERNAL: ",
    "IO: ",
    "INVALID_ARGUMENT: ",
    "[SQLite] ",
    "Failed to step query: ",
    "Failed to prepare query: ",
)

#: SQLite's words where its file cannot grow; the second stands for other faults of a disk as well.
_NO_ROOM = ("database or disk is full", "disk I/O error")

#: Less than SQLite needs for a log and its index, however small the commit.
_LITTLE_BYTES = 1 << 16

#: So many records become Python's objects at once: their memory is used again by the next ones while it is in the
#: processor's cache. All of a batch would be given back to the system each time, and asked for anew.
_PIECE_RECORDS = 1000

#: A view of this connection alone is none of the file's.
_READS = ("select", "pragma", "explain", "create temp view ", "drop view temp.")

#: Locks of the files that this process writes. SQLite would poll for its own lock; a thread waits for these.
_write_locks: dict[Path, threading.Lock] = {}
_write_locks_lock = threading.Lock()


def _write_lock(path: Path) -> threading.Lock:
    with _write_locks_lock:
        return _write_locks.setdefault(path.resolve(), threading.Lock())


#: Where a file's header has 2 if its journal mode is WAL.
_WAL_VERSION_AT = 18


class SQLiteSession:
    """A connection with one transaction at a time; implements `ReadSession`.

    A transaction only reads until its first write; then it is begun anew as the file's one writer.
    """

    def __init__(self, path: Path, *, is_writer: bool, lock_timeout_s: float = 60.0) -> None:
        self._path = path
        self._lock_timeout_s = lock_timeout_s
        self._write_lock = _write_lock(path)
        self._is_begun = self._is_writing = self._holds_lock = self._is_cancelled = self._has_wal = False
        uri = f"file:{quote_url(str(path))}?mode={'rwc' if is_writer else 'ro'}"
        try:
            if is_writer:
                demand_folder(path)
            with database_files.opening(path):
                self._connection = sqlite3.connect(
                    uri, uri=True, timeout=POLL_S, isolation_level=None, check_same_thread=False
                )
        except sqlite3.Error as error:
            raise sort_error(error, path) from error
        # TEXT may hold any bytes; what is no UTF-8 must reach our own check.
        self._connection.text_factory = _text
        try:
            # The file's first page is read here: what is no database shows at once.
            self._read("select count(*) from sqlite_master")
            # A table is replaced by a rename: views that name it must neither stop that nor be rewritten.
            self._run("pragma legacy_alter_table = on")
        except ConnectorError:
            self.close()
            raise

    def begin(self) -> None:
        """Start a transaction."""
        self._is_cancelled = False
        self._run("begin")
        self._is_begun = True

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run one statement; return the records it changed."""
        if not is_reading(sql):
            self.write()
        return max(self._run(sql, parameters).rowcount, 0)

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a small result."""
        if not is_reading(sql):
            self.write()
        try:
            return self._read(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise sort_error(error, self._path) from error

    def fetch(self, sql: str, parameters: Sequence[Any] = (), records: int = FETCH_RECORDS) -> Iterator[pa.RecordBatch]:
        """Yield a result in batches, from one snapshot; each column has the type of its first value."""
        kinds: list[pa.DataType] | None = None
        cursor = self._read(sql, parameters)
        try:
            names = [column[0] for column in cursor.description]
            while rows := cursor.fetchmany(records):
                columns = list(zip(*rows, strict=True))
                kinds = kinds or [pa.array(column[:1]).type for column in columns]
                arrays = [_array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, names)
        except sqlite3.Error as error:
            raise sort_error(error, self._path) from error
        finally:
            cursor.close()

    def ingest(self, table: TableName, schema: pa.Schema, data: Iterator[pa.RecordBatch | Block], wire: str) -> int:
        """Append the batches to the named columns of a table."""
        self.write()
        names = list(schema.names)
        marks = ", ".join("?" for _ in names)
        listed = ", ".join(quote(name) for name in names)
        sql = f"insert into {quote(table.name)} ({listed}) values ({marks})"
        declared = {field.name: facts_of(field).column_type for field in schema}
        loose = [
            name for name, kind in declared.items() if (known := kind_of(kind)) and known.form is StorageForm.LOOSE_TEXT
        ]
        records = 0
        for batch in data:
            if not isinstance(batch, pa.RecordBatch):
                raise FatalConnectorError("SQLite accepts only Arrow batches", connector="sqlite")
            for name in loose:
                refuse_numbers(batch.column(names.index(name)), name, declared[name])
            columns = [stored(batch.column(place), name) for place, name in enumerate(names)]
            try:
                for first in range(0, batch.num_rows, _PIECE_RECORDS):
                    values = [_values(column.slice(first, _PIECE_RECORDS)) for column in columns]
                    self._connection.executemany(sql, zip(*values, strict=True))
                    del values  # the next piece takes its memory
            except sqlite3.DataError as error:
                most = self._connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)
                raise _too_large(names, columns, first, most) or sort_error(error, self._path) from error
            except (sqlite3.Error, UnicodeError, OverflowError) as error:
                raise sort_error(error, self._path) from error
            records += batch.num_rows
            del batch, columns  # not held while the next one is made
        return records

    def commit(self) -> None:
        """Commit, and let others write."""
        self._run("commit")
        self._is_begun = self._is_writing = False
        self._unlock()

    def rollback(self) -> None:
        """End the transaction, if there is one."""
        try:
            self._is_begun = self._is_writing = False
            if self._connection.in_transaction:  # after some errors (disk full) SQLite has rolled back by itself
                self._run("rollback")
        finally:
            self._unlock()

    def cancel(self) -> None:
        """Make the statement under way fail soon, or the wait for a lock."""
        self._is_cancelled = True
        with suppress(sqlite3.ProgrammingError):  # closed meanwhile
            self._connection.interrupt()

    def close(self) -> None:
        """Close the connection; the last one folds the write-ahead log into the file."""
        self._unlock()
        self._connection.close()

    # ------------------------------------------------------------- SQLite's own
    def write(self) -> None:
        """Become the one writer of the file, if not so already; reads made before in this transaction are out of date.

        Raises:
            RetriableError: another process wrote all the time.
        """
        if self._is_writing:
            return
        if self._is_begun:
            self._run("commit")
            self._is_begun = False
        self._acquire()
        self._use_wal()
        self._check()
        self._wait_for(lambda: self._run("begin immediate"))
        self._is_begun = self._is_writing = True

    def execute_alone(self, sql: str, parameters: Sequence[Any]) -> int:
        """Run a statement outside of a transaction, as the file's one writer; return the records it changed."""

        def run() -> int:
            cursor = self._run(sql, parameters)
            if cursor.description:
                cursor.fetchall()  # a SELECT does nothing before it is read
            return max(cursor.rowcount, 0)

        self._acquire()
        try:
            self._check()
            return self._wait_for(run)
        finally:
            self._unlock()

    def _acquire(self) -> None:
        while not self._write_lock.acquire(timeout=POLL_S):
            self._check()
        self._holds_lock = True

    def _use_wal(self) -> None:
        """Turn the write-ahead log on; where a reader prevents that, the next transaction tries again."""
        if not self._has_wal:
            with suppress(RetriableError):
                try:  # without `query`, which waits for the reader
                    self._has_wal = self._run("pragma journal_mode = wal").fetchone()[0] == "wal"
                except sqlite3.Error as error:
                    raise sort_error(error, self._path) from error

    def _read(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run a statement; a read waits while another connection locks the whole file, as to turn the log on."""
        if not is_reading(sql):
            return self._run(sql, parameters)
        return self._wait_for(lambda: self._run(sql, parameters))

    def _wait_for(self, attempt: Callable[[], T]) -> T:
        """Try an action that needs a lock of the file until no other connection has it."""
        deadline = time.monotonic() + self._lock_timeout_s
        while True:
            try:
                return attempt()
            except RetriableError:
                if time.monotonic() > deadline:
                    raise
            self._check()

    def _run(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        try:
            return self._connection.execute(*positional(sql, parameters))
        except (sqlite3.Error, UnicodeError, OverflowError) as error:
            raise sort_error(error, self._path) from error

    def _check(self) -> None:
        if self._is_cancelled:
            raise Interrupted("the call was interrupted", connector="sqlite")

    def _unlock(self) -> None:
        if self._holds_lock:
            self._holds_lock = False
            self._write_lock.release()


def positional(sql: str, parameters: Sequence[Any]) -> tuple[str, list[Any]]:
    """Turn `$n` into `?`, and the parameters into the order in which they are met."""
    values: list[Any] = []

    def mark(number: int) -> str:
        values.append(parameters[number - 1])
        return "?"

    return (placed(sql, mark), values) if parameters else (sql, values)


def is_reading(sql: str) -> bool:
    """Tell whether a statement leaves the file as it is."""
    return sql.lstrip().lower().startswith(_READS)


def _text(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Build a column; of another type than `kind` if a value is, as the driver of `reader` does."""
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError):
        return pa.nulls(len(values))


def _values(array: pa.Array) -> list[Any]:
    values: list[Any] = array.to_pylist()
    if pa.types.is_floating(array.type) and pc.any(pc.is_nan(array)).as_py():
        return ["NaN" if value != value else value for value in values]  # SQLite would make it NULL
    return values


def _too_large(
    names: Sequence[str], columns: Sequence[pa.Array], first: int, most_bytes: int
) -> FatalConnectorError | None:
    """Name the largest value of a piece with a record that SQLite does not take; None: there is no such record."""
    pieces = (column.slice(first, _PIECE_RECORDS) for column in columns)
    widest = {name: _widest(piece) for name, piece in zip(names, pieces, strict=True)}
    if sum(widest.values()) <= most_bytes:
        return None
    name = max(widest, key=widest.__getitem__)
    return FatalConnectorError(
        f"column {name!r}: a value of {widest[name]:,} bytes, but SQLite limits a record to {most_bytes:,} bytes: "
        "`on_rejected: keep` sets such records aside; or exclude the column with `columns`",
        connector="sqlite",
    )


def _widest(values: pa.Array) -> int:
    """Return the bytes of the longest text or blob; 0: they are numbers."""
    kind, types = values.type, pa.types
    if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        return int(pc.max(pc.binary_length(values)).as_py() or 0)
    return widest_values(values)


def sort_error(error: BaseException, path: Path) -> ConnectorError:
    """Turn a driver's error into one that says what to do."""
    text = str(error).strip()
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix)
    first = text.partition("\n")[0]
    if first == "interrupted":
        return Interrupted("the statement was interrupted", connector="sqlite")
    if "database is locked" in text or "table is locked" in text:
        return RetriableError(
            f"{path} is locked: another process writes it. `fuser {shlex.quote(str(path))}` shows the process: end "
            "it, or its transaction; if it only needs long, set `lock_timeout_s` of a destination higher",
            connector="sqlite",
        )
    if "file is not a database" in text or "failed to open" in text or "unable to open database" in text:
        words = f"{path} cannot be opened: {first}{_why_not_opened(path)}"
        if path.is_dir():
            words = f"{path} is a folder: name a file in it"
        return ConnectorConfigError(words, connector="sqlite", key="path")
    if first in _NO_ROOM:
        return StatementRefused(_no_room(error, first, path), connector="sqlite")
    if f"no such table: {LEDGER_TABLE}" in text:
        return TakenOver(first, connector="sqlite")
    is_refusal = isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError | sqlite3.DataError)
    if "readonly database" in first and (closed := unwritable(path, *sqlite_files(path))) is not None:
        first += f": this user has no permission to write to {closed}"
    sorted_as = StatementRefused if is_refusal else FatalConnectorError
    # ADBC has these words and no code.
    if first.startswith("UNIQUE constraint failed"):
        sorted_as = UniqueViolated
    result = sorted_as(f"{path}: {first}", connector="sqlite")
    if isinstance(result, UniqueViolated):
        result.table = first.partition(": ")[2].partition(".")[0]
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_CONSTRAINT_TRIGGER:
        result.raised_in = ("*",)
    return result


def _why_not_opened(path: Path) -> str:
    """Say what a file lacks that SQLite cannot open: it has the same words for all of it."""
    try:
        is_wal = database_files.first_bytes(path, _WAL_VERSION_AT + 1)[_WAL_VERSION_AT:] == b"\2"
    except FileNotFoundError:
        return f"; it does not exist, and cannot be created: may this user write to {path.parent}?"
    except OSError as error:
        return f"; {error.strerror}: may this user read it?"
    if not is_wal:
        return ""
    return (
        f". Its journal mode is WAL, so even a reader must create or open {path}-shm. Let this user write to the "
        "folder; or copy the file, and its -wal file if there is one, into a writable folder; or let its owner "
        "run `pragma journal_mode = delete`"
    )


def _no_room(error: BaseException, words: str, path: Path) -> str:
    """Name the file and the cause: SQLite says no more of a full disk than of a broken one."""
    name = error.sqlite_errorname if isinstance(error, sqlite3.Error) else ""
    # The index of the log is the first file to be made, and the only one that has errors of its own.
    file = f"{path}-shm" if "SHM" in name else str(path)
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:
        return f"{file}: {words} ({name})"
    kept = "this commit was not written"
    if free < _LITTLE_BYTES:
        return f"{file}: no space left on its disk ({free} bytes are free); {kept}, free some space"
    return (
        f"{file}: {words} ({name}); {kept}. Its disk has {free} free bytes: check for a quota, a file size limit, "
        "a full disk for temporary files (`SQLITE_TMPDIR`), or a disk fault"
    )


__all__ = ["SQLiteSession", "is_reading", "positional", "sort_error"]
