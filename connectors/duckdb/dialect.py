"""DuckDB's part of the SQL base: catalog, types and statements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import pyarrow as pa

from ..sql.actions import Action, LiftMemoryLimit, Reread
from ..sql.dialect.dialect import Dialect
from ..sql.identifiers import SEQUENCE, STAGING_PREFIX, TableName
from ..sql.load.pieces import InsertsInPieces
from ..sql.session import Session
from ..sql.tables import Column, Table, Wire
from ..stream import ConflictMethod
from . import types
from .misfits import Misfits, UniqueIndex
from .moves import MARK
from .session import DuckDBSession

#: End of the name under which a piece of a staging table stands.
_PIECE = "_piece"


class DuckDBDialect(Dialect, InsertsInPieces):
    """DuckDB 1.4 and later.

    Tables get no primary key: its index would have to fit in memory, whole, and slows loading down; keys are NOT NULL,
    and a merge keeps them unique. A table made by somebody else keeps its key.
    """

    name = "duckdb"
    default_schema = "main"
    # Naive UTC: Python cannot read a DuckDB time with zone without another package before 2.0.
    timestamp_type = "TIMESTAMP"
    now = "current_timestamp::timestamp"
    # A transaction that is as old as its first record cannot be fenced off: DuckDB lets it update a ledger row that
    # another one has replaced since (by INSERT ... ON CONFLICT), and sees no conflict between different columns.
    appends_directly = False
    arrival = "rowid"
    keys_replacements = False
    keeps_infinite = True
    text_type = "VARCHAR"
    bigint_type = "BIGINT"

    def __init__(self, *, is_limited: bool = False) -> None:
        """Let merges have more memory than loads, unless the user has set a limit."""
        self._is_limited = is_limited
        #: Name of the file's catalog; known from the first connection on.
        self.catalog = ""

    # ------------------------------------------------------------------ names
    def table(self, name: TableName) -> str:
        """Quote a table's full name, with the catalog: a schema may be named like it."""
        parts = [self.catalog, name.schema or self.default_schema, name.name]
        return ".".join(self.quote(part) for part in parts if part)

    def fold(self, name: str) -> str:
        """Names are the same without regard to case."""
        return name.casefold()

    # ------------------------------------------------------------------ types
    def column_type(self, column: pa.Field) -> str:
        """Return the type of a new column; the source's own if that is DuckDB as well."""
        metadata = column.metadata or {}
        native: str = metadata.get(b"native_type", b"").decode()
        if native and metadata.get(b"native_system") == self.name.encode():
            known = types.reading(native)
            # Not the names of user-defined types or ENUMs, which the other database may lack.
            if known.arrow == column.type and (known.sql == native or native == "HUGEINT"):
                return native
        return types.column_type(column.type, column.name)

    def wire(self, column_type: str, arrow: pa.DataType) -> Wire:
        """Values travel in the type in which the column would be read; INSERT turns them into its own, exactly."""
        if pa.types.is_duration(arrow):
            return Wire(type=column_type, arrow=pa.duration("us"))
        known = types.reading(column_type).arrow
        if types.column_type(arrow, "") == column_type:
            # As the stream has it: nested fields of the same types need no casts.
            known = arrow if pa.types.is_nested(arrow) and pa.types.is_nested(known) else known
        return Wire(type=column_type, arrow=known)

    def arrow_type(self, column: Column) -> pa.DataType:
        """Return the type in which the column is read."""
        return types.reading(column.type).arrow

    def kept_as(self, column_type: str, arriving: pa.DataType) -> tuple[pa.DataType, bool]:
        """Return what it is read in; an interval counts microseconds."""
        if column_type == "INTERVAL" and pa.types.is_duration(arriving):
            return pa.duration("us"), False
        return types.reading(column_type).arrow, False

    def widen(self, before: str, after: str) -> str | None:
        """Return the type that holds both."""
        return types.widen(before, after)

    # ---------------------------------------------------------------- catalog
    def reflect(self, session: Session, tables: Sequence[TableName]) -> Mapping[TableName, Table]:
        """Read the catalog; names are found without regard to case."""
        wanted = {(name.schema.casefold(), name.name.casefold()): name for name in tables}
        found = {}
        for table in read_catalog(session, [name.name for name in tables]):
            asked = wanted.get((table.name.schema.casefold(), table.name.name.casefold()))
            if asked is not None:
                found[asked] = table
        return found

    def list_staging(self, session: Session) -> Sequence[TableName]:
        """Return every staging table of the file."""
        rows = session.query(
            "select schema_name, table_name from duckdb_tables() "
            "where database_name = current_database() and starts_with(table_name, $1)",
            (STAGING_PREFIX,),
        )
        return [TableName(str(schema), str(name)) for schema, name in rows]

    def dependents(self, session: Session, table: Table) -> Sequence[str]:
        """Return indexes, then kinds of constraints."""
        place = (table.name.schema, table.name.name)
        indexes = session.query(
            "select 'index ' || index_name from duckdb_indexes() where database_name = current_database() "
            "and schema_name = $1 and table_name = $2 order by 1",
            place,
        )
        kinds = {str(row["constraint_type"]) for row in _by_table(session, "duckdb_constraints()", "").get(place, [])}
        return [*(str(name) for (name,) in indexes), *sorted(f"a {kind} constraint" for kind in kinds - {"NOT NULL"})]

    def lock_creation(self, session: Session, name: TableName) -> None:
        """Take the file's commit lock, and see what others have created."""
        _own(session).lock()

    def settle(self, session: Session, staging: TableName | None) -> None:
        """Publish the staged records under their own name, then wait for the turn to write."""
        _own(session).lock(self.table(staging) if staging else "")

    def lock_table(self, name: TableName) -> Action:
        """Nothing to lock (`settle` did), but the catalog must be read again."""
        return Reread()

    def perform(self, session: Session, action: Action) -> None:
        """Run an action, those of DuckDB included."""
        if isinstance(action, LiftMemoryLimit):
            _own(session).lift_memory_limit()
        else:
            super().perform(session, action)

    def create_schema(self, session: Session, schema: str) -> None:
        """Create the schema if it is missing."""
        parts = [self.quote(part) for part in (self.catalog, schema) if part]
        session.execute(f"create schema if not exists {'.'.join(parts)}")

    # -------------------------------------------------------------------- DDL
    def create_table(
        self, name: TableName, columns: Sequence[Column], key: Sequence[str] = (), *, if_not_exists: bool = False
    ) -> str:
        """Write CREATE TABLE; only the ledger has a primary key."""
        return super().create_table(name, columns, key if if_not_exists else (), if_not_exists=if_not_exists)

    def create_staging(self, name: TableName, columns: Sequence[Column], *, numbered: bool) -> str:
        """Write CREATE for a staging table; the session numbers the records."""
        numbers = [Column(name=SEQUENCE, type=self.bigint_type)] if numbered else []
        return self.create_table(name, [*columns, *numbers])

    def swap(self, staging: TableName, target: Table | None, name: TableName, key: Sequence[str]) -> Sequence[Action]:
        """Write the statements that put the staging table in the target's place; views find it by its name."""
        return super().swap(staging, target, name, ())

    # ------------------------------------------------------------------- data
    def merge(
        self,
        target: Table,
        staging: TableName,
        columns: Sequence[Column],
        staged: Mapping[str, str],
        key: Sequence[str],
        method: ConflictMethod,
    ) -> Sequence[Action]:
        """Delete the records that come again, then insert: several times faster than updates of a columnar table.

        Under a small memory limit a merge of some million records fails: not all of it can spill to disk.
        """
        first = [] if self._is_limited else [LiftMemoryLimit()]
        if method is ConflictMethod.IGNORE or target.is_referenced:
            return [*first, *super().merge(target, staging, columns, staged, key, method)]
        same = self._same_key(target.columns, staged, key)
        names = self.names([column.name for column in columns])
        values = ", ".join(self._value(column, staged) for column in columns)
        into, source = self.table(target.name), self.table(staging)
        return [
            *first,
            f"delete from {into} as t using {source} as s where {same}",
            f"insert into {into} ({names}) select {values} from {self.latest(staging, key)} as s",
        ]

    def moves(self, session: Session, target: Table, staging: TableName, key: Sequence[str]) -> bool:
        """Tell whether a commit has too many wide records for one transaction.

        A table with indexes or constraints cannot be altered, as an append would. A merge could fail when some pieces
        are in, for what is no mistake: two records swap a unique value, and are in different pieces.
        """
        if not _own(session).spans(staging, is_indexed=target.has_dependents):
            return False
        return not target.has_dependents or (bool(key) and not self._may_refuse(session, target, key))

    def _may_refuse(self, session: Session, target: Table, key: Sequence[str]) -> bool:
        """Tell whether more than the key's own uniqueness decides about records."""
        if target.is_referenced or (target.key and set(target.key) != set(key)):
            return True
        place = (target.name.schema, target.name.name)
        constraints = _by_table(session, "duckdb_constraints()", "").get(place, [])
        others = [row for row in constraints if row["constraint_type"] not in ("NOT NULL", "PRIMARY KEY")]
        return bool(others or self._unique_indexes(session, target.name))

    def move(
        self,
        session: Session,
        target: Table,
        staging: TableName,
        columns: Sequence[Column],
        staged: Mapping[str, str],
        key: Sequence[str],
        statements: Callable[[TableName], Sequence[Action]],
        run: Callable[[Iterable[Action]], None],
    ) -> None:
        """Take the pieces one after the other, as they were staged: each begins a row group."""
        own = _own(session)
        own.begin_move(target.name, is_marked=not key)
        # What alters a table and fills it goes on with its last row group: all of that one's records would be read.
        own.commit_piece()
        part = TableName(staging.schema, staging.name + _PIECE)
        source, number = self.table(staging), self.quote(SEQUENCE) if key else self.arrival
        if key and session.query(self.repeated_key(staging, key)):
            # Of all pieces, not of each: none may bring a record that another one replaces.
            last = f"select max({number}) from {source} group by {self.names(key)}"
            run([f"delete from {source} where {number} not in ({last})"])
        mark = Column(name=MARK, type="BOOLEAN")
        append = self.insert_from(target.name, part, [*columns, mark], {**staged, MARK: mark.type})
        for first, end in own.spans(staging):
            taken = f"select *, true as {self.quote(MARK)} from {source} where {number} >= {first} and {number} < {end}"
            brought = statements(part) if key else [append]
            run([f"create view {self.table(part)} as {taken}", *brought, f"drop view {self.table(part)}"])
            own.commit_piece()
        own.end_move()

    def misfits(
        self,
        session: Session,
        target: Table,
        staging: TableName,
        columns: Sequence[Column],
        staged: Mapping[str, str],
        key: Sequence[str],
        method: ConflictMethod,
        *,
        is_emptied: bool,
        is_numbered: bool,
    ) -> Sequence[tuple[str, str]]:
        """Ask for each constraint and unique index: none of them takes a record back that it has refused."""
        constraints = _by_table(session, "duckdb_constraints()", "order by constraint_index")
        found = Misfits(
            dialect=self,
            target=target,
            staging=staging,
            columns=columns,
            staged=staged,
            key=key,
            is_ignoring=bool(key) and method is ConflictMethod.IGNORE,
            is_emptied=is_emptied,
            is_numbered=is_numbered,
        )
        place = (target.name.schema, target.name.name)
        return list(found.conditions(constraints.get(place, []), self._unique_indexes(session, target.name)))

    def _unique_indexes(self, session: Session, name: TableName) -> list[UniqueIndex]:
        """Read those that are no constraint's."""
        table = f"{self.table(name)} as {self.quote(name.name)}"
        found = []
        for index, expressions in session.query(
            "select index_name, expressions::varchar[] from duckdb_indexes() where database_name = current_database() "
            "and schema_name = $1 and table_name = $2 and is_unique order by index_oid",
            (name.schema, name.name),
        ):
            described = _own(session).records(f"describe select {', '.join(expressions)} from {table}")
            types = [str(each["column_type"]) for each in described]
            found.append(UniqueIndex(name=str(index), on=list(map(str, expressions)), types=types))
        return found

    def latest(self, staging: TableName, key: Sequence[str]) -> str:
        """Write a derived table of the last record of each key; only numbers and keys are held in memory.

        But for a piece's, whose records DuckDB would rather hold, since they are few: `move` has left the last ones.
        """
        if staging.name.endswith(_PIECE):
            return self.table(staging)
        number, source = self.quote(SEQUENCE), self.table(staging)
        last = f"select max({number}) from {source} group by {self.names(key)}"
        return f"(select * from {source} where {number} in ({last}))"


