"""One run as a task of an orchestrator: its events, its retries, and its end when the task is interrupted."""

from __future__ import annotations

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from syncblocks import PipelineFailed, RunResult, StreamResult, finish_run, load_pipeline, open_run, sync_stream
from syncblocks.connectors.struct_helpers import replace
from syncblocks.sync.config import Pipeline
from syncblocks.sync.integrations.task_run import (
    Ended,
    Event,
    OrchestratorTask,
    RecordsCommitted,
    Said,
    events_of,
    events_while,
    figures_of,
    leftover,
    summary,
    trigger_of,
    whole_summary,
)
from syncblocks.sync.store import Store
from syncblocks.sync.store.model import PipelineRun

GOOD, BAD = "id,name\n1,a\n2,b\n", "id,name\n1,a\n1,b,c\n"

NOTE = """
@callback("success")
def note(stream, pipeline_run, **kwargs):
    with open(__file__ + ".log", "a") as log:
        print(stream, pipeline_run.attempt, file=log)
"""


def shop(folder: Path, *, trigger: str = "t", **files: str) -> Pipeline:
    (folder / "in").mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / "in" / f"{name}.csv").write_text(text)
    (folder / "note.py").write_text(NOTE)
    document = {
        "source": {"connector": "csv", "config": {"path": "in"}},
        "transformers": [{"block": "renamed", "rename": {"name": "label"}}],
        "destination": {"connector": "sqlite", "config": {"path": "out.db"}},
        "streams": [{"stream": "*", "write_disposition": "append", "add_columns": {"at": "{{ execution_date }}"}}],
        "callbacks": [{"file": "note.py"}],
        "allow_blocks_to_fail": True,
        "concurrency": 1,
    }
    file = folder / "shop.yaml"
    file.write_text(json.dumps(document))
    return load_pipeline(file, trigger=trigger)


def played(task: OrchestratorTask) -> list[Event]:
    return list(events_of(task))


def ended(events: list[Event]) -> dict[str, Ended]:
    return {event.stream: event for event in events if isinstance(event, Ended)}


def result_of(events: list[Event]) -> RunResult:
    assert isinstance(events[-1], RunResult)
    return events[-1]


def rows(folder: Path, table: str) -> int:
    with closing(sqlite3.connect(folder / "out.db")) as connection:
        return int(connection.execute(f"select count(*) from {table}").fetchone()[0])


def latest(pipeline: Pipeline) -> PipelineRun:
    with Store.open(pipeline.store_url) as store:
        run = store.latest_run(pipeline.pipeline)
    assert run is not None
    return run


def test_each_commit_and_each_end_is_told_when_it_happens(tmp_path: Path) -> None:
    events = played(OrchestratorTask(pipeline=shop(tmp_path, a=GOOD, b=GOOD)))
    shown = [(type(event), event.stream) for event in events if isinstance(event, RecordsCommitted | Ended)]
    assert shown == [(RecordsCommitted, "a"), (Ended, "a"), (RecordsCommitted, "b"), (Ended, "b")]
    commit = next(event for event in events if isinstance(event, RecordsCommitted))
    assert (commit.records, commit.total) == (2, 2)
    a = ended(events)["a"]
    assert list(a.columns) == ["id", "label", "at"]
    assert a.sources == {"id": "id", "label": "name"}
    assert a.figures.items() >= {"run_id": 1, "attempt": 1, "destination_table": "a", "records": 2}.items()
    assert json.loads(json.dumps(summary(result_of(events), ended(events))))["streams"]["a"]["status"] == "success"


def test_a_stream_of_a_held_run_is_told_like_one_of_a_run(tmp_path: Path) -> None:
    pipeline = shop(tmp_path, a=GOOD, b=BAD)
    run = open_run(pipeline)

    def sync(stream: str) -> list[Event]:
        return list(events_while(lambda progress: sync_stream(pipeline, run.id, stream, progress=progress), []))

    events = sync("a")
    assert [event.total for event in events if isinstance(event, RecordsCommitted)] == [2]
    a = ended(events)["a"]
    assert list(a.columns) == ["id", "label", "at"]
    assert isinstance(events[-1], StreamResult)
    assert a.figures == {"run_id": run.id, "attempt": 1, **figures_of(events[-1])}
    with pytest.raises(PipelineFailed, match=r"stream 'b': failure: .*fields"):
        ended(sync("b"))["b"].result.raise_for_status()
    result = finish_run(pipeline, run.id)
    found = json.loads(json.dumps(whole_summary(result)))
    assert {name: each["status"] for name, each in found["streams"].items()} == {"a": "success", "b": "failure"}
    assert (found["run_id"], found["status"], found["callbacks"]["done"]) == (run.id, "failure", 1)


