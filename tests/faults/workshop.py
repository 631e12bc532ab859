"""A pipeline in a folder of its own, real databases around it, and plain drivers that read them back."""

from __future__ import annotations

import copy
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import yaml

from syncblocks.sync.store.table_names import TABLES
from tests.zygote import Process, Zygote

#: Writes down every call, one line each, on disk before it returns.
RECORDER = """
import json, os
from pathlib import Path

def _write(kwargs, status):
    run, pipeline_run = kwargs.get("block_run"), kwargs["pipeline_run"]
    line = {name: kwargs.get(name) for name in
            ("stream", "index", "is_last_block_run", "parent_block_uuid", "idempotency_key", "never_started")}
    line |= {"status": status, "run": pipeline_run.id, "attempt": pipeline_run.attempt,
             "run_status": pipeline_run.status, "block_run": None if run is None else run.uuid,
             "rows": None if run is None else run.rows}
    with open(Path(__file__).with_suffix(".log"), "ab", buffering=0) as log:
        log.write(json.dumps(line).encode() + b"\\n")
        os.fsync(log.fileno())

@callback("success")
def success(**kwargs):
    _write(kwargs, "success")

@callback("failure")
def failure(**kwargs):
    _write(kwargs, "failure")

@callback("cancelled")
def cancelled(**kwargs):
    _write(kwargs, "cancelled")
"""

#: Copies of the tables of 1-product.md 1.3: a block's type by its place in the pipeline of a workshop.
LOADER, EXPORTER = "load", "export"


