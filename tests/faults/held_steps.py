"""One step of a held run, as an orchestrator's task calls it: `python -m tests.faults.held_steps FOLDER STEP ...`.

Steps: `open`; `stream RUN NAME`, or `retry RUN NAME`; `finish RUN`. A stream that has to wait ends the process with 75.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from syncblocks import TryLater, finish_run, open_run, sync_stream

LATER = 75


def main(folder: str, step: str, *names: str) -> int:
    file = Path(folder, "pipeline.yaml")
    if step == "open":
        run = open_run(file, retry=True)
        print(json.dumps({"run": run.id, "streams": run.streams}))  # noqa: T201
        return 0
    if step == "finish":
        return finish_run(file, int(names[0])).exit_code
    try:
        return 0 if sync_stream(file, int(names[0]), names[1], retry=step == "retry").status == "success" else 1
    except TryLater:
        return LATER


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
