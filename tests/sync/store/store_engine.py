"""A whole run of two streams and its deliveries in a run store, as a process of its own that is killed on the way."""

from __future__ import annotations

import sys

from syncblocks.sync.store import Store
from tests.sync.store.store_helpers import CALLBACKS, attempt_plan, begin, deliver_all, outcome, stream_plan


def main(url: str, how: str) -> None:
    """`how`: `run` goes to the end; `pause` stops in the middle of the first stream."""
    a, b = stream_plan("a"), stream_plan("b")
    with Store.open(url) as store:
        run = begin(store, attempt_plan([a, b]))
        store.claim(run.id, ["a"])
        if how == "pause":
            sys.stdout.write("paused\n")
            sys.stdout.flush()
            sys.stdin.read()
        store.close_stream(run.id, outcome(a))
        outbox = store.outbox("p", CALLBACKS)
        deliver_all(outbox)
        store.claim(run.id, ["b"])
        store.close_stream(run.id, outcome(b))
        store.end_attempt(run.id)
        outbox.release_gate(run.id)
        deliver_all(outbox)
        store.finish_run(run.id)


if __name__ == "__main__":
    main(*sys.argv[1:])
