"""The Destination protocol for all SQL systems. A subclass adds a dialect and a way to connect."""

from __future__ import annotations

import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from ..arrow.fidelity import Kept
from ..errors import ConnectorError, FatalConnectorError, RetriableError, UniqueViolated
from ..field_facts import facts_of, with_facts, yields_to_table
from ..named_parameters import numbered
from ..protocols import Capability
from ..read_spec import Condition
from ..stream import (
    Block,
    Bookmark,
    Commit,
    Event,
    FileRead,
    LedgerKey,
    LedgerRow,
    Load,
    Stream,
    TableRecords,
    TableState,
)
from ..struct_helpers import replace
from ..write_spec import WriteDisposition
from .dialect.dialect import Dialect
from .dialect.tables import NO_SCHEMA
from .identifiers import CONVERTED_SUFFIX, HISTORY_SUFFIX, REMOVED, TableName, spellings, staging_name
from .ledger import AbstractLedger, Ledger, alone, commit
from .load.context import LoadContext
from .load.events import LoadEvents
from .load.load import TableLoad
from .load.target import limits
from .load.unfinished import LEDGER_SUFFIX, drop_unfinished, unfinished_loads
from .session import Session, SessionLease, Sessions
from .tables import Table

if TYPE_CHECKING:
    from ..ranges import RangeReads
    from .files_read import FilesRead

#: Up to this many tables, ledger rows are queried by name; the number of names in a statement is limited.
_MAX_SPELLED = 200


#: Remedy for an append that violates a unique index.
_NO_APPEND = (
    "table {!r} has a unique index, such as the one that a merge or a replace creates for its key, but an append "
    "writes each version of a record: use `write_disposition: merge`, run once with --full-refresh, which creates "
    "the table without this key, or let `on_rejected: keep` set such records aside"
)

_Targets = dict[TableName, WriteDisposition]


