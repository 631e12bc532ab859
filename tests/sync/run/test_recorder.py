"""The log that a run leaves in the run store, and its figures."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import warnings
from pathlib import Path

import pytest

from syncblocks import run_pipeline
from syncblocks.sync.delivery.masked_output import masked_output
from syncblocks.sync.run.recorder import ENTRY_BYTES, LOG_BYTES, Recorder
from syncblocks.sync.secrets import Redactor
from syncblocks.sync.store import Store
from tests.conftest import RunCLI
from tests.sync.store.store_helpers import query

FILE = """\
pipeline: crm
source: {connector: csv, config: {path: .}}
destination: {connector: sqlite, config: {path: out.db}}
streams: [{stream: rows, retries: 1, retry_delay_s: 0}]
transformers: [{file: broken.py}]
variables: {token: "{{ secret('canary') }}"}
"""
BROKEN = """\
import logging

@transformer
def broken(df, token=None, **kwargs):
    logging.getLogger("syncblocks").warning("seen %s", token)
    print(token)
    raise ConnectionError(f"no way with {token}")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SYNCBLOCKS_SECRET_CANARY", "canary-hush-hush")
    (tmp_path / "crm.yaml").write_text(FILE)
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "rows.csv").write_text("id\n1\n2\n")
    return tmp_path


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder}/.syncblocks/store.db"


def test_each_attempt_keeps_its_log_with_secrets_masked(folder: Path, run_cli: RunCLI) -> None:
    assert run_pipeline(folder / "crm.yaml").status == "failure"
    (folder / "broken.py").write_text("@transformer\ndef broken(df):\n    return df\n")
    assert run_pipeline(folder / "crm.yaml", retry=True).status == "success"
    with Store.open(url_of(folder)) as store:
        first, second = store.run_log(1, 1), store.run_log(1, 2)
    assert first is not None
    assert second is not None
    assert "canary-hush" not in first
    for part in (
        "level=info event=run_started run=1 attempt=1 pipeline=crm streams=1",
        "level=info event=stream_started stream=rows",
        'level=warning event=message text="seen ***"',
        "level=error event=stream_ended stream=rows status=failure",
        "no way with ***",
        "level=error event=run_ended run=1 status=failure",
    ):
        assert part in first
    assert "attempt=2" in second
    shown = run_cli(["runs", "show", "--log"], folder)
    assert shown.stdout.endswith(f"\n\n{second}")
    assert json.loads(run_cli(["runs", "show", "--log", "--json"], folder).stdout)["log"] == second
    assert query(url_of(folder), "SELECT * FROM _syncblocks_progress") == []


def test_a_store_that_keeps_no_log_fails_no_run(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "broken.py").write_text("@transformer\ndef broken(df):\n    return df\n")
    Store.open(url_of(folder)).close()
    query(url_of(folder), "DROP TABLE _syncblocks_run_log")
    result = run_pipeline(folder / "crm.yaml")
    assert (result.status, result.exit_code) == ("success", 0)
    assert "the log of run 1 is not kept: " in caplog.text
    assert query(url_of(folder), "SELECT is_active FROM _syncblocks_pipeline_run") == [(0,)]


def test_a_long_log_is_bounded_and_says_what_is_missing() -> None:
    with Recorder() as recorder:
        recorder.message("first")
        for number in range(12):
            recorder.message(f"{number} " + "\u00e4" * ENTRY_BYTES)
        logging.getLogger("syncblocks").warning("%s at the end\x1b[31m\0", "red")
    logging.getLogger("syncblocks").warning("not heard")
    log = recorder.log()
    assert len(log.encode()) <= LOG_BYTES + 100
    lines = log.splitlines()
    assert lines[0] == "... what came before is not kept"
    assert "first" not in log
    assert lines[-2].endswith("...")
    assert lines[-1].endswith(r'text="red at the end\u001b[31m\u0000"')


def test_figures_are_of_streams_under_way_and_of_those_that_were_tried_again() -> None:
    recorder = Recorder()
    for name in "abc":
        recorder.stream_started(name, f"table_{name}", {"id": 1})
        recorder.advanced(name, records=10, size_bytes=80)
    recorder.committed("a", records=10, bookmark={"id": 11})
    recorder.rejected("a", records=2)
    recorder.read_ended("a")
    recorder.retrying("b", attempt=1, delay_s=0, error="gone\nTraceback")
    for name in "bc":
        recorder.stream_ended(name, "success", records=10, error=None)
    a, b = recorder.figures()["streams"]
    assert (a.pop("still_s"), a.pop("records_per_s")) == (0, None)
    assert a == {
        "stream": "a",
        "state": "loading",
        "records": 10,
        "committed": 10,
        "rejected": 2,
        "percent": None,
        "size_bytes": 80,
        "bookmark_before": {"id": 1},
        "bookmark_after": {"id": 11},
        "retries": 0,
        "error": None,
    }
    assert (b["stream"], b["state"], b["retries"]) == ("b", "ended", 1)
    recorder.is_remote = True
    assert (recorder.figures()["streams"][0]["records"], recorder.figures()["is_remote"]) == (None, True)


def test_a_secret_of_short_lines_is_masked_before_an_error_is_cut_to_its_first_line() -> None:
    recorder = Recorder()
    recorder.stream_started("a", "t", None)
    recorder.retrying("a", attempt=1, delay_s=0, error="no way with hush-1\nhush-2")
    with masked_output(Redactor(["hush-1\nhush-2"])):
        assert recorder.figures()["streams"][0]["error"] == "no way with ***"


def test_a_value_of_a_log_line_is_masked_before_it_is_quoted() -> None:
    """The cut at the end of an error is at the end of the line's value no more once this has quotes."""
    recorder = Recorder()
    with masked_output(Redactor(["quote'and\"both\\slash-of-secret"])):
        recorder.stream_ended("a", "failure", records=0, error="refused: quote'and\"both...")
        recorder.message('with space: and"both\\slash-of-secret\\"')
    assert 'error="refused: ***..."' in recorder.log()
    assert "slash" not in recorder.log()


def test_a_process_that_user_code_forks_is_not_heard() -> None:
    """It inherits a lock that nobody in it lets go of."""
    locked, ended = threading.Event(), threading.Event()
    with Recorder() as recorder:

        def hold() -> None:
            with recorder.lock:
                locked.set()
                ended.wait()

        holder = threading.Thread(target=hold)
        holder.start()
        locked.wait()
        with warnings.catch_warnings(action="ignore"):
            child = os.fork()
        if child == 0:
            signal.alarm(10)
            logging.getLogger("syncblocks").warning("from the child")
            os._exit(0)
        try:
            assert os.waitpid(child, 0)[1] == 0
        finally:
            ended.set()
            holder.join()
