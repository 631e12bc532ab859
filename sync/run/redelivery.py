"""Callbacks delivered again on request: retry dead deliveries, replay one, try a hook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from syncblocks.callbacks.protocols import Delivery, Outcome
from syncblocks.callbacks.trial import deliver_once
from syncblocks.connectors.struct_helpers import replace

from ..config import Pipeline
from ..delivery.current_callbacks import CurrentCallbacks
from ..delivery.hook_settings import hook_of
from ..delivery.subscriptions import load_user_code
from ..errors import StateError
from ..secrets import Redactor
from ..store import Store
from ..store.model import DeliveryRecord
from ..store.outbox import StoreOutbox
from .dispatching import call_settings, make_dispatcher
from .progress import Progress

OPEN_STATES = ("ready", "leased")


@dataclass(frozen=True, slots=True, kw_only=True)
class Redelivered:
    """Result of a redelivery."""

    #: Number of dead deliveries that were made due again.
    revived: int
    #: Number of the chosen deliveries that are done, due and dead now.
    counts: dict[str, int]
    #: Reason why deliveries were not called here; None: all were called.
    note: str | None = None


def redeliver(
    pipeline: Pipeline,
    store: Store,
    *,
    run_id: int | None = None,
    key: str | None = None,
    progress: Progress | None = None,
) -> Redelivered:
    """Make dead deliveries due again, with all their attempts, and deliver for at most `drain_s`.

    An active run's process delivers its own events; the recovery delivers those of a dead process.

    Args:
        pipeline: the pipeline file.
        store: its run store.
        run_id: only deliveries of this run.
        key: only the delivery with this idempotency key.
        progress: reports each call.
    """
    outbox = store.outbox(pipeline.pipeline, current_callbacks(pipeline))
    wanted = _wanted(outbox, run_id, key)
    revived = outbox.deliveries.retry(run_id=run_id, key=key)
    active = store.active_run(pipeline.pipeline)
    keys = [record.key for record in wanted if active is None or record.run_id != active.id]
    if active is not None and store.owner_state(active) == "alive":
        note = f"run {active.id} is active: its process delivers them ({active.holder})"
        return Redelivered(revived=revived, counts=_counts(outbox, wanted), note=note)
    if keys:
        _drain(pipeline, outbox, store, keys, progress or Progress())
    left = None
    if len(keys) < len(wanted) and active is not None:
        left = f"run {active.id} was left by {active.left_by}: the next start recovers it and delivers its events"
    return Redelivered(revived=revived, counts=_counts(outbox, wanted), note=left)


def replay(pipeline: Pipeline, store: Store, start: str, *, inline: bool = False) -> tuple[DeliveryRecord, Outcome]:
    """Call the function of a done or dead delivery again with the recorded event; the delivery keeps its state.

    The pipeline file decides which function is called. Event, data and idempotency key are the recorded ones.

    Args:
        pipeline: the pipeline file.
        store: its run store.
        start: beginning of the idempotency key.
        inline: call in this process, for a debugger.

    Raises:
        StateError: no delivery or several deliveries have such a key, or it is still due.
    """
    outbox = store.outbox(pipeline.pipeline, current_callbacks(pipeline))
    record = outbox.deliveries.find(start)
    recorded, number = outbox.deliveries.begin_replay(record.key)
    delivery = replace(recorded, wants_value=True)
    # `when` is not evaluated: the user asked for this call.
    settings = call_settings(pipeline, Redactor(pipeline.secret_values), store)
    outcome = deliver_once(replace(delivery, when=None), inline=inline, **settings)
    outbox.deliveries.end_replay(record.key, number, outcome)
    return record, outcome


def try_hook(pipeline: Pipeline, number: int, status: str, event: Mapping[str, Any]) -> Outcome:
    """Call a hook of the pipeline file once, as a run does.

    Args:
        pipeline: the pipeline file.
        number: position of the callback block in `callbacks`.
        status: status of the event.
        event: the event in recorded form, see `syncblocks.callbacks.made_up_events.make_event`.
    """
    block = pipeline.callbacks[number]
    delivery = Delivery(
        key=str(event["idempotency_key"]),
        callback_block=block.block,
        function=block.kind,
        file="",
        attempt=1,
        attempts=1,
        timeout_s=float(block.timeout_s),
        kwargs=event,
        data=None,
        label=block.block,
        status=status,
        when=block.when,
        hook=hook_of(pipeline, number),
    )
    return deliver_once(delivery, inline=False, **call_settings(pipeline, Redactor(pipeline.secret_values)))


def _wanted(outbox: StoreOutbox, run_id: int | None, key: str | None) -> list[DeliveryRecord]:
    found = outbox.deliveries.records(run_id=run_id, states=["dead", *OPEN_STATES], limit=100_000)
    if key is None:
        return found
    chosen = [record for record in found if record.key == key]
    if not chosen:
        raise StateError(
            f"delivery {key[:12]} is neither dead nor due; `syncblocks callbacks replay` calls its function again"
        )
    return chosen


def _drain(pipeline: Pipeline, outbox: StoreOutbox, store: Store, keys: Sequence[str], progress: Progress) -> None:
    dispatcher = make_dispatcher(
        pipeline, outbox, store, outbox.deliveries.open_blocks(), Redactor(pipeline.secret_values), progress
    )
    try:
        dispatcher.drain(pipeline.drain_s, stop=lambda: not set(OPEN_STATES) & set(outbox.deliveries.states(keys)))
    finally:
        dispatcher.close(grace_s=1.0)


def _counts(outbox: StoreOutbox, wanted: Sequence[DeliveryRecord]) -> dict[str, int]:
    counts = {"due": 0, "done": 0, "dead": 0}
    for state in outbox.deliveries.states([record.key for record in wanted]):
        counts["due" if state in OPEN_STATES else state] += 1
    return counts


def current_callbacks(pipeline: Pipeline) -> CurrentCallbacks:
    """Load the user's files and return the callbacks that they define now.

    Raises:
        ConfigError: a file does not load.
    """
    return CurrentCallbacks(pipeline, load_user_code(pipeline))
