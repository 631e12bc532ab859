"""The statuses beyond success, failure and cancelled: retry, schema_changed, recovered, crashed; and the totals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sync.pipelines import Bench, statuses

LISTENER = """
import json
from pathlib import Path

def write(status, kwargs):
    line = {name: kwargs.get(name) for name in
            ("stream", "index", "is_last_block_run", "parent_block_uuid", "idempotency_key", "totals",
             "failed_streams")}
    line["status"] = status
    line["error"] = str(kwargs["__error"]) if "__error" in kwargs else None
    run = kwargs.get("block_run")
    line["changes"] = None if run is None else run.schema_changes
    with Path(__file__).with_suffix(".log").open("a") as log:
        log.write(json.dumps(line) + "\\n")

@callback("success")
def success(**kwargs):
    write("success", kwargs)

@callback("failure")
def failure(**kwargs):
    write("failure", kwargs)

@callback("retry")
def retry(**kwargs):
    write("retry", kwargs)

@callback("schema_changed")
def schema_changed(**kwargs):
    write("schema_changed", kwargs)

@callback("recovered")
def recovered(**kwargs):
    write("recovered", kwargs)

@callback("crashed")
def crashed(**kwargs):
    write("crashed", kwargs)
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    (tmp_path / "listener.py").write_text(LISTENER)
    made.document["callbacks"] = [{"file": "listener.py"}]
    return made


def heard(bench: Bench) -> list[dict[str, Any]]:
    return bench.calls("listener")


def test_each_repeated_try_is_told_at_once_numbered_and_without_a_flag(bench: Bench) -> None:
    bench.seed("a", 4)
    bench.document["source"]["config"] |= {"fail_at": {"a": 1}, "fail_kind": "retriable", "fail_times": 2}
    bench.document |= {"retries": 3, "retry_delay_s": 0.01}
    assert statuses(bench.run()) == {"a": "success"}
    calls = heard(bench)
    assert [(c["status"], c["index"], c["is_last_block_run"]) for c in calls] == [
        ("retry", None, False),
        ("retry", None, False),
        ("success", 0, True),
    ]
    assert len({c["idempotency_key"] for c in calls}) == 3
    assert calls[0]["error"]


def test_a_column_added_to_the_table_is_told_with_before_and_after(bench: Bench) -> None:
    bench.document["streams"] = [{"stream": "a", "write_disposition": "merge"}]
    bench.seed("a", 2)
    bench.run()
    assert [c["status"] for c in heard(bench)] == ["success"], "making the table is no change"
    bench.seed("a", [{"id": 1, "v": "x", "extra": 5}])
    bench.run()
    call = heard(bench)[1]
    assert (call["status"], call["index"], call["is_last_block_run"]) == ("schema_changed", None, False)
    assert [change["column"] for change in call["changes"]] == ["extra"]
    assert {"before", "after"} <= call["changes"][0].keys()


def test_the_first_success_after_failures_is_told_as_recovered_with_the_same_flag(bench: Bench) -> None:
    bench.seed("a", 2)
    bench.document["source"]["config"] |= {"fail_at": {"a": 1}, "fail_times": 2}
    for _ in range(4):
        bench.run()
    calls = [(c["status"], c["index"], c["is_last_block_run"]) for c in heard(bench)]
    assert calls == [
        ("failure", 0, True),
        ("failure", 0, True),
        ("success", 0, True),
        ("recovered", 0, True),
        ("success", 0, True),
    ]


def test_a_block_that_succeeds_while_its_stream_fails_again_is_not_told_as_recovered(bench: Bench) -> None:
    bench.seed("a", 2)
    bench.document["destination"]["config"] |= {"fail_on": {"a": 1}, "fail_times": 2}
    bench.document["callbacks"][0]["on"] = ["source"]
    for _ in range(3):
        bench.run()
    assert [c["status"] for c in heard(bench)] == ["success", "success", "success", "recovered"]


def test_the_pipelines_event_has_totals_and_the_failed_streams(bench: Bench) -> None:
    bench.seed("a", 2)
    bench.seed("b", 3)
    bench.document["source"]["config"] |= {"fail_at": {"b": 1}}
    bench.document["allow_blocks_to_fail"] = True
    bench.document["callbacks"] = [{"file": "listener.py", "on": ["pipeline"]}]
    bench.run()
    (call,) = heard(bench)
    assert call["status"] == "failure"
    totals = call["totals"]
    assert (totals["streams"], totals["success"], totals["failure"], totals["rows"]) == (2, 1, 1, 2)
    assert [(f["stream"], f["block"]) for f in call["failed_streams"]] == [("b", "load")]


CRASH = """
import sys
from syncblocks import Progress, run_pipeline

class Die(Progress):
    def advanced(self, stream, *, records, size_bytes):
        if stream == "b":
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)

run_pipeline(sys.argv[1], progress=Die() if sys.argv[2] == "die" else None)
"""


@pytest.mark.full
def test_a_dead_process_is_told_as_crashed_once_by_whoever_recovers_it(bench: Bench) -> None:
    (bench.folder / "a.csv").write_text("id\n1\n")
    (bench.folder / "b.csv").write_text("id\n2\n")
    bench.document |= {
        "source": {"connector": "csv", "config": {"path": "*.csv"}},
        "destination": {"connector": "sqlite", "config": {"path": "out.db"}},
        "callbacks": [{"file": "listener.py", "on": ["stream", "pipeline"]}],
    }
    path = bench.write()
    died = subprocess.run([sys.executable, "-c", CRASH, str(path), "die"], check=False, env=os.environ)
    assert died.returncode == -signal.SIGKILL
    subprocess.run([sys.executable, "-c", CRASH, str(path), "live"], check=True, env=os.environ)
    # A call that the kill cut off before its mark is repeated under its key.
    told = {call["idempotency_key"]: call for call in heard(bench)}
    calls = [(c["status"], c["stream"], c["parent_block_uuid"] == "pipeline") for c in told.values()]
    assert calls[:5] == [
        ("success", "a", False),
        ("failure", "b", False),
        ("crashed", "b", False),
        ("failure", None, True),
        ("crashed", None, True),
    ]
    assert calls[5:] == [
        ("success", "a", False),
        ("success", "b", False),
        ("recovered", "b", False),
        ("success", None, True),
    ]
