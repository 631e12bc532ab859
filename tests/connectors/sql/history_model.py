"""What a history must hold, in plain Python; and loads drawn at random, which it and the databases carry out."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa

from syncblocks.connectors.stream import VALID_FROM, VALID_TO
from tests.connectors.files import files_readback
from tests.connectors.sqlalchemy import firebird_files
from tests.golden.systems import mysql_connection

#: What stands in columns that are no key, by the beginning of their names.
VALUES: Mapping[str, Sequence[Any]] = {
    "name": ("a", "A", "a ", "", None),
    "n": (0.5, -1.0, None),
    "amount": (1, 2, None),
    "new": ("x", "y", None),
    "stamp": ("one", "two", "three"),
    "first": ("one", "two", "three"),
    "mark": (1, 2, 3, 4),
}

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def moment(number: int) -> datetime:
    """Return a time; the numbers are those of the model."""
    return BEGIN + timedelta(hours=number)


@dataclass
class Row:
    """One version in the table."""

    begun: int
    ended: int | None
    values: dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """What one commit brings: records as they arrive, and the columns that they have."""

    columns: tuple[str, ...]
    #: Key, time (of its own, or the run's) and values.
    records: tuple[tuple[int, int, Mapping[str, Any]], ...]


@dataclass
class Model:
    """The table of one history."""

    has_versions: bool
    in_place: frozenset[str] = frozenset({"stamp", "first", "mark"})
    kept: frozenset[str] = frozenset({"first"})
    #: Column of the bookmark, by which older records are left out; with versions, the number of their time.
    bookmark: str = ""
    columns: list[str] = field(default_factory=list)
    rows: dict[int, list[Row]] = field(default_factory=dict)

    def run(self, batches: Sequence[Batch]) -> None:
        """Carry out one load, commit by commit."""
        added: set[str] = set()
        for batch in batches:
            if self.columns:
                added |= set(batch.columns) - set(self.columns)
            self.columns += [name for name in batch.columns if name not in self.columns]
            for rows in self.rows.values():
                for row in rows:
                    row.values |= {name: None for name in self.columns if name not in row.values}
            compared = [name for name in batch.columns if name not in self.in_place | added]
            in_place = [name for name in batch.columns if name in self.in_place | added]
            if self.has_versions:
                self._versions(batch, compared, in_place)
            else:
                self._last_ones(batch, compared)

    def _last_ones(self, batch: Batch, compared: Sequence[str]) -> None:
        found: dict[int, tuple[int, Mapping[str, Any]]] = {}
        for key, at, values in batch.records:
            current, mark = self._current(key), self.bookmark
            held = None if current is None else current.values.get(mark)
            if held is not None and values.get(mark) is not None and values[mark] < held:
                continue
            found[key] = (at, values)
        for key, (at, values) in found.items():
            self._reopen(key, at)
            current = self._current(key)
            if current is None or (self._differ(current, values, compared) and current.begun < at):
                self._open(key, at, values, current)
            else:
                self._update(current, values)

    def _versions(self, batch: Batch, compared: Sequence[str], in_place: Sequence[str]) -> None:
        found: dict[tuple[int, int], Mapping[str, Any]] = {}
        said = {(key, at): values for key, at, values in batch.records}
        # Of records that begin together, the newest one counts.
        for (key, at), values in sorted(said.items(), key=lambda item: item[0]):
            found[key, self._begin(key, at)] = values
        for key in {key for key, _ in found}:
            self._reopen(key, min(at for other, at in found if other == key))
        rest = []
        for (key, at), values in sorted(found.items(), key=lambda item: item[0]):
            held = next((row for row in self.rows.get(key, []) if row.begun == at), None)
            if held is None:
                rest.append((key, at, values))
            else:
                self._update(held, values)
        first = {key: self._current(key) for key, _, _ in rest}
        for key, at, values in rest:
            before, current = first[key], self._current(key)
            is_late = before is not None and at < before.begun
            if is_late or current is None or self._differ(current, values, compared):
                self._open(key, at, values, before)
            else:
                self._update(current, {name: values[name] for name in in_place})

    def _begin(self, key: int, at: int) -> int:
        """Return when a record begins: where its key came back, it cannot have begun before."""
        rows = self.rows.get(key, [])
        if rows and self._current(key) is None:
            return max(at, max(row.ended or 0 for row in rows))
        taken = [row.begun for row in rows if self.bookmark and row.begun > at >= row.values[self.bookmark]]
        return max(taken, default=at)

    def _reopen(self, key: int, at: int) -> None:
        """Open again what ended as it began, at the time at which the key is back."""
        for row in self.rows.get(key, []) if self._current(key) is None else []:
            if row.begun == row.ended == at:
                row.ended = None

    def end(self, keys: Iterable[int], at: int) -> None:
        """End the current versions of records that are gone."""
        for key in keys:
            current = self._current(key)
            if current is not None:
                current.ended = max(at, current.begun)

    def return_(self, keys: Iterable[int], at: int) -> None:
        """Let keys be back, of whose records nothing is known but the last version."""
        for key in keys:
            rows = self.rows.get(key, [])
            if not rows or self._current(key) is not None:
                continue
            last = max(rows, key=lambda row: row.begun)
            begun = max(at, last.ended or 0)
            self._reopen(key, begun)
            if self._current(key) is None:
                rows.append(Row(begun, None, dict(last.values)))

    def _current(self, key: int) -> Row | None:
        return next((row for row in self.rows.get(key, []) if row.ended is None), None)

    @staticmethod
    def _differ(row: Row, values: Mapping[str, Any], compared: Sequence[str]) -> bool:
        return any(_plain(row.values[name]) != _plain(values[name]) for name in compared)

    def _update(self, row: Row, values: Mapping[str, Any]) -> None:
        row.values |= {name: value for name, value in values.items() if name not in self.kept}

    def _open(self, key: int, at: int, values: Mapping[str, Any], current: Row | None) -> None:
        kept = {} if current is None else {name: current.values[name] for name in self.kept if name in values}
        made = Row(at, None, {name: values.get(name) for name in self.columns} | kept)
        rows = self.rows.setdefault(key, [])
        before = [row for row in rows if row.begun < at and (row.ended is None or row.ended > at)]
        later = [row.begun for row in rows if row.begun > at]
        ends = [*later, *(row.ended for row in before if row.ended is not None)]
        made.ended = min(ends, default=None)
        for row in before:
            row.ended = at
        rows.append(made)

    def table(self) -> list[tuple[Any, ...]]:
        """Return the rows: key, beginning, end, values by column."""
        return sorted(
            (key, row.begun, row.ended, tuple((name, _plain(row.values[name])) for name in sorted(self.columns)))
            for key, rows in self.rows.items()
            for row in sorted(rows, key=lambda row: row.begun)
        )

    def has_no_gaps(self) -> bool:
        """Tell whether each version ends where the next one begins, and the last one is current."""
        ordered = [sorted(rows, key=lambda row: row.begun) for rows in self.rows.values()]
        return all([row.ended for row in rows] == [*(row.begun for row in rows[1:]), None] for rows in ordered if rows)

    def has_no_overlaps(self) -> bool:
        """Tell whether each version ends behind its begin, and before the next one begins; only the last is current."""
        ordered = [sorted(rows, key=lambda row: row.begun) for rows in self.rows.values()]
        bounds = [(row, following) for rows in ordered for row, following in pairwise(rows)]
        return all(row.ended is not None and row.begun <= row.ended <= later.begun for row, later in bounds)


def _plain(value: Any) -> Any:
    return "NaN" if isinstance(value, float) and value != value else value


def loads(seed: str, *, has_versions: bool, has_nan: bool, count: int, bookmark: str = "") -> Iterator[list[Batch]]:
    """Yield loads at random: keys come again, with new values or the same ones; columns come and go.

    `bookmark`: the column that has the time of each version.
    """
    chance = random.Random(seed)
    columns = ["name", "n", "stamp", "first", "mark"]
    known: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        if chance.random() < 0.3:
            columns.append(f"new{number}")
        elif chance.random() < 0.3 and len(columns) > 5:
            columns.remove(chance.choice(columns[5:]))
        elif chance.random() < 0.2:
            columns = [name for name in columns if name != "n"] if "n" in columns else ["n", *columns]
        batches = []
        for _ in range(chance.choice((1, 1, 2))):
            records = []
            for _ in range(chance.choice((0, 1, 4, 8))):
                values = {name: _drawn(chance, name, has_nan=has_nan) for name in columns}
                if known and chance.random() < 0.4:
                    values |= {name: value for name, value in chance.choice(known).items() if name in values}
                known.append(dict(values))
                at = chance.randrange(1, 12) if has_versions else number * 10
                values |= {bookmark: at} if bookmark else {}
                records.append((chance.randrange(4), at, values))
            batches.append(Batch(tuple(columns), tuple(records)))
        yield batches


def _drawn(chance: random.Random, column: str, *, has_nan: bool) -> Any:
    values = VALUES[column.rstrip("0123456789")]
    return chance.choice([*values, float("nan")] if has_nan and column == "n" else values)


# ------------------------------------------------------------------------------ as the table has it
def held(system: str, url: str, path: Path) -> list[tuple[Any, ...]]:
    """Return the rows of `people` as the system's own client reads them, in the form of `Model.table`."""
    names, rows = rows_of(system, url, path)
    found = []
    for values in rows:
        row = dict(zip(names, values, strict=True))
        begun, ended = (number_of(row.pop(name)) for name in (VALID_FROM, VALID_TO))
        key = row.pop("id")
        found.append((key, begun, ended, tuple(sorted((name, _plain(value)) for name, value in row.items()))))
    return sorted(found, key=lambda row: row[:2])


