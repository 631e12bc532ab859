"""The dialect of `sqlalchemy`: what SQLAlchemy's dialects know, and statements that every system has."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pyarrow as pa
import sqlalchemy as sa

from ..sql.dialect.catalog import Catalog
from ..sql.dialect.dialect import Dialect
from ..sql.dialect.facts import Facts
from ..sql.dialect.types import Types, native_of
from ..sql.identifiers import SEQUENCE, STAGING_PREFIX, TableName
from ..sql.session import Session
from ..sql.tables import Column, Table, Wire
from . import catalog
from .naming import SQLAlchemyNaming
from .tables import SQLAlchemyTables
from .traits import Traits
from .types import SQLAlchemyKind, ddl, is_rounded, key_kind, kind_for, widen
from .write_statements import SQLAlchemyWrites, own_session

#: Dialects whose constraints may wait for the commit.
_DEFERRING = ("oracle", "postgresql")


class SQLAlchemyTypes(Types):
    """Columns have the kinds of `types`."""

    def __init__(self, dialect: sa.Dialect) -> None:
        self._own = dialect
        #: What the system keeps of values; found out by a destination's first connection.
        self.traits = Traits()

    def column_type(self, column: pa.Field) -> str:
        """Return the kind of a new column; that of the source where it is of this connector too."""
        native = SQLAlchemyKind.parse(native_of(column, "sqlalchemy"))
        is_own = native.is_known and native.arrow == column.type
        kind = native if is_own else kind_for(column.type, column.name)
        return str(self._offered(kind))

    def _offered(self, kind: SQLAlchemyKind) -> SQLAlchemyKind:
        """Return a kind that a column keeps in this system, and that its catalog tells again."""
        own = self._own
        if kind.name == "uuid" and not own.supports_native_uuid:
            return SQLAlchemyKind("varchar", 36)
        if kind.name == "timestamptz" and ddl(kind, own) == ddl(SQLAlchemyKind("timestamp"), own):
            return SQLAlchemyKind("timestamp")
        return SQLAlchemyKind("text") if kind.name == "json" or is_rounded(kind, own) else kind

    def wire(self, column_type: str, arrow: pa.DataType) -> Wire:
        """Values travel in the type in which the column is read."""
        kind = SQLAlchemyKind.parse(column_type).arrow
        # Fractions of seconds that the system has no place for are looked at one by one.
        return Wire(type=column_type, arrow=pa.string() if kind == pa.json_() else kind)

    def arrow_of(self, column: Column) -> pa.DataType:
        """Return the type in which the column is read."""
        return SQLAlchemyKind.parse(column.type).arrow

    def kept_as(self, column_type: str, arriving: pa.DataType) -> tuple[pa.DataType, bool]:
        """Say what values are in a column: in how fine a unit, for one."""
        kind = SQLAlchemyKind.parse(column_type).arrow
        if pa.types.is_timestamp(kind):
            return pa.timestamp(_unit(self.traits.timestamp_step_us), kind.tz), False
        if pa.types.is_time(kind):
            unit = _unit(self.traits.time_step_us)
            return pa.time64(unit) if unit == "us" else pa.time32(unit), False
        return pa.float64() if is_rounded(SQLAlchemyKind.parse(column_type), self._own) else kind, False

    def key_type(self, column_type: str, texts: int) -> str:
        """Return the type of a key's column."""
        return str(key_kind(SQLAlchemyKind.parse(column_type), texts))

    def widen(self, before: str, after: str) -> str | None:
        """Return the wider kind."""
        found = widen(SQLAlchemyKind.parse(before), SQLAlchemyKind.parse(after))
        return None if found is None else str(found)


class SQLAlchemyCatalog(Catalog):
    """Reads the catalog through SQLAlchemy's inspector."""

    def __init__(self, naming: SQLAlchemyNaming) -> None:
        super().__init__(naming)
        self._spelling = naming.spelling
        #: Schema -> its foreign keys. To find those that point at a table, an inspector reads the keys of all tables.
        self._references: dict[str, catalog.References] = {}

    def forget(self) -> None:
        """Read the foreign keys again: another run begins."""
        self._references = {}

    def reflect(self, session: Session, tables: Sequence[TableName]) -> Mapping[TableName, Table]:
        """Read the catalog; foreign keys that point at a table are those of the first reading in a run."""
        references = self._references
        return own_session(session).inspect(
            lambda connection: catalog.reflect(connection, self._spelling, tables, references)
        )

    def unique_keys(self, session: Session, table: Table) -> Collection[frozenset[str]]:
        """Ask for the unique indexes: a load does not need to know them."""
        found = own_session(session).inspect(
            lambda connection: catalog.unique_indexes(connection, self._spelling, table.name)
        )
        return {*super().unique_keys(session, table), *found}

    def list_staging(self, session: Session) -> Sequence[TableName]:
        """Return leftovers of the schema that a destination writes by default; of others nobody knows."""
        schema = self._naming.default_schema
        names = own_session(session).inspect(lambda connection: catalog.list_tables(connection, self._spelling, schema))
        return [name for name in names if name.name.lower().startswith(STAGING_PREFIX)]


def dialect(naming: SQLAlchemyNaming, types: SQLAlchemyTypes) -> Dialect:
    """Put the parts together."""
    facts = Facts(
        appends_directly=False,
        adopts_staging=False,
        renames=False,
        retypes_columns=False,  # each system has its own statement
        keeps_not_null=naming.engine.dialect.name in KEEP_NOT_NULL,
        makes_in_transaction=False,
        timestamp_type="timestamptz",
        inserts_many=naming.engine.dialect.supports_multivalues_insert,
        alters_at_once=True,  # in a transaction of its own
        arrival=naming.quote(SEQUENCE),
        check_now="set constraints all immediate" if naming.engine.dialect.name in _DEFERRING else "",
    )
    return Dialect(
        naming=naming,
        facts=facts,
        types=types,
        catalog=SQLAlchemyCatalog(naming),
        tables=SQLAlchemyTables(naming),
        writes=SQLAlchemyWrites(naming, facts),
    )


#: Systems that tell an empty text from NULL, and whose columns cease to be NOT NULL by a statement that changes nothing
#: else of them.
KEEP_NOT_NULL = ("cockroachdb", "firebird", "firebird.firebird", "firebird.firebirdsql", "mssql", "postgresql")


def _unit(step_us: int) -> str:
    return "us" if step_us == 1 else "ms" if step_us <= 1000 else "s"


__all__ = ["SQLAlchemyTypes", "dialect"]
