"""One DuckDB instance for each file and process, shared by all its sources and destinations.

DuckDB locks the file for the process; all connections within the process are cursors of one instance. The last
connector that closes ends the instance and its lock: only then can another process (a callback) open the file.
"""

from __future__ import annotations

import re
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb

from ..database_files import add_user
from ..errors import (
    ConnectorConfigError,
    ConnectorError,
    FatalConnectorError,
    Interrupted,
    RetriableError,
    UniqueViolated,
)
from ..local_files import demand_folder
from .settings import MEMORY_LIMIT, MEMORY_LIMIT_BYTES, DuckDBSettings
from .unfinished import MARK, delete_unfinished

#: Lifts the limit for a merge until the session releases the commit lock.
MORE_MEMORY = "reset global memory_limit"

#: From this version, an append after a checkpoint begins a new row group.
_PIECES_SINCE = (1, 5, 3)

#: From this version, tables have triggers.
_TRIGGERS_SINCE = (2, 0, 0)

#: From this version, tables with an index too; DuckDB 1.5 runs out of memory in the checkpoint.
_INDEXED_PIECES_SINCE = (2, 0, 0)

#: Size of the pieces in which wide records are staged, or a quarter of a smaller budget.
_PIECE_BYTES = 48_000_000

#: Units in which DuckDB shows its limit; each is 1,024 of the previous one.
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

#: Number of copies of a wide record that one transaction has in memory at its end.
_COPIES = 3

#: Comment on tables with wide records: a checkpoint would join their row groups, with all of them in memory.
WIDE = "has short row groups, since its records are wide: SET max_vacuum_tasks = 0 keeps checkpoints from joining them"

_DAMAGED = (
    "it is damaged or incomplete, for example after a full disk or a copy during a write: use an earlier copy, or "
    "export the readable part with DuckDB"
)

#: DuckDB's message about a file that it cannot read -> remedy.
_WAYS_OUT = {
    "we can only read storage versions": "a newer DuckDB has written it: install that version here (`pip install -U "
    "duckdb`), or copy the tables with it into a new file (`ATTACH 'new.duckdb' "
    "(STORAGE_VERSION 'v1.0.0'); COPY FROM DATABASE`)",
    "encrypted database": "encrypted files are not supported: copy the tables into an unencrypted file (`ATTACH "
    "'plain.duckdb'; COPY FROM DATABASE`)",
    "sqlite_scanner": "it is a SQLite database: use `connector: sqlite`",
    "Corrupt database file": _DAMAGED,
    "Could not read enough bytes": _DAMAGED,
}

_registry: weakref.WeakValueDictionary[Path, DuckDBInstance] = weakref.WeakValueDictionary()
_registry_lock = threading.Lock()


def open_database(path: Path) -> DuckDBInstance:
    """Return this process's database of a file, without opening it."""
    real = path.resolve()
    with _registry_lock:
        database = _registry.get(real)
        if database is None:
            database = _registry[real] = DuckDBInstance(path)
            add_user(database, path)
        return database


class ConstrainedTables:
    """Tables that have a constraint, read once: DuckDB lists the constraints of all tables.

    No other process can write the open file, and our own statements add only primary keys. Call `forget` after each
    user's statement.
    """

    def __init__(self) -> None:
        self._places: frozenset[tuple[str, str]] | None = None
        self._statements = 0

    def forget(self) -> None:
        """Read the constraints again at the next call."""
        self._statements += 1
        self._places = None

    def has(self, schema: str, name: str, ask: Callable[[], Iterable[tuple[str, str]]]) -> bool:
        """Return whether a table has a constraint; `ask` returns schema and name of all such tables, casefolded."""
        places, statements = self._places, self._statements
        if places is None:
            places = frozenset(ask())
            if statements == self._statements:
                self._places = places
        return (schema.casefold(), name.casefold()) in places


