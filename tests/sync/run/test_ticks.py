"""`run --tick`: what becomes of a tick whose process cannot begin its run, and who delivers and starts what is left."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from syncblocks import run_pipeline
from syncblocks.sync.run.ticks import TickClaim
from syncblocks.sync.store import Store
from syncblocks.sync.store.ticks import OrderedBy, Tick, TickOptions
from tests.conftest import RunCLI
from tests.zygote import Zygote

DAY = datetime(2024, 1, 2, tzinfo=UTC)

#: Fails at its first attempt.
TELL = """
@callback
def tell(retry, **kwargs):
    assert retry["attempts"] > 1
"""


class Folder:
    """A pipeline file, its run store, and one waiting tick."""

    def __init__(self, path: Path, **document: Any) -> None:
        self.path = path
        for name in ("rows", "more"):
            (path / f"{name}.csv").write_text("id\n1\n2\n")
        pipeline = {
            "source": {"connector": "csv", "config": {"path": "."}},
            "destination": {"connector": "sqlite", "config": {"path": "out.db"}},
            "streams": [{"stream": "*"}],
        }
        (path / "second.yaml").write_text(yaml.safe_dump(pipeline | document))
        with self.store() as store:
            self.tick = store.order_tick("second", "key", trigger="callback", causes=())

    def store(self) -> Store:
        return Store.open(f"sqlite:///{self.path}/.syncblocks/store.db")

    def now(self) -> Tick:
        with self.store() as store:
            return store.tick(self.tick.id)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path / ".syncblocks" / "store.db")) as store, store:
            return store.execute(statement).fetchall()


def child(zygote: Zygote, folder: Folder, failpoint: str = "", file: str = "second.yaml") -> tuple[int, str]:
    """Carry the tick out; return the exit code and what was printed."""
    process = zygote.start(folder.path, ["run", file, "--tick", "1"], failpoint=failpoint)
    return process.wait(), process.log()


def test_a_passing_fault_before_the_run_begins_delays_the_tick(tmp_path: Path, zygote: Zygote) -> None:
    """It refused the tick for good."""
    folder = Folder(tmp_path)
    insert = "BEFORE INSERT ON _syncblocks_pipeline_run"
    folder.query(f"CREATE TRIGGER away {insert} BEGIN SELECT RAISE(ABORT, 'no answer'); END")
    code, log = child(zygote, folder)
    assert code == 1, log
    folder.query("DROP TRIGGER away")
    now = folder.now()
    assert (now.state, "no answer" in (now.why or "")) == ("waiting", True)
    code, log = child(zygote, folder)
    assert (code, folder.now()) == (0, now), log
    assert "tick 1 has ended, waits, or is carried out by another process" in log
    folder.query("UPDATE _syncblocks_tick SET not_before = '2024-01-01 00:00:00.000000'")
    code, log = child(zygote, folder)
    assert (code, folder.now().state) == (0, "run"), log


def test_a_mistake_that_only_the_source_finds_refuses_the_tick_and_after_the_first_run_it_is_a_failed_run(
    tmp_path: Path, zygote: Zygote
) -> None:
    """Its tick waited for ever, so the schedule stood still."""
    with closing(sqlite3.connect(tmp_path / "in.db")) as source:
        source.executescript("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)")
    streams = [{"stream": "q", "query": "select nope from t", "key_properties": ["id"]}]
    folder = Folder(tmp_path, source={"connector": "sqlite", "config": {"path": "in.db"}}, streams=streams)
    code, log = child(zygote, folder)
    now = folder.now()
    assert (code, now.state, "no such column: nope" in (now.why or "")) == (2, "refused", True), log
    with folder.store() as store:
        assert store.latest_run("second") is None
        assert store.fact_reads().facts("second").refused == now.why
        text = (tmp_path / "second.yaml").read_text()
        for run, (column, status) in enumerate([("id", "success"), ("nope", "failure")], 1):
            (tmp_path / "second.yaml").write_text(text.replace("nope", column))
            tick = store.order_tick("second", column, trigger="", causes=(), kind="api")
            process = zygote.start(tmp_path, ["run", "second.yaml", "--tick", str(tick.id)])
            assert (process.wait(), store.tick(tick.id).run_id) == (run - 1, run), process.log()
            assert store.run(run).status == status


def test_polite_stops_before_the_run_begins_do_not_count(tmp_path: Path, zygote: Zygote) -> None:
    """Three of them lost the tick."""
    folder = Folder(tmp_path)
    code, log = child(zygote, folder, "store.claim_tick.after:1:sigterm")
    assert code == 128 + signal.SIGTERM, log
    with folder.store() as store, TickClaim(store, 1, str) as claim:
        assert claim.take() is not None
        # As a signal that comes while the run is planned.
        result = run_pipeline(tmp_path / "second.yaml", tick=1, signals=[signal.SIGTERM])
    assert (result.run_id, result.exit_code) == (None, 128 + signal.SIGTERM)
    assert folder.query("SELECT state, claims, not_before FROM _syncblocks_tick") == [("waiting", 0, None)]


def test_the_tick_of_another_pipeline_is_left_alone(tmp_path: Path, zygote: Zygote) -> None:
    """It was carried out by whatever file was named."""
    folder = Folder(tmp_path)
    (tmp_path / "second.yaml").rename(tmp_path / "other.yaml")
    code, log = child(zygote, folder, file="other.yaml")
    assert code == 2
    assert "tick 1 starts pipeline 'second', not 'other'" in log
    assert folder.query("SELECT state, claims FROM _syncblocks_tick") == [("waiting", 0)]


def test_a_tick_waits_while_its_pipeline_is_running(tmp_path: Path, zygote: Zygote) -> None:
    """The process exited with 2."""
    folder = Folder(tmp_path)
    with folder.store() as store:
        store.begin_run("second", execution_date=DAY)
        code, log = child(zygote, folder)
    assert code == 0, log
    assert "pipeline 'second' is already running" in log
    assert folder.query("SELECT state, claims, not_before FROM _syncblocks_tick") == [("waiting", 0, None)]


def test_a_run_does_what_its_tick_says(tmp_path: Path, zygote: Zygote) -> None:
    folder = Folder(tmp_path)
    options = TickOptions(streams=("r*",), full_refresh=True, execution_date=DAY, interval=(DAY, DAY.replace(day=3)))
    with folder.store() as store:
        tick = store.order_tick("second", "backfill", trigger="t", causes=(), kind="backfill", options=options)
        process = zygote.start(tmp_path, ["run", "second.yaml", "--tick", str(tick.id)])
        assert process.wait() == 0, process.log()
        run = store.run(store.tick(tick.id).run_id or 0)
        assert (run.execution_date, run.interval, run.trigger) == (DAY, options.interval, "t")
        assert [one.stream for one in store.stream_statuses(run.id)] == ["rows"]
    assert folder.now().state == "waiting"


def test_a_callback_that_fails_is_tried_once_and_recover_delivers_the_rest_and_what_was_lost(
    tmp_path: Path, zygote: Zygote, run_cli: RunCLI
) -> None:
    """It delayed the next run by the pipeline's `drain_s`, twice; `recover` never delivered what was lost twice."""
    (tmp_path / "tell.py").write_text(TELL)
    folder = Folder(tmp_path, streams=[{"stream": "rows"}], callbacks=[{"file": "tell.py", "on": ["stream"]}])
    code, log = child(zygote, folder)
    assert code == 3, log
    tries = "SELECT state, tries FROM _syncblocks_delivery"
    assert folder.query(tries) == [("ready", 1)]
    folder.query("UPDATE _syncblocks_delivery SET lost = 2, not_before = NULL")
    done = run_cli(["recover", "second.yaml", "--json"], tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["callbacks"], told["ticks"]) == ({"due": 0, "done": 1, "dead": 0}, [])
    assert folder.query(tries) == [("done", 2)]


