"""Runners: make the calls of one queue, in a child process or in this process."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .child_process import CallEnd, Child
from .invoke import DATA_MODULES, FunctionCache, perform
from .mage import mage_modules
from .masked_output import MaskedOutput
from .triggers import Ask, asking


class CallRunner(Protocol):
    """Makes the calls of one queue, on the queue's thread."""

    def run(self, request: Mapping[str, Any], *, timeout_s: float, ask: Ask) -> CallEnd:
        """Make one call; see `invoke.perform` for the request. `ask` answers questions of the function."""

    def warm(self) -> None:
        """Prepare for a call that needs its parent's data."""

    def interrupt(self) -> None:
        """End the running call soon; safe from any thread."""

    def close(self) -> None:
        """Release all resources."""


class ChildRunner:
    """Calls functions in a child process, which is started when needed and replaced if it leaks resources."""

    def __init__(self, block: str, kill_grace_s: float, recycle_after: int, log: logging.Logger) -> None:
        self._block = block
        self._kill_grace_s = kill_grace_s
        self._recycle_after = recycle_after
        self._log = log
        self._child: Child | None = None
        self._is_interrupted = False
        self._retiring: list[tuple[Child, threading.Thread]] = []

    def run(self, request: Mapping[str, Any], *, timeout_s: float, ask: Ask) -> CallEnd:
        """Make one call."""
        child = self._child
        if child is None:
            child = self._child = Child(self._block, kill_grace_s=self._kill_grace_s)
        if self._is_interrupted:
            child.interrupt()
        try:
            end = child.call(request, timeout_s=timeout_s, ask=ask)
        except BaseException:
            self._child = None
            child.kill()
            raise
        if not child.is_alive:
            self._child = None
        elif end.worn is not None or child.calls >= self._recycle_after:
            self._child = None
            self._retire(child, end.worn)
        return end

    def warm(self) -> None:
        """Start the child, which imports pyarrow and pandas while the data is still being loaded."""
        if self._child is None:
            self._child = Child(self._block, kill_grace_s=self._kill_grace_s, imports=DATA_MODULES)

    def interrupt(self) -> None:
        """See `CallRunner`."""
        self._is_interrupted = True
        for child in (self._child, *(child for child, _ in self._retiring)):
            if child is not None:
                child.interrupt()

    def close(self) -> None:
        """See `CallRunner`."""
        if self._child is not None:
            self._child.exit(0.0 if self._is_interrupted else 1.0)
            self._child = None
        for child, thread in self._retiring:
            child.interrupt()
            thread.join()

    def _retire(self, child: Child, worn: str | None) -> None:
        """End a child in the background, so the next call does not wait for it."""
        if worn is not None:
            self._log.info("callback block %s: its process is replaced because %s", self._block, worn)
        self._retiring = [(old, thread) for old, thread in self._retiring if thread.is_alive()]
        thread = threading.Thread(
            target=child.exit, args=(self._kill_grace_s,), name=f"callbacks-exit-{self._block}", daemon=True
        )
        thread.start()
        self._retiring.append((child, thread))


class InlineRunner:
    """Calls functions in this process, without deadline or isolation; their output goes to the terminal, masked.

    Hooks run in a child (`hooks`): they need no debugger, and the output of a command could not be masked here.
    """

    def __init__(self, functions: FunctionCache, redact: Callable[[str], str], hooks: CallRunner) -> None:
        self._functions = functions
        self._redact = redact
        self._hooks = hooks

    def run(self, request: Mapping[str, Any], *, timeout_s: float, ask: Ask) -> CallEnd:
        """Make one call; a function has no deadline."""
        if "hook" in request:
            return self._hooks.run(request, timeout_s=timeout_s, ask=ask)
        outside = sys.stdout, sys.stderr
        masked = tuple(MaskedOutput(stream, self._redact) for stream in outside)
        sys.stdout, sys.stderr = masked
        try:
            with asking(ask), mage_modules():
                answer = perform(self._functions, request)
        finally:
            sys.stdout, sys.stderr = outside
            for stream in masked:
                stream.flush()
        return CallEnd(kind=answer.kind, error=answer.error, output=b"", notes=answer.notes, value=answer.value)

    def warm(self) -> None:
        """Do nothing."""

    def interrupt(self) -> None:
        """End a running hook; a function in this process cannot be ended."""
        self._hooks.interrupt()

    def close(self) -> None:
        """See `CallRunner`."""
        self._hooks.close()
