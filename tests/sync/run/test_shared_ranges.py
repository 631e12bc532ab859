"""One table in ranges over the workers of a Dask cluster: one snapshot, one commit, many processes."""

from __future__ import annotations

import csv
import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from syncblocks import Progress
from syncblocks.connectors.errors import (
    ConnectorConfigError,
    ConnectorError,
    FatalConnectorError,
    NoSuchTable,
    RetriableError,
    TakenOver,
)
from syncblocks.connectors.ranges import RangesRefused, SnapshotLost
from syncblocks.sync.errors import SyncError
from syncblocks.sync.run.executors.range_answer import answer_of, error_of
from tests.cluster import Cluster
from tests.connectors.mysql import mysql_databases
from tests.sync.pipelines import statuses
from tests.sync.run.test_ranges import Pair

#: Notes who takes a range, past the program.
WATCH = """
create table public.taken (worker text, stream text, range_order text);
create function note() returns trigger language plpgsql as
  $$ begin insert into public.taken values (new.worker, new.stream, new.range_order); return null; end $$;
create trigger note after update of worker on _syncblocks_range_claim for each row execute function note()
"""


class Spread(Pair):
    """The table of a `Pair`, loaded by a cluster's workers."""

    def __init__(self, folder: Path, url: str, cluster: Cluster) -> None:
        super().__init__(folder, url)
        self.document |= {"store": url, "executor": {"dask": cluster.address}}

    def takers(self) -> list[dict[str, Any]]:
        """The processes that took ranges, a line for each range."""
        return [json.loads(worker) for (worker,) in self.execute("select worker from public.taken")]


class SpreadFile(Spread):
    """A CSV file of many records in place of the table; types are guessed, and the last record decides one."""

    RECORDS = 30_000

    def __init__(self, folder: Path, url: str, cluster: Cluster) -> None:
        super().__init__(folder, url, cluster)
        self.path = folder / "data" / "t.csv"
        self.path.parent.mkdir()
        config = {"path": str(self.path.parent), "range_bytes": 65_536}
        self.document["source"] = {"connector": "csv", "config": config}
        self.document["streams"] = [{"stream": "t"}]
        self.records = self.put("a")

    def put(self, letter: str) -> list[tuple[int, str, str]]:
        """Write the file; return its records. Each letter gives as many bytes."""
        codes = [*(f"{number % 1000:03}" for number in range(self.RECORDS - 1)), letter]
        records = [(number, code, f'{letter}, "{number}"\n') for number, code in enumerate(codes)]
        with self.path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("id", "code", "v"), *records])
        return records

    def arrived_records(self) -> list[tuple[Any, ...]]:
        """The table's records, in order."""
        return self.execute("select id, code, v from public.t order by id")


class Changing(Progress):
    """Changes the file as soon as some of its ranges have arrived."""

    def __init__(self, spread: SpreadFile, *, grows: bool) -> None:
        self.spread, self.grows = spread, grows
        self.records: list[tuple[int, str, str]] = []

    def advanced(self, stream: str, *, records: int, size_bytes: int) -> None:
        if self.records:
            return
        if not self.grows:
            self.records = self.spread.put("b")
            return
        self.records = [*self.spread.records, (self.spread.RECORDS, "c", "c")]
        with self.spread.path.open("a", encoding="utf-8") as file:
            file.write(f"{self.spread.RECORDS},c,c\n")


class Watched(Progress):
    """Begins to note who takes ranges, once the run store is there."""

    def __init__(self, spread: Spread) -> None:
        self.spread = spread

    def run_started(self, run: Any, plan: Any) -> None:
        self.spread.execute(WATCH)


@pytest.fixture
def spread(tmp_path: Path, postgres_url: str, cluster: Cluster) -> Spread:
    return Spread(tmp_path, postgres_url, cluster)


@pytest.fixture
def spread_file(tmp_path: Path, postgres_url: str, cluster: Cluster) -> SpreadFile:
    return SpreadFile(tmp_path, postgres_url, cluster)


