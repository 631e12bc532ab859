"""A process that has imported everything and forks one engine a request: a start costs milliseconds, not a second.

It has no thread and no connection, so that what it forks is as good as freshly started; only what a plain run imports
is to be seen in a process of its own. The tests' side is `Zygote`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

REPOSITORY = Path(__file__).parents[1]
#: The installed command.
SCRIPT = Path(sys.executable).with_name("syncblocks")

#: What a run imports on its way; a connector whose driver is missing is left out.
MODULES = (
    "syncblocks.sync.cli",
    "syncblocks.sync.cli.run",
    "syncblocks.sync.cli.progress_lines",
    "syncblocks.sync.cli.logs",
    "syncblocks.sync.cli.callbacks",
    "syncblocks.sync.cli.check",
    "syncblocks.sync.cli.plan",
    "syncblocks.sync.cli.runs",
    "syncblocks.sync.cli.state",
    "syncblocks.sync.cli.status",
    "syncblocks.sync.freshness",
    "syncblocks.sync.session.inspection",
    "syncblocks.sync.run.pipeline",
    "syncblocks.sync.store.migrations",
    "syncblocks.callbacks.kwargs",
    "syncblocks.callbacks.loader",
    "syncblocks.connectors.memory",
    "syncblocks.connectors.duckdb",
    "syncblocks.connectors.sqlite",
    "syncblocks.connectors.files.csv_source",
    "syncblocks.connectors.files.json_source",
    "syncblocks.connectors.files.jsonl_source",
    "syncblocks.connectors.files.parquet_source",
    "syncblocks.connectors.files.destination",
    "syncblocks.connectors.mysql.source",
    "syncblocks.connectors.mysql.destination",
    "syncblocks.connectors.postgres.source",
    "syncblocks.connectors.postgres.destination",
    "syncblocks.connectors.postgres.log.reading",
    "syncblocks.connectors.postgres.adbc_session",
    "syncblocks.connectors.singer.source",
    "syncblocks.connectors.singer.target",
    "syncblocks.connectors.singer.as_tap",
    "syncblocks.connectors.singer.as_target",
    "syncblocks.connectors.sqlalchemy.source",
    "syncblocks.connectors.sqlalchemy.destination",
    "pyarrow.json",
    "adbc_driver_postgresql.dbapi",
    "adbc_driver_sqlite.dbapi",
    "asyncpg",
    "psycopg",
    "sqlalchemy.dialects.sqlite",
    "distributed",
    "tests.faults.broken",
)


@dataclass
class Process:
    """One engine; `code` is minus the signal that killed it."""

    zygote: Zygote
    pid: int
    #: `.out` and `.err` of it are what it has printed.
    output: Path
    started: float
    code: int | None = None

    def wait(self, timeout_s: float = 40.0) -> int:
        """Wait for its end."""
        self.zygote.read_until(lambda: self.code is not None, timeout_s)
        if self.code is None:
            self.signal(signal.SIGABRT)  # with faulthandler: says in the log where every thread is
            self.zygote.read_until(lambda: self.code is not None, 5.0)
            raise AssertionError(f"still running after {timeout_s} s:\n{self.log()[-20000:]}")
        return self.code

    def has_ended(self) -> bool:
        self.zygote.read_until(lambda: True, 0.0)
        return self.code is not None

    def signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if not self.has_ended():
            # It may end between the look and the signal.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """`kill -9`, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self.wait()

    def log(self) -> str:
        """Return what it has printed."""
        paths = [self.output.with_suffix(suffix) for suffix in (".out", ".err")]
        return "".join(path.read_text(errors="replace") for path in paths if path.exists())

    def result(self) -> dict[str, Any]:
        """Return the result that `--json` printed; empty if it printed none."""
        path = self.output.with_suffix(".out")
        lines = path.read_text().splitlines() if path.exists() else []
        found = [document for line in lines if (document := json.loads(line)).get("type") in ("result", "error")]
        return found[-1] if found else {}


