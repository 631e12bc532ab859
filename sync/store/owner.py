"""The owner of a run: one process of one boot of one machine, and whether it is alive."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from syncblocks.connectors.struct_helpers import asdict, replace


class Owner(Struct, frozen=True, kw_only=True):
    """Identity of a process, or of the tasks of a mapped run; no other one ever has the same."""

    host: str
    #: Changes with every boot; empty where the system does not tell.
    boot_id: str
    #: A pid means something only within its namespace (container).
    pid_namespace: str
    pid: int
    #: Clock ticks from boot to the start of the process: distinguishes it from a later process with the same pid.
    started: int

    @classmethod
    def of_held_run(cls) -> Owner:
        """Return the made-up owner of a mapped run. It is no process, so only its lease decides whether it is alive."""
        return cls(host=socket.gethostname(), boot_id="", pid_namespace="", pid=0, started=secrets.randbits(62))

    def departed(self) -> Owner:
        """Return the owner of a run that this process has left: no process has it, so that its lease decides."""
        return replace(self, boot_id="", pid_namespace="")

    @property
    def has_departed(self) -> bool:
        """Whether its process, which may live, has left the run; true of all where the system tells no boot."""
        return not (self.boot_id or self.pid_namespace) or self == current_owner()

    def encode(self) -> str:
        """Return the form that the store keeps; equal for equal owners."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def decode(cls, text: str) -> Owner:
        """Read what `encode` wrote."""
        return cls(**json.loads(text))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else f"tasks of the run that {self.host} holds"


#: (theirs, mine) -> alive, dead, or None: not visible from here.
Liveness = Callable[[Owner, Owner], bool | None]


def current_owner() -> Owner:
    """Return this process."""
    pid = os.getpid()
    return Owner(
        host=socket.gethostname(),
        boot_id=_read(Path("/proc/sys/kernel/random/boot_id")),
        pid_namespace=_pid_namespace(),
        pid=pid,
        started=_start_ticks(pid) or 0,
    )


def current_user() -> str:
    """Return the user of this process, as the text of an owner names a process."""
    import pwd

    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # as in many containers
        name = f"user {os.getuid()}"
    return f"{name} on {socket.gethostname()}"


def is_process_alive(theirs: Owner, mine: Owner) -> bool | None:
    """Return whether a process still runs; None if it is not visible from here, so that its lease decides."""
    if theirs == mine:
        return True
    is_visible = theirs.boot_id and (theirs.boot_id, theirs.pid_namespace) == (mine.boot_id, mine.pid_namespace)
    if not is_visible:
        return None
    return _start_ticks(theirs.pid) == theirs.started


def signal_process(theirs: Owner, mine: Owner, number: int) -> bool:
    """Send a signal to a process of this machine; False: there is none, or it is not visible from here.

    Raises:
        PermissionError: it is another user's.
    """
    if not is_process_alive(theirs, mine):
        return False
    try:
        process = os.pidfd_open(theirs.pid)
    except ProcessLookupError:
        return False
    try:
        # Looked at again: the pid may have become another process's before it was opened.
        is_same = is_process_alive(theirs, mine) is True
        if is_same:
            signal.pidfd_send_signal(process, number)
        return is_same
    except ProcessLookupError:
        return False
    finally:
        os.close(process)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _start_ticks(pid: int) -> int | None:
    """Return when a process started, in ticks since boot; None if there is none, or only its unreaped remains."""
    # The name, in parentheses, may hold spaces and parentheses itself.
    fields = _read_bytes(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    if len(fields) < 20 or fields[0] in (b"Z", b"X", b"x"):
        return None
    return int(fields[19])


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # ProcessLookupError too: it ended between open and read
        return b""
