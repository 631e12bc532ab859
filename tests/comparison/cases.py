"""Pipelines of many settings, drawn by a seed, with two days of records, and the state that runs leave behind."""

from __future__ import annotations

import csv
import json
import random
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pymysql
import yaml

from tests.comparison.statements import Servers

SOURCES = ("sqlite", "sqlite", "postgres", "csv", "jsonl")
DESTINATIONS = ("sqlite", "duckdb", "postgres", "mysql", "jsonl", "delta")

#: Setting of a stream -> its values.
SETTINGS: Mapping[str, tuple[Any, ...]] = {
    "replication_method": ("FULL_TABLE", "INCREMENTAL", "INCREMENTAL"),
    "write_disposition": ("merge", "merge", "append", "replace", "replace_range", "history"),
    "deletes": ("hard", "soft", {"mode": "hard", "every": "1d"}),
    "latest_by": ("n", {"column": "n", "order": "lowest"}),
    "deleted_when": ({"gone": 1},),
    "checks": ({"n": {"<": 1000}}, {"v": {"matches": "^v"}}),
    "warn_checks": ({"n": {"<": 3}},),
    "on_rejected": ("keep",),
    "where": ({"n": {"<": 5000}}, {"v": {"!=": "v3"}}),
    "limit": (3,),
    "min_records": (1, 100),
    "unique_conflict_method": ("IGNORE",),
    "key_properties": (["id"], ["id", "n"]),
    "columns": ({"exclude": ["v"]}, {"mask": {"v": "hash"}}, {"mask": {"v": None}}, {"include": ["id", "at", "n"]}),
    "types": ({"n": "string"},),
    "add_columns": ({"loaded": "x"},),
    "mage_columns": (True,),
    "fill_new_columns": (True,),
    "on_schema_change": ("freeze", "ignore", "widen"),
    "on_lossy": ("cast", "text"),
    "null_bookmarks": ("once", "always", "never"),
    "lookback": (1,),
    "valid_from": ("bookmark",),
    "range_column": ("at",),
    "before": ([{"connection": "source", "sql": "select 1"}],),
    "parallel_reads": (2,),
    "retries": (1,),
    "destination_table": ("u",),
    "replace_existing": (False,),
}

#: Settings without which others are refused.
_NEEDED: Mapping[str, Mapping[str, Any]] = {
    "replace_range": {"range_column": "n", "key_properties": ["id"]},
    "history": {"key_properties": ["id"]},
    "merge": {"key_properties": ["id"]},
    "mask": {},
}

FUNCTION = """
@transformer
def same(df, **kwargs):
    return df[df["n"] != 7]
"""

CALLBACK = """
@callback("success")
def done(**kwargs):
    pass
"""

#: The records of the first day, and of the second: id, at (the bookmark), n, v, gone.
FIRST = [(n, 10 * n, n, f"v{n}", 0) for n in range(1, 9)]
SECOND = [
    *((n, 10 * n, n, f"v{n}", 0) for n in range(1, 5)),
    (5, 95, 50, "changed", 0),
    (6, 96, 6, "v6", 1),
    (8, 80, 8, "v8", 0),
    (9, 97, 4000, "v9", 0),
    (10, 98, 3, None, 0),
]
COLUMNS = ("id", "at", "n", "v", "gone")


