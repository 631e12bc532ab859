"""What a task has to do about its stream, as the run store has it."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from ...errors import StateError
from ...store import Store
from ...store.model import RUNNING, SUCCESS, UNCLAIMED, PipelineRun

#: `done`: it has succeeded. `claim`: it waits for its task. `busy`: a process that lives has it. `dead`: its process is
#: dead. `failed`: it has ended, or can start no more, and its attempt is open. `ended`: the same, and it is over.
Step = Literal["done", "claim", "busy", "dead", "failed", "ended"]


class StreamStanding(Struct, frozen=True, kw_only=True):
    """How a stream of a run stands."""

    run: PipelineRun
    step: Step
    #: The attempt in which it succeeded, else the latest one that has planned it.
    attempt: int
    #: In that attempt: unclaimed, running, or as it has ended.
    status: str


def standing_of(store: Store, run_id: int, stream: str) -> StreamStanding:
    """Look how a stream stands.

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
