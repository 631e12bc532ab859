"""What makes one call after another for a queue: a child process, or this one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any, Protocol

from .child import CallEnd, Child
from .invoke import Functions, perform


class Runner(Protocol):
    """Makes the calls of one queue, on its thread."""

    def run(self, request: Mapping[str, Any], *, timeout_s: float) -> CallEnd:
        """Make one call; the request is that of `invoke.perform`."""

    def interrupt(self) -> None:
        """End a call under way soon; from any thread."""

    def close(self) -> None:
        """Give back what is held."""


class ChildRunner:
    """Calls in a child process that is started when needed and replaced when worn."""

    def __init__(self, block: str, kill_grace_s: float, recycle_after: int, log: logging.Logger) -> None:
        self._block = block
        self._kill_grace_s = kill_grace_s
        self._recycle_after = recycle_after
        self._log = log
        self._child: Child | None = None
        self._is_interrupted = False
        self._retiring: list[tuple[Child, threading.Thread]] = []

    def run(self, request: Mapping[str, Any], *, timeout_s: float) -> CallEnd:
        """Make one call."""
        child = self._child
        if child is None:
            child = self._child = Child(self._block, kill_grace_s=self._kill_grace_s)
        if self._is_interrupted:
            child.interrupt()
        try:
            end = child.call(request, timeout_s=timeout_s)
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

    def interrupt(self) -> None:
        """End what runs."""
        self._is_interrupted = True
        for child in (self._child, *(child for child, _ in self._retiring)):
            if child is not None:
                child.interrupt()

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.exit(0.0 if self._is_interrupted else 1.0)
            self._child = None
        for child, thread in self._retiring:
            child.interrupt()
            thread.join()

    def _retire(self, child: Child, worn: str | None) -> None:
        """Let a child end in good order, in the background: the next call does not wait for it."""
        if worn is not None:
            self._log.info("callback block %s: its process is replaced: %s", self._block, worn)
        self._retiring = [(old, thread) for old, thread in self._retiring if thread.is_alive()]
        thread = threading.Thread(
            target=child.exit, args=(self._kill_grace_s,), name=f"callbacks-exit-{self._block}", daemon=True
        )
        thread.start()
        self._retiring.append((child, thread))


class InlineRunner:
    """Calls in this process: no deadline, no isolation, output goes to the terminal."""

    def __init__(self, functions: Functions) -> None:
        self._functions = functions

    def run(self, request: Mapping[str, Any], *, timeout_s: float) -> CallEnd:
        """Make one call, however long it takes."""
        answer = perform(self._functions, request)
        return CallEnd(kind=answer.kind, error=answer.error, output=b"", notes=answer.notes, value=answer.value)

    def interrupt(self) -> None:
        """A call in this process cannot be ended."""

    def close(self) -> None:
        """Nothing is held."""


__all__ = ["ChildRunner", "InlineRunner", "Runner"]