#: Systems of files, whose table is read by other programs.
FILES = ("parquet", "csv", "jsonl")


def arrow_type(name: str) -> pa.DataType:
    """Return the type of a column by the beginning of its name."""
    if name in (VALID_FROM, VALID_TO):
        return pa.timestamp("us", "UTC")
    return {"n": pa.float64(), "mark": pa.int64(), "amount": pa.int64(), "id": pa.int64()}.get(name, pa.string())


def rows_of(system: str, url: str, path: Path) -> tuple[list[str], list[tuple[Any, ...]]]:
    sql = "select * from people"
    if system in FILES:
        names = ["id", VALID_FROM, VALID_TO, *VALUES, *(f"new{number}" for number in range(20)), "at"]
        schema = pa.schema([(name, arrow_type(name)) for name in names])
        records = files_readback.read_table(path, "people", f".{system}", schema) or []
        names = list(dict.fromkeys(name for record in records for name in record))
        return names, [tuple(record.get(name) for name in names) for record in records]
    if system == "firebird":
        return firebird_files.query(path, sql)
    if system in ("postgres", "psycopg"):
        with psycopg.connect(url) as connection:
            cursor: Any = connection.execute(sql)
            return [each.name for each in cursor.description], cursor.fetchall()
    if system in ("mysql", "pymysql"):
        with mysql_connection(url) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return [each[0] for each in cursor.description], list(cursor.fetchall())
    if system == "sqlite":
        with closing(sqlite3.connect(path)) as database:
            cursor = database.execute(sql)
            return [each[0] for each in cursor.description], cursor.fetchall()
    with closing(duckdb.connect(path)) as database:
        database.execute("set timezone = 'UTC'")
        cursor = database.execute(sql)
        return [each[0] for each in cursor.description], cursor.fetchall()


def number_of(value: Any) -> int | None:
    """Return the number of a time (`moment`)."""
    if value is None:
        return None
    time = datetime.fromisoformat(value) if isinstance(value, str) else value
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
    return int((time - BEGIN) / timedelta(hours=1))