def test_a_failed_stream_is_told_with_its_error_beside_those_that_succeeded(tmp_path: Path) -> None:
    events = played(OrchestratorTask(pipeline=shop(tmp_path, a=GOOD, b=BAD, c=GOOD)))
    found = ended(events)
    assert {name: each.result.status for name, each in found.items()} == {
        "a": "success",
        "b": "failure",
        "c": "success",
    }
    assert "3 fields for 2 columns" in str(found["b"].result.error)
    assert any(isinstance(event, Said) and event.text.startswith("b: failure") for event in events)
    with pytest.raises(PipelineFailed, match="b: "):
        result_of(events).raise_for_status()


def test_a_retry_is_the_next_attempt_over_what_did_not_succeed(tmp_path: Path) -> None:
    played(OrchestratorTask(pipeline=shop(tmp_path, a=GOOD, b=BAD)))
    events = played(OrchestratorTask(pipeline=shop(tmp_path, b=GOOD), is_retry=True))
    assert {name: each.attempt for name, each in ended(events).items()} == {"a": 1, "b": 2}
    assert result_of(events).raise_for_status().run_id == 1
    assert (rows(tmp_path, "a"), rows(tmp_path, "b")) == (2, 2)  # of two appends of `a` there would be 4
    assert (tmp_path / "note.py.log").read_text().split("\n")[:-1] == ["a 1", "b 2"]


def test_a_retry_of_a_run_that_failed_before_its_first_stream_takes_the_streams_of_the_task(tmp_path: Path) -> None:
    played(OrchestratorTask(pipeline=shop(tmp_path, a=GOOD, b=GOOD)))
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.csv").unlink()
    task = OrchestratorTask(pipeline=shop(tmp_path, trigger="u"), streams=["b"])
    assert result_of(played(task)).status == "failure"
    events = played(replace(task, pipeline=shop(tmp_path, trigger="u", a=GOOD, b=GOOD), is_retry=True))
    assert (list(ended(events)), result_of(events).run_id) == (["b"], 2)
    assert (rows(tmp_path, "a"), rows(tmp_path, "b")) == (2, 4)


def test_a_retry_of_a_full_refresh_reads_what_is_left_from_scratch(tmp_path: Path) -> None:
    played(OrchestratorTask(pipeline=shop(tmp_path, a=GOOD, b=GOOD)))
    task = OrchestratorTask(pipeline=shop(tmp_path, trigger="u", b=BAD), full_refresh=True)
    assert result_of(played(task)).status == "failure"
    events = played(replace(task, pipeline=shop(tmp_path, trigger="u", b=GOOD), is_retry=True))
    assert result_of(events).status == "success"
    assert (rows(tmp_path, "a"), rows(tmp_path, "b")) == (2, 2)


def test_a_retry_of_another_task_is_a_run_of_its_own(tmp_path: Path) -> None:
    played(OrchestratorTask(pipeline=shop(tmp_path, a=GOOD, b=BAD)))
    events = played(OrchestratorTask(pipeline=shop(tmp_path, trigger="other", b=GOOD), is_retry=True))
    assert result_of(events).run_id == 2
    assert rows(tmp_path, "a") == 4


def test_a_try_that_had_succeeded_is_not_repeated_unless_a_person_orders_it_anew(tmp_path: Path) -> None:
    task = OrchestratorTask(pipeline=shop(tmp_path, a=GOOD), is_retry=True)
    played(replace(task, is_retry=False))
    events = played(task)
    assert (result_of(events).run_id, result_of(events).status) == (1, "success")
    assert ended(events)["a"].figures["records"] == 2
    assert rows(tmp_path, "a") == 2
    assert result_of(played(replace(task, order_key="2"))).run_id == 2
    assert rows(tmp_path, "a") == 4


