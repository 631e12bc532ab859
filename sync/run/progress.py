"""Calls by which a run reports its progress. The command line shows them; the Python API may pass its own object."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from syncblocks.callbacks.protocols import Delivery, Outcome

    from ..plan.plan import Plan
    from ..store.model import PipelineRun
    from .results import StreamResult


log = logging.getLogger("syncblocks")


class Progress:
    """Does nothing; subclasses override methods. Calls come from several threads and must return quickly."""

    def run_started(self, run: PipelineRun, plan: Plan) -> None:
        """The run is recorded in the store with its plan; no record was read yet."""

    def stream_started(self, stream: str, destination_table: str, bookmark: dict[str, Any] | None) -> None:
        """A stream was claimed: its block runs have started."""

    def expected(self, stream: str, *, records: int) -> None:
        """The source expects to read so many records; it may say so again."""

    def advanced(self, stream: str, *, records: int, size_bytes: int) -> None:
        """These records and bytes were read since the last call."""

    def read_ended(self, stream: str) -> None:
        """All records were read; the destination still loads them."""

    def committed(self, stream: str, *, records: int, bookmark: dict[str, Any] | None) -> None:
        """These records were committed in the destination since the last call."""

    def rejected(self, stream: str, *, records: int) -> None:
        """The destination could not store these records of a commit; they are kept beside the table."""

    def retrying(self, stream: str, *, attempt: int, delay_s: float, error: str) -> None:
        """An attempt failed and will be repeated."""

    def stream_ended(self, stream: str, status: str, *, records: int | None, error: str | None) -> None:
        """The stream's block runs have ended."""

    def stream_result(self, result: StreamResult) -> None:
        """A stream's end with all figures; follows `stream_ended`."""

    def delivered(self, delivery: Delivery, outcome: Outcome, mark: str) -> None:
        """A callback was called; `mark` is done, retry or dead."""

    def message(self, text: str, *, level: str = "info") -> None:
        """A message for the user: a recovery, a warning, a wait."""

    def run_ended(self, run: PipelineRun) -> None:
        """All streams have ended; callbacks may still be due."""

    def close(self) -> None:
        """No call follows; restore the terminal. Idempotent."""


class GuardedProgress(Progress):
    """Passes calls on to others; the first error of each of their methods becomes a warning.

    An exception that is no `Exception`, such as SystemExit, stops the run; the run's owner raises it after the run.
    """

    def __init__(self, *inner: Progress) -> None:
        self._inner = inner
        self._told = set[str]()
        #: The first exit, if a method has raised one.
        self.exit: BaseException | None = None

    def _hand_on(self, method: str, *args: Any, **kwargs: Any) -> None:
        for inner in self._inner:
            try:
                getattr(inner, method)(*args, **kwargs)
            except Exception as error:  # a watcher's error must not stop the run
                if (name := f"{type(inner).__name__}.{method}") not in self._told:
                    self._told.add(name)
                    why = f"{type(error).__name__}: {error}"
                    log.warning("progress: %s: %s", name, why, exc_info=log.isEnabledFor(10))
            except BaseException as error:  # it may come from a thread that must end its stream first
                self.exit = self.exit or error

    def raise_exit(self) -> None:
        """Raise the exit, if there was one."""
        if self.exit is not None:
            raise self.exit


def _handing_on(method: str) -> Callable[..., None]:
    return lambda self, *args, **kwargs: self._hand_on(method, *args, **kwargs)


for _method in [name for name in vars(Progress) if not name.startswith("_")]:
    setattr(GuardedProgress, _method, _handing_on(_method))
