"""`kill -9` while a history is written: it holds what the model says, whatever was committed before."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.connectors.sql.history_model import Batch, Model, held, moment, number_of
from tests.faults.conftest import Count
from tests.zygote import Zygote

pytestmark = pytest.mark.full

ROUNDS, KEYS = 3, 5
PLACES = ("before", "inside", "after")


class House:
    """A pipeline over records in its own file, whose history is kept in one system."""

    def __init__(self, zygote: Zygote, folder: Path, system: str, url: str, chance: random.Random) -> None:
        self.zygote, self.folder, self.system, self.url, self.chance = zygote, folder, system, url, chance
        self.has_versions = chance.random() < 0.5
        self.columns = {"id": "int64", "name": "string", "at": "timestamp[us]"}
        self.records: list[dict[str, Any]] = []
        self.model = Model(has_versions=self.has_versions, in_place=frozenset({"at"}), kept=frozenset())
        self.round = 0

    def change(self) -> None:
        """Let the source have new versions and, in some rounds, a column more."""
        self.round += 1
        if self.round > 1 and self.chance.random() < 0.7:
            self.columns[f"new{self.round}"] = "string"
            for record in () if self.has_versions else self.records:  # what is read again there is as it was
                record[f"new{self.round}"] = self.chance.choice("xyz")
        new = [self._record(key) for key in range(KEYS) if self.round == 1 or self.chance.random() < 0.7]
        if self.has_versions:
            self.records += new
        else:
            changed = {record["id"] for record in new}
            self.records = [record for record in self.records if record["id"] not in changed] + new
        # Records of equal times and another order would be other versions: each round has a time of its own.
        batch = [(each["id"], self.round, {n: each.get(n) for n in self.columns if n != "id"}) for each in new]
        if not self.has_versions:
            batch = [
                (each["id"], self.round, {n: each.get(n) for n in self.columns if n != "id"}) for each in self.records
            ]
        self.model.run([Batch(tuple(name for name in self.columns if name != "id"), tuple(batch))])
        self._write()

    def _record(self, key: int) -> dict[str, Any]:
        at = moment(self.round).replace(tzinfo=None).isoformat()
        more = {name: self.chance.choice("xyz") for name in self.columns if name.startswith("new")}
        return {"id": key, "name": self.chance.choice("ab"), "at": at, **more}

    def _write(self) -> None:
        stream: dict[str, Any] = {"stream": "people", "write_disposition": "history", "key_properties": ["id"]}
        stream["bookmark_properties"] = ["at"]
        if self.has_versions:
            stream |= {"replication_method": "INCREMENTAL", "valid_from": "bookmark"}
        tables = {"people": {"columns": self.columns, "records": self.records}}
        is_alchemy = self.system == "psycopg"
        config = {"url": self.url} if self.url else {"path": "out.db"}
        if is_alchemy:
            config["url"] = self.url.replace("postgresql:", "postgresql+psycopg:")
        document = {
            "pipeline": "kept",
            "source": {"connector": "memory", "config": {"tables": tables, "batch_size": 1, "checkpoint_records": 2}},
            "destination": {"connector": "sqlalchemy" if is_alchemy else self.system, "config": config},
            "streams": [stream],
        }
        (self.folder / "kept.json").write_text(json.dumps(document))

    def run(self, failpoint: str = "", killed_after_s: float | None = None) -> Any:
        process = self.zygote.start(self.folder, ("run", "kept.json"), failpoint=failpoint)
        if killed_after_s is not None:
            process.zygote.read_until(lambda: process.code is not None, killed_after_s)
            process.kill()
        process.wait()
        return process

    def check(self, when: str) -> None:
        tables = held(self.system, self.url, self.folder / "out.db"), self.model.table()
        found, wanted = ([_with_numbers(row) for row in table] for table in tables)
        if not self.has_versions:  # the times are those of the runs
            found = [(key, *rest) for key, _, _, *rest in _numbered(found)]
            wanted = [(key, *rest) for key, _, _, *rest in _numbered(wanted)]
        assert found == wanted, when


def _with_numbers(row: tuple[Any, ...]) -> tuple[Any, ...]:
    *times, values = row
    return (*times, tuple((name, number_of(value) if name == "at" else value) for name, value in values))


def _numbered(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Put places for times, where each version ends as the next one begins."""
    found = []
    for place, (key, begun, ended, values) in enumerate(rows):
        following = rows[place + 1] if place + 1 < len(rows) and rows[place + 1][0] == key else None
        assert ended == (None if following is None else following[1]), rows
        found.append((key, begun, ended, values))
    return found


@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", range(20 if os.environ.get("SYNCBLOCKS_FAULTS") == "full" else 1))
@pytest.mark.parametrize("system", ["postgres", "mysql", "duckdb", "sqlite", "parquet", "psycopg"])
def test_a_killed_run_leaves_no_gap_and_no_version_too_many(
    request: pytest.FixtureRequest,
    zygote: Zygote,
    folder: Path,
    injected: Count,
    is_full: bool,
    system: str,
    seed: int,
) -> None:
    urls = {"postgres": "postgres_url", "mysql": "mariadb_url", "psycopg": "postgres_url"}
    url = request.getfixturevalue(urls[system]) if system in urls else ""
    chance = random.Random(f"{system} {seed}")
    house, hit, usual_s = House(zygote, folder, system, url, chance), 0, 1.0
    for number in range(ROUNDS if is_full else 2):
        house.change()
        commits = {"parquet": "files.manifest", "psycopg": "sqlalchemy.commit"}
        point = commits.get(system, f"{system}.commit")
        places = [place for place in PLACES if place != "inside" or system != "parquet"]
        point = f"{point}.{chance.choice(places)}:{chance.randrange(1, 7)}:kill"
        killed = (
            house.run(failpoint=point) if chance.random() < 0.8 else house.run(killed_after_s=usual_s * chance.random())
        )
        hit += killed.code == -signal.SIGKILL
        assert killed.code in (0, -signal.SIGKILL), killed.log()[-3000:]
        began = time.monotonic()
        last = house.run()
        usual_s = time.monotonic() - began
        assert last.code == 0, last.log()[-3000:]
        house.check(f"round {number}, killed at {point}")
    injected(hit)
