"""The dispatcher: takes due deliveries from the outbox, calls the functions, and records the outcomes.

Each callback block has its own thread and a reusable child process, so no block waits for another. Any failure of a
function, even the death of its process, becomes an `Outcome`; it never raises here and never stops a stream.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

from .child_process import OUTPUT_KEPT_BYTES, CallEnd, tail
from .invoke import FunctionCache
from .kwargs import RESERVED
from .plain_text import plain_text
from .protocols import Delivery, LocalCall, NotDue, NothingOpen, Outbox, Outcome, Prepared
from .runners import CallRunner, ChildRunner, InlineRunner
from .triggers import Ask, refuse

OUTPUT_LIMIT = 16 * 1024


class Dispatcher:
    """Delivers from `start` to `close`. Use it from one thread; only `notify` is safe from any thread."""

    def __init__(
        self,
        outbox: Outbox,
        callback_blocks: Sequence[str],
        *,
        resolve: Callable[[dict[str, Any]], dict[str, Any]] = lambda variables: variables,
        prepare: Callable[[Delivery, dict[str, Any]], Prepared] = lambda delivery, kwargs: Prepared(hook=delivery.hook),
        redact: Callable[[str], str] = lambda text: text,
        ask: Callable[[Delivery], Ask] = lambda delivery: refuse,
        on_outcome: Callable[[Delivery, Outcome, str], None] = lambda delivery, outcome, verdict: None,
        inline: bool = False,
        log: logging.Logger | None = None,
        kill_grace_s: float = 5.0,
        recycle_after: int = 200,
        poll_s: tuple[float, float] = (0.2, 1.0),
    ) -> None:
        """Create the queues; `start` starts them.

        Args:
            outbox: source of the deliveries.
            callback_blocks: each gets its own queue.
            resolve: turns recorded references of runtime variables into values, just before the call.
            prepare: called before each call with the resolved kwargs; evaluates `when` and fills in a hook.
            redact: masks secrets in errors and output of functions.
            ask: called before each call; answers the function's questions (`trigger_pipeline`).
            on_outcome: called after each delivery is marked, with the outcome and the result of `mark`.
            inline: call functions (not hooks) in this process, on one thread for all blocks, without deadline or
                isolation, so that `breakpoint()` has the terminal.
            log: logger for errors outside of a call.
            kill_grace_s: seconds between SIGTERM and SIGKILL at the deadline.
            recycle_after: most calls of one child.
            poll_s: bounds of the pause between two looks at the outbox; other processes may add deliveries.
        """
        self.outbox = outbox
        self.resolve = resolve
        self.prepare = prepare
        self.redact = redact
        self.ask = ask
        self.on_outcome = on_outcome
        self.log = log or logging.getLogger("syncblocks.callbacks")
        self.kill_grace_s = kill_grace_s
        self._recycle_after = recycle_after
        self.poll_s = poll_s
        self.closing = threading.Event()
        #: Guards `_drains` and the queues' states; notified at each change.
        self.changed = threading.Condition()
        self._drains = 0
        self._is_started = False
        blocks = list(dict.fromkeys(callback_blocks))
        if inline:
            runner = InlineRunner(FunctionCache(), self.redact, self._child_runner("hooks"))
            self._queues = [_Queue(self, blocks, runner)] if blocks else []
        else:
            self._queues = [_Queue(self, [block], self._child_runner(block)) for block in blocks]

    def _child_runner(self, block: str) -> ChildRunner:
        return ChildRunner(block, self.kill_grace_s, self._recycle_after, self.log)

    @property
    def drains(self) -> int:
        """Number of drains that have begun."""
        return self._drains

    def start(self) -> None:
        """Start to deliver. A child is started with its first delivery."""
        if not self._is_started:
            self._is_started = True
            for queue in self._queues:
                queue.thread.start()

    def warm(self, callback_blocks: Collection[str]) -> None:
        """Start the children of blocks that will need their parent's data."""
        for queue in self._queues:
            queue.is_to_be_warmed = queue.serves(callback_blocks)
        self.notify()

    def notify(self) -> None:
        """Look at all queues now."""
        for queue in self._queues:
            queue.wake.set()

    def drain(
        self, timeout_s: float | None, stop: Callable[[], bool] = lambda: False, *, one_try: bool = False
    ) -> bool:
        """Block until no queue has an open delivery.

        Args:
            timeout_s: time limit; None: no limit.
            stop: called about every 50 ms; True ends the wait.
            one_try: do not wait for deliveries that are due later, such as after a failed attempt.

        Returns:
            False after the time limit or stop(); deliveries continue in the background until `close`.
        """
        self.start()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self.changed:
            self._drains += 1
            mine = self._drains
        self.notify()
        while True:
            with self.changed:
                if all(queue.is_empty(mine, one_try=one_try) for queue in self._queues):
                    return True
                remaining = 0.05 if deadline is None else min(0.05, deadline - time.monotonic())
                if remaining <= 0:
                    return False
                self.changed.wait(remaining)
            if stop() or self.closing.is_set():
                return False

    def close(self, grace_s: float = 0.0) -> None:
        """Stop: running calls have `grace_s` to end, then their process groups are killed; idempotent."""
        self.closing.set()
        self.notify()
        if not self._is_started:
            return
        deadline = time.monotonic() + grace_s
        for queue in self._queues:
            queue.thread.join(max(0.0, deadline - time.monotonic()))
        for queue in self._queues:
            # An idle child ends by itself, within a second.
            if queue.is_busy:
                queue.interrupt()
        deadline = time.monotonic() + min(self.kill_grace_s, 1.0) + 5.0
        for queue in self._queues:
            queue.thread.join(max(0.0, deadline - time.monotonic()))