@contextmanager
def written_to(url: str) -> Iterator[list[tuple[int, int, int]]]:
    """Change the table all the time; yield what was done: changed, deleted and added record of each transaction."""
    done: list[tuple[int, int, int]] = []
    begun, ending = threading.Event(), threading.Event()

    def work() -> None:
        chance, ids = random.Random(7), list(range(1, 1001))
        with psycopg.connect(url) as connection:
            while not ending.is_set():
                number = len(done) + 1
                gone = ids.pop(chance.randrange(len(ids)))
                changed = chance.choice(ids)
                ids.append(10_000 + number)
                connection.execute("update src.t set v = %s where id = 0", [str(number)])
                connection.execute("update src.t set v = v || '!' where id = %s", [changed])
                connection.execute("delete from src.t where id = %s", [gone])
                connection.execute("insert into src.t values (%s, 'new')", [ids[-1]])
                connection.commit()
                done.append((changed, gone, ids[-1]))
                begun.set()

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    try:
        yield done
    finally:
        ending.set()
        thread.join()


def test_workers_read_one_moment_of_a_table_that_is_written_to(spread: Spread) -> None:
    spread.execute("insert into src.t values (0, '0')")
    expected = dict(spread.execute("select id, v from src.t"))
    with written_to(spread.url) as done:
        result = spread.run(Watched(spread))
    assert statuses(result) == {"src.t": "success"}
    found = dict(spread.execute("select id, v from public.t"))
    moment = int(found[0])
    assert 0 < moment < len(done), "it was written to before and after the snapshot"
    for changed, gone, added in done[:moment]:
        expected[changed] += "!"
        del expected[gone]
        expected[added] = "new"
    assert found == {**expected, 0: str(moment)}
    assert spread.execute("select count(*) from public.t") == [(1001,)]
    takers = spread.takers()
    assert len(takers) > 3
    assert len({taker["pid"] for taker in takers}) >= 2
    assert spread.execute("select count(*) from _syncblocks_range_claim") == [(0,)]
    assert spread.leftovers() == []


def test_a_plan_says_who_loads_the_ranges(spread: Spread, mariadb_url: str, run_cli: Any) -> None:
    def planned(*options: str) -> str:
        return str(run_cli(["plan", spread.write(), *options], cwd=spread.folder).stdout)

    assert ", about 44 in all; on several workers\n" in planned()
    assert json.loads(planned("--json"))["streams"][0]["parallel_reads"]["workers"] == "on several workers"
    spread.document["streams"][0]["write_disposition"] = "append"
    assert "append writes the table itself; on one worker, since one loader takes them" in planned()
    spread.document["executor"] = "threads"
    assert json.loads(planned("--json"))["streams"][0]["parallel_reads"]["workers"] is None
    records = f"insert into t select seq, repeat('x', 200) from {mysql_databases.numbers(1000)}"
    mysql_databases.run(mariadb_url, "create table t (id int primary key, v text)", records, "analyze table t")
    spread.document["executor"] = {"dask": "local"}
    spread.document["source"] = {"connector": "mariadb", "config": {"url": mariadb_url, "range_bytes": 8192}}
    spread.document["streams"] = [{"stream": f"{mysql_databases.database(mariadb_url)}.t"}]
    assert "into 3 loaders: by the key id, about " in (shown := planned())
    assert "on one worker, since mariadb cannot hand on its snapshot\n" in shown


def test_a_table_that_turns_out_to_be_small_is_read_as_a_whole_where_the_run_was_started(spread: Spread) -> None:
    spread.execute("truncate src.t; insert into src.t select g, 'x' from generate_series(1, 5) g")
    spread.execute("update pg_class set relpages = 100 where oid = 'src.t'::regclass")
    result = spread.run(Watched(spread))
    assert statuses(result) == {"src.t": "success"}
    assert spread.takers() == []
    assert spread.execute("select count(*) from public.t") == [(5,)]


def test_streams_beside_a_table_in_ranges_run_on_workers_each_once(spread: Spread) -> None:
    spread.execute("create table src.small as select 1 as id, 'x' as v; create table src.more as select 2 as id")
    spread.document["streams"] = [{"stream": f"src.{name}"} for name in ("small", "t", "more")]
    result = spread.run(Watched(spread))
    assert statuses(result) == {"src.small": "success", "src.t": "success", "src.more": "success"}
    assert {stream for (stream,) in spread.execute("select stream from public.taken")} == {"src.t"}
    run_by_workers = "select stream from _syncblocks_stream_run where worker is not null order by stream"
    assert spread.execute(run_by_workers) == [("src.more",), ("src.small",)]
    assert spread.is_equal()


