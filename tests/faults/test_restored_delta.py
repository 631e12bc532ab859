"""Restores of Delta tables to random versions. After the documented commands, each table equals its source."""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable

from syncblocks.sync.cli import invoke
from tests.connectors.delta.delta_tables import opened, read_table
from tests.thinned import only_full

#: Stream -> its settings. Records of `added` are only inserted, so that an append has each of them once.
STREAMS: dict[str, dict[str, Any]] = {
    "added": {"write_disposition": "append", "replication_method": "INCREMENTAL", "bookmark_properties": ["written"]},
    "changed": {"write_disposition": "merge", "replication_method": "INCREMENTAL", "bookmark_properties": ["written"]},
    "merged": {"write_disposition": "merge"},
    "replaced": {"write_disposition": "replace"},
}
START = datetime.fromisoformat("2026-01-01")


class Shop:
    """Tables in DuckDB that change at random, and their copies in a lake."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder, self.chance = folder, chance
        self.clock, self.ids = 0, 0
        self.has_keys = chance.random() < 0.5
        self.columns = chance.choice([{"include": ["*"]}, {"mask": {"name": "hash"}}, {"exclude": ["note"]}])
        with self.source() as source:
            for stream in STREAMS:
                source.execute(
                    f"create table {stream} (id bigint, written timestamp, name varchar, price decimal(12, 3), "
                    "code uuid, note json, part double, clock time)"
                )

    def source(self) -> Any:
        return duckdb.connect(str(self.folder / "shop.db"))

    def change(self) -> None:
        """Add and change some records. Some of them get the time of the last record so far."""
        chance = self.chance
        with self.source() as source:
            for _ in range(chance.randrange(1, 8)):
                self.clock += chance.choice([0, 0, 1])
                at = START + timedelta(seconds=self.clock)
                for stream in STREAMS:
                    is_new = stream == "added" or not self.ids or chance.random() < 0.6
                    number = self.ids + 1 if is_new else chance.randrange(1, self.ids + 1)
                    if not self.has_keys and stream == "added" and chance.random() < 0.3:
                        number = -1  # equal records, which count
                    if stream != "added":
                        source.execute(f"delete from {stream} where id = ?", [number])
                    source.execute(
                        f"insert into {stream} values (?, ?, ?, ?, ?, ?, ?, ?)", [number, at, *self.values()]
                    )
                self.ids += 1

    def values(self) -> list[Any]:
        pick = self.chance.randrange(3)
        return [
            [None, "a", "ü'\\"][pick],
            ["1.500", None, "-7"][pick],
            f"00000000-0000-0000-0000-00000000000{pick}",
            ['{"a": [1, 2.50]}', None, "[]"][pick],
            [0.1, 1e300, None][pick],
            ["10:00:00", "23:59:59.5", None][pick],
        ]

    def command(self, *words: str) -> int:
        document = {
            "pipeline": "shop",
            "mask_key": "k" * 32,
            "source": {"connector": "duckdb", "config": {"path": "shop.db", "checkpoint_records": 3}},
            "destination": {"connector": "delta", "config": {"path": "lake"}},
            "streams": [
                {
                    "stream": stream,
                    "on_lossy": "text",
                    "columns": self.columns,
                    **({"key_properties": ["id"]} if self.has_keys or stream != "added" else {}),
                    **settings,
                }
                for stream, settings in STREAMS.items()
            ],
        }
        path = self.folder / "shop.json"
        path.write_text(json.dumps(document))
        head = 2 if words[0] == "state" else 1
        return invoke([*words[:head], str(path), *words[head:]])

    def disturb(self, stream: str) -> None:
        """Do what a lake's own jobs do."""
        table = opened(self.folder / "lake", stream)
        job = self.chance.choice(["", "", "compact", "checkpoint"])
        if table is not None and job == "compact":
            table.optimize.compact()
        elif table is not None and job == "checkpoint":
            table.create_checkpoint()

    def restore(self, stream: str) -> None:
        """Restore a random version."""
        table = DeltaTable((self.folder / "lake" / stream).as_uri())
        table.restore(self.chance.randrange(table.version()))

    def decide(self, stream: str) -> None:
        """Run the command that the refusal names for the restored table of a stream."""
        table = opened(self.folder / "lake", stream)
        if table is None or "replication_method" not in STREAMS[stream]:
            return  # such a stream reads all records
        newest = max((row["written"] for row in read_table(self.folder / "lake", stream) or []), default=None)
        if newest is None:
            assert self.command("state", "reset", stream) == 0
        else:
            assert self.command("state", "rewind", stream, "--to", f"written={newest.isoformat()}") == 0

    def is_copied(self, stream: str) -> bool:
        found = read_table(self.folder / "lake", stream) or []
        with self.source() as source:
            names = {"mask": "* exclude (name)", "exclude": "* exclude (note)"}.get(next(iter(self.columns)), "*")
            there = source.execute(f"select {names} from {stream}")
            records = [dict(zip([each[0] for each in there.description], row, strict=True)) for row in there.fetchall()]
        shown = Counter(tuple(map(_shown, record.values())) for record in records)
        return shown == Counter(tuple(_shown(row[name]) for name in records[0]) for row in found)


def _shown(value: Any) -> str:
    """Return a text that does not depend on the type that a side has for the value."""
    return value.isoformat(timespec="microseconds") if isinstance(value, time) else str(value)


@pytest.mark.full
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", ["0", "1", *only_full(*map(str, range(2, 50)))])
def test_after_a_restore_and_the_named_commands_each_table_equals_its_source(
    tmp_path: Path, seed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = Shop(tmp_path, random.Random(seed))
    for _ in range(3):
        shop.change()
        assert shop.command("run") == 0
        for stream in STREAMS:
            shop.disturb(stream)
    for stream in STREAMS:
        shop.restore(stream)
    for stream in STREAMS:
        shop.decide(stream)
    if shop.chance.random() < 0.5:
        shop.change()
    for _ in range(2):  # the second run has nothing to repeat
        assert shop.command("run") == 0, capsys.readouterr().err
        assert all(map(shop.is_copied, STREAMS)), [stream for stream in STREAMS if not shop.is_copied(stream)]
    shop.change()
    assert shop.command("run") == 0
    assert all(map(shop.is_copied, STREAMS))
