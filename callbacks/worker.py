"""The child process that runs the functions of one callback block.

Protocol: JSON lines over two pipes of its own, so that nothing a function prints gets in between. The parent sends
`{"id", "file", "function", "kwargs", "data", "wants_value"}`, or `{"id", "function", "hook"}`, and gets back `{"id",
"kind", "error", "notes", "value", "is_sound", "threads", "fds"}`; `{"exit": true}` ends the child in good order.
Variables in `kwargs` and settings in `hook` are resolved: they cross here only, never by argument or environment. The
child is for robustness, not a sandbox: it runs the user's own code with his rights.

It ends with its parent, and its process group with it: the kernel signals the group when the other end of the
`lifeline` pipe is closed, even while a function holds the interpreter; elsewhere the end of the request pipe does.
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
    """Serve calls until told to exit; import modules that will be needed first."""
    for fd in (requests_fd, answers_fd, lifeline_fd):
        os.set_inheritable(fd, False)
    _die_with_parent(lifeline_fd)
    # On the deadline's SIGTERM, say where the function was; then the signal does what it did before.
    faulthandler.enable()
    faulthandler.register(signal.SIGTERM, all_threads=False, chain=True)
    for stream in (sys.stdout, sys.stderr):
        # By lines, so that what was printed before a crash is not lost in a buffer.
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]

    process = _Process(requests_fd, answers_fd)
    requests: SimpleQueue[dict[str, Any]] = SimpleQueue()
    reader = threading.Thread(target=_read, args=(requests_fd, requests), name="syncblocks-requests", daemon=True)
    reader.start()
    gc.disable()  # an import makes much and drops little: collecting meanwhile takes a tenth of its time
    for module in imports:
        # One that is broken is told by the call that needs it.
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
    """What must still be as it was when the child began, whatever a function does to its process."""

    def __init__(self, requests_fd: int, answers_fd: int) -> None:
        self._requests_fd = requests_fd
        self._requests = _identity(requests_fd)
        self._answers_fd = answers_fd
        self._answers = _identity(answers_fd)
        self._pid = os.getpid()
        self._folder = os.getcwd()  # noqa: PTH109 (no pathlib in the way of a quick start)
        self._streams = (sys.stdout, sys.stderr)
        self._standard = [_identity(fd) for fd in (0, 1, 2)]

    def send(self, message: dict[str, Any]) -> None:
        """Write one line. If a function has closed or replaced the pipe, end: the parent takes that for a failure."""
        data = json.dumps(message).encode() + b"\n"
        if _identity(self._answers_fd) != self._answers:
            os._exit(70)
        while data:
            data = data[os.write(self._answers_fd, data) :]

    def flush(self) -> None:
        for stream in self._streams:
            _flush(stream)

    def end_if_forked(self) -> None:
        """End a copy of the child that a function made by fork and let return."""
        if os.getpid() != self._pid:
            os._exit(0)

    def is_sound(self) -> bool:
        """Tell whether the next call finds the process as this one did."""
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
        # Closed by the function, which `is_sound` tells the parent; the answer matters more than the output.
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
    """Take requests from the pipe. Its end means that the parent is gone: then the whole group ends, whatever runs."""
    pipe = _identity(fd)
    # Not closed here: a function may have closed the pipe and have a file of its own under this number.
    with suppress(OSError, ValueError), open(fd, "rb", closefd=False) as lines:
        for line in lines:
            request = json.loads(line)
            requests.put(request)
            if "exit" in request:
                return
    if _identity(fd) == pipe:
        os.killpg(0, signal.SIGKILL)


def _die_with_parent(fd: int) -> None:
    """Ask the kernel to kill this process group when the parent closes its end of the pipe, thus when it dies.

    Unlike PR_SET_PDEATHSIG this takes what the user's functions have started along, and does not depend on which thread
    of the parent started the child.
    """
    import fcntl

    set_signal = getattr(fcntl, "F_SETSIG", None)
    if set_signal is None:
        return
    fcntl.fcntl(fd, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(fd, set_signal, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)  # type: ignore[attr-defined,unused-ignore]
