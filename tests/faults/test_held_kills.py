"""Tasks of a held run are killed at every kind of place, and tried again as an orchestrator does."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Count
from tests.faults.held_steps import LATER
from tests.faults.oracle import violations
from tests.faults.workshop import Workshop
from tests.zygote import Zygote

pytestmark = pytest.mark.full

INCREMENTAL = {"replication_method": "INCREMENTAL", "bookmark_properties": ["t"]}
STREAMS = ("full", "added", "merged", "replaced")
#: Around the claim, the token, the commits and the close of a task; each round takes the next ones, a task each.
IN_TASKS = (
    "store.claim_own.inside:1",
    "store.claim_own.after:1",
    "stream.before_take_over:1",
    "stream.after_take_over:1",
    "stream.after_commit:1",
    "stream.after_commit:2",
    "store.close.inside:1",
    "store.close.after:1",
)
#: Of the tries after those: the next attempt, and the end of what a dead task has left.
IN_RETRIES = (
    "store.take_dead.after:1",
    "store.begin_retry.inside:1",
    "store.begin_retry.after:1",
    "store.close.after:1",
)
IN_OPEN = ("store.begin_run.after:1", "store.hold_run.after:1")
IN_FINISH = ("store.take_over.after:1", "store.end_attempt.after:1", "store.finish_run.before:1")


class Orchestra:
    """Runs the steps of a held run, each in a process of its own, and repeats those that die or fail."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self.kills = 0

    def step(self, *names: str, failpoint: str = "") -> tuple[int, str]:
        """Run a step; return exit code and output."""
        done = self.workshop.zygote.module(
            "tests.faults.held_steps",
            str(self.workshop.folder),
            *names,
            failpoint=f"{failpoint}:kill" if failpoint else "",
        )
        assert done.returncode in (0, 1, LATER, -signal.SIGKILL), done.stderr[-3000:]
        self.kills += done.returncode == -signal.SIGKILL
        return done.returncode, done.stdout

    def sure(self, *names: str, failpoint: str) -> str:
        """Run a step that may be killed until it has succeeded."""
        code, output = self.step(*names, failpoint=failpoint)
        if code:
            code, output = self.step(*names)
        assert code == 0
        return output

    def play(self, in_open: str, in_tasks: tuple[str, ...], in_retries: Iterator[str], in_finish: str) -> None:
        """A run in which each step is killed once; a stream's second and later tries wait for their turn."""
        opened = json.loads(self.sure("open", failpoint=in_open))
        run, left = str(opened["run"]), []
        for name, place in zip(opened["streams"], in_tasks, strict=True):
            if self.step("stream", run, name, failpoint=place)[0]:
                left.append(name)
        for _ in range(12):
            left = [name for name in left if self.step("retry", run, name, failpoint=next(in_retries, ""))[0]]
        assert left == []
        self.sure("finish", run, failpoint=in_finish)


@pytest.mark.timeout(0)
@pytest.mark.parametrize(("destination", "store", "first"), [("sqlite", "sqlite", 0), ("postgres", "postgres", 1)])
def test_a_killed_task_loses_no_record_and_its_retry_is_an_attempt_over_its_stream_alone(
    zygote: Zygote,
    folder: Path,
    postgres_url: str,
    destination: str,
    store: str,
    first: int,
    injected: Count,
    is_full: bool,
) -> None:
    workshop = Workshop(zygote, folder, destination=destination, store=store, url=postgres_url)
    workshop.document |= {"allow_blocks_to_fail": True, "concurrency": "auto"}
    workshop.source_settings.update({"checkpoint_records": 4})
    workshop.stream("full", 6, write_disposition="append")
    workshop.stream("added", 9, write_disposition="append", **INCREMENTAL)
    workshop.stream("merged", 9, write_disposition="merge", **INCREMENTAL)
    workshop.stream("replaced", 6, write_disposition="replace")
    orchestra = Orchestra(workshop)
    rounds = 12 if is_full else 1
    for number in range(first, first + rounds):
        for name in ("added", "merged", "replaced"):
            workshop.grow(name, 5)
        workshop.write()
        turn = [IN_TASKS[(4 * number + place + number // 2) % len(IN_TASKS)] for place in range(len(STREAMS))]
        in_retries = iter(IN_RETRIES[number % 2 :])
        orchestra.play(IN_OPEN[number % 2], tuple(turn), in_retries, IN_FINISH[number % 3])
        assert violations(workshop, kills=orchestra.kills) == []
        of_run = (
            f"select attempt, count(*) as n from _syncblocks_stream_run where run_id = {number + 1 - first} group by 1"
        )
        streams = {row["attempt"]: row["n"] for row in workshop.store_rows(of_run)}
        assert streams.pop(1) == len(STREAMS)
        assert set(streams.values()) <= {1}
    injected(orchestra.kills)
    # Now and then a task ends before its kill comes.
    assert orchestra.kills >= 7 * rounds - rounds // 4
