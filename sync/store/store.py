"""The run store: runs, how they ended, and the callbacks that are still due. The only writer of history."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncblocks.callbacks.protocols import Callbacks

from ..clock import Clock
from .attempts import Attempts
from .audit_log import Actions
from .claims import Claims
from .close import Closing
from .database import Database, demand_writable, missing_privileges, open_as_it_is, open_database, store_exists
from .event_kwargs import run_kwargs
from .mapped_runs import MappedRunWrites
from .model import ErrorInfo, PipelineRun
from .outbox import StoreOutbox
from .owner import Liveness, Owner, current_owner, is_process_alive
from .plans import Plans
from .prune import Pruning
from .running_events import RunningEvents
from .runs import Runs
from .servers import LiveServer, Servers
from .state import States
from .ticks import Ticks
from .torn_run_repair import Torn
from .transactions import Transactions
from .watching import Watching

if TYPE_CHECKING:
    from .access import Access
    from .alerts import Alerts
    from .freshness_facts import FactReads
    from .run_views import RunViews
    from .schedules import Schedules
    from .views import Views


class Store:
    """An opened store. Thread-safe; every write to a run demands that `owner` owns it. Close it when done.

    Most methods are those of its parts, see there.
    """

    def __init__(self, database: Database, owner: Owner, liveness: Liveness) -> None:
        """Compose the parts over one `Transactions`; `open` opens the database first."""
        self._transactions = Transactions(database, owner, liveness)
        self._plans = Plans(self._transactions)
        runs = Runs(self._transactions, self._plans)
        self.begin_run = runs.begin_run
        self.begin_retry = runs.begin_retry
        self.order_retry = runs.order_retry
        self.reclaim_run = runs.reclaim_run
        self.renew = runs.renew
        self.standings = runs.standings
        self.is_owner = runs.is_owner
        self.owner_state = runs.owner_state
        self.leave_run = runs.leave_run
        self.request_cancel = runs.request_cancel
        self.cancel_requested = runs.cancel_requested
        self.finish_run = runs.finish_run
        self.run = runs.run
        self.active_run = runs.active_run
        self.latest_run = runs.latest_run
        self.runs = runs.runs
        self.block_runs = runs.block_runs
        self.block_runs_of = runs.block_runs_of
        self.unfinished_streams = runs.unfinished_streams
        self.stream_statuses = runs.stream_statuses
        self.open_streams = runs.open_streams
        self.never_started = runs.never_started
        self._attempts = Attempts(self._transactions, self._plans)
        self.begin_attempt = self._attempts.begin_attempt
        self.claim = self._attempts.claim
        self.request_stop = self._attempts.request_stop
        self.close_stream = Closing(self._transactions, self._plans).close_stream
        claims = Claims(self._transactions)
        self.take_claim = claims.take_claim
        self.renew_claims = claims.renew_claims
        self.holds_claim = claims.holds_claim
        self.ask_to_stop = claims.ask_to_stop
        self.take_back = claims.take_back
        self.claim_states = claims.claim_states
        held = MappedRunWrites(self._transactions, self._plans)
        self.hold_run = held.hold_run
        self.renew_hold = held.renew_hold
        self.claim_own = held.claim_own
        self.begin_held_attempt = held.begin_held_attempt
        self.take_dead = held.take_dead
        self.take_held_run = held.take_held_run
        self.attempt_plan = self._plans.attempt_plan
        self.present_plan = self._plans.present_plan
        self.attempt_plan_of = self._plans.attempt_plan_of
        running_events = RunningEvents(self._transactions, self._plans)
        self.tell = running_events.tell
        self.hold = running_events.hold
        self.held = running_events.held
        self.release_held = running_events.release_held
        ticks = Ticks(self._transactions)
        self.order_tick = ticks.order
        self.tick = ticks.tick
        self.startable_ticks = ticks.startable
        self.claim_tick = ticks.claim
        self.renew_tick = ticks.renew
        self.give_back_tick = ticks.give_back
        self.refuse_tick = ticks.refuse
        self.offer_tick = ticks.offer
        self.fail_start = ticks.fail_start
        self.causes_of = ticks.causes_of
        self.replaces_tables = ticks.replaces_tables
        pruning = Pruning(self._transactions)
        self.past_runs = pruning.past_runs
        self.remove_runs = pruning.remove_runs
        self.ticks_without_run = pruning.ticks_without_run
        self.remove_ticks = pruning.remove_ticks
        self.remove_actions = pruning.remove_actions
        servers = Servers(self._transactions)
        self.report_server = servers.report
        self.renew_server = servers.renew
        self.leave_server = servers.leave
        self.live_servers = servers.live
        self.is_served = servers.is_served
        self.standing = servers.standing
        self.due_pipelines = servers.due_pipelines
        self.late_runs = servers.late_runs
        self.mend = Torn(self._transactions, self._plans).mend
        watching = Watching(self._transactions)
        self.watch = watching.watch
        self.write_progress = watching.write_progress
        self.save_log = watching.save_log
        self.run_log = watching.log
        states = States(self._transactions)
        self.save_state = states.save_state
        self.delete_state = states.delete_state
        self.states = states.states
        self.state = states.state
        self.state_versions = states.state_versions

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
            owner: In whose name to write; a worker process writes in the name of its coordinator.
            liveness: For tests.

        Raises:
            ConfigError: the URL names no store, or its driver is not installed.
            StoreUnreachable: it cannot be reached or made.
            StateError: its credentials are wrong, it is damaged, on a network file system, or newer than this program.
        """
        database = open_database(url, clock=clock or Clock(), folder=folder)
        return cls(database, owner or current_owner(), liveness)

    @staticmethod
    def exists(url: str, folder: Path | None = None) -> bool:
        """Whether a store is there; creates nothing."""
        return store_exists(url, folder)

    @staticmethod
    def servers_of(url: str) -> tuple[LiveServer, ...]:
        """Return the servers of a store that live; reads a store of an earlier version as well, and changes nothing."""
        if not store_exists(url):
            return ()
        database = open_as_it_is(url)
        try:
            return Servers(Transactions(database, current_owner(), is_process_alive)).live()
        finally:
            database.close()

    @staticmethod
    def missing_privileges(url: str) -> list[str]:
        """Return the statements that give the store's user what a run needs; writes nothing."""
        return missing_privileges(url)

    @staticmethod
    def demand_writable(url: str) -> None:
        """Raise if the store is a file that this user may not write or make; makes nothing.

        Raises:
            StoreUnreachable: it may not; the message names the file or folder.
        """
        demand_writable(url)

    @cached_property
    def schedules(self) -> Schedules:
        """The schedules in force. A run needs none, and does not import what knows times."""
        from .schedules import Schedules

        return Schedules(self._transactions)

    @cached_property
    def run_views(self) -> RunViews:
        """What a page shows of one run."""
        from .run_views import RunViews

        return RunViews(self._transactions)

    @cached_property
    def access(self) -> Access:
        """Who may use a server."""
        from .access import Access

        return Access(self._transactions)

    @cached_property
    def actions(self) -> Actions:
        """Who has done what through a server."""
        return Actions(self._transactions)

    @cached_property
    def views(self) -> Views:
        """What pages show."""
        from .views import Views

        return Views(self._transactions)

    @property
    def url(self) -> str:
        """The URL without its password."""
        return self._transactions.database.url

    @property
    def owner(self) -> Owner:
        """In whose name this store writes."""
        return self._transactions.me

    def close(self) -> None:
        """Close every connection."""
        self._transactions.database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def end_attempt(self, run_id: int, *, error: ErrorInfo | None = None, is_crash: bool = False) -> PipelineRun:
        """See `Attempts.end_attempt`; return the run."""
        self._attempts.end_attempt(run_id, error=error, is_crash=is_crash)
        return self.run(run_id)

    def outbox(self, pipeline: str, callbacks: Callbacks | None = None, *, is_served: bool = False) -> StoreOutbox:
        """Return the pipeline's outbox.

        Args:
            pipeline: Whose deliveries.
            callbacks: Of the pipeline file; None: nothing can be leased, only listed, counted and retried.
            is_served: Threads serve its queues until it is closed: deliveries are prefetched for them.
        """
        return StoreOutbox(self._transactions, self._plans, pipeline, callbacks, is_served=is_served)

    # A run needs neither of these.

    def fact_reads(self) -> FactReads:
        """Return what tells how pipelines stand."""
        from .freshness_facts import FactReads

        return FactReads(self._transactions)

    def alerts(self) -> Alerts:
        """Return the alerts."""
        from .alerts import Alerts

        return Alerts(self._transactions)

    def run_kwargs(self, run: PipelineRun) -> dict[str, Any]:
        """Return the recorded kwargs that all blocks of a run share, variables included."""
        with self._transactions.read() as connection:
            return run_kwargs(connection, run.id, run.attempt)


__all__ = ["Store"]
