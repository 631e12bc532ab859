"""DuckDB's catalog."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import cast

from ..sql.dialect.catalog import Catalog
from ..sql.identifiers import STAGING_PREFIX, Naming, TableName, literal, quote
from ..sql.session import Session
from ..sql.tables import Column, Table
from ..stream import Trigger
from .constraints import UniqueIndex
from .database import has_triggers
from .session import DuckDBSession
from .unfinished import MARK


class DuckDBCatalog(Catalog):
    """Names are found without regard to case."""

    def reflect(self, session: Session, tables: Sequence[TableName]) -> Mapping[TableName, Table]:
        """Read the catalog; names are found without regard to case."""
        if len(tables) <= _FEW_TABLES:
            return {name: table for name in tables if (table := _read_table(session, name)) is not None}
        wanted = {(name.schema.casefold(), name.name.casefold()): name for name in tables}
        found = {}
        for table in read_catalog(session, [name.name for name in tables]):
            asked = wanted.get((table.name.schema.casefold(), table.name.name.casefold()))
            if asked is not None:
                found[asked] = table
        return found

    def exists(self, session: Session, name: TableName) -> bool:
        """Return whether there is a table or view of that name."""
        return _own(session).describe(name) is not None

    def identify(self, session: Session, table: Table) -> str:
        """Look it up in the list of all tables, which takes longer for more tables."""
        if table.identity or not table.is_table:
            return table.identity
        rows = session.query(
            "select table_oid from duckdb_tables() where database_name = current_database() "
            "and lower(schema_name) = lower($1) and lower(table_name) = lower($2)",
            (table.name.schema, table.name.name),
        )
        return str(rows[0][0]) if rows else ""

    def list_staging(self, session: Session) -> Sequence[TableName]:
        """Return every staging table of the file."""
        rows = session.query(
            "select schema_name, table_name from duckdb_tables() "
            "where database_name = current_database() and starts_with(table_name, $1)",
            (STAGING_PREFIX,),
        )
        return [TableName(str(schema), str(name)) for schema, name in rows]

    def unique_keys(self, session: Session, table: Table) -> Collection[frozenset[str]]:
        """Return the column sets of constraints, and of unique indexes that have no expressions."""
        written = {text: column.name for column in table.columns for text in (column.name, quote(column.name))}
        rows = session.query(
            "select expressions::varchar[] from duckdb_indexes() where database_name = current_database() "
            "and schema_name = $1 and table_name = $2 and is_unique",
            (table.name.schema, table.name.name),
        )
        indexed = (list(map(str, expressions)) for (expressions,) in rows)
        found = {frozenset(map(written.__getitem__, names)) for names in indexed if written.keys() >= set(names)}
        return {*super().unique_keys(session, table), *found}

    def dependents(self, session: Session, table: Table) -> Sequence[str]:
        """Return indexes, then kinds of constraints."""
        place = (table.name.schema, table.name.name)
        indexes = session.query(
            "select 'index ' || index_name from duckdb_indexes() where database_name = current_database() "
            "and schema_name = $1 and table_name = $2 order by 1",
            place,
        )
        found = constraints_by_table(session, [table.name.name])
        kinds = {str(row["constraint_type"]) for row in found.get(place, [])}
        referring = {
            str(other)
            for (schema, other), rows in found.items()
            for row in rows
            if (schema, row["referenced_table"]) == place and row["constraint_type"] == "FOREIGN KEY"
        }
        return [
            *(str(name) for (name,) in indexes),
            *sorted(f"a {kind} constraint" for kind in kinds - {"NOT NULL"}),
            *sorted(f"a foreign key of table {other}" for other in referring),
            *(f"trigger {trigger.name}" for trigger in table.triggers),
        ]


#: Up to this many tables are read one by one: DuckDB's functions list every table of the file.
_FEW_TABLES = 8

#: Whether a table has an index, or a trigger (`_TRIGGERED`).
_INDEXES = (
    "select 1 from duckdb_indexes() where database_name = current_database() "
    "and lower(schema_name) = lower($1) and lower(table_name) = lower($2)"
)
_TRIGGERED = (
    " union all select 1 from duckdb_triggers() where database_name = current_database() "
    "and lower(schema_name) = lower($1) and lower(table_name) = lower($2)"
)


def _read_table(session: Session, name: TableName) -> Table | None:
    """Read one table; the lists of all tables are searched only if it has more than columns."""
    described = _own(session).describe(name)
    if described is None:
        return None
    bindings = f"{_INDEXES}{_TRIGGERED if has_triggers() else ''} limit 1"
    is_bound = _own(session).has_constraints(name) or session.query(bindings, (name.schema, name.name))
    if not described.is_plain or is_bound:
        asked = str(name).casefold()
        return next((each for each in read_catalog(session, [name.name]) if str(each.name).casefold() == asked), None)
    columns = tuple(
        Column(name=column, type=kind, is_nullable=not is_required)
        for column, kind, is_required in described.columns
        if column != MARK
    )
    return Table(name=name, columns=columns)


def read_catalog(session: Session, names: Sequence[str] | None = None) -> list[Table]:
    """Read all tables and views of the file, or those with the given names (ignoring case)."""
    texts = None if names is None else [name.casefold() for name in names]
    kinds = _own(session).records(
        "select schema_name, table_name as name, true as is_table, index_count, table_oid from duckdb_tables() "
        f"where database_name = current_database() and not internal and not temporary{_named('table_name', names)} "
        "union all select schema_name, view_name, false, 0, null from duckdb_views() "
        f"where database_name = current_database() and not internal and not temporary{_named('view_name', names)}",
    )
    chosen = [kind for kind in kinds if texts is None or kind["name"].casefold() in texts]
    if not chosen:
        return []
    columns = _by_table(session, "duckdb_columns()", _named("table_name", names), "order by column_index")
    constraints = constraints_by_table(session, names)
    referenced = {
        (row["schema_name"], row["referenced_table"])
        for rows in constraints.values()
        for row in rows
        if row["constraint_type"] == "FOREIGN KEY"
    }
    triggers = {}
    if has_triggers():
        triggers = _by_table(session, "duckdb_triggers()", _named("table_name", names), "order by trigger_name")
    return [
        _table(kind, columns.get(place, []), constraints.get(place, []), triggers.get(place, []), place in referenced)
        for kind in chosen
        for place in [(kind["schema_name"], kind["name"])]
    ]


def _table(
    kind: Mapping[str, object],
    columns: Sequence[Mapping[str, object]],
    constraints: Sequence[Mapping[str, object]],
    triggers: Sequence[Mapping[str, object]],
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
        identity=str(kind["table_oid"]),
        unique_keys=tuple(unique),
        is_table=bool(kind["is_table"]),
        has_dependents=bool(kind["index_count"]) or is_referenced or is_bound or bool(triggers),
        is_referenced=is_referenced,
        has_triggers=bool(triggers),
        triggers=tuple(map(_trigger, triggers)),
        refers_to=frozenset(
            TableName(str(kind["schema_name"]), str(row["referenced_table"]))
            for row in constraints
            if row["constraint_type"] == "FOREIGN KEY" and row["referenced_table"] != kind["name"]
        ),
    )


def _trigger(row: Mapping[str, object]) -> Trigger:
    events = (str(row["event_manipulation"]).lower(),)
    return Trigger(name=str(row["trigger_name"]), timing=str(row["action_timing"]).lower(), events=events)


def constraints_by_table(
    session: Session, names: Sequence[str] | None = None
) -> dict[tuple[object, object], list[Mapping[str, object]]]:
    """Read the constraints of tables and the foreign keys to them, by schema and table, in their order."""
    condition = _named("table_name", names, "referenced_table")
    return _by_table(session, "duckdb_constraints()", condition, "order by constraint_index")


def _by_table(
    session: Session, function: str, condition: str, order: str
) -> dict[tuple[object, object], list[Mapping[str, object]]]:
    rows = _own(session).records(
        f"select * from {function} where database_name = current_database(){condition} {order}"
    )
    result: dict[tuple[object, object], list[Mapping[str, object]]] = {}
    for row in rows:
        result.setdefault((row["schema_name"], row["table_name"]), []).append(row)
    return result


def _named(column: str, names: Sequence[str] | None, *others: str) -> str:
    """Write the condition that one of two columns has one of the names; None: any name."""
    if names is None or len(names) > _FEW_TABLES:
        return ""
    listed = ", ".join(f"lower({literal(name)})" for name in names)
    return f" and ({' or '.join(f'lower({each}) in ({listed})' for each in (column, *others))})"


def _own(session: Session) -> DuckDBSession:
    return cast("DuckDBSession", session)


def unique_indexes(session: Session, naming: Naming, name: TableName) -> list[UniqueIndex]:
    """Read the indexes that belong to no constraint."""
    table = f"{naming.table(name)} as {naming.quote(name.name)}"
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


__all__ = ["DuckDBCatalog", "constraints_by_table", "read_catalog", "unique_indexes"]
