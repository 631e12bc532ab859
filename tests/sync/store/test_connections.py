"""How many connections a process has to a PostgreSQL store, and what it does when the server has none left."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import yaml

from syncblocks.sync.errors import StateError
from syncblocks.sync.run import lease as leases
from syncblocks.sync.run.lease import RunLease
from syncblocks.sync.store import Store, pool
from tests.sync.store.store_helpers import CALLBACKS, attempt_plan, begin, deliver_all, outcome, query, stream_plan
from tests.zygote import Zygote

Limited = Callable[[int], str]


@pytest.fixture
def limited(postgres_url: str) -> Iterator[Limited]:
    """Makes a role that may have so many connections; returns the URL with it."""
    role = "few_" + urlsplit(postgres_url).path.rpartition("/")[2]
    made = []

    def url(connections: int) -> str:
        made.append(role)
        query(postgres_url, f'CREATE ROLE "{role}" LOGIN CONNECTION LIMIT {connections}')
        query(postgres_url, f'GRANT ALL ON SCHEMA public TO "{role}"')
        parts = urlsplit(postgres_url)
        return urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))

    yield url
    if made:
        query(postgres_url, f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')


@contextmanager
def taken(url: str, connections: int) -> Iterator[list[psycopg.Connection]]:
    """Hold connections of the role; whoever is done with one closes it."""
    with ExitStack() as stack:
        yield [stack.enter_context(psycopg.connect(url)) for _ in range(connections)]


def whole_run(store: Store, pipeline: str) -> str:
    """Run two streams at once and deliver, as an engine does with its threads."""
    plans = [stream_plan("a"), stream_plan("b")]
    run = begin(store, attempt_plan(plans), pipeline)
    with RunLease(store, run.id), ThreadPoolExecutor(2) as threads:
        assert store.claim(run.id, ["a", "b"])
        list(threads.map(lambda plan: store.close_stream(run.id, outcome(plan)), plans))
        outbox = store.outbox(pipeline, CALLBACKS)
        outbox.release_gate(run.id)
        deliver_all(outbox)
        store.finish_run(run.id)
    return store.run(run.id).status


def test_the_stores_of_a_process_have_two_connections_together(limited: Limited, postgres_url: str) -> None:
    url = limited(20)
    seen = []

    def run(number: int) -> str:
        with Store.open(url) as store:
            status = whole_run(store, f"p{number}")
            seen.append(query(postgres_url, f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'")[0][0])
            return status

    role = urlsplit(url).username
    with Store.open(url), ThreadPoolExecutor(6) as threads:
        assert list(threads.map(run, range(6))) == ["success"] * 6
    assert max(seen) <= 2
    while query(postgres_url, f"SELECT 1 FROM pg_stat_activity WHERE usename = '{role}'"):
        pass  # the server ends what was closed in its own time; one that stays ends the test by its time limit


def test_a_run_goes_on_with_the_one_connection_that_it_gets(limited: Limited, caplog: pytest.LogCaptureFixture) -> None:
    url = limited(1)
    with caplog.at_level(logging.WARNING), Store.open(url) as store, ThreadPoolExecutor(1) as thread:
        with store._transactions.read():
            ended = thread.submit(whole_run, store, "p")
            while "no free connection, this process continues with its one connection: " not in caplog.text:
                assert not ended.done(), ended.result()
        assert ended.result() == "success"


def test_a_run_without_a_connection_waits_for_one(
    limited: Limited, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = limited(2)
    role = urlsplit(url).username
    with caplog.at_level(logging.WARNING), Store.open(url) as store:
        run = begin(store, attempt_plan([stream_plan("a")]))
        assert store.claim(run.id, ["a"])
        lost = query(
            postgres_url, f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{role}'"
        )
        assert {ended for (ended,) in lost} == {True}
        with taken(url, 2) as others, ThreadPoolExecutor(1) as thread:
            closed = thread.submit(store.close_stream, run.id, outcome(stream_plan("a")))
            while "no free connection, this process waits for one: " not in caplog.text:
                assert not closed.done(), closed.result()
            others[0].close()
            assert closed.result().status == "success"
    assert f'too many connections for role "{role}"' in caplog.text
    assert len([line for line in caplog.messages if "no free connection" in line]) == 1


def test_a_start_that_never_gets_a_connection_gives_up(limited: Limited, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "START_S", 0.2)
    url = limited(1)
    with taken(url, 1), pytest.raises(StateError, match=r"run store postgresql.* too many connections for role"):
        Store.open(url)


@pytest.mark.full
def test_more_runs_than_the_store_has_connections_for_all_succeed(
    zygote: Zygote, tmp_path: Path, limited: Limited
) -> None:
    url = limited(3)
    Store.open(url).close()
    folders = [tmp_path / f"run{number}" for number in range(6)]
    for folder in folders:
        folder.mkdir()
        streams = [f"s{number}" for number in range(4)]
        for stream in streams:
            (folder / f"{stream}.csv").write_text("id\n1\n2\n")
        (folder / "told.py").write_text("@callback\ndef told(**kwargs):\n    print(kwargs['stream'])\n")
        document = {
            "pipeline": folder.name,
            "store": url,
            "source": {"connector": "csv", "config": {"path": "."}},
            "destination": {"connector": "sqlite", "config": {"path": "out.db"}},
            "streams": [{"stream": stream} for stream in streams],
            "callbacks": [{"file": "told.py"}],
        }
        (folder / "pipeline.yaml").write_text(yaml.safe_dump(document))
    processes = [zygote.start(folder) for folder in folders]
    assert [process.wait() for process in processes] == [0] * 6, [process.log() for process in processes]
    assert query(url, "SELECT status, count(*) FROM _syncblocks_block_run GROUP BY status") == [("success", 48)]
    assert query(url, "SELECT state, count(*) FROM _syncblocks_delivery GROUP BY state") == [("done", 24)]


def test_one_thread_keeps_all_leases_of_a_process(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "POLL_S", 0.01)
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.05)
    with Store.open(postgres_url) as first, Store.open(postgres_url) as second, ExitStack() as stack:
        runs = [begin(store, attempt_plan([]), f"p{store is first}{n}") for n in range(3) for store in (first, second)]
        asked: list[set[int]] = []
        for store in (first, second):
            renew = store.renew
            monkeypatch.setattr(store, "renew", lambda ids, renew=renew: asked.append(set(ids)) or renew(ids))
        held = [stack.enter_context(RunLease(first if n % 2 == 0 else second, run.id)) for n, run in enumerate(runs)]
        assert [thread.name for thread in threading.enumerate()].count("lease") == 1
        before = dict(query(postgres_url, "SELECT id, lease_until FROM _syncblocks_pipeline_run"))
        first.request_cancel(runs[1].id)
        while not held[1].is_cancelled:
            pass
        query(postgres_url, f"UPDATE _syncblocks_pipeline_run SET owner = '{{}}' WHERE id = {runs[2].id}")
        while not held[2].is_lost:
            pass
        kept = {run.id for run in runs} - {runs[2].id}
        while asked.count(kept) < 2:
            pass
        after = dict(query(postgres_url, "SELECT id, lease_until FROM _syncblocks_pipeline_run"))
        assert all(after[run_id] > before[run_id] for run_id in kept)
        assert [lease.is_cancelled for lease in held].count(True) == 1
        assert [lease.is_lost for lease in held].count(True) == 1
    assert "lease" not in [thread.name for thread in threading.enumerate()]


def test_a_row_that_is_locked_holds_up_no_other_lease(postgres_url: str) -> None:
    with Store.open(postgres_url) as store:
        runs = [begin(store, attempt_plan([]), f"p{number}").id for number in range(2)]
        with psycopg.connect(postgres_url) as other:
            other.execute(f"SELECT 1 FROM _syncblocks_pipeline_run WHERE id = {runs[0]} FOR UPDATE")
            assert store.renew(runs) == {runs[1]}
        assert store.renew(runs) == set(runs)
