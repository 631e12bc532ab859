"""The generic part of the SQL base: what SQLAlchemy's dialects know, and statements that every system has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from ..errors import FatalConnectorError
from ..sql.actions import Action, LockByRow
from ..sql.dialect.dialect import Dialect
from ..sql.identifiers import SEQUENCE, STAGING_PREFIX, TableName
from ..sql.session import Session
from ..sql.tables import Column, Table, Wire
from ..stream import ConflictMethod
from . import catalog
from .colliding_keys import refuse_colliding_keys
from .names import Names
from .session import AlchemySession
from .traits import Traits
from .types import KEY_CHARACTERS, Kind, ddl, is_rounded, key_kind, kind_for, sqlalchemy_type, widen

#: Dialects that add a column without the word COLUMN.
_ADD = ("firebird", "firebird.firebird", "firebird.firebirdsql", "hana", "mssql", "oracle")

#: Dialects whose constraints may wait for the commit.
_DEFERRING = ("oracle", "postgresql")


@dataclass(frozen=True, slots=True)
class Slice(TableName):
    """Staged records from a number to another."""

    first: int
    last: int


class SQLAlchemyDialect(Dialect):
    """One SQLAlchemy dialect. Columns have the kinds of `types`; names are spelled as SQLAlchemy does: where a system
    folds names to upper case, a name in lower case is the same to it in any case.

    Data is staged in plain tables. A table is replaced by emptying and refilling it: there is no general way to rename
    one, nor to find out what hangs on it (grants, views, triggers), which stays so.
    """

    name = "sqlalchemy"
    appends_directly = False
    adopts_staging = False
    renames = False
    slices = True
    timestamp_type = "timestamptz"
    # In a transaction of its own.
    alters_at_once = True

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.traits = Traits()
        own = engine.dialect
        self.max_identifier_bytes = min(own.max_identifier_length or 63, 255)
        self.names_ = Names(own)
        self.arrival = self.quote(SEQUENCE)
        self.check_now = "set constraints all immediate" if own.name in _DEFERRING else ""

    # ------------------------------------------------------------------ names
    def quote(self, name: str) -> str:
        """Quote a name."""
        return self.names_.quote(name)

    def fold(self, name: str) -> str:
        """Take names that differ in case only for the same: some systems do, and no user wants both."""
        return name.casefold()

    def table_name(self, destination_table: str, default_schema: str) -> TableName:
        """Read a `destination_table`."""
        found = super().table_name(destination_table, default_schema)
        return TableName(self.names_.shown(found.schema) if found.schema else "", self.names_.shown(found.name))

    def plain(self, name: str) -> str:
        """Return the name as the catalog's names are shown."""
        return self.names_.shown(super().plain(name))

    def marked(self, name: str) -> str:
        """Return the name with a hash, as the catalog's names are shown."""
        return self.names_.shown(super().marked(name))

    # ------------------------------------------------------------------ types
    def column_type(self, column: pa.Field) -> str:
        """Return the kind of a new column; that of the source where it is of this connector too."""
        metadata = column.metadata or {}
        native = Kind.parse(metadata.get(b"native_type", b"").decode())
        is_own = metadata.get(b"native_system") == self.name.encode() and native.is_known
        kind = native if is_own and native.arrow == column.type else kind_for(column.type, column.name)
        return str(self._offered(kind))

    def _offered(self, kind: Kind) -> Kind:
        """Return a kind that a column keeps in this system, and that its catalog tells again."""
        own = self.engine.dialect
        if kind.name == "uuid" and not own.supports_native_uuid:
            return Kind("varchar", 36)
        if kind.name == "timestamptz" and ddl(kind, own) == ddl(Kind("timestamp"), own):
            return Kind("timestamp")
        return Kind("text") if kind.name == "json" or is_rounded(kind, own) else kind

    def wire(self, column_type: str, arrow: pa.DataType) -> Wire:
        """Values travel in the type in which the column is read."""
        kind = Kind.parse(column_type).arrow
        # Fractions of seconds that the system has no place for are looked at one by one.
        return Wire(type=column_type, arrow=pa.string() if kind == pa.json_() else kind)

    def arrow_type(self, column: Column) -> pa.DataType:
        """Return the type in which the column is read."""
        return Kind.parse(column.type).arrow

    def kept_as(self, column_type: str, arriving: pa.DataType) -> tuple[pa.DataType, bool]:
        """Say what values are in a column: in how fine a unit, for one."""
        kind = Kind.parse(column_type).arrow
        if pa.types.is_timestamp(kind):
            return pa.timestamp(_unit(self.traits.timestamp_step_us), kind.tz), False
        if pa.types.is_time(kind):
            unit = _unit(self.traits.time_step_us)
            return pa.time64(unit) if unit == "us" else pa.time32(unit), False
        return pa.float64() if is_rounded(Kind.parse(column_type), self.engine.dialect) else kind, False

    def key_type(self, column_type: str, texts: int) -> str:
        """Return the type of a key's column."""
        return str(key_kind(Kind.parse(column_type), texts))

    def widen(self, before: str, after: str) -> str | None:
        """Return the wider kind."""
        found = widen(Kind.parse(before), Kind.parse(after))
        return None if found is None else str(found)

    def native(self, column: Column) -> Column:
        """Return a column with its type as this system's DDL has it."""
        return replace(column, type=ddl(Kind.parse(column.type), self.engine.dialect))

    # ---------------------------------------------------------------- catalog
    def reflect(self, session: Session, tables: Sequence[TableName]) -> Mapping[TableName, Table]:
        """Read the catalog."""
        return _own(session).inspect(lambda connection: catalog.reflect(connection, self.names_, tables))

    def list_staging(self, session: Session) -> Sequence[TableName]:
        """Return leftovers of the schema that a destination writes by default; of others nobody knows."""
        schema = self.default_schema
        names = _own(session).inspect(lambda connection: catalog.list_tables(connection, self.names_, schema))
        return [name for name in names if name.name.lower().startswith(STAGING_PREFIX)]

    def settle(self, session: Session, staging: TableName | None) -> None:
        """Commit the staged records: what follows may have to change tables first."""
        _own(session).settle()

    # ------------------------------------------------------------- savepoints
    def mark(self, session: Session) -> None:
        """Begin what may have to be taken back, by the dialect's own words."""
        _own(session).mark()

    def take_back(self, session: Session) -> None:
        """Undo what was done since `mark`."""
        _own(session).take_back()

    def keep(self, session: Session) -> None:
        """Leave what was done since `mark` as it is."""
        _own(session).keep()

    # -------------------------------------------------------------------- DDL
    def create_table(
        self, name: TableName, columns: Sequence[Column], key: Sequence[str] = (), *, if_not_exists: bool = False
    ) -> str:
        """Write CREATE TABLE with the system's own types."""
        return super().create_table(name, [self.native(column) for column in columns], key)

    def create_staging(self, name: TableName, columns: Sequence[Column], *, numbered: bool) -> str:
        """Write CREATE for a staging table; the session numbers the records."""
        numbers = [Column(name=SEQUENCE, type="bigint")] if numbered else []
        return self.create_table(name, [*columns, *numbers])

    def index_staging(self, name: TableName, columns: Sequence[Column]) -> str:
        """Write it where the system takes such keys: without, many read the whole table for each record."""
        kinds = [Kind.parse(column.type) for column in columns]
        texts = [kind for kind in kinds if kind.is_text]
        are_short = sum(kind.size or KEY_CHARACTERS + 1 for kind in texts) <= KEY_CHARACTERS
        if not all(kind.is_text or kind.is_number_or_time for kind in kinds) or not (
            are_short or self.engine.dialect.name in _INDEXES_TEXTS
        ):
            return ""
        index = self.quote(f"{name.name}_k")
        return f"create index {index} on {self.table(name)} ({self.names([column.name for column in columns])})"

    def create_replacement(self, name: TableName, columns: Sequence[Column], key: Sequence[str]) -> str:
        """Write CREATE for a staging table that the target is refilled from."""
        return self.create_staging(name, columns, numbered=True)

    def drop_table(self, name: TableName) -> str:
        """Write DROP TABLE; of one that is there."""
        return f"drop table {self.table(name)}"

    def add_column(self, name: TableName, column: Column) -> str:
        """Write ADD COLUMN."""
        word = "add" if self.engine.dialect.name in _ADD else "add column"
        return f"alter table {self.table(name)} {word} {self.quote(column.name)} {self.native(column).type}"

    def alter_type(self, name: TableName, column: Column) -> str:
        """Write the change to a wider type."""
        native = ddl(Kind.parse(column.type), self.engine.dialect)
        how = {"mssql": "alter column {} {}", "oracle": "modify {} {}"}.get(
            self.engine.dialect.name, "alter column {} type {}"
        )
        return f"alter table {self.table(name)} {how.format(self.quote(column.name), native)}"

    def lock_late(self, name: TableName) -> Action:
        """Lock a row of the ledger: no statement that locks a table is known to all systems."""
        return LockByRow(self.table(name))

    def perform(self, session: Session, action: Action) -> None:
        """Run an action, the lock by a row included."""
        if isinstance(action, LockByRow):
            _own(session).lock(action.table)
        else:
            super().perform(session, action)

    # ------------------------------------------------------------------- data
    def slice(self, staging: TableName, first: int, last: int) -> TableName:
        """Return a name that statements read as a derived table: no table can be made within the transaction."""
        return Slice(staging.schema, staging.name, first, last)

    def staged_records(
        self, session: Session, staging: TableName, columns: Sequence[Column], numbers: str
    ) -> Sequence[tuple[Any, ...]]:
        """Read staged records as what SQLAlchemy makes of them."""
        own = self.engine.dialect
        kinds = [*(sqlalchemy_type(Kind.parse(column.type), own) for column in columns), sa.BigInteger()]
        names = [*(column.name for column in columns), SEQUENCE]
        made = [sa.column(self.names_.spell(name), kind) for name, kind in zip(names, kinds, strict=True)]
        self.names_.table(staging, made)
        condition = sa.text(f"{self.quote(SEQUENCE)} in {numbers}")
        rows = _own(session).rows(sa.select(made[-1], *made[:-1]).where(condition))
        return [tuple(value.read() if hasattr(value, "read") else value for value in row) for row in rows]

    def null_key(self, staging: TableName, key: Sequence[str]) -> str:
        """Write the SELECT of one staged record with NULL in its key."""
        source = self._part(staging, key, "s")
        condition = sa.or_(*(source[name].is_(None) for name in key))
        return self._compiled(sa.select(_one()).where(condition).limit(1))

    def refuse_twins(
        self, session: Session, target: Table, staging: TableName, columns: Sequence[Column], key: Sequence[str]
    ) -> None:
        """Raise for staged keys that are other texts than one that the system takes for the same."""
        texts = [column.name for column in columns if column.name in key and Kind.parse(column.type).is_text]
        if texts:
            held, staged = self._part(target.name, key, "t"), self._part(staging, key, "s")
            refuse_colliding_keys(_own(session), target.name, held, staged, texts)

    def repeated_key(self, staging: TableName, key: Sequence[str]) -> str:
        """Write the SELECT of one key that several staged records have."""
        keys = list(self._part(staging, key, "s").values())
        return self._compiled(sa.select(*keys).group_by(*keys).having(sa.func.count() > 1).limit(1))

    def insert_from(
        self, target: TableName, staging: TableName, columns: Sequence[Column], staged: Mapping[str, str]
    ) -> str:
        """Write INSERT ... SELECT of all staged records."""
        names = [column.name for column in columns]
        source = self._part(staging, names, "s")
        return self._compiled(self._insert(self._part(target, names), self._select(source, columns, staged), names))

    def merge(
        self,
        target: Table,
        staging: TableName,
        columns: Sequence[Column],
        staged: Mapping[str, str],
        key: Sequence[str],
        method: ConflictMethod,
    ) -> Sequence[str]:
        """Delete and insert; where foreign keys point at the table, or nothing may change, no record is deleted."""
        names = [column.name for column in columns]
        into = self._part(target.name, [column.name for column in target.columns])
        staged_names = dict.fromkeys([*names, *key, SEQUENCE])  # columns of the key that the table computes, too
        source, latest = (self._part(staging, [*staged_names], alias) for alias in "sl")
        numbers = sa.select(sa.func.max(source[SEQUENCE])).group_by(*(source[name] for name in key))
        is_last = latest[SEQUENCE].in_(numbers)
        insert = self._select(latest, columns, staged).where(is_last)
        first: list[Any] = []
        if method is ConflictMethod.UPDATE and not target.is_referenced:
            first = [sa.delete(_from(into)).where(_exists(source, into, key))]
        else:
            if method is ConflictMethod.UPDATE:
                is_its = sa.and_(_same(latest, into, key), is_last)
                first = self._updates(target, into, latest, columns, key, is_its, _exists(source, into, key))
            insert = insert.where(~_exists(into, latest, key))
        return [self._compiled(each) for each in (*first, self._insert(into, insert, names))]

    def replace_in_place(
        self,
        target: Table,
        staging: TableName,
        columns: Sequence[Column],
        staged: Mapping[str, str],
        key: Sequence[str],
    ) -> Sequence[str]:
        """Write the statements that make the target equal to the staged records without deleting one that stays."""
        names = [column.name for column in columns]
        into = self._part(target.name, [column.name for column in target.columns])
        source = self._part(staging, [*dict.fromkeys([*names, *key])], "s")
        insert = self._select(source, columns, staged).where(~_exists(into, source, key))
        is_there = _exists(source, into, key)
        statements = [
            sa.delete(_from(into)).where(~is_there),
            *self._updates(target, into, source, columns, key, _same(source, into, key), is_there),
            self._insert(into, insert, names),
        ]
        return [self._compiled(each) for each in statements]

    def delete_keys(
        self,
        target: Table,
        columns: Sequence[Column],
        removed: tuple[TableName, Mapping[str, str]],
        key: Sequence[str],
        *,
        kept: tuple[TableName, Mapping[str, str]] | None,
    ) -> str:
        """Write DELETE of the records whose keys are in one staging table, but not in another."""
        into = self._part(target.name, [column.name for column in target.columns])
        condition = _exists(self._part(removed[0], key, "s"), into, key)
        if kept is not None:
            condition = sa.and_(condition, ~_exists(self._part(kept[0], key, "k"), into, key))
        return self._compiled(sa.delete(_from(into)).where(condition))

    def _updates(
        self,
        target: Table,
        into: Part,
        latest: Part,
        columns: Sequence[Column],
        key: Sequence[str],
        is_its: Any,
        is_there: Any,
    ) -> list[Any]:
        arriving = [column.name for column in columns]
        values: dict[Any, Any] = {
            into[name]: sa.select(latest[name]).where(is_its).scalar_subquery() for name in arriving if name not in key
        }
        values |= {into[column.name]: sa.null() for column in target.columns if self._is_emptied(column, arriving)}
        return [sa.update(_from(into)).where(is_there).values(values)] if values else []

    def _insert(self, into: Part, select: Any, names: Sequence[str]) -> Any:
        return sa.insert(_from(into)).from_select([into[name] for name in names], select)

    def _select(self, source: Part, columns: Sequence[Column], staged: Mapping[str, str]) -> Any:
        own = self.engine.dialect
        return sa.select(
            *(
                source[column.name]
                if staged[column.name] == column.type
                else sa.cast(source[column.name], sqlalchemy_type(Kind.parse(column.type), own))
                for column in columns
            )
        )

    def _part(self, name: TableName, columns: Sequence[str], alias: str = "") -> Part:
        """Return columns of a table, by their names here."""
        made: list[Any] = [sa.column(self.names_.spell(column)) for column in columns]
        if isinstance(name, Slice):
            number: Any = sa.column(self.names_.spell(SEQUENCE))
            self.names_.table(TableName(name.schema, name.name), [*made, number])
            sliced = sa.select(*made).where(number.between(name.first, name.last)).subquery(alias)
            return {column: sliced.c[one.name] for column, one in zip(columns, made, strict=True)}
        table = self.names_.table(name, made)
        if not alias:
            return dict(zip(columns, made, strict=True))
        aliased = table.alias(alias)
        return {column: aliased.c[one.name] for column, one in zip(columns, made, strict=True)}

    def _compiled(self, clause: Any) -> str:
        """Return a clause without parameters as text."""
        text = str(clause.compile(dialect=self.engine.dialect, compile_kwargs={"literal_binds": True}))
        return text.replace("%%", "%") if self.names_.doubles_percents else text


#: Columns of a table, by their names here.
Part = dict[str, Any]


#: Systems that take texts without a limit into an index.
_INDEXES_TEXTS = ("sqlite", "postgresql")


def _one() -> Any:
    return sa.literal_column("1")


def _from(part: Part) -> Any:
    return next(iter(part.values())).table


def _same(one: Part, other: Part, key: Sequence[str]) -> Any:
    return sa.and_(*(one[name] == other[name] for name in key))


def _exists(part: Part, other: Part, key: Sequence[str]) -> Any:
    """Tell whether a part has a record of the same key as the other's."""
    return sa.exists(sa.select(_one()).select_from(_from(part)).where(_same(part, other, key)))


def _unit(step_us: int) -> str:
    return "us" if step_us == 1 else "ms" if step_us <= 1000 else "s"


def _own(session: Session) -> AlchemySession:
    if not isinstance(session, AlchemySession):
        raise FatalConnectorError("not a session of this connector", connector="sqlalchemy")
    return session


__all__ = ["SQLAlchemyDialect"]