class Zygote:
    """The tests' side: starts engines and learns how they end. Used by one thread."""

    def __init__(self) -> None:
        # As `syncblocks` sets it for itself before it imports Arrow.
        pool = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
        self._environment = {**os.environ, **pool, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            env=self._environment,
        )
        self.pid = self._server.pid
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._out = self._server.stdout.fileno()
        self._unread = b""
        #: Of the request that is under way; its end may come in one message with its start.
        self._started: Process | None = None
        self._is_ready = False
        self._processes: dict[int, Process] = {}
        self._count = 0
        self.read_until(lambda: self._is_ready, 60.0)

    def start(
        self,
        folder: Path,
        arguments: Sequence[str] = ("run", "pipeline.yaml"),
        *,
        failpoint: str = "",
        trace: Path | None = None,
        broken: str | None = None,
        environment: Mapping[str, str] | None = None,
        constants: Mapping[str, float] | None = None,
    ) -> Process:
        """Start `syncblocks ARGUMENTS` in a folder.

        Args:
            folder: Its working folder; `run-N.out` and `run-N.err` are written there.
            arguments: Of the command line; `--json` and `--debug` are added.
            failpoint: `name:hit:action`.
            trace: File to which every failpoint reached is appended.
            broken: Name of a deliberately broken engine (`tests.faults.broken`).
            environment: Variables to add.
            constants: `module.NAME` -> another value for this process, where the usual one would take too long.
        """
        self._count += 1
        return self._fork(
            {
                "folder": str(folder),
                "output": str(folder / f"run-{self._count}"),
                "arguments": [*arguments, "--json", "--debug"],
                "failpoint": failpoint,
                "trace": "" if trace is None else str(trace),
                "broken": broken,
                "environment": {**self._environment, **(environment or {})},
                "constants": dict(constants or {}),
            }
        )

    def command(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        *,
        stdin: str = "",
        timeout_s: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run `syncblocks ARGUMENTS` to its end as `subprocess.run` does, with this environment and no other."""
        request = {"folder": str(folder), "arguments": list(arguments), "environment": dict(environment)}
        return self._run(request | {"is_command": True}, stdin, timeout_s)

    def module(
        self, name: str, *arguments: str, failpoint: str = "", trace: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m NAME ARGUMENTS` to its end, from the repository's folder."""
        request = {"folder": str(REPOSITORY), "arguments": list(arguments), "environment": self._environment}
        traced = "" if trace is None else str(trace)
        return self._run(request | {"module": name, "failpoint": failpoint, "trace": traced}, "", 60.0)

    def start_module(self, folder: Path, name: str, *arguments: str) -> Process:
        """Start `python -m NAME ARGUMENTS` in a folder."""
        self._count += 1
        output = str(folder / f"run-{self._count}")
        request = {"folder": str(folder), "arguments": list(arguments), "environment": self._environment}
        return self._fork(request | {"module": name, "output": output})

    def _run(self, request: Mapping[str, Any], stdin: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory(prefix="syncblocks-zygote-") as made:
            output = Path(made, "output")
            output.with_suffix(".in").write_text(stdin, encoding="utf-8")
            process = self._fork({**request, "output": str(output)})
            self.read_until(lambda: process.code is not None, timeout_s)
            if process.code is None:
                process.kill()
                raise subprocess.TimeoutExpired(request["arguments"], timeout_s, process.log())
            texts = [output.with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".out", ".err")]
        return subprocess.CompletedProcess(request["arguments"], process.code, *texts)

    def _fork(self, request: Mapping[str, Any]) -> Process:
        assert self._server.stdin is not None
        process = self._started = Process(self, 0, Path(request["output"]), time.monotonic())
        self._server.stdin.write(json.dumps(request).encode() + b"\n")
        self._server.stdin.flush()
        self.read_until(lambda: process.pid != 0, 10.0)
        assert process.pid
        return process

    def close(self) -> None:
        """End the server, and with it whatever it has started that still runs."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(10)
        self._server.stdout.close()

    def read_until(self, is_done: Any, timeout_s: float) -> None:
        """Take in what the server says until something is so; returns at the latest when time is up."""
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            while True:
                wait_s = max(0.0, deadline - time.monotonic())
                while selector.select(0.0):
                    self._take(os.read(self._out, 65536))
                if is_done() or wait_s == 0.0:
                    return
                selector.select(wait_s)

    def _take(self, data: bytes) -> None:
        if not data:
            raise AssertionError("the zygote has died")
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "ready" in message:
                self._is_ready = True
            elif "started" in message:
                assert self._started is not None
                self._started.pid = message["started"]
                self._processes[self._started.pid] = self._started
            else:
                self._processes[message["ended"]].code = message["code"]


# -- the server ------------------------------------------------------------------------------------------------------


def serve() -> None:
    """Answer requests from stdin until it ends; returns in each forked child after its request was prepared."""
    for module in MODULES:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            continue
    # What a child's garbage collector looks at it writes to, and what is written to is no longer shared.
    gc.collect()
    gc.freeze()
    # Descriptors above the standard ones: children close them.
    requests, answers = os.dup(0), os.dup(1)
    wake, waker = os.pipe()
    for fd in (wake, waker):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _say(answers, {"ready": True})
    selector = selectors.DefaultSelector()
    selector.register(requests, selectors.EVENT_READ)
    selector.register(wake, selectors.EVENT_READ)
    children: set[int] = set()
    unread = b""
    while True:
        selector.select()
        _drain(wake)
        for pid, code in _reap():
            children.discard(pid)
            _say(answers, {"ended": pid, "code": code})
        if not selector.select(0):
            continue
        if not any(key.fd == requests for key, _ in selector.select(0)):
            continue
        data = os.read(requests, 65536)
        if not data:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            sys.exit(0)
        *lines, unread = (unread + data).split(b"\n")
        for line in lines:
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                selector.close()
                for fd in (requests, answers, wake, waker):
                    os.close(fd)
                _become(json.loads(line))
            children.add(pid)
            _say(answers, {"started": pid})


def _become(request: dict[str, Any]) -> NoReturn:
    """Be the engine that was asked for, to the very end of the interpreter."""
    import faulthandler

    from syncblocks.connectors import failpoints
    from syncblocks.sync.cli import main

    os.chdir(request["folder"])
    output, flags = request["output"], os.O_CREAT | os.O_WRONLY | os.O_APPEND
    _put(0, f"{output}.in" if Path(f"{output}.in").exists() else os.devnull, os.O_RDONLY)
    _put(1, f"{output}.out", flags)
    _put(2, f"{output}.err", flags)
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    # The module read the environment when the server imported it.
    failpoints._ARMED, failpoints._TRACE = request.get("failpoint", ""), request.get("trace", "")
    failpoints._ON = bool(failpoints._ARMED or failpoints._TRACE)
    if request.get("is_command"):
        while sys.path[0] == str(REPOSITORY):
            del sys.path[0]
        sys.path.insert(0, str(SCRIPT.parent))
    else:
        faulthandler.enable()
    if request.get("broken"):
        from tests.faults import broken

        broken.ENGINES[request["broken"]]()
    for place, value in request.get("constants", {}).items():
        module, _, name = place.rpartition(".")
        setattr(importlib.import_module(module), name, value)
    if "module" in request:
        sys.argv = ["", *request["arguments"]]
        sys.modules.pop(request["module"], None)
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        sys.exit(0)
    sys.argv = [str(SCRIPT), *request["arguments"]]
    sys.exit(main())


def _put(descriptor: int, path: str, flags: int) -> None:
    """Open a file in the place of a standard one."""
    opened = os.open(path, flags, 0o600)
    os.dup2(opened, descriptor)
    os.close(opened)


def _reap() -> list[tuple[int, int]]:
    ended = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, os.waitstatus_to_exitcode(status)))


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        return


def _say(fd: int, message: dict[str, Any]) -> None:
    os.write(fd, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    serve()
