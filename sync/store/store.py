"""The run store: who ran what, how it ended, and who has yet to be told. The only writer of history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from syncblocks.callbacks.delivery import Callbacks

from ..clock import Clock
from .base import Liveness
from .close import Closing
from .database import open_database, store_exists
from .model import PipelineRun
from .outbox import Outbox
from .owner import Owner, current_owner, is_process_alive
from .recorded import run_kwargs
from .runs import Runs
from .state import States


class Store(Runs, Closing, States):
    """An opened store. Thread-safe; every write to a run demands that `owner` owns it. Close it when done."""

    @classmethod
    def open(
        cls,
        url: str,
        *,
        clock: Clock | None = None,
        folder: Path | None = None,
        owner: Owner | None = None,
        liveness: Liveness = is_process_alive,
    ) -> Store:
        """Open a store, made or migrated first if need be.

        Args:
            url: `sqlite:///PATH` or `postgresql://...`.
            clock: For tests; PostgreSQL's own time counts there.
            folder: From which a relative SQLite path counts; None: the current one.
            owner: In whose name to write; a worker of another process writes in its coordinator's.
            liveness: For tests.

        Raises:
            ConfigError: the URL names no store, or its driver is not installed.
            StateError: it cannot be reached, is damaged, on a network file system, or newer than this program.
        """
        database = open_database(url, clock=clock or Clock(), folder=folder)
        return cls(database, owner or current_owner(), liveness)

    @staticmethod
    def exists(url: str, folder: Path | None = None) -> bool:
        """Whether a store is there; creates nothing."""
        return store_exists(url, folder)

    @property
    def url(self) -> str:
        """The URL without its password."""
        return self._database.url

    @property
    def owner(self) -> Owner:
        """In whose name this store writes."""
        return self._me

    def close(self) -> None:
        """Close every connection."""
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def outbox(self, pipeline: str, callbacks: Callbacks | None = None, *, is_served: bool = False) -> Outbox:
        """Return the pipeline's outbox.

        Args:
            pipeline: Whose deliveries.
            callbacks: Of its file, to deliver; None: only to look, count and retry.
            is_served: Its queues are served until it is closed.
        """
        return Outbox(self, pipeline, callbacks, is_served=is_served)

    def run_kwargs(self, run: PipelineRun) -> dict[str, Any]:
        """Return the recorded kwargs that all blocks of a run share, variables included."""
        with self._database.read() as connection:
            return run_kwargs(connection, run.id, run.attempt)


__all__ = ["Store"]
