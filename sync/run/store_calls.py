"""Calls to the run store for the streams of one attempt, in any process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from syncblocks.callbacks.kwargs import with_variables

from ..config import resolve_references
from ..flow.feed import Budget
from ..flow.transform import Transformer
from ..plan.plan import PlannedStream
from ..session.session import PipelineSession
from ..store import Store
from ..store.model import RETRY, ErrorInfo, LostRun, PipelineRun, StreamOutcome
from .context import StreamContext
from .progress import Progress
from .taken_streams import takes_streams_back
from .transformers import make_transformers, why_keys_are_kept


class StoreCalls:
    """The streams' calls to the run store, except their close."""

    def __init__(
        self,
        session: PipelineSession,
        store: Store,
        run: PipelineRun,
        *,
        notify: Callable[[], None] = lambda: None,
        lose: Callable[[], None] = lambda: None,
    ) -> None:
        """Use an opened store.

        Args:
            session: the opened pipeline.
            store: writes in the name of the run's owner.
            run: the run.
            notify: called when deliveries may be due.
            lose: called when the store refuses writes of this process.
        """
        self._session = session
        self._store = store
        self._run = run
        self._notify = notify
        self._lose = lose

    def context(
        self,
        progress: Progress,
        budget: Budget,
        *,
        close_stream: Callable[[StreamOutcome], None],
        is_owner: Callable[[], bool],
    ) -> StreamContext:
        """Return the streams' shared state; `close_stream` and `is_owner`: see `StreamContext`."""
        session = self._session
        return StreamContext(
            pipeline=session.pipeline,
            run=self._run,
            source=session.source,
            source_name=session.source_name,
            source_can=session.source_can,
            destination=session.destination,
            destination_can=session.destination_can,
            progress=progress,
            redactor=session.redactor,
            spool_folder=session.pipeline.spool_folder,
            budget=budget,
            transformers=self._transformers,
            close_stream=close_stream,
            report_retry=self._report_retry,
            announce_change=self._announce_change,
            resolve_change=self._resolve_change,
            is_owner=is_owner,
            takes_streams_back=lambda: takes_streams_back(session, self._store, self._run),
            log_until=session.log_until,
        )

    def _report_retry(self, stream: str, block: str, error: ErrorInfo) -> None:
        try:
            self._store.tell(self._run.id, stream, block, RETRY, error=error)
        except LostRun:
            self._lose()
        self._notify()

    def _announce_change(self, stream: str, changes: Sequence[Mapping[str, Any]], mark: Mapping[str, Any]) -> bool:
        # LostRun passes through the destination's load and so prevents the commit.
        return self._store.hold(self._run.id, stream, self._session.pipeline.destination.block, changes, mark)

    def _resolve_change(self, stream: str, is_made: bool) -> None:
        try:
            self._store.release_held(self._run.id, stream, is_committed=is_made)
        except LostRun:
            self._lose()
        self._notify()

    def _transformers(self, planned: PlannedStream) -> list[Transformer]:
        if not planned.transformers:
            return []
        pipeline = self._session.pipeline
        run = with_variables(self._store.run_kwargs(self._run), pipeline.variable_references)
        recorded = run | {
            "stream": pipeline.called(planned.name),
            "destination_table": planned.key.destination_table,
        }
        kwargs = resolve_references(recorded, pipeline)
        why = why_keys_are_kept(planned.stream, planned.policy)
        code, blocks = self._session.code, planned.transformers
        return make_transformers(pipeline, code, blocks, kwargs, kept_keys=why)