@dataclass
class Case:
    """One pipeline."""

    number: int
    source: str
    destination: str
    settings: dict[str, Any]
    #: Keys of the pipeline file.
    keys: dict[str, Any] = field(default_factory=dict)
    #: Whether the second day has another column.
    has_new_column: bool = False

    @property
    def name(self) -> str:
        return f"{self.number:03}-{self.source}-{self.destination}"

    def text(self) -> str:
        return yaml.safe_dump({"settings": self.settings, "keys": self.keys, "new column": self.has_new_column})

    def write(self, folder: Path, servers: Servers) -> Path:
        """Write the pipeline file."""
        places = {
            "sqlite": lambda side: {"path": str(folder / f"{side}.db")},
            "duckdb": lambda side: {"path": str(folder / f"{side}.duckdb")},
            "postgres": lambda side: {"url": servers.postgres_url(self), "schema": side},
            "mysql": lambda side: {"url": servers.mysql_url(self)},
            "csv": lambda side: {"path": str(folder / side)},
            "jsonl": lambda side: {"path": str(folder / side)},
            "delta": lambda side: {"path": str(folder / side)},
        }
        source, destination = places[self.source]("source"), places[self.destination]("destination")
        stream = "source.t" if self.source == "postgres" else "t"
        if self.source == "postgres":
            source.pop("schema")
        (folder / "function.py").write_text(FUNCTION)
        (folder / "alerts.py").write_text(CALLBACK)
        document = {
            "pipeline": "compared",
            "concurrency": 1,
            "source": {"connector": self.source, "config": source},
            "destination": {"connector": self.destination, "config": destination},
            "streams": [{"stream": stream, **self.settings}],
            **self.keys,
        }
        file = folder / "compared.yaml"
        file.write_text(yaml.safe_dump(document, sort_keys=False))
        return file

    def first_day(self, folder: Path, servers: Servers) -> None:
        self._fill(folder, servers, COLUMNS, FIRST)

    def second_day(self, folder: Path, servers: Servers) -> None:
        columns = (*COLUMNS, "new") if self.has_new_column else COLUMNS
        records = [(*record, f"new{record[0]}") for record in SECOND] if self.has_new_column else SECOND
        self._fill(folder, servers, columns, records)

    def _fill(self, folder: Path, servers: Servers, columns: Sequence[str], records: Sequence[Sequence[Any]]) -> None:
        if self.source in ("csv", "jsonl"):
            (folder / "source").mkdir(exist_ok=True)
            path = folder / "source" / f"t.{self.source}"
            if self.source == "csv":
                with path.open("w", newline="") as file:
                    csv.writer(file).writerows([columns, *records])
            else:
                path.write_text("".join(json.dumps(dict(zip(columns, r, strict=True))) + "\n" for r in records))
            return
        types = ["integer primary key", "integer", "integer", "text", "integer", "text"]
        name = "source.t" if self.source == "postgres" else "t"
        created = ", ".join(f"{column} {kind}" for column, kind in zip(columns, types, strict=False))
        values = ", ".join("(" + ", ".join(_literal(value) for value in record) + ")" for record in records)
        added = "new" if "new" in columns else None
        statements = [f"create table if not exists {name} ({created})", f"delete from {name}"]
        if added is not None:
            statements.append(f"alter table {name} add column {added} text")
        statements.append(f"insert into {name} ({', '.join(columns)}) values {values}")
        if self.source == "postgres":
            with psycopg.connect(servers.postgres_url(self)) as server:
                server.execute("create schema if not exists source")
                for sql in statements:
                    server.execute(sql.encode())
            return
        with sqlite3.connect(folder / "source.db") as database:
            for sql in statements:
                database.execute(sql)
        database.close()

    def state(self, folder: Path, servers: Servers) -> str:
        """Return all tables of the destination, its ledger and the run store, as text."""
        found = [*self._destination(folder, servers)]
        if (store := folder / ".syncblocks" / "store.db").exists():
            with sqlite3.connect(store) as database:
                found += _tables(
                    "store", _names(database.execute("select name from sqlite_master where type = 'table'").fetchall()),
                    lambda sql: (lambda c: ([d[0] for d in c.description], c.fetchall()))(database.execute(sql)),
                )  # fmt: skip
            database.close()
        return "\n".join(found)

    def _destination(self, folder: Path, servers: Servers) -> Iterator[str]:
        def read(cursor: Any) -> tuple[list[str], list[Any]]:
            return [each[0] for each in cursor.description or ()], cursor.fetchall()

        where = folder / "destination"
        if self.destination == "sqlite" and (path := where.with_suffix(".db")).exists():
            with sqlite3.connect(path) as database:
                names = _names(database.execute("select name from sqlite_master where type = 'table'").fetchall())
                yield from _tables("table", names, lambda sql: read(database.execute(sql)))
            database.close()
        elif self.destination == "duckdb" and (path := where.with_suffix(".duckdb")).exists():
            with duckdb.connect(str(path), read_only=True) as connection:
                names = _names(connection.execute("select table_name from information_schema.tables").fetchall())
                yield from _tables("table", names, lambda sql: read(connection.execute(sql)))
        elif self.destination == "postgres":
            with psycopg.connect(servers.postgres_url(self)) as server:
                listed = server.execute(
                    "select table_schema || '.' || table_name from information_schema.tables "
                    "where table_schema in ('destination', 'public')"
                ).fetchall()
                yield from _tables("table", _names(listed), lambda sql: read(server.execute(sql.encode())))
        elif self.destination == "mysql":
            with pymysql.connect(**servers.mysql, database=servers.database(self)) as server:
                cursor = server.cursor()
                cursor.execute("show tables")
                names = _names(cursor.fetchall())

                def execute(sql: str) -> tuple[list[str], list[Any]]:
                    cursor.execute(sql)
                    return read(cursor)

                yield from _tables("table", names, execute)
        elif self.destination == "jsonl":
            for path in sorted(where.rglob("*.json*")) if where.exists() else ():
                yield f"== file {path.relative_to(where)}\n" + "\n".join(sorted(path.read_text().splitlines()))
        elif self.destination == "delta":
            import deltalake

            for log in sorted(where.rglob("_delta_log")) if where.exists() else ():
                table = deltalake.DeltaTable(log.parent)
                yield f"== table {log.parent.relative_to(where)} version {table.version()}"
                yield from sorted(map(repr, table.to_pyarrow_table().to_pylist()))


