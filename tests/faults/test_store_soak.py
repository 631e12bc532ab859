"""One SQLite run store under twenty processes at once, some of which are killed: nothing is torn, no lock is lost.

`SYNCBLOCKS_SOAK_S` says how long it goes on, `SYNCBLOCKS_SOAK_SEED` what is drawn.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Count
from tests.faults.workshop import Workshop
from tests.posix_locks import locks, on_linux
from tests.zygote import Process, Zygote

PROCESSES, PIPELINES = 20, 6
FILES = tuple(f"p{number}.yaml" for number in range(PIPELINES))

#: What is started -> how often.
COMMANDS = {
    ("run",): 6,
    ("run", "--wait"): 2,
    ("run", "--retry"): 1,
    ("runs", "list"): 4,
    ("runs", "show"): 2,
    ("runs", "cancel"): 1,
    ("state", "show"): 3,
    ("recover",): 2,
    ("callbacks", "retry"): 2,
    ("callbacks", "list"): 1,
    ("mapped",): 3,
    ("threads",): 3,
}

#: In the output of no process: it is an error of ours, or what a torn file looks like.
_BROKEN = re.compile(r"bug of syncblocks|\"internal\"|malformed|damaged|was torn|IntegrityError|Conflict")


class Soak:
    """Pipelines of one folder and store, and the processes that use them."""

    def __init__(self, zygote: Zygote, folder: Path, seed: str) -> None:
        self.zygote, self.folder = zygote, folder
        self.chance = random.Random(seed)
        self.store = folder / ".syncblocks" / "store.db"
        self.shop = Workshop(zygote, folder, destination="sqlite", store="sqlite")
        for name, disposition in (("added", "append"), ("merged", "merge"), ("replaced", "replace")):
            self.shop.stream(name, 12, write_disposition=disposition)
        self.shop.source_settings.update({"batch_size": 3, "delay_s": 0.01})
        self.shop.document |= {"allow_blocks_to_fail": True}
        for file in FILES:
            self.shop.document["pipeline"] = file[:-5]
            self.shop.document["destination"]["config"]["path"] = f"{file[:-5]}.db"
            self.shop.write()
            (folder / "pipeline.yaml").rename(folder / file)
        self.living: list[tuple[Process, tuple[str, ...]]] = []
        #: Processes that have the store open without a lock -> since when.
        self.lockless: dict[int, float] = {}
        self.found: list[str] = []
        self.started = self.killed = 0
        #: Runs that ended with exit code 0.
        self.succeeded: set[int] = set()

    def start(self) -> None:
        """Start a process."""
        (command,) = self.chance.choices(list(COMMANDS), list(COMMANDS.values()))
        file = self.chance.choice(FILES)
        if command[0] in ("mapped", "threads"):
            process = self.zygote.start_module(self.folder, "tests.faults.store_user", *command, file)
        else:
            words = command[:2] if command[0] in ("runs", "state", "callbacks") else command[:1]
            process = self.zygote.start(self.folder, (*words, file, *command[len(words) :]))
        self.living.append((process, (*command, file)))
        self.started += 1

    def step(self) -> None:
        """Let the processes go on for a moment, perhaps kill one, and look at those that have ended."""
        until = time.monotonic() + self.chance.uniform(0.0, 0.05)
        self.zygote.read_until(lambda: time.monotonic() >= until, 0.05)
        if self.chance.random() < 0.4:
            self.chance.choice(self.living)[0].signal(signal.SIGKILL)
        self.look()

    def look(self) -> None:
        """Take the processes out that have ended; find what they should not have said, and locks that are lost."""
        for each in list(self.living):
            process, arguments = each
            if process.has_ended():
                self.living.remove(each)
                self._ended(process, arguments)
            elif not self._has_no_lock(process.pid):
                self.lockless.pop(process.pid, None)
            # It may be opening or closing the file just now.
            elif time.monotonic() - self.lockless.setdefault(process.pid, time.monotonic()) > 5:
                self.found.append(f"{arguments}: process {process.pid} has the store open, and no lock on it")

    def _has_no_lock(self, pid: int) -> bool:
        try:
            held = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
            if f"{self.store}-wal (deleted)" in held:
                return True
            return str(self.store) in held and not locks(self.store, pid)
        except OSError:  # it, or one of its files, is gone
            return False

    def _ended(self, process: Process, arguments: tuple[str, ...]) -> None:
        log = process.log()
        if process.code == -signal.SIGKILL:
            self.killed += 1
        elif process.code not in (0, 1, 2, 3, 130):
            self.found.append(f"{arguments} ended with {process.code}: {log[-2000:]}")
        wrong = _BROKEN.search(log)
        if wrong is None and arguments[0] in ("mapped", "threads"):  # others say where each refusal comes from
            wrong = re.search("Traceback", log)
        if wrong:
            self.found.append(f"{arguments} said {wrong[0]}: {log[max(0, wrong.start() - 300) : wrong.start() + 3000]}")
        if arguments[0] == "run" and process.code == 0:
            self.succeeded.add(process.result()["run_id"])
        for suffix in (".out", ".err"):
            process.output.with_suffix(suffix).unlink(missing_ok=True)

    def end(self) -> None:
        """Wait for all, end what the killed ones have left, and look at the store."""
        while self.living:
            self.living[0][0].wait(90)
            self.look()
        for words in (("recover",), ("callbacks", "retry"), ("runs", "list")):
            for file in FILES:
                process = self.zygote.start(self.folder, (*words, file))
                process.wait(90)
                self._ended(process, (*words, file))
        rows = self.shop.store_rows
        whole = [row["integrity_check"] for row in rows("pragma integrity_check")]
        self.found += [] if whole == ["ok"] else [f"integrity_check: {whole[:5]}"]
        for table, open_ in (
            ("pipeline_run", "is_active"),
            ("attempt", "status = 'running' or open_streams > 0"),
            ("stream_run", "status = 'running'"),
            ("block_run", "status = 'running' or is_last is null"),
            ("delivery", "is_open"),
        ):
            self.found += [
                f"{table} is open: {row}" for row in rows(f"select * from _syncblocks_{table} where {open_}")
            ]
        self.found += [
            f"a stream has ended more than once: {row}"
            for row in rows(
                "select run_id, attempt, stream, count(*) as n from _syncblocks_event where parent = 'stream' and "
                "status in ('success', 'failure', 'cancelled') group by 1, 2, 3 having n > 1"
            )
        ]
        known = {row["run_id"] for row in rows("select run_id from _syncblocks_attempt where status = 'success'")}
        self.found += [f"runs ended well, and the store does not know it: {self.succeeded - known}"] * bool(
            self.succeeded - known
        )


@on_linux
@pytest.mark.full
@pytest.mark.timeout(0)
def test_a_run_store_that_twenty_processes_use_is_whole(
    zygote: Zygote, folder: Path, killed_at_random: Count, is_full: bool
) -> None:
    seconds = float(os.environ.get("SYNCBLOCKS_SOAK_S", "600" if is_full else "4"))
    seed = os.environ.get("SYNCBLOCKS_SOAK_SEED") or str(random.randrange(10**9))
    soak = Soak(zygote, folder, seed)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and not soak.found:
        while len(soak.living) < PROCESSES:
            soak.start()
        soak.step()
    soak.end()
    killed_at_random(soak.killed)
    sys.stdout.write(f"SYNCBLOCKS_SOAK_SEED={seed}: {soak.started} processes, {soak.killed} of them killed\n")
    assert not soak.found, "\n".join((f"SYNCBLOCKS_SOAK_SEED={seed}", *soak.found))
    assert soak.succeeded
