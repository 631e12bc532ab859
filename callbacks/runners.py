"""What makes one call after another for a queue: a child process, or this one."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TextIO

from .child import CallEnd, Child
from .invoke import DATA_MODULES, Functions, perform


class Runner(Protocol):
    """Makes the calls of one queue, on its thread."""

    def run(self, request: Mapping[str, Any], *, timeout_s: float) -> CallEnd:
        """Make one call; the request is that of `invoke.perform`."""

    def warm(self) -> None:
        """Prepare for a call that will want its parent's data, ahead of it."""

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

    def warm(self) -> None:
        """Start the child, which then imports what reads the data while the data is still on its way."""
        if self._child is None:
            self._child = Child(self._block, kill_grace_s=self._kill_grace_s, imports=DATA_MODULES)

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


class MaskedOutput:
    """A stream in the place of stdout: what is written is masked line by line, or up to where it is flushed."""

    def __init__(self, stream: TextIO, redact: Callable[[str], str]) -> None:
        self._stream = stream
        self._redact = redact
        self._held = ""
        # Other threads of this process print as well.
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        """Pass on whole lines; a secret may come in several pieces."""
        with self._lock:
            lines, newline, self._held = (self._held + text).rpartition("\n")
            if newline:
                self._stream.write(self._redact(lines + newline))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several pieces."""
        for text in lines:
            self.write(text)

    def flush(self) -> None:
        """Pass on what is held, such as a debugger's prompt."""
        with self._lock:
            held, self._held = self._held, ""
            if held:
                self._stream.write(self._redact(held))
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        # The terminal is the same one: its descriptor, encoding, and whether it is one.
        return getattr(self._stream, name)


class InlineRunner:
    """Calls functions in this process: no deadline, no isolation, output goes to the terminal, without secrets.

    Hooks, in which there is nothing to debug, are called by `hooks`: what a command prints would not be masked here.
    """

    def __init__(self, functions: Functions, redact: Callable[[str], str], hooks: Runner) -> None:
        self._functions = functions
        self._redact = redact
        self._hooks = hooks

    def run(self, request: Mapping[str, Any], *, timeout_s: float) -> CallEnd:
        """Make one call; of a function, however long it takes."""
        if "hook" in request:
            return self._hooks.run(request, timeout_s=timeout_s)
        outside = sys.stdout, sys.stderr
        masked = tuple(MaskedOutput(stream, self._redact) for stream in outside)
        sys.stdout, sys.stderr = masked
        try:
            answer = perform(self._functions, request)
        finally:
            sys.stdout, sys.stderr = outside
            for stream in masked:
                stream.flush()
        return CallEnd(kind=answer.kind, error=answer.error, output=b"", notes=answer.notes, value=answer.value)

    def warm(self) -> None:
        """Nothing: this process has other things to do meanwhile."""

    def interrupt(self) -> None:
        """End a hook; a call in this process cannot be ended."""
        self._hooks.interrupt()

    def close(self) -> None:
        """End the hooks' child."""
        self._hooks.close()


__all__ = ["ChildRunner", "InlineRunner", "Runner"]
