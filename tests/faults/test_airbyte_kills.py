"""`kill -9` of ours, and of the connector alone, at random moments: a manifest, and a package that is a program."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from tests.faults.children import killed, lifetime
from tests.faults.conftest import Count
from tests.thinned import only_full
from tests.web_api import Api, serving
from tests.web_manifest import manifest, stream
from tests.zygote import Process, Zygote

pytestmark = pytest.mark.full

FAKER = "airbyte-source-faker==7.2.1"

Rows = list[tuple[Any, ...]]


class Work:
    """A pipeline in a folder, with a connector into DuckDB."""

    #: Stream -> how it is written.
    streams: dict[str, dict[str, Any]] = {}
    #: Rounds until it begins anew.
    rounds = 10

    def __init__(self, zygote: Zygote, folder: Path, plugins: dict[str, str], source: dict[str, Any]) -> None:
        self.zygote, self.folder, self.plugins = zygote, folder, plugins
        folder.mkdir()
        document = {
            "pipeline": "work",
            "source": {"connector": "airbyte", "config": {"checkpoint_records": 1, "checkpoint_s": 0, **source}},
            "destination": {"connector": "duckdb", "config": {"path": "out.duckdb"}},
            "streams": [{"stream": name, **how} for name, how in self.streams.items()],
        }
        (folder / "pipeline.yaml").write_text(yaml.safe_dump(document))

    def start(self) -> Process:
        return self.zygote.start(self.folder, environment=self.plugins)

    def grow(self, records: int) -> None:
        """Let the source have more records."""

    def expected(self, name: str) -> Rows:
        raise NotImplementedError

    def ahead(self) -> list[str]:
        """Say which records a committed state covers that are not there."""
        return []

    def select(self, sql: str) -> Rows:
        """Return the result of a query; nothing where its table is not there yet."""
        if not (self.folder / "out.duckdb").exists():
            return []
        with closing(duckdb.connect(str(self.folder / "out.duckdb"))) as connection:
            try:
                return connection.execute(sql).fetchall()
            except duckdb.CatalogException:
                return []

    def wrong(self) -> list[str]:
        """Say what of the destination is not as it must be after a good run."""
        found = []
        for name in self.streams:
            rows, expected = Counter(self.rows(name)), Counter(self.expected(name))
            if rows != expected:
                found.append(f"{name}: too many {dict(rows - expected)}, missing {dict(expected - rows)}")
        return found

    def rows(self, name: str) -> Rows:
        return self.select(f"select id from {name}")


class ManifestWork(Work):
    """Tables of an API that grow; `orders` and `events` in slices of time, `items` as children of `users`."""

    streams = {
        "users": {"write_disposition": "replace"},
        "orders": {"write_disposition": "append"},
        "events": {"write_disposition": "merge"},
        "items": {"write_disposition": "append"},
    }

    def __init__(self, zygote: Zygote, folder: Path, plugins: dict[str, str], api: Api) -> None:
        self.api = api
        api.tables |= {name: [] for name in self.streams}
        api.tables["users"] = [{"id": n, "user_id": None, "updated_at": moment(0), "note": f"u{n}"} for n in range(3)]
        source = {"manifest": "shop.yaml", "config": {"url": api.url}}
        super().__init__(zygote, folder, plugins, source)
        users = stream("users", is_incremental=False)
        slices = {"step": "PT60S", "until": moment(1800)}
        made = manifest(users, stream("orders", **slices), stream("events", **slices), stream("items", parent=users))
        (folder / "shop.yaml").write_text(yaml.safe_dump(made))

    def grow(self, records: int) -> None:
        for name in ("orders", "events", "items"):
            table = self.api.tables[name]
            for number in range(len(table), len(table) + records):
                # Two records share each moment, also with one of the growth before.
                stamp = moment(number // 2 * 10)
                table.append({"id": number, "user_id": number % 3, "updated_at": stamp, "note": f"{name}-{number}"})

    def expected(self, name: str) -> Rows:
        return [(each["id"],) for each in self.api.tables[name]]

    def ahead(self) -> list[str]:
        found = []
        for name in ("orders", "events"):
            held = self.select(f"select bookmark from _syncblocks_ledger where stream = '{name}'")
            if not held or not held[0][0]:
                continue
            state = json.loads(held[0][0])
            place = state.get("airbyte_state", {}).get("updated_at", "")
            there = {row[0] for row in self.rows(name)}
            lost = [each for each in self.api.tables[name] if each["updated_at"] < place and each["id"] not in there]
            found += [f"{name}: the state is at {place}, but {each} is not there" for each in lost]
        return found


class FakerWork(Work):
    """The package of made-up records, which does not go on from a state in the middle: it has one, at the end."""

    streams = {
        "users": {"write_disposition": "append"},
        "purchases": {"write_disposition": "merge"},
        "products": {"replication_method": "FULL_TABLE", "write_disposition": "replace"},
    }
    rounds = 1

    #: Of a first run without a kill: its seed makes the same in each.
    quiet: dict[str, Rows] = {}

    def __init__(self, zygote: Zygote, folder: Path, plugins: dict[str, str], api: Api) -> None:
        own = {"count": 200, "seed": 1, "records_per_slice": 200, "parallelism": 1, "always_updated": False}
        super().__init__(zygote, folder, plugins, {"package": FAKER, "config": own})

    def expected(self, name: str) -> Rows:
        if name == "users":
            return [(number + 1,) for number in range(200)]
        if name not in self.quiet:
            self.quiet[name] = self.rows(name)
        return self.quiet[name]


def moment(seconds: int) -> str:
    return f"2026-01-01T{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}Z"


@pytest.fixture
def api() -> Iterator[Api]:
    with serving(Api({}, page=5, fails={"slow": 3}, wait_s=0.02)) as made:
        yield made


@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("kind", "whom"),
    [
        ("manifest", "source-declarative-manifest"),
        *only_full(("manifest", "ours"), ("faker", "source-faker"), ("faker", "ours")),
    ],
)
def test_nothing_is_lost_or_doubled_whoever_is_killed(
    zygote: Zygote,
    folder: Path,
    airbyte_plugins: dict[str, str],
    api: Api,
    kind: str,
    whom: str,
    injected: Count,
    is_full: bool,
) -> None:
    chance = random.Random(f"{kind} {whom}")
    made: type[ManifestWork | FakerWork] = ManifestWork if kind == "manifest" else FakerWork
    works = (made(zygote, folder / str(number), airbyte_plugins, api) for number in range(1000))
    for number in range(2):  # the first run also installs, and that program is called the same
        if number % made.rounds == 0:
            work = next(works)
        work.grow(15)
        quiet = work.start()
        usual_s = lifetime(quiet, whom)
        assert quiet.code == 0, quiet.log()
    kills, hit, rounds, found = 50 if is_full else 2, 0, 0, work.wrong()
    while hit < kills and not found:
        if rounds % work.rounds == 0:
            work = next(works)
        rounds += 1
        work.grow(chance.randrange(10, 25))
        for _ in range(chance.choice((1, 2, 2))):
            hit += killed(work.start(), whom, usual_s * chance.uniform(0.1, 0.95))
            found += work.ahead()
        after = work.start()
        if after.wait(600) != 0:
            found.append(f"the next run ended with {after.code}: {after.result()} {after.log()[-3000:]}")
        found += work.wrong()
    injected(hit)
    assert found == []
    assert hit >= kills