def test_workers_load_a_large_file_by_ranges(spread_file: SpreadFile, run_cli: Any) -> None:
    shown = run_cli(["plan", spread_file.write()], cwd=spread_file.folder).stdout
    assert "12 ranges by 3 readers into 3 loaders: by files and bytes, " in shown
    assert "in 1 file; on several workers\n" in shown
    result = spread_file.run(Watched(spread_file))
    assert statuses(result) == {"t": "success"}
    assert [stream.records for stream in result.streams] == [spread_file.RECORDS]
    assert spread_file.arrived_records() == spread_file.records
    takers = spread_file.takers()
    assert len(takers) == 12
    assert len({taker["pid"] for taker in takers}) >= 2
    assert spread_file.leftovers() == []


def test_workers_filter_and_mask_what_they_read(spread: Spread) -> None:
    spread.document["streams"][0] |= {"where": {"id": {"<=": 900}}, "columns": {"mask": {"v": None}}}
    assert statuses(spread.run(Watched(spread))) == {"src.t": "success"}
    assert spread.execute("select count(*), sum(id), count(v) from public.t") == [(900, 405_450, 0)]
    assert len(spread.takers()) > 3


def test_workers_filter_and_mask_what_they_read_of_a_file(spread_file: SpreadFile) -> None:
    stream = {"where": {"id": {"<": 20_000}}, "columns": {"mask": {"v": None}}}
    spread_file.document["streams"][0] |= stream
    assert statuses(spread_file.run(Watched(spread_file))) == {"t": "success"}
    assert spread_file.arrived_records() == [(key, code, None) for key, code, _ in spread_file.records[:20_000]]
    assert len(spread_file.takers()) == 12


@pytest.mark.parametrize("grows", [False, True])
def test_a_file_that_changes_while_workers_read_it_is_read_anew(spread_file: SpreadFile, grows: bool) -> None:
    spread_file.document |= {"retries": 1, "retry_delay_s": 0.0}
    size = spread_file.path.stat().st_size
    changing = Changing(spread_file, grows=grows)
    assert statuses(spread_file.run(changing)) == {"t": "success"}
    assert (spread_file.path.stat().st_size == size) != grows
    assert spread_file.arrived_records() == changing.records


def test_a_file_that_changes_while_workers_read_it_fails_a_stream_without_retries(spread_file: SpreadFile) -> None:
    result = spread_file.run(Changing(spread_file, grows=False))
    assert statuses(result) == {"t": "failure"}
    assert "changed while" in str(result.streams[0].error)
    assert spread_file.execute("select to_regclass('public.t')") == [(None,)]


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (RangesRefused("m", stream="s"), RangesRefused),
        (SnapshotLost("m", connector="c"), SnapshotLost),
        (RetriableError("m"), RetriableError),
        (NoSuchTable("m"), FatalConnectorError),
        (ConnectorConfigError("m"), FatalConnectorError),
        (TakenOver("m"), TakenOver),
        (ValueError("m"), SyncError),
    ],
)
def test_the_error_of_a_worker_says_what_is_to_be_done_about_it(raised: Exception, told: type[Exception]) -> None:
    answer = json.loads(json.dumps(answer_of(raised, "masked", is_from_source=True)))
    failed = error_of(answer)
    assert (type(failed.error), str(failed.error), failed.is_from_source) == (told, "masked", True)
    if isinstance(raised, ConnectorError) and isinstance(failed.error, ConnectorError):
        assert (failed.error.connector, failed.error.stream) == (raised.connector, raised.stream)


def test_a_timeout_stops_the_workers_that_load_ranges_of_the_stream(spread: Spread) -> None:
    spread.execute("insert into src.t select g, repeat('x', 300) || g from generate_series(1001, 6000) g")
    spread.execute("vacuum analyze src.t")
    spread.document["streams"][0] |= {"timeout_s": 4, "retries": 3}
    locks = threading.Event()

    class Blocked(Progress):
        """Keeps workers from reading any further range, once some have arrived."""

        def advanced(self, stream: str, *, records: int, size_bytes: int) -> None:
            locks.set()

    with psycopg.connect(spread.url) as connection:

        def lock() -> None:
            locks.wait(60)  # the run's snapshot has the table: whoever reads it from now on waits for this
            connection.execute("lock table src.t in access exclusive mode")

        thread = threading.Thread(target=lock)
        thread.start()
        result = spread.run(Blocked())
        thread.join()
        connection.rollback()
    assert [(each.status, each.error) for each in result.streams] == [("cancelled", "timeout_s=4 is over")]
    assert spread.execute("select to_regclass('public.t')") == [(None,)]
    assert spread.backends() == 0
    del spread.document["streams"][0]["timeout_s"]
    assert statuses(spread.run()) == {"src.t": "success"}
    assert spread.is_equal()
    assert spread.leftovers() == []
