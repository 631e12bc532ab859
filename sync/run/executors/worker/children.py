"""The one function that an engine calls on a worker, and the child processes that run streams there.

A child can be killed without harm to the worker, serves one group after another, and keeps its connections meanwhile.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ....errors import SyncError
from ..bundle import Bundle, has_code, unpack, unpacked
from .child import BEAT_S

#: Seconds without a sign of life until a child is killed.
SILENT_S = 12 * BEAT_S
#: Seconds without work until a child is ended: a run every five minutes reuses the previous run's children.
IDLE_S = 360.0


def run_streams(code: str, payload: str, archive: bytes | None = None) -> str | None:
    """Run claimed streams on this machine; return a small JSON answer when they have ended, None without news.

    Raises nothing: an engine would log exceptions with their arguments.

    Args:
        code: name of the archive with the pipeline's file and code.
        payload: JSON of a `Reference`, with no other content.
        archive: the archive, if an earlier answer reported it as missing here.
    """
    try:
        folder = unpacked(code) or (None if archive is None else unpack(Bundle(code, archive)))
        if folder is None:
            return json.dumps({"missing": code})
        child = CHILDREN.take(code, folder)
        answer = child.call({**json.loads(payload), "folder": str(folder)})
        CHILDREN.give(child)
    except Exception as error:
        # Only our own texts: others may contain an address or a value.
        text = str(error) if isinstance(error, SyncError) else f"the worker failed: {type(error).__name__}"
        answer = {"problem": text}
    return json.dumps(answer) if any(answer.values()) else None


class WorkerChild:
    """One child process of a worker; used by one thread at a time."""

    def __init__(self) -> None:
        #: Name of the archive that it serves now.
        self.code = ""
        #: Whether it has loaded user functions: then it serves no other archive.
        self.is_bound = False
        #: Whether its run is over: it closes its connections after its call.
        self.is_stale = False
        self.idle_since = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "syncblocks.sync.run.executors.worker.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        os.set_blocking(self._answers.fileno(), False)
        self._unread = b""

    @property
    def is_alive(self) -> bool:
        """Whether it can be called."""
        return self._process.poll() is None

    def call(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Let it run streams; return its answer, or the report of its death."""
        try:
            self._send(json.dumps(request))
            return self._answer(lambda answer: "beat" not in answer)
        except OSError:
            return self._died()

    def release(self) -> None:
        """Let it close its connections. Only while no call runs."""
        with suppress(OSError):
            self._send(json.dumps({"release": True}))
            self._answer(lambda answer: "released" in answer)

    def end(self) -> None:
        """End it, with all its child processes."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._requests, self._answers):
            with suppress(OSError):
                pipe.close()

    def _send(self, line: str) -> None:
        self._requests.write(line.encode("ascii") + b"\n")
        self._requests.flush()

    def _answer(self, is_wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Read until an answer; kill a child without signs of life."""
        heard = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while True:
                line, newline, rest = self._unread.partition(b"\n")
                if newline:
                    self._unread, heard = rest, time.monotonic()
                    answer = json.loads(line)
                    if is_wanted(answer):
                        return dict(answer)
                    continue
                # Read available input first: the worker itself may have been frozen.
                if not selector.select(BEAT_S):
                    if time.monotonic() - heard > SILENT_S:
                        return self._died()
                    continue
                chunk = os.read(self._answers.fileno(), 1 << 16)
                if not chunk:
                    return self._died()
                self._unread += chunk

    def _died(self) -> dict[str, Any]:
        self.end()
        code = self._process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return {"died": f"the process of the worker {how}"}


class Children:
    """The idle children of this worker. A child with user functions loaded only serves their archive."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[WorkerChild] = []
        self._busy: set[WorkerChild] = set()
        self._watch: threading.Thread | None = None

    def take(self, code: str, folder: Path) -> WorkerChild:
        """Return an idle child, preferably with the archive open, or a new one."""
        is_bound = has_code(folder)
        with self._lock:
            living = [child for child in self._idle if child.is_alive]
            fit = [child for child in living if child.code == code] or [child for child in living if not child.is_bound]
            if fit:
                self._idle.remove(fit[-1])
        child = fit[-1] if fit else WorkerChild()
        child.code, child.is_bound, child.is_stale = code, child.is_bound or is_bound, False
        with self._lock:
            self._busy.add(child)
        return child

    def give(self, child: WorkerChild) -> None:
        """Keep a living child for the next call."""
        if child.is_stale:
            child.release()
        with self._lock:
            self._busy.discard(child)
        if not child.is_alive:
            return
        child.idle_since = time.monotonic()
        with self._lock:
            self._idle.append(child)
            if self._watch is None:
                self._watch = threading.Thread(target=self._end_idle, name="idle-children", daemon=True)
                self._watch.start()

    def release(self, code: str) -> None:
        """Make the children of an archive close their connections; busy ones after their call."""
        with self._lock:
            for child in self._busy:
                child.is_stale |= child.code == code
            idle = [child for child in self._idle if child.code == code]
            self._idle = [child for child in self._idle if child not in idle]
        for child in idle:
            child.release()
            self.give(child)

    def end(self) -> None:
        """End all idle children."""
        with self._lock:
            ending, self._idle = self._idle, []
        for child in ending:
            child.end()

    def _end_idle(self) -> None:
        while True:
            time.sleep(IDLE_S / 6)
            limit = time.monotonic() - IDLE_S
            with self._lock:
                ending = [child for child in self._idle if child.idle_since < limit]
                self._idle = [child for child in self._idle if child not in ending]
            for child in ending:
                child.end()


#: In this process.
CHILDREN = Children()
atexit.register(CHILDREN.end)
