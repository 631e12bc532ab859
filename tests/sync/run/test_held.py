"""Held runs: planned by one call, run stream by stream by others, and ended by a third."""

from __future__ import annotations

import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from syncblocks import (
    HeldRun,
    PipelineFailed,
    Progress,
    SyncError,
    TryLater,
    finish_run,
    load_pipeline,
    open_run,
    run_pipeline,
    sync_stream,
)
from syncblocks.connectors.sqlite.destination import SQLiteDestination
from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.api import cancel
from syncblocks.sync.errors import AlreadyRunning, ConfigError, StateError
from syncblocks.sync.run.mapped import task
from syncblocks.sync.store import Store
from syncblocks.sync.store.owner import current_owner
from tests.sync.pipelines import Bench
from tests.sync.store.store_helpers import query

BAD = "id,name\n1,a\n1,b,c\n"
#: Waits for a file; tells that it runs by another one.
SLOW = """
import time
from pathlib import Path

@transformer
def slow(df, stream, **kwargs):
    here = Path(__file__).parent
    if stream == "a":
        (here / "runs").touch()
        while not (here / "go").exists():
            time.sleep(0.02)
    return df
"""


class HeldBench(Bench):
    """Three CSV files, and tables of SQLite."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "in").mkdir()
        for name in "abc":
            self.put(name, "id,name\n1,x\n2,y\n")
        self.document |= {
            "concurrency": "auto",
            "source": {"block": "load", "connector": "csv", "config": {"path": str(folder / "in")}},
            "destination": {"block": "export", "connector": "sqlite", "config": {"path": str(folder / "out.db")}},
            "streams": [{"stream": "*", "write_disposition": "append"}],
            "allow_blocks_to_fail": True,
        }
        self.record(on=["stream", "pipeline"])

    @property
    def store_url(self) -> str:
        return f"sqlite:///{self.folder}/.syncblocks/store.db"

    def put(self, name: str, text: str) -> None:
        (self.folder / "in" / f"{name}.csv").write_text(text)

    def open(self, **options: Any) -> HeldRun:
        return open_run(self.write(), **options)

    def sync(self, run: HeldRun, stream: str, **options: Any) -> str | None:
        return sync_stream(self.write(), run.id, stream, **options).status

    def end(self, run: HeldRun) -> str:
        return finish_run(self.write(), run.id).status

    def rows(self, name: str) -> int:
        with closing(sqlite3.connect(self.folder / "out.db")) as connection:
            return int(connection.execute(f"select count(*) from {name}").fetchone()[0])

    def told(self) -> list[tuple[Any, ...]]:
        """Stream, status, attempt, index and flag of each call."""
        names = ("stream", "status", "attempt", "index", "is_last_block_run")
        return [tuple(call[name] for name in names) for call in self.calls()]

    def slow_down(self) -> None:
        """Let stream `a` wait for the file `go`."""
        (self.folder / "slow.py").write_text(SLOW)
        self.document["transformers"] = [{"file": "slow.py"}]

    @contextmanager
    def running(self, run: HeldRun, **options: Any) -> Iterator[list[Any]]:
        """Run stream `a` in a thread, which has begun; yields where its status or error will be."""
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(_status_or_error(lambda: self.sync(run, "a", **options))))
        thread.start()
        try:
            while not (self.folder / "runs").exists():
                thread.join(0.02)
                assert thread.is_alive(), found
            yield found
        finally:
            (self.folder / "go").touch()
            thread.join()

    def lose(self, where: str = "status = 'running'") -> None:
        """Make the processes of open streams ones that are gone."""
        gone = replace(current_owner(), started=1).encode()
        query(self.store_url, f"update _syncblocks_stream_run set worker = '{gone}' where {where}")


def _status_or_error(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        return error


@pytest.fixture
def bench(tmp_path: Path) -> HeldBench:
    return HeldBench(tmp_path)


def test_streams_run_one_by_one_and_the_end_calls_the_callbacks(bench: HeldBench) -> None:
    run = bench.open(event={"why": "test"})
    assert run.streams == ("a", "b", "c")
    for name in ("b", "a", "c"):
        assert bench.sync(run, name) == "success"
    assert bench.sync(run, "a") == "success"  # which has ended: it is told of only
    assert bench.calls() == []
    assert finish_run(bench.write(), run.id).streams["b"].records == 2
    assert bench.end(run) == "success"
    assert bench.told() == [
        ("b", "success", 1, 0, False),
        ("a", "success", 1, 1, False),
        ("c", "success", 1, 2, True),
        (None, "success", 1, None, None),
    ]
    assert [bench.rows(name) for name in run.streams] == [2, 2, 2]
    with pytest.raises(StateError, match=r"has no stream 'd'; its streams: a, b, c"):
        bench.sync(run, "d")


def test_a_run_that_waited_before_it_was_opened_takes_the_newest_time_of_a_history(bench: HeldBench) -> None:
    bench.document["streams"] = [{"stream": "a", "key_properties": ["id"], "write_disposition": "history"}]
    waiting, first = load_pipeline(bench.write()), load_pipeline(bench.write())
    run_pipeline(first).raise_for_status()
    bench.put("a", "id,name\n1,x\n2,z\n3,y\n")
    run = open_run(waiting)
    assert bench.sync(run, "a") == "success"
    assert bench.end(run) == "success"
    with closing(sqlite3.connect(bench.folder / "out.db")) as connection:
        begun = connection.execute("select id, name, _valid_from from a order by id").fetchall()
    assert [row[:2] for row in begun] == [(1, "x"), (2, "z"), (3, "y")]
    assert len({row[2] for row in begun}) == 1


def test_while_it_is_held_other_starts_are_refused_and_none_recovers_it(bench: HeldBench) -> None:
    run = bench.open(hold_s=600)
    with pytest.raises(AlreadyRunning, match=r"run 1, mapped run, open for its tasks until 20\d\d-.* UTC"):
        bench.run()
    with pytest.raises(AlreadyRunning, match="open for its tasks"):
        bench.open()
    assert bench.open(retry=True) == run
    assert bench.sync(run, "a") == "success"
    query(bench.store_url, "update _syncblocks_pipeline_run set lease_until = '2001-01-01 00:00:00.000000'")
    assert bench.run().status == "success"
    assert [bench.rows(name) for name in "abc"] == [4, 2, 2]
    assert [call["run_status"] for call in bench.calls() if call["stream"] is None] == ["failure", "success"]
    with pytest.raises(StateError, match="run 1 is not the latest"):
        bench.sync(run, "b", retry=True)
    assert bench.end(run) == "failure"


@pytest.mark.full
def test_a_run_that_has_ended_is_opened_again_by_its_own_order_only(bench: HeldBench) -> None:
    bench.put("b", BAD)
    run = bench.open(order_key="1")
    assert [bench.sync(run, name) for name in "abc"] == ["success", "failure", "success"]
    bench.end(run)
    bench.put("b", "id,name\n1,x\n2,y\n")
    assert bench.open(retry=True, order_key="1") == run
    assert [bench.sync(run, name, retry=True) for name in "abc"] == ["success"] * 3
    assert bench.end(run) == "success"
    assert [bench.rows(name) for name in "abc"] == [2, 2, 2]
    assert bench.open(retry=True, order_key="1") == run
    other = bench.open(retry=True, order_key="2")
    assert other.id == 2
    bench.end(other)


def test_an_order_whose_run_is_not_the_latest_opens_one_for_what_is_left(bench: HeldBench) -> None:
    bench.put("b", BAD)
    run = bench.open(order_key="1")
    for name in "abc":
        bench.sync(run, name)
    bench.end(run)
    run_pipeline(load_pipeline(bench.write(), trigger="other"), streams=["b"])
    assert bench.open(retry=True, order_key="1").streams == ("b",)


def test_a_run_whose_end_was_killed_is_ended_by_the_next_try_of_its_order(bench: HeldBench) -> None:
    run = bench.open(order_key="1")
    for name in "abc":
        bench.sync(run, name)
    with Store.open(bench.store_url) as store:
        assert store.take_held_run(run.id)
    gone = replace(current_owner(), started=1).encode()
    query(bench.store_url, f"update _syncblocks_pipeline_run set owner = '{gone}'")
    assert bench.open(retry=True, order_key="1") == run
    assert bench.end(run) == "success"
    assert [bench.rows(name) for name in "abc"] == [2, 2, 2]


def test_what_no_task_has_started_is_stopped_and_can_be_run_after_the_end(bench: HeldBench) -> None:
    run = bench.open()
    assert bench.sync(run, "a") == "success"
    result = finish_run(bench.write(), run.id)
    assert (result.status, result.never_started) == ("cancelled", ("b", "c"))
    assert bench.told()[0] == ("a", "success", 1, 0, True)
    assert bench.sync(run, "b") is None
    assert bench.sync(run, "b", retry=True) == "success"
    result = finish_run(bench.write(), run.id)
    assert (result.status, result.never_started) == ("failure", ("c",))  # of which no attempt is left open
    assert bench.told()[2:] == [("b", "success", 2, 0, True), (None, "success", 2, None, None)]


def test_an_end_that_is_repeated_delivers_what_was_cut_short_repeatedly(bench: HeldBench) -> None:
    run = bench.open(streams=["a"])
    bench.sync(run, "a")
    finish_run(bench.write(), run.id)
    query(
        bench.store_url,
        "UPDATE _syncblocks_delivery SET state = 'ready', is_open = TRUE, lost = 2, attempts = 0 "
        "WHERE parent = 'pipeline'",
    )
    assert finish_run(bench.write(), run.id).callbacks["due"] == 0


def test_a_failed_stream_waits_with_its_retry_until_the_attempt_has_ended(bench: HeldBench) -> None:
    bench.put("b", BAD)
    run = bench.open()
    assert [bench.sync(run, name) for name in "ab"] == ["success", "failure"]
    with pytest.raises(TryLater, match="stream 'b' of run 1: the attempt is still open"):
        bench.sync(run, "b", retry=True)
    assert bench.sync(run, "b") == "failure"
    assert bench.sync(run, "c") == "success"
    assert bench.sync(run, "b", retry=True) == "failure"
    bench.put("b", "id,name\n1,x\n")
    assert bench.sync(run, "b", retry=True) == "success"
    assert bench.end(run) == "success"
    assert [call[:3] for call in bench.told() if call[0] == "b"] == [
        ("b", "failure", 1),
        ("b", "failure", 2),
        ("b", "success", 3),
    ]
    assert [bench.rows(name) for name in "abc"] == [2, 1, 2]


def test_a_failure_stops_the_run_without_leave_to_fail(bench: HeldBench) -> None:
    bench.document["allow_blocks_to_fail"] = False
    bench.put("b", BAD)
    run = bench.open()
    assert [bench.sync(run, name) for name in "bac"] == ["failure", None, None]
    result = finish_run(bench.write(), run.id)
    assert (result.status, result.never_started) == ("failure", ("a", "c"))
    assert bench.told() == [("b", "failure", 1, 0, True), (None, "failure", 1, None, None)]
    with pytest.raises(PipelineFailed, match="fields"):
        result.raise_for_status()


def test_the_stream_of_a_dead_task_is_closed_by_its_retry(bench: HeldBench) -> None:
    run = bench.open()
    with Store.open(bench.store_url, owner=_owner(bench)) as store:
        gone = replace(current_owner(), started=1)
        assert store.claim_own(run.id, 1, "a", "nonce", gone) == "claimed"
    with pytest.raises(TryLater, match="still open"):
        bench.sync(run, "a")  # a retry, whether it is called so or not
    assert [bench.sync(run, name) for name in "bc"] == ["success", "success"]
    assert bench.sync(run, "a", retry=True) == "success"
    assert bench.end(run) == "success"
    assert bench.rows("a") == 2
    assert ("a", "failure", 1, 0, False) in bench.told()


def _owner(bench: HeldBench) -> Any:
    with Store.open(bench.store_url) as store:
        run = store.active_run("bench")
    assert run is not None
    return run.owner


def test_the_end_closes_what_dead_tasks_have_left(bench: HeldBench) -> None:
    run = bench.open()
    assert [bench.sync(run, name) for name in "bc"] == ["success", "success"]
    with Store.open(bench.store_url, owner=_owner(bench)) as store:
        store.claim_own(run.id, 1, "a", "nonce", replace(current_owner(), started=1))
    result = finish_run(bench.write(), run.id)
    assert {each.stream: each.status for each in result.streams} == {"a": "failure", "b": "success", "c": "success"}
    assert "died" in str(result.streams["a"].error)
    assert bench.told()[-2:] == [("a", "failure", 1, 2, True), (None, "failure", 1, None, None)]


@pytest.mark.parametrize("how", ["signal", "cancel", "end", "timeout"])
def test_a_task_that_runs_is_stopped(bench: HeldBench, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "GRACE_S", 0.2)  # its transformer does not end
    bench.slow_down()
    if how == "timeout":
        bench.document["streams"][0]["timeout_s"] = 0.1
    run, signals = bench.open(), list[int]()
    with bench.running(run, signals=signals) as found:
        with pytest.raises(TryLater, match="another process has it"):
            bench.sync(run, "a", retry=True)
        if how == "signal":
            signals.append(signal.SIGTERM)
        elif how == "cancel":
            assert cancel(bench.write()) == run.id
        elif how == "end":
            assert bench.end(run) == "cancelled"
        if how != "end":
            _wait_for(lambda: bool(found))
    assert found == ["cancelled"]
    if how == "cancel":
        with pytest.raises(StateError, match="run 1 was cancelled"):
            bench.sync(run, "a", retry=True)
        assert bench.sync(run, "b") is None
        assert bench.run().status == "success"  # nothing of it lives: the next start ends it
    assert bench.end(run) == "cancelled"


def test_a_stream_that_was_left_behind_opens_no_connection_that_nobody_closes(
    bench: HeldBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "GRACE_S", 0.2)
    bench.slow_down()
    bench.document["streams"][0]["timeout_s"] = 0.1
    opened: list[str] = []
    connect = SQLiteDestination.connect
    monkeypatch.setattr(
        SQLiteDestination, "connect", lambda self: (opened.append(threading.current_thread().name), connect(self))[1]
    )
    run = bench.open()
    with bench.running(run) as found:
        (left,) = (each for each in threading.enumerate() if each.name == "stream-a")
        _wait_for(lambda: bool(found))
        opened.clear()
    left.join()
    assert (found, opened) == (["cancelled"], [])
    assert bench.end(run) == "cancelled"


def _wait_for(is_so: Callable[[], bool]) -> None:
    event = threading.Event()
    while not is_so():
        event.wait(0.02)


def test_a_task_whose_stream_was_taken_away_says_so_and_commits_nothing(bench: HeldBench) -> None:
    bench.slow_down()
    run = bench.open()
    with bench.running(run) as found:
        bench.lose()
        assert bench.end(run) == "failure"
    assert isinstance(found[0], StateError)
    assert "was taken from this task" in str(found[0])
    with closing(sqlite3.connect(bench.folder / "out.db")) as connection:
        assert connection.execute("select count(*) from sqlite_master where name = 'a'").fetchone() == (0,)


def test_as_many_tasks_run_at_once_as_the_file_allows(bench: HeldBench) -> None:
    bench.slow_down()
    bench.document["concurrency"] = 1
    run, seen = bench.open(), list[str]()

    class Seen(Progress):
        def stream_started(self, stream: str, destination_table: str, bookmark: Any) -> None:
            seen.append(stream)

    with bench.running(run, progress=Seen()) as found:
        other = threading.Thread(target=lambda: bench.sync(run, "b", progress=Seen()))
        other.start()
        other.join(0.5)
        assert seen == ["a"]
    other.join()
    assert (found, seen) == (["success"], ["a", "b"])
    assert bench.end(run) == "cancelled"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"destination": {"connector": "duckdb", "config": {"path": "x.duckdb"}}},
            "only one process at a time can use 'duckdb'",
        ),
        ({"source": {"connector": "singer", "config": {"executable": "tap-x"}}}, "no program"),
    ],
)
def test_what_cannot_run_one_stream_a_process_is_refused(bench: HeldBench, change: Any, message: str) -> None:
    bench.document |= change
    with pytest.raises(SyncError, match=message):
        bench.open()
    assert not (bench.folder / ".syncblocks").exists()


def test_a_run_that_fails_before_its_first_stream_is_not_held(bench: HeldBench) -> None:
    with pytest.raises(SyncError, match="hold_s: takes a whole number from 60 to 604800, not 5"):
        bench.open(hold_s=5)
    assert bench.run().status == "success"
    bench.document["streams"] = [{"stream": "gone"}]
    with pytest.raises(PipelineFailed, match="gone"):
        bench.open()
    with pytest.raises(ConfigError):
        open_run({"pipeline": "x"})
