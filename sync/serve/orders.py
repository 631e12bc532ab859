"""What people and programs order through a server: each order is written with who has given it."""

from __future__ import annotations

import secrets
from datetime import datetime

from ..clock import Clock
from ..config.globs import exact_pattern
from ..errors import AlreadyRunning, NothingToRetry, NotLatest, StateError, StoreUnreachable, SyncError, nearest_match
from ..store import Store
from ..store.model import PipelineRun
from ..store.ticks import OrderedBy, OtherOrder, Tick, TickOptions, TooManyTicks
from .files import PipelineFiles, ServedFile

#: Most ticks of a pipeline that wait, but for those of its schedule.
MOST_WAITING = 100


class OrderRefused(SyncError):
    """An order is not accepted; nothing was written."""

    code = "refused"

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        #: As of HTTP. 400: the order is wrong; 404: what it names is not there; 409: it cannot be carried out as things
        #: stand; 429: too many wait; 503: the server has just begun.
        self.status = status


class Orders:
    """Orders about the pipelines of a server's files. Thread-safe.

    Each method raises `OrderRefused`, and `StoreUnreachable`. `who` is written with the order.
    """

    def __init__(self, store: Store, files: PipelineFiles, clock: Clock) -> None:
        self._store = store
        self._files = files
        self._clock = clock

    def run(
        self,
        pipeline: str,
        options: TickOptions,
        *,
        who: str,
        key: str | None = None,
        order_hash: str | None = None,
    ) -> Tick:
        """Order a run.

        Args:
            pipeline: Which one.
            options: What the run is to do.
            who: Who orders it.
            key: Unique among the orders of `who`; one that comes again finds its tick. None: this one never does.
            order_hash: Of all that is ordered; the same key with another hash is refused.
        """
        by = OrderedBy(who=who, order_hash=order_hash)
        return self._order(pipeline, options, by, key=secrets.token_hex(16) if key is None else f"{who} {key}")

    def read_anew(self, pipeline: str, stream: str, *, who: str) -> Tick:
        """Order a run that replaces the table of one stream, and starts without its bookmark."""
        options = TickOptions(streams=(exact_pattern(stream),), full_refresh=True)
        by = OrderedBy(who=who, what="read anew", stream=stream)
        return self._order(pipeline, options, by, key=secrets.token_hex(16))

    def retry(self, run_id: int, *, who: str) -> Tick:
        """Order a new attempt of a run, which must be the latest and have failed; twice is one tick."""
        self.file(self._run(run_id).pipeline)
        try:
            return self._store.order_retry(run_id, OrderedBy(who=who, what="retry"))
        except (AlreadyRunning, NotLatest, NothingToRetry) as error:
            raise OrderRefused(_short(error), status=409) from error

    def cancel(self, run_id: int, *, who: str) -> PipelineRun:
        """Ask the process of a run to stop; return the run as it stands."""
        run = self._run(run_id)
        if run.is_active:
            try:
                self._store.request_cancel(run_id, who=who)
            except StoreUnreachable:
                raise
            except StateError:  # it has ended meanwhile
                run = self._run(run_id)
        if not run.is_active:
            raise OrderRefused(f"run {run_id} is finished: there is nothing to cancel", status=409)
        return self._run(run_id)

    def deliver(self, pipeline: str, key: str, *, who: str) -> None:
        """Make a dead delivery due again."""
        self.file(pipeline)
        deliveries = self._store.outbox(pipeline).deliveries
        if deliveries.retry(key=key, who=who):
            return
        found = deliveries.records(keys=[key])
        if not found:
            raise OrderRefused(f"pipeline {pipeline!r} has no delivery {key!r}", status=404)
        raise OrderRefused(f"delivery {key!r} is {found[0].state}: only a dead one is delivered again", status=409)

    def pause(self, pipeline: str, *, until: datetime | None = None, reason: str | None = None, who: str) -> None:
        """Let the schedule of a pipeline start nothing until it is resumed, or until an aware moment."""
        file = self.file(pipeline)
        if file.schedule is None:
            raise OrderRefused(f"pipeline {pipeline!r} has no schedule: there is nothing to pause", status=409)
        if until is not None and until <= self._clock.now():
            raise OrderRefused(f"until {until:%Y-%m-%dT%H:%M:%SZ} has passed: name a later time", status=400)
        self._store.schedules.pause(pipeline, str(file.path), file.schedule, until=until, reason=reason, who=who)

    def resume(self, pipeline: str, *, who: str) -> None:
        """End the pause of a schedule."""
        self.file(pipeline)
        if not self._store.schedules.resume(pipeline, who=who):
            raise OrderRefused(f"the schedule of pipeline {pipeline!r} is not paused", status=409)

    def file(self, pipeline: str) -> ServedFile:
        """Return the file of a pipeline."""
        usable = self._files.usable
        if pipeline in usable:
            return usable[pipeline]
        if self._files.is_reading:
            raise OrderRefused("the pipeline files were not read yet: order again in a few seconds", status=503)
        nearest = nearest_match(pipeline, usable)
        guess = "" if nearest is None else f"; did you mean {nearest!r}?"
        raise OrderRefused(f"no pipeline file of this server is named {pipeline!r}{guess}", status=404)

    def _order(self, pipeline: str, options: TickOptions, by: OrderedBy, *, key: str) -> Tick:
        self.file(pipeline)
        try:
            return self._store.order_tick(
                pipeline,
                key,
                trigger="api",
                causes=(),
                kind="api",
                options=options,
                by=by,
                most_waiting=MOST_WAITING,
            )
        except OtherOrder as error:
            raise OrderRefused(str(error), status=409) from error
        except TooManyTicks as error:
            raise OrderRefused(str(error), status=429) from error

    def _run(self, run_id: int) -> PipelineRun:
        try:
            return self._store.run(run_id)
        except StoreUnreachable:
            raise
        except StateError as error:
            raise OrderRefused(str(error), status=404) from error


def _short(error: SyncError) -> str:
    """Return a message without the ways out of the command line."""
    return error.message.partition(";")[0]
