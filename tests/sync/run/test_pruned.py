"""A pipeline whose old runs are pruned goes on as one whose runs are all kept."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.sync.run import prune as engine_prune
from syncblocks.sync.store import Store
from tests.conftest import RunCLI
from tests.sync.pipelines import Bench, statuses
from tests.sync.pipelines import bench as bench
from tests.sync.store.store_helpers import query

FIRST = datetime(2026, 1, 5, 6, tzinfo=UTC)

#: Run 5 cannot tell of itself while the file `down` exists.
TOLD = """
from pathlib import Path

@callback("success")
@callback("failure")
def tell(pipeline_run, **kwargs):
    folder = Path(__file__).parent
    if pipeline_run.id == 5 and (folder / "down").exists():
        raise OSError("the third party is down")
    with (folder / "told.log").open("a") as log:
        told = [kwargs.get(name) for name in ("stream", "index", "is_last_block_run")]
        log.write(f"{pipeline_run.id} {told}\\n")
"""


class Shop:
    """A pipeline of an INCREMENTAL stream, one whose deleted records are looked for once a day, and callbacks."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        folder.mkdir()
        self.folder = folder
        self.store_url = f"sqlite:///{folder}/.syncblocks/store.db"
        (folder / "tell.py").write_text(TOLD)
        (folder / "down").touch()
        self.sql("source", "CREATE TABLE events (id INTEGER PRIMARY KEY, v TEXT)")
        self.sql("source", "CREATE TABLE people (id INTEGER PRIMARY KEY, seen INTEGER)")
        merge = {"write_disposition": "merge", "key_properties": ["id"], "replication_method": "INCREMENTAL"}
        self.document = {
            "pipeline": "shop",
            "concurrency": 1,
            "drain_s": 0.3,
            "source": {"connector": "sqlite", "config": {"path": "source.db"}},
            "destination": {"connector": "sqlite", "config": {"path": "target.db"}},
            "streams": [
                {"stream": "events", **merge, "bookmark_properties": ["id"]},
                {
                    "stream": "people",
                    **merge,
                    "bookmark_properties": ["seen"],
                    "deletes": {"mode": "hard", "every": "1d"},
                },
            ],
            "callbacks": [{"file": "tell.py", "on": ["destination", "pipeline"], "attempts": 1000}],
            **settings,
        }

    def sql(self, stem: str, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.folder / f"{stem}.db")) as connection, connection:
            return connection.execute(statement).fetchall()

    def run(self, number: int, **options: Any) -> RunResult:
        date = FIRST + timedelta(hours=number)
        pipeline = load_pipeline(self.document, folder=self.folder, execution_date=date)
        return run_pipeline(pipeline, inline_callbacks=True, **options)

    def day(self, number: int, **options: Any) -> list[Any]:
        """Change the source, run, and return what can be seen of the run."""
        self.sql("source", f"INSERT INTO events VALUES ({number}, 'x')")
        self.sql("source", f"INSERT INTO people VALUES ({number}, {number})")
        self.sql("source", f"DELETE FROM people WHERE id = {number - 2}")
        result = self.run(number, **options)
        return [result.run_id, result.status, dict(result.callbacks), *self.seen(result)]

    def seen(self, result: RunResult) -> list[Any]:
        with Store.open(self.store_url) as store:
            blocks = store.block_runs(result.run_id or 0)
        figures = [
            (one.attempt, one.uuid, one.status, one.rows, one.rows_deleted, one.bookmark_before, one.bookmark_after)
            for one in blocks
        ]
        return [figures, self.sql("target", "SELECT id FROM events"), self.sql("target", "SELECT id FROM people")]

    def told(self) -> list[str]:
        log = self.folder / "told.log"
        return log.read_text().splitlines() if log.exists() else []

    def runs(self) -> list[int]:
        with Store.open(self.store_url) as store:
            return [run.id for run in store.runs("shop", limit=1000)]


