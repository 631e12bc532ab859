"""SQLite's catalog."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import cast

from ..errors import FatalConnectorError
from ..sql.dialect.catalog import Catalog
from ..sql.dialect.facts import REFILL_RECORDS
from ..sql.identifiers import STAGING_PREFIX, TableName, quote
from ..sql.session import Session
from ..sql.tables import Column, Table
from ..stream import Trigger
from ..struct_helpers import replace
from .session import SQLiteSession


class SQLiteCatalog(Catalog):
    """Names are found without regard to case."""

    def reflect(self, session: Session, tables: Sequence[TableName]) -> Mapping[TableName, Table]:
        """Read the catalog; names are found without regard to case."""
        if len(tables) <= _FEW_TABLES:
            return {
                name: replace(table, records=_count(session, table.name)) if table.is_table else table
                for name in tables
                for table in read_catalog(session, name.name)
            }
        wanted = {name.name.casefold(): name for name in tables}
        return {
            wanted[table.name.name.casefold()]: table
            for table in read_catalog(session)
            if table.name.name.casefold() in wanted
        }

    def exists(self, session: Session, name: TableName) -> bool:
        """Tell whether there is a table or view of that name."""
        return bool(session.query("select 1 from pragma_table_list($1) where schema = 'main'", (name.name,)))

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


#: Up to so many tables are read one by one: reading all of them takes time for each table of the file.
_FEW_TABLES = 8

_COLUMNS = 'c.name, c.type, c."notnull", c.pk, c.hidden, c.dflt_value is not null'

#: What `_COLUMNS` selects.
_Column = tuple[str, str, int, int, int, int]

#: Of a column of an index: the index's name, is it unique, its origin, is it partial, the column, its collation.
_Index = tuple[str, int, str, int, str | None, str]


def read_catalog(session: Session, name: str | None = None) -> list[Table]:
    """Read all tables and views, or the one of a name; shadow tables and SQLite's own are left out."""
    listed, named = ("pragma_table_list", ()) if name is None else ("pragma_table_list($1)", (name,))
    tables = session.query(
        f"select name, type from {listed} where schema = 'main' and type in ('table', 'view', 'virtual') "
        "and name not like 'sqlite\\_%' escape '\\' order by name",
        named,
    )
    if not tables:
        return []
    of_name = "" if name is None else " and name = $1 collate nocase"
    identities = "select name, rowid || ' at ' || rootpage from sqlite_master where type = 'table'"
    places = {str(table): str(place) for table, place in session.query(identities + of_name, named)}
    columns = _columns(session, listed, named, [str(table) for table, kind in tables if kind == "view"])
    indexes = _indexes(session, listed, named)
    parents = _parents(session, listed, named)
    triggers = _triggers(session, name)
    # The name comes before the text of the table, because SQLite checks conditions in their order.
    collated = f"select name from sqlite_master where type = 'table'{of_name} and instr(lower(sql), 'collate')"
    folded = {
        str(table): _folded_columns(session, str(table), [column for column, *_ in columns.get(str(table), [])])
        for (table,) in session.query(collated, named)
    }
    return [
        _table(
            str(table),
            str(kind),
            places.get(str(table), ""),
            frozenset(parents.get(str(table), ())),
            columns.get(str(table), []),
            indexes.get(str(table), []),
            triggers.get(str(table).casefold(), []),
            folded.get(str(table), set()),
        )
        for table, kind in tables
    ]


def _columns(session: Session, listed: str, named: Sequence[str], views: Sequence[str]) -> dict[str, list[_Column]]:
    """Return table or view -> its columns; a view of something that is gone is left out.

    Args:
        session: in its transaction.
        listed: the pragma that lists the tables.
        named: parameters of the pragma.
        views: names of the views among them.
    """
    found: dict[str, list[_Column]] = {}
    for table, *column in session.query(
        f"select l.name, {_COLUMNS} from {listed} l, pragma_table_xinfo(l.name, 'main') c "
        "where l.schema = 'main' and l.type <> 'view' and c.hidden <> 1 order by l.name, c.cid",
        named,
    ):
        found.setdefault(str(table), []).append(cast("_Column", tuple(column)))
    for view in views:
        # One by one: a view of something that is gone has no columns, and must not hide the others.
        with suppress(FatalConnectorError):
            rows = session.query(f"select {_COLUMNS} from pragma_table_xinfo($1, 'main') c order by c.cid", (view,))
            found[view] = cast("list[_Column]", rows)
    return found


def _indexes(session: Session, listed: str, named: Sequence[str]) -> dict[str, list[_Index]]:
    """Return table -> the columns of its indexes."""
    found: dict[str, list[_Index]] = {}
    for table, *index in session.query(
        f'select l.name, i.name, i."unique", i.origin, i.partial, c.name, c.coll from {listed} l, '
        "pragma_index_list(l.name, 'main') i, pragma_index_xinfo(i.name, 'main') c where l.schema = 'main' and c.key",
        named,
    ):
        found.setdefault(str(table), []).append(cast("_Index", tuple(index)))
    return found