def read_catalog(session: Session, names: Sequence[str] | None = None) -> list[Table]:
    """Read tables and views of the file, all or those of the given names (case does not count)."""
    texts = None if names is None else [name.casefold() for name in names]
    kinds = _own(session).records(
        "select schema_name, table_name as name, true as is_table, index_count, estimated_size from duckdb_tables() "
        "where database_name = current_database() and not internal and not temporary union all "
        "select schema_name, view_name, false, 0, null from duckdb_views() "
        "where database_name = current_database() and not internal and not temporary"
    )
    chosen = [kind for kind in kinds if texts is None or kind["name"].casefold() in texts]
    if not chosen:
        return []
    columns = _by_table(session, "duckdb_columns()", "order by column_index")
    constraints = _by_table(session, "duckdb_constraints()", "")
    referenced = {
        (row["schema_name"], row["referenced_table"])
        for rows in constraints.values()
        for row in rows
        if row["constraint_type"] == "FOREIGN KEY"
    }
    return [
        _table(kind, columns.get(place, []), constraints.get(place, []), place in referenced)
        for kind in chosen
        for place in [(kind["schema_name"], kind["name"])]
    ]


def _table(
    kind: Mapping[str, object],
    columns: Sequence[Mapping[str, object]],
    constraints: Sequence[Mapping[str, object]],
    is_referenced: bool,
) -> Table:
    keys = {
        str(row["constraint_type"]): tuple(cast("list[str]", row["constraint_column_names"]))
        for row in constraints
        if row["constraint_type"] == "PRIMARY KEY"
    }
    unique = [
        frozenset(cast("list[str]", row["constraint_column_names"]))
        for row in constraints
        if row["constraint_type"] in ("PRIMARY KEY", "UNIQUE")
    ]
    is_bound = any(row["constraint_type"] in ("FOREIGN KEY", "CHECK", "UNIQUE", "PRIMARY KEY") for row in constraints)
    return Table(
        name=TableName(str(kind["schema_name"]), str(kind["name"])),
        columns=tuple(
            Column(
                name=str(column["column_name"]),
                type=str(column["data_type"]),
                is_nullable=bool(column["is_nullable"]),
                is_generated=bool(column.get("is_generated", False)),
            )
            for column in columns
            if column["column_name"] != MARK
        ),
        key=keys.get("PRIMARY KEY", ()),
        unique_keys=tuple(unique),
        is_table=bool(kind["is_table"]),
        has_dependents=bool(kind["index_count"]) or is_referenced or is_bound,
        is_referenced=is_referenced,
    )


def _by_table(session: Session, function: str, order: str) -> dict[tuple[object, object], list[Mapping[str, object]]]:
    rows = _own(session).records(f"select * from {function} where database_name = current_database() {order}")
    result: dict[tuple[object, object], list[Mapping[str, object]]] = {}
    for row in rows:
        result.setdefault((row["schema_name"], row["table_name"]), []).append(row)
    return result


def _own(session: Session) -> DuckDBSession:
    return cast("DuckDBSession", session)
