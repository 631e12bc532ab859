"""A child process of a worker: runs claimed streams with connections of its own, and closes them in the run store.

Requests are lines on standard input, answers lines on standard output. At the end of the input the process ends at
once: its worker is gone.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ...config import Pipeline
from ...delivery.subscriptions import load_worker_code
from ...errors import SyncError
from ...flow.feed import Budget
from ...flow.memory import budget_bytes, in_flight_bytes, record_bytes
from ...plan.plan import Plan, PlannedStream
from ...secrets import Redactor
from ...session.session import Session, open_session
from ...store import Store
from ...store.model import RUNNING, AttemptPlan, LostRun, PipelineRun, StreamOutcome, StreamPlan
from ...store.owner import current_owner
from ..attempt_plan import stream_plans
from ..block_runs import CANCELLED, FAILURE
from ..errors import error_info, message_of
from ..given_plan import given_of, plan_as_given
from ..group import run_group
from ..lost_stream import unknown_blocks
from ..masked_output import masked_output
from ..progress import Progress
from ..store_calls import StoreCalls
from ..stream import StreamRun
from .bundle import open_bundle
from .protocol import Reference
from .watch import ClaimWatch

log = logging.getLogger("syncblocks")

#: Seconds between two signs of life.
BEAT_S = 5.0
#: Seconds without work, after which the process looks whether its run is over.
IDLE_POLL_S = 1.0
#: Environment variable with the URL of the run store, before the file's.
STORE = "SYNCBLOCKS_STORE"
#: Most messages of an answer, and most characters of each.
MAX_MESSAGES, MAX_TEXT = 50, 2000


class Notes(Progress):
    """Keeps the messages of a group for its answer."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []

    def message(self, text: str, *, level: str = "info") -> None:
        """See `Progress`."""
        if len(self.messages) < MAX_MESSAGES:
            self.messages.append((text[:MAX_TEXT], level))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedAttempt:
    """One attempt of a run as this process has opened it."""

    run: PipelineRun
    store: Store
    session: Session
    recorded: AttemptPlan
    budget: Budget

    def close(self) -> None:
        """Close every connection."""
        self.session.close()
        self.store.close()


class Worker:
    """Serves the requests of one archive, one after another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opened: OpenedAttempt | None = None
        self._plan: Plan | None = None

    def serve(self, reference: Reference) -> dict[str, Any]:
        """Run a group of claimed streams; return the answer."""
        try:
            attempt = self._open(reference)
        except Exception as error:
            log.debug("not opened", exc_info=True)
            return {"problem": f"the worker cannot open the run: {_text(error)}"}
        with masked_output(attempt.session.redactor):
            return self._run(attempt, reference)

    def _run(self, attempt: OpenedAttempt, reference: Reference) -> dict[str, Any]:
        store, me = attempt.store, current_owner()
        if not store.take_claim(reference.run_id, reference.attempt, reference.streams, reference.nonce, me):
            return {"refused": True}
        notes = Notes()
        errors: dict[str, str] = {}
        with ClaimWatch(store, reference, me) as watch:
            try:
                planned = self._planned(attempt, reference)
            except Exception as error:
                for name in reference.streams:
                    errors[name] = self._close_unplanned(attempt, reference, name, error)
                return {"errors": errors}
            members = self._members(attempt, reference, planned, notes)
            watch.follow(members)
            run_group(members)
        for member in members:
            if member.error is not None:
                errors[member.name] = member.shown(member.error)[:MAX_TEXT]
        return {"errors": errors, "messages": notes.messages}

    def release(self) -> None:
        """Close every connection, and forget the attempt."""
        if self._opened is not None:
            self._opened.close()
        self._opened = self._plan = None

    def release_if_over(self) -> None:
        """Close every connection if the attempt has ended: not every engine tells."""
        opened = self._opened
        if opened is None:
            return
        try:
            run = opened.store.run(opened.run.id)
            is_over = run.status != RUNNING or run.attempt != opened.run.attempt or run.owner != opened.run.owner
        except SyncError:
            is_over = True
        if is_over:
            self.release()

    def _open(self, reference: Reference) -> OpenedAttempt:
        """Open the run store and the pipeline as it was for the run; once for each attempt."""
        opened = self._opened
        if opened is not None and (opened.run.id, opened.run.attempt) == (reference.run_id, reference.attempt):
            return opened
        self.release()
        url = os.environ.get(STORE) or open_bundle(self.folder).store_url
        with Store.open(url) as store:
            run = store.run(reference.run_id)
            recorded = store.attempt_plan(run.id, reference.attempt)
        if recorded is None or run.attempt != reference.attempt:
            raise SyncError(f"attempt {reference.attempt} of run {reference.run_id} is over, or of another run store")
        pipeline = open_bundle(
            self.folder,
            execution_date=run.execution_date,
            interval=run.interval,
            trigger=run.trigger,
            recorded=run.variables,
        )
        code = load_worker_code(pipeline, recorded.subscriptions)
        session = open_session(_with_share(pipeline, recorded), code)
        session.prepare()
        memory = budget_bytes(session.pipeline.memory)
        # In the name of the run's owner: only then the store lets it close.
        store = Store.open(url, owner=run.owner)
        session.use_store(store, run.id)
        self._opened = OpenedAttempt(
            run=run,
            store=store,
            session=session,
            recorded=recorded,
            budget=Budget(in_flight_bytes(memory), record_bytes(memory)),
        )
        return self._opened

    def _planned(self, attempt: OpenedAttempt, reference: Reference) -> list[PlannedStream]:
        """Plan again, once for each attempt; return the planned streams of a group.

        Raises:
            SyncError: the source is no longer what it was when the run was planned.
        """
        order: Mapping[str, Any] = attempt.recorded.extra.get("order", {})
        if self._plan is None:
            names = [planned.stream for planned in attempt.recorded.streams]
            self._plan = plan_as_given(attempt.session, attempt.store, given_of(order), only=names)
        plans = {planned.name: planned for planned in self._plan.streams}
        then = {planned.stream: planned for planned in attempt.recorded.streams}
        now = {planned.stream: planned for planned in stream_plans(attempt.session.pipeline, self._plan)}
        for name in reference.streams:
            if name not in plans or not _is_same(then[name], now[name]):
                raise SyncError(f"stream {name!r} has changed at the source between the plan and the run: run it again")
        return [plans[name] for name in reference.streams]

    def _members(
        self, attempt: OpenedAttempt, reference: Reference, planned: list[PlannedStream], notes: Notes
    ) -> list[StreamRun]:
        store, run = attempt.store, attempt.run

        def close(outcome: StreamOutcome) -> None:
            try:
                store.close_stream(run.id, outcome, nonce=reference.nonce)
            except LostRun as error:
                log.warning("%s: %s", outcome.stream, error)

        def is_owner() -> bool:
            states = store.claim_states(run.id, run.attempt, reference.streams).values()
            return any(state.is_open and state.is_mine and state.nonce == reference.nonce for state in states)

        calls = StoreCalls(attempt.session, store, run)
        context = calls.context(notes, attempt.budget, close=close, is_owner=is_owner)
        return [StreamRun(context, each) for each in planned]

    def _close_unplanned(self, attempt: OpenedAttempt, reference: Reference, name: str, error: Exception) -> str:
        """Close a stream that could not be planned again; return its error's text."""
        planned = next(each for each in attempt.recorded.streams if each.stream == name)
        first = planned.blocks[0].block
        info = error_info(error, attempt.session.redactor, stream=name, block=first)
        blocks = unknown_blocks(planned, CANCELLED, info, failed=first)
        blocks = (replace(blocks[0], status=FAILURE), *blocks[1:])
        try:
            attempt.store.close_stream(
                reference.run_id, StreamOutcome(stream=name, blocks=blocks), nonce=reference.nonce
            )
        except LostRun as lost:
            log.warning("%s: %s", name, lost)
        return info.message


