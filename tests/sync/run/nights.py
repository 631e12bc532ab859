"""A pipeline that runs every night while its source changes, and an oracle that knows what each night must say."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import yaml

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.sync.session.inspection import existing_store, opened
from syncblocks.sync.state.stream_state import reset_state

#: Writes down each event of `pipeline` and of the blocks.
TELL = """
import json
from pathlib import Path

@callback("success")
@callback("failure")
@callback("cancelled")
def tell(**kwargs):
    names = ("parent_block_uuid", "stream", "index", "is_last_block_run", "missing_streams", "failed_streams")
    line = {name: kwargs[name] for name in names if name in kwargs}
    line["status"] = kwargs["pipeline_run"].status if "stream" not in kwargs else kwargs["block_run"].status
    line["error"] = str(kwargs.get("__error", ""))
    with Path(__file__).with_suffix(".log").open("a") as log:
        log.write(json.dumps(line) + "\\n")
"""
FIRST = datetime(2026, 3, 1, 2, tzinfo=UTC)
#: Found by a glob.
FREE = ("f1", "f2", "f3")


class Place(Protocol):
    """A source database that the tests change, and that a pipeline reads."""

    source: Mapping[str, Any]
    destination: Mapping[str, Any]
    prefix: str
    can_revoke: bool

    def run(self, sql: str) -> None: ...


class Source:
    """What is true of the source: how each stream that is named is refused, and which free tables cannot be had."""

    def __init__(self, place: Place) -> None:
        self._place = place
        #: Change -> the statement that makes it and the one that takes it back.
        self.changes = {
            "marks": ("alter table marks rename column u to w", "alter table marks rename column w to u"),
            "parts": ("alter table parts rename column v to x", "alter table parts rename column x to v"),
            "keyed": (
                "drop table keyed; create table keyed(id bigint)",
                "drop table keyed; create table keyed(id bigint primary key)",
            ),
            "named": ("drop table named", "create table named(id bigint primary key)"),
            **{
                name: (f"drop table {name}", f"create table {name}(id bigint primary key); {place_grant(place, name)}")
                for name in FREE
            },
            "spare": ("drop table spare", "create table spare(id bigint primary key)"),
        }
        #: Which of them are made; of free tables how.
        self.made: dict[str, str] = {}
        for sql in (
            "create table marks(id bigint primary key, u bigint)",
            "create table parts(id bigint primary key, v bigint, z bigint)",
            "create table solid(id bigint primary key)",
            *(
                self.changes[name][1].removeprefix(f"drop table {name}; ")
                for name in ("keyed", "named", *FREE, "spare")
            ),
        ):
            self._run(sql)

    def _run(self, script: str) -> None:
        for sql in filter(str.strip, script.split(";")):
            self._place.run(sql)

    def turn(self, name: str, chance: random.Random) -> None:
        """Make a change, or take it back."""
        how = self.made.pop(name, "")
        if how == "revoked":
            self._run(place_grant(self._place, name))
        elif how:
            self._run(self.changes[name][1])
        elif name in FREE and self._place.can_revoke and chance.random() < 0.5:
            self._run(place_grant(self._place, name, "revoke"))
            self.made[name] = "revoked"
        else:
            self._run(self.changes[name][0])
            self.made[name] = "made"


def place_grant(place: Place, name: str, word: str = "grant") -> str:
    """Return the statement that lets the pipeline read a table, or keeps it from that."""
    if not place.can_revoke:
        return ""
    return f"{word} select on {name} {'to' if word == 'grant' else 'from'} {place.source['role']}"


class Nights:
    """One pipeline, night after night; `night` runs it and holds what it said against what it had to say."""

    def __init__(self, folder: Path, place: Place, chance: random.Random, *, in_turn: bool) -> None:
        self.folder, self.place, self.chance, self.in_turn = folder, place, chance, in_turn
        self.source = Source(place)
        self.synced: set[str] = set()
        self.number = 0
        (folder / "tell.py").write_text(TELL)
        prefix = place.prefix
        named = [
            {"stream": "marks", "replication_method": "INCREMENTAL", "bookmark_properties": ["u"]},
            {"stream": "parts", "columns": {"include": ["id", "v"]}},
            {"stream": "keyed", "write_disposition": "merge"},
            {"stream": "named"},
        ]
        document = {
            "pipeline": "nightly",
            "allow_blocks_to_fail": in_turn,
            "source": {"block": "load", **{key: place.source[key] for key in ("connector", "config")}},
            "destination": {"block": "export", **place.destination},
            "streams": [
                {"stream": f"{prefix}f*"},
                {"stream": f"{prefix}s*", "optional": True},
                *({**entry, "stream": prefix + str(entry["stream"])} for entry in named),
            ],
            "callbacks": [{"file": "tell.py", "on": ["load", "export", "pipeline"]}],
        }
        (folder / "nightly.yaml").write_text(yaml.safe_dump(document, sort_keys=False))

    def night(self) -> None:
        """Change the source, run, and compare."""
        names = list(self.source.changes)
        for name in self.chance.sample(names, self.chance.choice([0, 1, 1, 2, 3])) if self.number else ():
            self.source.turn(name, self.chance)
        if self.number and set(FREE) <= self.source.made.keys():  # a glob that finds nothing is another story
            self.source.turn(self.chance.choice(FREE), self.chance)
        missing = sorted(self.synced & self.source.made.keys() & set(FREE))
        if missing and self.chance.random() < 0.15:
            self._reset(missing.pop())
        self.number += 1
        (self.folder / "tell.log").unlink(missing_ok=True)
        pipeline = load_pipeline(
            self.folder / "nightly.yaml", execution_date=FIRST + timedelta(days=self.number), variables={}
        )
        result = run_pipeline(pipeline, inline_callbacks=True)
        self._compare(result, missing)

    def _reset(self, name: str) -> None:
        pipeline = load_pipeline(self.folder / "nightly.yaml")
        with existing_store(pipeline) as store, opened(pipeline) as session:
            try:
                reset_state(session, store, self.place.prefix + name, forget=False)
            finally:
                self.synced.discard(name)

    def _compare(self, result: RunResult, missing: list[str]) -> None:
        prefix, made = self.place.prefix, self.source.made
        refused = sorted(prefix + name for name in ("marks", "parts", "keyed", "named") if name in made)
        there = {prefix + name for name in (*FREE, "spare", "solid") if name not in made}
        there |= {prefix + name for name in ("marks", "parts", "keyed", "named")} - set(refused)
        said = [json.loads(line) for line in (self.folder / "tell.log").read_text().splitlines()]
        whole = [each for each in said if each["parent_block_uuid"] == "pipeline"]
        context = (self.number, made, result, said)
        assert result.run_id == self.number, context  # each night is a recorded run
        assert list(result.missing_streams) == [prefix + name for name in missing], context
        assert [each["missing_streams"] for each in whole] == [[prefix + name for name in missing]], context
        assert [each["status"] for each in whole] == ["failure" if refused else "success"], context
        assert result.exit_code == (1 if refused else 0), context
        statuses = {each.stream: each.status for each in result.streams}
        if refused and not self.in_turn:
            assert statuses == {}, context
            assert any(repr(name) in whole[0]["error"] for name in refused), context
            return
        assert statuses == {**dict.fromkeys(there, "success"), **dict.fromkeys(refused, "failure")}, context
        assert sorted(each["stream"] for each in whole[0]["failed_streams"]) == refused, context
        for block, failed in (("load", "failure"), ("export", "cancelled")):
            own = [each for each in said if each["parent_block_uuid"] == block]
            assert {each["stream"]: each["status"] for each in own} == {
                name: failed if name in refused else "success" for name in statuses
            }, context
            assert sorted(each["index"] for each in own) == list(range(len(own))), context
            assert [each["index"] for each in own if each["is_last_block_run"]] == [len(own) - 1], context
        self.synced |= {name.removeprefix(prefix) for name in there}


@contextmanager
def sqlite_place(folder: Path) -> Iterator[Place]:
    """Two SQLite files."""
    import sqlite3

    with closing(sqlite3.connect(folder / "s.db", isolation_level=None)) as connection:

        class Files:
            source: Mapping[str, Any] = {"connector": "sqlite", "config": {"path": "s.db"}}
            destination: Mapping[str, Any] = {"connector": "sqlite", "config": {"path": "d.db"}}
            prefix, can_revoke = "", False

            def run(self, sql: str) -> None:
                connection.execute(sql)

        yield Files()


@contextmanager
def postgres_place(url: str) -> Iterator[Place]:
    """One PostgreSQL database, read by a role of its own, into a schema of its own."""
    import psycopg

    parts = urlsplit(url)
    with psycopg.connect(url, autocommit=True) as connection:
        role = f"{connection.info.dbname}_nightly"
        port = f":{parts.port}" if parts.port else ""
        own = urlunsplit(parts._replace(netloc=f"{role}@{parts.hostname}{port}"))
        connection.execute(f'create role "{role}" login')
        connection.execute(f'create schema copy authorization "{role}"')
        connection.execute(f'alter default privileges in schema public grant select on tables to "{role}"')

        class Server:
            source: Mapping[str, Any] = {
                "connector": "postgres",
                "config": {"url": own, "schema": "public"},
                "role": f'"{role}"',
            }
            destination: Mapping[str, Any] = {"connector": "postgres", "config": {"url": own, "schema": "copy"}}
            prefix, can_revoke = "public.", True

            def run(self, sql: str) -> None:
                connection.execute(sql)

        try:
            yield Server()
        finally:
            connection.execute(f'drop owned by "{role}" cascade')
            connection.execute(f'drop role "{role}"')
