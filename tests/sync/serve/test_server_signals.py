"""A server is interrupted, stopped and killed while ten processes run: each ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from syncblocks.sync.store import Store
from tests.sync.store.store_helpers import query

FILE = """\
pipeline: {name}
store: sqlite:///store.db
source: {{connector: csv, config: {{path: data}}}}
destination: {{connector: sqlite, config: {{path: {name}.db}}}}
transformers: [{{file: hold.py}}]
streams: [{{stream: rows, write_disposition: append}}]
"""
HOLD = """\
import time
from pathlib import Path


@transformer
def hold(records):
    while not Path("go").exists():
        time.sleep(0.05)
    return records
"""
TEN = [f"p{number}" for number in range(10)]


class Servers:
    """Servers over a folder, each in a session of its own, as on a terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder}/store.db"
        self._stack = ExitStack()

    def start(self) -> subprocess.Popen[bytes]:
        log = self._stack.enter_context((self.folder / "serve.log").open("ab"))
        command = [sys.executable, "-m", "syncblocks", "serve", "--port", "0", "--max-runs", "20"]
        process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def order(self, name: str) -> None:
        with Store.open(self.url) as store:
            store.order_tick(name, name, trigger="api", causes=(), kind="api")

    def until(self, is_so: Callable[[], object]) -> None:
        deadline = time.monotonic() + 120
        while not is_so():
            assert time.monotonic() < deadline, (self.folder / "serve.log").read_text()
            time.sleep(0.05)

    def running(self) -> dict[str, int]:
        """Pipeline of each active run -> its process."""
        rows = query(self.url, "SELECT pipeline, owner FROM _syncblocks_pipeline_run WHERE is_active = TRUE")
        return {name: json.loads(owner)["pid"] for name, owner in rows}

    def close(self) -> None:
        (self.folder / "go").touch()
        self._stack.close()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.csv").write_text("id\n1\n2\n")
    (tmp_path / "hold.py").write_text(HOLD)
    for name in (*TEN, "later"):
        (tmp_path / f"{name}.yaml").write_text(FILE.format(name=name))
    found = Servers(tmp_path)
    yield found
    found.close()


@pytest.mark.full
def test_ten_processes_outlive_ctrl_c_a_stop_and_a_kill_of_their_server(servers: Servers) -> None:
    for name in TEN:
        servers.order(name)
    interrupted = servers.start()
    servers.until(lambda: len(servers.running()) == len(TEN))
    processes = servers.running()
    os.killpg(interrupted.pid, signal.SIGINT)  # as a terminal does
    assert interrupted.wait(30) == 0

    stopped = servers.start()
    servers.until(lambda: query(servers.url, "SELECT count(*) FROM _syncblocks_server") == [(1,)])
    os.killpg(stopped.pid, signal.SIGSTOP)
    servers.order("later")  # another server starts what is due meanwhile
    killed = servers.start()
    servers.until(lambda: len(servers.running()) == len(TEN) + 1)
    os.killpg(killed.pid, signal.SIGKILL)
    os.killpg(stopped.pid, signal.SIGCONT)
    assert {name: pid for name, pid in servers.running().items() if name in TEN} == processes

    (servers.folder / "go").touch()
    servers.until(lambda: not servers.running())
    for name in (*TEN, "later"):
        assert query(f"sqlite:///{servers.folder}/{name}.db", "SELECT count(*) FROM rows") == [(2,)], name
    ended = "SELECT t.state, a.status, a.attempt, count(*) FROM _syncblocks_tick t"
    ended += " JOIN _syncblocks_attempt a ON a.run_id = t.run_id GROUP BY t.state, a.status, a.attempt"
    assert query(servers.url, ended) == [("run", "success", 1, len(TEN) + 1)]
    assert query(servers.url, "SELECT count(*) FROM _syncblocks_pipeline_run") == [(len(TEN) + 1,)]
    os.killpg(stopped.pid, signal.SIGTERM)
    assert stopped.wait(30) == 0