class _Queue:
    """Thread that serves the queue of one callback block; in inline mode, of all blocks."""

    def __init__(self, dispatcher: Dispatcher, blocks: list[str], runner: CallRunner) -> None:
        self.runner = runner
        self.wake = threading.Event()
        self.thread = threading.Thread(target=self._run, name=f"callbacks-{blocks[0]}", daemon=True)
        self._dispatcher = dispatcher
        #: Block -> number of drains at the last look, and the result of that look.
        self._found: dict[str, tuple[int, Literal["work", "later", "nothing"]]] = dict.fromkeys(blocks, (-1, "work"))
        self._failures = 0
        self.is_to_be_warmed = False
        #: Whether a delivery is being called.
        self.is_busy = False
        self._local: LocalCall | None = None

    def serves(self, callback_blocks: Collection[str]) -> bool:
        """Tell whether this queue serves one of the blocks."""
        return any(block in callback_blocks for block in self._found)

    def is_empty(self, drain: int, *, one_try: bool) -> bool:
        """Tell whether a look since the beginning of this drain found no open delivery (`one_try`: none due)."""
        empty = ("nothing", "later") if one_try else ("nothing",)
        return all(seen >= drain and found in empty for seen, found in self._found.values())

    def interrupt(self) -> None:
        """End the running call soon."""
        self.runner.interrupt()
        if (local := self._local) is not None:
            local.interrupt()

    def _run(self) -> None:
        try:
            while not self._dispatcher.closing.is_set():
                self.wake.clear()
                if self.is_to_be_warmed:
                    self._warm()
                pauses = [self._look(block) for block in self._found]
                if self._dispatcher.closing.is_set():
                    break
                if (pause_s := min(pauses)) > 0:
                    self.wake.wait(pause_s)
        finally:
            self.runner.close()

    def _warm(self) -> None:
        self.is_to_be_warmed = False
        try:
            self.runner.warm()
        except Exception:  # the call tries again and reports the error
            self._dispatcher.log.warning("a process for callbacks could not be started ahead", exc_info=True)

    def _look(self, block: str) -> float:
        """Serve at most one delivery; return the seconds until the next look."""
        dispatcher = self._dispatcher
        drain = dispatcher.drains
        try:
            leased = dispatcher.outbox.lease(block)
            self._failures = 0
        except Exception:
            self._failures += 1
            dispatcher.log.exception("callback block %s: the outbox cannot be read; it is tried again", block)
            return min(5.0, 0.2 * 2.0**self._failures)
        if isinstance(leased, Delivery):
            self._set(block, drain, "work")
            self.is_busy = True
            try:
                self._deliver(leased)
            finally:
                self.is_busy = False
            return 0.0
        pause_s = random.uniform(*dispatcher.poll_s)
        match leased:
            case NotDue(wait_s):
                self._set(block, drain, "later")
                return min(pause_s, max(wait_s, 0.005))
            case NothingOpen():
                self._set(block, drain, "nothing")
                return pause_s

    def _set(self, block: str, drain: int, found: Literal["work", "later", "nothing"]) -> None:
        with self._dispatcher.changed:
            self._found[block] = (drain, found)
            self._dispatcher.changed.notify_all()

    def _deliver(self, delivery: Delivery) -> None:
        dispatcher = self._dispatcher
        outcome = self._call(delivery)
        verdict = self._mark(delivery, outcome)
        if verdict is None:
            return
        try:
            dispatcher.on_outcome(delivery, outcome, verdict)
        except Exception:
            dispatcher.log.exception("%s: the outcome of callback %s was not logged", delivery.label, delivery.function)

    def _call(self, delivery: Delivery) -> Outcome:
        dispatcher = self._dispatcher
        began = time.monotonic()
        end = self._end(delivery)
        for note in end.notes:
            dispatcher.log.warning("%s: callback %s: %s", delivery.label, delivery.function, self._shown(note))
        return Outcome(
            ok=end.kind in ("returned", "skipped"),
            error=None if end.error is None else self._shown(end.error),
            output=self._shown(tail(end.output, OUTPUT_KEPT_BYTES))[-OUTPUT_LIMIT:],
            duration_s=time.monotonic() - began,
            kind=end.kind,
            value=None if end.value is None else self._shown(end.value),
        )

    def _end(self, delivery: Delivery) -> CallEnd:
        if delivery.missing is not None:
            return CallEnd(kind="missing", error=delivery.missing, output=b"")
        try:
            kwargs = _resolved(delivery.kwargs, self._dispatcher.resolve)
        except Exception as error:
            return CallEnd(kind="load", error=f"a runtime variable cannot be resolved: {error}", output=b"")
        return self._run_one(delivery, kwargs)

    def _run_one(self, delivery: Delivery, kwargs: dict[str, Any]) -> CallEnd:
        if self._dispatcher.closing.is_set():
            return CallEnd(kind="interrupted", error="not called, because the program stops", output=b"")
        try:
            prepared = self._dispatcher.prepare(delivery, kwargs)
        except Exception as error:
            return CallEnd(kind="load", error=f"the call cannot be prepared: {error}", output=b"")
        if not prepared.is_wanted:
            return CallEnd(kind="skipped", error=None, output=b"")
        try:
            if prepared.local is not None:
                return self._run_here(prepared.local, delivery.timeout_s)
            request, ask = _request(delivery, kwargs, prepared), self._dispatcher.ask(delivery)
            return self.runner.run(request, timeout_s=delivery.timeout_s, ask=ask)
        except Exception as error:  # no process or no memory: this delivery fails, the queue continues
            self._dispatcher.log.exception("callback block %s: the call could not be made", delivery.callback_block)
            return CallEnd(kind="exited", error=f"the call could not be made: {error}", output=b"")

    def _run_here(self, local: LocalCall, timeout_s: float) -> CallEnd:
        self._local = local
        try:
            # `close` sets `closing`, then looks for a call. Here a call becomes visible before `closing` is checked.
            if self._dispatcher.closing.is_set():
                local.interrupt()
            return local.run(timeout_s)
        finally:
            self._local = None

    def _mark(self, delivery: Delivery, outcome: Outcome) -> str | None:
        """Record the outcome, however long the store takes: without it, the delivery would stay leased."""
        failures = 0
        while True:
            try:
                return self._dispatcher.outbox.mark(delivery, outcome)
            except Exception:
                failures += 1
                self._dispatcher.log.exception(
                    "%s: the outcome of callback %s could not be stored", delivery.label, delivery.function
                )
            if self._dispatcher.closing.is_set():
                return None
            self._dispatcher.closing.wait(min(5.0, 0.1 * 2.0**failures))

    def _shown(self, text: str) -> str:
        """Return a text for histories and logs: plain, and without secrets."""
        return self._dispatcher.redact(plain_text(text))


def _request(delivery: Delivery, kwargs: dict[str, Any], prepared: Prepared) -> dict[str, Any]:
    """Return the request for a child process."""
    if prepared.hook is not None:
        return {"function": delivery.function, "hook": dict(prepared.hook)}
    return {
        "function": delivery.function,
        "file": delivery.file,
        "kwargs": kwargs,
        "data": delivery.data,
        "wants_value": delivery.wants_value,
    }


def _resolved(recorded: Mapping[str, Any], resolve: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Resolve runtime variables only: an `event` from outside must not be able to name a secret."""
    variables = {name: value for name, value in recorded.items() if name not in RESERVED}
    kwargs = {**recorded, **resolve(variables)}
    run = recorded.get("pipeline_run")
    if run and run.get("variables"):
        kwargs["pipeline_run"] = {**run, "variables": resolve(dict(run["variables"]))}
    return kwargs
