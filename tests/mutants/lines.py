"""Records which test executes which line, and the seconds that each test takes, in all processes of a session.

This module is a pytest plugin (`-p tests.mutants.lines`). A `.pth` file of the environment imports it in each child
process. A process writes its lines when it exits, so the lines of a killed process are not recorded.
"""

from __future__ import annotations

import atexit
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest

from tests.mutants import LINES_FOLDER, WORKER

ROOT = Path(__file__).parents[2]
PACKAGES = ("sync", "connectors", "callbacks")


class _Recorder:
    """Lines that this process executes between `begin` and `end`."""

    def __init__(self) -> None:
        self._coverage: coverage.Coverage | None = None

    def begin(self) -> None:
        self._coverage = coverage.Coverage(
            data_file=None, config_file=False, source=[str(ROOT / package) for package in PACKAGES], messages=False
        )
        self._coverage.set_option("run:disable_warnings", ["no-data-collected", "module-not-imported", "not-measured"])
        self._coverage.start()
        atexit.unregister(self._coverage._atexit)  # it would write the lines into a file of its own

    def end(self, test: str, cost: float | None = None) -> None:
        """Append the executed lines to the file of this process."""
        if self._coverage is None:
            return
        self._coverage.stop()
        data, self._coverage = self._coverage.get_data(), None
        lines = {str(Path(file).relative_to(ROOT)): sorted(data.lines(file) or ()) for file in data.measured_files()}
        record = {"test": test, "cost": cost, "lines": {file: found for file, found in lines.items() if found}}
        with Path(os.environ[LINES_FOLDER], f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(record) + "\n")


_RECORDER = _Recorder()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    """Record a test with its fixtures. A child process that starts during the test reads its name from a file."""
    os.environ[WORKER] = str(os.getpid())
    _file_of_test().write_text(item.nodeid, encoding="utf-8")
    start = time.monotonic()
    _RECORDER.begin()
    try:
        return (yield)
    finally:
        _RECORDER.end(item.nodeid, time.monotonic() - start)


def follow() -> None:
    """Record this child process and the processes that are forked from it."""
    os.register_at_fork(after_in_child=_begin_child)
    _begin_child()


def _begin_child() -> None:
    test = _file_of_test().read_text(encoding="utf-8")
    _RECORDER.begin()
    atexit.register(_RECORDER.end, test)


def _file_of_test() -> Path:
    return Path(os.environ[LINES_FOLDER], f"{os.environ[WORKER]}.test")
