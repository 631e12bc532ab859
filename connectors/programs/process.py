"""Run a plugin as a process: private files, its standard error in the log, a certain end."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ..errors import ConnectorError, FatalConnectorError, Interrupted, RetriableError
from ..local_files import create_file
from ..secret_texts import masked

log = logging.getLogger("syncblocks")

#: Size and age at which a block is passed on, in bytes and seconds.
BLOCK_BYTES = 4 << 20
BLOCK_S = 0.5
#: The same for lines that are not parsed: small, so that tap and target work at the same time.
PASSED_BYTES = 256 << 10
PASSED_S = 0.02
#: Longest line that is accepted.
MAX_LINE_BYTES = 1 << 30

#: Maximum number of bytes of a log line that are shown.
_LOG_LINE_BYTES = 64 << 10

_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031
#: A read of fewer bytes is followed by a short sleep, so that the pipe fills.
_SMALL_READ = 64 << 10
_FILL_S = 0.002
_TERM_S = 3.0
#: Seconds that a process may run after the end of its output, and that its output may stay open after its end.
_EXIT_S = 30.0
_LINGER_S = 2.0

_KEPT_VARIABLES = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "SHELL",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "LD_LIBRARY_PATH",
    }
)
_METRIC = re.compile(r"\bMETRIC: (\{.*\})")
_LEVEL = re.compile(r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")
_FAILURE = re.compile(r"\b(ERROR|CRITICAL|[Ee]rror:)")
#: Lines of a program of Python that has crashed, whatever its exit status.
_CRASH = re.compile(rb"Traceback \(most recent call last\)|CRITICAL")
_TAIL_LINES = 20
#: The last line of a Python traceback: the exception.
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)\b")


class PrivateFiles:
    """A folder that only this user can read, for config, catalog and state; the context removes it.

    The next process removes the folder of a killed process, whose lock is free.
    """

    _PREFIX = "syncblocks-program-"

    def __enter__(self) -> PrivateFiles:
        self._sweep()
        while not self._make():
            pass
        return self

    def _make(self) -> bool:
        """Make the folder and lock it; False: another process has removed it in between."""
        self.folder = Path(tempfile.mkdtemp(prefix=self._PREFIX))
        try:
            self._lock = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return False
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        if (self.folder / ".lock").exists():
            return True
        os.close(self._lock)
        return False

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)

    def write(self, name: str, value: Any) -> Path:
        """Write one JSON file with mode 0600; return its path."""
        return self.write_bytes(name, json.dumps(value, default=_plain).encode())

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write one file with mode 0600; return its path."""
        path = self.folder / name
        with create_file(path, 0o600) as file:
            file.write(data)
        return path

    def _sweep(self) -> None:
        for folder in Path(tempfile.gettempdir()).glob(f"{self._PREFIX}*"):
            try:
                lock = os.open(folder / ".lock", os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            except OSError:
                continue
            finally:
                os.close(lock)


def _plain(value: Any) -> Any:
    if isinstance(value, date | datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def way_out(text: str) -> str:
    """Return what to do about an error of old plugins; empty: it is another error."""
    if "pkg_resources" not in text or "No module named" not in text:
        return ""
    return (
        "it needs pkg_resources, which newer setuptools do not have: install 'setuptools<81' in the plugin's "
        "environment; with `pip`, add it after the plugin"
    )


def environment(own: Mapping[str, str], program: str) -> dict[str, str]:
    """Return the plugin's environment: the variables that programs need, and those of the pipeline."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT_VARIABLES or name.startswith("LC_")}
    kept["PATH"] = os.pathsep.join(filter(None, (os.path.dirname(program), kept.get("PATH", os.defpath))))  # noqa: PTH120
    return {**kept, **own}


class PluginProcess:
    """One running plugin. The context ends the process.

    Args:
        label: `tap tap-jsonl`, for messages.
        command: program and arguments.
        folder: its working folder, that of the pipeline file.
        env: see `environment`.
        secrets: texts that no log line or message may hold; may grow while it runs.
        hang_timeout_s: seconds without output after which the plugin is ended; None: never.
        takes_input: whether its standard input is a pipe.
        connector: its connector's name, for errors.
        is_quiet: what it writes to its standard error is shown nowhere, since it may hold values of masked columns.
    """

    def __init__(
        self,
        label: str,
        command: Sequence[str],
        *,
        folder: Path,
        env: Mapping[str, str],
        secrets: Sequence[str] = (),
        hang_timeout_s: float | None = None,
        takes_input: bool = False,
        is_quiet: bool = False,
        connector: str = "singer",
    ) -> None:
        self.label = label
        self.connector = connector
        self._command = list(command)
        self._folder = folder
        self._env = dict(env)
        self._secrets = secrets
        self._hang_timeout_s = hang_timeout_s
        self._takes_input = takes_input
        self._is_quiet = is_quiet
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._has_crashed = False
        self._interrupted = threading.Event()
        self._heard = time.monotonic()

    def __enter__(self) -> PluginProcess:
        read, write = os.pipe()
        enlarge(write)
        guard = [sys.executable, "-I", "-S", str(Path(__file__).with_name("die_with_parent.py")), str(os.getpid())]
        try:
            self._process = subprocess.Popen(
                [*guard, *self._command],
                stdin=subprocess.PIPE if self._takes_input else subprocess.DEVNULL,
                stdout=write,
                stderr=subprocess.PIPE,
                cwd=self._folder,
                env=self._env,
                start_new_session=True,
            )
        except OSError as error:
            os.close(read)
            raise FatalConnectorError(f"{self.label} cannot be started: {error}", connector=self.connector) from error
        finally:
            os.close(write)
        self._output = read
        self._listener = threading.Thread(target=self._listen, args=(self._process.stderr,), daemon=True)
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._output)
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._end()

    @property
    def input(self) -> IO[bytes]:
        """The plugin's standard input."""
        assert self._process.stdin is not None
        return self._process.stdin

    def interrupt(self) -> None:
        """End the plugin soon, from any thread."""
        self._interrupted.set()
        self._signal(signal.SIGTERM)

    def tail(self) -> str:
        """Return the last lines of the plugin's standard error."""
        self._listener.join(timeout=1)
        return "\n".join(self._tail)

    def reports_crash(self) -> bool:
        """Return true if a line of the plugin's standard error reports a crash, also if a secret masks that line."""
        self._listener.join(timeout=1)
        return self._has_crashed

    def blocks(self, size_bytes: int = BLOCK_BYTES, age_s: float = BLOCK_S) -> Iterator[bytes]:
        """Yield whole lines in blocks of about that size or age, to the end of output and process.

        Raises:
            RetriableError: the plugin was killed, or ended with a status other than 0.
            FatalConnectorError: the plugin hangs, or writes a line without end.
            Interrupted: `interrupt` was called.
        """
        rest = b""
        is_open = True
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            while is_open:
                chunks, is_open = self._gather(selector, len(rest), size_bytes, age_s)
                data = b"".join((rest, *chunks))
                cut = data.rfind(b"\n") + 1
                block, rest = data[:cut], data[cut:]
                if len(rest) > MAX_LINE_BYTES:
                    raise FatalConnectorError(f"{self.label}: a line of more than 1 GiB", connector=self.connector)
                if block and not self._interrupted.is_set():
                    yield block
        failure = self._failure()
        if failure is not None:
            raise failure
        if rest.strip():
            yield rest  # the last line, without its line feed

    def _gather(
        self, selector: selectors.BaseSelector, held: int, size_bytes: int, age_s: float
    ) -> tuple[list[bytes], bool]:
        """Read until the block is full or old enough; return whether there may be more."""
        chunks: list[bytes] = []
        size, started = held, 0.0
        while True:
            now = time.monotonic()
            if chunks and (size >= size_bytes or now - started >= age_s):
                return chunks, True
            wait_s = age_s - (now - started) if chunks else BLOCK_S
            if not selector.select(max(0.0, wait_s)):
                if not self._may_still_write():
                    return chunks, False
                if chunks:
                    return chunks, True
                continue
            chunk = os.read(self._output, _PIPE_BYTES)
            if not chunk:
                return chunks, False
            self._heard = time.monotonic()
            started = started or self._heard
            chunks.append(chunk)
            size += len(chunk)
            if held and b"\n" not in chunk and size < 64 * BLOCK_BYTES:
                started = self._heard  # in the middle of a long line
            if len(chunk) < _SMALL_READ:
                time.sleep(_FILL_S)

    def _may_still_write(self) -> bool:
        if self._interrupted.is_set():
            return False
        silent_s = time.monotonic() - self._heard
        if self._process.poll() is not None and silent_s > _LINGER_S:
            return False  # another process still holds its output
        if self._hang_timeout_s is not None and silent_s > self._hang_timeout_s:
            raise FatalConnectorError(
                f"{self.label} hangs: no line for {self._hang_timeout_s:g} s (`hang_timeout_s`)" + self.last_words(),
                connector=self.connector,
            )
        return True

    def _failure(self) -> ConnectorError | None:
        if self._interrupted.is_set():
            return Interrupted(f"{self.label} was interrupted", connector=self.connector)
        try:
            status = self._process.wait(timeout=_EXIT_S)
        except subprocess.TimeoutExpired:
            return FatalConnectorError(
                f"{self.label} closed its output and did not end within {_EXIT_S:g} s" + self.last_words(),
                connector=self.connector,
            )
        if status == 0:
            return None
        if self._interrupted.is_set():
            return Interrupted(f"{self.label} was interrupted", connector=self.connector)
        how = f"was killed by {_signal_name(-status)}" if status < 0 else f"ended with status {status}"
        return RetriableError(f"{self.label} {how}{self.last_words()}", connector=self.connector)

    def last_words(self) -> str:
        """Return the line of the log's end that tells most: the exception, else an error, else the last one."""
        lines = self.tail().strip().splitlines()
        if self._is_quiet:
            return "; its output is not shown, since columns are masked"
        if not lines:
            return "; it said nothing"
        of_interest = (next(filter(each, reversed(lines)), None) for each in (_EXCEPTION.match, _FAILURE.search))
        telling = next(filter(None, of_interest), lines[-1]).strip()
        if hint := way_out(telling):
            return f": {hint}"
        return f": {telling}{'; `--debug` shows all it said' if len(lines) > 1 else ''}"

    def _listen(self, stream: IO[bytes] | None) -> None:
        assert stream is not None
        level = logging.INFO
        is_cut = False
        for line in iter(lambda: stream.readline(_LOG_LINE_BYTES), b""):
            self._heard = time.monotonic()
            self._has_crashed = self._has_crashed or _CRASH.search(line) is not None
            # A secret could be in two pieces of a line, so only the first one is shown.
            is_rest, is_cut = is_cut, len(line) == _LOG_LINE_BYTES and not line.endswith(b"\n")
            if self._is_quiet or is_rest:
                continue
            text = masked(line.decode("utf-8", "replace").rstrip() + "..." * is_cut, self._secrets)
            if not text:
                continue
            metric = _METRIC.search(text)
            if metric:
                log.debug("%s: metric %s", self.label, metric[1])
                continue
            found = _LEVEL.search(text[:80])
            level = getattr(logging, found[1]) if found else level
            self._tail.append(text)
            log.log(level, "%s: %s", self.label, text)
        stream.close()

    def _end(self) -> None:
        """End the process and all processes it has started."""
        if self._process.poll() is None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=_TERM_S)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._listener.join(timeout=1)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def run(
    plugin: PluginProcess,
    limit_bytes: int = 512 << 20,
    noted: Callable[[PluginProcess], AbstractContextManager[Any]] = contextlib.nullcontext,
) -> bytes:
    """Run a plugin to its end and return its output; `noted` surrounds the time in which it runs."""
    chunks, size = [], 0
    with plugin, noted(plugin):
        for block in plugin.blocks():
            chunks.append(block)
            size += len(block)
            if size > limit_bytes:
                raise FatalConnectorError(f"{plugin.label} writes without end", connector=plugin.connector)
    return b"".join(chunks)


def enlarge(pipe: int) -> None:
    """Set the pipe's size to 1 MB, if the system allows it."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE_BYTES)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