@pytest.mark.full
def test_thirty_runs_pruned_to_three_leave_a_pipeline_that_behaves_as_before(tmp_path: Path) -> None:
    shops = [Shop(tmp_path / "kept"), Shop(tmp_path / "pruned", history={"keep_runs": 3})]
    for number in range(1, 31):
        kept, pruned = (shop.day(number) for shop in shops)
        assert [kept[:2], kept[3:]] == [pruned[:2], pruned[3:]], number
        if number == 5:  # its callbacks wait for five minutes
            for shop in shops:
                later = "datetime('now', '+290 seconds') || '.000000'"
                query(shop.store_url, f"UPDATE _syncblocks_delivery SET not_before = {later} WHERE is_open")
    assert [len(shops[0].runs()), shops[1].runs()] == [30, [30, 29, 28, 5]]
    last = []
    for shop in shops:
        (shop.folder / "down").unlink()  # the callback of run 5 is due, 25 runs later
        query(shop.store_url, "UPDATE _syncblocks_delivery SET not_before = NULL WHERE is_open")
        found = [shop.day(31), sorted(shop.told(), key=lambda line: int(line.split()[0]))]
        shop.document["streams"][1]["write_disposition"] = "append"  # cannot be: the run fails
        found.append(shop.day(32)[1])
        shop.document["streams"][1]["write_disposition"] = "merge"
        shop.sql("source", "INSERT INTO events VALUES (99, 'y')")
        retried = shop.run(32, retry=True)
        found += [retried.status, *shop.seen(retried), shop.told()[-1]]
        found.append(shop.day(33))
        last.append(found)
    assert last[0] == last[1]
    assert "5 ['people', 1, True]" in last[0][1]
    assert shops[1].runs() == [33, 32, 31]


def test_files_of_runs_that_go_are_removed(bench: Bench, run_cli: RunCLI) -> None:
    """At the end of a run, with everything that `.syncblocks` holds of the old ones."""
    bench.seed("a", 3)
    for _ in range(3):
        bench.run()
    with Store.open(f"sqlite:///{bench.folder}/.syncblocks/store.db") as store:
        keys = {run.id: run.key for run in store.runs("bench")}
        tick = store.order_tick("bench", "k", kind="backfill", trigger="0", causes=())
        assert store.claim_tick(tick.id) is not None
        store.refuse_tick(tick.id, "no")
    spool, logs = bench.folder / ".syncblocks" / "spool", bench.folder / ".syncblocks" / "ticks"
    for folder in (spool, logs):
        folder.mkdir(exist_ok=True)
    files = [spool / f"{key}-1-00.arrow" for key in keys.values()] + [logs / f"{tick.id}.log"]
    for file in files:
        file.touch()
    query(
        f"sqlite:///{bench.folder}/.syncblocks/store.db",
        "UPDATE _syncblocks_tick SET due_at = '2020-01-01 00:00:00.000000'",
    )
    bench.document["history"] = {"keep_runs": 2}
    bench.run()
    assert [file for file in files if file.exists()] == [spool / f"{keys[3]}-1-00.arrow"]


def test_a_prune_that_fails_does_not_fail_the_run(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.seed("a", 3)
    bench.document["history"] = {"keep_runs": 1}
    bench.record()
    bench.run()
    spool = bench.folder / ".syncblocks" / "spool"
    (spool.parent / "moved").mkdir()
    with Store.open(f"sqlite:///{bench.folder}/.syncblocks/store.db") as store:
        (run,) = store.runs("bench")
    spool.mkdir(exist_ok=True)
    (spool / f"{run.key}-folder").mkdir()  # cannot be unlinked
    result = bench.run()
    assert (result.status, statuses(result), dict(result.callbacks)["due"]) == ("success", {"a": "success"}, 0)
    assert "old runs stay, the next run removes them" in caplog.text
    (spool / f"{run.key}-folder").rmdir()
    bench.run()
    with Store.open(f"sqlite:///{bench.folder}/.syncblocks/store.db") as store:
        assert [each.id for each in store.runs("bench")] == [3]


def test_the_end_of_one_run_removes_a_limited_number(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_prune, "MOST_AT_END", 2)
    bench.seed("a", 1)
    for _ in range(4):
        bench.run()
    bench.document["history"] = {"keep_runs": 1}
    bench.run()
    with Store.open(f"sqlite:///{bench.folder}/.syncblocks/store.db") as store:
        assert [run.id for run in store.runs("bench")] == [5, 4, 3]


def test_runs_prune_counts_and_removes(bench: Bench, run_cli: RunCLI) -> None:
    bench.seed("a", 1)
    for _ in range(4):
        bench.run()
    shown = [
        run_cli(["runs", "prune", *options.split(), "--json"], bench.folder)
        for options in ("--keep-runs 3 --dry-run", "--keep-runs 3", "--keep-runs 3", "--keep 1d")
    ]
    assert [json.loads(one.stdout) for one in shown] == [
        {"type": "prune", "pipeline": "bench", "dry_run": dry_run, "runs": runs, "held": 0}
        for dry_run, runs in ((True, 1), (False, 1), (False, 0), (False, 0))
    ]
    none = run_cli(["runs", "prune"], bench.folder)
    assert (none.returncode, "--keep, --keep-runs, or `history` in the file" in none.stderr) == (2, True)
    wrong = run_cli(["runs", "prune", "--keep", "90"], bench.folder)
    assert (wrong.returncode, "a span of time from 1h to 3650d, such as 90d" in wrong.stderr) == (2, True)
