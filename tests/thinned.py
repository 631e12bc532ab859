"""Chooses the cases of a grid that run in CI. The full set of faults (`SYNCBLOCKS_FAULTS=full`) has all cases.

With `@pytest.mark.thinned(1)`, each value of a parameter occurs in at least one case. With `thinned(2)`, each pair of
values of different parameters does. Use the mark where the values of the parameters meet in the same code and the cases
are expensive. For a grid of one parameter use `only_full`, and for one test or case `@pytest.mark.only_faults`.
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
    """Return values of a parameter that only the full set has. Another value covers their code in CI."""
    return values if os.environ.get("SYNCBLOCKS_FAULTS") == "full" else ()


def thinned(items: Sequence[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """Return the tests to run and the tests to leave out, in their order."""
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
    """Return few items of one function that together have each combination of values of all its items."""
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
