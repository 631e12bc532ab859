"""What a process of the command line, or of a worker, does with its memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

CHILD = "syncblocks.sync.run.executors.worker.child"
#: As where a user has asked for core dumps.
DUMPS = (
    "import resource\nhard = resource.getrlimit(resource.RLIMIT_CORE)[1]\n"
    "resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))\n"
)


def test_a_crash_of_the_command_line_writes_no_core(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom syncblocks.sync import cli\nsys.argv = ['syncblocks', '--version']\n"
        "cli._leave = sys.exit\n"
        "try: cli.main()\nexcept SystemExit: print(resource.getrlimit(resource.RLIMIT_CORE)[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", DUMPS + code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.splitlines()[-1] == "0"


def test_a_crash_of_a_worker_writes_no_core(tmp_path: Path) -> None:
    code = f"{DUMPS}import runpy\nrunpy.run_module({CHILD!r}, run_name='__main__')"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write('{"release": true}\n')
        child.stdin.flush()
        assert json.loads(child.stdout.readline()) == {"released": True}
        assert psutil.Process(child.pid).rlimit(psutil.RLIMIT_CORE)[0] == 0
        child.stdin.close()


def test_garbage_is_looked_for_late_the_first_time_only() -> None:
    code = (
        "import gc; from syncblocks.sync.own_process import set_up_process; set_up_process();"
        "before = gc.get_threshold()[0];"
        "kept = [[] for _ in range(before + 1)]; print(before, gc.get_threshold()[0], len(gc.callbacks))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["250000", "50000", "0"]


@pytest.mark.parametrize(("said", "expected"), [({}, 1), ({"OPENBLAS_NUM_THREADS": "2"}, 2)])
def test_numpy_starts_no_threads_unless_the_user_asks_for_them(said: dict[str, str], expected: int) -> None:
    code = (
        "from syncblocks.sync.own_process import set_up_process; set_up_process()\n"
        "import numpy, psutil; print(psutil.Process().num_threads())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"} | said
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) == expected
