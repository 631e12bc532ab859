"""`kill -9` of the tap, of the target and of ours at random moments: the destination's ledger, or the echo, decides."""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.connectors.singer.singer_helpers import entry, tap_program
from tests.connectors.singer.singer_targets import make_target
from tests.faults.children import killed, lifetime
from tests.faults.conftest import Count
from tests.faults.workshop import postgres
from tests.zygote import Process, Zygote

pytestmark = pytest.mark.full

STREAMS = {"orders": "merge", "users": "append"}

#: Small blocks, so that a run of a fraction of a second has many of them.
CONSTANTS = {
    "syncblocks.connectors.singer.tap.BLOCK_S": 0.005,
    "syncblocks.connectors.singer.tap.PASSED_S": 0.005,
    "syncblocks.connectors.programs.process._FILL_S": 0.0,
}


class Shop:
    """Two tables in a SQLite file, a tap that reads them by `stamp`, and a pipeline for it."""

    def __init__(self, zygote: Zygote, folder: Path, destination: str, url: str) -> None:
        self.zygote, self.folder, self.destination, self.url = zygote, folder, destination, url
        self.count = 0
        with closing(sqlite3.connect(folder / "source.db")) as connection:
            for name in STREAMS:
                connection.execute(f"create table {name} (id integer primary key, stamp text, note text)")
        catalog = {"streams": [entry(name) for name in STREAMS]}
        own = {"catalog": catalog, "source": str(folder / "source.db"), "every": 3, "run": 2, "pace_s": 0.01}
        configs: dict[str, dict[str, Any]] = {
            "postgres": {"url": url},
            "singer": {"executable": str(make_target(folder)), "config": {"out": "out.jsonl"}},
        }
        source = {"executable": str(tap_program(folder)), "config": own, "checkpoint_records": 1, "checkpoint_s": 0}
        document = {
            "pipeline": "shop",
            "source": {"connector": "singer", "config": source},
            "destination": {
                "connector": destination,
                "config": configs.get(destination, {"path": f"out.{destination}"}),
            },
            "streams": [{"stream": name, "write_disposition": how} for name, how in STREAMS.items()],
        }
        (folder / "pipeline.yaml").write_text(yaml.safe_dump(document))

    def grow(self, records: int) -> None:
        """Add records to both tables; some share their stamp with the one before."""
        with closing(sqlite3.connect(self.folder / "source.db")) as connection, connection:
            for number in range(self.count, self.count + records):
                for name in STREAMS:
                    stamp = f"{number // 2:06d}"
                    connection.execute(f"insert into {name} values (?, ?, ?)", (number, stamp, f"{name}-{number}"))
        self.count += records

    def start(self) -> Process:
        return self.zygote.start(self.folder, constants=CONSTANTS)

    def expected(self, name: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.folder / "source.db")) as connection:
            return connection.execute(f"select id, stamp, note from {name} order by id").fetchall()

    def rows(self, name: str) -> list[tuple[Any, ...]]:
        """Return the destination's records, by a plain driver."""
        sql = f"select id, stamp, note from {name} order by id, note"
        if self.destination == "singer":
            return self.received(name)
        if self.destination == "postgres":
            with postgres(self.url) as connection:
                return [tuple(row) for row in connection.execute(sql)]
        if self.destination == "sqlite":
            with closing(sqlite3.connect(self.folder / "out.sqlite")) as connection:
                return connection.execute(sql).fetchall()
        import duckdb

        with closing(duckdb.connect(str(self.folder / "out.duckdb"))) as connection:
            return [tuple(row) for row in connection.execute(sql).fetchall()]

    def received(self, name: str) -> list[tuple[Any, ...]]:
        """Return what a target has kept; its last line may be cut off."""
        path, found = self.folder / "out.jsonl", []
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if message["type"] == "RECORD" and message["stream"] == name:
                found.append(tuple(message["record"][column] for column in ("id", "stamp", "note")))
        return sorted(found)

    def bookmark(self, name: str) -> str:
        """Return the stamp that the run store holds as committed."""
        path = self.folder / ".syncblocks" / "store.db"
        if not path.exists():
            return ""
        with closing(sqlite3.connect(path, timeout=30)) as store:
            try:
                found = store.execute("select bookmark from _syncblocks_state where stream = ?", (name,)).fetchone()
            except sqlite3.OperationalError:
                return ""
        bookmark = json.loads(found[0]) if found and found[0] else {}
        return str(bookmark.get("singer_state", {}).get("bookmarks", {}).get(name, {}).get("stamp", ""))

    def wrong(self) -> list[str]:
        """Say what of the destination is not as it must be after a good run."""
        found = []
        for name in STREAMS:
            rows, expected = self.rows(name), self.expected(name)
            if self.destination == "singer":
                rows = sorted(set(rows))  # at least once
            if rows != expected:
                extra, missing = Counter(rows) - Counter(expected), Counter(expected) - Counter(rows)
                found.append(f"{name}: too many {dict(extra)}, missing {dict(missing)}")
        return found

    def ahead(self) -> list[str]:
        """Say which records a state covers that a target has not got."""
        found = []
        for name in STREAMS:
            place, received = self.bookmark(name), set(self.received(name))
            # The tap goes on with `>=`: those that share the last stamp come again.
            lost = [row for row in self.expected(name) if row[1] < place and row not in received]
            found += [f"{name}: the state is at {place!r}, but {row} is not there" for row in lost]
        return found


@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("destination", "whom"),
    [
        ("duckdb", "tap-small"),
        ("postgres", "tap-small"),
        ("sqlite", "ours"),
        ("postgres", "ours"),
        ("singer", "target-of-tests"),
        ("singer", "ours"),
    ],
)
def test_nothing_is_lost_or_doubled_whoever_is_killed(
    zygote: Zygote, folder: Path, postgres_url: str, destination: str, whom: str, injected: Count, is_full: bool
) -> None:
    shop = Shop(zygote, folder, destination, postgres_url)
    chance = random.Random(f"{destination} {whom}")
    for _ in range(2):  # the first one takes twice as long: it makes the run store
        shop.grow(15)
        quiet = shop.start()
        # Of a program of the plugin's, a small part of the run: other moments would find nobody to kill.
        usual_s = lifetime(quiet, whom)
        assert quiet.code == 0, quiet.log()
    first, last = (0.1 if whom == "ours" else 0.0), 0.9
    kills, hit, found = 100 if is_full else 4, 0, shop.wrong()
    while hit < kills and not found:
        shop.grow(chance.randrange(10, 25))
        for _ in range(chance.choice((1, 2, 2))):
            hit += killed(shop.start(), whom, usual_s * chance.uniform(first, last))
            found += shop.ahead() if destination == "singer" else []
        after = shop.start()
        if after.wait(120) != 0:
            found.append(f"the next run ended with {after.code}: {after.result()} {after.log()[-3000:]}")
        found += shop.wrong()
    injected(hit)
    assert found == []
    assert hit >= kills
