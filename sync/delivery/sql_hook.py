"""A `sql` callback: the engine runs the statement itself, since a child process cannot open a locked database."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, cast

from syncblocks.callbacks.child_process import CallEnd
from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.protocols import RunsStatements
from syncblocks.connectors.registry import make_destination

from ..config import Pipeline

#: Seconds between two interrupts of a statement past its deadline.
_INTERRUPT_EVERY_S = 0.2


class SQLCall:
    """One call of a `sql` callback; implements `syncblocks.callbacks.dispatcher.LocalCall`.

    It has a separate connector, closed after the statement, so that no database file stays locked.
    """

    def __init__(self, pipeline: Pipeline, statement: str, parameters: Mapping[str, Any], key: str) -> None:
        """Prepare the call and open nothing; `key` names the call."""
        self._pipeline = pipeline
        self._statement = statement
        self._parameters = parameters
        self._name = f"callback {key}"
        self._is_interrupted = self._is_late = False
        self._wake = threading.Event()
        self._is_over = threading.Event()

    def interrupt(self) -> None:
        """End the statement soon."""
        self._is_interrupted = True
        self._wake.set()

    def run(self, timeout_s: float) -> CallEnd:
        """Run the statement within `timeout_s`."""
        block = self._pipeline.destination
        destination = cast("RunsStatements", make_destination(block.connector, block.config, self._pipeline.folder))
        watch = threading.Thread(target=self._watch, args=(destination, timeout_s), name="callbacks-sql", daemon=True)
        watch.start()
        try:
            destination.execute(self._statement, self._parameters, name=self._name)
        except ConnectorError as error:
            return self._failed(error, timeout_s)
        finally:
            self._is_over.set()
            self._wake.set()
            watch.join()
            destination.close()
        return CallEnd(kind="returned", error=None, output=b"")

    def _failed(self, error: ConnectorError, timeout_s: float) -> CallEnd:
        if self._is_late:
            return CallEnd(kind="timeout", error=f"still running after {timeout_s:g} s (timeout_s)", output=b"")
        if self._is_interrupted:
            return CallEnd(kind="interrupted", error="cut short, because the program stops", output=b"")
        return CallEnd(kind="raised", error=f"sql: {error}", output=b"")

    def _watch(self, destination: RunsStatements, timeout_s: float) -> None:
        """Interrupt the statement at its deadline or on request, repeatedly, since it may still be connecting."""
        self._is_late = not self._wake.wait(timeout_s)
        while not self._is_over.wait(_INTERRUPT_EVERY_S):
            destination.interrupt(self._name)
