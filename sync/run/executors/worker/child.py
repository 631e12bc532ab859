"""A child process of a worker: runs claimed streams over its own connections, and closes them in the run store.

Requests are lines on standard input, answers lines on standard output. At the end of the input the process exits at
once: its worker has gone.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ....config.head_keys import STORE_VARIABLE
from ....delivery.masked_output import masked_output
from ....errors import SyncError
from ....own_process import set_up_process
from ....plan.plan import PlannedStream
from ....secrets import Redactor
from ....store import Store
from ....store.model import RUNNING
from ...errors import message_of
from ...group import run_group
from ...progress import Progress
from ...stream import StreamRun
from ..bundle import open_bundle
from ..protocol import Reference
from .attempt import OpenedAttempt, has_changed, open_attempt, with_share
from .claim_watch import ClaimWatch
from .claimed import Claimed

log = logging.getLogger("syncblocks")

#: Seconds between two signs of life.
BEAT_S = 5.0
#: Seconds without work after which the process checks whether its run is over.
IDLE_POLL_S = 1.0
#: Maximum of messages in an answer, and of characters in each.
MAX_MESSAGES, MAX_TEXT = 50, 2000


class Notes(Progress):
    """Collects a group's messages for its answer."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []

    def message(self, text: str, *, level: str = "info") -> None:
        """See `Progress`."""
        if len(self.messages) < MAX_MESSAGES:
            self.messages.append((text[:MAX_TEXT], level))


class Worker:
    """Serves the requests of one archive, one after another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._opened: OpenedAttempt | None = None
        #: Streams of this attempt planned again, by name.
        self._planned: dict[str, PlannedStream] = {}

    def serve(self, reference: Reference) -> dict[str, Any]:
        """Run claimed groups, one after another; return the answer."""
        try:
            attempt = self._open(reference)
        except Exception as error:
            log.debug("not opened", exc_info=True)
            return {"problem": f"the worker cannot open the run: {_text(error)}"}
        with masked_output(attempt.session.redactor):
            return self._run(attempt, reference)

    def _run(self, attempt: OpenedAttempt, reference: Reference) -> dict[str, Any]:
        notes = Notes()
        claimed = Claimed(attempt, reference, notes)
        errors: dict[str, str] = {}
        with ClaimWatch(attempt.store, reference, claimed.me) as watch:
            for place, group in enumerate(reference.groups):
                if claimed.is_stopping:
                    break
                if not claimed.take(group):
                    continue
                claimed.following = next(iter(reference.groups[place + 1 :]), ())
                try:
                    planned = self._planned_anew(attempt, reference, group)
                except Exception as error:
                    errors |= {name: claimed.close_unplanned(name, error) for name in group}
                    continue
                members = [StreamRun(claimed.context, each, losses=reference.losses) for each in planned]
                watch.follow(members)
                run_group(members)
                errors |= {
                    member.name: member.shown(member.error)[:MAX_TEXT] for member in members if member.error is not None
                }
        told = {"errors": errors, "messages": notes.messages, "refused": claimed.refused}
        return told | ({"stopping": True} if claimed.is_stopping else {})

    def release(self) -> None:
        """Close every connection, and forget the attempt."""
        if self._opened is not None:
            self._opened.close()
        self._opened = None
        self._planned.clear()

    def release_if_over(self) -> None:
        """Close every connection if the attempt has ended: some engines do not report this."""
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
        """Open the run store, and the pipeline as it was for the run; once for each attempt."""
        opened = self._opened
        if opened is not None and (opened.run.id, opened.run.attempt) == (reference.run_id, reference.attempt):
            return opened
        self.release()
        url = os.environ.get(STORE_VARIABLE) or open_bundle(self.folder).store_url
        with Store.open(url) as store:
            run = store.run(reference.run_id)
            recorded = store.attempt_plan(run.id, reference.attempt)
            if recorded is None or run.attempt != reference.attempt:
                over = f"attempt {reference.attempt} of run {reference.run_id} is over, or of another run store"
                raise SyncError(over)
            pipeline = open_bundle(
                self.folder,
                execution_date=run.execution_date,
                interval=run.interval,
                trigger=run.trigger,
                recorded=run.variables,
            )
            # Before this store is closed: its connection is reused.
            self._opened = open_attempt(with_share(pipeline, recorded), url, run, recorded)
        return self._opened

    def _planned_anew(self, attempt: OpenedAttempt, reference: Reference, group: Sequence[str]) -> list[PlannedStream]:
        """Plan a reference's streams again, once; return the planned streams of a group.

        Raises:
            SyncError: the source has changed since the run was planned.
        """
        if not self._planned.keys() >= set(group):
            names = tuple(attempt.then) if attempt.part is None else reference.streams
            self._planned.update({each.name: each for each in attempt.same(attempt.plan(names).streams)})
        for name in group:
            if name not in self._planned:
                raise has_changed(name)
        return [self._planned[name] for name in group]


def _text(error: Exception) -> str:
    """Return the reason, without texts of other programs: they may contain an address or a value."""
    return Redactor().redact(message_of(error)) if isinstance(error, SyncError) else type(error).__name__


def main() -> None:
    """Serve requests until the worker has gone."""
    set_up_process()
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    # Output of user code goes to the worker's standard error.
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
            except Exception as error:  # the run's owner decides about the streams
                log.error("streams were left open: %s", _text(error))
                answer({"problem": f"the worker failed: {_text(error)}"})

    for work in (beat, serve):
        threading.Thread(target=work, name=work.__name__, daemon=True).start()
    for line in requests:
        due.put(json.loads(line))
    os._exit(0)  # the worker has gone: stop everything that runs here


if __name__ == "__main__":
    main()