def _is_same(then: StreamPlan, now: StreamPlan) -> bool:
    """Whether a stream has the columns and keys with which the run was planned, and goes the same way."""
    if (then.destination_table, then.blocks) != (now.destination_table, now.blocks):
        return False
    shapes = [dict(plan.config.get("shape") or {}) for plan in (then, now)]
    return all(shapes[0].get(part) == shapes[1].get(part) for part in ("columns", "left_out", "keys"))


def _with_share(pipeline: Pipeline, recorded: AttemptPlan) -> Pipeline:
    """Give this process its part of the machine's memory, if the file does not say how much."""
    on_host = int(recorded.extra.get("order", {}).get("workers_on_host", 1))
    if pipeline.memory is not None or on_host < 2:
        return pipeline
    return pipeline.model_copy(update={"memory": max(64_000_000, budget_bytes(None) // on_host)})


def _text(error: Exception) -> str:
    """Return why, without what another program has said: it may hold an address or a value."""
    return Redactor().redact(message_of(error)) if isinstance(error, SyncError) else type(error).__name__


def main() -> None:
    """Serve requests until the worker is gone."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    # What user code prints goes to the worker's standard error.
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    answering, due = threading.Lock(), SimpleQueue[dict[str, Any]]()

    def answer(message: Mapping[str, Any]) -> None:
        with answering:
            answers.write(json.dumps(message).encode("ascii") + b"\n")
            answers.flush()

    def beat() -> None:
        while True:
            time.sleep(BEAT_S)
            answer({"beat": True})

    def serve() -> None:
        worker = Worker(Path())
        while True:
            try:
                request = due.get(timeout=IDLE_POLL_S)
            except Empty:
                worker.release_if_over()
                continue
            if "release" in request:
                worker.release()
                answer({"released": True})
                continue
            if (folder := Path(request["folder"])) != worker.folder:
                worker.release()
                worker = Worker(folder)
            try:
                answer(worker.serve(Reference.of(request)))
            except Exception as error:  # the run's owner decides what becomes of the streams
                log.error("streams were left open: %s", _text(error))
                answer({"problem": f"the worker failed: {_text(error)}"})

    for work in (beat, serve):
        threading.Thread(target=work, name=work.__name__, daemon=True).start()
    for line in requests:
        due.put(json.loads(line))
    os._exit(0)  # the worker is gone: nothing that runs here may go on


if __name__ == "__main__":
    main()
