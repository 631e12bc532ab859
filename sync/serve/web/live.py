"""What a run's page is told while it is open: its live part, rendered anew, as server-sent events."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TypeVar

import anyio
from anyio import to_thread
from msgspec import Struct
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ...errors import StoreUnreachable
from ...store.run_views import RunView
from .served import Served
from .sessions import session_of

#: Most open event streams of a server. Each page has one; a hidden page has none.
MOST_OPEN = 50
#: Seconds between two looks at a run; between two events of what has changed, and of what only has aged.
LOOK_S, EVENT_S, AGED_S = 0.5, 1.0, 2.0
#: After so long without an event there is one that says nothing.
BEAT_S = 15.0
#: Each look lets a run tell its figures for so long; after the second span it is told so again.
WATCH_S, WATCH_AGAIN_S = 10.0, 4.0
#: Threads that read the run store for all event streams: a store that hangs does not take those of the pages.
_THREADS = 4

_HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
#: The browser opens a stream again after so long.
_BEGIN = "retry: 3000\n\n"
#: For what lies between server and browser; the page does not see it.
_COMMENT = ": \n\n"

T = TypeVar("T")


class _Look(Struct):
    """The last look at a run; its lock lets one thread look at a time."""

    lock: threading.Lock
    at_s: float = 0.0
    watched_s: float = 0.0
    view: RunView | None = None


class Live:
    """The event streams of a server. Those of one run share each look at it."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._looks: dict[int, _Look] = {}
        self._lock = threading.Lock()
        self._open = 0
        #: Made in the event loop.
        self._limiter: anyio.CapacityLimiter | None = None

    def respond(self, request: Request, run_id: int, show: Callable[[RunView], str]) -> Response:
        """Return an event stream about a run; `show` renders what is sent, in a thread."""
        with self._lock:
            if self._open >= MOST_OPEN:
                text = f"{MOST_OPEN} pages are live already: reload this one instead\n"
                return PlainTextResponse(text, status_code=503, headers={"Retry-After": "30"})
            self._open += 1
        return _Events(self._events(request, run_id, show), self._leave)

    def _leave(self) -> None:
        with self._lock:
            self._open -= 1
            if not self._open:
                self._looks.clear()

    async def _events(self, request: Request, run_id: int, show: Callable[[RunView], str]) -> AsyncIterator[str]:
        """Yield events: `run` with the live part; `beat`; at the end `over` with the live part, or `stop`."""
        known: RunView | None = None
        sent, sent_s, asked_s = "", -BEAT_S, time.monotonic()
        yield _BEGIN
        while not self._served.is_stopping():
            now_s = time.monotonic()
            if now_s - asked_s >= WATCH_AGAIN_S:
                asked_s = now_s
                if not await self._in_thread(partial(_is_signed_in, request)):
                    return
            try:
                view = await self._in_thread(partial(self._view, run_id))
            except StoreUnreachable:  # the page notices that there is no event
                if now_s - sent_s >= BEAT_S:
                    sent_s = now_s
                    yield _COMMENT
                await asyncio.sleep(LOOK_S)
                continue
            if view is None:  # pruned
                break
            is_changed = known is None or replace(view, now=known.now) != known
            if view.is_over or now_s - sent_s >= (EVENT_S if is_changed else AGED_S):
                text = await self._in_thread(partial(show, view))
                if view.is_over:
                    yield _event("over", text)
                    return
                known = view
                if text != sent:
                    sent, sent_s = text, now_s
                    yield _event("run", text)
            if now_s - sent_s >= BEAT_S:
                sent_s = now_s
                yield _COMMENT + _event("beat", "")
            await asyncio.sleep(LOOK_S)
        yield _event("stop", "")

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(_THREADS)
        return await to_thread.run_sync(work, limiter=self._limiter)

    def _view(self, run_id: int) -> RunView | None:
        with self._lock:
            look = self._looks.setdefault(run_id, _Look(threading.Lock()))
        with look.lock:
            now_s = time.monotonic()
            if look.view is None or now_s - look.at_s >= 0.9 * LOOK_S:
                look.view = view = self._served.store.run_views.view(run_id)
                look.at_s = now_s
                if view is not None and view.is_active and now_s - look.watched_s >= WATCH_AGAIN_S:
                    self._served.store.watch(run_id, WATCH_S)
                    look.watched_s = now_s
            return look.view


class _Events(StreamingResponse):
    """An event stream that says when it has ended, however it does."""

    def __init__(self, events: AsyncIterator[str], leave: Callable[[], None]) -> None:
        super().__init__(events, headers=_HEADERS, media_type="text/event-stream")
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


def _is_signed_in(request: Request) -> bool:
    try:
        return session_of(request) is not None
    except StoreUnreachable:
        return True


def _event(kind: str, text: str) -> str:
    # A carriage return would end a line of an event.
    lines = text.replace("\r", "&#13;").split("\n")
    return f"event: {kind}\n" + "".join(f"data: {line}\n" for line in lines) + "\n"
