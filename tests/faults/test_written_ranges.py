"""A kill while a range is written anew: the table is as it was or as it shall be, and the next run makes it so."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from tests.connectors.files import files_readback
from tests.faults.conftest import Count
from tests.sync.run.test_replace_range import Table, block, held
from tests.zygote import Zygote

pytestmark = pytest.mark.full

SYSTEMS = ("duckdb", "postgres", "mysql", "sqlite", "sqlalchemy", "sqlalchemy-postgres", "parquet")

#: id, day of January
Record = tuple[int, int]


class Model:
    """What the table must hold, in plain Python."""

    def __init__(self, chance: random.Random, *, is_keyed: bool) -> None:
        self.chance, self.is_keyed = chance, is_keyed
        self.records: list[Record] = []

    def source(self, most_days: int) -> list[Record]:
        """Draw another source, of a few days."""
        some = self.chance.sample(range(1, 10), most_days)
        numbers = self.chance.sample(range(30), self.chance.randrange(12))
        return [(number, self.chance.choice(some)) for number in numbers]

    def after(self, arriving: Sequence[Record], days: set[int]) -> list[Record]:
        """Return the table once these records of these days have been written."""
        keys = {number for number, _ in arriving} if self.is_keyed else set()
        kept = [(number, day) for number, day in self.records if day not in days and number not in keys]
        return sorted([*kept, *arriving])


class Kills:
    """One table, and processes that are killed while they write it."""

    def __init__(self, zygote: Zygote, table: Table, model: Model) -> None:
        self.zygote, self.table, self.model = zygote, table, model
        self.file = table.file()
        self.hits = 0

    def found(self) -> list[Record]:
        if self.table.destination["connector"] == "parquet":  # a commit may still have files to move
            schema = pa.schema([("id", pa.int64()), ("day", pa.date32())])
            rows = files_readback.read_table(self.table.folder / "out", "t", ".parquet", schema) or []
        else:
            rows = held(self.table.destination, self.table.folder)
        return sorted((int(row["id"]), int(str(row["day"])[8:10])) for row in rows)

    def run(self, interval: Sequence[int], *, failpoint: str = "", trace: Path | None = None) -> int | None:
        ends = [f"2024-01-{day:02}" for day in interval]
        options = ("--interval-start", ends[0], "--interval-end", ends[1]) if ends else ()
        process = self.zygote.start(
            self.table.folder, ("run", self.file.name, *options), failpoint=failpoint, trace=trace
        )
        process.wait()
        if not failpoint:
            assert process.code == 0, process.log()[-3000:]
        return process.code

    def round(self, how: str, point: str = "", trace: Path | None = None) -> None:
        """Change the source, write a range of it into one kill, look, and write it again."""
        source = self.model.source(9 if how == "interval" else 3)
        self.table.fill(*((number, f"2024-01-{day:02}", "00:00") for number, day in source))
        first = self.model.chance.randrange(1, 8)
        interval = (first, first + self.model.chance.randrange(1, 4)) if how == "interval" else ()
        days = set(range(*interval)) if interval else {day for _, day in source}
        arriving = [record for record in source if record[1] in days]
        before, after = self.model.records, self.model.after(arriving, days)
        if point:
            code = self.run(interval, failpoint=f"{point}:kill")
            self.hits += code == -signal.SIGKILL
            assert self.found() in (before, after), (point, interval)
        self.run(interval, trace=trace)
        assert self.found() == after, (point, interval)
        self.model.records = after


@pytest.mark.timeout(0)
@pytest.mark.parametrize("is_keyed", [False, True], ids=["keyless", "keyed"])
@pytest.mark.parametrize("how", ["interval", "values"])
@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.thinned(1)
def test_a_kill_leaves_a_range_as_it_was_or_as_it_shall_be(
    zygote: Zygote,
    folder: Path,
    request: pytest.FixtureRequest,
    injected: Count,
    is_full: bool,
    system: str,
    how: str,
    is_keyed: bool,
) -> None:
    chance = random.Random(f"{system} {how} {is_keyed}")
    keys = {"key_properties": ["id"]} if is_keyed else {}
    table = Table(
        folder, block(system, request, folder), range_column="day", columns={"include": ["id", "day"]}, **keys
    )
    kills = Kills(zygote, table, Model(chance, is_keyed=is_keyed))
    if is_full:
        kills.round(how)
    kills.round(how, trace=folder / "points")
    # The run store's own points are struck elsewhere.
    points = [each for each in (folder / "points").read_text().splitlines() if not each.startswith("store.")]
    assert any(".delete.after" in each or each.startswith("files.") for each in points)
    for point in points if is_full else chance.sample([each for each in points if each.endswith(":1")], 1):
        kills.round(how, point)
    injected(kills.hits)
    assert kills.hits