def _parents(session: Session, listed: str, named: Sequence[str]) -> dict[str, set[TableName]]:
    """Return table -> the tables that its foreign keys point at, but for itself."""
    found: dict[str, set[TableName]] = {}
    for table, parent in session.query(
        f"select l.name, k.\"table\" from {listed} l, pragma_foreign_key_list(l.name, 'main') k "
        "where l.schema = 'main' and l.name <> k.\"table\" collate nocase",
        named,
    ):
        found.setdefault(str(table), set()).add(TableName("", str(parent)))
    return found


def _triggers(session: Session, name: str | None) -> dict[str, list[Trigger]]:
    """Return table, casefolded -> its triggers, in the order of their names."""
    of_name, named = ("", ()) if name is None else ("and tbl_name = $1 collate nocase ", (name,))
    found: dict[str, list[Trigger]] = {}
    for table, trigger, sql in session.query(
        f"select tbl_name, name, sql from sqlite_master where type = 'trigger' {of_name}order by name", named
    ):
        found.setdefault(str(table).casefold(), []).append(_trigger(str(trigger), str(sql)))
    return found


def _folded_columns(session: Session, table: str, columns: Sequence[str]) -> set[str]:
    """Return the columns for which some texts are equal that differ; no pragma says their collation."""
    found = set()
    for column in columns:
        # The column stands first: it says how all are compared.
        texts = f"select {quote(column)} as c from {quote(table)} where 0 union all values ('a'), ('A'), ('a ')"
        try:
            ((count,),) = session.query(f"select count(distinct c) from ({texts})")
        except FatalConnectorError:  # a collation of another program's
            count = 0
        if count < 3:
            found.add(column)
    return found


#: What stands behind a trigger's name.
_TRIGGER = re.compile(r"\b(?:(before|after|instead\s+of)\s+)?(insert|update|delete)\b", re.IGNORECASE)


def _trigger(name: str, sql: str) -> Trigger:
    found = _TRIGGER.search(sql, sql.find(name) + len(name))
    timing, event = found.groups() if found else (None, None)
    # Without a word for the time, a trigger fires before.
    return Trigger(
        name=name,
        timing=(timing or "before").lower(),
        events=(event.lower(),) if event else ("insert", "update", "delete"),
    )


def _table(
    name: str,
    kind: str,
    place: str,
    parents: frozenset[TableName],
    columns: Sequence[_Column],
    indexes: Sequence[_Index],
    triggers: Sequence[Trigger],
    folded: Collection[str],
) -> Table:
    key = [column for column, _, _, place, *_ in sorted(columns, key=lambda column: column[3]) if place]
    unique: dict[str, set[str | None]] = {}
    for index, is_unique, _, is_partial, column, _ in indexes:
        if is_unique and not is_partial:
            unique.setdefault(index, set()).add(column)
    # A single INTEGER key without an index is the row id, which SQLite assigns where nothing is written. Other keys may
    # hold NULL, unless declared NOT NULL (or the table has no row ids, or is strict).
    is_own = len(key) == 1 and not any(origin == "pk" for _, _, origin, *_ in indexes)
    is_numbered = {name for name, declared, _, place, *_ in columns if place and is_own and _is_number(declared)}
    folded = {*folded, *(column for *_, column, collation in indexes if column and collation != "BINARY")}
    complete = [frozenset(cast("set[str]", names)) for names in unique.values() if None not in names]
    return Table(
        name=TableName("", name),
        refers_to=parents,
        columns=tuple(
            Column(
                name=column,
                type=declared,
                is_nullable=not (is_required or column in is_numbered),
                is_generated=hidden in (2, 3),
                has_default=bool(has_default) or column in is_numbered,
                fills_nulls=column in is_numbered,
                is_folded=column in folded,
            )
            for column, declared, is_required, _, hidden, has_default in columns
        ),
        key=tuple(key),
        identity=place,
        unique_keys=(*complete, *([frozenset(key)] if key else [])),
        is_table=kind != "view",
        has_dependents=bool(triggers) or any(origin != "pk" for _, _, origin, *_ in indexes),
        has_triggers=bool(triggers),
        triggers=tuple(triggers),
    )


def _count(session: Session, name: TableName) -> int:
    """Count the records of a table, as far as it matters: SQLite keeps no number of them."""
    ((count,),) = session.query(f"select count(*) from (select 1 from {quote(name.name)} limit {REFILL_RECORDS + 1})")
    return int(count)


def _is_number(declared: str) -> bool:
    return declared.strip().upper() == "INTEGER"


__all__ = ["SQLiteCatalog", "read_catalog"]
