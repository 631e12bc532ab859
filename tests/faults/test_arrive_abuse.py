"""What a callback does to its process: the run's data, its block statuses and all other callbacks stay as they are."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import psutil
import pytest

from syncblocks.callbacks.dispatcher import Dispatcher
from tests.callbacks.outbox import MemoryOutbox, delivery
from tests.faults.conftest import Count
from tests.faults.oracle import _flags
from tests.faults.workshop import Workshop, values
from tests.zygote import Zygote

pytestmark = pytest.mark.full

#: Name -> what it does, and whether it counts as a failed call.
ABUSES: dict[str, tuple[str, bool]] = {
    "hang": ("time.sleep(600)", True),
    "spin": ("while True:\n        pass", True),
    "ignored_term": ("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    time.sleep(600)", True),
    "os_exit": ("os._exit(0)", True),
    "sys_exit": ("sys.exit(0)", True),
    "segfault": ("ctypes.string_at(0)", True),
    "out_of_memory": ("bytearray(1 << 62)", True),
    "closed_descriptors": ("os.closerange(0, 200)", True),
    "thread": ("threading.Thread(target=time.sleep, args=(600,)).start()", False),
    "fork": ("os.fork()", False),
    "print": ("for _ in range(100):\n        print('x' * (1 << 20))", False),
    "unpicklable": ("return lambda: threading.Lock()", False),
}
HEAD = "import ctypes, os, signal, sys, threading, time\n"
STATUSES = ("success", "failure", "cancelled")


def abuse_file(name: str) -> str:
    """One function for each status."""
    code, _ = ABUSES[name]
    return HEAD + "".join(f'\n@callback("{status}")\ndef on_{status}(**kwargs):\n    {code}\n' for status in STATUSES)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("abuse", ABUSES)
def test_an_abuse_changes_no_data_no_status_and_no_other_callback(
    zygote: Zygote, folder: Path, abuse: str, injected: Count
) -> None:
    """Four streams end in all three statuses; the last is of each status in turn, and one more of it is not."""
    started = []
    for last in STATUSES:
        ends = [*(status for status in STATUSES if status != last), last, last]
        workshop = _workshop(zygote, folder / last, abuse, ends)
        started.append((workshop, ends, workshop.start()))
    for workshop, ends, process in started:
        assert process.wait(90) == 1, process.log()  # streams have failed, whatever the callbacks did
        assert _wrong(workshop, abuse, ends) == []
        injected(len(ends))


def _workshop(zygote: Zygote, folder: Path, abuse: str, ends: list[str]) -> Workshop:
    workshop = Workshop(zygote, folder, destination="sqlite")
    workshop.source_settings.update({"batch_size": 1, "delay_s": 0.05, "fail_at": {}, "fail_kind": "fatal"})
    for number, status in enumerate(ends):
        name, settings = f"s{number}", {"timeout_s": 0.3} if status == "cancelled" else {}
        workshop.stream(name, 40 if status == "cancelled" else 2, **settings)
        if status == "failure":
            workshop.source_settings["fail_at"][name] = 1
    (folder / "abuse.py").write_text(abuse_file(abuse))
    settings = {"attempts": 1, "timeout_s": 0.3 if abuse in ("hang", "spin", "ignored_term") else 20}
    workshop.document["callbacks"].append({"file": "abuse.py", "on": ["stream"], **settings})
    workshop.document |= {"allow_blocks_to_fail": True, "concurrency": 1, "drain_s": 60}
    workshop.write()
    return workshop


def _wrong(workshop: Workshop, abuse: str, ends: list[str]) -> list[str]:
    found = list(_flags(workshop.store_rows("select * from _syncblocks_block_run")))
    streams = workshop.store_rows("select stream, status from _syncblocks_stream_run order by stream")
    if [row["status"] for row in streams] != ends:
        found.append(f"streams ended as {streams} instead of {ends}")
    for name, status in zip(workshop.tables, ends, strict=True):
        if status == "success" and workshop.rows(name) != values(workshop.tables[name]["records"]):
            found.append(f"table {name} is not its source")
    rows = workshop.store_rows("select callback_block, state, count(*) as n from _syncblocks_delivery group by 1, 2")
    states = {(row["callback_block"], row["state"]): row["n"] for row in rows}
    # Source, destination and stream of each of the four, and the pipeline.
    if states != {("recorder", "done"): 13, ("abuse", "dead" if ABUSES[abuse][1] else "done"): 4}:
        found.append(f"deliveries: {states}")
    if {call["status"] for call in workshop.calls()} != set(STATUSES) or len(workshop.calls()) != 13:
        found.append(f"the other callback was told {workshop.calls()}")
    return found


@pytest.mark.timeout(300)
def test_1000_calls_let_neither_descriptors_nor_memory_of_the_engine_grow(tmp_path: Path) -> None:
    (tmp_path / "calls.py").write_text(
        HEAD + "\n@callback\ndef good(**kwargs):\n    print('x' * 5000)\n"
        "\n@callback\ndef exits(**kwargs):\n    os._exit(0)\n"
    )
    box, done = MemoryOutbox(), threading.Semaphore(0)
    dispatcher = Dispatcher(box, ["calls"], on_outcome=lambda *_: done.release())
    dispatcher.start()
    process = psutil.Process()
    usage = []
    try:
        for number in range(1, 1201):
            function = "exits" if number % 50 == 0 else "good"
            box.add(delivery(tmp_path / "calls.py", function, block="calls"))
            dispatcher.notify()
            assert done.acquire(timeout=30)
            box.outcomes.clear()
            if number in (200, 1200):
                usage.append((process.num_fds(), process.memory_info().rss, len(process.children())))
    finally:
        dispatcher.close()
    (fds, rss, children), (fds_after, rss_after, children_after) = usage
    assert fds_after <= fds + 2
    assert children_after <= children + 1
    assert rss_after - rss < 4 * 1024 * 1024, f"{rss} -> {rss_after}"
    assert os.getpid() == process.pid
