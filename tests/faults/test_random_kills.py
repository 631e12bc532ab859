"""`kill -9` at any moment of a run that writes a range or a history: the table is what plain SQL makes of a commit."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.connectors.sql.history_model import moment, number_of, rows_of
from tests.faults.conftest import Count
from tests.zygote import Zygote

pytestmark = pytest.mark.full

#: Of each system and disposition; 200 of all in the full set.
KILLS = 17 if os.environ.get("SYNCBLOCKS_FAULTS") == "full" else 2

#: A run that is let alone after so many that are killed, one after the other.
IN_A_ROW = 4

URLS = {"postgres": "postgres_url", "mysql": "mariadb_url", "psycopg": "postgres_url"}
SYSTEMS = ("postgres", "mysql", "duckdb", "sqlite", "psycopg", "parquet")

Rows = list[tuple[Any, ...]]

VERSIONS = """
    select id, at, lead(at) over (partition by id order by at), name
    from (select *, lag(name) over (partition by id order by at) as before from said) where name is not before
    order by id, at
"""


class Model:
    """What the table must hold, as SQLite makes it of the source by statements that anybody can read."""

    def __init__(self, chance: random.Random, disposition: str) -> None:
        self.chance, self.is_history = chance, disposition == "history"
        self.database = sqlite3.connect(":memory:")
        self.database.execute("create table said (id int, at int, name text)")
        self.database.execute("create table held (id int, at int, name text)")
        self.at = 0
        self.interval = (0, 0)

    def change(self) -> Rows:
        """Draw another source; return its records."""
        execute, draw = self.database.execute, self.chance.randrange
        if self.is_history:
            for _ in range(draw(1, 8)):
                self.at += 1
                execute("insert into said values (?, ?, ?)", (draw(4), self.at, self.chance.choice("ab")))
        else:
            execute("delete from said")
            for number in range(draw(12)):
                execute("insert into said values (?, ?, ?)", (number, draw(9), self.chance.choice("abc")))
            first = draw(8)
            self.interval = (first, first + draw(1, 4))
        return execute("select id, at, name from said order by at, id").fetchall()

    def after(self, table: Rows) -> Rows:
        """Return what a run makes of a table."""
        execute = self.database.execute
        if self.is_history:
            return execute(VERSIONS).fetchall()
        execute("delete from held")
        self.database.executemany("insert into held values (?, ?, ?)", table)
        execute("delete from held where at >= ? and at < ?", self.interval)
        execute("insert into held select * from said where at >= ? and at < ?", self.interval)
        return execute("select id, at, name from held order by 1, 2, 3").fetchall()


class House:
    """A pipeline from SQLite into one system."""

    def __init__(self, zygote: Zygote, folder: Path, system: str, url: str, *, is_history: bool) -> None:
        self.zygote, self.folder, self.system, self.url, self.is_history = zygote, folder, system, url, is_history
        driver = "postgresql+psycopg:" if system == "psycopg" else ""
        place = {"url": driver + url.partition(":")[2] if driver else url} if url else {"path": "out.db"}
        stream: dict[str, Any] = {"stream": "people", "write_disposition": "replace_range", "range_column": "at"}
        if is_history:
            stream = {"stream": "people", "write_disposition": "history", "key_properties": ["id"]}
            stream |= {"replication_method": "INCREMENTAL", "bookmark_properties": ["at"], "valid_from": "bookmark"}
        document = {
            "pipeline": "people",
            "source": {"connector": "sqlite", "config": {"path": "source.db"}},
            "destination": {"connector": "sqlalchemy" if driver else system, "config": place},
            "streams": [stream],
        }
        (folder / "people.json").write_text(json.dumps(document))

    def fill(self, records: Rows) -> None:
        with closing(sqlite3.connect(self.folder / "source.db")) as database:
            database.execute("drop table if exists people")
            database.execute("create table people (id integer, at timestamp, name text)")
            said = [(key, moment(24 * at).replace(tzinfo=None).isoformat(" "), name) for key, at, name in records]
            database.executemany("insert into people values (?, ?, ?)", said)
            database.commit()

    def run(self, interval: tuple[int, int], killed_after_s: float | None = None) -> Any:
        ends = [moment(24 * day).date().isoformat() for day in interval]
        options = () if self.is_history else ("--interval-start", ends[0], "--interval-end", ends[1])
        process = self.zygote.start(self.folder, ("run", "people.json", *options))
        if killed_after_s is not None:
            process.zygote.read_until(lambda: process.code is not None, killed_after_s)
            process.kill()
        process.wait()
        assert process.code in (0, -signal.SIGKILL), process.log()[-3000:]
        return process

    def held(self) -> Rows:
        names, rows = rows_of(self.system, self.url, self.folder / "out.db")
        wanted = ("id", "_valid_from", "_valid_to", "name") if self.is_history else ("id", "at", "name")
        found = [tuple(row[names.index(name)] for name in wanted) for row in rows]
        return sorted((key, *map(_day, times), name) for key, *times, name in found)


def _day(value: Any) -> int | None:
    hours = number_of(value)
    return None if hours is None else hours // 24


@pytest.mark.timeout(0)
@pytest.mark.thinned(1)
@pytest.mark.parametrize("disposition", ["replace_range", "history"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_kill_at_any_moment_leaves_what_some_commit_made(
    request: pytest.FixtureRequest, zygote: Zygote, folder: Path, killed_at_random: Count, system: str, disposition: str
) -> None:
    url = request.getfixturevalue(URLS[system]) if system in URLS else ""
    model = Model(random.Random(f"{system} {disposition}"), disposition)
    house = House(zygote, folder, system, url, is_history=model.is_history)
    house.fill(model.change())
    house.run(model.interval)
    states, hits, usual_s, tries = [house.held()], 0, 0.5, 0
    assert states == [model.after([])]
    while hits < KILLS and tries < 4 * KILLS:
        tries += 1
        house.fill(model.change())
        # Files whose commit is made may have to be moved yet: each state since the last whole run may be the next one.
        after = [model.after(each) for each in states]
        process = house.run(model.interval, usual_s * model.chance.random())
        hits += process.code != 0
        found = house.held()
        assert found in ([*states, *after] if process.code else after), f"try {tries}"
        states = [*states, *after] if system == "parquet" and process.code else [found]
        if process.code == 0 or tries % IN_A_ROW == 0:
            began = time.monotonic()
            house.run(model.interval)
            usual_s = time.monotonic() - began
            found = house.held()
            assert found in [model.after(each) for each in states], f"after try {tries}"
            states = [found]
    killed_at_random(hits)
    assert hits == KILLS
