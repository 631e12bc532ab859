"""Fewer cases of a grid in the set of each commit; all of them in the full set (`SYNCBLOCKS_FAULTS=full`).

`@pytest.mark.thinned(2)` on a function, over whatever parametrizes it: of its cases so few that each two values of
different parameters meet in one; `thinned(1)`: so few that each value is in one. It is for parameters that meet in the
same code, whose cases take long. A grid of one parameter has fewer cases by `only_full`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import combinations

import pytest

MARK = "thinned"
#: A test or a case that only the full set runs.
ONLY_FAULTS = "only_faults"


def only_full(*values: str) -> tuple[str, ...]:
    """Return values of a parameter that only the full set takes: in each commit another value stands for their code."""
    return values if os.environ.get("SYNCBLOCKS_FAULTS") == "full" else ()


def thinned(items: Sequence[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Return the tests to run and those to leave out, in their order."""
    grids: dict[str, list[pytest.Item]] = {}
    for item in items if os.environ.get("SYNCBLOCKS_FAULTS") != "full" else ():
        if item.get_closest_marker(MARK) is not None:
            grids.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left_out = {item.nodeid for grid in grids.values() for item in grid} - {
        item.nodeid for grid in grids.values() for item in _covering(grid)
    }
    if os.environ.get("SYNCBLOCKS_FAULTS") != "full":
        left_out |= {item.nodeid for item in items if item.get_closest_marker(ONLY_FAULTS) is not None}
    return [item for item in items if item.nodeid not in left_out], [item for item in items if item.nodeid in left_out]


def _covering(grid: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Return some items of one function that have among them every combination that any of its items has."""
    mark = grid[0].get_closest_marker(MARK)
    assert mark is not None
    size = min(mark.args[0], len(_values(grid[0])))
    meetings = {item.nodeid: set(combinations(_values(item), size)) for item in grid}
    missing, chosen = set().union(*meetings.values()), []
    while missing:
        best = max(grid, key=lambda item: len(meetings[item.nodeid] & missing))
        chosen.append(best)
        missing -= meetings[best.nodeid]
    return chosen


def _values(item: pytest.Item) -> list[tuple[str, int]]:
    # The same object in each of its cases: some values cannot be compared.
    return sorted((name, id(value)) for name, value in item.callspec.params.items())  # type: ignore[attr-defined]