class SqlDestination(ABC):
    """Destination over `Session`s; every load is a chain of transactions, each with its ledger row."""

    has_ledger = True
    capabilities = frozenset(
        {
            Capability.KEEPS_FIRST,
            Capability.KEEPS_HISTORY,
            Capability.MARKS_RECORDS,
            Capability.REMOVES_RECORDS,
            Capability.REPLACES_RANGES,
            Capability.UPDATES_ONLY,
            Capability.FILLS_COLUMNS,
            Capability.MERGES_BY_UNIQUE,
        }
    )
    max_loads: int | None = None
    #: Name of the connector, for errors.
    connector: ClassVar[str]

    def __init__(self, dialect: Dialect, *, schema: str = "", creates_schemas: bool = True) -> None:
        self.dialect = dialect
        dialect.tables.creates_schemas = creates_schemas
        self._schema = schema
        self._ledger: AbstractLedger = Ledger(dialect)
        #: Ledgers known to exist; the next call recreates a dropped one.
        self._seen_ledgers: set[TableName] = set()
        self._sessions = Sessions(self.connect)

    # ------------------------------------------------------------ a subclass's
    @abstractmethod
    def connect(self) -> Session:
        """Open a connection."""

    @abstractmethod
    def identity(self) -> str:
        """Connector and place without credentials."""

    def load_sessions(self, load: Load, wire: str) -> Sessions:
        """Return the connections for a load; default: one pool for everything."""
        return self._sessions

    def statement_sessions(self) -> Sessions:
        """Return the connections for a user's statements."""
        return self._sessions

    def execute_alone(self, session: Session, sql: str, values: Sequence[Any]) -> int:
        """Run one statement outside of a transaction, as maintenance statements need it (VACUUM)."""
        return max(session.execute(sql, values), 0)

    def execute_within(self, session: Session, sql: str, values: Sequence[Any]) -> int:
        """Run one of the user's statements within the session's transaction."""
        return max(session.execute(sql, values), 0)

    def is_there(self) -> bool:
        """Return true if the database exists. A file that is missing in an existing folder is an empty destination."""
        return True

    @property
    def system(self) -> str:
        """The system's name, for messages."""
        return self.connector

    # ---------------------------------------------------------------- protocol
    def check(self) -> None:
        """Prove that it can be reached."""
        if self.is_there():
            with self._sessions.lease() as lease:
                lease.begin()
                lease.session.query("select 1")

    def describe(self, tables: Sequence[str]) -> Mapping[str, TableState]:
        """Return schema and ledger rows of each table, in a few round trips for all."""
        names = {table: self.target(table) for table in tables}
        if not tables or not self.is_there():
            own = self.dialect.naming.default_schema
            return {
                table: TableState() if name.schema in ("", own) else self._without_schema(name)
                for table, name in names.items()
            }
        ledgers = {self._ledger.table(name) for name in names.values()}
        with self._sessions.lease() as lease:
            lease.begin()
            found = self.dialect.catalog.reflect(lease.session, sorted({*names.values(), *ledgers}, key=str))
            rows = [
                row
                for ledger in sorted(ledgers, key=str)
                if ledger in found
                for row in self._ledger.read(lease.session, ledger, tables=self._spellings(names))
            ]
            by_table: dict[str, list[LedgerRow]] = {}
            for row in rows:
                by_table.setdefault(self.one_name(row.key.destination_table), []).append(row)
            in_doubt = {name for table, name in names.items() if _is_in_doubt(by_table.get(self.one_name(table), []))}
            asked = [found[name] for name in dict.fromkeys(names.values()) if name in found and name in in_doubt]
            schemas = {name.schema for name in names.values() if name not in found and name.schema}
            missing = {schema for schema in schemas if not self.dialect.tables.has_schema(lease.session, schema)}
            empty = {table.name for table in asked if table.is_table and self._is_empty(lease, table)}
            if len(names) == 1:  # the table of a stream that will write; asking for each table may take long
                found = {
                    name: replace(found[name], identity=self.dialect.catalog.identify(lease.session, found[name]))
                    for name in names.values()
                    if name in found
                }
        return {
            table: self._without_schema(name)
            if name.schema in missing
            else replace(self._state(found.get(name), by_table.get(self.one_name(table), [])), is_empty=name in empty)
            for table, name in names.items()
        }

    def rows_of(self, pipeline: str, tables: Sequence[str]) -> Sequence[LedgerRow]:
        """See `ListsLedger`."""
        ledgers = {self._ledger.table(self.target(table)) for table in tables}
        if not ledgers or not self.is_there():
            return ()
        with self._sessions.lease() as lease:
            lease.begin()
            return [
                row
                for ledger in sorted(ledgers, key=str)
                if self.dialect.catalog.exists(lease.session, ledger)
                for row in self._ledger.read(lease.session, ledger, pipeline=pipeline)
            ]

    def examine(self, table: str, key: Sequence[str], bookmark: Sequence[str]) -> TableRecords:
        """See `ExaminesTables`."""
        name, writes = self.target(table), self.dialect.writes
        with self._sessions.lease() as lease:
            lease.begin()
            session, found = lease.session, self.dialect.catalog.reflect(lease.session, [name]).get(name)
            if found is None:
                raise FatalConnectorError(f"table {table!r} is gone", connector=self.connector)
            unique = self.dialect.catalog.unique_keys(session, found)
            has_index = frozenset(key) in unique
            repeated = session.query(writes.repeated_key(name, key)) if key and not has_index else []
            if key and not repeated and session.query(writes.null_key(name, key)):
                repeated = [(None,) * len(key)]
            newest = session.query(writes.newest(found, bookmark)) if bookmark else []
            session.rollback()
        return TableRecords(
            newest=tuple(newest[0]) if newest else None,
            has_index=has_index,
            ambiguous=tuple(repeated[0]) if repeated else None,
            statement=self.dialect.tables.create_unique(name, key) if key else "",
            unique=tuple(sorted(tuple(sorted(columns)) for columns in unique if columns)),
        )

    def limits(self, destination_table: str, columns: Sequence[str]) -> Mapping[str, tuple[Any, Any]]:
        """See `ReadsLimits`."""
        name = self.target(destination_table)
        with self._sessions.lease() as lease:
            lease.begin()
            found = {column: limits(lease.session, self.dialect, name, column) for column in columns}
            lease.session.rollback()
        return {column: each for column, each in found.items() if each is not None}

    def keeps_rejected(self) -> str:
        """Keep them all."""
        return ""

    def keeps_latest(self, field: pa.Field) -> bool:
        """Compare in the database; each dialect has the SQL."""
        return True

    def drops_deleted(self, condition: Condition) -> bool:
        """Compare the written values; each dialect has the SQL."""
        return True

    def keeps(self, stream: Stream, table: TableState, disposition: WriteDisposition) -> Sequence[Kept]:
        """Return how each column is stored; a replaced table gets the types of the stream."""
        held = {} if table.schema is None else {self.dialect.naming.fold(field.name): field for field in table.schema}
        names = self.column_names(stream.schema.names, table)
        self._refuse_too_many(names.values(), () if disposition is WriteDisposition.REPLACE else held)
        is_replace, is_append = (disposition is each for each in (WriteDisposition.REPLACE, WriteDisposition.APPEND))
        keys = () if is_append else stream.key_properties
        made = {
            field.name: self._made(field, held.get(self.dialect.naming.fold(names[field.name])))
            for field in stream.schema
        }

        # A view or a trigger may depend on the column, or fire if its values are copied.
        retypes = self.dialect.facts.retypes_columns and not (table.stays and self.dialect.facts.renames)
        retypes = retypes and not table.triggers

        def kept(*, is_new: bool) -> list[Kept]:
            return [
                self._kept(
                    field,
                    names[field.name],
                    held.get(self.dialect.naming.fold(names[field.name])),
                    made[field.name],
                    is_new=is_new,
                    is_replace=is_replace,
                    retypes=retypes,
                    key=[made.get(key) or "" for key in keys] if field.name in keys else [],
                )
                for field in stream.schema
            ]

        found = kept(is_new=is_replace and not table.stays)
        is_refused = any(each.held is not None and each.arrow is None for each in found)
        # If tables cannot be renamed, a table that does not fit is dropped and created again.
        return kept(is_new=True) if is_refused and is_replace and not self.dialect.facts.renames else found

    def _refuse_too_many(self, names: Iterable[str], held: Iterable[str]) -> None:
        """Raise for more columns than a table may have."""
        count, most = len({*map(self.dialect.naming.fold, names), *held}), self.dialect.facts.max_columns
        if most and count > most:
            raise FatalConnectorError(
                f"the table would have {count:,} columns, but a table of {self.system} can have at most {most:,}; "
                "exclude some with `columns: {exclude: [...]}`",
                connector=self.connector,
            )

    def one_name(self, destination_table: str) -> str:
        """Return the same text for all names of one table."""
        return self._folded(self.target(destination_table))

    def accepts(self, stream: Stream, disposition: WriteDisposition) -> Sequence[str]:
        """Transfer formats it accepts."""
        return ("arrow",)

    def take_over(self, key: LedgerKey, *, token: str, owner: str, source: str | None = None) -> LedgerRow:
        """Write the token into the ledger row, then read it."""
        ledger = self._ledger.table(self.target(key.destination_table))

        def write(session: Session) -> LedgerRow:
            return self._ledger.take_over(session, ledger, key, token=token, owner=owner, source=source)

        with self._sessions.lease(key.stream) as lease:
            try:
                if self.dialect.facts.commits_alone and ledger in self._seen_ledgers:
                    return alone(lease, self.dialect, write)
                self._ensure_ledger(lease, ledger)
                row = write(lease.session)
            except ConnectorError:
                self._seen_ledgers.discard(ledger)
                raise
            commit(lease.session, self.dialect)
            return row

    def set_bookmark(self, key: LedgerKey, bookmark: Bookmark | None, *, forget: bool = False) -> None:
        """Change the bookmark by hand, or delete the row."""
        ledger = self._ledger.table(self.target(key.destination_table))
        with self._sessions.lease(key.stream) as lease:
            self._ensure_ledger(lease, ledger)
            self._ledger.set_bookmark(lease.session, ledger, key, bookmark, forget=forget)
            files = self._files_read(ledger)
            if (forget or bookmark is None) and files.exists(lease.session):
                files.forget(lease.session, key)
            commit(lease.session, self.dialect)

    def note_log(self, key: LedgerKey, token: str, log: Mapping[str, Any]) -> None:
        """See `NotesLog`."""
        ledger = self._ledger.table(self.target(key.destination_table))
        with self._sessions.lease(key.stream) as lease:
            self._ensure_ledger(lease, ledger)
            self._ledger.hold(lease.session, ledger, key, token)
            (row,) = self._ledger.read(lease.session, ledger, key)
            self._ledger.write_state(lease.session, ledger, replace(row, log=log))
            commit(lease.session, self.dialect)

    def files_read(self, key: LedgerKey) -> Sequence[FileRead]:
        """See `KeepsFiles`."""
        files = self._files_read(self.target(key.destination_table))
        if not self.is_there():
            return []
        with self._sessions.lease(key.stream) as lease:
            lease.begin()
            found: Sequence[FileRead] = files.read(lease.session, key) if files.exists(lease.session) else []
            lease.session.rollback()
        return found

    def forget_files(self, key: LedgerKey, paths: Collection[str]) -> None:
        """See `KeepsFiles`."""
        target = self.target(key.destination_table)
        ledger, files = self._ledger.table(target), self._files_read(target)
        with self._sessions.lease(key.stream) as lease:
            self._ensure_ledger(lease, ledger)
            token = secrets.token_hex(16)
            self._ledger.take_over(lease.session, ledger, key, token=token, owner="set by hand", source=None)
            if files.exists(lease.session):
                files.forget(lease.session, key, paths)
            commit(lease.session, self.dialect)

    def _files_read(self, beside: TableName) -> FilesRead:
        from .files_read import FilesRead

        return FilesRead(self.dialect, beside)

    def load(self, load: Load, events: Iterator[Event | Block], wire: str = "arrow") -> Iterator[Commit]:
        """Write the events, yielding after each commit."""
        arriving = LoadEvents(events)
        target = self.target(load.key.destination_table)
        arriving.peek()
        with self.load_sessions(load, wire).lease(load.key.stream) as lease, self._explained(load):
            context = LoadContext.of(self.dialect, load, target, lease, wire, self._ledger)
            yield from TableLoad(context).run(arriving)

    def _load_ranges(self, load: Load, reads: RangeReads, loaders: int, wire: str) -> Iterator[Commit]:
        """Load by ranges if several sessions can write at once (`ranges.LoadsRanges`)."""
        from .load.ranges import RangeLoad

        with self._explained(load):
            target, sessions = self.target(load.key.destination_table), self.load_sessions(load, wire)
            yield from RangeLoad(self.dialect, load, target, sessions, reads, wire).run(loaders)

    @contextmanager
    def _explained(self, load: Load) -> Iterator[None]:
        """Add connector and stream to an error."""
        try:
            yield
        except ConnectorError as error:
            error.connector = error.connector or self.connector
            error.stream = error.stream or load.key.stream
            is_unique = isinstance(error, UniqueViolated) and not error.is_of_trigger
            if load.write.disposition is WriteDisposition.APPEND and is_unique:
                error.extended(after=f"; {_NO_APPEND.format(load.key.destination_table)}")
            raise

    def _drop_ranges(self, pipeline: str, is_wanted: Callable[[LedgerKey], bool]) -> None:
        """Drop unfinished loads that are no longer needed (`ranges.LoadsRanges`)."""
        with self._sessions.lease() as lease:
            drop_unfinished(lease, self.dialect, lambda key: key.pipeline == pipeline and not is_wanted(key))

    def drop_staging(self, tokens: Sequence[str]) -> None:
        """Drop staging tables whose names contain one of the tokens, except for resumable ranges."""
        if not tokens or not self.is_there():
            return
        stems = tuple(staging_name(token) for token in tokens)
        with self._sessions.lease() as lease:
            lease.begin()
            kept = {each.staging for each in unfinished_loads(lease.session, self.dialect) if each.moment is not None}
            for name in self.dialect.catalog.list_staging(lease.session):
                stem = _without_suffix(name.name)
                if stem in stems and TableName(name.schema, stem) not in kept:
                    self.dialect.tables.free(lease.session, name)
                    lease.session.execute(self.dialect.tables.drop(name))
            commit(lease.session, self.dialect)

    def execute(self, statement: str, parameters: Mapping[str, Any], *, name: str = "") -> int:
        """Run a user's statement outside of any load; see `protocols.RunsStatements`."""
        if not self.is_there():
            raise FatalConnectorError(f"{self.identity()} does not exist yet", connector=self.connector)
        sql, values = numbered(statement, parameters, has_hashes=self.dialect.facts.has_hash_comments)
        with self.statement_sessions().lease(name) as lease:
            # Tests the connection; the statement itself is its own transaction.
            lease.begin()
            lease.session.rollback()
            return self.execute_alone(lease.session, sql, values)

    def execute_fenced(self, key: LedgerKey, token: str, statement: str, parameters: Mapping[str, Any]) -> int:
        """Run a user's statement under a token; see `protocols.FencesStatements`."""
        sql, values = numbered(statement, parameters, has_hashes=self.dialect.facts.has_hash_comments)
        ledger = self._ledger.table(self.target(key.destination_table))
        with self.statement_sessions().lease(key.stream) as lease:
            self._ensure_ledger(lease, ledger)
            self._ledger.hold(lease.session, ledger, key, token)
            changed = self.execute_within(lease.session, sql, values)
            commit(lease.session, self.dialect)
        return changed

    def interrupt(self, stream: str) -> None:
        """Cancel the running calls of one stream."""
        for sessions in self.all_sessions():
            sessions.interrupt(stream)

    def close(self) -> None:
        """Close every idle connection; connections in use close at the end of their call."""
        for sessions in self.all_sessions():
            sessions.close()

    # ----------------------------------------------------------------- helpers
    def target(self, destination_table: str) -> TableName:
        """Return the table that a `destination_table` means.

        Raises:
            FatalConnectorError: no database can hold such a name.
        """
        name = self.dialect.naming.table_name(destination_table, self._schema)
        self.dialect.naming.table(name)  # raise here, not in a driver
        return name

    def column_names(self, names: Sequence[str], table: TableState) -> Mapping[str, str]:
        """Return the names of a stream's columns in its planned table."""
        held = [] if table.schema is None else table.schema.names
        return self.dialect.naming.column_names(names, held, table.columns)

    def write_targets(self, tables: Mapping[str, WriteDisposition]) -> tuple[_Targets, set[TableName]]:
        """Return the tables for some names, and the ledgers beside them."""
        targets = {self.target(table): disposition for table, disposition in tables.items()}
        return targets, {self._ledger.table(target) for target in targets}

    def _spellings(self, names: Mapping[str, TableName]) -> set[str]:
        """Return the spellings of the tables in ledger rows; empty: too many tables, so any name matches."""
        if len(names) > _MAX_SPELLED:
            return set()
        read = {TableName.parse(table, self._schema or self.dialect.naming.default_schema) for table in names}
        return {*names, *(text for name in {*read, *names.values()} for text in spellings(name))}

    def all_sessions(self) -> Sequence[Sessions]:
        """Return every pool that the methods above may return."""
        return (self._sessions,)

    def _ensure_ledger(self, lease: SessionLease, ledger: TableName) -> None:
        """Begin a transaction in which the ledger exists; a separate transaction creates it."""
        lease.begin()
        if ledger in self._seen_ledgers:
            return
        if not self.dialect.catalog.exists(lease.session, ledger):
            self._ledger.create(lease.session, ledger)
            commit(lease.session, self.dialect)
            lease.begin()
        self._seen_ledgers.add(ledger)

    def _without_schema(self, name: TableName) -> TableState:
        """Return the state of a table in a missing schema."""
        schema = f"{self.dialect.naming.schema_word} {name.schema!r}"
        refusal = "" if self.dialect.tables.creates_schemas else NO_SCHEMA.format(f"needs {schema}, which")
        refuses = dict.fromkeys(WriteDisposition, refusal) if refusal else {}
        return TableState(new_schema=schema, refuses=refuses)

    def _folded(self, name: TableName) -> str:
        return str(TableName(*map(self.dialect.naming.fold_table, (name.schema, name.name))))

    def _is_empty(self, lease: SessionLease, table: Table) -> bool:
        """Return whether a table has no record; an unreadable table counts as one with records."""
        try:
            return not lease.session.query(self.dialect.writes.any_record(table))
        except (FatalConnectorError, RetriableError):  # no privilege, or another process holds a lock
            lease.session.rollback()
            lease.begin()
            return False

    def _made(self, field: pa.Field, held: pa.Field | None) -> str | None:
        """Return the type of a new column for a field; None: there is none."""
        if held is not None and yields_to_table(field):
            return facts_of(held).native_type
        try:
            return self.dialect.types.column_type(field)
        except FatalConnectorError:
            return None

    def _kept(
        self,
        field: pa.Field,
        name: str,
        held: pa.Field | None,
        made: str | None,
        *,
        is_new: bool,
        is_replace: bool,
        retypes: bool,
        key: Sequence[str],
    ) -> Kept:
        arriving = facts_of(field)
        before = None if held is None else facts_of(held).native_type
        name = name if held is None else held.name
        facts = None if held is None else facts_of(held)
        if before is not None and facts is not None and (facts.stays_computed or (facts.computed and not is_new)):
            note = "the table computes it; arriving values are not written"
            return Kept(column=name, type=before, arrow=field.type, held=before, is_computed=True, note=note)
        if made is None:
            note = "" if before is None else f"{field.type} has no matching type"
            return Kept(column=name, type="", arrow=None, held=before, note=note)
        kind: str | None = self.dialect.types.new_key_type(made, key) if key else made
        if before is not None and not is_new:
            types = self.dialect.types
            if key:
                kind = types.widen_key(before, made, len(key))
            else:
                kind = types.widen(before, made)  # in SQLite the empty text is a type
                kind = made if arriving.first_values and retypes and types.is_text(before) else kind
                kind = types.to_double(before, made) if kind is None and not is_replace else kind
                if kind is None and arriving.becomes_text and types.text_of(before, "") is not None:
                    kind = made
            if kind is None:
                note = f"the table's column is {before}, the stream's would be {made}, and neither type holds the other"
                return Kept(column=name, type=before, arrow=None, held=before, note=note)
        assert kind is not None
        arrow, is_text = self.dialect.types.kept_as(kind, field.type)
        is_native = arriving.native_system == self.dialect.name and arriving.native_type == kind
        return Kept(
            column=name,
            type=kind,
            arrow=arrow,
            held=before,
            is_text=is_text,
            is_native=is_native,
        )

    def _state(self, table: Table | None, ledger: Sequence[LedgerRow]) -> TableState:
        if table is None:
            return TableState(ledger=tuple(ledger))
        is_kept = table.has_dependents or not self.dialect.facts.renames  # by a replace as well
        needed = {column.name for column in table.needed()}
        fields = [
            with_facts(
                pa.field(
                    column.name,
                    self.dialect.types.arrow_of(column),
                    column.is_nullable,
                ),
                native_type=column.type,
                native_system=self.dialect.name,
                base_type=column.base,
                computed=column.is_generated,
                stays_computed=column.is_generated and is_kept,
                needed=column.name in needed,
            )
            for column in table.columns
        ]
        name = table.name
        if name.schema == self.dialect.naming.default_schema == "main":
            # SQLite and DuckDB omit the main schema in names of streams.
            name = TableName("", name.name)
        return TableState(
            schema=pa.schema(fields),
            ledger=tuple(ledger),
            is_table=table.is_table,
            stays=is_kept,
            refers_to=frozenset(map(self._folded, table.refers_to)),
            identity=table.identity,
            refuses=_refused(table, is_kept=is_kept),
            triggers={disposition: table.fires(disposition) for disposition in WriteDisposition if table.triggers},
            stream_name=str(name) if self.dialect.naming.default_schema else name.name,
        )


def _refused(table: Table, *, is_kept: bool) -> dict[WriteDisposition, str]:
    """Return the write dispositions that cannot write a table, with reasons; `is_kept`: a replace keeps the table."""
    if table.unfit:
        return {
            disposition: table.unfit
            for disposition in WriteDisposition
            if is_kept or disposition is not WriteDisposition.REPLACE
        }
    if table.is_referenced:
        why = (
            "has records that foreign keys of other tables refer to, and `replace_range` would delete them: use "
            "`write_disposition: merge`"
        )
        return {**table.refuses, WriteDisposition.REPLACE_RANGE: why}
    return {**table.refuses}


def _is_in_doubt(ledger: Sequence[LedgerRow]) -> bool:
    """Return whether the plan asks if a table is empty: no ledger row names it, or a stream continues at a bookmark."""
    return not ledger or any(row.bookmark is not None and row.committed_at is not None for row in ledger)


def _without_suffix(name: str) -> str:
    whole = name.removesuffix(CONVERTED_SUFFIX).removesuffix(LEDGER_SUFFIX).removesuffix(REMOVED)
    return re.sub(rf"{HISTORY_SUFFIX}\d$", "", whole)


__all__ = ["SqlDestination"]
