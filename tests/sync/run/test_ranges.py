"""Streams read by ranges, in whole runs between real databases."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest
import yaml

from syncblocks import Progress, RunResult, run_pipeline
from syncblocks.connectors.ranges import OpenRanges, Range
from syncblocks.sync.flow.feed import Budget
from syncblocks.sync.run.ranges import StreamRanges
from tests.cluster import Cluster
from tests.connectors.mysql import mysql_databases
from tests.sync.pipelines import RECORDER, statuses

if TYPE_CHECKING:
    from syncblocks.sync.run.stream import StreamRun

SUM = "select count(*), sum(hashtextextended(x::text, 0)) from {} x"

TRANSFORMER = "@transformer\ndef shout(df):\n    df['v'] = df['v'].str.upper()\n    return df\n"

LOOK = "@callback\ndef look(data, **kwargs):\n    assert sorted(data['id']) == list(range(1, 1001))\n"


class Pair:
    """One server's database with a table `src.t` of a thousand records, synced to `public.t` of the same."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        self.execute(
            "create schema src; create table src.t (id bigint primary key, v text); "
            "insert into src.t select g, repeat('x', 300) || g from generate_series(1, 1000) g"
        )
        self.execute("vacuum analyze src.t")
        self.document: dict[str, Any] = {
            "pipeline": "pair",
            "parallel_reads": 3,
            "source": {"block": "load", "connector": "postgres", "config": {"url": url, "range_bytes": 8192}},
            "destination": {"block": "export", "connector": "postgres", "config": {"url": url}},
            "streams": [{"stream": "src.t"}],
        }

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(sql)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def write(self) -> Path:
        path = self.folder / "pair.yaml"
        path.write_text(yaml.safe_dump(self.document, sort_keys=False))
        return path

    def run(self, progress: Progress | None = None, **options: Any) -> RunResult:
        return run_pipeline(self.write(), progress=progress, **options)

    def callback(self, name: str, text: str) -> None:
        (self.folder / f"{name}.py").write_text(text)
        self.document.setdefault("callbacks", []).append({"file": f"{name}.py"})

    def is_equal(self) -> bool:
        return self.execute(SUM.format("src.t")) == self.execute(SUM.format("public.t"))

    def leftovers(self) -> list[tuple[Any, ...]]:
        return self.execute("select relname from pg_class where relname ~ '_syncblocks_stg'")

    def arrived(self) -> int:
        """Ranges of the load under way that have arrived."""
        ledgers = [name for (name,) in self.leftovers() if name.endswith("_r")]
        return int(self.execute(f"select count(committed_at) from {ledgers[0]}")[0][0])

    def backends(self) -> int:
        """Sessions of ours that still do something."""
        sql = "select count(*) from pg_stat_activity where application_name = 'syncblocks' and state = 'active'"
        return int(self.execute(f"{sql} and datname = current_database()")[0][0])


@pytest.fixture
def pair(tmp_path: Path, postgres_url: str) -> Pair:
    return Pair(tmp_path, postgres_url)


@pytest.mark.parametrize("disposition", ["replace", "append", "merge"])
def test_a_stream_read_by_ranges_arrives_once(pair: Pair, disposition: str) -> None:
    pair.document["streams"][0]["write_disposition"] = disposition
    result = pair.run()
    assert statuses(result) == {"src.t": "success"}
    assert pair.is_equal()
    assert pair.leftovers() == []
    assert [stream.records for stream in result.streams] == [1000]


def test_one_worker_reads_and_loads_all_ranges_of_a_table(pair: Pair, cluster: Cluster, run_cli: Any) -> None:
    pair.document |= {"store": pair.url, "executor": {"dask": cluster.address}}
    shown = run_cli(["plan", pair.write()], cwd=pair.folder).stdout
    assert "by 3 readers into 3 loaders: by pages, about 44 in all; on one worker\n" in shown
    assert statuses(pair.run()) == {"src.t": "success"}
    assert pair.is_equal()
    assert pair.leftovers() == []
    assert pair.execute("select count(*) from _syncblocks_stream_run where worker is not null") == [(1,)]


@pytest.mark.parametrize("connector", ["duckdb", "sqlite", "parquet"])
def test_a_destination_with_one_writer_gets_ranges_from_several_readers(pair: Pair, connector: str) -> None:
    path = "lake" if connector == "parquet" else f"w.{connector}"
    pair.document["destination"] = {"connector": connector, "config": {"path": path}}
    result = pair.run()
    assert statuses(result) == {"src.t": "success"}
    assert read_back(pair.folder / path, connector) == [(1000, 1000, 500500)]


