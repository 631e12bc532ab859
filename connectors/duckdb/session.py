"""One DuckDB cursor as a `Session`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from itertools import pairwise
from typing import Any

import duckdb
import numpy  # imported by duckdb
import pyarrow as pa
from msgspec import Struct

from ..arrow.batches import FETCH_RECORDS, even_batches
from ..errors import FatalConnectorError, Interrupted, TakenOver
from ..failpoints import failpoint
from ..sql.identifiers import LEDGER_TABLE, SEQUENCE, STAGING_PREFIX, TableName, literal, quote
from ..stream import Block
from .database import WIDE, DuckDBInstance, sort_error
from .pieces import Pieces
from .unfinished import add_mark, delete_unfinished, drop_mark

#: Name of a load's batches in SQL; each cursor has its own name.
_INCOMING = "_syncblocks_incoming"

#: Seconds that a wait for the commit lock lasts before it checks for an interrupt.
_LOCK_POLL_S = 0.1

#: Schema and name of every table with a constraint.
_CONSTRAINED = (
    "select list(distinct [lower(schema_name), lower(table_name)]) from duckdb_constraints() "
    "where database_name = current_database() and constraint_type <> 'NOT NULL'"
)

#: Attempts to run an interrupted statement at the end of a transaction.
_TRIES = 3

#: No record has this position.
_NO_END = (1 << 63) - 1


class Described(Struct, frozen=True, kw_only=True):
    """The catalog entry of one table or view."""

    #: Name, type, and whether it is NOT NULL.
    columns: Sequence[tuple[str, str, bool]]
    #: A table without a primary key, without defaults and without computed columns.
    is_plain: bool


class DuckDBSession:
    """A cursor with one transaction at a time; implements `ReadSession`.

    Records go to staging tables first, without a lock. `lock` begins the part that only one load may run at a time:
    target, ledger, commit.
    """

    def __init__(self, database: DuckDBInstance, cursor: Any) -> None:
        self._database = database
        self._cursor = cursor
        self._holds_lock = False
        self._is_begun = False
        self._is_cancelled = False
        self._has_more_memory = False
        #: Committed staging tables, always dropped at the end of the transaction.
        self._settled: list[str] = []
        #: Staging tables of which a piece was committed.
        self._published: set[str] = set()
        #: Memory that the transaction's staged records need for their insert into the target.
        self._staged_bytes = 0
        #: `_staged_bytes` exceeds the memory of a load: the commit writes everything to the file.
        self._is_wide = False
        #: Staging tables -> number of the next record; None: not numbered.
        self._numbers: dict[TableName, int | None] = {}
        #: Staging tables -> number of records at the end of each piece.
        self._ends: dict[TableName, list[int]] = {}
        #: Committed pieces are only in the log: another load prevents the checkpoint.
        self._has_pending = False
        #: The quoted table whose new records are marked until the commit.
        self._marked = ""
        #: Name of the file's catalog: full names need it, since a schema may have the same name.
        self.catalog = str(self.query("select current_database()")[0][0])

    def begin(self) -> None:
        """Start a transaction; its first statement takes the snapshot."""
        self._is_cancelled = False
        self._run("begin transaction")
        self._is_begun = True

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement; return how many records it changed."""
        try:
            cursor = self._run(sql, parameters)
        except FatalConnectorError as error:
            if f"Table with name {LEDGER_TABLE} does not exist" in str(error):
                raise TakenOver(str(error), connector="duckdb") from error
            raise
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row and isinstance(row[0], int) else 0

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a small result."""
        try:
            return list(self._run(sql, parameters).fetchall())
        except duckdb.Error as error:
            raise sort_error(error, self._database.path) from error

    def demand_select(self, sql: str) -> None:
        """Parse a text that must be exactly one SELECT.

        Raises:
            FatalConnectorError: it is not.
        """
        try:
            found = [statement.type for statement in self._cursor.extract_statements(sql)]
        except duckdb.Error as error:
            raise sort_error(error, self._database.path) from error
        if found != [duckdb.StatementType.SELECT]:
            raise FatalConnectorError("it is not one SELECT", connector="duckdb")

    def records(self, sql: str) -> list[dict[str, Any]]:
        """Return all rows of a small result, as dicts by column name."""
        try:
            cursor = self._run(sql)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        except duckdb.Error as error:
            raise sort_error(error, self._database.path) from error

    def describe(self, table: TableName) -> Described | None:
        """Read a table's columns from its own catalog entry; None: there is no such table or view.

        A statement on a missing table would end the transaction; a relation does not.
        """
        full = self._full(table)
        try:
            rows = self._cursor.sql(f"from pragma_table_info({literal(full)})").fetchall()
            is_table = self._cursor.table(full).type == "TABLE_RELATION"
        except duckdb.CatalogException as error:
            first = str(error).partition(" does not exist")
            if first[1] and table.name in first[0]:
                return None  # the table, or its schema; a view may refer to another missing table
            raise sort_error(error, self._database.path) from error
        except (duckdb.Error, RuntimeError, UnicodeError) as error:
            raise sort_error(error, self._database.path) from error
        return Described(
            columns=[(str(name), str(kind), bool(is_required)) for _, name, kind, is_required, _, _ in rows],
            is_plain=is_table and all(default is None and not is_key for *_, default, is_key in rows),
        )

    def has_constraints(self, table: TableName) -> bool:
        """Return whether a table has a constraint besides NOT NULL; a table that foreign keys refer to has one."""

        def ask() -> Iterable[tuple[str, str]]:
            ((places,),) = self.query(_CONSTRAINED)
            return ((schema, name) for schema, name in places or ())

        return self._database.constrained.has(table.schema, table.name, ask)

    def fetch(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Yield a result in batches, from one snapshot."""
        try:
            relation = self._cursor.sql(sql)
            # DuckDB 1.4 calls it `fetch_arrow_reader`.
            start = getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader
            reader = start(FETCH_RECORDS)
            try:
                yield from even_batches(reader)
            finally:
                reader.close()
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise sort_error(error, self._database.path) from error

    def ingest(self, table: TableName, schema: pa.Schema, data: Iterator[pa.RecordBatch | Block], wire: str) -> int:
        """Append the batches to the named columns of a table."""
        names = list(schema.names)
        number = self._next_number(table)
        if number is not None:
            schema = schema.append(pa.field(SEQUENCE, pa.int64()))
            data = self._numbered(table, schema, data)
            names.append(SEQUENCE)
        listed = ", ".join(quote(name) for name in names)
        into = self._full(table)
        # In the view of `register`, names would have to be unique ignoring case.
        places = [f"c{place}" for place in range(len(names))]
        plain = pa.schema([pa.field(place, field.type) for place, field in zip(places, schema, strict=True)])
        sql = f"insert into {into} ({listed}) select {', '.join(places)} from {_INCOMING}"
        is_cut = self._database.cuts_pieces and table.name.startswith(STAGING_PREFIX) and not self._holds_lock
        pieces = Pieces(map(_arrow, data), plain, self._database, is_cut=is_cut)
        ends = self._ends.setdefault(table, [])
        before, count = ends[-1] if ends else 0, 0
        if pieces.is_wide():
            self._commit_staging(into)
            count = self._insert_collected(sql, plain, pieces)
        else:
            count = self._insert(sql, plain, pieces.piece())
        ends.append(before + count)
        while pieces.has_more():
            self._publish(into, pieces)
            added = self._insert_collected(sql, plain, pieces)
            if added:
                count += added
                ends.append(before + count)
        self._staged_bytes = max(self._staged_bytes, pieces.whole_bytes)
        return count

    def _insert(self, sql: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> int:
        try:
            self._cursor.register(_INCOMING, pa.RecordBatchReader.from_batches(schema, batches))
            try:
                return self.execute(sql)
            finally:
                with suppress(duckdb.Error):
                    self._cursor.unregister(_INCOMING)
        except duckdb.Error as error:
            raise sort_error(error, self._database.path) from error

    def _insert_collected(self, sql: str, schema: pa.Schema, pieces: Pieces) -> int:
        """Collect a piece outside of a transaction: an open one would block the checkpoint of another load."""
        batches = list(pieces.piece())
        if not batches:
            return 0
        self._acquire()
        batches.reverse()
        count = self._insert(sql, schema, (batches.pop() for _ in range(len(batches))))
        if not pieces.has_more():
            self._unlock()
        return count

    def _commit_staging(self, into: str) -> None:
        """Commit a staging table before its first piece is collected."""
        if into not in self._settled:
            self._settled.append(into)
        self._run("commit")
        self._run("begin transaction")

    def _publish(self, into: str, pieces: Pieces) -> None:
        """Commit a piece of a staging table and have it written to the file, which frees its memory."""
        is_first, has_pending = into not in self._published, pieces.has_pending
        self._published.add(into)
        if into not in self._settled:
            self._settled.append(into)
        if not self._holds_lock and not self._acquire_now():
            has_pending = True
            self._run("commit")
            self._acquire()
            self._run("begin transaction")
            self._run(f"comment on table {into} is '{WIDE}'")  # only transactions with changes are checkpointed
        pieces.note_commit(is_checkpointed=self._write_through(has_pending=has_pending))
        if is_first:
            self._run(f"comment on table {into} is '{WIDE}'")
        self._run("begin transaction")
        self._unlock()

    def _write_through(self, *, has_pending: bool) -> bool:
        """Commit, and return whether everything is in the file itself."""
        with self._database.writing_through(has_pending=has_pending):
            self._run("commit")
        left = self.query("select wal_size from pragma_database_size() where database_name = $1", (self.catalog,))
        return left == [("0 bytes",)]

    def commit(self) -> None:
        """Commit, and allow other loads to write."""
        try:
            # The log would have copies of wide records, and need as much memory when the file is next opened.
            with self._database.writing_through(has_pending=self._has_pending) if self._is_wide else nullcontext():
                self._run("commit")
            self._settled.clear()
            if self._marked:
                self._marked, self._database.has_unfinished = "", False
        finally:
            self._forget()
            if not self._settled:
                self._unlock()

    def _forget(self) -> None:
        self._is_begun = False
        self._staged_bytes, self._is_wide, self._has_pending = 0, False, False
        self._numbers.clear()
        self._ends.clear()
        self._published.clear()

    def rollback(self) -> None:
        """End the transaction; drop committed staging tables, and delete the records of an unfinished append."""
        try:
            if self._is_begun:
                self._is_begun = False
                with suppress(duckdb.TransactionException):  # a failed COMMIT has ended it already
                    self._execute_again("rollback")
            self._forget()
            if self._marked:
                self._marked = ""
                self._delete_unfinished()
            while self._settled:
                self._execute_again(f"drop table if exists {self._settled[-1]}")
                self._settled.pop()
        except duckdb.Error as error:
            raise sort_error(error, self._database.path) from error
        finally:
            self._unlock()

    def _execute_again(self, statement: str) -> None:
        """Execute a statement that a late interrupt must not stop: an interrupt hits any running statement."""
        for _ in range(_TRIES):
            with suppress(duckdb.InterruptException):
                self._cursor.execute(statement)
                return
        self._cursor.execute(statement)

    def cancel(self) -> None:
        """Make the running statement, or the wait for the lock, fail soon."""
        self._is_cancelled = True
        with suppress(duckdb.Error):
            self._cursor.interrupt()

    def close(self) -> None:
        """Close the cursor; with the last one of a closed connector the file is unlocked."""
        self._unlock()
        self._database.release(self._cursor)

    # ------------------------------------------------------------- only in DuckDB
    def lock(self, staging: str = "") -> None:
        """Wait until no other load writes to targets and ledgers of this file, and see their commits.

        Args:
            staging: the quoted staging table of the transaction, if any; it is committed.
        """
        if self._holds_lock:
            return
        if staging:
            self._settled.append(staging)
        is_alone = self._acquire_now()
        self._run("commit")
        if not is_alone:
            self._acquire()
        if self._database.has_unfinished:
            self._delete_unfinished()
        self._is_wide = self._database.cuts_pieces and self._database.lacks(self._staged_bytes)
        if self._is_wide and self._database.can_lift_limit:
            self.lift_memory_limit()
        self._run("begin transaction")

    def lift_memory_limit(self) -> None:
        """Allow a merge the memory of the settings until the end of the transaction."""
        self._has_more_memory = True
        self.execute(self._database.lift_limit())

    def spans(self, staging: TableName, *, is_indexed: bool = False) -> list[tuple[int, int]]:
        """Return the ranges of staged records to insert one after the other; empty: all at once.

        Each range is the number of its first record and the first number of the next range. Some versions of DuckDB
        cannot write a table with an index in pieces.
        """
        ends = self._ends.get(staging, [])
        if is_indexed and not self._database.cuts_indexed_pieces:
            return []
        if not self._is_wide or len(ends) < 2 or self._database.holds(self._staged_bytes):
            return []
        return list(pairwise([0, *ends[:-1], _NO_END]))

    def begin_move(self, table: TableName, *, is_marked: bool) -> None:
        """Prepare a table for pieces; marked records are deleted unless `commit` follows."""
        into = self._full(table)
        if is_marked:
            self._run(add_mark(into))
            self._marked, self._database.has_unfinished = into, True
        ((comment,),) = self.query(
            "select comment from duckdb_tables() where database_name = $1 and lower(schema_name) = lower($2) "
            "and lower(table_name) = lower($3)",
            (self.catalog, table.schema, table.name),
        )
        if not str(comment or "").endswith(WIDE):
            self._run(f"comment on table {into} is {literal(f'{comment}; {WIDE}' if comment else WIDE)}")

    def commit_piece(self) -> None:
        """Commit a piece and write it to the file; other loads still may not write."""
        failpoint("duckdb.piece.inside")
        self._has_pending = not self._write_through(has_pending=self._has_pending)
        failpoint("duckdb.piece.after")
        self._run("begin transaction")

    def end_move(self) -> None:
        """Drop the mark: after the commit the new records stay."""
        if self._marked:
            self._run(drop_mark(self._marked))

    def _delete_unfinished(self) -> None:
        try:
            delete_unfinished(self._cursor)
        except duckdb.Error as error:
            raise sort_error(error, self._database.path) from error
        self._database.has_unfinished = False

    def execute_alone(self, sql: str, parameters: Sequence[Any]) -> int:
        """Run a statement outside of a transaction while no commit runs; return how many records it changed."""
        self._acquire()
        try:
            return self.execute(sql, parameters)
        finally:
            self._database.constrained.forget()
            self._unlock()

    def _full(self, table: TableName) -> str:
        return f"{quote(self.catalog)}.{quote(table.schema)}.{quote(table.name)}"

    def _acquire_now(self) -> bool:
        """Take the commit lock if it is free.

        A load that waits for the lock commits its staging table first. Its open transaction would stop the other load
        from writing pieces to the file, and memory may have room for one piece only.
        """
        self._holds_lock = self._database.commit_lock.acquire(blocking=False)
        return self._holds_lock

    def _acquire(self) -> None:
        while not self._database.commit_lock.acquire(timeout=_LOCK_POLL_S):
            if self._is_cancelled:
                raise Interrupted("the wait for another commit was interrupted", connector="duckdb")
        self._holds_lock = True

    def _run(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        try:
            return self._cursor.execute(sql, list(parameters)) if parameters else self._cursor.execute(sql)
        except (duckdb.Error, RuntimeError, UnicodeError) as error:  # the latter two: text that is not Unicode
            raise sort_error(error, self._database.path) from error

    def _unlock(self) -> None:
        if self._holds_lock:
            self._holds_lock = False
            if self._has_more_memory:
                self._has_more_memory = False
                with suppress(duckdb.Error):  # some memory is in use: the end of the next merge tries again
                    self._database.restore_limit()
            self._database.commit_lock.release()

    def _next_number(self, table: TableName) -> int | None:
        """Return the number of the next record of a numbered staging table; None: it is not numbered."""
        if table not in self._numbers:
            described = self.describe(table)
            is_numbered = described is not None and any(name == SEQUENCE for name, *_ in described.columns)
            self._numbers[table] = 0 if is_numbered else None
        return self._numbers[table]

    def _numbered(
        self, table: TableName, schema: pa.Schema, data: Iterator[pa.RecordBatch | Block]
    ) -> Iterator[pa.RecordBatch]:
        """Number records here: DuckDB reads batches with several threads, in no fixed order."""
        for batch in map(_arrow, data):
            start = self._numbers[table] or 0
            self._numbers[table] = start + batch.num_rows
            places = numpy.arange(start, start + batch.num_rows, dtype=numpy.int64)
            numbers = pa.Array.from_buffers(pa.int64(), batch.num_rows, [None, pa.py_buffer(places)])
            yield pa.RecordBatch.from_arrays([*batch.columns, numbers], schema=schema)


def _arrow(item: pa.RecordBatch | Block) -> pa.RecordBatch:
    if not isinstance(item, pa.RecordBatch):
        raise FatalConnectorError("DuckDB accepts only Arrow batches", connector="duckdb")
    return item


__all__ = ["DuckDBSession"]
