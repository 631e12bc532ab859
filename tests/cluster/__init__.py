"""A Dask cluster for tests: a scheduler and workers with nannies, in processes of their own that may be killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import distributed
import psutil


class Cluster:
    """A scheduler with workers; `close` ends all of them."""

    def __init__(self, workers: int, *, said: Path | None = None, **environment: str) -> None:
        """Start it; what its processes say goes to a file, and the environment has more variables."""
        self._said, self._environment = said, environment
        self._processes: list[subprocess.Popen[str]] = []
        self.address = self._start("main", str(workers))

    def _start(self, module: str, *arguments: str, enter: Sequence[str] = ()) -> str:
        """Start a module of this folder; return the address that it prints."""
        with Path(self._said or os.devnull).open("a") as said:
            process = subprocess.Popen(
                [*enter, sys.executable, "-m", f"tests.cluster.{module}", *arguments],
                cwd=Path(__file__).parents[2],
                env={**os.environ, **self._environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if self._said is None else said,
                text=True,
            )
        self._processes.append(process)
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("tcp://"), "the cluster did not start"
        return address

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
        return [child for each in self._processes for child in psutil.Process(each.pid).children(recursive=True)]

    def close(self) -> None:
        for process in reversed(self._processes):  # workers before their scheduler
            with process:
                assert process.stdin is not None
                process.stdin.close()
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()


class ClusterApart(Cluster):
    """A scheduler here, and one worker with its nanny in a network namespace."""

    def __init__(self, enter: Sequence[str], *, here: str, there: str, said: Path, **environment: str) -> None:
        """Start both; `enter` runs a command in the namespace, the wire leads from `here` to `there`."""
        self._said, self._environment = said, environment
        self._processes = []
        self.address = self._start("apart", "scheduler", here)
        self._start("apart", "worker", there, self.address, enter=enter)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