@pytest.mark.parametrize("failpoint", ["", "store.claim_tick.after:1:kill"], ids=["waiting", "its process died"])
def test_recover_starts_a_tick_that_nobody_starts_again(
    tmp_path: Path, zygote: Zygote, run_cli: RunCLI, failpoint: str
) -> None:
    folder = Folder(tmp_path)
    if failpoint:
        assert child(zygote, folder, failpoint)[0] == -signal.SIGKILL
    done = run_cli(["recover", "second.yaml"], tmp_path)
    assert "tick 1, a waiting start by trigger_pipeline, was begun" in done.stdout, done.stderr
    deadline = time.monotonic() + 60
    while folder.query("SELECT is_active FROM _syncblocks_pipeline_run") != [(False,)]:
        assert time.monotonic() < deadline, (tmp_path / ".syncblocks" / "ticks" / "1.log").read_text()
        time.sleep(0.05)
    assert folder.now().state == "run"


def test_a_retry_is_the_next_attempt_of_its_run_or_is_refused(tmp_path: Path, zygote: Zygote) -> None:
    folder = Folder(tmp_path, streams=[{"stream": "rows"}, {"stream": "more"}])
    (tmp_path / "rows.csv").write_bytes(b"id\n1\n\xff\n")
    with folder.store() as store:
        code, log = child(zygote, folder)
        assert (code, folder.now().run_id) == (1, 1), log
        (tmp_path / "rows.csv").write_text("id\n1\n")
        by = OrderedBy(who="x", what="retry")
        retry = store.order_retry(1, by)
        process = zygote.start(tmp_path, ["run", "second.yaml", "--tick", str(retry.id)])
        assert process.wait() == 0, process.log()
        assert (store.tick(retry.id).state, store.run(1).attempt, store.run(1).status) == ("run", 2, "success")
        folder.query("UPDATE _syncblocks_tick SET state = 'waiting', run_id = NULL WHERE kind = 'retry'")
        process = zygote.start(tmp_path, ["run", "second.yaml", "--tick", str(retry.id)])
        assert process.wait() != 0, process.log()
        assert (store.tick(retry.id).state, store.run(1).attempt) == ("refused", 2)
        assert "has succeeded: there is nothing to retry" in (store.tick(retry.id).why or "")


