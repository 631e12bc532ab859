"""A process that uses a pipeline from Python, as docs/python.md shows; `python -m tests.faults.store_user HOW FILE`."""

from __future__ import annotations

import json
import random
import sys
import threading
from contextlib import suppress
from pathlib import Path

from syncblocks import SyncError, TryLater, finish_run, load_pipeline, open_run, recover, run_pipeline, sync_stream
from syncblocks.sync.api import cancel, list_streams, state


def mapped(file: Path) -> str:
    """Be all tasks of a mapped run, one after the other."""
    run = open_run(file, hold_s=10)
    for stream in run.streams:
        with suppress(TryLater):
            sync_stream(file, run.id, stream)
            state(file)
    return str(finish_run(file, run.id).status)


def threads(file: Path) -> str:
    """Run a pipeline while another thread asks for its state and may cancel it."""
    pipeline = load_pipeline(file)
    has_ended = threading.Event()

    def ask() -> None:
        chance = random.Random(str(file))
        while not has_ended.is_set():
            call = chance.choice((state, list_streams, recover, cancel if chance.random() < 0.1 else state))
            with suppress(SyncError):
                call(pipeline)

    beside = threading.Thread(target=ask)
    beside.start()
    try:
        return str(run_pipeline(pipeline, inline_callbacks=True).status)
    finally:
        has_ended.set()
        beside.join()


if __name__ == "__main__":
    try:
        said = {"status": {"mapped": mapped, "threads": threads}[sys.argv[1]](Path(sys.argv[2]))}
    except SyncError as error:
        said = {"refused": error.code, "message": str(error)}
    sys.stdout.write(json.dumps(said) + "\n")
