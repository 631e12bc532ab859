"""Finds staged records that violate a table's constraints, before they are inserted: DuckDB has no savepoints.

After a constraint has refused a record, DuckDB refuses all further statements of the transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, cast

from msgspec import Struct

from ..sql.identifiers import SEQUENCE, Naming, TableName
from ..sql.tables import Column, StagingTable, Table

#: Columns for a staged record's rank and number, beside the target's columns.
_PLACE, _NUMBER = "_syncblocks_place", "_syncblocks_number"

#: Prefixes of key columns and of unique values.
_KEY, _VALUE = "_syncblocks_key", "_syncblocks_value"


class UniqueIndex(Struct, frozen=True, kw_only=True):
    """A unique index of the target, made by CREATE UNIQUE INDEX."""

    name: str
    #: Columns or expressions of the index, as text from the catalog.
    on: Sequence[str]
    #: Types of the columns or expressions.
    types: Sequence[str]

    def columns(self, table: Table) -> set[str]:
        """Return the columns' names; empty if the index is on an expression."""
        called = {column.name.casefold(): column.name for column in table.columns}
        names = [each[1:-1].replace('""', '"') if each.startswith('"') else each for each in self.on]
        found = [called.get(name.casefold(), "") for name in names]
        return set(found) if all(found) else set()