def test_a_stream_that_the_source_does_not_have_refuses_the_tick_with_the_nearest_name(
    tmp_path: Path, zygote: Zygote
) -> None:
    folder = Folder(tmp_path)
    with folder.store() as store:
        tick = store.order_tick(
            "second", "k", trigger="", causes=(), kind="api", options=TickOptions(streams=("rosw",))
        )
        process = zygote.start(tmp_path, ["run", "second.yaml", "--tick", str(tick.id)])
        assert process.wait() == 2, process.log()
        tick = store.tick(tick.id)
        assert (tick.state, "did you mean 'rows'?" in (tick.why or "")) == ("refused", True), tick.why


def test_a_retry_replaces_the_table_if_its_run_was_to_do_so(tmp_path: Path, zygote: Zygote) -> None:
    stream = {"stream": "rows", "replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}
    folder = Folder(tmp_path, streams=[stream])
    assert child(zygote, folder)[0] == 0
    with folder.store() as store:

        def carry_out(tick: Tick) -> int:
            return zygote.start(tmp_path, ["run", "second.yaml", "--tick", str(tick.id)]).wait()

        (tmp_path / "rows.csv").write_bytes(b"id\n1\n\xff\n")
        options = TickOptions(full_refresh=True)
        assert carry_out(store.order_tick("second", "k", trigger="", causes=(), kind="api", options=options)) == 1
        (tmp_path / "rows.csv").write_text("id\n1\n")
        assert carry_out(store.order_retry(2, OrderedBy(who="x", what="retry"))) == 0
    with closing(sqlite3.connect(tmp_path / "out.db")) as database:
        assert database.execute("SELECT id FROM rows").fetchall() == [(1,)]
