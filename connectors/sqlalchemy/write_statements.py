"""Statements that write records through SQLAlchemy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from ..errors import FatalConnectorError
from ..sql.actions import Action, LockByRow
from ..sql.dialect.facts import Facts
from ..sql.dialect.write_statements import BOUNDS, SlicesStaging, Writes
from ..sql.identifiers import SEQUENCE, TableName
from ..sql.session import Session
from ..sql.tables import Column, ColumnTest, StagingTable, Table
from ..write_spec import ConflictMethod
from .colliding_keys import refuse_colliding_keys
from .naming import Slice, SQLAlchemyNaming
from .session import AlchemySession
from .types import SQLAlchemyKind, sqlalchemy_type


class SQLAlchemyWrites(Writes, SlicesStaging):
    """Statements that every system has."""

    def __init__(self, naming: SQLAlchemyNaming, facts: Facts) -> None:
        super().__init__(naming, facts)
        self._spelling, self._own = naming.spelling, naming.engine.dialect

    def begin_commit(self, session: Session, staging: TableName | None) -> None:
        """Commit the staged records: what follows may have to change tables first."""
        own_session(session).settle()

    def savepoint(self, session: Session) -> None:
        """Begin what may have to be taken back, by the dialect's own words."""
        own_session(session).mark()

    def rollback(self, session: Session) -> None:
        """Undo what was done since `mark`."""
        own_session(session).take_back()

    def release(self, session: Session) -> None:
        """Leave what was done since `mark` as it is."""
        own_session(session).keep()

    def slice(self, staging: TableName, first: int, last: int) -> TableName:
        """Return a name that statements read as a derived table: no table can be made within the transaction."""
        return Slice(staging.schema, staging.name, first, last)

    def staged_records(self, session: Session, staged: StagingTable, numbers: str) -> Sequence[tuple[Any, ...]]:
        """Read staged records as what SQLAlchemy makes of them."""
        own = self._own
        kinds = [*(sqlalchemy_type(SQLAlchemyKind.parse(kind), own) for kind in staged.types.values()), sa.BigInteger()]
        names = [*staged.types, SEQUENCE]
        made = [sa.column(self._spelling.spell(name), kind) for name, kind in zip(names, kinds, strict=True)]
        self._spelling.table(staged.name, made)
        condition = sa.text(f"{self._quote(SEQUENCE)} in {numbers}")
        rows = own_session(session).rows(sa.select(made[-1], *made[:-1]).where(condition))
        return [tuple(value.read() if hasattr(value, "read") else value for value in row) for row in rows]

    def perform(self, session: Session, action: Action) -> None:
        """Run an action, the lock by a row included."""
        if isinstance(action, LockByRow):
            own_session(session).lock(action.table)
        else:
            super().perform(session, action)

    def any_record(self, table: Table) -> str:
        """Write the SELECT of one record of a table."""
        return self._compiled(sa.select(*self._part(table.name, [table.columns[0].name], "t").values()).limit(1))

    def newest(self, table: Table, columns: Sequence[str]) -> str:
        """Write the SELECT of some columns in the record where they are highest."""
        found = self._part(table.name, columns, "t")
        known = sa.and_(*(column.is_not(None) for column in found.values()))
        # Long texts are ordered by their beginning: Firebird orders them by where they are stored, Oracle not at all.
        texts = {column.name for column in table.columns if SQLAlchemyKind.parse(column.type).is_text}
        order = [sa.cast(each, sa.String(255)) if name in texts else each for name, each in found.items()]
        sql = sa.select(*found.values()).where(known).order_by(*(each.desc() for each in order)).limit(1)
        return self._compiled(sql)

    def null_key(self, staging: TableName, key: Sequence[str]) -> str:
        """Write the SELECT of one staged record with NULL in its key."""
        source = self._part(staging, key, "s")
        condition = sa.or_(*(source[name].is_(None) for name in key))
        return self._compiled(sa.select(_one()).where(condition).limit(1))

    def refuse_equal_keys(self, session: Session, target: Table, staged: StagingTable, key: Sequence[str]) -> None:
        """Raise for staged keys that are other texts than one that the system takes for the same."""
        self._refuse_equal(session, target, staged, key, staged.written_to(target))

    def refuse_equal_values(self, session: Session, target: Table, staged: StagingTable, column: Column) -> None:
        """Raise for staged texts that are others than one that the system takes for the same."""
        self._refuse_equal(session, target, staged, [column.name], [column])

    def _refuse_equal(
        self, session: Session, target: Table, staged: StagingTable, key: Sequence[str], columns: Sequence[Column]
    ) -> None:
        texts = [column.name for column in columns if column.name in key and SQLAlchemyKind.parse(column.type).is_text]
        if texts:
            held, arriving = self._part(target.name, key, "t"), self._part(staged.name, key, "s")
            refuse_colliding_keys(own_session(session), target.name, held, arriving, texts)

    def repeated_key(self, staging: TableName, key: Sequence[str]) -> str:
        """Write the SELECT of one key that several staged records have."""
        keys = list(self._part(staging, key, "s").values())
        return self._compiled(sa.select(*keys).group_by(*keys).having(sa.func.count() > 1).limit(1))

    def count_replaced(self, staging: TableName, key: Sequence[str]) -> str:
        """Write the SELECT of the number of staged records that repeat a key, NULL if none does."""
        keys = list(self._part(staging, key, "s").values())
        number = sa.func.count().label("number")
        repeated = (
            sa.select(number).select_from(keys[0].table).group_by(*keys).having(sa.func.count() > 1).subquery("r")
        )
        return self._compiled(sa.select(sa.func.sum(repeated.c.number - 1)))

    def insert_from(self, target: TableName, staged: StagingTable, columns: Sequence[Column]) -> str:
        """Write INSERT ... SELECT of all staged records."""
        names = [column.name for column in columns]
        source = self._part(staged.name, names, "s")
        return self._compiled(self._insert(self._part(target, names), self._select(source, columns, staged), names))

    def merge(
        self, target: Table, staged: StagingTable, key: Sequence[str], method: ConflictMethod
    ) -> Sequence[Action]:
        """Delete and insert; where foreign keys point at the table, or nothing may change, no record is deleted."""
        columns = staged.written_to(target)
        names = [column.name for column in columns]
        into = self._part(target.name, [column.name for column in target.columns])
        staged_names = dict.fromkeys([*names, *key, SEQUENCE])  # columns of the key that the table computes, too
        source, latest = (self._part(staged.name, [*staged_names], alias) for alias in "sl")
        counting = (sa.func.min if method is ConflictMethod.IGNORE else sa.func.max)(source[SEQUENCE])
        counts = latest[SEQUENCE].in_(sa.select(counting).group_by(*(source[name] for name in key)))
        insert = self._select(latest, columns, staged).where(counts)
        first: list[Any] = []
        if method is ConflictMethod.UPDATE and not target.is_referenced:
            first = [sa.delete(_from(into)).where(_exists(source, into, key))]
        else:
            if method is ConflictMethod.UPDATE:
                is_its = sa.and_(_same(latest, into, key), counts)
                first = self._updates(target, into, latest, columns, key, is_its, _exists(source, into, key))
            insert = insert.where(~_exists(into, latest, key))
        return [self._compiled(each) for each in (*first, self._insert(into, insert, names))]

    def replace_in_place(self, target: Table, staged: StagingTable, key: Sequence[str]) -> Sequence[str]:
        """Write the statements that make the target equal to the staged records without deleting one that stays."""
        columns = staged.written_to(target)
        names = [column.name for column in columns]
        into = self._part(target.name, [column.name for column in target.columns])
        source = self._part(staged.name, [*dict.fromkeys([*names, *key])], "s")
        insert = self._select(source, columns, staged).where(~_exists(into, source, key))
        is_there = _exists(source, into, key)
        statements = [
            sa.delete(_from(into)).where(~is_there),
            *self._updates(target, into, source, columns, key, _same(source, into, key), is_there),
            self._insert(into, insert, names),
        ]
        return [self._compiled(each) for each in statements]

    def drop_outrun(
        self, target: Table, staged: StagingTable, column: Column, key: Sequence[str], is_lowest: bool
    ) -> str:
        """Write DELETE of staged records but those with the highest value of their key, of equal ones the last."""
        # Not every system ranks by windows, and not every one deletes from a table that the statement reads as it is.
        into = self._part(staged.name, [SEQUENCE])
        one, other = (self._part(staged.name, [*key, column.name, SEQUENCE], alias) for alias in "so")
        value, rival = (self._in_table(each[column.name], column, staged) for each in (one, other))
        is_equal = sa.or_(rival == value, sa.and_(rival.is_(None), value.is_(None)))
        is_later = sa.and_(is_equal, other[SEQUENCE] > one[SEQUENCE])
        is_beyond = rival < value if is_lowest else rival > value
        is_above = sa.or_(is_beyond, sa.and_(rival.is_not(None), value.is_(None)), is_later)
        beaten = sa.exists(sa.select(_one()).select_from(_from(other)).where(sa.and_(_same(one, other, key), is_above)))
        found: Any = sa.select(one[SEQUENCE].label("place")).where(beaten).subquery("r")
        return self._compiled(sa.delete(_from(into)).where(into[SEQUENCE].in_(sa.select(found.c.place))))

    def drop_older(
        self, target: Table, staged: StagingTable, column: Column, key: Sequence[str], current: str, is_lowest: bool
    ) -> str:
        """Write DELETE of staged records for whose key the target has a newer one."""
        names = [*key, column.name, *([current] if current else [])]
        into, held = self._part(staged.name, [*key, column.name]), self._part(target.name, names, "t")
        value, there = self._in_table(into[column.name], column, staged), held[column.name]
        is_beyond = there < value if is_lowest else there > value
        parts = [_same(held, into, key), there.is_not(None), sa.or_(value.is_(None), is_beyond)]
        parts += [held[current].is_(None)] if current else []
        older = sa.exists(sa.select(_one()).select_from(_from(held)).where(sa.and_(*parts)))
        return self._compiled(sa.delete(_from(into)).where(older))

    def drop_new(self, target: Table, staged: StagingTable, key: Sequence[str]) -> str:
        """Write DELETE of staged records whose key the target lacks."""
        into, held = self._part(staged.name, key), self._part(target.name, key, "t")
        return self._compiled(sa.delete(_from(into)).where(~_exists(held, into, key)))

    def carry(self, target: Table, staged: StagingTable, kept: Sequence[Column], key: Sequence[str]) -> Sequence[str]:
        """Write the statements that give staged records what the target's of the same key have in some columns."""
        names = [column.name for column in kept]
        held, into = self._part(target.name, [*names, *key], "t"), self._part(staged.name, [*names, *key])
        values: dict[Any, Any] = {
            into[name]: sa.select(held[name]).where(_same(held, into, key)).scalar_subquery() for name in names
        }
        return [self._compiled(sa.update(_from(into)).where(_exists(held, into, key)).values(values))]

    def delete_keys(
        self, target: Table, removed: StagingTable, key: Sequence[str], *, kept: StagingTable | None
    ) -> str:
        """Write DELETE of the records whose keys are in one staging table, but not in another."""
        into = self._part(target.name, [column.name for column in target.columns])
        condition = _exists(self._part(removed.name, key, "s"), into, key)
        if kept is not None:
            condition = sa.and_(condition, ~_exists(self._part(kept.name, key, "k"), into, key))
        return self._compiled(sa.delete(_from(into)).where(condition))

    def delete_arriving(self, target: Table, staged: StagingTable, key: Sequence[str]) -> str:
        """Write DELETE of the records whose keys are staged."""
        return self.delete_keys(target, staged, key, kept=None)

    def delete_values(self, target: Table, staged: StagingTable, column: Column) -> str:
        """Write DELETE of the records that have a staged value in a column."""
        return self.delete_keys(target, staged, [column.name], kept=None)

    def delete_meeting(
        self, target: Table, test: ColumnTest, arrived: StagingTable | None = None, key: Sequence[str] = ()
    ) -> str:
        """Write DELETE of the records that meet a test; what is equal is the database's affair."""
        into = self._part(target.name, [column.name for column in target.columns])
        held, name = into[test.column.name], test.column.name
        if test.values is None:
            parts = [held.is_(None) if test.is_null else held.is_not(None)]
        else:
            values = self._part(test.values.name, [name], "v")
            parts = [held.in_(sa.select(self._in_table(values[name], test.column, test.values)))]
        if arrived is not None:
            parts.append(_exists(self._part(arrived.name, key, "s"), into, key))
        return self._compiled(sa.delete(_from(into)).where(sa.and_(*parts)))

    def delete_between(self, target: Table, staged: StagingTable, column: Column) -> str:
        """Write DELETE of the records that are within a range, whose `BOUNDS` are staged."""
        into, bounds = self._part(target.name, [each.name for each in target.columns]), self._part(staged.name, BOUNDS)
        held, (first, last) = into[column.name], (sa.select(bounds[each]).scalar_subquery() for each in BOUNDS)
        return self._compiled(sa.delete(_from(into)).where(sa.and_(held >= first, held < last)))

    def set_columns(self, target: Table, staged: StagingTable, key: Sequence[str], names: Sequence[str]) -> str:
        """Write UPDATE of some columns of the records whose keys are in a staging table, each of them once."""
        into = self._part(target.name, [column.name for column in target.columns])
        source = self._part(staged.name, [*key, *names], "s")
        is_same = _same(source, into, key)
        values: dict[Any, Any] = {}
        for column in target.columns:
            if column.name in names:
                value = self._in_table(source[column.name], column, staged)
                values[into[column.name]] = sa.select(value).where(is_same).scalar_subquery()
        return self._compiled(sa.update(_from(into)).where(_exists(source, into, key)).values(values))

    # ----------------------------------------------------------------- histories
    def latest(self, staging: TableName, key: Sequence[str], *, is_first: bool = False) -> str:
        """Write a derived table of the last staged record of each key, or of the first."""
        number, source = self._quote(SEQUENCE), self._table(staging)
        last = f"select {'min' if is_first else 'max'}(m.{number}) from {source} m group by {self._names(key, 'm.')}"
        return f"(select * from {source} l where l.{number} in ({last}))"

    def cast(self, expression: str, column_type: str, staged_type: str) -> str:
        """Turn a staged expression into the column's type."""
        if column_type == staged_type:
            return expression
        kind = sqlalchemy_type(SQLAlchemyKind.parse(column_type), self._own)
        return self._compiled(sa.cast(sa.literal_column(expression), kind))

    def changed(self, columns: Sequence[Column]) -> str:
        """Compare what no collation has a say in, if there is any way to do so."""
        parts = []
        for column in columns:
            left, right = (f"{alias}.{self._quote(column.name)}" for alias in "ts")
            parts.append(f"({left} is null and {right} is not null) or ({left} is not null and {right} is null)")
            if SQLAlchemyKind.parse(column.type).is_text:
                if self._own.name in _TAKES_SPACES:
                    parts.append(f"octet_length({left}) <> octet_length({right})")
                left, right = (_AS_BYTES.get(self._own.name, "{}").format(each) for each in (left, right))
            parts.append(f"{left} <> {right}")
        return f"case when {' or '.join(parts)} then 1 else 0 end = 1" if parts else "1 = 0"

    def update_from(self, target: Table, source: TableName, values: Mapping[str, str], condition: str) -> str:
        """Write UPDATE with subqueries: not every system joins in one."""
        return self._updated_by(self._table(target.name), "t", f"{self._table(source)} s", values, condition)

    def update_staged(self, staging: TableName, target: Table, values: Mapping[str, str], condition: str) -> str:
        """Write it with subqueries."""
        return self._updated_by(self._table(staging), "s", f"{self._table(target.name)} t", values, condition)

    def _updated_by(self, table: str, alias: str, source: str, values: Mapping[str, str], condition: str) -> str:
        found = {
            name: value if value == "null" else f"(select {value} from {source} where {condition})"
            for name, value in values.items()
        }
        listed = ", ".join(f"{self._quote(name)} = {value}" for name, value in found.items())
        where = f"where exists (select 1 from {source} where {condition})"
        if self._own.name == "mssql":
            return f"update {alias} set {listed} from {table} {alias} {where}"
        return f"update {table} {'' if self._own.name == 'oracle' else 'as '}{alias} set {listed} {where}"

    def _in_table(self, value: Any, column: Column, staged: StagingTable) -> Any:
        """Return a staged value in the type of the table's column."""
        if staged.types[column.name] == column.type:
            return value
        return sa.cast(value, sqlalchemy_type(SQLAlchemyKind.parse(column.type), self._own))

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

    def _select(self, source: Part, columns: Sequence[Column], staged: StagingTable) -> Any:
        return sa.select(*(self._in_table(source[column.name], column, staged) for column in columns))

    def _part(self, name: TableName, columns: Sequence[str], alias: str = "") -> Part:
        """Return columns of a table, by their names here."""
        made: list[Any] = [sa.column(self._spelling.spell(column)) for column in columns]
        if isinstance(name, Slice):
            number: Any = sa.column(self._spelling.spell(SEQUENCE))
            self._spelling.table(TableName(name.schema, name.name), [*made, number])
            sliced = sa.select(*made).where(number.between(name.first, name.last)).subquery(alias)
            return {column: sliced.c[one.name] for column, one in zip(columns, made, strict=True)}
        table = self._spelling.table(name, made)
        if not alias:
            return dict(zip(columns, made, strict=True))
        aliased = table.alias(alias)
        return {column: aliased.c[one.name] for column, one in zip(columns, made, strict=True)}

    def _compiled(self, clause: Any) -> str:
        """Return a clause without parameters as text."""
        text = str(clause.compile(dialect=self._own, compile_kwargs={"literal_binds": True}))
        return text.replace("%%", "%") if self._spelling.doubles_percents else text


#: How texts are compared where a collation may take different ones for equal.
_AS_BYTES = {
    "mysql": "cast({} as binary)",
    "mariadb": "cast({} as binary)",
    "mssql": "cast({} as varbinary(max))",
}

#: Dialects that take no heed of spaces at the end of texts.
_TAKES_SPACES = ("firebird", "firebird.firebird", "firebird.firebirdsql")

#: Columns of a table, by their names here.
Part = dict[str, Any]


def _one() -> Any:
    return sa.literal_column("1")


def _from(part: Part) -> Any:
    return next(iter(part.values())).table


def _same(one: Part, other: Part, key: Sequence[str]) -> Any:
    return sa.and_(*(one[name] == other[name] for name in key))


def _exists(part: Part, other: Part, key: Sequence[str]) -> Any:
    """Tell whether a part has a record of the same key as the other's."""
    return sa.exists(sa.select(_one()).select_from(_from(part)).where(_same(part, other, key)))


def own_session(session: Session) -> AlchemySession:
    if not isinstance(session, AlchemySession):
        raise FatalConnectorError("not a session of this connector", connector="sqlalchemy")
    return session


__all__ = ["SQLAlchemyWrites", "own_session"]
