"""What MySQL's catalog says about tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ..errors import ConnectorError
from ..field_facts import with_facts
from ..sql.dialect.catalog import Catalog
from ..sql.identifiers import OWN_PREFIX, STAGING_PREFIX, Naming, TableName, literal
from ..sql.session import Session
from ..sql.tables import Column, Table
from ..stream import Stream, Trigger
from . import swaps
from .failures import errno
from .kinds import UTC_COMMENT, UTC_SUFFIX, MySQLKind
from .server import Server
from .types import arrow_of, is_unlimited

_SCHEMA = "information_schema"


def streams(session: Session, schema: str, is_mariadb: bool, tinyint1_as_bool: bool) -> list[Stream]:
    """Return what a source offers: tables, and views, marked; nothing of ours."""
    known = {
        str(name): (rows, str(engine), int(size_bytes or 0))
        for name, rows, engine, size_bytes in session.query(
            "select table_name, table_rows, engine, data_length "
            f"from {_SCHEMA}.tables where table_schema = {literal(schema)}"
        )
    }
    found = []
    for name, table in _read(session, schema, (), is_mariadb, _STREAMS).items():
        if name.startswith(OWN_PREFIX) or not table.columns:
            continue
        fields = [
            with_facts(
                pa.field(
                    column.name,
                    arrow_of(column.type, tinyint1_as_bool=tinyint1_as_bool),
                    column.is_nullable and column.name not in table.key,
                ),
                native_type=column.type,
                native_system="mysql",
                labels=_labels(column.type),
            )
            for column in table.columns
        ]
        rows, engine, size_bytes = known.get(name, (None, "", 0))
        is_counted = (
            table.key and engine == "InnoDB" and pa.types.is_integer(pa.schema(fields).field(table.key[0]).type)
        )
        found.append(
            Stream(
                name=str(table.name),
                schema=pa.schema(fields),
                key_properties=table.key,
                is_view=not table.is_table,
                estimated_records=rows if table.is_table else None,
                locator={
                    "schema": schema,
                    "table": name,
                    "bytes": size_bytes,
                    # What ranges of it are split by: the first column of an integer primary key.
                    "split": table.key[0] if is_counted else "",
                },
            )
        )
    return found


def columns_now(session: Session, name: TableName, is_mariadb: bool) -> dict[str, str]:
    """Return the types of one table's columns."""
    condition = f"table_schema = {literal(name.schema)} and table_name = {literal(name.name)}"
    found = session.query(f"select {_COLUMNS} from {_SCHEMA}.columns where {condition}")
    has_long_texts = any(str(described[2]).lower() == "longtext" for described in found)
    checks = _checks(session, name.schema, [name.name]) if is_mariadb and has_long_texts else {}
    columns = [
        _column(described, checks.get((str(table), str(described[0])), ""), is_mariadb) for table, *described in found
    ]
    return {column.name: column.type for column in columns}


def list_staging(session: Session, schema: str = "") -> list[TableName]:
    """Return staging tables of one database, or of all."""
    of_schema = f"table_schema = {literal(schema)} and " if schema else ""
    sql = (
        f"select table_schema, table_name from {_SCHEMA}.tables "
        f"where {of_schema}left(table_name, {len(STAGING_PREFIX)}) = {literal(STAGING_PREFIX)} "
        "and table_type = 'BASE TABLE'"
    )
    return [TableName(str(schema), str(name)) for schema, name in session.query(sql)]


#: Kinds of what can be read, and of what takes the name of a table.
_STREAMS = ("BASE TABLE", "VIEW", "SYSTEM VERSIONED")
_NAMED = (*_STREAMS, "SEQUENCE")

_UNFIT = (
    "uses the engine {}, which has no transactions: a load that fails halfway would leave some of its records, "
    "and the next load would send them again; change it to InnoDB (`alter table ... engine = InnoDB`)"
)


_COLUMNS = "table_name, column_name, column_type, is_nullable, column_default, extra, column_comment, collation_name"