class Violations(Struct, frozen=True, kw_only=True):
    """Conditions on staged records `s` for one way of writing them."""

    naming: Naming
    #: Derived table with the staged record of each key that counts; for a merge.
    latest: str
    target: Table
    staged: StagingTable
    #: For a merge.
    key: Sequence[str]
    #: Existing keys keep their records unchanged.
    is_ignoring: bool
    #: The target is emptied first.
    is_emptied: bool

    @property
    def _columns(self) -> list[Column]:
        return self.staged.written_to(self.target)

    def conditions(
        self, constraints: Sequence[Mapping[str, Any]], indexes: Sequence[UniqueIndex]
    ) -> Iterator[tuple[str, str]]:
        """Yield conditions on records, each with the reason for its rejection.

        Args:
            constraints: the target's, from `duckdb_constraints()`.
            indexes: the target's.
        """
        is_new = f" and not exists ({self._known('s')})" if self.is_ignoring else ""
        for condition, reason in self._conditions(constraints, indexes):
            yield f"{condition}{is_new}", reason

    def _conditions(
        self, constraints: Sequence[Mapping[str, Any]], indexes: Sequence[UniqueIndex]
    ) -> Iterator[tuple[str, str]]:
        arriving = {column.name for column in self._columns}
        for column in self._columns:
            if self.staged.types[column.name] != column.type:
                value = f"s.{self.naming.quote(column.name)}"
                condition = f"{value} is not null and try_cast({value} as {column.type}) is null"
                yield condition, f"column {column.name!r} is {column.type}, which cannot hold this value"
        for constraint in sorted(constraints, key=lambda each: _ORDER.get(each["constraint_type"], 0)):
            names = list(constraint["constraint_column_names"])
            condition = self._condition(constraint, names, arriving) if arriving & set(names) else ""
            if condition:
                of = f" of {', '.join(map(repr, names))}" if constraint["constraint_type"] == "NOT NULL" else ""
                yield condition, f"{constraint['constraint_text']}{of} is not met"
        for index in indexes:
            if not self.key or index.columns(self.target) != set(self.key):
                reason = (
                    f"another record has the same values in the unique index {index.name!r} on ({', '.join(index.on)})"
                )
                yield self._repeated(index.on, index.types), reason

    def _condition(self, constraint: Mapping[str, Any], names: list[str], arriving: Collection[str]) -> str:
        kind = constraint["constraint_type"]
        if kind == "CHECK":
            return self._unchecked(str(constraint["expression"]))
        if not set(names) <= set(arriving):
            return ""
        if kind == "NOT NULL":
            return f"s.{self.naming.quote(names[0])} is null"
        if kind == "FOREIGN KEY":
            return self._dangling(constraint, names, arriving)
        if set(names) == set(self.key):
            return ""
        types = {column.name: column.type for column in self.target.columns}
        return self._repeated([self.naming.quote(name) for name in names], [types[name] for name in names])

    def _unchecked(self, expression: str) -> str:
        """Evaluate a CHECK over the target's future values; it may name the table."""
        return f"s.rowid in (select {_PLACE} from {self._as_target()} where not ({expression}))"

    def _as_target(self, *, is_latest: bool = False) -> str:
        """Write staged records (or the one that counts of each key) as a table with the target's name and columns."""
        naming = self.naming
        arriving = {column.name for column in self._columns}
        fields = [self._field(column) if column.name in arriving else _null(column) for column in self.target.columns]
        named = [
            f"{field} as {naming.quote(column.name)}" for field, column in zip(fields, self.target.columns, strict=True)
        ]
        places = [] if is_latest else [f"s.rowid as {_PLACE}"]
        places.append(f"s.{naming.quote(SEQUENCE) if self.staged.is_numbered else 'rowid'} as {_NUMBER}")
        source = self.latest if is_latest else naming.table(self.staged.name)
        return f"(select {', '.join([*places, *named])} from {source} as s) as {naming.quote(self.target.name.name)}"

    def _field(self, column: Column) -> str:
        """Write a staged value in the target's type; NULL if it cannot be converted."""
        value = f"s.{self.naming.quote(column.name)}"
        return value if self.staged.types[column.name] == column.type else f"try_cast({value} as {column.type})"

    def _dangling(self, constraint: Mapping[str, Any], names: list[str], arriving: Collection[str]) -> str:
        other = TableName(self.target.name.schema, str(constraint["referenced_table"]))
        others = cast("list[str]", constraint["referenced_column_names"])
        places = [] if other == self.target.name and self.is_emptied else [other]
        if other == self.target.name and set(others) <= set(arriving):
            places.append(self.staged.name)
        parts = [f"s.{self.naming.quote(name)} is not null" for name in names]
        same = self._same(others, "r", names)
        parts += [f"not exists (select 1 from {self.naming.table(place)} as r where {same})" for place in places]
        return " and ".join(parts)

    def _repeated(self, values: Sequence[str], types: Sequence[str]) -> str:
        """Write the condition that another record, of the target or staged earlier, has a staged record's values.

        Args:
            values: expressions over the target's columns; NULL equals nothing.
            types: types of the values.
        """
        naming = self.naming
        shown = [
            f"{exact(value, kind)} as {_VALUE}{place}"
            for place, (value, kind) in enumerate(zip(values, types, strict=True))
        ]
        keys = [f"{self._exact(naming.quote(name), name)} as {_KEY}{place}" for place, name in enumerate(self.key)]
        listed = ", ".join([*keys, *shown])
        same = " and ".join(f"o.{_VALUE}{place} = n.{_VALUE}{place}" for place in range(len(values)))
        # If records of existing keys stay unchanged, the first staged record of a key counts.
        is_first = self.is_ignoring and self.staged.is_numbered
        counts = f" where {_NUMBER} in (select {naming.quote(SEQUENCE)} from {self.latest})" if is_first else ""
        staged = f"(select {_PLACE}, {_NUMBER}, {listed} from {self._as_target()}{counts})"
        # Only one record of each key is written.
        counting = f"select {_NUMBER}, {listed} from {self._as_target(is_latest=self.staged.is_numbered)}"
        goes_in = f" where not exists ({self._known('c', _KEY)})" if self.is_ignoring else ""
        first = ", ".join(f"c.{_VALUE}{place}" for place in range(len(values)))
        first = f"select {first}, min(c.{_NUMBER}) as {_NUMBER} from ({counting}) as c{goes_in} group by {first}"
        found = [f"select n.{_PLACE} from {staged} as n join ({first}) as o on {same} where o.{_NUMBER} < n.{_NUMBER}"]
        if not self.is_emptied:
            table = f"{naming.table(self.target.name)} as {naming.quote(self.target.name.name)}"
            others = f"from {staged} as n join (select {listed} from {table}) as o on {same}"
            found.append(f"select n.{_PLACE} {others}{self._stays(staged)}")
        return f"s.rowid in ({' union all '.join(found)})"

    def _stays(self, staged: str) -> str:
        """Write the condition that a record `o` of the target stays, and so refuses a staged record `n`."""
        if not self.key:
            return ""
        if self.is_ignoring or self.target.is_referenced or self.target.has_triggers:
            return f" where not ({self._same_key('o', 'n')})"
        # A merge by DELETE and INSERT frees the unique values of the old records with its keys.
        return f" where not exists (select 1 from {staged} as r where {self._same_key('r', 'o')})"

    def _same_key(self, one: str, other: str) -> str:
        return " and ".join(f"{one}.{_KEY}{place} = {other}.{_KEY}{place}" for place in range(len(self.key)))

    def _known(self, alias: str, names: str = "") -> str:
        """Select the target's record of the same key."""
        quote = self.naming.quote
        own = [f"{names}{place}" if names else quote(name) for place, name in enumerate(self.key)]
        held = [self._exact(f"t.{quote(name)}", name) for name in self.key]
        same = " and ".join(f"{each} = {alias}.{mine}" for each, mine in zip(held, own, strict=True))
        return f"select 1 from {self.naming.table(self.target.name)} as t where {same}"

    def _same(self, names: Sequence[str], alias: str, staged: Sequence[str]) -> str:
        quote = self.naming.quote
        pairs = zip(names, staged, strict=True)
        return " and ".join(
            f"{exact(f'{alias}.{quote(name)}', self.staged.types[own])} = s.{quote(own)}" for name, own in pairs
        )

    def _exact(self, value: str, name: str) -> str:
        """Write a value of a target column as `exact` does."""
        column = self.target.column(name)
        return value if column is None else exact(value, column.type)


def exact(value: str, kind: str) -> str:
    """Write a value so that its column's collation is ignored, as in DuckDB's indexes."""
    return f"({value}) collate c" if kind.upper() == "VARCHAR" else value


def _null(column: Column) -> str:
    return f"cast(null as {column.type})"


#: Unique and foreign keys are checked after other constraints.
_ORDER = {"UNIQUE": 1, "PRIMARY KEY": 1, "FOREIGN KEY": 2}


__all__ = ["UniqueIndex", "Violations", "exact"]