class DuckDBInstance:
    """The instance of one file: opened with the first cursor, closed with the last holder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Locked from the first write to a target or the ledger until the commit. DuckDB's own transactions detect
        #: conflicts only at the end and fail; two updates of different columns of one row are no conflict at all, so
        #: that two owners could write one ledger row.
        self.commit_lock = threading.Lock()
        self._lock = threading.Lock()
        self._root: Any = None
        self._is_read_only = False
        self._holders: weakref.WeakSet[object] = weakref.WeakSet()
        self._writers: weakref.WeakSet[object] = weakref.WeakSet()
        self._cursors = 0
        #: DuckDB's `memory_limit` for reading and staging records, and for merges (empty: DuckDB's default).
        self.memory_limit = MEMORY_LIMIT
        self.merge_memory_limit = ""
        self._budget_bytes = 0
        self._limit_bytes = MEMORY_LIMIT_BYTES
        #: The user's own limit; 0: none.
        self._set_bytes = 0
        #: An append uses several transactions, or an unfinished one could not be deleted; `commit_lock` guards it.
        self.has_unfinished = False
        #: A merge has more memory than this.
        self._is_lifted = False
        #: See `ConstrainedTables`.
        self.constrained = ConstrainedTables()

    def limit_memory(self, size_bytes: int, *, is_strict: bool) -> None:
        """Limit the instance's memory to this size; a strict limit also applies to merges."""
        self._limit_bytes = min(size_bytes, MEMORY_LIMIT_BYTES)
        self.memory_limit = f"{self._limit_bytes}B"
        self.merge_memory_limit = f"{size_bytes}B" if is_strict else ""
        self._budget_bytes = size_bytes

    def ensure_memory(self, size_bytes: int, *, most_bytes: int = 0, is_bounded: bool = False) -> None:
        """Raise the limit, for records that need more memory than most.

        Args:
            size_bytes: memory that they need.
            most_bytes: maximum of the new limit, or the budget if that is higher.
            is_bounded: also apply a budget that is not strict.
        """
        with self._lock:
            if self._root is None or self._set_bytes:
                return
            if self._budget_bytes and (is_bounded or self.merge_memory_limit):
                size_bytes = min(size_bytes, max(self._budget_bytes, most_bytes))
            if size_bytes <= self._limit_bytes:
                return
            self._limit_bytes = size_bytes
            self.memory_limit = f"{size_bytes}B"
            if not self._is_lifted:
                self._root.execute(f"set global memory_limit = '{self.memory_limit}'")

    def lacks(self, size_bytes: int) -> bool:
        """Return whether a size exceeds the memory of loads."""
        with self._lock:
            return size_bytes > (self._set_bytes or self._limit_bytes)

    def holds(self, size_bytes: int) -> bool:
        """Return whether one transaction may use this much memory, by the user's limit or else the budget."""
        with self._lock:
            most_bytes = self._set_bytes or (self._budget_bytes and max(self._budget_bytes, self._limit_bytes))
            return not most_bytes or _COPIES * size_bytes <= most_bytes

    @property
    def can_lift_limit(self) -> bool:
        """Return whether the limit may be lifted: the user has set none."""
        return not self._set_bytes

    def lift_limit(self) -> str:
        """Return the statement that gives a merge its memory; no load changes the limit until `restore_limit`."""
        with self._lock:
            self._is_lifted = True
            most_bytes = max(self._budget_bytes, self._limit_bytes)
        return f"set global memory_limit = '{most_bytes}B'" if self.merge_memory_limit else MORE_MEMORY

    def restore_limit(self) -> None:
        """Restore the limit after `lift_limit`; raises if too much memory is still in use."""
        with self._lock:
            self._is_lifted = False
            if self._root is not None:
                self._root.execute(f"set global memory_limit = '{self.memory_limit}'")

    @property
    def cuts_pieces(self) -> bool:
        """Return whether this version can stage wide records in pieces."""
        return _version() >= _PIECES_SINCE

    @property
    def cuts_indexed_pieces(self) -> bool:
        """Return whether it writes each piece of a table with an index to the file."""
        return _version() >= _INDEXED_PIECES_SINCE

    @property
    def piece_bytes(self) -> int:
        """Size in bytes of wide records for one commit."""
        most_bytes = self._set_bytes or (self._budget_bytes if self.merge_memory_limit else 0)
        return min(_PIECE_BYTES, most_bytes // 4) if most_bytes else _PIECE_BYTES

    @contextmanager
    def writing_through(self, *, has_pending: bool) -> Iterator[None]:
        """Make the commit inside this context write its piece to the file; the caller holds `commit_lock`.

        Args:
            has_pending: earlier pieces were committed but not checkpointed. Then this piece goes to the log as well: a
                checkpoint of all pieces may run out of memory, and DuckDB then ends for good.
        """
        settings = ["checkpoint_threshold = '1B'"]
        if not has_pending:
            settings.append("auto_checkpoint_skip_wal_threshold = 0")
        with self._lock:
            self._root.execute("set global max_vacuum_tasks = 0")
            for setting in settings:
                self._root.execute(f"set global {setting}")
        try:
            yield
        finally:
            with self._lock:
                for setting in settings:
                    self._root.execute(f"reset global {setting.partition(' ')[0]}")

    def threads(self) -> int:
        """Return how many threads the instance has."""
        with self._lock:
            return int(self._root.execute("select current_setting('threads')").fetchone()[0])

    def add_writer(self, writer: object) -> None:
        """Note that a destination on this file exists: sources then open it for writing too."""
        self._writers.add(writer)

    def cursor(self, holder: object, settings: DuckDBSettings, *, is_writer: bool) -> Any:
        """Open the file if needed and return a new cursor for one session; the caller calls `release`."""
        with self._lock:
            needs_writing = is_writer or bool(self._writers)
            if self._root is not None and self._is_read_only and needs_writing and not self._cursors:
                self._end()
            if self._root is None:
                self._root = _connect(self.path, settings, self.memory_limit, read_only=not needs_writing)
                self._is_read_only = not needs_writing
                self._set_bytes = 0 if settings.memory_limit is None else _limit_bytes(self._root)
            elif self._is_read_only and is_writer:
                raise RetriableError(
                    f"this process has {self.path} open read-only; it can write the file when that is closed"
                )
            if not is_writer and not settings.external_access:
                # Views in an unknown file must not read files that this process can read.
                self._root.execute("set global enable_external_access = false")
            self._holders.add(holder)
            self._cursors += 1
            return self._root.cursor()

    def release(self, cursor: Any) -> None:
        """Close a session's cursor."""
        with self._lock:
            cursor.close()
            self._cursors -= 1
            self._end_if_unused()

    def let_go(self, holder: object) -> None:
        """Note that a connector was closed; after the last connector and its sessions, unlock the file."""
        with self._lock:
            self._holders.discard(holder)
            self._end_if_unused()

    def _end_if_unused(self) -> None:
        if not self._cursors and not self._holders:
            self._end()

    def _end(self) -> None:
        if self._root is not None:
            root, self._root = self._root, None
            self.constrained.forget()
            root.close()


def configuration(settings: DuckDBSettings, memory_limit: str = MEMORY_LIMIT) -> dict[str, Any]:
    """Return the settings of the instance; every connector on this file in this process must use the same."""
    config: dict[str, Any] = {
        "memory_limit": settings.memory_limit or memory_limit,
        "preserve_insertion_order": False,
        # Views in an unknown file must not load extensions over the network.
        "autoinstall_known_extensions": False,
    }
    return config if settings.threads is None else {**config, "threads": settings.threads}


def _connect(path: Path, settings: DuckDBSettings, memory_limit: str, *, read_only: bool) -> Any:
    try:
        if not read_only:
            demand_folder(path)
            if not path.exists():
                _make(path)
        root = duckdb.connect(str(path), read_only=read_only, config=configuration(settings, memory_limit))
        is_file = "select path is not null from duckdb_databases() where database_name = current_database()"
        if root.execute(is_file).fetchone() != (True,):
            root.close()
            raise _no_database(path)
        root.execute("set global TimeZone = 'UTC'")
        # Off: otherwise DuckDB looks for a missing table among our Python variables.
        root.execute("set global python_enable_replacements = false")
        found = "select 1 from duckdb_tables() where ends_with(comment, $1) or contains(sql, $2)"
        if not read_only and root.execute(found, [WIDE, MARK]).fetchone():
            root.execute("set global max_vacuum_tasks = 0")
            delete_unfinished(root)
    except OSError as error:
        raise ConnectorConfigError(f"{path} cannot be created: {error.strerror}", key="path") from error
    except duckdb.Error as error:
        raise sort_error(error, path) from error
    return root


def _make(path: Path) -> None:
    """Create a file atomically: after a full disk or a kill, DuckDB could leave a file that it cannot open."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.new")
    try:
        duckdb.connect(str(draft)).close()
        # Another process may have created it first; if the file system has no links, DuckDB creates it in place.
        with suppress(OSError):
            path.hardlink_to(draft)
    except duckdb.Error as error:
        raise type(error)(str(error).replace(draft.name, path.name)) from error
    finally:
        draft.unlink(missing_ok=True)


def _no_database(path: Path) -> ConnectorConfigError:
    """Return the error for a CSV, JSON or Parquet file, which DuckDB opens as views of a database in memory."""
    return ConnectorConfigError(
        f"{path} is a data file, not a DuckDB database: DuckDB would keep the written records in memory only. Use "
        "the connector of its format (csv, json, jsonl or parquet), or name another file",
        connector="duckdb",
        key="path",
    )


def has_triggers() -> bool:
    """Return whether this version of DuckDB has triggers."""
    return _version() >= _TRIGGERS_SINCE


def _version() -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", duckdb.__version__)[:3]))


def _limit_bytes(root: Any) -> int:
    """Return the memory limit of an instance; DuckDB shows it as `244.1 MiB`, or without a fraction."""
    (text,) = root.execute("select current_setting('memory_limit')").fetchone()
    number, unit = text.split()
    return int(float(number) * 1024 ** _UNITS.index(unit))


def sort_error(error: BaseException, path: Path) -> ConnectorError:
    """Turn a driver's error into one that tells the caller what to do."""
    text = str(error).strip()
    first = text.partition("\n")[0]
    if isinstance(error, duckdb.InterruptException):
        return Interrupted("the statement was interrupted", connector="duckdb")
    if path.is_dir():
        return ConnectorConfigError(f"{path} is a folder: name a file in it", connector="duckdb", key="path")
    if "Could not set lock on file" in text or "being used by another process" in text:
        return RetriableError(
            f"{path} is locked: another process has opened it ({first}); close that process, since DuckDB allows "
            "only one writer",
            connector="duckdb",
        )
    if "same database file with a different configuration" in text:
        return RetriableError(f"{path} is open elsewhere in this process, differently configured", connector="duckdb")
    if "Cannot launch in-memory database in read-only mode" in text:
        return _no_database(path)
    if isinstance(error, duckdb.TransactionException) and "onflict" in text:
        return RetriableError(f"{path}: {first}", connector="duckdb")
    if "not a valid DuckDB database file" in text or "Cannot open file" in text or "Cannot open database" in text:
        return ConnectorConfigError(f"{path} cannot be opened: {first}", connector="duckdb", key="path")
    if isinstance(error, duckdb.OutOfMemoryException) or "failed to pin block" in text:
        return FatalConnectorError(
            f"{first}; raise `memory` in the pipeline file, or memory_limit in the connector's config; `threads: 1` "
            "there takes less, and so do fewer records a commit (checkpoint_records of an INCREMENTAL source)",
            connector="duckdb",
        )
    for words, way_out in _WAYS_OUT.items():
        if words in text:
            return ConnectorConfigError(
                f"{path} cannot be read: {first.rstrip('.')}; {way_out}", connector="duckdb", key="path"
            )
    # Its errors have no codes.
    is_unique = isinstance(error, duckdb.ConstraintException) and "uplicate key" in text
    return (UniqueViolated if is_unique else FatalConnectorError)(text, connector="duckdb")