def _read(
    session: Session, schema: str, names: Sequence[str], is_mariadb: bool, kinds_wanted: Sequence[str]
) -> dict[str, Table]:
    """Read tables of a schema, or all. A condition on one table keeps MariaDB from opening each table of the schema."""
    of_schema = f"table_schema = {literal(schema)}{_named('table_name', names)}"
    has_transactions = f"(select e.transactions from {_SCHEMA}.engines as e where e.engine = t.engine)"
    kinds = session.query(
        f"select table_name, table_type, create_options, engine, create_time, table_comment, {has_transactions} "
        f"from {_SCHEMA}.tables as t where {of_schema} order by table_name"
    )
    if not kinds:
        return {}
    columns = _grouped(
        session.query(
            f"select {_COLUMNS} from {_SCHEMA}.columns where {of_schema} order by table_name, ordinal_position"
        )
    )
    indexes = _grouped(
        session.query(
            f"select table_name, index_name, non_unique, column_name, sub_part from {_SCHEMA}.statistics "
            f"where {of_schema} order by table_name, index_name, seq_in_index"
        )
    )
    triggers = _grouped(
        session.query(
            "select event_object_table, trigger_name, action_timing, event_manipulation, action_statement "
            f"from {_SCHEMA}.triggers where event_object_schema = {literal(schema)}"
            f"{_named('event_object_table', names)} order by trigger_name"
        )
    )
    referring, referenced = _references(session, schema, names, is_mariadb)
    checks = _checks(session, schema, names) if is_mariadb else {}
    return {
        str(name): _table(
            TableName(schema, str(name)),
            str(kind),
            columns.get(str(name), []),
            indexes.get(str(name), []),
            triggers=[_trigger(*map(str, each)) for each in triggers.get(str(name), ())],
            refers_to=frozenset(referring.get(str(name).lower(), ())),
            is_referenced=str(name).lower() in referenced,
            is_partitioned="partitioned" in str(options or ""),
            checks=checks,
            is_mariadb=is_mariadb,
            unfit=_UNFIT.format(engine) if transactions == "NO" else "",
            created=str(created or ""),
            comment=str(comment or ""),
        )
        for name, kind, options, engine, created, comment, transactions in kinds
        if str(kind) in kinds_wanted
    }


def _named(column: str, names: Sequence[str]) -> str:
    """Write the condition that a column has one of the names; no names: any."""
    return f" and {column} in ({', '.join(map(literal, names))})" if names else ""


#: Table in lower case -> the tables that it refers to; and the tables that are referred to, in lower case.
_References = tuple[dict[str, set[TableName]], set[str]]


def _references(session: Session, schema: str, names: Sequence[str], is_mariadb: bool) -> _References:
    """Return the tables that foreign keys of each table refer to, and which tables are referred to."""
    if is_mariadb and names and all(map(_PLAIN.fullmatch, (schema, *names))):
        try:
            return _own_references(session, schema, names)
        except ConnectorError as error:
            if errno(error.__cause__ or error) != _NEEDS_PROCESS:
                raise
    referring: dict[str, set[TableName]] = {}
    referenced: set[str] = set()
    # Not of `referential_constraints`: of a table of which a user may read no more than records, it shows none or half.
    for own_schema, name, other_schema, other in session.query(
        "select table_schema, table_name, referenced_table_schema, referenced_table_name "
        f"from {_SCHEMA}.key_column_usage where referenced_table_name is not null "
        f"and (table_schema = {literal(schema)}{_named('table_name', names)} "
        f"or referenced_table_schema = {literal(schema)}{_named('referenced_table_name', names)})"
    ):
        if str(own_schema).lower() == schema.lower():
            referring.setdefault(str(name).lower(), set()).add(TableName(str(other_schema), str(other)))
        if str(other_schema).lower() == schema.lower():
            referenced.add(str(other).lower())
    return referring, referenced


#: Names that InnoDB writes as they are.
_PLAIN = re.compile(r"[A-Za-z0-9_]+")

#: MariaDB's error: the user lacks the privilege PROCESS, without which InnoDB's own tables are not shown.
_NEEDS_PROCESS = 1227


def _own_references(session: Session, schema: str, names: Sequence[str]) -> _References:
    """Ask InnoDB for foreign keys: to find who refers to a table, MariaDB opens the tables of all schemas."""
    listed = ", ".join(literal(f"{schema}/{name}") for name in names)
    rows = session.query(
        f"select for_name, ref_name from {_SCHEMA}.innodb_sys_foreign where for_name in ({listed}) "
        f"or ref_name in ({listed})"
    )
    own = {f"{schema}/{name}".lower() for name in names}
    referring: dict[str, set[TableName]] = {}
    for one, other in rows:
        if str(one).lower() in own:
            parent, _, table = str(other).partition("/")
            referring.setdefault(str(one).lower().partition("/")[2], set()).add(TableName(parent, table))
    others = [str(other).lower() for _, other in rows]
    return referring, {other.partition("/")[2] for other in others if other in own}


def _checks(session: Session, schema: str, names: Sequence[str]) -> dict[tuple[str, str], str]:
    """Return what MariaDB checks of single columns: these checks have the columns' names."""
    rows = session.query(
        f"select table_name, constraint_name, check_clause from {_SCHEMA}.check_constraints "
        f"where constraint_schema = {literal(schema)}{_named('table_name', names)}"
    )
    return {(str(name), str(column)): str(clause) for name, column, clause in rows}