def test_an_order_that_fails_and_is_given_anew_goes_on_with_its_run_once(tmp_path: Path) -> None:
    played(OrchestratorTask(pipeline=shop(tmp_path, a=GOOD, b=BAD)))
    cleared = OrchestratorTask(pipeline=shop(tmp_path, b=GOOD), is_retry=True, order_key="2")
    for attempt in (2, 2):
        assert {name: each.attempt for name, each in ended(played(cleared)).items()} == {"a": 1, "b": attempt}
    assert (rows(tmp_path, "a"), rows(tmp_path, "b")) == (2, 2)


def test_a_retry_after_the_run_of_another_does_what_is_left_in_a_run_of_its_own(tmp_path: Path) -> None:
    played(OrchestratorTask(pipeline=shop(tmp_path, a=GOOD, b=BAD)))
    assert (
        result_of(played(OrchestratorTask(pipeline=shop(tmp_path, trigger="other", b=GOOD), streams=["b"]))).run_id == 2
    )
    task = OrchestratorTask(pipeline=shop(tmp_path), is_retry=True)
    for _ in range(2):
        events = played(task)
        assert (result_of(events).run_id, result_of(events).status) == (3, "success")
    assert (rows(tmp_path, "a"), rows(tmp_path, "b")) == (2, 4)


def test_a_try_that_had_succeeded_is_known_after_the_run_of_another(tmp_path: Path) -> None:
    task = OrchestratorTask(pipeline=shop(tmp_path, a=GOOD), is_retry=True)
    played(replace(task, is_retry=False))
    played(OrchestratorTask(pipeline=shop(tmp_path, trigger="other")))
    events = played(task)
    assert (result_of(events).run_id, result_of(events).status) == (1, "success")
    assert ended(events)["a"].run_id == 1
    assert rows(tmp_path, "a") == 4


