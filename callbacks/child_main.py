"""The code of a child process, which runs the functions of one callback block.

Protocol: JSON lines over two separate pipes, apart from the output of functions. The parent sends `{"id", "file",
"function", "kwargs", "data", "wants_value"}`, or `{"id", "function", "hook"}`, and gets back `{"id", "kind", "error",
"notes", "value", "is_sound", "threads", "fds"}`. Meanwhile a function may ask the engine: `{"ask"}` gets `{"reply"}`,
both texts. `{"exit": true}` ends the child after its exit handlers.

Variables in `kwargs` and settings in `hook` are resolved: secrets pass through this pipe only, never through
arguments or the environment. The child isolates crashes but is no sandbox: it runs the user's code with the user's
rights.

The child's process group ends with its parent. On Linux the kernel signals the group when the parent's end of the
`lifeline` pipe is closed, even while a function blocks the interpreter. On other systems the end of the
request pipe has the same effect.
"""

from __future__ import annotations

import builtins
import faulthandler
import gc
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from json import JSONDecoder
from json.encoder import encode_basestring_ascii
from os import fstat, getcwd, getpid, listdir, write
from queue import SimpleQueue
from sys import setprofile, settrace
from typing import Any, TextIO

from .call_result import Answer
from .escaped_processes import MARK
from .invoke import FunctionCache, perform
from .mage import install
from .triggers import connect

# Everything that serves a call is bound here, before user code can replace it: builtins of this module, functions, the
# JSON scanner.
_BUILTINS = dict(vars(builtins))
globals()["__builtins__"] = dict(_BUILTINS)
_scan = JSONDecoder().scan_once  # type: ignore[attr-defined]
_exit, _threads = os._exit, sys._current_frames


def main(requests_fd: int, answers_fd: int, lifeline_fd: int, *, imports: Sequence[str] = ()) -> None:
    """Import modules, then serve calls until an exit request."""
    for fd in (requests_fd, answers_fd, lifeline_fd):
        os.set_inheritable(fd, False)
    _die_with_parent(lifeline_fd)
    # On the deadline's SIGTERM, print the function's stack; then the signal has its usual effect.
    faulthandler.enable()
    faulthandler.register(signal.SIGTERM, all_threads=False, chain=True)
    for stream in (sys.stdout, sys.stderr):
        # Line-buffered, so that output before a crash is not lost.
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]

    process = _Process(requests_fd, answers_fd)
    requests: SimpleQueue[dict[str, Any]] = SimpleQueue()
    arguments = (requests_fd, requests, process.replies)
    reader = threading.Thread(target=_read, args=arguments, name="syncblocks-requests", daemon=True)
    reader.start()
    gc.disable()  # imports create little garbage, and collecting would take a tenth of their time
    for module in imports:
        # The call that needs a broken module reports its error.
        with suppress(Exception):
            import_module(module)
    gc.freeze()
    gc.enable()
    install()
    connect(process.ask)
    process.send({"ready": True})
    functions = FunctionCache()
    mark = os.environ[MARK]
    while "exit" not in (request := requests.get()):
        try:
            os.environ[MARK] = f"{mark}.{request['id']}"
            answer = perform(functions, request, _untraced)
        except BaseException:  # the function has broken something that `perform` needs
            _untraced()
            answer = Answer(kind="raised", error="the function changed its interpreter's state, so there is no result")
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
                "threads": len(_threads()),
                "fds": _count_fds(),
            }
        )


def _untraced() -> None:
    """Remove the function's profile and trace functions; the interpreter removes one that raises."""
    for remove in (setprofile, settrace, setprofile, settrace):
        try:
            remove(None)
        except BaseException:
            continue


class _Process:
    """State of the process that functions must not change: pipes, standard streams, folder, process id."""

    def __init__(self, requests_fd: int, answers_fd: int) -> None:
        self._requests_fd = requests_fd
        self._requests = _identity(requests_fd)
        self._answers_fd = answers_fd
        self._answers = _identity(answers_fd)
        self._pid = getpid()
        self._folder = getcwd()  # noqa: PTH109 (importing pathlib slows the start)
        self._streams: tuple[Any, Any] = (sys.stdout, sys.stderr)
        self._standard = [_identity(fd) for fd in (0, 1, 2)]
        #: Answers of the engine to `ask`.
        self.replies: SimpleQueue[str] = SimpleQueue()
        self._asking = threading.Lock()

    def ask(self, question: str) -> str:
        """Send a question to the engine and wait for its answer; one thread at a time."""
        with self._asking:
            self.send({"ask": question})
            return self.replies.get()

    def send(self, message: dict[str, Any]) -> None:
        """Write one line. End the process if a function has closed or replaced the pipe; the call then fails."""
        data = _encoded(message).encode() + b"\n"
        if _identity(self._answers_fd) != self._answers:
            _exit(70)
        while data:
            data = data[write(self._answers_fd, data) :]

    def flush(self) -> None:
        for stream in self._streams:
            _flush(stream)

    def end_if_forked(self) -> None:
        """End a copy of the child that a function has forked."""
        if getpid() != self._pid:
            _exit(0)

    def is_sound(self) -> bool:
        """Return whether the state is unchanged, so that the child can serve another call."""
        try:
            folder = getcwd()  # noqa: PTH109
        except OSError:
            return False
        return (
            folder == self._folder
            and vars(builtins) == _BUILTINS
            and (vars(sys).get("stdout"), vars(sys).get("stderr")) == self._streams
            and not any(stream.closed for stream in self._streams)
            and [_identity(fd) for fd in (0, 1, 2)] == self._standard
            and _identity(self._requests_fd) == self._requests
        )


def _encoded(value: Any) -> str:
    """Return an answer as JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{encode_basestring_ascii(key)}: {_encoded(each)}" for key, each in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_encoded(each) for each in value) + "]"
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _flush(stream: TextIO) -> None:
    try:
        stream.flush()
    except (OSError, ValueError):
        # The function closed the stream, which `is_sound` reports.
        return


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        status = fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _count_fds() -> int:
    try:
        return len(listdir("/dev/fd"))  # noqa: PTH208 (twenty times as fast)
    except OSError:
        return 0


def _read(fd: int, requests: SimpleQueue[dict[str, Any]], replies: SimpleQueue[str]) -> None:
    """Read requests and replies from the pipe. At its end the parent is gone: kill the process group."""
    pipe = _identity(fd)
    # Not closed here: a function may have closed the pipe, and its number may belong to a file of the function.
    with suppress(OSError, ValueError), open(fd, "rb", closefd=False) as lines:
        for line in lines:
            request = _scan(line.decode(), 0)[0]
            if "reply" in request:
                replies.put(request["reply"])
                continue
            requests.put(request)
            if "exit" in request:
                return
    if _identity(fd) == pipe:
        os.killpg(0, signal.SIGKILL)


def _die_with_parent(fd: int) -> None:
    """Ask the kernel to kill this process group when the parent's end of the pipe closes, that is when the parent dies.

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
