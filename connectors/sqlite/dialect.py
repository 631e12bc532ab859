"""SQLite's part of the SQL base: catalog, types and statements."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import cast

import pyarrow as pa

from ..errors import FatalConnectorError
from ..sql.actions import Action, Reread
from ..sql.dialect.dialect import Dialect
from ..sql.identifiers import SEQUENCE, STAGING_PREFIX, TableName
from ..sql.session import Session
from ..sql.tables import Column, Table, Wire
from ..stream import ConflictMethod, Trigger
from . import types
from .session import SQLiteSession


class SQLiteDialect(Dialect):
    """SQLite 3.35 and later; there are no schemas: a dot belongs to the table's name."""

    name = "sqlite"
    has_savepoints = True
    timestamp_type = "TEXT"
    now = "strftime('%Y-%m-%d %H:%M:%f+00:00', 'now')"
    text_type = "TEXT"
    bigint_type = "INTEGER"
    keeps_nanoseconds = True
    compares = True

    # ------------------------------------------------------------------ names
    def table_name(self, destination_table: str, default_schema: str) -> TableName:
        """Take the whole text for the table's name, but for the name of the file's own schema."""
        if destination_table.startswith('"'):
            parsed = TableName.parse(destination_table, "")
            return TableName("", f"{parsed.schema}.{parsed.name}" if parsed.schema else parsed.name)
        return TableName("", destination_table.removeprefix("main.") or destination_table)

    def fold(self, name: str) -> str:
        """Names are the same without regard to case."""
        return name.casefold()

    # ------------------------------------------------------------------ types
    def column_type(self, column: pa.Field) -> str:
        """Return the declared type of a new column; the source's own if that is SQLite as well."""
        metadata = column.metadata or {}
        native: str = metadata.get(b"native_type", b"").decode()
        if native and metadata.get(b"native_system") == self.name.encode():
            kind = types.kind_of(native)
            # Some names lose values on the way in: a number in a column of 15 digits, JSON in one of numbers.
            is_safe = kind is not None and kind.form not in (types.Form.DECIMAL, types.Form.JSON, types.Form.NUMBER)
            if kind is not None and is_safe and kind.arrow == column.type:
                return native
        return types.column_type(column.type, column.name)

    def wire(self, column_type: str, arrow: pa.DataType) -> Wire:
        """Values come in the column's own Arrow type; the session writes them in their stored form."""
        kind = types.kind_of(column_type)
        if kind is None or pa.types.is_nested(arrow) or pa.types.is_duration(arrow):
            return Wire(type=column_type, arrow=arrow)
        if kind.form is types.Form.TEXT and not _is_text(arrow):
            # Dates and the like in a text column: as the session writes them anyway.
            return Wire(type=column_type, arrow=arrow)
        return Wire(type=column_type, arrow=kind.arrow)

    def arrow_type(self, column: Column) -> pa.DataType:
        """Return the type in which the column is read."""
        return (types.kind_of(column.type) or types.UNTYPED["text"]).arrow

    def kept_as(self, column_type: str, arriving: pa.DataType) -> tuple[pa.DataType, bool]:
        """Return what it is read in; most types are texts in a form of their own."""
        kind = types.kind_of(column_type) or types.UNTYPED["text"]
        if kind.form is types.Form.JSON:
            return pa.json_(), True
        return kind.arrow, kind.form in types.STORED_AS_TEXT

    def widen(self, before: str, after: str) -> str | None:
        """Return the column's type if it holds the new values: SQLite does not alter types."""
        return before if types.holds(before, after) else None

    # ---------------------------------------------------------------- catalog
    def reflect(self, session: Session, tables: Sequence[TableName]) -> Mapping[TableName, Table]:
        """Read the catalog; names are found without regard to case."""
        wanted = {name.name.casefold(): name for name in tables}
        return {
            wanted[table.name.name.casefold()]: table
            for table in read_catalog(session)
            if table.name.name.casefold() in wanted
        }

    def exists(self, session: Session, name: TableName) -> bool:
        """Tell whether there is a table or view of that name."""
        sql = "select 1 from sqlite_master where type in ('table', 'view') and lower(name) = lower($1)"
        return bool(session.query(sql, (name.name,)))

    def lock_shape(self, session: Session, name: TableName) -> bool:
        """Become the one writer."""
        cast("SQLiteSession", session).write()
        return True

    def list_staging(self, session: Session) -> Sequence[TableName]:
        """Return every staging table."""
        sql = "select name from sqlite_master where type = 'table' and substr(name, 1, $1) = $2"
        rows = session.query(sql, (len(STAGING_PREFIX), STAGING_PREFIX))
        return [TableName("", str(name)) for (name,) in rows]

    def dependents(self, session: Session, table: Table) -> Sequence[str]:
        """Return indexes, triggers and unique constraints."""
        rows = session.query(
            "select type || ' ' || name from sqlite_master where type in ('index', 'trigger') and sql is not null "
            "and lower(tbl_name) = lower($1) union all select 'a unique constraint' "
            "from pragma_index_list($1, 'main') where origin = 'u' order by 1",
            (table.name.name,),
        )
        return [str(name) for (name,) in rows]

    def lock_creation(self, session: Session, name: TableName) -> None:
        """Become the one writer."""
        cast("SQLiteSession", session).write()

    def settle(self, session: Session, staging: TableName | None) -> None:
        """Become the one writer, if no data came that made it so."""
        cast("SQLiteSession", session).write()

    def lock_table(self, name: TableName) -> Action:
        """Nothing to lock, but the catalog must be read again: the first reading may be older than the lock."""
        return Reread()

    # -------------------------------------------------------------------- DDL
    def create_staging(self, name: TableName, columns: Sequence[Column], *, numbered: bool) -> str:
        """Write CREATE for a staging table; SQLite numbers the records as they come."""
        if not numbered:
            return self.create_table(name, columns)
        parts = [f"{self.quote(column.name)} {column.type}" for column in columns]
        return f"create table {self.table(name)} ({', '.join(parts)}, {self.quote(SEQUENCE)} integer primary key)"

    def create_replacement(self, name: TableName, columns: Sequence[Column], key: Sequence[str]) -> str:
        """Write CREATE with the primary key: SQLite cannot add one."""
        return self.create_table(name, columns, key)

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
        """Insert in order of arrival over the target's unique index, so that the last record of a key wins."""
        has_index = frozenset(key) in target.unique_keys
        if not has_index or method is ConflictMethod.IGNORE or target.has_triggers:
            return super().merge(target, staging, columns, staged, key, method)
        updates = [
            f"{self.quote(column.name)} = excluded.{self.quote(column.name)}"
            for column in columns
            if column.name not in key
        ] + [f"{self.quote(name)} = null" for name in self._emptied(target, columns)]
        names = self.names([column.name for column in columns])
        action = f"update set {', '.join(updates)}" if updates else "nothing"
        return [
            f"insert into {self.table(target.name)} ({names}) select {names} from {self.table(staging)} where true "
            f"order by {self.quote(SEQUENCE)} on conflict ({self.names(key)}) do {action}"
        ]

    def differs(self, columns: Sequence[Column], staged: Mapping[str, str]) -> str:
        """Compare values and their types, whatever the columns' collations."""
        parts = []
        for column in columns:
            held, arriving = f"t.{self.quote(column.name)}", self._value(column, staged)
            parts.append(f"{held} is not {arriving} collate binary or typeof({held}) <> typeof({arriving})")
        return " or ".join(parts)

    def latest(self, staging: TableName, key: Sequence[str]) -> str:
        """Write a derived table of the last record of each key."""
        number, source = self.quote(SEQUENCE), self.table(staging)
        last = f"select max({number}) from {source} group by {self.names(key)}"
        return f"(select * from {source} where {number} in ({last}))"


