"""Named places where a fault can be injected: before, inside and after each commit.

Off (the usual case) a failpoint costs one look-up. `SYNCBLOCKS_FAILPOINT="name:hit:action"` acts at the hit-th time
that the name is reached; `SYNCBLOCKS_FAILPOINT_TRACE=FILE` appends every `name:hit` reached to a file, so that tests
enumerate commit points rather than list them. Lives here, lowest in the house, for connectors and engine alike.
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
    """Raised by the action `raise`; no code of ours catches it by name."""


def failpoint(name: str) -> None:
    """Do nothing, unless a test has armed this name."""
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
        # To this thread: sent to the process, another thread may take it, and this one run on for a while.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    elif action == "sleep":
        time.sleep(3600)
    elif action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    elif action == "raise":
        raise FailpointError(name)
    else:
        raise ValueError(f"SYNCBLOCKS_FAILPOINT: unknown action {action!r}")
