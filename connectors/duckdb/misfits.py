"""What staged records break a table's constraints: asked before they go in, since DuckDB has no savepoints.

After a constraint has refused a record, DuckDB lets nothing more happen in the transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ..sql.dialect import SEQUENCE, Column, Dialect, Table
from ..sql.identifiers import TableName

#: Column of a staged record's place, beside those of the target.
_PLACE = "_syncblocks_place"


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfits:
    """Conditions on staged records `s` for one way to write them."""

    dialect: Dialect
    target: Table
    staging: TableName
    #: Those that are staged.
    columns: Sequence[Column]
    #: Column -> type in the staging table.
    staged: Mapping[str, str]
    #: Of a merge.
    key: Sequence[str]
    #: Records whose key is there already are left alone.
    is_ignoring: bool
    #: The target will be emptied before.
    is_emptied: bool

    def conditions(self, constraints: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
        """Yield a condition and what is wrong with records that meet it.

        Args:
            constraints: of the target, as `duckdb_constraints()` has them.
        """
        arriving = {column.name for column in self.columns}
        is_new = f" and not exists ({self._known()})" if self.is_ignoring else ""
        for column in self.columns:
            if self.staged[column.name] != column.type:
                value = f"s.{self.dialect.quote(column.name)}"
                condition = f"{value} is not null and try_cast({value} as {column.type}) is null"
                yield f"{condition}{is_new}", f"column {column.name!r} is {column.type}, which does not hold its value"
        for constraint in sorted(constraints, key=lambda each: _ORDER.get(each["constraint_type"], 0)):
            names = list(constraint["constraint_column_names"])
            condition = self._condition(constraint, names, arriving) if arriving & set(names) else ""
            if condition:
                of = f" of {', '.join(map(repr, names))}" if constraint["constraint_type"] == "NOT NULL" else ""
                yield f"{condition}{is_new}", f"{constraint['constraint_text']}{of} is not met"

    def _condition(self, constraint: Mapping[str, Any], names: list[str], arriving: Collection[str]) -> str:
        kind = constraint["constraint_type"]
        if kind == "CHECK":
            return self._unchecked(str(constraint["expression"]))
        if not set(names) <= set(arriving):
            return ""
        if kind == "NOT NULL":
            return f"s.{self.dialect.quote(names[0])} is null"
        if kind == "FOREIGN KEY":
            return self._dangling(constraint, names, arriving)
        return "" if set(names) == set(self.key) else self._repeated(names)

    def _unchecked(self, expression: str) -> str:
        """Evaluate a CHECK over what the target's columns will hold; it may name the table."""
        quote, arriving = self.dialect.quote, {column.name for column in self.columns}
        fields = ", ".join(
            f"s.{quote(column.name)}"
            if column.name in arriving
            else f"cast(null as {column.type}) as {quote(column.name)}"
            for column in self.target.columns
        )
        inner = f"select s.rowid as {_PLACE}, {fields} from {self.dialect.table(self.staging)} as s"
        return f"s.rowid in (select {_PLACE} from ({inner}) as {quote(self.target.name.name)} where not ({expression}))"

    def _dangling(self, constraint: Mapping[str, Any], names: list[str], arriving: Collection[str]) -> str:
        other = TableName(self.target.name.schema, str(constraint["referenced_table"]))
        others = cast("list[str]", constraint["referenced_column_names"])
        places = [] if other == self.target.name and self.is_emptied else [other]
        if other == self.target.name and set(others) <= set(arriving):
            places.append(self.staging)
        parts = [f"s.{self.dialect.quote(name)} is not null" for name in names]
        same = self._same(others, "r", names)
        parts += [f"not exists (select 1 from {self.dialect.table(place)} as r where {same})" for place in places]
        return " and ".join(parts)

    def _repeated(self, names: list[str]) -> str:
        """Tell of records whose values another one has: one of the target, or one that came earlier."""
        dialect, same = self.dialect, self._same(names, "o", names)
        if self.key:
            number = dialect.quote(SEQUENCE)
            same = f"{same} and not ({self._same(self.key, 'o', self.key)})"
            staged, earlier = dialect.latest(self.staging, self.key), f"o.{number} < s.{number}"
        else:
            staged, earlier = dialect.table(self.staging), "o.rowid < s.rowid"
        found = [f"exists (select 1 from {staged} as o where {same} and {earlier})"]
        if not self.is_emptied:
            found.append(f"exists (select 1 from {dialect.table(self.target.name)} as o where {same})")
        return f"({' or '.join(found)})"

    def _known(self) -> str:
        same = self._same(self.key, "o", self.key)
        return f"select 1 from {self.dialect.table(self.target.name)} as o where {same}"

    def _same(self, names: Sequence[str], alias: str, staged: Sequence[str]) -> str:
        quote = self.dialect.quote
        pairs = zip(names, staged, strict=True)
        return " and ".join(f"{alias}.{quote(name)} = s.{quote(own)}" for name, own in pairs)


#: Unique and foreign keys are asked of what is left after the others.
_ORDER = {"UNIQUE": 1, "PRIMARY KEY": 1, "FOREIGN KEY": 2}


__all__ = ["Misfits"]
