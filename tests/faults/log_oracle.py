"""What must be true of LOG_BASED streams after any fault, by plain SQL and by the server's own account of its log."""

from __future__ import annotations

import json
import sqlite3
import struct
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import duckdb
import psycopg

from tests.faults.log_writer import TABLES, SteadyWriter
from tests.faults.workshop import RECORDER
from tests.sync.run.log_based import LOG_BASED, Logged, replayed
from tests.zygote import Process, Zygote

WRITERS = 3

#: A run of these tests is over before it would confirm anything on its way.
OFTEN = {"syncblocks.connectors.postgres.log.connection.ALIVE_S": 0.02}

_WORDS = {b"I": "insert", b"U": "update", b"D": "delete", b"T": "truncate"}

Change = tuple[str, str, str]


class Watched:
    """A pipeline of the tables `a` and `b` whose runs are processes, and what is right of its tables."""

    def __init__(self, zygote: Zygote, folder: Path, url: str, connector: str, into: str = "") -> None:
        """Make the tables; `into`: URL of an empty database, for the connector postgres."""
        self.zygote = zygote
        self.logged = Logged(folder, url, connector)
        document = self.logged.document
        document["source"]["config"] |= {"checkpoint_records": 200, "checkpoint_s": 0.02}
        document |= {"retries": 0, "drain_s": 30}
        if into:
            document["destination"]["config"] = {"url": into}
        (folder / "recorder.py").write_text(RECORDER, encoding="utf-8")
        document["callbacks"] = [{"file": "recorder.py", "on": ["stream", "pipeline"]}]
        self._entry = LOG_BASED if connector == "jsonl" else {"replication_method": "LOG_BASED"}
        self.select("public.*")
        self._oracle = f"oracle_{uuid.uuid4().hex[:12]}"
        self._changes: list[Change] = []
        self._stop, self._number = Event(), 0
        self._names: dict[int, str] = {}
        self.logged.sql(
            TABLES,
            "create publication oracle for table a, b",
            f"select pg_create_logical_replication_slot('{self._oracle}', 'pgoutput')",
        )

    def select(self, stream: str) -> None:
        """Let the file have this stream, or glob."""
        self.logged.document["streams"] = [{"stream": stream, **self._entry}]

    def start(self, *words: str, **settings: Any) -> Process:
        """Start a command, or a run of the file as it is now."""
        settings.setdefault("constants", OFTEN)
        return self.zygote.start(self.logged.folder, words or ("run", self.logged.file.name), **settings)

    def run(self, *words: str, **settings: Any) -> Process:
        """Run a command to its end."""
        process = self.start(*words, **settings)
        process.wait(120)
        return process

    def succeed(self, *words: str) -> None:
        """Run a command that must succeed."""
        process = self.run(*words)
        assert process.code == 0, process.log()[-4000:]

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Have writers change the tables meanwhile."""
        stop = Event()
        self._number += WRITERS
        writers = [SteadyWriter(self.logged.url, self._number + each, stop) for each in range(WRITERS)]
        for writer in writers:
            writer.start()
        try:
            yield
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        assert [writer.error for writer in writers if writer.error] == []

    # -- what must be so -------------------------------------------------------------------------------------------

    def ahead(self) -> list[str]:
        """Return of which streams the server has forgotten changes; once nobody reads the slot."""
        query = (
            "select active, confirmed_flush_lsn - '0/0' from pg_replication_slots "
            "where database = current_database() and slot_name like 'logged%' and not temporary"
        )
        found = self.logged.sql(query)
        while any(is_active for is_active, _ in found):
            time.sleep(0.01)
            found = self.logged.sql(query)
        rows = self._ledger().items()
        return [
            f"the slot is at {confirmed}, stream {name} at {position}"
            for _, confirmed in found
            for name, position in rows
            if confirmed is not None and confirmed > position
        ]

    def wrong(self) -> list[str]:
        """Run to a quiet end; return everything that is wrong then. Nobody may write meanwhile."""
        self.logged.sql("checkpoint")
        self.succeed()
        self.succeed()  # a merge's first run only copies
        found = self.ahead() + self._untold()
        self._read_oracle()
        for table in "ab":
            there = self.logged.sql(f"select * from {table} order by 1")
            if self.logged.connector != "jsonl":
                found += [f"table {table} differs"] if self.logged.merged(table) != there else []
                continue
            every = self.logged.changes(table)
            copied = max(str(each["_position"])[:16] for each in every if each["_op"] == "read")
            changes = [each for each in every if each["_position"] >= copied]
            held = sorted(tuple(record.values()) for record in replayed(changes).values())
            found += [f"the changes of {table} do not amount to the table"] if held != there else []
            found += self._other_changes(table, changes, copied)
        return found

    def _ledger(self) -> dict[str, int]:
        """Return up to where each stream is complete, of those that have been copied."""
        if self.logged.connector == "jsonl":
            files = (self.logged.folder / "out" / "_syncblocks_ledger").glob("*.json")
            named = [
                (row["stream"], row["bookmark"]) for file in files for row in json.loads(file.read_text())["ledger"]
            ]
        else:
            named = [(name, json.loads(bookmark or "{}").get("bookmark")) for name, bookmark in self._query_ledger()]
        places = [(name, (bookmark or {}).get("log_position")) for name, bookmark in named]
        return {name: _number(place) for name, place in places if place}

    def _query_ledger(self) -> Sequence[tuple[str, str]]:
        query = "select stream, bookmark from _syncblocks_ledger"
        if self.logged.connector == "duckdb":
            path = self.logged.folder / "out.duckdb"
            if not path.exists():
                return []
            with closing(duckdb.connect(path)) as database:
                known = database.execute("select 1 from duckdb_tables() where table_name = '_syncblocks_ledger'")
                return database.execute(query).fetchall() if known.fetchall() else []
        with psycopg.connect(self.logged.document["destination"]["config"]["url"]) as connection:
            if connection.execute("select to_regclass('_syncblocks_ledger')").fetchone() == (None,):
                return []
            return connection.execute(query.encode()).fetchall()

    def _untold(self) -> list[str]:
        """Return which ends of streams no callback was told of."""
        log = self.logged.folder / "recorder.log"
        calls = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        heard = {(call["run"], call["stream"], call["status"]) for call in calls}
        with closing(sqlite3.connect(self.logged.folder / ".syncblocks" / "store.db", timeout=30)) as store:
            ended = store.execute("select run_id, stream, status from _syncblocks_stream_run").fetchall()
            left = store.execute("select run_id, state from _syncblocks_delivery where state <> 'done'").fetchall()
        found = [f"not told: {end}" for end in ended if end[2] == "success" and end not in heard]
        return found + [f"a delivery is left: {each}" for each in left]

    def _read_oracle(self) -> None:
        """Read what the server itself says of its log."""
        names, commit = self._names, ""
        # A server that has crashed tells again what it told before.
        known = max((change[1] for change in self._changes), default="")
        messages = self.logged.sql(
            f"select data from pg_logical_slot_get_binary_changes('{self._oracle}', null, null, "
            "'proto_version', '1', 'publication_names', 'oracle')"
        )
        for (data,) in messages:
            kind = data[:1]
            if kind == b"B":
                commit = f"{struct.unpack_from('>Q', data, 1)[0]:016X}"
            elif kind == b"R":
                names[struct.unpack_from(">I", data, 1)[0]] = data[5:].split(b"\0")[1].decode()
            elif commit <= known:
                continue
            elif kind == b"T":
                count = struct.unpack_from(">I", data, 1)[0]
                oids = struct.unpack_from(f">{count}I", data, 6)
                self._changes += [(names[oid], commit, "truncate") for oid in oids]
            elif kind in _WORDS:
                self._changes.append((names[struct.unpack_from(">I", data, 1)[0]], commit, _WORDS[kind]))

    def _other_changes(self, table: str, found: Sequence[dict[str, Any]], copied: str) -> list[str]:
        """Return what was appended twice or not at all since the copy."""
        wanted = Counter(each for each in self._changes if each[0] == table and each[1] >= copied)
        held = Counter((table, str(each["_position"])[:16], each["_op"]) for each in found if each["_op"] != "read")
        return [
            *(f"missing: {each}" for each in (wanted - held).elements()),
            *(f"too much: {each}" for each in (held - wanted).elements()),
        ]


def _number(place: str) -> int:
    high, _, low = place.partition("/")
    return int(high, 16) << 32 | int(low, 16)
