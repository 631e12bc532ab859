"""`python -m tests.benchmarks.workers FILE`: the plot of docs/scale.md; FILE is of `tests.sync.store.simulation`."""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.report import DOCS

#: Seconds of a run that are one point of a line.
POINT_S = 10
#: Streams of a run that are too few to be a point, transactions a second that are.
FEW, IDLE = 20, 1.0
#: Percentile -> its colour.
_WAITS = {50: "#1f77b4", 95: "#ff7f0e", 99: "#d62728"}

Points = Sequence[tuple[float, float]]


def main(path: str) -> None:
    """Draw the plot, and print the figures of the page's text."""
    with Path(path).open() as file:
        runs = [json.loads(line) for line in file]
    lags = [lag for run in runs for _, lag in run["lags"]]
    block_runs, seconds = (sum(run[name] for run in runs) for name in ("block_runs", "seconds"))
    died, frozen, refused, lost = (sum(run[name] for run in runs) for name in ("died", "frozen", "refused", "lost"))
    cuts = statistics.quantiles(lags, n=100)
    load = sum(sum(run["load"].values()) for run in runs) / seconds
    sys.stdout.write(
        f"{len(runs)} runs, {block_runs:,} block runs, {sum(len(run['violations']) for run in runs)} violations; "
        f"died {died:,}, frozen {frozen:,}, refused {refused:,}, streams that failed {lost}; "
        f"waits {cuts[49]:.0f}, {cuts[94]:.0f}, {cuts[98]:.0f} s (median, 95 and 99 of 100); "
        f"{load:.0f} transactions a second, at most {max(rate for _, rate in rates(runs)):.0f}; "
        f"{min(cost for _, cost in costs(runs)):.2f} to {max(cost for _, cost in costs(runs)):.2f} ms each\n"
    )
    draw(runs)


def waits(runs: Sequence[Mapping[str, Any]], percent: int) -> Points:
    """Return a percentile of the waits, by the time of the run at which streams start."""
    by_time: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        for at, lag in run["lags"]:
            by_time[int(at // POINT_S)].append(lag)
    return [
        (POINT_S * place, statistics.quantiles(found, n=100)[percent - 1])
        for place, found in sorted(by_time.items())
        if len(found) >= FEW * len(runs)
    ]


def rates(runs: Sequence[Mapping[str, Any]]) -> Points:
    """Return transactions a second, the mean of the runs, by their time."""
    by_time: dict[int, int] = defaultdict(int)
    for run in runs:
        for second, number in run["load"].items():
            by_time[int(second) // POINT_S] += number
    points = [(POINT_S * place, number / POINT_S / len(runs)) for place, number in sorted(by_time.items())]
    return [(at, rate) for at, rate in points if rate >= IDLE]


def costs(runs: Sequence[Mapping[str, Any]]) -> Points:
    """Return milliseconds of processor time of a transaction, by the block runs that the store has after a run."""
    points, kept = [], 0
    for run in runs:
        kept += run["block_runs"]
        points.append((kept, 1000 * run["cpu_s"] / sum(run["load"].values())))
    return points


def draw(runs: Sequence[Mapping[str, Any]]) -> None:
    """Draw docs/scale.svg."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "syncblocks"  # the same figures make the same file
    from matplotlib import pyplot as plt

    drawn, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.2))
    for percent, colour in _WAITS.items():
        left.plot(*zip(*waits(runs, percent), strict=True), color=colour, label=f"{percent} of 100")
    left.legend(fontsize=8, frameon=False)
    middle.plot(*zip(*rates(runs), strict=True), color=_WAITS[50])
    right.plot(*zip(*costs(runs), strict=True), color=_WAITS[50])
    for axes, title, below in (
        (left, "a stream waits for its worker, s", "second of the run"),
        (middle, "transactions of the run store a second", "second of the run"),
        (right, "processor time of a transaction, ms", "thousands of block runs that the store keeps"),
    ):
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(below, fontsize=8)
        axes.tick_params(labelsize=8)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    right.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.0f}")
    drawn.tight_layout()
    drawn.savefig(DOCS / "scale.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(sys.argv[1])