class Workshop:
    """A folder with one pipeline over tables written down in its file; `start` runs it in a process of its own."""

    def __init__(
        self, zygote: Zygote, folder: Path, *, destination: str = "duckdb", store: str = "sqlite", url: str = ""
    ) -> None:
        """`destination`: duckdb, sqlite, delta or postgres; `store`: sqlite or postgres; `url`: an empty database."""
        self.zygote = zygote
        self.folder = folder
        self.destination = destination
        self.store = store
        self.url = url
        folder.mkdir(parents=True, exist_ok=True)
        self.tables: dict[str, dict[str, Any]] = {}
        self._kept: tuple[ExitStack, dict[str, Any]] | None = None
        self.document: dict[str, Any] = {
            "pipeline": "pipeline",
            "concurrency": 2,
            "drain_s": 30,
            **({"store": url} if store == "postgres" else {}),
            "source": {"block": LOADER, "connector": "memory", "config": {"tables": self.tables, "batch_size": 4}},
            "destination": {
                "block": EXPORTER,
                "connector": destination,
                "config": {"url": url} if destination == "postgres" else {"path": f"destination.{destination}"},
            },
            "streams": [],
            "callbacks": [],
        }
        self.record("recorder", on=[LOADER, EXPORTER, "stream", "pipeline"])

    # -- what there is to sync -----------------------------------------------------------------------------------

    @property
    def source_settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = self.document["source"]["config"]
        return settings

    def stream(self, name: str, records: int = 0, **settings: Any) -> None:
        """Add a stream whose table has records of id, t and v."""
        columns = {"id": "int64", "t": "int64", "v": "string"}
        self.tables[name] = {"columns": columns, "key": ["id"], "records": []}
        self.document["streams"].append({"stream": name, **settings})
        self.grow(name, records)

    def grow(self, name: str, records: int) -> None:
        """Add records with later bookmarks to a table; written by the next `write`."""
        held = self.tables[name]["records"]
        first = len(held)
        held += [{"id": n, "t": n // 2, "v": f"{name}-{n}"} for n in range(first, first + records)]

    def record(self, block: str, **settings: Any) -> None:
        """Attach a callback block that writes down every call."""
        (self.folder / f"{block}.py").write_text(RECORDER, encoding="utf-8")
        self.document["callbacks"].append({"file": f"{block}.py", **settings})

    def write(self) -> None:
        """Write the pipeline file."""
        text = yaml.dump(self.document, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
        draft = self.folder / "pipeline.draft"
        draft.write_text(text, encoding="utf-8")
        draft.replace(self.folder / "pipeline.yaml")

    def moved(self, folder: Path) -> Workshop:
        """Return the same pipeline in a copy of its folder."""
        other = copy.copy(self)
        other.folder = folder
        return other

    # -- processes -----------------------------------------------------------------------------------------------

    def start(self, *arguments: str, **settings: Any) -> Process:
        """Start a run; see `Zygote.start`."""
        return self.zygote.start(self.folder, ("run", "pipeline.yaml", *arguments), **settings)

    def run(self, *arguments: str, **settings: Any) -> Process:
        """Run to the end."""
        process = self.start(*arguments, **settings)
        process.wait()
        return process

    # -- read back by plain drivers ------------------------------------------------------------------------------

    def calls(self, block: str = "recorder") -> list[dict[str, Any]]:
        """Return what a recorder has written down, in order."""
        log = self.folder / f"{block}.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Ask all that is asked within over one connection a database: many questions, of which none waits for it."""
        if self._kept is not None:
            yield
            return
        with ExitStack() as connections:
            self._kept = (connections, {})
            try:
                yield
            finally:
                self._kept = None

    @contextmanager
    def _opened(self, place: str, opened: AbstractContextManager[Any]) -> Iterator[Any]:
        if self._kept is None:
            with opened as connection:
                yield connection
            return
        connections, known = self._kept
        if place not in known:
            known[place] = connections.enter_context(opened)
        yield known[place]

    def _postgres(self) -> AbstractContextManager[Any]:
        return self._opened(self.url, postgres(self.url))

    def store_rows(self, sql: str) -> list[dict[str, Any]]:
        """Ask the run store; empty where there is none yet."""
        if self.store == "postgres":
            with self._postgres() as connection:
                return _postgres_rows(connection, sql)
        path = self.folder / ".syncblocks" / "store.db"
        if not path.exists():
            return []
        with self._opened(str(path), _sqlite(path)) as connection:
            cursor = connection.execute(sql)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def change_store(self, sql: str) -> None:
        """Change the run store behind the engine's back."""
        if self.store == "postgres":
            with postgres(self.url) as connection:
                connection.execute(sql)
            return
        with closing(sqlite3.connect(self.folder / ".syncblocks" / "store.db", timeout=30)) as connection, connection:
            connection.execute(sql)

    def rows(self, table: str) -> list[tuple[Any, ...]] | None:
        """Return id, t, v of a destination table, in order; None if there is no such table."""
        quoted = '"' + table.replace('"', '""') + '"'
        sql = f"select id, t, v from {quoted} order by id, t, v"
        if self.destination == "postgres":
            with self._postgres() as connection:
                if connection.execute("select to_regclass(%s)", (quoted,)).fetchone()[0] is None:
                    return None
                return list(connection.execute(sql))
        path = self.folder / f"destination.{self.destination}"
        if not path.exists():
            return None
        if self.destination == "delta":
            from tests.connectors.delta.delta_tables import plain_table

            records = plain_table(path, table)
            return None if records is None else values(records)
        with self._embedded(path) as connection:
            known = "select name from sqlite_master where name = ?"
            if self.destination == "duckdb":
                known = "select table_name from information_schema.tables where table_name = ?"
            if not connection.execute(known, (table,)).fetchall():
                return None
            return [tuple(row) for row in connection.execute(sql).fetchall()]

    def leftovers(self) -> list[str]:
        """Return the destination's tables that are neither a stream's nor the ledger."""
        sql = "select table_name from information_schema.tables where table_schema in ('public', 'main')"
        if self.destination == "postgres":
            with self._postgres() as connection:
                names = [row[0] for row in connection.execute(sql)]
        else:
            path = self.folder / f"destination.{self.destination}"
            if not path.exists():
                return []
            if self.destination == "delta":
                return self._leftovers_of_delta(path)
            sql = "select name from sqlite_master where type = 'table'" if self.destination == "sqlite" else sql
            with self._embedded(path) as connection:
                names = [row[0] for row in connection.execute(sql).fetchall()]
        own = set(self.tables) | {"_syncblocks_ledger"}
        stored = set(TABLES) if self.store == self.destination == "postgres" else set()
        return [name for name in names if name not in own | stored]

    def _leftovers_of_delta(self, path: Path) -> list[str]:
        """Return folders that are no stream's, data files that no commit names, and lists of such."""
        from tests.connectors.delta.delta_tables import table_names, unnamed_files

        names = table_names(path)
        return [*(names - set(self.tables)), *(file for name in names for file in unnamed_files(path, name))]

    def _embedded(self, path: Path) -> AbstractContextManager[Any]:
        return self._opened(str(path), _sqlite(path) if self.destination == "sqlite" else _duckdb(path))


@contextmanager
def postgres(url: str) -> Iterator[Any]:
    """Connect with nothing of ours in between."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@contextmanager
def _sqlite(path: Path) -> Iterator[Any]:
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        yield connection


@contextmanager
def _duckdb(path: Path) -> Iterator[Any]:
    import duckdb

    with closing(duckdb.connect(str(path), read_only=False)) as connection:
        yield connection


def _postgres_rows(connection: Any, sql: str) -> list[dict[str, Any]]:
    from psycopg.errors import UndefinedTable
    from psycopg.rows import dict_row

    with connection.cursor(row_factory=dict_row) as cursor:
        try:
            return list(cursor.execute(sql))
        except UndefinedTable:
            return []


class _Dumper(yaml.SafeDumper):
    """Writes no anchors, which the pipeline file does not take."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def values(records: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """Return records as `Workshop.rows` returns them."""
    return sorted((record["id"], record["t"], record["v"]) for record in records)