def _table(
    name: TableName,
    kind: str,
    columns: Iterable[Sequence[Any]],
    indexes: Iterable[Sequence[Any]],
    *,
    triggers: Sequence[Trigger],
    refers_to: frozenset[TableName],
    is_referenced: bool,
    is_partitioned: bool,
    checks: Mapping[tuple[str, str], str],
    is_mariadb: bool,
    unfit: str,
    created: str,
    comment: str,
) -> Table:
    parts: dict[str, list[tuple[str | None, bool]]] = {}
    unique: set[str] = set()
    for index, non_unique, column, length in indexes:
        parts.setdefault(str(index), []).append((column, length is None))
        if not int(non_unique):
            unique.add(str(index))
    key = tuple(str(column) for column, _ in parts.get("PRIMARY", ()))
    # An index over the beginnings of values, or over expressions, says nothing about the values.
    whole = [
        frozenset(str(column) for column, _ in parts[index])
        for index in sorted(unique)
        if all(column is not None and is_whole for column, is_whole in parts[index])
    ]
    described = tuple(_column(column, checks.get((name.name, str(column[0])), ""), is_mariadb) for column in columns)
    own = {column.name for column in described}
    return Table(
        name=name,
        columns=described,
        key=key,
        identity=created,
        unique_keys=tuple(whole),
        is_table=kind not in ("VIEW", "SEQUENCE"),
        unfit=unfit,
        has_dependents=bool(triggers)
        or bool(refers_to)
        or is_referenced
        or is_partitioned
        or kind == "SYSTEM VERSIONED"
        or bool(set(parts) - {"PRIMARY"})
        # What a new table would lack: defaults, numbers, checks and comments.
        or bool(comment)
        or any(column.attributes for column in described)
        or any(table == name.name and check not in own for table, check in checks),
        is_referenced=is_referenced,
        refers_to=refers_to - {name},
        has_triggers=bool(triggers),
        triggers=tuple(triggers),
    )


#: A table that a trigger's body writes; `on duplicate key update` names none.
_WRITTEN = re.compile(
    r"(?:\b(?:insert|replace)\s+(?:(?:low_priority|high_priority|delayed|ignore|into)\s+)*|(?<!key\s)\bupdate\s+)"
    r"((?:`[^`]+`|[\w$]+)(?:\s*\.\s*(?:`[^`]+`|[\w$]+))?)",
    re.IGNORECASE,
)


def _trigger(name: str, timing: str, event: str, body: str) -> Trigger:
    writes = dict.fromkeys(found.replace("`", "") for found in _WRITTEN.findall(body))
    return Trigger(name=name, timing=timing.lower(), events=(event.lower(),), writes=tuple(writes))


def _labels(declared: str) -> tuple[str, ...]:
    kind = MySQLKind.parse(declared)
    return tuple(member[1:-1].replace("''", "'") for member in kind.members) if kind.name == "enum" else ()


#: How the catalog writes what is in texts (members of an enum, defaults, checks), whatever the session's mode; our
#: statements write them as they are.
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
#: What MariaDB says behind the type of a column that it compresses.
_COMPRESSED = re.compile(r" /\*M!\d+ COMPRESSED\*/$", re.IGNORECASE)
_CHARACTERS = {"0": "\0", "n": "\n", "r": "\r"}


def _column(described: Sequence[Any], check: str, is_mariadb: bool) -> Column:
    name, column_type, is_nullable, default, extra, comment, collation = (
        str(part) if part is not None else None for part in described
    )
    assert name is not None
    declared = _unescaped(_COMPRESSED.sub("", column_type or ""))
    kind = MySQLKind.parse(declared)
    text = str(kind)
    # A column declared JSON: MariaDB keeps longtext with a check.
    is_json = check == f"json_valid(`{name.replace('`', '``')}`)"
    if is_json:
        text = "json"
    elif kind.name == "datetime" and comment == UTC_COMMENT:
        text += UTC_SUFFIX
    extra = (extra or "").lower()
    is_generated = "virtual" in extra or "stored" in extra or "persistent" in extra
    written = "" if default is None or default.upper() == "NULL" else _default(default, kind, extra, is_mariadb)
    return Column(
        name=name,
        type=text,
        is_nullable=is_nullable == "YES",
        is_generated=is_generated and "default_generated" not in extra,
        has_default="auto_increment" in extra or bool(written),
        fills_nulls="auto_increment" in extra or (kind.name == "timestamp" and is_nullable != "YES"),
        collation=collation or "",
        attributes=_attributes(
            written, extra, "" if text.endswith(UTC_SUFFIX) else comment or "", "" if is_json else check
        ),
    )


#: What the catalog says of a column beside its type, and is written in the same words.
_EXTRA = re.compile(r"auto_increment|on update current_timestamp(?:\(\d*\))?|invisible|without system versioning")


