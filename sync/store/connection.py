"""The connection of one transaction: plain SQL for SQLite and PostgreSQL alike; columns are encoded and decoded."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType, SimpleNamespace
from typing import Any, TypeVar

from syncblocks.connectors.struct_helpers import names_of

from ..errors import StoreUnreachable
from .codecs import Codec

log = logging.getLogger("syncblocks")

#: A row has one attribute a column.
Row = SimpleNamespace

Values = Mapping[str, Any]
NOTHING: Values = MappingProxyType({})

#: Reads the rows of a statement that was sent; call it once.
Answer = Callable[[], list[Row]]

T = TypeVar("T")


class Conflict(StoreUnreachable):
    """A row with the same key exists already: another process was faster, or the store is damaged."""


class StoreConnection:
    """A transaction's connection.

    Statements name their values (`:name`). A statement that locks rows ends in ` FOR UPDATE`; flags are compared with
    ` = TRUE` or ` = FALSE`, a column with a list of values by ` = ANY(:name)`; a list of texts becomes rows by
    `unnest(CAST(:name AS TEXT[])) AS p (value)`. SQLite has none of these, so its driver rewrites them.

    Where the driver can, a statement is sent without waiting for its answer: `run` and `ask` wait for nothing, the next
    answer that is read waits for all statements before it, and so does the commit, with their errors. Each round trip
    to a server counts: the row of the run may be locked meanwhile.
    """

    __slots__ = ("_codecs", "_pipeline", "_raw", "_translate", "now", "written")

    def __init__(
        self, raw: Any, translate: Callable[[str], str], codecs: Mapping[str, Codec], pipeline: Any = None
    ) -> None:
        """Wrap what a driver opened.

        Args:
            raw: The driver's connection.
            translate: Turns a statement into the dialect of the database.
            codecs: see `codecs`.
            pipeline: The driver's, if statements are sent without waiting; `sync` waits for all.
        """
        self._raw = raw
        self._translate = translate
        self._codecs = codecs
        self._pipeline = pipeline
        #: The store's time when the transaction locked its run; None before.
        self.now: datetime | None = None
        #: Callback block -> the first delivery that the transaction wrote for it.
        self.written: dict[str, Row] = {}

    def ask(self, statement: str, values: Values = NOTHING) -> Answer:
        """Send a statement that returns rows; return what reads them."""
        cursor = self._execute(statement, values)
        if self._pipeline is None:  # the rows are those of now, whatever is written until they are read
            found = self._read(cursor)
            return lambda: found
        return lambda: self._read(cursor)

    def rows(self, statement: str, values: Values = NOTHING) -> list[Row]:
        """Return all rows."""
        return self._read(self._execute(statement, values))

    def row(self, statement: str, values: Values = NOTHING) -> Row | None:
        """Return the first row, or None if there is none."""
        return next(iter(self.rows(statement, values)), None)

    def column(self, statement: str, values: Values = NOTHING) -> list[Any]:
        """Return the first column of all rows."""
        return [next(iter(vars(row).values())) for row in self.rows(statement, values)]

    def value(self, statement: str, values: Values = NOTHING) -> Any:
        """Return the first column of the first row, or None if there is no row."""
        return next(iter(self.column(statement, values)), None)

    def run(self, statement: str, values: Values = NOTHING) -> None:
        """Execute a statement that returns no rows."""
        self._execute(statement, values)

    def changed(self, statement: str, values: Values = NOTHING) -> int:
        """Execute a statement that returns no rows; wait for it, and return the number of rows it changed."""
        cursor = self._execute(statement, values)
        self._settle()
        return int(cursor.rowcount)

    def run_many(self, statement: str, values: Iterable[Values]) -> None:
        """Execute a statement once for each of the values."""
        for one in values:
            self._execute(statement, one)

    def tried(self, work: Callable[[], T]) -> T | None:
        """Return what a part of the transaction returns; None if it fails, then its part is undone.

        Raises:
            Exception: what was sent before the part has failed, or the connection: the transaction is lost.
        """
        self.run("SAVEPOINT inner_part")
        try:
            found = work()
            self.run("RELEASE SAVEPOINT inner_part")
            return found
        except Exception as error:
            with contextlib.suppress(Exception):
                self._settle()  # the server skips everything up to here
            try:
                self.run("ROLLBACK TO SAVEPOINT inner_part")
                self._settle()
            except Exception:
                raise error from None
            log.debug("a part of a transaction was undone", exc_info=True)
            return None

    def _settle(self) -> None:
        """Wait for the answers of all statements that were sent, and raise their errors."""
        if self._pipeline is not None:
            self._pipeline.sync()

    def _execute(self, statement: str, values: Values) -> Any:
        return self._raw.execute(self._translate(statement), self._bind(values))

    def _read(self, cursor: Any) -> list[Row]:
        answer = cursor.fetchall()
        names = [column[0] for column in cursor.description]
        decoders = [(place, codec.decode) for place, name in enumerate(names) if (codec := self._codecs.get(name))]
        found = []
        for row in answer:
            read = dict(zip(names, row, strict=True))
            for place, decode in decoders:
                if row[place] is not None:
                    read[names[place]] = decode(row[place])
            found.append(SimpleNamespace(**read))
        return found

    def _bind(self, values: Values) -> dict[str, Any]:
        bound = dict(values)
        for name, value in values.items():
            if value is not None and (codec := self._codecs.get(name)):
                bound[name] = codec.encode(value)
        return bound


def value_of(kind: type[T], row: Row, **others: Any) -> T:
    """Return a value: each field has the row's column of its name, but for those given here."""
    values = {name: others[name] if name in others else getattr(row, name) for name in names_of(kind)}
    return kind(**values)
