"""Decides a task's next step for its stream, from the run store."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from ...errors import StateError
from ...store import Store
from ...store.model import RUNNING, SUCCESS, UNCLAIMED, PipelineRun

#: `done`: it has succeeded. `claim`: it waits for its task. `busy`: a living process has it. `dead`: its process is
#: dead. `failed`: it has ended, or cannot start any more, and its attempt is open. `ended`: the same, and the attempt
#: is over.
Step = Literal["done", "claim", "busy", "dead", "failed", "ended"]


class StreamStanding(Struct, frozen=True, kw_only=True):
    """State of a run's stream."""

    run: PipelineRun
    step: Step
    #: The attempt in which it succeeded, else the latest attempt that planned it.
    attempt: int
    #: In this attempt: unclaimed, running, or its end.
    status: str


def standing_of(store: Store, run_id: int, stream: str) -> StreamStanding:
    """Read the stream's state.

    Raises:
        StateError: the run has no such stream.
    """
    run = store.run(run_id)
    statuses = store.stream_statuses(run_id)
    ours = [each for each in statuses if each.stream == stream]
    if not ours:
        names = ", ".join(dict.fromkeys(each.stream for each in statuses)) or "none"
        raise StateError(f"run {run_id} has no stream {stream!r}; its streams: {names}")
    succeeded = [each.attempt for each in ours if each.status == SUCCESS]
    attempt, _, status = ours[-1]

    if succeeded:
        return StreamStanding(run=run, step="done", attempt=succeeded[0], status=SUCCESS)

    def stands(step: Step) -> StreamStanding:
        return StreamStanding(run=run, step=step, attempt=attempt, status=status)

    if run.status != RUNNING:
        return stands("ended")
    if attempt == run.attempt and status == RUNNING:
        state = store.claim_states(run_id, attempt, [stream])[stream]
        if not state.is_open:  # closed just now
            return standing_of(store, run_id, stream)
        return stands("busy" if state.is_alive else "dead")
    return stands("claim" if (attempt, status) == (run.attempt, UNCLAIMED) else "failed")


def dead_streams(store: Store, run: PipelineRun) -> dict[str, str]:
    """Return the open streams of the run's attempt whose processes are dead, with the nonces of their claims."""
    states = store.claim_states(run.id, run.attempt, store.open_streams(run.id))
    return {name: state.nonce for name, state in states.items() if state.is_open and not state.is_alive}
