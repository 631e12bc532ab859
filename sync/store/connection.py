"""A connection of the run store: plain SQL that SQLite and PostgreSQL both understand, and values beyond theirs."""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType, SimpleNamespace
from typing import Any

from .tables import FLAGS, JSON, TIMES

#: A row: an attribute a column.
Row = SimpleNamespace

Values = Mapping[str, Any]
NOTHING: Values = MappingProxyType({})


class Conflict(Exception):
    """There is such a row already."""


class Driver(ABC):
    """Opens connections that begin no transaction by themselves, and translates for them."""

    #: What it raises, and what of that says that there is such a row already.
    errors: tuple[type[Exception], ...]
    conflicts: tuple[type[Exception], ...]
    #: Type of a key that counts up, and is never given twice.
    serial: str
    #: Held by who writes.
    turn: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()

    @abstractmethod
    def connect(self) -> Any:
        """Open a connection."""

    @abstractmethod
    def begin(self, raw: Any, *, is_writing: bool) -> None:
        """Begin a transaction."""

    def is_lost(self, raw: Any) -> bool:
        """Whether the other side has hung up."""
        return False

    @abstractmethod
    def sql(self, statement: str) -> str:
        """Return a statement, see `Connection`, as the database takes it."""

    @abstractmethod
    def encode_time(self, value: datetime) -> Any:
        """Turn an aware time into what the database keeps."""

    @abstractmethod
    def decode_time(self, value: Any) -> datetime:
        """Turn it back, into UTC."""

    @abstractmethod
    def has_table(self, connection: Connection, name: str) -> bool:
        """Whether there is such a table."""

    @abstractmethod
    def now(self, connection: Connection) -> datetime:
        """Return the time by which all processes measure leases."""

    @abstractmethod
    def lock_name(self, connection: Connection, name: str) -> None:
        """Keep other writers out of what the name stands for, until the transaction ends."""

    @abstractmethod
    def try_lock_name(self, connection: Connection, name: str) -> bool:
        """Do what `lock_name` does if nobody else does; False: somebody does."""


class Connection:
    """A transaction's connection.

    Statements name their values (`:name`). They end in ` FOR UPDATE` where rows are locked, and compare flags with
    ` = TRUE` or ` = FALSE`: SQLite needs neither lock nor word.
    """

    __slots__ = ("_driver", "_raw")

    def __init__(self, raw: Any, driver: Driver) -> None:
        """Wrap what the driver opened."""
        self._raw = raw
        self._driver = driver

    def rows(self, statement: str, values: Values = NOTHING) -> list[Row]:
        """Return all rows."""
        cursor = self._execute(statement, values)
        names = [column[0] for column in cursor.description]
        decoders = [(place, decoder) for place, name in enumerate(names) if (decoder := self._decoder(name))]
        found = []
        for row in cursor.fetchall():
            read = dict(zip(names, row, strict=True))
            for place, decode in decoders:
                if row[place] is not None:
                    read[names[place]] = decode(row[place])
            found.append(SimpleNamespace(**read))
        return found

    def row(self, statement: str, values: Values = NOTHING) -> Row | None:
        """Return the first row, if there is one."""
        return next(iter(self.rows(statement, values)), None)

    def column(self, statement: str, values: Values = NOTHING) -> list[Any]:
        """Return the first column of all rows."""
        return [next(iter(vars(row).values())) for row in self.rows(statement, values)]

    def value(self, statement: str, values: Values = NOTHING) -> Any:
        """Return the first column of the first row; None, too, if there is none."""
        return next(iter(self.column(statement, values)), None)

    def run(self, statement: str, values: Values = NOTHING) -> int:
        """Execute what returns no rows; return how many it changed."""
        return int(self._execute(statement, values).rowcount)

    def run_many(self, statement: str, values: Iterable[Values]) -> None:
        """Execute it for each of the values."""
        bound = [self._bind(one) for one in values]
        if len(bound) == 1:
            self._raw.execute(self._driver.sql(statement), bound[0])
        elif bound:
            self._raw.cursor().executemany(self._driver.sql(statement), bound)

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what is done inside, and only that, if it fails."""
        self.run("SAVEPOINT inner_part")
        try:
            yield
        except BaseException:
            self.run("ROLLBACK TO SAVEPOINT inner_part")
            raise
        finally:
            self.run("RELEASE SAVEPOINT inner_part")

    def _execute(self, statement: str, values: Values) -> Any:
        return self._raw.execute(self._driver.sql(statement), self._bind(values))

    def _bind(self, values: Values) -> dict[str, Any]:
        bound = dict(values)
        for name, value in values.items():
            if value is None:
                continue
            if name in JSON:
                bound[name] = json.dumps(value, separators=(",", ":"))
            elif isinstance(value, datetime):
                bound[name] = self._driver.encode_time(value)
        return bound

    def _decoder(self, name: str) -> Callable[[Any], Any] | None:
        if name in JSON:
            return json.loads
        if name in TIMES:
            return self._driver.decode_time
        return bool if name in FLAGS else None


def insert(table: str, columns: Iterable[str] | str) -> str:
    """Return the statement that writes a row; its values are named like its columns."""
    names = _names(columns)
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})"


def update(table: str, columns: Iterable[str] | str, where: str) -> str:
    """Return the statement that sets columns to the values named like them."""
    return f"UPDATE {table} SET {', '.join(f'{name} = :{name}' for name in _names(columns))} WHERE {where}"


def _names(columns: Iterable[str] | str) -> list[str]:
    return columns.split() if isinstance(columns, str) else list(columns)


def one_of(column: str, values: Sequence[Any]) -> tuple[str, dict[str, Any]]:
    """Return the condition that a column holds one of some values, and these by name."""
    named = {f"in_{column}_{number}": value for number, value in enumerate(values)}
    return f"{column} IN ({', '.join(f':{name}' for name in named) or 'NULL'})", named