def _is_text(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_string(arrow) or pa.types.is_large_string(arrow) or pa.types.is_string_view(arrow))


_COLUMNS = 'c.name, c.type, c."notnull", c.pk, c.hidden, c.dflt_value is not null'

#: What `_COLUMNS` selects.
_Column = tuple[str, str, int, int, int, int]


def read_catalog(session: Session) -> list[Table]:
    """Read all tables and views; shadow tables and SQLite's own are left out."""
    tables = session.query(
        "select name, type from pragma_table_list where schema = 'main' and type in ('table', 'view', 'virtual') "
        "and name not like 'sqlite\\_%' escape '\\' order by name"
    )
    columns: dict[str, list[_Column]] = {}
    for table, *column in session.query(
        f"select l.name, {_COLUMNS} from pragma_table_list l, pragma_table_xinfo(l.name, 'main') c "
        "where l.schema = 'main' and l.type <> 'view' and c.hidden <> 1 order by l.name, c.cid"
    ):
        columns.setdefault(str(table), []).append(cast("_Column", tuple(column)))
    for table, kind in tables:
        if kind == "view":
            # One by one: a view of something that is gone has no columns, and must not hide the others.
            with suppress(FatalConnectorError):
                rows = session.query(
                    f"select {_COLUMNS} from pragma_table_xinfo($1, 'main') c order by c.cid", (table,)
                )
                columns[str(table)] = cast("list[_Column]", rows)
    indexes: dict[str, list[tuple[str, int, str, int, str | None]]] = {}
    for table, *index in session.query(
        'select l.name, i.name, i."unique", i.origin, i.partial, c.name from pragma_table_list l, '
        "pragma_index_list(l.name, 'main') i, pragma_index_info(i.name, 'main') c where l.schema = 'main'"
    ):
        indexes.setdefault(str(table), []).append(cast("tuple[str, int, str, int, str | None]", tuple(index)))
    triggers: dict[str, list[Trigger]] = {}
    for table, name, sql in session.query(
        "select tbl_name, name, sql from sqlite_master where type = 'trigger' order by name"
    ):
        triggers.setdefault(str(table).casefold(), []).append(_trigger(str(name), str(sql)))
    return [
        _table(
            str(name),
            str(kind),
            columns.get(str(name), []),
            indexes.get(str(name), []),
            triggers.get(str(name).casefold(), []),
        )
        for name, kind in tables
    ]


