"""A record that goes back to a former value while its bookmark stays: the destination goes back with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from syncblocks import run_pipeline
from syncblocks.connectors.stream import Stream
from tests.connectors.singer.singer_helpers import entry, record, schema, small, state
from tests.sync.verify.verify_pairs import seed

DAY = date(2024, 5, 1)
SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), ("updated_on", pa.date32()), ("value", pa.string())])
SYSTEMS = ["postgres", "mariadb", "sqlite", "duckdb", "csv", "jsonl", "parquet", "sqlalchemy", "singer"]

Put = Callable[[Mapping[int, str]], None]


class Way:
    """A pipeline from one system into a SQLite file, and a way to change what stands in the source."""

    def __init__(self, folder: Path, source: str, config: Mapping[str, Any], **stream: Any) -> None:
        self.folder = folder
        self.source = source
        self.config = dict(config)
        self.stream = {
            "stream": "things",
            "destination_table": "copied",
            "replication_method": "INCREMENTAL",
            "bookmark_properties": ["updated_on"],
            **stream,
        }

    def put(self, *records: tuple[int, str]) -> None:
        """Replace the source's records; all of them stand at the same day."""
        if self.source == "singer":
            rows = [record("things", id=number, stamp=str(DAY), note=value) for number, value in records]
            self.config = small(
                self.folder,
                schema("things"),
                *rows,
                state(things={"stamp": str(DAY)}),
                streams=[entry("things")],
            )
            self.stream["bookmark_properties"] = ["stamp"]
            return
        rows = [{"id": number, "updated_on": DAY, "value": value} for number, value in records]
        batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
        connector, config = self.source, self.config
        if connector == "sqlalchemy":
            connector, config = "sqlite", {"path": self.config["url"].removeprefix("sqlite:///")}
        shape = Stream(name="things", schema=SCHEMA, key_properties=("id",) if self.has_key else ())
        self.stream["stream"] = seed(connector, config, "things", shape, batch)

    @property
    def has_key(self) -> bool:
        return self.stream.get("key_properties") != []

    def run(self) -> int:
        """Return the number of records that were synced."""
        document = {
            "pipeline": "p",
            "source": {"connector": self.source, "config": self.config},
            "destination": {"connector": "sqlite", "config": {"path": "copy.db"}},
            "streams": [self.stream],
        }
        path = self.folder / "p.yaml"
        path.write_text(yaml.safe_dump(document))
        result = run_pipeline(path)
        assert result.status == "success", result
        return result.streams[0].records or 0

    def copied(self) -> list[tuple[int, str]]:
        column = "note" if self.source == "singer" else "value"
        with closing(sqlite3.connect(self.folder / "copy.db")) as connection:
            return connection.execute(f"select id, {column} from copied order by id, rowid").fetchall()


@pytest.fixture
def way(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Way]:
    def make(source: str, **stream: Any) -> Way:
        configs: dict[str, Mapping[str, Any]] = {
            "sqlite": {"path": str(tmp_path / "source.db")},
            "duckdb": {"path": str(tmp_path / "source.duckdb")},
            "sqlalchemy": {"url": f"sqlite:///{tmp_path / 'source.db'}"},
            **{name: {"path": str(tmp_path / name)} for name in ("csv", "jsonl", "parquet")},
        }
        if source == "postgres":
            configs[source] = {"url": request.getfixturevalue("postgres_url")}
        if source == "mariadb":
            configs[source] = {"url": request.getfixturevalue("mariadb_url")}
        return Way(tmp_path, source, configs.get(source, {}), **{"key_properties": ["id"], **stream})

    return make


@pytest.mark.full
@pytest.mark.parametrize("source", SYSTEMS)
def test_a_merge_goes_back_to_a_former_value(way: Callable[..., Way], source: str) -> None:
    made = way(source)
    for value in ("A", "B", "A", "B", "C", "A"):
        made.put((1, value), (2, "other"))
        made.run()
        assert made.copied() == [(1, value), (2, "other")]
    assert made.run() == 0, "the last version was committed"


@pytest.mark.one_of("source")
@pytest.mark.parametrize("source", SYSTEMS)
def test_an_append_with_keys_gets_every_version(way: Callable[..., Way], source: str) -> None:
    made = way(source, write_disposition="append")
    for value in "ABBAA":
        made.put((1, value), (2, "other"))
        made.run()
    assert made.copied() == [(1, "A"), (1, "B"), (1, "A"), (2, "other")]


VALUES = "ABC"
#: Every history of four runs that one key can have, three of them in a table.
HISTORIES = ["".join(values) for values in product(VALUES, repeat=4)]
TABLES = [HISTORIES[place : place + 3] for place in range(0, len(HISTORIES), 3)]


def committed(history: str, *, is_keyed: bool) -> list[str]:
    """What an append has then: with keys, each value that differs from the last; without, each value once."""
    if not is_keyed:
        return sorted(set(history))
    return [value for place, value in enumerate(history) if place == 0 or value != history[place - 1]]


@pytest.mark.full
@pytest.mark.parametrize("kind", ["merge", "append with keys", "append without keys"])
def test_every_history_of_four_runs(tmp_path: Path, kind: str) -> None:
    is_keyed = kind != "append without keys"
    document = {
        "pipeline": "p",
        "source": {"connector": "sqlite", "config": {"path": "source.db"}},
        "destination": {"connector": "sqlite", "config": {"path": "copy.db"}},
        "streams": [
            {
                "stream": "*",
                "replication_method": "INCREMENTAL",
                "bookmark_properties": ["updated_on"],
                "key_properties": ["id"] if is_keyed else [],
                "write_disposition": kind.split()[0],
            }
        ],
    }
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(document))
    for turn in range(4):
        with closing(sqlite3.connect(tmp_path / "source.db")) as source, source:
            for place, histories in enumerate(TABLES):
                source.execute(f"create table if not exists t{place} (id integer, updated_on date, value text)")
                source.execute(f"delete from t{place}")
                rows = [(key, str(DAY), history[turn]) for key, history in enumerate(histories)]
                source.executemany(f"insert into t{place} values (?, ?, ?)", rows)
        assert run_pipeline(path).status == "success"
        with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
            for place, histories in enumerate(TABLES):
                for key, history in enumerate(histories):
                    found = copy.execute(f"select value from t{place} where id = ? order by rowid", [key]).fetchall()
                    values = [value for (value,) in found]
                    if kind == "merge":
                        assert values == [history[turn]], history
                    else:
                        wanted = committed(history[: turn + 1], is_keyed=is_keyed)
                        assert (values if is_keyed else sorted(values)) == wanted, history
