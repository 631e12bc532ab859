"""The connection of one transaction: plain SQL for SQLite and PostgreSQL alike; columns are encoded and decoded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any, TypeVar

from .codecs import Codec

#: A row has one attribute a column.
Row = SimpleNamespace

Values = Mapping[str, Any]
NOTHING: Values = MappingProxyType({})

T = TypeVar("T")


class Conflict(Exception):
    """A row with the same key exists already."""


class Connection:
    """A transaction's connection.

    Statements name their values (`:name`). A statement that locks rows ends in ` FOR UPDATE`; flags are compared with
    ` = TRUE` or ` = FALSE`. SQLite has neither, so its driver rewrites both.
    """

    __slots__ = ("_codecs", "_raw", "_translate")

    def __init__(self, raw: Any, translate: Callable[[str], str], codecs: Mapping[str, Codec]) -> None:
        """Wrap what a driver opened.

        Args:
            raw: The driver's connection.
            translate: Turns a statement into the dialect of the database.
            codecs: see `codecs`.
        """
        self._raw = raw
        self._translate = translate
        self._codecs = codecs

    def rows(self, statement: str, values: Values = NOTHING) -> list[Row]:
        """Return all rows."""
        cursor = self._execute(statement, values)
        names = [column[0] for column in cursor.description]
        decoders = [(place, codec.decode) for place, name in enumerate(names) if (codec := self._codecs.get(name))]
        found = []
        for row in cursor.fetchall():
            read = dict(zip(names, row, strict=True))
            for place, decode in decoders:
                if row[place] is not None:
                    read[names[place]] = decode(row[place])
            found.append(SimpleNamespace(**read))
        return found

    def row(self, statement: str, values: Values = NOTHING) -> Row | None:
        """Return the first row, or None if there is none."""
        return next(iter(self.rows(statement, values)), None)

    def column(self, statement: str, values: Values = NOTHING) -> list[Any]:
        """Return the first column of all rows."""
        return [next(iter(vars(row).values())) for row in self.rows(statement, values)]

    def value(self, statement: str, values: Values = NOTHING) -> Any:
        """Return the first column of the first row, or None if there is no row."""
        return next(iter(self.column(statement, values)), None)

    def run(self, statement: str, values: Values = NOTHING) -> int:
        """Execute a statement that returns no rows; return the number of rows it changed."""
        return int(self._execute(statement, values).rowcount)

    def run_many(self, statement: str, values: Iterable[Values]) -> None:
        """Execute a statement once for each of the values."""
        bound = [self._bind(one) for one in values]
        if len(bound) == 1:
            self._raw.execute(self._translate(statement), bound[0])
        elif bound:
            self._raw.cursor().executemany(self._translate(statement), bound)

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """Set a savepoint, and roll back to it if the block fails."""
        self.run("SAVEPOINT inner_part")
        try:
            yield
        except BaseException:
            self.run("ROLLBACK TO SAVEPOINT inner_part")
            raise
        finally:
            self.run("RELEASE SAVEPOINT inner_part")

    def _execute(self, statement: str, values: Values) -> Any:
        return self._raw.execute(self._translate(statement), self._bind(values))

    def _bind(self, values: Values) -> dict[str, Any]:
        bound = dict(values)
        for name, value in values.items():
            if value is not None and (codec := self._codecs.get(name)):
                bound[name] = codec.encode(value)
        return bound


def value_of(kind: type[T], row: Row, **others: Any) -> T:
    """Return a value of a dataclass: each field has the row's column of its name, but for those given here."""
    names: Iterable[str] = vars(kind)["__dataclass_fields__"]
    return kind(**{name: others[name] if name in others else getattr(row, name) for name in names})