#: What stands behind a trigger's name.
_TRIGGER = re.compile(r"\b(?:(before|after|instead\s+of)\s+)?(insert|update|delete)\b", re.IGNORECASE)


def _trigger(name: str, sql: str) -> Trigger:
    found = _TRIGGER.search(sql, sql.find(name) + len(name))
    timing, event = found.groups() if found else (None, None)
    # Without a word it fires before.
    return Trigger(
        name=name,
        timing=(timing or "before").lower(),
        events=(event.lower(),) if event else ("insert", "update", "delete"),
    )


def _table(
    name: str,
    kind: str,
    columns: Sequence[_Column],
    indexes: Sequence[tuple[str, int, str, int, str | None]],
    triggers: Sequence[Trigger],
) -> Table:
    key = [column for column, _, _, place, *_ in sorted(columns, key=lambda column: column[3]) if place]
    unique: dict[str, set[str | None]] = {}
    for index, is_unique, _, is_partial, column in indexes:
        if is_unique and not is_partial:
            unique.setdefault(index, set()).add(column)
    # A single INTEGER of the key that no index keeps is the record's own number, which SQLite gives where nothing is
    # written. Other keys may hold NULL, unless NOT NULL is said (or the table has no row ids, or is strict).
    is_own = len(key) == 1 and not any(origin == "pk" for _, _, origin, _, _ in indexes)
    is_numbered = {name for name, declared, _, place, *_ in columns if place and is_own and _is_number(declared)}
    complete = [frozenset(cast("set[str]", names)) for names in unique.values() if None not in names]
    return Table(
        name=TableName("", name),
        columns=tuple(
            Column(
                name=column,
                type=declared,
                is_nullable=not (is_required or column in is_numbered),
                is_generated=hidden in (2, 3),
                has_default=bool(has_default) or column in is_numbered,
                fills_nulls=column in is_numbered,
            )
            for column, declared, is_required, _, hidden, has_default in columns
        ),
        key=tuple(key),
        unique_keys=(*complete, *([frozenset(key)] if key else [])),
        is_table=kind != "view",
        has_dependents=bool(triggers) or any(origin != "pk" for _, _, origin, _, _ in indexes),
        has_triggers=bool(triggers),
        triggers=tuple(triggers),
    )


def _is_number(declared: str) -> bool:
    return declared.strip().upper() == "INTEGER"