@pytest.mark.full
@pytest.mark.parametrize(
    ("place", "attempts"),
    [
        ("stream.after_commit:1", {"a": 1, "b": 2}),  # `a` is committed and not closed: the ledger decides
        ("stream.before_take_over:2", {"a": 1, "b": 2}),
        ("store.finish_run.before:1", {"a": 1, "b": 1}),  # all is done, but the task does not know
        ("store.finish_run.after:1", {"a": 1, "b": 1}),
    ],
)
def test_a_killed_try_is_finished_by_the_next_one(tmp_path: Path, place: str, attempts: dict[str, int]) -> None:
    task = OrchestratorTask(pipeline=shop(tmp_path, a=GOOD, b=GOOD), is_retry=True)
    code = (
        "import sys; from syncblocks import load_pipeline; from syncblocks.sync.integrations.task_run import *;"
        "[print(event) for event in events_of(OrchestratorTask(pipeline=load_pipeline(sys.argv[1], trigger='t')))]"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "shop.yaml"],
        env={**os.environ, "SYNCBLOCKS_FAILPOINT": f"{place}:kill"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    events = played(task)
    assert {name: each.attempt for name, each in ended(events).items()} == attempts
    assert result_of(events).raise_for_status().run_id == 1
    assert (rows(tmp_path, "a"), rows(tmp_path, "b")) == (2, 2)
    assert sorted((tmp_path / "note.py.log").read_text().split("\n")[:-1]) == ["a 1", f"b {attempts['b']}"]


def many(folder: Path) -> Pipeline:
    return shop(folder, **{f"s{number:02}": GOOD for number in range(40)})


def until_the_first_end(events: Iterator[Event]) -> None:
    for event in events:
        if isinstance(event, Ended):
            return


def test_an_interrupted_task_ends_its_run_as_cancelled_first(tmp_path: Path) -> None:
    pipeline = many(tmp_path)
    with closing(events_of(OrchestratorTask(pipeline=pipeline))) as events:
        until_the_first_end(events)
    run = latest(pipeline)
    assert (run.status, run.is_active) == ("cancelled", False)
    assert not [thread for thread in threading.enumerate() if thread.name == "syncblocks"]


def test_a_signal_that_is_handed_over_ends_the_run_as_cancelled(tmp_path: Path) -> None:
    task = OrchestratorTask(pipeline=many(tmp_path))
    events: list[Event] = []
    for event in events_of(task):
        events.append(event)
        if isinstance(event, Ended):
            task.signals.append(signal.SIGTERM)
    result = result_of(events)
    assert (result.status, result.signal) == ("cancelled", signal.SIGTERM)
    assert result.never_started
    assert not latest(task.pipeline).is_active


def test_a_mistake_in_the_file_is_raised_to_the_task(tmp_path: Path) -> None:
    from syncblocks.sync.errors import ConfigError

    with pytest.raises(ConfigError, match="did you mean 'orders'"):
        played(OrchestratorTask(pipeline=shop(tmp_path, orders=GOOD), streams=["order"]))


def test_callbacks_that_are_left_are_a_warning(tmp_path: Path) -> None:
    pipeline = shop(tmp_path, a=GOOD)
    (tmp_path / "note.py").write_text("@callback\ndef note(**kwargs): raise ValueError('no')\n")
    document: dict[str, Any] = json.loads((tmp_path / "shop.yaml").read_text())
    document["callbacks"][0]["attempts"] = 1
    (tmp_path / "shop.yaml").write_text(json.dumps(document))
    events = played(OrchestratorTask(pipeline=load_pipeline(pipeline.given)))
    assert any(isinstance(event, Said) and "ValueError: no" in event.text for event in events)
    assert "1 dead" in leftover(result_of(events))
    result_of(events).raise_for_status()


def test_the_log_of_the_task_has_what_callbacks_print_with_secrets_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNCBLOCKS_SECRET_TOKEN", "s3cr3t-t0ken")
    pipeline = shop(tmp_path, a=GOOD)
    (tmp_path / "note.py").write_text(
        "import sys\n@callback\ndef note(stream, token, **kwargs):\n"
        "    print('loaded', stream)\n    print('with', token, file=sys.stderr)\n    raise ValueError(token)\n"
    )
    document: dict[str, Any] = json.loads((tmp_path / "shop.yaml").read_text())
    document["callbacks"][0]["attempts"] = 1
    document["variables"] = {"token": "{{ secret('TOKEN') }}"}
    (tmp_path / "shop.yaml").write_text(json.dumps(document))
    pipeline = load_pipeline(pipeline.given)

    def logged(events: Iterator[Event]) -> list[tuple[int, str]]:
        lines = [(event.level, event.text) for event in events if isinstance(event, Said) and "note" in event.text]
        assert "s3cr3t-t0ken" not in str(lines)
        return lines

    printed = [(logging.INFO, f"[note export_sqlite:a] {line}") for line in ("loaded a", "with ***")]
    *lines, (level, error) = logged(events_of(OrchestratorTask(pipeline=pipeline)))
    assert lines == printed
    assert level == logging.WARNING
    assert "ValueError: ***" in error

    run = open_run(pipeline)
    sync_stream(pipeline, run.id, "a")
    *lines, _ = logged(events_while(lambda progress: finish_run(pipeline, run.id, progress=progress), []))
    assert lines == printed


def test_a_trigger_id_has_only_characters_of_a_partition() -> None:
    assert trigger_of("airflow", "a/b", "scheduled__2026-01-01T00:00:00+00:00") == (
        "airflow-a_b-scheduled__2026-01-01T00:00:00+00:00"
    )


@pytest.mark.parametrize("fails", [False, True])
def test_work_that_has_ended_gets_no_signal_while_its_thread_is_still_there(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = threading.Event()

    class Lingering(threading.Thread):
        def run(self) -> None:
            super().run()
            may_end.wait()

    def work(progress: Any) -> RunResult:
        if fails:
            raise KeyError("gone")
        return RunResult(run_id=1, pipeline="shop", status="success")

    monkeypatch.setattr(threading, "Thread", Lingering)
    signals: list[int] = []  # the next try of a task has the same list
    events = events_while(work, signals)
    if fails:
        with pytest.raises(KeyError, match="gone"):
            next(events)
    else:
        assert [event.status for event in events if isinstance(event, RunResult)] == ["success"]
    assert signals == []
    may_end.set()