def _attributes(default: str, extra: str, comment: str, check: str) -> str:
    parts = [f"default {default}" if default else "", *_EXTRA.findall(extra)]
    parts.append(f"comment {literal(comment)}" if comment else "")
    parts.append(f"check ({_unescaped(check)})" if check else "")
    return " ".join(filter(None, parts))


def _default(text: str, kind: MySQLKind, extra: str, is_mariadb: bool) -> str:
    """Return a default as it is written; MySQL shows texts bare."""
    if is_mariadb:
        return _unescaped(text)
    if "default_generated" in extra:
        return text if text.lower().startswith("current_timestamp") else f"({_unescaped(text)})"
    return text if kind.is_binary or kind.name == "bit" else literal(text)


def fitted(attributes: str, column_type: str) -> str:
    """Return the attributes of a column as its type takes them.

    The current time has as many digits as the type; of a long text MySQL takes only an expression as a default.
    """
    digits = MySQLKind.parse(column_type).arguments
    now = f"current_timestamp({digits})" if digits.isdigit() else "current_timestamp"
    attributes = re.sub(r"(?<=default |.update )current_timestamp(\(\d*\))?", now, attributes, flags=re.IGNORECASE)
    if is_unlimited(column_type):
        attributes = re.sub(r"^default ('(?:[^']|'')*')", r"default (\1)", attributes)
    return attributes


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: _CHARACTERS.get(found[1], found[1]), text)


def _grouped(rows: Iterable[Sequence[Any]]) -> dict[str, list[Sequence[Any]]]:
    result: dict[str, list[Sequence[Any]]] = {}
    for table, *rest in rows:
        result.setdefault(str(table), []).append(rest)
    return result


class MySQLCatalog(Catalog):
    """Reads `information_schema`."""

    def __init__(self, naming: Naming, server: Server) -> None:
        super().__init__(naming)
        self._server = server

    def reflect(self, session: Session, tables: Sequence[TableName]) -> Mapping[TableName, Table]:
        """Read the catalog, database by database."""
        found: dict[TableName, Table] = {}
        for schema in sorted({table.schema for table in tables}):
            wanted = {table.name: table for table in tables if table.schema == schema}
            read = _read(session, schema, sorted(wanted), self._server.is_mariadb, _NAMED)
            # There the catalog may have another spelling; elsewhere it finds names by another case that are other
            # tables'.
            folded = {name.lower(): table for name, table in wanted.items()} if self._server.folds_names else {}
            for name, table in read.items():
                asked = wanted.get(name) or folded.get(name.lower())
                # A table without columns was dropped between two of the queries.
                if asked is not None and (table.columns or not table.is_table):
                    found[asked] = table
        return found

    def exists(self, session: Session, name: TableName) -> bool:
        """Look the name up."""
        sql = "select 1 from information_schema.tables where table_schema = $1 and table_name = $2"
        return bool(session.query(sql, (name.schema, name.name)))

    def list_staging(self, session: Session) -> Sequence[TableName]:
        """Return leftovers of every database, but for those that a commit has made somebody's table."""
        found = list_staging(session)
        noted = {
            TableName(schema, staging)
            for schema in {name.schema for name in found}
            for staging, _ in swaps.pending(session, schema)  # type: ignore[arg-type]  # only our sessions come here
        }
        return [name for name in found if name not in noted]

    def dependents(self, session: Session, table: Table) -> Sequence[str]:
        """Name what is on a table: indexes, triggers, foreign keys, partitions, the history that MariaDB keeps."""
        name = table.name
        schema, own = literal(name.schema), literal(name.name)
        rows = session.query(
            f"select distinct concat('index ', index_name) from {_SCHEMA}.statistics where table_schema = {schema} "
            f"and table_name = {own} and index_name <> 'PRIMARY' union all select concat('trigger ', trigger_name) "
            f"from {_SCHEMA}.triggers where event_object_schema = {schema} and event_object_table = {own} "
            "union all select distinct concat('foreign key ', constraint_name, ' of table ', table_name) "
            f"from {_SCHEMA}.key_column_usage where referenced_table_name is not null and (table_schema = {schema} "
            f"and table_name = {own} or referenced_table_schema = {schema} and referenced_table_name = {own}) "
            f"union all select 'its partitions' from {_SCHEMA}.tables where table_schema = {schema} "
            f"and table_name = {own} and create_options like '%partitioned%' union all select 'its history' "
            f"from {_SCHEMA}.tables where table_schema = {schema} and table_name = {own} "
            "and table_type = 'SYSTEM VERSIONED' order by 1"
        )
        return [str(found) for (found,) in rows]


__all__ = ["MySQLCatalog", "columns_now", "fitted", "list_staging", "streams"]
