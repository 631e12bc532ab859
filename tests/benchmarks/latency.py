"""How long a warm callback that does nothing waits: from the commit that decides its flag to the call.

`python -m tests.benchmarks.latency FOLDER STREAMS STORE` runs a pipeline of so many small streams, one after the other,
and writes down the seconds of each call. Its stages are marked by wrapping the product's own functions.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.bench import Bench, Figure, single_figure
from tests.benchmarks.measure import run

#: A call that comes later after its commit is too late.
MOST_S = 0.001
#: The child is warm, and its file loaded, after so many.
_WARM = 20
#: CLOCK_MONOTONIC is the same for all processes of a machine.
_CALLBACK = """
import time

@callback('success', fetch_inputs=False)
def nothing(stream, **kwargs):
    print(stream, time.monotonic())
"""


def latency(bench: Bench) -> list[Figure]:
    """Streams end one by one, each after the one before was told of; what counts is the median over them."""
    streams = max(30, min(300, bench.rows // 100))
    made = []
    for store in ("sqlite", "postgres"):
        url = "" if store == "sqlite" else bench.database()
        taken, waits = [], []
        for number in range(bench.repeat):
            folder = bench.folder / f"latency_{store}_{number}"
            folder.mkdir()
            command = [sys.executable, "-m", "tests.benchmarks.latency", str(folder), str(streams), url]
            taken.append(run(command, cwd=bench.folder, env={"PYTHONPATH": str(Path(__file__).parents[2])}))
            waits.append({name: statistics.median(found) for name, found in _read(folder).items()})
        median = {name: 1000 * statistics.median(wait[name] for wait in waits) for name in waits[0]}
        said = ", ".join(f"{name} {ms:.2f}" for name, ms in median.items())
        made.append(
            single_figure(
                "latency, warm no-op callback",
                f"{store} store",
                streams,
                taken,
                target=f"<= {1000 * MOST_S:g} ms from commit to call: {said}",
                is_met=median["all"] <= 1000 * MOST_S,
            )
        )
    return made


def _read(folder: Path) -> Mapping[str, Sequence[float]]:
    found: Mapping[str, Sequence[float]] = json.loads((folder / "waits.json").read_text())
    return found


def measure(folder: Path, streams: int, store: str) -> Mapping[str, Sequence[float]]:
    """Run the pipeline; return the seconds from each commit to its call, and of the stages of that."""
    from syncblocks import Progress, run_pipeline
    from syncblocks.callbacks import runners
    from syncblocks.callbacks.protocols import Delivery, Outcome
    from syncblocks.sync.store import close, outbox

    (folder / "nothing.py").write_text(_CALLBACK)
    names = [f"s{number}" for number in range(streams)]
    table = {"columns": {"id": "int64"}, "key": ["id"], "records": [{"id": 1}]}
    document: dict[str, Any] = {
        "pipeline": "p",
        "concurrency": 1,
        # Between two streams there is time to tell of the first one.
        "source": {"connector": "memory", "config": {"tables": dict.fromkeys(names, table), "delay_s": 0.01}},
        "destination": {"connector": "memory", "config": {"database": "latency"}},
        "streams": [{"stream": name} for name in names],
        "callbacks": [{"file": "nothing.py"}],
        **({"store": store} if store else {}),
    }
    (folder / "pipeline.yaml").write_text(json.dumps(document))
    committed: dict[str, float] = {}
    leased: dict[str, float] = {}
    sent: dict[str, float] = {}
    called: dict[str, float] = {}

    def marked(
        genuine: Callable[..., Any], note: Callable[..., None], *, is_before: bool = False
    ) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            if is_before:
                note(time.monotonic(), None, *args)
            result = genuine(*args, **kwargs)
            if not is_before:
                note(time.monotonic(), result, *args)
            return result

        return noted

    def note_close(now: float, _: Any, __: Any, ___: Any, outcome: Any) -> None:
        committed[outcome.stream] = now

    def note_lease(now: float, found: Any, *_: Any) -> None:
        if isinstance(found, Delivery):
            leased[found.label.partition(":")[2]] = now

    def note_run(now: float, _: Any, __: Any, request: Any) -> None:
        sent[request["kwargs"]["stream"]] = now

    class Heard(Progress):
        def delivered(self, delivery: Delivery, outcome: Outcome, mark: str) -> None:
            name, now = outcome.output.split()
            called[name] = float(now)

    # The transaction that ends a stream claims the next one, which decides that this one was not the last.
    close.Closing.close_stream = marked(close.Closing.close_stream, note_close)  # type: ignore[method-assign]
    outbox.StoreOutbox.lease = marked(outbox.StoreOutbox.lease, note_lease)  # type: ignore[method-assign]
    runners.ChildRunner.run = marked(runners.ChildRunner.run, note_run, is_before=True)  # type: ignore[method-assign]
    result = run_pipeline(folder / "pipeline.yaml", progress=Heard())
    assert result.exit_code == 0, result
    # The last one waits for every connection to be closed, as it should.
    told = names[_WARM:-1]
    return {
        "all": [called[name] - committed[name] for name in told],
        "lease": [leased[name] - committed[name] for name in told],
        "prepare": [sent[name] - leased[name] for name in told],
        "child": [called[name] - sent[name] for name in told],
    }


__all__ = ["latency"]

if __name__ == "__main__":
    place = Path(sys.argv[1])
    (place / "waits.json").write_text(json.dumps(measure(place, int(sys.argv[2]), sys.argv[3])))
