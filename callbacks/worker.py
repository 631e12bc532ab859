"""The code inside of a child process, which runs the functions of one callback block.

Protocol: JSON lines over two pipes of its own, separate from what functions print. The parent sends
`{"id", "file", "function", "kwargs", "data", "wants_value"}`, or `{"id", "function", "hook"}`, and gets back `{"id",
"kind", "error", "notes", "value", "is_sound", "threads", "fds"}`; `{"exit": true}` ends the child after its exit
handlers. Variables in `kwargs` and settings in `hook` are resolved: secrets pass through this pipe only, never through
arguments or the environment. The child isolates crashes and is no sandbox: it runs the user's code with the user's
rights.

The child's process group ends with its parent. On Linux the kernel signals the group when the parent's end of the
`lifeline` pipe is closed, even while a function blocks the interpreter. Elsewhere the end of the request pipe does.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from queue import SimpleQueue
from typing import Any, TextIO

from .invoke import Functions, perform


def main(requests_fd: int, answers_fd: int, lifeline_fd: int, *, imports: Sequence[str] = ()) -> None:
    """Import modules, then serve calls until an exit request."""
    for fd in (requests_fd, answers_fd, lifeline_fd):
        os.set_inheritable(fd, False)
    _die_with_parent(lifeline_fd)
    # On the deadline's SIGTERM, print where the function was; then the signal has its usual effect.
    faulthandler.enable()
    faulthandler.register(signal.SIGTERM, all_threads=False, chain=True)
    for stream in (sys.stdout, sys.stderr):
        # Line-buffered, so that output before a crash is not lost.
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]

    process = _Process(requests_fd, answers_fd)
    requests: SimpleQueue[dict[str, Any]] = SimpleQueue()
    reader = threading.Thread(target=_read, args=(requests_fd, requests), name="syncblocks-requests", daemon=True)
    reader.start()
    gc.disable()  # imports create little garbage: collecting takes a tenth of their time
    for module in imports:
        # The call that needs a broken module reports its error.
        with suppress(Exception):
            import_module(module)
    gc.freeze()
    gc.enable()
    process.send({"ready": True})
    functions = Functions()
    while "exit" not in (request := requests.get()):
        answer = perform(functions, request)
        process.end_if_forked()
        process.flush()
        process.send(
            {
                "id": request["id"],
                "kind": answer.kind,
                "error": answer.error,
                "notes": answer.notes,
                "value": answer.value,
                "is_sound": process.is_sound(),
                "threads": threading.active_count(),
                "fds": _count_fds(),
            }
        )


class _Process:
    """State of the process that functions must not change: pipes, standard streams, folder, process id."""

    def __init__(self, requests_fd: int, answers_fd: int) -> None:
        self._requests_fd = requests_fd
        self._requests = _identity(requests_fd)
        self._answers_fd = answers_fd
        self._answers = _identity(answers_fd)
        self._pid = os.getpid()
        self._folder = os.getcwd()  # noqa: PTH109 (importing pathlib slows the start)
        self._streams = (sys.stdout, sys.stderr)
        self._standard = [_identity(fd) for fd in (0, 1, 2)]

    def send(self, message: dict[str, Any]) -> None:
        """Write one line. End the process if a function has closed or replaced the pipe; the call then fails."""
        data = json.dumps(message).encode() + b"\n"
        if _identity(self._answers_fd) != self._answers:
            os._exit(70)
        while data:
            data = data[os.write(self._answers_fd, data) :]

    def flush(self) -> None:
        for stream in self._streams:
            _flush(stream)

    def end_if_forked(self) -> None:
        """End a copy of the child that a function has forked."""
        if os.getpid() != self._pid:
            os._exit(0)

    def is_sound(self) -> bool:
        """Tell whether the state is unchanged, so that the child can serve another call."""
        try:
            folder = os.getcwd()  # noqa: PTH109
        except OSError:
            return False
        return (
            folder == self._folder
            and (sys.stdout, sys.stderr) == self._streams
            and not any(stream.closed for stream in self._streams)
            and [_identity(fd) for fd in (0, 1, 2)] == self._standard
            and _identity(self._requests_fd) == self._requests
        )


def _flush(stream: TextIO) -> None:
    try:
        stream.flush()
    except (OSError, ValueError):
        # The function closed the stream, which `is_sound` reports.
        return


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _count_fds() -> int:
    try:
        return len(os.listdir("/dev/fd"))  # noqa: PTH208 (twenty times as fast)
    except OSError:
        return 0


def _read(fd: int, requests: SimpleQueue[dict[str, Any]]) -> None:
    """Read requests from the pipe. At its end the parent is gone: kill the process group."""
    pipe = _identity(fd)
    # Not closed here: a function may have closed the pipe, and its number may belong to a file of the function.
    with suppress(OSError, ValueError), open(fd, "rb", closefd=False) as lines:
        for line in lines:
            request = json.loads(line)
            requests.put(request)
            if "exit" in request:
                return
    if _identity(fd) == pipe:
        os.killpg(0, signal.SIGKILL)


def _die_with_parent(fd: int) -> None:
    """Ask the kernel to kill this process group when the parent's end of the pipe is closed, so when it dies.

    Unlike PR_SET_PDEATHSIG this includes processes started by the user's functions, and does not depend on the thread
    of the parent that started the child.
    """
    import fcntl

    set_signal = getattr(fcntl, "F_SETSIG", None)
    if set_signal is None:
        return
    fcntl.fcntl(fd, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(fd, set_signal, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)  # type: ignore[attr-defined,unused-ignore]
