"""One run of a target: records in on stdin, states out on stdout, its log on stderr, its verdict the exit code."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..errors import Interrupted, RetriableError

log = logging.getLogger("syncblocks.singer")

#: Wanted size of the pipe to a target: fewer switches between the two processes.
PIPE_BYTES = 1 << 20
#: A target that is told to end gets so long before it is killed.
GRACE_S = 2.0
#: Lines of stderr that an error shows.
TAIL_LINES = 12

_SECRET_KEY = re.compile(r"pass|secret|token|api_?key|credential|private", re.IGNORECASE)


class Target(Protocol):
    """Takes lines and says which states it has kept: a process, or a class in a thread."""

    def write(self, data: bytes | memoryview) -> None:
        """Hand over whole lines; waits while the target is busy."""
        ...

    def states(self) -> list[Any]:
        """Return the states echoed since the last call, without waiting."""
        ...

    def end(self) -> list[Any]:
        """Say that nothing more comes, wait for the end, return the last states; raise if it has failed."""
        ...

    def close(self, *, is_interrupted: bool = False) -> None:
        """End it at once if it still runs. Safe to repeat, from any thread."""
        ...


class TargetProcess:
    """A target as a process of its own."""

    def __init__(
        self, command: Sequence[str], config: Mapping[str, Any], env: Mapping[str, str], *, name: str, stream: str
    ) -> None:
        self._name, self._stream = name, stream
        self._secrets = _secrets(config)
        self._states: deque[Any] = deque()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._has_traceback = False
        self._is_interrupted = False
        self._folder = tempfile.TemporaryDirectory(prefix="syncblocks-")  # mode 0700
        try:
            place = private_file(Path(self._folder.name) / "config.json", config)
            self._process = subprocess.Popen(
                [*command, "--config", str(place)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=child_environment(env),
                start_new_session=True,  # a Ctrl-C is ours to handle; and it is ended with all its children
            )
        except OSError as error:
            self._folder.cleanup()
            raise RetriableError(f"target {name!r} cannot be started: {error.strerror}", stream=stream) from error
        except BaseException:
            self._folder.cleanup()
            raise
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, AttributeError):  # a limit of the system; smaller pipes work too
            fcntl.fcntl(self._process.stdin, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._readers = [
            threading.Thread(target=read, name=f"{name}-{stream}", daemon=True)
            for read in (self._read_states, self._read_log)
        ]
        for reader in self._readers:
            reader.start()

    def write(self, data: bytes | memoryview) -> None:
        """Write whole lines to its stdin."""
        assert self._process.stdin is not None
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._process.stdin.write(rest) :]
        except (BrokenPipeError, ValueError) as error:  # ValueError: closed by `close`
            self._wait()
            raise self._failure() from error

    def states(self) -> list[Any]:
        """Return the states echoed since the last call."""
        found = []
        while self._states:
            found.append(self._states.popleft())
        return found

    def end(self) -> list[Any]:
        """Close its stdin and wait for its verdict."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._wait()
        if self._process.returncode != 0 or self._is_interrupted:
            raise self._failure()
        states = self.states()
        if not states and self._has_traceback:
            raise self._failure()
        return states

    def close(self, *, is_interrupted: bool = False) -> None:
        """End the process and all its children."""
        self._is_interrupted = self._is_interrupted or is_interrupted
        if self._process.poll() is None:
            self._signal(signal.SIGTERM if is_interrupted else signal.SIGKILL)
            try:
                self._process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
        self._wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._folder.cleanup()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _wait(self) -> None:
        self._process.wait()
        for reader in self._readers:
            # A child that it left behind may hold the pipes open: its verdict is there, so that is waited for briefly.
            reader.join(GRACE_S)

    def _read_states(self) -> None:
        assert self._process.stdout is not None
        for line in _lines(self._process.stdout):
            try:
                state = json.loads(line)
            except ValueError:
                log.info("%s: %s", self._name, self._shown(line.decode("utf-8", "replace").rstrip()))
                continue
            self._states.append(state)

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        for line in _lines(self._process.stderr):
            text = self._shown(line.decode("utf-8", "replace").rstrip())
            self._has_traceback = self._has_traceback or text.startswith(("Traceback (most recent", "CRITICAL"))
            if text:
                self._tail.append(text[:2000])
                log.debug("%s: %s", self._name, text)

    def _shown(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _failure(self) -> Exception:
        if self._is_interrupted:
            return Interrupted(f"target {self._name!r} was interrupted", stream=self._stream)
        code = self._process.returncode
        if code < 0:
            how = f"was ended by signal {signal.Signals(-code).name}"
        elif code == 0:
            how = "ended with exit code 0, but before it had taken and kept all records"
        else:
            how = f"ended with exit code {code}"
        tail = "\n  ".join(self._tail)
        said = f"; the end of its log:\n  {tail}" if tail else "; it said nothing on stderr"
        return RetriableError(f"target {self._name!r} {how}{said}", stream=self._stream)


def private_file(path: Path, value: Mapping[str, Any]) -> Path:
    """Write JSON into a file that only this user can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, default=str)
    return path


def child_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment for a plugin, without what leads to our own Python."""
    ours = {"PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONWARNINGS", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"}
    return {**{name: value for name, value in os.environ.items() if name not in ours}, **env}


def _lines(pipe: Any) -> Any:
    """Yield lines as they come; a pipe that `close` has closed ends them."""
    rest = b""
    while True:
        try:
            block = os.read(pipe.fileno(), 65536)
        except (OSError, ValueError):
            block = b""
        if not block:
            break
        *whole, rest = (rest + block).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _secrets(config: Any, key: str = "") -> list[str]:
    """Return the values under keys that look like a secret's, longest first."""
    if isinstance(config, Mapping):
        found = [secret for name, value in config.items() for secret in _secrets(value, str(name))]
    elif isinstance(config, list):
        found = [secret for value in config for secret in _secrets(value, key)]
    else:
        is_secret = bool(_SECRET_KEY.search(key)) and isinstance(config, str) and len(config) > 3
        url = re.fullmatch(r"[\w+.-]+://[^/@:]*:([^@/]+)@.*", config) if isinstance(config, str) else None
        found = ([config] if is_secret else []) + ([url[1]] if url else [])
    return sorted(found, key=len, reverse=True)


__all__ = ["Target", "TargetProcess", "child_environment", "private_file"]
