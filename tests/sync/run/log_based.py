"""A pipeline that reads a database's log, and what its appended changes amount to."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import psycopg

from syncblocks import RunResult, run_pipeline
from syncblocks.connectors.memory import database
from syncblocks.sync.errors import ConfigError

Record = dict[str, Any]


class Logged:
    """A pipeline of all tables of a database; `run` runs it in this process."""

    def __init__(self, folder: Path, url: str, connector: str = "jsonl", **config: Any) -> None:
        self.folder, self.url, self.connector = folder, url, connector
        self.memory = f"memory-{uuid.uuid4().hex}"
        own = {
            "jsonl": {"path": str(folder / "out")},
            "memory": {"database": self.memory},
            "duckdb": {"path": str(folder / "out.duckdb")},
        }.get(connector, {})
        self.document: dict[str, Any] = {
            "pipeline": "logged",
            "source": {"connector": "postgres", "config": {"url": url}},
            "destination": {"connector": connector, "config": {**own, **config}},
            "streams": [{"stream": "public.*", **LOG_BASED}],
        }

    @property
    def file(self) -> Path:
        """The pipeline file, as the document is now."""
        path = self.folder / "logged.yaml"
        path.write_text(json.dumps(self.document))
        return path

    def run(self, **options: Any) -> RunResult:
        return run_pipeline(self.file, **options)

    def succeed(self, **options: Any) -> None:
        result = self.run(**options)
        assert result.status == "success", [result.error, *(stream.error for stream in result.streams)]

    def refused(self) -> str:
        """Return why a run begins nothing."""
        try:
            result = self.run()
        except ConfigError as error:
            return str(error)
        assert result.status == "failure"
        return " ".join(map(str, [result.error, *(stream.error for stream in result.streams)]))

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements, each committed at once; return the last one's rows."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("set synchronous_commit = on")  # a run reads what is on the server's disk
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def changes(self, table: str) -> list[Record]:
        """Return what was appended, in the log's order."""
        if self.connector == "memory":
            found = database(self.memory).tables[table].to_pylist() if table in database(self.memory).tables else []
        else:
            files = [file for file in (self.folder / "out").rglob("*.jsonl") if file.parent.name == table]
            alone = self.folder / "out" / f"{table}.jsonl"
            files += [alone] if alone.exists() else []
            found = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        return sorted(found, key=lambda record: str(record["_position"]))

    def merged(self, table: str) -> list[tuple[Any, ...]]:
        """Return a merged table in the destination, by its first column."""
        return self.query(f"select * from {table} order by 1")

    def query(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the destination."""
        if self.connector == "duckdb":
            with duckdb.connect(self.folder / "out.duckdb", read_only=True) as connection:
                return connection.execute(query).fetchall()
        with psycopg.connect(self.document["destination"]["config"]["url"]) as connection:
            return connection.execute(query.encode()).fetchall()

    def slots(self) -> list[tuple[str, str]]:
        """Return the permanent slots. The server drops a temporary one a moment after its connection has ended."""
        return [
            (str(name), str(lsn))
            for name, lsn in self.sql(
                "select slot_name, confirmed_flush_lsn from pg_replication_slots "
                "where database = current_database() and not temporary"
            )
        ]


LOG_BASED = {"replication_method": "LOG_BASED", "write_disposition": "append"}


def replayed(changes: Sequence[Record], key: str = "id") -> dict[Any, Mapping[str, Any]]:
    """Return the table that changes make, by key; each position is there once."""
    positions = [change["_position"] for change in changes]
    assert len(set(positions)) == len(positions), "a change is there twice"
    table: dict[Any, Record] = {}
    for change in changes:
        record = {name: value for name, value in change.items() if not name.startswith("_")}
        old, kept = change["_old_key"], change["_unchanged"] or []
        old = json.loads(old) if isinstance(old, str) else old
        kept = json.loads(kept) if isinstance(kept, str) else kept
        match change["_op"]:
            case "truncate":
                table.clear()
            case "delete":
                del table[record[key]]
            case "update":
                before = table.pop(type(record[key])(old[key]) if old else record[key])
                table[record[key]] = {**record, **{name: before[name] for name in kept}}
            case "read" | "insert":
                assert record[key] not in table
                table[record[key]] = record
            case other:
                raise AssertionError(other)
    return table
