"""A child process for callback functions, seen from the engine: start, call with a deadline, end and reap.

`child_main` is the code that runs in the child.
"""

from __future__ import annotations

import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from msgspec import Struct

from .escaped_processes import MARK, kill_marked, since_boot_s
from .triggers import Ask, refuse

#: Bytes of a call's output that are kept: more than is shown, so that secrets are masked before the text is cut.
OUTPUT_KEPT_BYTES = 64 * 1024

#: Seconds between two checks for an interrupt, and for a dead child whose pipes a grandchild keeps open.
_TICK_S = 0.05
_CHUNK_BYTES = 1 << 16
#: Largest content of a pipe on Linux.
_PIPE_BYTES = 1 << 20
_START_TIMEOUT_S = 60.0

# The package is loaded by its path, so nothing in the user's folder or on PYTHONPATH can replace it.
_BOOT = """\
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("syncblocks", sys.argv[1])
sys.modules["syncblocks"] = module = module_from_spec(spec)
spec.loader.exec_module(module)
from syncblocks.callbacks.child_main import main
main(*map(int, sys.argv[2:5]), imports=sys.argv[6:])
"""


def tail(output: bytes, limit: int) -> str:
    """Return the end of an output as text; `...` marks a cut, where a secret may be split."""
    if len(output) < limit:
        return output.decode("utf-8", "replace")
    # The cut may have split the first character.
    return "..." + output[-limit:].lstrip(bytes(range(0x80, 0xC0))).decode("utf-8", "replace")


class CallEnd(Struct, frozen=True, kw_only=True):
    """How one call ended."""

    kind: Literal["returned", "raised", "missing", "load", "timeout", "exited", "interrupted", "skipped"]
    error: str | None
    #: Last OUTPUT_KEPT_BYTES of stdout and stderr.
    output: bytes
    notes: tuple[str, ...] = ()
    #: `repr` of the function's result; None if not asked for.
    value: str | None = None
    #: Why the child must not serve another call; None if it may.
    worn: str | None = None


