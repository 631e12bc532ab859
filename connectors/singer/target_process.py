"""Run a target: records on stdin, states on stdout, its log on stderr, success by its exit status."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from ..errors import ConnectorError, FatalConnectorError, RetriableError
from ..programs.process import PluginProcess, PrivateFiles, enlarge

log = logging.getLogger("syncblocks")


class RunningTarget(Protocol):
    """A running target that takes lines and echoes states: a process, or a class in a thread."""

    def write(self, data: bytes | memoryview) -> None:
        """Pass on whole lines; wait while the target is busy."""
        ...

    def states(self) -> list[Any]:
        """Return the states echoed since the last call, without waiting."""
        ...

    def end(self) -> list[Any]:
        """End the input, wait for the target's end, return the last states; raise if the target has failed."""
        ...

    def interrupt(self) -> None:
        """End the target soon, from any thread."""
        ...

    def close(self) -> None:
        """End the target at once if it still runs, and clean up."""
        ...


class TargetProcess:
    """A target as a process."""

    def __init__(
        self,
        command: Sequence[str],
        config: Mapping[str, Any],
        *,
        label: str,
        folder: Path,
        env: Mapping[str, str],
        secrets: Sequence[str],
        hang_timeout_s: float | None,
    ) -> None:
        self._label = label
        self._hang_timeout_s = hang_timeout_s
        self._states: deque[Any] = deque()
        self._failure: Exception | None = None
        self._has_ended = False
        self._stack = ExitStack()
        with ExitStack() as stack:
            place = stack.enter_context(PrivateFiles()).write("config.json", config)
            self._plugin = stack.enter_context(
                PluginProcess(
                    label,
                    [*command, "--config", str(place)],
                    folder=folder,
                    env=env,
                    secrets=secrets,
                    takes_input=True,
                )
            )
            self._stack = stack.pop_all()
        self._input = self._plugin.input.fileno()
        enlarge(self._input)
        os.set_blocking(self._input, False)
        self._reader = threading.Thread(target=self._read, name=label, daemon=True)
        self._reader.start()

    def write(self, data: bytes | memoryview) -> None:
        """Write whole lines to the target's stdin."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._input, rest) :]
            except BlockingIOError:
                if not select.select([], [self._input], [], self._hang_timeout_s)[1]:
                    raise self._hangs("takes no record") from None
            except (BrokenPipeError, OSError) as error:
                raise self._verdict() from error

    def states(self) -> list[Any]:
        """Return the states echoed since the last call."""
        found = []
        while self._states:
            found.append(self._states.popleft())
        return found

    def end(self) -> list[Any]:
        """Close the target's stdin and wait for its exit status."""
        self._plugin.input.close()
        self._reader.join(self._hang_timeout_s)
        if self._reader.is_alive():
            raise self._hangs("does not end")
        if self._failure is not None:
            raise self._failure
        states = self.states()
        if not states and self._plugin.reports_crash():
            raise FatalConnectorError(
                f"{self._label} ended with status 0, but did not echo the state{self._plugin.last_words()}",
                connector="singer",
            )
        self._has_ended = True
        return states

    def interrupt(self) -> None:
        """End the target; what it has not written is lost."""
        self._plugin.interrupt()
        self._plugin._signal(signal.SIGKILL)

    def close(self) -> None:
        """Kill the target if it still runs: at the end of its input it would write what it holds."""
        if not self._has_ended:
            self._plugin._signal(signal.SIGKILL)
        self._reader.join(5)
        self._stack.close()

    def _read(self) -> None:
        """Read the target's output to its end."""
        try:
            for block in self._plugin.blocks():
                self._states.extend(parse_states(block.splitlines(), self._label))
        except (ConnectorError, OSError, ValueError) as error:
            self._failure = error

    def _verdict(self) -> Exception:
        """Return the error of a target that takes no more lines."""
        self._reader.join(10)
        if self._failure is not None:
            return self._failure
        said = self._plugin.last_words()
        return RetriableError(
            f"{self._label} ended with status 0 before it had read all records{said}", connector="singer"
        )

    def _hangs(self, how: str) -> Exception:
        return FatalConnectorError(
            f"{self._label} hangs: it {how} for {self._hang_timeout_s:g} s (`hang_timeout_s`)"
            + self._plugin.last_words(),
            connector="singer",
        )


def parse_states(lines: Iterable[bytes], label: str) -> list[Any]:
    """Return the states among a target's lines; log the other lines."""
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            if line.strip():
                log.info("%s: %s", label, line.decode("utf-8", "replace")[:2000])
    return found


__all__ = ["RunningTarget", "TargetProcess", "parse_states"]
