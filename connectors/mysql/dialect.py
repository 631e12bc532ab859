"""MySQL's and MariaDB's dialect."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from ..sql.actions import Action, SwapAfterCommit, TakeNamedLock
from ..sql.dialect.dialect import Dialect
from ..sql.identifiers import SEQUENCE, TableName, tell_apart
from ..sql.keys import freed
from ..sql.session import Session
from ..sql.tables import Column, Table, Wire
from ..stream import ConflictMethod
from . import catalog, swaps, types
from .session import MySQLSession
from .types import Kind

#: Longest identifier, in characters.
MAX_CHARACTERS = 64


class MySQLDialect(Dialect):
    """DDL commits implicitly: staging is temporary, or renamed after the commit that says so (`swaps`)."""

    name = "mysql"
    has_savepoints = True
    timestamp_type = "datetime(6)"
    now = "utc_timestamp(6)"
    text_type = "longtext"
    # An ALTER on the way would commit what was appended before it.
    appends_directly = False
    adopts_staging = False
    alters_at_once = True
    compares = True
    _and_if = "where"

    def __init__(self, database: str, lock_timeout_s: int) -> None:
        self.default_schema = database
        self.is_mariadb = True
        self._folds_names = False
        #: Texts differ if one character does, be it in case or a space at the end; set by the first connection.
        self.collation = "utf8mb4_bin"
        self._lock_timeout_s = lock_timeout_s

    def adapt(self, session: MySQLSession) -> None:
        """Take over what differs between servers."""
        self.is_mariadb, self._folds_names = session.is_mariadb, session.folds_names
        if session.is_mariadb:
            self.collation = "utf8mb4_nopad_bin" if session.version >= (10, 2) else "utf8mb4_bin"
        else:
            self.collation = "utf8mb4_0900_bin" if session.version >= (8, 0, 17) else "utf8mb4_bin"

    # ------------------------------------------------------------------ names
    def fold(self, name: str) -> str:
        """Column names are the same without regard to case."""
        return name.lower()

    def fold_table(self, name: str) -> str:
        """Names of tables are files on most servers, which tell case apart; others say that they do not."""
        return name.lower() if self._folds_names else name

    def table_name(self, destination_table: str, default_schema: str) -> TableName:
        """Read a `destination_table`; parts that no identifier can be are changed, told apart by a hash."""
        name = TableName.parse(destination_table, default_schema or self.default_schema)
        return TableName(_fit(name.schema), _fit(name.name))

    def plain(self, name: str) -> str:
        """Return the name, or for one that is no identifier here one told apart by a hash."""
        return _fit(name)

    def marked(self, name: str) -> str:
        """Return the name with a hash."""
        return _marked(name)

    # ------------------------------------------------------------------ types
    def column_type(self, column: pa.Field) -> str:
        """Return the native type where the stream still has what it is read as, or the one for the Arrow type."""
        metadata = column.metadata or {}
        native: str = metadata.get(b"native_type", b"").decode()
        if native and metadata.get(b"native_system") == self.name.encode():
            kind = Kind.parse(native)
            is_odd = kind.name in ("uuid", "inet4", "inet6") and not self.is_mariadb
            if types.arrow_of(native) == column.type and not is_odd and types.selectable(native):
                return types.normal(native)
        # MySQL's own JSON would read long numbers as floating point ones.
        json_type = "json" if self.is_mariadb else "longtext"
        return types.column_type(column.type, column.name, json_type=json_type)

    def wire(self, column_type: str, arrow: pa.DataType) -> Wire:
        """Values travel as text, made of the column's own Arrow type."""
        kind = types.arrow_of(column_type)
        if kind == pa.json_():
            kind = pa.string()
        if pa.types.is_string(kind) and pa.types.is_decimal(arrow):
            kind = arrow
        return Wire(type=column_type, arrow=kind)

    def arrow_type(self, column: Column) -> pa.DataType:
        """Return the type in which the column is read."""
        return types.arrow_of(column.type)

    def kept_as(self, column_type: str, arriving: pa.DataType) -> tuple[pa.DataType, bool]:
        """Return what it is, where that is read as text: long decimals, MySQL's JSON."""
        return types.kept_as(column_type, arriving), False

    def widen(self, before: str, after: str) -> str | None:
        """Return the wider type."""
        return types.widen(before, after)

    def widen_key(self, before: str, after: str, columns: int) -> str | None:
        """Let texts and bytes of any length be as long as an index takes them, as in a new table."""
        wider = self.widen(before, after)
        if wider is None or wider == before or not types.is_unlimited(wider):
            return wider
        short = types.key_type(wider, columns)
        return self.widen(before, short) or short

    # ---------------------------------------------------------------- catalog
    def reflect(self, session: Session, tables: Sequence[TableName]) -> Mapping[TableName, Table]:
        """Read the catalog."""
        return catalog.reflect(session, tables, self.is_mariadb, folds_names=self._folds_names) if tables else {}

    def exists(self, session: Session, name: TableName) -> bool:
        """Look the name up."""
        sql = "select 1 from information_schema.tables where table_schema = $1 and table_name = $2"
        return bool(session.query(sql, (name.schema, name.name)))

    def list_staging(self, session: Session) -> Sequence[TableName]:
        """Return leftovers of every database, but for those that a commit has made somebody's table."""
        found = catalog.list_staging(session)
        noted = {
            TableName(schema, staging)
            for schema in {name.schema for name in found}
            for staging, _ in swaps.pending(session, schema)  # type: ignore[arg-type]  # only our sessions come here
        }
        return [name for name in found if name not in noted]

    # -------------------------------------------------------------------- DDL
    def lock_creation(self, session: Session, name: TableName) -> None:
        """Take the lock that each of our loads takes."""
        self.perform(session, self.lock_table(name))

    def lock_table(self, name: TableName) -> Action:
        """Shut out our other loads: LOCK TABLES would commit. Foreign writers meet the records' own locks."""
        digest = hashlib.sha256(f"{name.schema}.{name.name}".encode()).hexdigest()[:40]
        return TakeNamedLock(f"syncblocks_{digest}", self._lock_timeout_s)

    def perform(self, session: Session, action: Action) -> None:
        """Run an action, those of MySQL included."""
        if not isinstance(action, TakeNamedLock | SwapAfterCommit):
            super().perform(session, action)
            return
        assert isinstance(session, MySQLSession)
        if isinstance(action, TakeNamedLock):
            session.take_lock(action.name, action.timeout_s)
        else:
            session.swap_after_commit(action.schema, action.staging, action.target)

    def create_schema(self, session: Session, schema: str) -> None:
        """Create it only if it is missing: IF NOT EXISTS still demands the privilege to create."""
        if not session.query("select 1 from information_schema.schemata where schema_name = $1", (schema,)):
            session.execute(f"create database if not exists {self.quote(schema)} character set utf8mb4")

    def create_table(
        self, name: TableName, columns: Sequence[Column], key: Sequence[str] = (), *, if_not_exists: bool = False
    ) -> str:
        """Write CREATE TABLE; texts of a key get the longest type that an index takes."""
        texts = sum(column.name in key and types.is_unlimited(column.type) for column in columns)
        parts = []
        for column in columns:
            is_long_key = column.name in key and types.is_unlimited(column.type)
            parts.append(self._column(column, types.key_type(column.type, texts) if is_long_key else column.type))
        if key:
            parts.append(f"primary key ({self.names(key)})")
        return self._create(f"table {'if not exists ' if if_not_exists else ''}{self.table(name)}", parts)

    def _create(self, what: str, parts: Sequence[str]) -> str:
        return f"create {what} ({', '.join(parts)}) {swaps.OPTIONS} collate {self.collation}"

    def _column(self, column: Column, column_type: str) -> str:
        parts = [self.quote(column.name), declared := column_type.removesuffix(types.UTC_SUFFIX)]
        if column.collation and Kind.parse(column_type).is_text:
            parts.append(f"collate {column.collation}")
        # Without NULL a timestamp would be NOT NULL on some servers.
        parts.append("null" if column.is_nullable else "not null")
        if declared != column_type:  # moments, of which a default of their former type knows nothing
            parts.append(types.UTC_SUFFIX.strip())
        elif column.attributes:
            parts.append(catalog.fitted(column.attributes, column_type))
        return " ".join(parts)

    def create_staging(self, name: TableName, columns: Sequence[Column], *, numbered: bool) -> str:
        """Create it for this connection: that commits nothing, and leaves nothing when the connection ends."""
        parts = [self._column(column, column.type) for column in columns]
        if numbered:
            parts.append(f"{self.quote(SEQUENCE)} bigint unsigned not null auto_increment primary key")
        return self._create(f"temporary table {self.table(name)}", parts)

    def create_replacement(self, name: TableName, columns: Sequence[Column], key: Sequence[str]) -> str:
        """Write CREATE with the primary key: InnoDB would have to write the table again to add it."""
        return self.create_table(name, columns, key)

    def add_column(self, name: TableName, column: Column) -> str:
        """Write ADD COLUMN."""
        return f"alter table {self.table(name)} add column {self._column(column, column.type)}"

    def alter_type(self, name: TableName, column: Column) -> str:
        """Write the change to a wider type; what is not said of the column would be forgotten."""
        return f"alter table {self.table(name)} modify column {self._column(column, column.type)}"

    def rekey(self, session: Session, table: Table, key: Sequence[str]) -> Sequence[str]:
        """Change the key on the records that are there: DDL commits, so that it cannot come after they are deleted."""
        texts = sum(types.is_unlimited(column.type) for column in table.columns if column.name in key)
        parts = ["drop primary key"]
        for column in table.columns:
            if column.name in key and types.is_unlimited(column.type):
                short = replace(column, type=types.key_type(column.type, texts), is_nullable=False)
                parts.append(f"modify column {self._column(short, short.type)}")
            elif column.name in freed(table, key):
                free = replace(column, is_nullable=True)
                parts.append(f"modify column {self._column(free, free.type)}")
        if key:
            parts.append(f"add primary key ({self.names(key)})")
        return [f"alter table {self.table(table.name)} {', '.join(parts)}"]

    def dependents(self, session: Session, table: Table) -> Sequence[str]:
        """Return indexes, triggers, foreign keys, partitions and history."""
        return catalog.dependents(session, table.name)

    def swap(self, staging: TableName, target: Table | None, name: TableName, key: Sequence[str]) -> Sequence[Action]:
        """Note that the staging table takes the target's place with the commit."""
        return [SwapAfterCommit(name.schema, staging.name, name.name)]

    # ------------------------------------------------------------------- data
    def cast(self, expression: str, column_type: str, staged_type: str) -> str:
        """Values are staged in the column's own type."""
        return expression

    def merge(
        self,
        target: Table,
        staging: TableName,
        columns: Sequence[Column],
        staged: Mapping[str, str],
        key: Sequence[str],
        method: ConflictMethod,
    ) -> Sequence[Action]:
        """Insert in order of arrival, so that the last record of a key wins; not where another index may interfere.

        Nor where the key's own index takes texts for equal that are not. Where what is there counts, the last one goes
        first.
        """
        known = ("", self.collation)
        is_blurred = any(
            c.name in key and c.collation not in known and not _is_exact(c.collation) for c in target.columns
        )
        if is_blurred or set(target.unique_keys) != {frozenset(key)}:
            return super().merge(target, staging, columns, staged, key, method)
        arriving = {column.name for column in columns}
        changes = [
            f"{self.quote(column.name)} = values({self.quote(column.name)})"
            for column in columns
            if column.name not in key
        ]
        changes += [
            f"{self.quote(column.name)} = null" for column in target.columns if self._is_emptied(column, arriving)
        ]
        if method is ConflictMethod.IGNORE or not changes:
            same = self.quote(columns[0].name)
            changes = [f"{same} = {self.table(target.name)}.{same}"]
        order = " desc" if method is ConflictMethod.IGNORE else ""
        names = self.names([column.name for column in columns])
        values = self.names([column.name for column in columns], "s.")
        return [
            f"insert into {self.table(target.name)} ({names}) select {values} from {self.table(staging)} as s "
            f"order by s.{self.quote(SEQUENCE)}{order} on duplicate key update {', '.join(changes)}"
        ]

    def replace_in_place(
        self,
        target: Table,
        staging: TableName,
        columns: Sequence[Column],
        staged: Mapping[str, str],
        key: Sequence[str],
    ) -> Sequence[str]:
        """Write the same statements as the base, with MySQL's DELETE."""
        first, *rest = super().replace_in_place(target, staging, columns, staged, key)
        return [first.replace("delete from ", "delete t from ", 1), *rest]

    def replace_changed(
        self,
        target: Table,
        staging: TableName,
        columns: Sequence[Column],
        staged: Mapping[str, str],
        key: Sequence[str],
    ) -> Sequence[str]:
        """Write the same statements as the base, with MySQL's DELETE."""
        first, *rest = super().replace_changed(target, staging, columns, staged, key)
        return [first.replace("delete from ", "delete t from ", 1), *rest]

    def differs(self, columns: Sequence[Column], staged: Mapping[str, str]) -> str:
        """Compare texts by their characters, whatever the table's own collation takes for the same."""
        parts = []
        for column in columns:
            pair = [f"t.{self.quote(column.name)}", f"s.{self.quote(column.name)}"]
            if Kind.parse(column.type).is_text:
                pair = [f"convert({each} using utf8mb4) collate {self.collation}" for each in pair]
                if not _is_exact(self.collation):  # it takes no heed of spaces at the end
                    parts.append("not ({} <=> {})".format(*(f"char_length({each})" for each in pair)))
            parts.append("not ({} <=> {})".format(*pair))
        return " or ".join(parts)

    def delete_keys(
        self,
        target: Table,
        columns: Sequence[Column],
        removed: tuple[TableName, Mapping[str, str]],
        key: Sequence[str],
        *,
        kept: tuple[TableName, Mapping[str, str]] | None,
    ) -> str:
        """Write the base's statement as MySQL's DELETE."""
        sql = super().delete_keys(target, columns, removed, key, kept=kept)
        return sql.replace("delete from ", "delete t from ", 1)

    def _same_key(self, columns: Sequence[Column], staged: Mapping[str, str], key: Sequence[str]) -> str:
        """Compare texts character by character, whatever the table's own collation, but find them by its index."""
        conditions = []
        for column in columns:
            if column.name not in key:
                continue
            held, arriving = f"t.{self.quote(column.name)}", f"s.{self.quote(column.name)}"
            if column.collation in ("", self.collation):
                conditions.append(f"{held} = {arriving}")
                continue
            charset = column.collation.partition("_")[0]
            conditions.append(f"{held} = convert({arriving} using {charset}) collate {column.collation}")
            conditions.append(f"{held} = {arriving} collate {self.collation}")
        return " and ".join(conditions)

    def _update(
        self, target: Table, source: str, columns: Sequence[Column], staged: Mapping[str, str], key: Sequence[str]
    ) -> str:
        arriving = {column.name for column in columns}
        assignments = [
            f"t.{self.quote(column.name)} = s.{self.quote(column.name)}" for column in columns if column.name not in key
        ]
        assignments += [
            f"t.{self.quote(column.name)} = null" for column in target.columns if self._is_emptied(column, arriving)
        ]
        if not assignments:
            return ""
        joined = f"{self.table(target.name)} as t join {source} as s on {self._same_key(target.columns, staged, key)}"
        return f"update {joined} set {', '.join(assignments)}"


def _is_exact(collation: str) -> bool:
    """Tell whether a collation tells all texts apart, by spaces at the end as well."""
    return collation == "binary" or collation.endswith(("_nopad_bin", "_0900_bin"))


def _fit(name: str) -> str:
    """Return the name, or for one that is no identifier here one told apart by a hash.

    Identifiers have at most 64 characters, none past U+FFFF, and no white space at their end.
    """
    is_fine = (
        len(name) <= MAX_CHARACTERS and name == name.rstrip(" \t\n\v\f\r") and all(ord(char) <= 0xFFFF for char in name)
    )
    return name if is_fine else _marked(name)


def _marked(name: str) -> str:
    digest = tell_apart(name, None)[-17:]
    plain = "".join(char if ord(char) <= 0xFFFF else "_" for char in name)
    return plain[: MAX_CHARACTERS - len(digest)] + digest


__all__ = ["MySQLDialect"]
