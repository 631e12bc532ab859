"""What a run tells whoever watches it; the command line draws it, the Python API may pass its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from syncblocks.callbacks.delivery import Delivery, Outcome

    from ..plan.plan import Plan
    from ..store.model import PipelineRun


class Progress:
    """Does nothing; subclasses override what they show. Calls come from several threads, and must return at once."""

    def run_started(self, run: PipelineRun, plan: Plan) -> None:
        """The run is in the store, its plan is made; nothing has been read."""

    def stream_started(self, stream: str, destination_table: str, bookmark: dict[str, Any] | None) -> None:
        """A stream was claimed: its block runs have started."""

    def advanced(self, stream: str, *, records: int, size_bytes: int) -> None:
        """So many records and bytes (since the last call) have been read."""

    def committed(self, stream: str, *, records: int, bookmark: dict[str, Any] | None) -> None:
        """So many records (since the last call) are durable in the destination."""

    def retrying(self, stream: str, *, attempt: int, delay_s: float, error: str) -> None:
        """A try failed and will be repeated."""

    def stream_ended(self, stream: str, status: str, *, records: int | None, error: str | None) -> None:
        """The stream's block runs have ended."""

    def delivered(self, delivery: Delivery, outcome: Outcome, mark: str) -> None:
        """A callback was called; `mark` is done, retry or dead."""

    def message(self, text: str, *, level: str = "info") -> None:
        """Something a person should read: a recovery, a warning, a wait."""

    def run_ended(self, run: PipelineRun) -> None:
        """All streams have ended; callbacks may still be due."""

    def close(self) -> None:
        """Nothing more will be told; whoever draws leaves the terminal in order. May be repeated."""
