"""Who is told outside: `--alert` of what is wrong, `--heartbeat` that the server lives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ..clock import Clock
from ..errors import StateError
from ..freshness import alert, heartbeat
from ..freshness.look import FolderLook, StoreLook, look_at_files
from ..store import Store
from .files import PipelineFiles
from .server import LIVES_S, Server

#: Seconds between two looks, of which each is at most one message, and between two heartbeats.
ALERT_S, HEARTBEAT_S = 30.0, 60.0
#: No server has looked if this one has not for so long; what came of it has so long to catch up.
GAP_S, CATCH_UP_S = 90.0, 600.0

Say = Callable[[str, str], None]


class Alerts:
    """Judges the pipelines that the server takes, and tells what is new and what is over."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        files: PipelineFiles,
        server: Server,
        urls: Sequence[str],
        clock: Clock,
        say: Say,
    ) -> None:
        """Use the server's store and files; `urls`: of `alert_urls`."""
        self._store = store
        self._folder = folder
        self._files = files
        self._server = server
        self._urls = urls
        self._clock = clock
        self._told = _Once(say)
        self._looked_at = self._gap_until = -math.inf

    def look(self) -> None:
        """Look once. A pipeline is judged when the server has decided about its times."""
        taken = self._server.taken
        if taken is None:
            return
        now = self._clock.monotonic()
        if now - self._looked_at > GAP_S:
            self._gap_until = now + CATCH_UP_S
        warnings: list[str] = []
        try:
            looked = look_at_files(
                self._store,
                self._folder,
                taken.heads,
                taken.broken,
                self._files.is_awaited,
                is_after_gap=now < self._gap_until,
            )
            self._looked_at = now
            look = FolderLook(folder=self._folder, looked=looked, stores=(StoreLook(self._store, looked),))
            alert(look, self._urls, warnings.append)
        except StateError:  # the server says so, and the next look tells
            return
        self._told.say(warnings)


class Heartbeat:
    """Calls a URL, as long as the server takes its turns."""

    def __init__(self, server: Server, url: str, clock: Clock, say: Say) -> None:
        self._server = server
        self._url = url
        self._clock = clock
        self._told = _Once(say)

    def beat(self) -> None:
        """Call the URL, unless no turn has come to its end for a while: the run store may not answer."""
        if self._clock.monotonic() - self._server.turned_at <= LIVES_S:
            why = heartbeat(self._url)
            self._told.say([] if why is None else [f"heartbeat: {why}"])


class _Once:
    """Says a text when it is new, not each time."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._last: frozenset[str] = frozenset()

    def say(self, texts: Iterable[str]) -> None:
        """Say those of some warnings that were not among the last ones."""
        found = frozenset(texts)
        for text in sorted(found - self._last):
            self._say(text, "warning")
        self._last = found
