"""Which pipelines have runs past the limits of their `history`. Runs remove them at their end; this is for the rest."""

from __future__ import annotations

from collections.abc import Mapping

from ..clock import Clock
from ..config.head import Head
from ..config.run_retention import HistorySettings
from ..store import Store

#: A pipeline is looked at once in so long; most that one turn looks at.
EVERY_S, MOST_LOOKS = 3600.0, 5


class OldRuns:
    """Looks at a few pipelines in each turn."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        #: Pipeline -> when it is looked at again, monotonic.
        self._next_at: dict[str, float] = {}

    def find(self, heads: Mapping[str, Head]) -> str | None:
        """Return a pipeline of which something is to be removed; None: nothing was found in this turn."""
        now = self._clock.monotonic()
        self._next_at = {name: at for name, at in self._next_at.items() if name in heads}
        due = [name for name, head in heads.items() if head.history is not None and self._next_at.get(name, 0.0) <= now]
        for name in due[:MOST_LOOKS]:
            self._next_at[name] = now + EVERY_S
            history = heads[name].history
            if history is not None and self._has_old(name, history):
                return name
        return None

    def _has_old(self, pipeline: str, history: HistorySettings) -> bool:
        keep, keep_runs = history.kept_for, history.keep_runs
        after: int | None = 0
        while after is not None:
            past = self._store.past_runs(pipeline, keep=keep, keep_runs=keep_runs, after=after)
            if past.runs:
                return True
            after = past.last
        return bool(self._store.ticks_without_run(pipeline, keep=keep, keep_runs=keep_runs))