class Child:
    """One child process, used by one thread.

    If a call ends as timeout, exited or interrupted, the child and every process that the call started end too.
    """

    def __init__(self, name: str, *, kill_grace_s: float = 5.0, imports: Sequence[str] = ()) -> None:
        """Start the child; it is ready when it has imported the modules in `imports`."""
        self.name = name
        self.is_alive = True
        #: Number of calls so far.
        self.calls = 0
        self._kill_grace_s = kill_grace_s
        self._is_interrupted = False
        self._is_ready = False
        self._output = bytearray()
        self._unread = bytearray()
        self._pending = bytearray()
        self._usage: dict[str, tuple[int, int]] = {}
        self._mark = secrets.token_hex(8)
        #: Time when the last call began.
        self._began_s = 0.0
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        lifeline, self._lifeline = os.pipe()
        ends = (requests, answers, lifeline)
        package = str(sys.modules["syncblocks"].__file__)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, package, *map(str, ends), name, *imports],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=ends,
                env={**os.environ, MARK: self._mark},
                start_new_session=True,
            )
        except BaseException:
            for fd in (self._requests, self._answers, self._lifeline):
                os.close(fd)
            raise
        finally:
            for fd in ends:
                os.close(fd)
        self.pid = self._process.pid
        assert self._process.stdout is not None
        self._stdout = self._process.stdout.fileno()
        self._selector = selectors.PollSelector()
        for fd in (self._requests, self._answers, self._stdout):
            os.set_blocking(fd, False)
        self._selector.register(self._answers, selectors.EVENT_READ)
        self._selector.register(self._stdout, selectors.EVENT_READ)

    def interrupt(self) -> None:
        """End the running call with kind "interrupted"; safe from any thread."""
        self._is_interrupted = True

    def call(self, request: Mapping[str, Any], *, timeout_s: float, ask: Ask = refuse) -> CallEnd:
        """Send a request and wait for its answer; `ask` answers questions of the function meanwhile.

        The deadline starts when the child is ready. After it the child's process group gets SIGTERM, then SIGKILL.
        """
        self._read_output()
        stray = bytes(self._output)
        self._output.clear()
        notes = (f"output between two calls:\n{tail(stray, 1000)}",) if stray.strip() else ()
        self.calls += 1
        self._began_s = since_boot_s()
        self._send({**request, "id": self.calls})
        if not self._is_ready:
            event, _ = self._wait(time.monotonic() + _START_TIMEOUT_S)
            if event != "answer":
                return self._ended(event, f"not ready after {_START_TIMEOUT_S:g} s", notes)
            self._is_ready = True
        deadline = time.monotonic() + timeout_s
        event, answer = self._wait(deadline)
        while event == "answer" and isinstance(answer.get("ask"), str):
            self._send({"reply": ask(answer["ask"])})
            event, answer = self._wait(deadline)
        if event != "answer" or answer.get("id") != self.calls:
            return self._ended(event, f"still running after {timeout_s:g} s (timeout_s)", notes)
        self._read_output()
        return CallEnd(
            kind=answer["kind"],
            error=answer["error"],
            output=self._take_output(),
            notes=(*notes, *answer["notes"]),
            value=answer["value"],
            worn=self._wear(request["function"], answer),
        )

    def exit(self, grace_s: float) -> None:
        """Let the child run its exit handlers and end; kill it after `grace_s` or on `interrupt`."""
        if self.is_alive:
            self._send({"exit": True})
            deadline = time.monotonic() + grace_s
            while self._wait(deadline)[0] == "answer":
                continue
            self.kill()

    def kill(self) -> None:
        """Kill the child's process group and release its resources; idempotent."""
        if not self.is_alive:
            return
        self.is_alive = False
        # Before the leader is reaped: until then no other process can get its id or the group's.
        self._signal(signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(self._kill_grace_s)
        self._read_output()
        self._selector.close()
        assert self._process.stdout is not None
        self._process.stdout.close()
        for fd in (self._requests, self._answers, self._lifeline):
            os.close(fd)

    # -- during a call

    def _wait(self, deadline: float) -> tuple[Literal["answer", "deadline", "exited", "interrupted"], dict[str, Any]]:
        """Read and write the pipes until an answer, the end of the child, or the deadline."""
        looked = time.monotonic()
        while True:
            line, newline, rest = self._unread.partition(b"\n")
            if newline:
                self._unread = rest
                return "answer", self._parse(line)
            now = time.monotonic()
            if self._is_interrupted:
                return "interrupted", {}
            if now >= deadline:
                return "deadline", {}
            is_open = True
            for key, _ in self._selector.select(min(deadline - now, _TICK_S)):
                if key.fd == self._stdout:
                    self._read_output(_CHUNK_BYTES)
                elif key.fd == self._answers:
                    is_open = self._read_answers()
                else:
                    self._write()
            if now - looked > _TICK_S:
                # A grandchild may keep the pipes open, and even write to them.
                looked = now
                if self._has_exited():
                    self._read_answers()
                    is_open = False
            if not is_open and b"\n" not in self._unread:
                return "exited", {}

    def _parse(self, line: bytearray) -> dict[str, Any]:
        try:
            message = json.loads(line)
        except ValueError:
            # A function has written to the answer pipe: the child is not used again.
            return {}
        return message if isinstance(message, dict) else {}

    def _send(self, message: Mapping[str, Any]) -> None:
        if not self._pending:
            self._selector.register(self._requests, selectors.EVENT_WRITE)
        self._pending += json.dumps(message).encode() + b"\n"
        self._write()

    def _write(self) -> None:
        try:
            while self._pending:
                del self._pending[: os.write(self._requests, self._pending)]
        except BlockingIOError:
            return
        except BrokenPipeError:
            # The child has ended; the wait for its answer notices it.
            self._pending.clear()
        self._selector.unregister(self._requests)

    def _read_answers(self) -> bool:
        """Read what is available; return False at the end of the pipe."""
        try:
            while chunk := os.read(self._answers, _CHUNK_BYTES):
                self._unread += chunk
        except BlockingIOError:
            return True
        return False

    def _read_output(self, limit: int = _PIPE_BYTES) -> None:
        """Read up to `limit` bytes of output and keep the end; limited, since a thread may print without end."""
        if self._stdout not in self._selector.get_map():
            return
        try:
            while limit > 0:
                chunk = os.read(self._stdout, _CHUNK_BYTES)
                if not chunk:
                    self._selector.unregister(self._stdout)
                    return
                limit -= len(chunk)
                self._output += chunk
                del self._output[:-OUTPUT_KEPT_BYTES]
        except BlockingIOError:
            return

    def _take_output(self) -> bytes:
        output = bytes(self._output)
        self._output.clear()
        return output

    # -- the end of a call

    def _ended(self, event: str, late: str, notes: tuple[str, ...]) -> CallEnd:
        kind: Literal["timeout", "exited", "interrupted"]
        if event == "deadline":
            kind, error = "timeout", f"{late}: ended by {self._terminate(self._kill_grace_s)}"
        elif event == "interrupted":
            self._is_interrupted = False
            kind, error = "interrupted", "cut short, because the program stops"
            self._terminate(min(self._kill_grace_s, 1.0))
        else:
            # An invalid answer: the process still runs.
            has_exited = self._has_exited(within_s=0.0 if event == "answer" else 0.5)
            self.kill()
            kind, error = "exited", self._post_mortem(has_exited)
        # Processes of calls that returned may outlive the child.
        kill_marked(self._mark, self.calls, self._began_s)
        return CallEnd(kind=kind, error=error, output=self._take_output(), notes=notes)

    def _terminate(self, grace_s: float) -> str:
        """Send SIGTERM to the group, and SIGKILL after `grace_s`; return the signal that ended it."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while not (has_exited := self._has_exited()) and time.monotonic() < deadline:
            if self._wait(min(deadline, time.monotonic() + _TICK_S))[0] == "exited":
                # Closed pipes do not mean that the process has ended.
                time.sleep(0.001)
        self.kill()
        return "SIGTERM" if has_exited else "SIGKILL"

    def _post_mortem(self, has_exited: bool) -> str:
        code = self._process.returncode
        if not has_exited:
            return "the function closed the pipes of its process, or wrote into them, so there is no answer"
        if code is not None and code < 0:
            with suppress(ValueError):
                return f"the process of the callback was killed by {signal.Signals(-code).name}"
        if code == 70:
            return "the function closed or replaced the pipes of its process, so there is no answer"
        return f"the process of the callback ended with exit code {code}, without an answer"

    def _has_exited(self, within_s: float = 0.0) -> bool:
        """Tell whether the process has ended, without reaping it: no other process must get its id yet."""
        deadline = time.monotonic() + within_s
        while True:
            if not hasattr(os, "waitid"):
                return self._process.poll() is not None
            try:
                if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                    return True
            except ChildProcessError:
                return True  # reaped by other code of this program
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.001)

    def _signal(self, number: signal.Signals) -> None:
        # PermissionError: on macOS, a group with only a zombie left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _wear(self, function: str, answer: Mapping[str, Any]) -> str | None:
        """Say why the child must be replaced; None if it may serve another call.

        A function's first call may leave threads and files open (a session, a pool, an exporter's thread). If later
        calls leave more, that is a leak.
        """
        usage = (int(answer["threads"]), int(answer["fds"]))
        if not answer["is_sound"]:
            return "a function changed its builtins, its standard streams, its pipes or its working folder"
        if function not in self._usage:
            self._usage = dict.fromkeys((*self._usage, function), usage)
            return None
        threads, fds = self._usage[function]
        if usage[0] > threads:
            return f"its threads grew from {threads} to {usage[0]}"
        return f"its open files grew from {fds} to {usage[1]}" if usage[1] > fds else None