@pytest.mark.full
def test_transformers_and_callbacks_see_every_record_once(pair: Pair) -> None:
    (pair.folder / "shout.py").write_text(TRANSFORMER)
    pair.document["transformers"] = [{"file": "shout.py"}]
    pair.callback("look", LOOK)
    result = pair.run()
    assert (statuses(result), result.exit_code) == ({"src.t": "success"}, 0)
    assert pair.execute("select count(*), min(v), sum(id) from public.t") == [(1000, "X" * 300 + "1", 500500)]


def test_the_plan_says_how_many_ranges_and_why(pair: Pair, run_cli: Any) -> None:
    pair.document["streams"] += [
        {"stream": "src.t", "replication_method": "INCREMENTAL", "bookmark_properties": ["id"], "parallel_reads": 2}
    ]
    shown = run_cli(["plan", pair.write()], cwd=pair.folder).stdout
    assert "src.t: one reader: INCREMENTAL is read in the order of its bookmark" in shown
    del pair.document["streams"][1]
    shown = run_cli(["plan", pair.write()], cwd=pair.folder).stdout
    assert "src.t: 12 ranges by 3 readers into 3 loaders: by pages, about " in shown
    pair.document["streams"][0]["write_disposition"] = "append"
    shown = run_cli(["plan", pair.write()], cwd=pair.folder).stdout
    assert "12 ranges by 3 readers into one loader" in shown
    assert "one loader, since append writes the table itself" in shown


@pytest.mark.full
@pytest.mark.parametrize("loaders", [3, 1])
def test_a_range_that_fails_fails_the_stream_once_and_is_named(pair: Pair, loaders: int) -> None:
    # As text, so that the records go by as Arrow, which has no NaN.
    pair.document["source"]["config"]["text_columns"] = ["src.t.v"]
    pair.document |= {"retries": 2, "retry_delay_s": 0.01}
    if loaders == 1:
        pair.callback("look", LOOK)
    assert pair.run().status == "success"
    pair.execute("alter table src.t add n numeric(38, 0); update src.t set n = 'NaN' where id = 700")
    (pair.folder / "recorder.py").write_text(RECORDER)
    pair.document.setdefault("callbacks", []).append({"file": "recorder.py", "on": ["stream", "load", "export"]})
    before = pair.execute(SUM.format("public.t"))
    result = pair.run()
    assert result.exit_code == 1
    error = result.streams[0].error
    assert error is not None
    assert re.search(r"range \d+ of 12 \(pages .*\): column 'n' contains NaN", error), error
    calls = [json.loads(line) for line in (pair.folder / "recorder.log").read_text().splitlines()]
    assert [(call["parent_block_uuid"], call["status"]) for call in calls] == [
        ("load", "failure"),
        ("export", "cancelled"),
        ("export", "failure"),
    ]
    assert calls[-1]["error_block"] == "load"
    assert pair.execute(SUM.format("public.t")) == before
    assert pair.leftovers() == []


def test_a_range_that_can_be_mended_is_read_again_under_the_streams_retries(pair: Pair) -> None:
    pair.document |= {"retries": 1, "retry_delay_s": 0.01}
    pair.document["source"]["config"]["text_columns"] = ["src.t.v"]
    told = Cut(pair)
    result = pair.run(told)
    assert (statuses(result), told.retries) == ({"src.t": "success"}, 0)
    assert pair.is_equal()
    assert result.streams[0].records == 1000


def test_a_signal_stops_every_reader_and_loader(pair: Pair) -> None:
    pair.document["source"]["config"]["text_columns"] = ["src.t.v"]
    with psycopg.connect(pair.url) as blocker:
        result = pair.run(Interrupt(pair, blocker))
    assert (result.exit_code, statuses(result)) == (130, {"src.t": "cancelled"})
    assert pair.execute("select to_regclass('public.t')") == [(None,)]
    assert pair.backends() == 0
    # What had arrived is kept, and the next run goes on with it.
    assert pair.leftovers() != []
    told = Told()
    result = pair.run(told)
    assert (statuses(result), [stream.records for stream in result.streams]) == ({"src.t": "success"}, [1000])
    assert re.fullmatch(r"src\.t: \d+ of 12 ranges were loaded before it was cut short, and are kept", told.texts[0])
    assert (pair.is_equal(), pair.leftovers()) == (True, [])


@pytest.mark.parametrize("how", ["full refresh", "as a whole", "another shape", "not any more"])
def test_what_is_not_resumed_is_dropped(pair: Pair, how: str) -> None:
    pair.document["source"]["config"]["text_columns"] = ["src.t.v"]
    with psycopg.connect(pair.url) as blocker:
        pair.run(Interrupt(pair, blocker))
    pair.execute("create table src.u as select 1 as id")
    pair.document["streams"] += [{"stream": "src.u"}]
    pair.run(streams=["src.u"])
    assert pair.leftovers() != []  # another stream's run leaves them alone
    if how == "as a whole":
        pair.document["parallel_reads"] = 1
    elif how == "another shape":
        del pair.document["source"]["config"]["text_columns"]
    elif how == "not any more":
        del pair.document["streams"][0]
    told = Told()
    assert pair.run(told, full_refresh=how == "full refresh").status == "success"
    assert (told.texts, pair.leftovers()) == ([], [])
    assert how == "not any more" or pair.is_equal()


