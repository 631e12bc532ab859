"""Packets get lost without a word: every wait ends by itself, and at once where a signal says so."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from syncblocks.connectors.errors import ConnectorError, RetriableError
from syncblocks.connectors.mysql.destination import MySQLDestination
from syncblocks.connectors.postgres.asyncpg_session import AsyncpgSession
from syncblocks.connectors.postgres.destination import PostgresDestination
from syncblocks.connectors.postgres.settings import PostgresSettings
from syncblocks.connectors.sqlalchemy.destination import SQLAlchemyDestination
from syncblocks.sync.errors import StateError
from syncblocks.sync.store import Store
from tests.faults.dark import Dark, Relay, dark
from tests.faults.workshop import RECORDER
from tests.sync.run.log_based import Logged, replayed

pytestmark = pytest.mark.full

#: Short limits, so that the tests are.
LIMITS = {"connect_timeout_s": 2, "network_timeout_s": 3}


@pytest.fixture
def net() -> Iterator[Dark]:
    with dark() as made:
        yield made


def _adbc(url: str, limits: dict[str, int]) -> Any:
    return PostgresDestination({"url": url, **limits}).connect()


def _asyncpg(url: str, limits: dict[str, int]) -> Any:
    return AsyncpgSession(PostgresSettings.model_validate({"url": url, **limits}).address, "begin")


def _pymysql(url: str, limits: dict[str, int]) -> Any:
    return MySQLDestination({"url": url, **limits}).connect()


def _by_psycopg(url: str, limits: dict[str, int]) -> Any:
    url = url.replace("postgresql://", "postgresql+psycopg://")
    return SQLAlchemyDestination({"url": url, **limits}).connect()


def _by_pymysql(url: str, limits: dict[str, int]) -> Any:
    url = url.replace("mysql://", "mysql+pymysql://")
    return SQLAlchemyDestination({"url": url, **limits}).connect()


SLEEPS = {"postgres": "select pg_sleep({})", "mysql": "select sleep({})"}
CONNECT = {
    "adbc": (_adbc, "postgres"),
    "asyncpg": (_asyncpg, "postgres"),
    "pymysql": (_pymysql, "mysql"),
    "sqlalchemy-psycopg": (_by_psycopg, "postgres"),
    "sqlalchemy-pymysql": (_by_pymysql, "mysql"),
}


@pytest.fixture(params=CONNECT)
def opened(request: pytest.FixtureRequest, net: Dark) -> tuple[Callable[[dict[str, int]], Any], str, Relay]:
    """How to connect with limits, the statement that sleeps, and the relay on the way."""
    connect, system = CONNECT[request.param]
    url, relay = net.relay(request.getfixturevalue("postgres_url" if system == "postgres" else "mariadb_url"))
    return lambda limits: connect(url, limits), SLEEPS[system], relay


def test_an_answer_that_never_comes_is_given_up(net: Dark, opened: Any) -> None:
    connect, sleep, relay = opened

    def run() -> None:
        with closing(connect(LIMITS)) as session:
            net.cut_at(relay)
            with pytest.raises(RetriableError):
                session.query(sleep.format(0))

    net.inside(run)


def test_what_cannot_be_sent_is_given_up(net: Dark, opened: Any) -> None:
    connect, sleep, _ = opened

    def run() -> None:
        with closing(connect(LIMITS)) as session:
            net.cut()
            with pytest.raises(RetriableError):
                session.query(sleep.format(0))

    net.inside(run)


def test_a_connection_that_does_not_come_is_given_up(net: Dark, opened: Any) -> None:
    connect, _, _ = opened
    net.cut()

    def run() -> None:
        with pytest.raises(RetriableError):
            connect(LIMITS)

    net.inside(run)


def test_a_server_that_thinks_for_longer_than_the_limit_is_waited_for(
    net: Dark, postgres_url: str, mariadb_url: str
) -> None:
    urls = {"postgres": net.relay(postgres_url)[0], "mysql": net.relay(mariadb_url)[0]}

    def asked(name: str) -> int:
        connect, system = CONNECT[name]

        def ask() -> int:
            with closing(connect(urls[system], LIMITS)) as session:
                return len(session.query(SLEEPS[system].format(3 * LIMITS["network_timeout_s"])))

        return net.inside(ask)

    with ThreadPoolExecutor(len(CONNECT)) as pool:  # all of them wait at once
        assert dict(zip(CONNECT, pool.map(asked, CONNECT), strict=True)) == dict.fromkeys(CONNECT, 1)


def test_interrupting_does_not_wait_for_the_network(net: Dark, opened: Any) -> None:
    connect, sleep, relay = opened

    def run() -> None:
        with closing(connect(LIMITS)) as session:
            net.cut_at(relay)
            asking = threading.Thread(target=_fails, args=(lambda: session.query(sleep.format(0)),))
            asking.start()
            assert net.is_cut.wait(30)
            session.cancel()
            assert asking.is_alive()  # it has not been waited for
            asking.join()

    net.inside(run)


def _fails(call: Callable[[], Any]) -> None:
    with suppress(ConnectorError):
        call()


@pytest.mark.parametrize("is_sent", [True, False])
def test_the_run_store_is_given_up_within_the_limits_of_its_url(net: Dark, postgres_url: str, is_sent: bool) -> None:
    limits = "?connect_timeout=2&keepalives_idle=1&keepalives_interval=1&keepalives_count=2&tcp_user_timeout=3000"
    url, relay = net.relay(postgres_url + limits)

    def run() -> None:
        with Store.open(url) as store:
            if is_sent:
                net.cut_at(relay)
            else:
                net.cut()
            with pytest.raises(StateError):
                store.latest_run("p")

    net.inside(run)


# -- a signal, with the limits that are the default: far beyond those of these tests ---------------------------------

COPY, COMMIT = b"copy", b"commit"


class Run:
    """A pipeline from one side to another of which one is behind a wire, started in the dark network."""

    def __init__(self, net: Dark, folder: Path, where: str, url: str) -> None:
        self.net, self.folder, self.url = net, folder, url
        far, self.relay = net.relay(url)
        records = [{"id": n, "v": f"value {n}"} for n in range(20)]
        memory = {"tables": {"t": {"columns": {"id": "int64", "v": "string"}, "key": ["id"], "records": records}}}
        self.document: dict[str, Any] = {
            "pipeline": "p",
            "drain_s": 30,
            "source": {"connector": "memory", "config": memory},
            "destination": {"connector": "sqlite", "config": {"path": "destination.db"}},
            "streams": [{"stream": "t"}],
            "callbacks": [{"file": "recorder.py", "on": ["stream"]}],
        }
        if where == "source":
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("create table t as select n as id, 'value' as v from generate_series(1, 20) n")
            self.document["source"] = {"connector": "postgres", "config": {"url": far}}
            self.document["streams"] = [{"stream": "public.t"}]
        elif where == "destination":
            self.document["destination"] = {"connector": "postgres", "config": {"url": far}}
        elif where == "store":
            self.document["store"] = far
            # Longer than the test takes to find the run under way, and than a signal waits for an answer in the dark.
            memory |= {"batch_size": 1, "delay_s": 3}
        (folder / "recorder.py").write_text(RECORDER)
        (folder / "p.yaml").write_text(yaml.safe_dump(self.document))

    def start(self) -> subprocess.Popen[bytes]:
        return self.net.start("run", "p.yaml", cwd=self.folder)

    def said(self) -> str:
        return (self.folder / "said").read_text()

    def statuses(self) -> list[str]:
        log = self.folder / "recorder.log"
        return [json.loads(line)["status"] for line in log.read_text().splitlines()] if log.exists() else []

    def recovers(self) -> None:
        """Let the packets through again: the next start ends what was left, and syncs."""
        self.net.mend()
        if "store" in self.document:
            (self.folder / "p.yaml").write_text(yaml.safe_dump(self._quick()))
        assert self.start().wait(60) == 0, self.said()

    def _quick(self) -> dict[str, Any]:
        self.document["source"]["config"]["delay_s"] = 0
        return self.document


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_a_run_whose_source_is_dark(net: Dark, tmp_path: Path, postgres_url: str, number: int) -> None:
    run = Run(net, tmp_path, "source", postgres_url)
    net.cut_at(run.relay, COPY, b"to stdout")
    process = run.start()
    assert net.is_cut.wait(30), run.said()
    process.send_signal(number)
    assert process.wait(60) == 128 + number, run.said()
    # The store was there: everybody was told.
    assert run.statuses() == ["cancelled"], run.said()
    run.recovers()
    assert run.statuses() == ["cancelled", "success"]


def test_a_signal_ends_a_run_whose_commit_is_lost_in_the_dark(net: Dark, tmp_path: Path, postgres_url: str) -> None:
    run = Run(net, tmp_path, "destination", postgres_url)
    _at_last_commit(run)
    process = run.start()
    assert net.is_cut.wait(30), run.said()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143, run.said()
    assert run.statuses() == [], "only the destination knows what became of it"
    run.recovers()
    assert run.statuses() == ["failure", "success"]


def _at_last_commit(run: Run) -> None:
    """Go dark at the COMMIT of the load: the first one after the records."""
    has_records: list[bool] = []

    def watch(data: bytes) -> bool:
        if run.net.is_cut.is_set():
            return False
        if b"value 19" in data:
            has_records.append(True)
        if has_records and COMMIT in data.lower():
            run.net.cut()
            return False
        return True

    run.relay.watch = watch


@pytest.mark.parametrize("signals", [1, 2])
def test_signals_end_a_run_whose_store_is_dark(net: Dark, tmp_path: Path, postgres_url: str, signals: int) -> None:
    run = Run(net, tmp_path, "store", postgres_url)
    process = run.start()
    _until_a_stream_runs(postgres_url, process)
    net.cut()
    for _ in range(signals):
        process.send_signal(signal.SIGTERM)
        if signals > 1:
            time.sleep(0.1)  # two of a kind that are not taken yet are one
    assert process.wait(60) == 143, run.said()
    assert run.statuses() == []
    run.recovers()
    assert run.statuses() == ["failure", "success"]


def _until_a_stream_runs(url: str, process: subprocess.Popen[bytes]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        while process.poll() is None:
            try:
                if connection.execute("select from _syncblocks_block_run where status = 'running'").fetchall():
                    return
            except psycopg.errors.UndefinedTable:
                continue
    pytest.fail("the run has ended")


def test_a_signal_ends_a_start_that_plans_in_the_dark(net: Dark, tmp_path: Path, postgres_url: str) -> None:
    run = Run(net, tmp_path, "source", postgres_url)
    net.cut_at(run.relay, b"pg_catalog")
    process = run.start()
    assert net.is_cut.wait(30), run.said()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143, run.said()
    assert "SIGTERM" in run.said()
    run.recovers()


def test_a_read_of_the_log_is_given_up(net: Dark, tmp_path: Path, log_url: str) -> None:
    logged = Logged(tmp_path, log_url)
    logged.sql("create table t (id int primary key); insert into t values (1)")
    logged.succeed()
    url, relay = net.relay(log_url)
    logged.document["source"]["config"] = {"url": url, **LIMITS}
    logged.document["retries"] = 0
    logged.sql("insert into t values (2)")
    net.cut_at(relay, b"start_replication")
    assert "timed out" in net.inside(logged.refused)
    net.mend()
    net.inside(logged.succeed)
    assert replayed(logged.changes("t")).keys() == {1, 2}
