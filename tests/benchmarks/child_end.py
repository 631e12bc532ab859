"""How long the next callback waits once a callback has ended its own process.

`python -m tests.benchmarks.child_end FOLDER STREAMS` runs a pipeline whose callback ends its process at every second
call, in three ways, and writes down the seconds from there to the call that follows.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.bench import Bench, Figure, single_figure
from tests.benchmarks.measure import run

#: A call that follows later is too late.
MOST_S = 0.1
#: CLOCK_MONOTONIC is the same for all processes of a machine.
_CALLBACK = """
import ctypes, os, signal, time
from pathlib import Path

LOG = Path(__file__).with_suffix(".log")
ENDS = [lambda: os._exit(0), lambda: ctypes.string_at(0), lambda: os.kill(os.getpid(), signal.SIGKILL)]

@callback('success', fetch_inputs=False)
def ends(index, **kwargs):
    with LOG.open("a") as log:
        log.write(f"called {time.monotonic()}\\n")
        if index % 2:
            log.write(f"ended {time.monotonic()}\\n")
            log.flush()
            ENDS[index // 2 % 3]()
"""


def child_end(bench: Bench) -> list[Figure]:
    """Streams that end faster than a process starts: what counts is the median over all calls after such an end."""
    streams = max(12, min(60, bench.rows // 1000))
    taken, waits = [], []
    for number in range(bench.repeat):
        folder = bench.folder / f"child_end_{number}"
        folder.mkdir()
        command = [sys.executable, "-m", "tests.benchmarks.child_end", str(folder), str(streams)]
        taken.append(run(command, cwd=bench.folder, env={"PYTHONPATH": str(Path(__file__).parents[2])}))
        waits += json.loads((folder / "waits.json").read_text())
    median, longest = 1000 * statistics.median(waits), 1000 * max(waits)
    return [
        single_figure(
            "next call after a process's end",
            "sqlite store",
            streams,
            taken,
            target=f"<= {1000 * MOST_S:g} ms: median {median:.0f}, longest of {len(waits)} {longest:.0f}",
            is_met=median <= 1000 * MOST_S,
        )
    ]


def measure(folder: Path, streams: int) -> list[float]:
    """Run the pipeline; return the seconds from each end to the next call."""
    from syncblocks import run_pipeline

    (folder / "ends.py").write_text(_CALLBACK)
    table = {"columns": {"id": "int64"}, "key": ["id"], "records": [{"id": 1}]}
    names = [f"s{number}" for number in range(streams)]
    document: dict[str, Any] = {
        "pipeline": "p",
        "concurrency": 1,
        "source": {"connector": "memory", "config": {"tables": dict.fromkeys(names, table)}},
        "destination": {"connector": "memory", "config": {"database": "child_end"}},
        "streams": [{"stream": name} for name in names],
        "callbacks": [{"file": "ends.py", "attempts": 1}],
    }
    (folder / "pipeline.yaml").write_text(json.dumps(document))
    result = run_pipeline(folder / "pipeline.yaml")
    assert result.exit_code == 3, result  # dead deliveries are shown
    lines = [line.split() for line in (folder / "ends.log").read_text().splitlines()]
    events = [(name, float(moment)) for name, moment in lines]
    assert sum(name == "called" for name, _ in events) == streams
    return [after - at for (name, at), (_, after) in itertools.pairwise(events) if name == "ended"]


__all__ = ["child_end"]

if __name__ == "__main__":
    place = Path(sys.argv[1])
    (place / "waits.json").write_text(json.dumps(measure(place, int(sys.argv[2]))))