def test_a_stream_whose_snapshot_is_lost_goes_on_with_what_it_has_in_its_next_try(pair: Pair) -> None:
    pair.document["source"]["config"]["text_columns"] = ["src.t.v"]
    pair.document |= {"retries": 1, "retry_delay_s": 0.01, "parallel_reads": 2}
    told = Lost(pair)
    result = pair.run(told)
    assert (statuses(result), told.retries) == ({"src.t": "success"}, 1)
    assert re.fullmatch(r"src\.t: \d+ of 8 ranges were loaded before it was cut short, and are kept", told.texts[0])
    assert (pair.is_equal(), pair.leftovers(), result.streams[0].records) == (True, [], 1000)


@pytest.mark.full
def test_a_merge_by_ranges_has_several_loaders_and_is_resumed(pair: Pair) -> None:
    pair.document["source"]["config"]["text_columns"] = ["src.t.v"]
    pair.document["streams"][0]["write_disposition"] = "merge"
    assert pair.run().status == "success"
    pair.execute("alter table public.t add own int default 7; insert into public.t values (5000, 'stays')")
    pair.execute("update src.t set v = v || 'new' where id % 3 = 0; delete from src.t where id = 1")
    before = pair.execute("select * from public.t order by id")
    with psycopg.connect(pair.url) as blocker:
        assert statuses(pair.run(Interrupt(pair, blocker))) == {"src.t": "cancelled"}
    assert pair.execute("select * from public.t order by id") == before
    told = Told()
    result = pair.run(told)
    assert (statuses(result), [stream.records for stream in result.streams]) == ({"src.t": "success"}, [999])
    assert re.fullmatch(r"src\.t: \d+ of \d+ ranges were loaded before it was cut short, and are kept", told.texts[0])
    differs = "select id, v from src.t except select id, v from public.t"
    assert (pair.execute(differs), pair.leftovers()) == ([], [])
    assert pair.execute("select count(*), sum(own) from public.t") == [(1001, 7007)]
    assert pair.execute("select own, v from public.t where id = 5000") == [(7, "stays")]


@pytest.mark.parametrize("connector", ["postgres", "duckdb"])
def test_a_csv_file_that_can_be_cut_and_one_that_cannot_both_arrive(pair: Pair, connector: str) -> None:
    inside = '"' + "1,2\n" * 30 + '"'
    (pair.folder / "plain.csv").write_text("id,v\n" + "".join(f'{n},"a\n{n}"\n' for n in range(1, 1001)))
    (pair.folder / "stray.csv").write_text("id,v\n" + "".join(f'{n},5" pipe\n{n},{inside}\n' for n in range(1, 20)))
    pair.document["source"] = {"connector": "csv", "config": {"path": "*.csv", "range_bytes": 500}}
    if connector == "duckdb":
        pair.document["destination"] = {"connector": "duckdb", "config": {"path": "w.duckdb"}}
    pair.document["streams"] = [{"stream": "plain", "key_properties": ["id"], "destination_table": "t"}]
    pair.document["streams"] += [{"stream": "stray"}]
    told = Once()
    result = pair.run(told)
    assert (statuses(result), told.retries) == ({"plain": "success", "stray": "success"}, 0)
    assert [stream.records for stream in result.streams] == [1000, 38]
    assert pair.leftovers() == []
    if connector == "postgres":
        assert pair.execute("select count(*), sum(id), min(v) from public.t") == [(1000, 500500, "a\n1")]
        assert pair.execute("select count(*), sum(length(v)) from public.stray") == [(38, 19 * (7 + 120))]
    else:
        assert read_back(pair.folder / "w.duckdb", "duckdb") == [(1000, 1000, 500500)]


@pytest.mark.parametrize("connector", ["postgres", "duckdb"])
def test_a_mariadb_table_is_read_by_its_key(pair: Pair, mariadb_url: str, connector: str) -> None:
    name = mysql_databases.database(mariadb_url)
    mysql_databases.run(
        mariadb_url,
        "create table t (id int primary key, v text)",
        f"insert into t select seq, repeat('x', 200) from {mysql_databases.numbers(1000)}",
        "analyze table t",
    )
    pair.document["source"] = {"connector": "mysql", "config": {"url": mariadb_url, "range_bytes": 8192}}
    if connector == "duckdb":
        pair.document["destination"] = {"connector": "duckdb", "config": {"path": "w.duckdb"}}
    pair.document["streams"] = [{"stream": f"{name}.t"}]
    assert statuses(pair.run()) == {f"{name}.t": "success"}
    if connector == "postgres":
        assert pair.execute("select count(*), count(distinct id), sum(id) from public.t") == [(1000, 1000, 500500)]
    else:
        assert read_back(pair.folder / "w.duckdb", "duckdb") == [(1000, 1000, 500500)]


