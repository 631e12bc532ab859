"""How the pipelines of a server stand. To judge all of them is dear: visitors share a look for a moment."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from ...freshness.look import Looked, look_at_files, look_at_one, worst_first
from ...store.freshness_facts import Facts
from .served import Served

#: A look counts for so long, or for a multiple of what it took; the next visitor asks for another one, and waits so
#: long for it if there is an older one that is not too old.
FRESH_S, TIMES_FRESH, PATIENCE_S, TOO_OLD_S = 2.0, 4.0, 0.1, 60.0


class Look(Struct, frozen=True):
    """How all pipelines stand."""

    #: The worst first.
    looked: tuple[Looked, ...]
    at: datetime
    #: Monotonic, of its begin.
    at_s: float
    took_s: float


class Looks:
    """Looks at the pipelines of a server's files, in a thread of its own. Thread-safe."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._lock = threading.Lock()
        self._last: Look | None = None
        self._next: Future[Look] | None = None

    def all(self) -> Look:
        """Return how all pipelines stand, or stood at most a minute ago.

        Raises:
            StoreUnreachable: the run store does not answer.
        """
        with self._lock:
            now = self._served.clock.monotonic()
            age = TOO_OLD_S if self._last is None else now - self._last.at_s
            if self._last is not None and age < max(FRESH_S, TIMES_FRESH * self._last.took_s):
                return self._last
            if self._next is None:
                self._next = Future()
                threading.Thread(target=self._look, args=(self._next,), name="look", daemon=True).start()
            last, coming = self._last, self._next
        try:
            return coming.result(None if age >= TOO_OLD_S else PATIENCE_S)
        except TimeoutError:
            assert last is not None, "without one there is no limit"
            return last

    def one(self, pipeline: str) -> tuple[Looked, Facts] | None:
        """Return how a pipeline stands right now; None: no file that can be read is of that name."""
        head = self._served.files.heads.get(pipeline)
        if head is None:
            return None
        looked, facts = look_at_one(self._served.store.fact_reads(), head)
        return self._shown(looked), facts

    def without_head(self, pipeline: str) -> Looked | None:
        """Return how a broken file stands, or a pipeline without its file. Return `None` if `one` returns it."""
        return next((each for each in self.all().looked if each.pipeline == pipeline and each.head is None), None)

    def _shown(self, looked: Looked) -> Looked:
        """Name files without the path of the folder."""

        def named(text: str) -> str:
            return text.replace(f"{self._served.folder}/", "")

        findings = tuple(replace(each, what=named(each.what)) for each in looked.judgement.findings)
        return replace(looked, why=named(looked.why), judgement=replace(looked.judgement, findings=findings))

    def _look(self, coming: Future[Look]) -> None:
        files, clock = self._served.files, self._served.clock
        at_s, at = clock.monotonic(), clock.now()
        try:
            looked = look_at_files(self._served.store, self._served.folder, files.heads, files.broken, files.is_awaited)
            found = Look(worst_first(map(self._shown, looked)), at, at_s, clock.monotonic() - at_s)
        except BaseException as error:
            with self._lock:
                self._next = None
            coming.set_exception(error)
            return
        with self._lock:
            self._last, self._next = found, None
        coming.set_result(found)
