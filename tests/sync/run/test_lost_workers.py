"""Workers that die or freeze with a stream: another one tries again, and what waits behind it is not lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.cluster import Cluster
from tests.sync.pipelines import statuses
from tests.sync.run.spread import SpreadBench

#: Ends its process, as often as the file says.
KILL = """
import os
from pathlib import Path

@transformer
def kill(df, stream, **kwargs):
    left = Path({left!r})
    if stream == "s2" and (number := int(left.read_text())):
        left.write_text(str(number - 1))
        os.kill(os.getpid(), 9)
    return df
"""

#: The first process that comes here waits for the second one's end.
WAIT = """
import os, time
from pathlib import Path

@transformer
def wait(df, stream, **kwargs):
    pid = Path({pid!r})
    if stream == "{stream}" and not pid.exists():
        pid.write_text(str(os.getpid()))
        while not Path({go!r}).exists():
            time.sleep(0.02)
    {then}
    return df
"""


@pytest.fixture
def bench(tmp_path: Path, postgres_url: str, cluster: Cluster) -> SpreadBench:
    made = SpreadBench(tmp_path, postgres_url, {"dask": cluster.address})
    made.document |= {"concurrency": 1, "allow_blocks_to_fail": True}
    made.document["transformers"] = [{"file": "code.py"}]
    return made


def seed(bench: SpreadBench, number: int) -> list[str]:
    names = [f"s{place}" for place in range(number)]
    for name in names:
        bench.seed(name, 3)
    bench.document["streams"] = [{"stream": name, "write_disposition": "append"} for name in names]
    return names


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.one_of
@pytest.mark.parametrize(("retries", "deaths"), [(2, 2), (1, 2)])
def test_a_stream_whose_worker_dies_has_its_retries_and_those_behind_it_lose_nothing(
    bench: SpreadBench, retries: int, deaths: int
) -> None:
    left = bench.folder / "left"
    left.write_text(str(deaths))
    (bench.folder / "code.py").write_text(KILL.format(left=str(left)))
    names = seed(bench, 9)
    bench.document["retries"] = retries
    bench.document["retry_delay_s"] = 0
    bench.record(on=["stream"])
    told = bench.folder / "told"
    (bench.folder / "tell.py").write_text(
        "@callback('retry')\ndef tell(stream, __error, **kwargs):\n"
        f"    with open({str(told)!r}, 'a') as log:\n        print(stream, __error.type, file=log)\n"
    )
    bench.document["callbacks"].append({"file": "tell.py", "on": ["export"]})
    result = bench.run()
    failed = deaths > retries
    assert statuses(result) == {name: "failure" if failed and name == "s2" else "success" for name in names}
    assert [len(bench.rows(name)) for name in names if name != "s2"] == [3] * 8
    calls = bench.calls()
    assert sorted(call["index"] for call in calls) == list(range(9))
    assert [call["is_last_block_run"] for call in calls] == [False] * 8 + [True]
    lines = told.read_text().splitlines() if told.exists() else []
    assert lines == ["s2 ProcessDied"] * min(retries, deaths)
    if failed:
        assert "the process of the worker" in str(result.streams["s2"].error)
    else:
        assert len(bench.rows("s2")) == 3


def test_what_a_frozen_worker_commits_is_refused_beside_the_worker_that_tries_again(bench: SpreadBench) -> None:
    pid, go = bench.folder / "pid", bench.folder / "go"
    (bench.folder / "code.py").write_text(WAIT.format(pid=str(pid), go=str(go), stream="s0", then="pass"))
    seed(bench, 1)
    bench.document["retries"] = 1
    bench.document["retry_delay_s"] = 0
    bench.record()

    def freeze() -> None:
        wait_until(lambda: pid.exists() and pid.read_text() != "")
        os.kill(int(pid.read_text()), signal.SIGSTOP)
        with psycopg.connect(bench.url) as connection:
            connection.execute(
                "update _syncblocks_stream_run set lease_until = '2001-01-01 00:00:00+00' where status = 'running'"
            )

    thread = threading.Thread(target=freeze)
    thread.start()
    try:
        assert statuses(bench.run()) == {"s0": "success"}
    finally:
        thread.join()
        go.touch()
        zombie = psutil.Process(int(pid.read_text()))
        zombie.send_signal(signal.SIGCONT)
    query = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    wait_until(lambda: bench.ask(query) == [(0,)])  # it has seen that its stream was taken, and has let go
    assert len(bench.rows("s0")) == 3
    assert bench.ask("select status from _syncblocks_stream_run") == [("success",)]
    assert [(call["status"], call["is_last_block_run"]) for call in bench.calls()] == [("success", True)]


def test_streams_that_wait_behind_a_slow_one_go_to_an_idle_worker(bench: SpreadBench) -> None:
    pid, go = bench.folder / "pid", bench.folder / "go"
    # s0 ends only when all others have: nine streams at two slots make calls of two.
    then = f"if stream == 's1': Path({str(go)!r}).touch()"
    (bench.folder / "code.py").write_text(WAIT.format(pid=str(pid), go=str(go), stream="s0", then=then))
    names = seed(bench, 9)
    bench.document["concurrency"] = 2
    bench.record()
    assert set(statuses(bench.run()).values()) == {"success"}
    assert [len(bench.rows(name)) for name in names] == [3] * 9
    order = {call["stream"]: call["index"] for call in bench.calls()}
    assert order["s1"] < order["s0"]
