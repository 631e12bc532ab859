"""Named places where a fault can be injected: before, inside and after each commit.

Usually they are off, and a failpoint costs one look-up. `SYNCBLOCKS_FAILPOINT="name:hit:action"` acts when the name is
reached for the hit-th time. `SYNCBLOCKS_FAILPOINT_TRACE=FILE` appends each `name:hit` to a file, so that tests find the
commit points by themselves. Connectors and engine both import this file.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

_ARMED = os.environ.get("SYNCBLOCKS_FAILPOINT", "")
_TRACE = os.environ.get("SYNCBLOCKS_FAILPOINT_TRACE", "")
_ON = bool(_ARMED or _TRACE)
_hits: Counter[str] = Counter()
_lock = threading.Lock()


class FailpointError(RuntimeError):
    """Raised by the action `raise`; no code catches it by name."""


def failpoint(name: str) -> None:
    """Do nothing, unless a test has chosen this name."""
    if not _ON:
        return
    with _lock:
        _hits[name] += 1
        hit = _hits[name]
        if _TRACE:
            with Path(_TRACE).open("a", encoding="utf-8") as trace:
                trace.write(f"{name}:{hit}\n")
    if _ARMED.startswith(f"{name}:{hit}:"):
        _act(name, _ARMED.rpartition(":")[2])


def _act(name: str, action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action in ("sigterm", "sigint"):
        os.kill(os.getpid(), signal.SIGTERM if action == "sigterm" else signal.SIGINT)
    elif action == "stop":
        # To this thread: a signal to the process may reach another thread, and this one would run on for a while.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    elif action == "sleep":
        time.sleep(3600)
    elif action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    elif action == "raise":
        raise FailpointError(name)
    else:
        raise ValueError(f"SYNCBLOCKS_FAILPOINT: unknown action {action!r}")
