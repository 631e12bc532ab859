"""Deliberately broken engines, switched on in a forked process: the tests must catch every one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from syncblocks.connectors.stream import LedgerRow


def token_is_not_checked() -> None:
    """The ledger row is written whoever owns it: a zombie's commit is kept."""
    from syncblocks.connectors.sql.ledger import Ledger
    from syncblocks.connectors.struct_helpers import replace

    genuine = Ledger.record

    def record(self: Any, session: Any, ledger: Any, row: LedgerRow) -> None:
        held = self.read(session, ledger, row.key)[0].token
        genuine(self, session, ledger, replace(row, token=held))

    Ledger.record = record  # type: ignore[method-assign]


def ledger_is_written_after_the_data() -> None:
    """The ledger row has a transaction of its own, behind the data's."""
    from syncblocks.connectors.sql.ledger import Ledger

    genuine = Ledger.record

    def record(self: Any, session: Any, ledger: Any, row: LedgerRow) -> None:
        session.commit()
        session.begin()
        genuine(self, session, ledger, row)

    Ledger.record = record  # type: ignore[method-assign]


def recovery_believes_nothing_was_committed() -> None:
    """A dead run's streams are run again, whatever the ledger says."""
    from syncblocks.sync.run.recovery import lost_stream

    lost_stream.is_completed = lambda *_: False


def doubt_counts_as_failure() -> None:
    """A commit whose answer was lost is taken for one that was not made."""
    from syncblocks.sync.run import stream as stream_run

    stream_run.is_completed = lambda *_: False


def events_are_written_behind_the_close() -> None:
    """Block runs end in one transaction, their events are written in the next."""
    from syncblocks.sync.store import close

    genuine, closing = close.write_events, close.Closing.close_stream
    late: list[tuple[Any, Any, Any]] = []

    def write_events(_connection: Any, run: Any, plan: Any, rows: Sequence[Any]) -> None:
        late.append((run, plan, rows))

    def close_stream(self: Any, run_id: int, outcome: Any, **options: Any) -> Any:
        closed = closing(self, run_id, outcome, **options)
        with self._transactions.write("late") as connection:
            while late:
                genuine(connection, *late.pop(0))
        return closed

    close.write_events = write_events
    close.Closing.close_stream = close_stream  # type: ignore[method-assign]


def flag_is_found_by_counting() -> None:
    """The last is whoever sees no other one running."""
    from syncblocks.sync.store.last_block_run import TypeCounter

    def end(self: Any, _name: Any) -> tuple[int, bool | None]:
        index = self.ended
        self.ended += 1
        self.open -= 1
        return index, self.open == 0

    TypeCounter.end = end  # type: ignore[method-assign]


def flag_is_decided_at_the_plan() -> None:
    """The last is the last one planned: who else may come after it is not asked."""
    from syncblocks.sync.store.last_block_run import TypeCounter

    def end(self: Any, _name: Any) -> tuple[int, bool | None]:
        index = self.ended
        self.ended += 1
        self.open -= 1
        return index, not self.open and not self.unclaimed

    TypeCounter.end = end  # type: ignore[method-assign]


def delivery_is_marked_before_the_call() -> None:
    """At most once: what dies in the call was delivered already."""
    from syncblocks.callbacks import dispatcher

    queue = dispatcher._Queue

    def deliver(self: Any, delivery: Any) -> None:
        outcome = dispatcher.Outcome(ok=True, error=None, output="", duration_s=0.0, kind="returned")
        self._mark(delivery, outcome)
        self._call(delivery)

    queue._deliver = deliver  # type: ignore[method-assign]


def every_owner_is_dead() -> None:
    """A run is taken from a process that lives."""
    from syncblocks.sync.store.transactions import Transactions

    Transactions.is_alive = lambda *_: False  # type: ignore[method-assign]


#: Name -> what breaks the engine.
ENGINES: dict[str, Callable[[], None]] = {
    engine.__name__: engine
    for engine in (
        token_is_not_checked,
        ledger_is_written_after_the_data,
        recovery_believes_nothing_was_committed,
        doubt_counts_as_failure,
        events_are_written_behind_the_close,
        flag_is_found_by_counting,
        flag_is_decided_at_the_plan,
        delivery_is_marked_before_the_call,
        every_owner_is_dead,
    )
}
