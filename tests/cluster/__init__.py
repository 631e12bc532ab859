"""A Dask cluster for tests: a scheduler and workers with nannies, in processes of their own that may be killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import distributed
import psutil


class Cluster:
    """A scheduler with workers; `close` ends all of them."""

    def __init__(self, workers: int, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.main", str(workers)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        assert self.address.startswith("tcp://"), "the cluster did not start"

    def ask(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Call a function on each worker."""
        with distributed.Client(self.address, set_as_default=False) as client:
            return dict(client.run(function, *arguments))

    def scheduler(self, function: Callable[..., Any]) -> Any:
        """Call a function in the scheduler."""
        with distributed.Client(self.address, set_as_default=False) as client:
            return client.run_on_scheduler(function)

    def logs(self) -> list[Any]:
        """Return the logs of scheduler and workers."""
        with distributed.Client(self.address, set_as_default=False) as client:
            return [client.get_scheduler_logs(), client.get_worker_logs(), client.get_worker_logs(nanny=True)]

    @contextmanager
    def another_worker(self) -> Iterator[None]:
        """Let another worker join, whose environment is that of the test."""
        command = [sys.executable, "-m", "dask", "worker", self.address, "--nthreads", "1", "--no-dashboard"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                yield
            finally:
                process.terminate()

    def children(self, word: str) -> list[psutil.Process]:
        """Return the processes of the cluster whose command line holds a word."""
        return [each for each in self._all() if word in " ".join(_command(each))]

    def workers(self) -> list[psutil.Process]:
        """Return the processes of the workers."""
        return [each for each in self._all() if "spawn_main" in " ".join(_command(each))]

    def is_idle(self) -> bool:
        """Whether no worker runs anything."""
        with distributed.Client(self.address, set_as_default=False) as client:
            return not any(client.processing().values())

    def _all(self) -> list[psutil.Process]:
        return psutil.Process(self._process.pid).children(recursive=True)

    def close(self) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