def test_loaders_hold_together_what_the_budget_has_room_for_and_one_batch_whatever_its_size() -> None:
    budget = Budget(10)
    context = SimpleNamespace(budget=budget, progress=Progress())
    run = SimpleNamespace(context=context, check=lambda: None, name="s")
    batches = [[b"12345678"] * 5, [b"1234567890123456789012345"], [b"123"] * 20, []]
    opened = SimpleNamespace(
        ranges=[Range(place=place, label="") for place in range(4)],
        read=lambda part: (block for block in batches[part.place]),
    )
    run.planned = SimpleNamespace(mapping=SimpleNamespace(convert=None))
    run.blocks = SimpleNamespace(note_read=lambda *_, **__: None)
    reads = StreamRanges(cast("StreamRun", run), cast("OpenRanges", opened))
    peaks, taken = [], []

    def load(part: Range) -> None:
        for block in reads.read(part):
            with budget.changed:
                peaks.append(budget.used_bytes)
            taken.append(block)

    threads = [threading.Thread(target=load, args=(part,)) for part in opened.ranges]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(sum(batches, []))  # noqa: RUF017 (four short lists)
    assert budget.used_bytes == 0
    assert max(peak for peak in peaks if peak != 25) <= 10


class Told(Progress):
    """Keeps what a person should read."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str, *, level: str = "info") -> None:
        self.texts.append(text)


class Once(Told):
    """Does something as soon as records come, once."""

    def __init__(self) -> None:
        super().__init__()
        self._first = threading.Lock()
        self.retries = 0

    def act(self) -> None: ...

    def advanced(self, stream: str, *, records: int, size_bytes: int) -> None:
        if self._first.acquire(blocking=False):
            self.act()

    def retrying(self, stream: str, *, attempt: int, delay_s: float, error: str) -> None:
        self.retries += 1


class Interrupt(Once):
    """Makes every loader wait for the ledger, and interrupts the run."""

    def __init__(self, pair: Pair, blocker: psycopg.Connection[Any]) -> None:
        super().__init__()
        self._pair = pair
        self._blocker = blocker

    def advanced(self, stream: str, *, records: int, size_bytes: int) -> None:
        if self._pair.arrived():
            super().advanced(stream, records=records, size_bytes=size_bytes)

    def act(self) -> None:
        # Granted when the ranges under way have ended: those of this very thread among them.
        sql = "lock table _syncblocks_ledger in access exclusive mode"
        threading.Thread(target=self._blocker.execute, args=(sql,), daemon=True).start()
        while not self._pair.execute("select 1 from pg_locks where not granted and mode = 'AccessExclusiveLock'"):
            pass
        os.kill(os.getpid(), signal.SIGINT)


class Lost(Told):
    """Ends the snapshot once a range has arrived."""

    def __init__(self, pair: Pair) -> None:
        super().__init__()
        self._pair = pair
        self._lock = threading.Lock()
        self._is_lost = False
        self.retries = 0

    def advanced(self, stream: str, *, records: int, size_bytes: int) -> None:
        with self._lock:
            if self._is_lost or not self._pair.arrived():
                return
            self._is_lost = True
            sql = "from pg_stat_activity where query like 'select pg_export%' and datname = current_database()"
            self._pair.execute(f"select pg_terminate_backend(pid) {sql}")
            while self._pair.execute(f"select 1 {sql}"):
                pass

    def retrying(self, stream: str, *, attempt: int, delay_s: float, error: str) -> None:
        self.retries += 1


class Cut(Once):
    """Cuts the connection of one loader."""

    def __init__(self, pair: Pair) -> None:
        super().__init__()
        self._pair = pair

    def act(self) -> None:
        self._pair.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where query ilike 'copy %from stdin%' "
            "and datname = current_database() limit 1"
        )


def read_back(path: Path, connector: str) -> list[tuple[Any, ...]]:
    sql = "select count(*), count(distinct id), sum(id) from {}"
    if connector == "sqlite":
        import sqlite3

        with closing(sqlite3.connect(path)) as connection, connection:
            return list(connection.execute(sql.format("t")).fetchall())
    import duckdb

    table = "t" if connector == "duckdb" else f"'{path}/**/*.parquet'"
    with duckdb.connect(str(path) if connector == "duckdb" else ":memory:") as opened:
        return [tuple(map(int, row)) for row in opened.execute(sql.format(table)).fetchall()]
