"""Sources and destinations of histories: written and read by the systems' own drivers, none of our code."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from syncblocks.connectors.sql.identifiers import tell_apart
from tests import services
from tests.faults.histories import FILES, Row, Source

#: Names of which a system that folds case takes two for one: the later one has a hash at its end there.
FOLDED = ("val", "VAL", "w", "W")

#: Clock -> type of the column `at`, by system.
TYPES = {
    "day": dict.fromkeys(("sqlite", "duckdb", "postgres", "mariadb"), "date"),
    "number": dict.fromkeys(("sqlite", "duckdb", "postgres", "mariadb"), "bigint"),
    "second": {"sqlite": "timestamp", "duckdb": "timestamp", "postgres": "timestamp", "mariadb": "datetime"},
}

_KNOWN = "information_schema.tables where table_schema = {} and table_name"


def moment(clock: str, tick: int | None) -> Any:
    """Return a tick of the clock as its column has it."""
    if tick is None:
        return None
    kind = clock.split()[0]
    return {"number": tick * 10, "day": f"2024-05-{tick + 1:02}", "second": f"2024-05-01 10:00:{tick:02}"}[kind]


class Place:
    """One system with a table (or file) of a history."""

    def __init__(self, system: str, config: Mapping[str, Any], table: str) -> None:
        self.system, self.config, self.table = system, config, table

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        if self.system == "postgres":
            import psycopg

            opened: Any = psycopg.connect(self.config["url"], autocommit=True)
        elif self.system == "mariadb":
            opened = services.connect_mariadb(self.config["url"])
        elif self.system == "duckdb":
            import duckdb

            opened = duckdb.connect(self.config["path"])
        else:
            opened = sqlite3.connect(self.config["path"], isolation_level=None)
        with closing(opened), closing(opened.cursor()) as cursor:
            yield cursor

    def quoted(self, name: str) -> str:
        return f"`{name}`" if self.system == "mariadb" else f'"{name}"'

    # ------------------------------------------------------------------- as a source
    def put(self, source: Source, clock: str, *, has_key: bool) -> None:
        """Let the table hold these records and no others."""
        rows = [{**row, "at": moment(clock, row["at"])} for row in source.rows]
        if self.system in FILES:
            Path(self.config["path"]).write_text(_text(self.system, source, rows), encoding="utf-8")
            return
        kinds = {"id": "bigint", "n": "bigint", "at": TYPES[clock.split()[0]][self.system]}
        text = "varchar(40)" if self.system == "mariadb" else "text"
        listed = [f"{self.quoted(name)} {kinds.get(name, text)}" for name in source.columns]
        key = [f"primary key ({self.quoted('id')})"] if has_key else []
        mark = "%s" if self.system in ("postgres", "mariadb") else "?"
        name = self.quoted(self.table)
        with self._cursor() as cursor:
            cursor.execute(f"drop table if exists {name}")
            cursor.execute(f"create table {name} ({', '.join([*listed, *key])})")
            values = f"({', '.join([mark] * len(source.columns))})"
            cursor.executemany(
                f"insert into {name} values {values}", [[row[each] for each in source.columns] for row in rows]
            )

    # -------------------------------------------------------------- as a destination
    def held(self) -> list[Row] | None:
        """Return the table's records without what is NULL, columns by their names in the source; None: no table."""
        if self.system in FILES:
            return self._in_files()
        if self.system in ("sqlite", "duckdb") and not Path(self.config["path"]).exists():
            return None
        with self._cursor() as cursor:
            # MySQL's catalog lists the tables of all databases.
            here = "database()" if self.system == "mariadb" else "current_schema()"
            known = "sqlite_master where name" if self.system == "sqlite" else _KNOWN.format(here)
            cursor.execute(f"select count(*) from {known} = '{self.table}'")
            if cursor.fetchone()[0] == 0:
                return None
            cursor.execute(f"select * from {self.quoted(self.table)}")
            names = [column[0] for column in cursor.description]
            return [shown(dict(zip(names, row, strict=True))) for row in cursor.fetchall()]

    def _files(self) -> list[Path]:
        folder = Path(self.config["path"])
        return [*folder.glob(f"{self.table}.{self.system}"), *sorted(folder.glob(f"{self.table}/*.{self.system}"))]

    def _in_files(self) -> list[Row] | None:
        files = self._files()
        return [shown(record) for file in files for record in self._records(file)] if files else None

    def _records(self, file: Path) -> list[Row]:
        if self.system == "jsonl":
            return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        with file.open(newline="", encoding="utf-8") as opened:
            return [{name: value or None for name, value in row.items()} for row in csv.DictReader(opened)]

    def damage(self, gone: Any, changed: Any) -> None:
        """Delete one record, and change another."""
        if self.system not in FILES:
            with self._cursor() as cursor:
                cursor.execute(f"delete from {self.quoted(self.table)} where id = {gone}")
                cursor.execute(f"update {self.quoted(self.table)} set n = 9999 where id = {changed}")
            return
        for file in self._files():
            records = [row for row in self._records(file) if str(row["id"]) != str(gone)]
            for row in records:
                row["n"] = type(row["n"])(9999) if str(row["id"]) == str(changed) else row["n"]
            columns = tuple(records[0]) if records else ()
            file.write_text(_text(self.system, Source(columns, ()), records), encoding="utf-8")


def _text(system: str, source: Source, rows: Sequence[Row]) -> str:
    """Return a file's text; the line that is no record comes second."""
    if system == "jsonl":
        lines = [json.dumps({name: row[name] for name in source.columns}) for row in rows]
        broken = "{oops"
    else:
        lines = [",".join("" if row[name] is None else str(row[name]) for name in source.columns) for row in rows]
        broken = ",".join("9" * (len(source.columns) + 2))
    if source.is_malformed:
        lines.insert(1, broken)
    return "\n".join([",".join(source.columns), *lines] if system == "csv" else lines) + "\n"


def shown(record: Mapping[str, Any]) -> Row:
    """Return a record's values as texts, without NULLs."""
    marked = {tell_apart(name, None): name for name in FOLDED}
    return {marked.get(name, name): _shown(value) for name, value in record.items() if value is not None}


def _shown(value: Any) -> str:
    text = str(value)
    return text.replace("T", " ").removesuffix(".000000") if re.match(r"\d{4}-\d\d-\d\d", text) else text


def records(rows: Iterable[Row], clock: str) -> list[tuple[tuple[str, str], ...]]:
    """Return records in an order of their own, to compare; `at` by the clock."""
    found = [shown({**row, "at": moment(clock, row.get("at"))}) for row in rows]
    return sorted(tuple(sorted(row.items())) for row in found)