def _names(rows: Sequence[Sequence[Any]]) -> list[str]:
    return sorted(str(row[0]) for row in rows)


#: Tables of the run store whose rows depend on time alone.
_LEFT_OUT = ("_syncblocks_progress", "_syncblocks_run_log", "_syncblocks_server", "_syncblocks_migration")


def _tables(kind: str, names: Sequence[str], execute: Callable[[str], tuple[list[str], list[Any]]]) -> Iterator[str]:
    for name in names:
        if name not in _LEFT_OUT:
            columns, rows = execute(f"select * from {name}")
            yield f"== {kind} {name}: {', '.join(columns)}"
            yield from sorted(map(repr, rows))


def _literal(value: Any) -> str:
    return "null" if value is None else f"'{value}'" if isinstance(value, str) else str(value)


def cases(number: int, seed: int) -> Iterator[Case]:
    """Yield pipelines: each setting alone with each destination in turn, then random sets of settings."""
    dice, alone = random.Random(seed), [(name, value) for name, values in SETTINGS.items() for value in values]
    for each in range(number):
        if each < len(alone):
            name, value = alone[each]
            settings: dict[str, Any] = {name: value}
        else:
            names = dice.sample(sorted(SETTINGS), dice.randint(1, 4))
            settings = {"write_disposition": dice.choice(SETTINGS["write_disposition"])}
            settings |= {name: dice.choice(SETTINGS[name]) for name in names}
        if settings.get("replication_method") == "INCREMENTAL" or dice.random() < 0.3:
            settings |= {"replication_method": "INCREMENTAL", "bookmark_properties": ["at"]}
        if "replication_method" not in settings and {"lookback", "null_bookmarks", "valid_from"} & {*settings}:
            settings |= {"replication_method": "INCREMENTAL", "bookmark_properties": ["at"]}
        if {"deletes", "latest_by", "deleted_when", "unique_conflict_method"} & {*settings}:
            settings.setdefault("write_disposition", "merge")
        for name, needed in _NEEDED.items():
            if settings.get("write_disposition") == name:
                settings = {**needed, **settings}
        keys: dict[str, Any] = {}
        if dice.random() < 0.2:
            keys["transformers"] = [{"block": "same", "file": "function.py"}]
        if dice.random() < 0.2:
            keys["callbacks"] = [{"file": "alerts.py", "on": [dice.choice(["stream", "pipeline"])]}]
        if "mask" in str(settings):
            keys["mask_key"] = "0123456789abcdef0123456789abcdef"
        yield Case(each, SOURCES[each % len(SOURCES)], DESTINATIONS[each % len(DESTINATIONS)], settings, keys,
                   dice.random() < 0.3)  # fmt: skip
