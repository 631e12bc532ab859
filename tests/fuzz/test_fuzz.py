"""Whatever is damaged in what comes from outside ends in values or in an error: never in a crash, never in a hang.

`SYNCBLOCKS_FUZZ_S` is how long all fuzzers together take: 120 s, an hour in the full set of faults.
"""

from __future__ import annotations

import os
import queue
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from tests.fuzz.conftest import TRIES
from tests.fuzz.loop import FUZZERS
from tests.fuzz.mysql_answers import recorded

pytestmark = pytest.mark.full

ROOT = Path(__file__).parents[2]
IS_FULL = os.environ.get("SYNCBLOCKS_FAULTS") == "full"
BUDGET_S = float(os.environ.get("SYNCBLOCKS_FUZZ_S") or (3600 if IS_FULL else 120))
#: A change is judged by what it changed: other damage each time is for the full set.
CI_SEED = 20_000_000
#: One try, on a machine that is busy with other tests; the first one imports everything.
HANG_S, START_S = 30.0, 90.0


@pytest.mark.timeout(BUDGET_S + START_S + HANG_S)
@pytest.mark.parametrize("name", FUZZERS)
def test_what_is_damaged_ends_in_values_or_in_an_error(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    prepared = ""
    if name == "mysql_packets":
        prepared = str(tmp_path / "recorded")
        Path(prepared).write_bytes(msgspec.msgpack.encode(recorded(request.getfixturevalue("mariadb_url"))))
    elif name == "postgres_copy":
        prepared = request.getfixturevalue("postgres_url")
    seed = random.SystemRandom().randrange(1 << 30) if IS_FULL else CI_SEED
    tries = fuzzed(name, seed, BUDGET_S / len(FUZZERS), prepared)
    request.node.user_properties.append((TRIES, tries))


def fuzzed(name: str, seed: int, seconds: float, prepared: str) -> int:
    """Run one fuzzer; return how often it tried, and fail where it crashed or hangs."""
    command = [sys.executable, "-m", "tests.fuzz.loop", name, str(seed), str(seconds), prepared]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    said: queue.Queue[str] = queue.Queue()
    errors: list[str] = []

    def listen() -> None:
        assert child.stdout is not None
        for line in child.stdout:
            said.put(line)
        said.put("")

    assert child.stderr is not None
    threads = [threading.Thread(target=listen), threading.Thread(target=lambda: errors.append(child.stderr.read()))]
    for thread in threads:
        thread.start()
    last, line, wait_s = "", "", START_S
    began = time.monotonic()
    try:
        while line := said.get(timeout=wait_s):
            last, wait_s = line.strip(), HANG_S if line.strip() != str(seed) else START_S
    except queue.Empty:
        child.kill()
        pytest.fail(f"{name}: try {last} hangs: python -m tests.fuzz.loop {name} {last} 0 {prepared}")
    finally:
        child.wait(10)
        for thread in threads:
            thread.join(10)
        child.stdout.close()
        child.stderr.close()
    assert child.returncode == 0, (
        f"{name}: {child.returncode} at try {last}, after {time.monotonic() - began:.0f} s: "
        f"python -m tests.fuzz.loop {name} {last} 0 {prepared}\n{errors[0][-3000:]}"
    )
    return int(last.split()[0])
